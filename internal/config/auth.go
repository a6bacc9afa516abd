package config

import (
	"encoding/base64"
	"net"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// How it is decided who may watch: the values of auth.mode.
const (
	AuthToken = "token" // tokens that this gateway has signed, its users' passwords, and the links it gives out
	AuthJWT   = "jwt"   // these, and tokens that others have signed, by Keys or JWKS
	AuthNone  = "none"  // everyone who reaches the port, for everything
)

// Auth is who may do what.
type Auth struct {
	Mode      string // AuthToken, AuthJWT or AuthNone; default AuthToken
	AllowOpen bool   // listening beyond loopback without authentication is meant
	Keys      []string
	JWKS      string // URL of a JSON Web Key Set (RFC 7517); "": none
	Issuer    string // iss that tokens of others must have; "": any
	Audience  string // aud that tokens of others must have; "": any
	Users     map[string]User
	Machines  map[string]Machine // by a name in the certificate that they show (HTTPS.ClientCA)
}

// User is one who logs in with a password.
type User struct {
	Password Password
	Role     string   // viewer, publisher, host or admin; default viewer
	Rooms    []string // patterns; default "*"
	Streams  []string // patterns; none: all
}

// Machine is what shows a certificate instead of a token.
type Machine struct {
	Role    string   // default publisher
	Rooms   []string // patterns; default "*"
	Streams []string // patterns; none: all
}

// Password is an Argon2id hash in the PHC string format
// ($argon2id$v=19$m=65536,t=3,p=4$SALT$HASH).
type Password struct {
	Memory  uint32 // KiB
	Time    uint32 // passes
	Threads uint8
	Salt    []byte
	Hash    []byte
}

var phc = regexp.MustCompile(`^\$argon2id\$v=19\$m=([0-9]{1,7}),t=([0-9]{1,2}),p=([0-9]{1,2})\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})$`)

// Bounds of a password's cost: below the least it is guessed too quickly, above
// the most a login could starve the gateway (256 MiB, a second or so).
const (
	leastMemory, mostMemory = 8 << 10, 256 << 10 // KiB
	mostPasses              = 16
	mostThreads             = 16
)

// ParsePassword reads a PHC string. It tells ok false of what isn't one, or is
// too cheap or too dear.
func ParsePassword(text string) (p Password, ok bool) {
	m := phc.FindStringSubmatch(text)
	if m == nil {
		return p, false
	}
	number := func(s string) int { n, _ := strconv.Atoi(s); return n } // digits only
	memory, passes, threads := number(m[1]), number(m[2]), number(m[3])
	salt, err1 := base64.RawStdEncoding.DecodeString(m[4])
	hash, err2 := base64.RawStdEncoding.DecodeString(m[5])
	if err1 != nil || err2 != nil || memory < leastMemory || memory > mostMemory ||
		passes < 1 || passes > mostPasses || threads < 1 || threads > mostThreads {
		return p, false
	}
	return Password{Memory: uint32(memory), Time: uint32(passes), Threads: uint8(threads), Salt: salt, Hash: hash}, true
}

// String writes the PHC string.
func (p Password) String() string {
	b64 := base64.RawStdEncoding.EncodeToString
	return "$argon2id$v=19$m=" + strconv.Itoa(int(p.Memory)) + ",t=" + strconv.Itoa(int(p.Time)) + ",p=" + strconv.Itoa(int(p.Threads)) +
		"$" + b64(p.Salt) + "$" + b64(p.Hash)
}

// userSchema is one entry of auth.users.
var userSchema = &schema{
	what: "user",
	keys: []key{
		{path: "password", kind: ofText, example: "$argon2id$v=19$m=65536,t=3,p=4$…", meaning: "what `gateway token -hash` prints"},
		{path: "role", kind: ofWord, def: "viewer", words: []string{"viewer", "publisher", "host", "admin"}, meaning: "what they may do"},
		{path: "rooms", kind: ofTexts, def: `["*"]`, example: "[lobby]", meaning: "patterns of the rooms in which they may"},
		{path: "streams", kind: ofTexts, def: "[]", example: "[front-*]", meaning: "patterns of the streams of these rooms; empty: all"},
	},
}

// machineSchema is one entry of auth.machines.
var machineSchema = &schema{
	what: "machine",
	keys: []key{
		{path: "role", kind: ofWord, def: "publisher", words: []string{"viewer", "publisher", "host", "admin"}, meaning: "what it may do"},
		{path: "rooms", kind: ofTexts, def: `["*"]`, example: "[lobby]", meaning: "patterns of the rooms in which it may"},
		{path: "streams", kind: ofTexts, def: "[]", example: "[front-*]", meaning: "patterns of the streams of these rooms; empty: all"},
	},
}

func readAuth(m *mapping) Auth {
	a := Auth{Mode: m.one("mode", AuthToken), AllowOpen: m.boolean("allow_open", false)}
	for _, n := range m.list("keys") {
		if n.Value == "" {
			m.d.fault(n, "auth.keys", "it is empty", "name a file of a key")
			continue
		}
		a.Keys = append(a.Keys, n.Value)
	}
	if a.JWKS = m.text("jwks", "", 2048); a.JWKS != "" && !isKeySetURL(a.JWKS) {
		m.fault("jwks", quote(a.JWKS)+" is not the URL of a key set", "write one that begins with https:// (http:// on this machine only)")
	}
	a.Issuer = m.text("issuer", "", 512)
	a.Audience = m.text("audience", "", 512)
	a.Users = named(m, "users", userSchema, userName, "use letters, digits, and . _ @ + -, at most 64", readUser)
	a.Machines = named(m, "machines", machineSchema, machineName, "write a name of its certificate: host name, URI, e-mail address, or the subject's common name", readMachine)
	switch {
	case a.Mode != AuthJWT && (len(a.Keys) > 0 || a.JWKS != ""):
		m.fault("mode", "auth.keys and auth.jwks are for tokens of others, which mode "+a.Mode+" doesn't take", "set auth.mode: jwt, or remove them")
	case a.Mode == AuthJWT && len(a.Keys) == 0 && a.JWKS == "":
		m.fault("mode", "there is no key for tokens of others", "name key files under auth.keys or a key set under auth.jwks, or set auth.mode: token")
	case a.JWKS != "" && a.Audience == "":
		m.fault("jwks", "its issuer signs tokens for others too, and auth.audience doesn't say which are for this gateway", "set auth.audience to what the issuer writes into aud")
	case a.Mode == AuthNone && len(a.Users) > 0:
		m.fault("users", "nobody is asked for a password (auth.mode: none)", "set auth.mode: token, or remove them")
	case a.Mode == AuthNone && len(a.Machines) > 0:
		m.fault("machines", "nobody is asked who they are (auth.mode: none)", "set auth.mode: token, or remove them")
	}
	return a
}

// isKeySetURL tells an address that others on the way can't change the answer of.
func isKeySetURL(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname())
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

var userName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._@+-]{0,63}$`)

// machineName is what a certificate can have for a name: no spaces, so that a slip shows.
var machineName = regexp.MustCompile(`^[!-~]{1,255}$`)

// named reads a mapping of names, each with the keys of a schema of its own.
func named[T any](m *mapping, key string, s *schema, valid *regexp.Regexp, remedy string, read func(*document, *mapping, *yaml.Node) T) map[string]T {
	n := m.value(key)
	if n == nil || n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return nil
	}
	full := joinPath(m.path, key)
	if n.Kind != yaml.MappingNode {
		m.fault(key, "expected names, found "+describe(n), "write NAME: {…}, with the keys "+strings.Join(s.children(""), ", "))
		return nil
	}
	all := map[string]T{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, v := n.Content[i], n.Content[i+1]
		path := joinPath(full, name.Value)
		switch _, twice := all[name.Value]; {
		case name.Kind != yaml.ScalarNode || !valid.MatchString(name.Value):
			m.d.fault(name, full, quote(name.Value)+" is no name of a "+s.what, remedy)
			continue
		case twice:
			m.d.fault(name, path, "the "+s.what+" is there already", "remove one of them")
			continue
		case v.Kind == yaml.AliasNode:
			m.d.fault(v, path, "aliases are not supported", "write the value out")
			continue
		}
		sub := &document{file: m.d.file, schema: s, at: map[string]position{}, origins: m.d.origins}
		all[name.Value] = read(sub, sub.mapping(v, ""), v)
		for _, e := range sub.errs {
			e.Key = strings.TrimSuffix(path+"."+e.Key, ".")
			m.d.errs = append(m.d.errs, e)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

func readMachine(_ *document, m *mapping, _ *yaml.Node) Machine {
	machine := Machine{Role: m.one("role", "publisher"), Rooms: m.patterns("rooms"), Streams: m.patterns("streams")}
	if machine.Rooms == nil {
		machine.Rooms = []string{"*"}
	}
	return machine
}

func readUser(d *document, m *mapping, n *yaml.Node) User {
	u := User{Role: m.one("role", "viewer"), Rooms: m.patterns("rooms"), Streams: m.patterns("streams")}
	if u.Rooms == nil {
		u.Rooms = []string{"*"}
	}
	text := m.text("password", "", 256)
	var ok bool
	switch u.Password, ok = ParsePassword(text); {
	case m.node != nil && !m.has("password"):
		d.fault(n, "password", "it is missing", "make one with: gateway token -hash")
	case m.node != nil && !ok: // the text isn't repeated: it may be a password
		m.fault("password", "it is not an Argon2id hash of sensible cost", "make one with: gateway token -hash")
	}
	return u
}

// patterns reads a list of patterns of names, in the syntax of path.Match.
func (m *mapping) patterns(name string) []string {
	var patterns []string
	for _, n := range m.list(name) {
		if _, err := path.Match(n.Value, ""); err != nil || n.Value == "" || len(n.Value) > 128 {
			m.d.fault(n, joinPath(m.path, name), quote(n.Value)+" is no pattern of names", "write a name, or a pattern such as front-*")
			continue
		}
		patterns = append(patterns, n.Value)
	}
	if slices.Contains(patterns, "*") {
		return []string{"*"}
	}
	return patterns
}

// checkListen checks the address, and that nobody serves the network without
// having said so.
func checkListen(m *mapping, g *Gateway) {
	host, port, err := net.SplitHostPort(g.Listen)
	n, perr := strconv.Atoi(port)
	switch {
	case err != nil || perr != nil:
		m.fault("listen", quote(g.Listen)+" is not an address with a port", "write host:port, such as 127.0.0.1:8080 or [::1]:8080")
		return
	case n < 0 || n > 65535:
		m.fault("listen", "there is no port "+port, "allowed are 1 to 65535")
		return
	}
	_, err = netip.ParseAddr(host)
	switch {
	case isLoopback(host):
		return
	case err != nil && host != "" && !hostName.MatchString(host):
		m.fault("listen", quote(host)+" is not a host", "write an IP address or a host name")
		return
	}
	if g.Auth.Mode == AuthNone && !g.Auth.AllowOpen {
		m.fault("listen", g.Listen+" can be reached from other machines, and nobody is asked who they are (auth.mode: none)",
			"set auth.mode: token, listen on 127.0.0.1, or set auth.allow_open: true if everyone on that network may do everything")
	}
}
