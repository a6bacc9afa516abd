package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// DefaultPath is where the gateway looks for its configuration unless told
// otherwise. Only there a missing file means defaults.
const DefaultPath = "configs/gateway.yaml"

// EnvPrefix begins the names of the variables that override keys: the key's path
// in capitals, joined by _, such as GATEWAY_AUTH_MODE.
const EnvPrefix = "GATEWAY_"

// Gateway is configs/gateway.yaml, checked, with defaults.
type Gateway struct {
	Listen    string // address of HTTP and signaling, "host:port"; default 127.0.0.1:8080
	Pipelines string // folder of pipelines; default "pipelines/"
	Encoders  string // file of the operator's own encoder rows, for LoadEncoders; default "": none
	State     string // folder of what the gateway keeps, see stateDir; "" if there is none
	Auth      Auth
	HTTP      HTTP
	HTTPS     HTTPS
	ICE       ICE
	Rooms     []Room // rooms of several streams, in the file's order; default none
	Room      Room   // what a room has that isn't listed, or doesn't say otherwise
	Log       Log
	Limits    Limits
	Isolation string // where pipelines run that don't say otherwise: IsolationProcess (default) or IsolationNone
	Worker    Worker // likewise
	Confine   Confine
	Elements  Elements
}

// ICE is how viewers reach the gateway's media port.
type ICE struct {
	Servers         []ICEServer
	PublicAddresses []string // IP addresses announced in place of the host's own (NAT)
	RelayOnly       bool     // viewers connect through TURN only: no other candidates are taken
	Lite            bool     // viewers that need no help to reach the gateway get an ICE-lite connection, which costs less; default false
	Interfaces      []string // network interfaces to use; empty: all
	UDPPort         int      // media port; 0: the port of Listen
}

// ICEServer is a STUN or TURN server that the viewers use.
type ICEServer struct {
	URLs       []string // stun:, stuns:, turn: or turns: (RFC 7064, RFC 7065)
	Username   string   // for turn and turns
	Credential string   // for turn and turns
}

// Log is what is logged, and how.
type Log struct {
	Level  string // "debug", "info", "warn" or "error"; default info
	Format string // "text" or "json"; default text
	GST    string // GStreamer's own messages, in the syntax of GST_DEBUG; default "" (none)
}

// Limits bound what the gateway takes on.
type Limits struct {
	Viewers           int           // at a time, of all streams together; default 1000
	Rooms             int           // that were made on join, at a time; default 100
	SocketsPerAddress int           // WebSockets at a time, 0: no limit; default 500
	ConnsPerAddress   int           // TCP connections at a time, 0: no limit; default 1000
	JoinsPerAddress   int           // joins a second, 0: no limit; default 50
	SessionsPerUser   int           // at a time by the tokens of one subject, 0: no limit; default 0
	ShutdownTimeout   time.Duration // for a clean stop; default 10s
}

// Flag overrides a key from the command line. It is stronger than a variable.
type Flag struct {
	Name  string // as the user wrote it, such as "-listen"; findings name it
	Key   string // such as "listen"
	Value string
}

var gatewaySchema = &schema{
	what: "gateway configuration",
	keys: slices.Concat([]key{
		{path: "listen", kind: ofText, def: "127.0.0.1:8080", example: "0.0.0.0:8080", meaning: "address of HTTP and signaling (TCP); ICE and media use UDP of the same number. With auth.mode: none beyond loopback only with auth.allow_open: true"},
		{path: "pipelines", kind: ofText, def: "pipelines/", example: "/etc/gateway/pipelines/", meaning: "folder of the pipeline files"},
		{path: "encoders", kind: ofText, def: `""`, example: "configs/encoders.yaml", meaning: "YAML file of encoders that are added to the gateway's own, or change them"},
		{path: "state", kind: ofText, def: `""`, example: "/var/lib/gateway", meaning: "folder in which the gateway keeps the keys and certificates that it makes, and the admin's token; empty: $STATE_DIRECTORY, else $XDG_STATE_HOME/gateway, else ~/.local/state/gateway"},
		{path: "auth", kind: ofSection, meaning: "who may do what"},
		{path: "auth.mode", kind: ofWord, def: AuthToken, words: []string{AuthToken, AuthJWT, AuthNone}, meaning: "token: who has a token of this gateway, or a password; jwt: also who has one that is signed by keys or jwks; none: everyone who reaches the port may do everything"},
		{path: "auth.allow_open", kind: ofFlag, def: "false", meaning: "listen beyond loopback although nobody is asked who they are"},
		{path: "auth.keys", kind: ofTexts, def: "[]", example: "[/etc/gateway/keys/portal.pem]", meaning: "files of the keys by which others sign tokens: public keys in PEM, or secrets of 32 bytes or more; the file's name without its ending is the kid"},
		{path: "auth.jwks", kind: ofText, def: `""`, example: "https://login.example.org/jwks.json", meaning: "URL of the set of public keys by which others sign tokens; empty: none"},
		{path: "auth.issuer", kind: ofText, def: `""`, example: "https://login.example.org", meaning: "iss that tokens of others must have; empty: any"},
		{path: "auth.audience", kind: ofText, def: `""`, example: "gateway", meaning: "aud that tokens of others must have; needed with jwks"},
		{path: "auth.users", kind: ofNamed, of: userSchema, names: userName, def: "{}", example: "{anna: {password: $argon2id$…, role: host}}", meaning: "who logs in with a password: a name each, with password (what `gateway token -hash` prints), role (viewer, publisher, host, admin), rooms and streams (patterns of names)"},
		{path: "auth.machines", kind: ofNamed, of: machineSchema, names: machineName, def: "{}", example: "{camera-7.lan: {rooms: [hall]}}", meaning: "which machines may come with a certificate of https.client_ca in place of a token: a name in it each (host name, URI, e-mail address, or common name), with role (default publisher), rooms and streams"},
		{path: "http", kind: ofSection, meaning: "what browsers of other sites may do, and which proxies are in front"},
		{path: "http.allowed_origins", kind: ofTexts, def: "[]", example: "[https://example.org]", meaning: "origins of other sites whose pages may watch; \"*\" allows all"},
		{path: "http.trusted_proxies", kind: ofTexts, def: "[]", example: "[127.0.0.1, 10.0.0.0/8]", meaning: "addresses of reverse proxies whose X-Forwarded-For is believed: limits and logs then go by the client's address"},
	}, httpsKeys, []key{
		{path: "ice", kind: ofSection, meaning: "how viewers reach the media port"},
		{path: "ice.servers", kind: ofSections, def: "[]", example: "[stun:stun.example.org:3478]", meaning: "STUN and TURN servers, at most 16, that are handed to the viewers"},
		{path: "ice.public_addresses", kind: ofTexts, def: "[]", example: "[203.0.113.7]", meaning: "IP addresses that are announced in place of this machine's own"},
		{path: "ice.relay_only", kind: ofFlag, def: "false", meaning: "connect viewers through a TURN server only"},
		{path: "ice.lite", kind: ofFlag, def: "false", meaning: "connect viewers that reach the gateway without help by ICE-lite, which takes less memory and CPU; not with relay_only"},
		{path: "ice.interfaces", kind: ofTexts, def: "[]", example: "[eth0]", meaning: "network interfaces to use; empty: all"},
		{path: "ice.udp_port", kind: ofCount, def: "0", least: 0, most: 65535, meaning: "UDP port of ICE and media; 0: the port of listen"},
		{path: "rooms", kind: ofNamed, of: roomSchema, names: streamName, most: maxRooms, def: "{}", example: "{lobby: {title: Lobby, streams: [door, yard]}}", unit: "at most 1000", meaning: "rooms of several streams, by name; every stream is a room of its own name, too"},
		{path: "room", kind: ofSection, meaning: "what a room has that isn't listed under rooms, or doesn't say otherwise"},
		{path: "room.max_participants", kind: ofCount, def: "0", least: 0, most: 100_000, meaning: "participants at a time, viewers included; 0: no limit but limits.viewers"},
		{path: "room.empty_timeout", kind: ofDuration, def: "5m", unit: "0s to 24h, 0s: never", least: 0, most: 24 * 3600, meaning: "how long a room that was made on join stays when all have left, or it was closed"},
		{path: "room.departure_timeout", kind: ofDuration, def: "30s", unit: "0s to 10m", least: 0, most: 600, meaning: "how long a participant whose connection was lost keeps the place"},
	}, workerKeys(false), confineKeys, elementKeys, []key{
		{path: "log", kind: ofSection, meaning: "what is logged, and how"},
		{path: "log.level", kind: ofWord, def: "info", words: []string{"debug", "info", "warn", "error"}, meaning: "the least severe that is logged"},
		{path: "log.format", kind: ofWord, def: "text", words: []string{"text", "json"}, meaning: "for people or for programs"},
		{path: "log.gst", kind: ofText, def: `""`, example: "v4l2*:5,x264enc:4", meaning: "GStreamer's own messages, in the syntax of GST_DEBUG; empty: none"},
		{path: "limits", kind: ofSection, meaning: "what the gateway takes on"},
		{path: "limits.viewers", kind: ofCount, def: "1000", least: 1, most: 100_000, meaning: "viewers at a time, of all streams together"},
		{path: "limits.rooms", kind: ofCount, def: "100", least: 0, most: 100_000, meaning: "rooms that were made on join, at a time"},
		{path: "limits.sockets_per_address", kind: ofCount, def: "500", least: 0, most: 100_000, meaning: "WebSockets of one address at a time (of IPv6 a /64); 0: no limit. All who come through a reverse proxy have its address, unless http.trusted_proxies has it"},
		{path: "limits.connections_per_address", kind: ofCount, def: "1000", least: 0, most: 100_000, meaning: "TCP connections of one address at a time (of IPv6 a /64); 0: no limit. Those of http.trusted_proxies are not counted"},
		{path: "limits.joins_per_address", kind: ofCount, def: "50", least: 0, most: 100_000, meaning: "joins a second from one address, twice as many at once; 0: no limit"},
		{path: "limits.sessions_per_user", kind: ofCount, def: "0", least: 0, most: 100_000, meaning: "sessions at a time by the tokens of one subject; 0: no limit. Who shares a token shares it"},
		{path: "limits.shutdown_timeout", kind: ofDuration, def: "10s", least: 1, most: 300, meaning: "how long a clean stop may take"},
	}),
	later: map[string]string{
		"tls":  "remove it; HTTPS is configured under https",
		"turn": "remove it; name a TURN server under ice.servers",
	},
}

// serverSchema is one entry of ice.servers.
var serverSchema = &schema{
	what: "ICE server",
	keys: []key{{path: "urls", kind: ofTexts}, {path: "username", kind: ofText}, {path: "credential", kind: ofText}},
}

// LoadGateway reads and checks the gateway's configuration. Variables of environ
// ("NAME=value", as os.Environ has them) that begin with GATEWAY_ override its
// keys, flags override both. The error is Errors: all findings at once.
func LoadGateway(path string, environ []string, flags ...Flag) (*Gateway, error) {
	data, fault := readFile(path)
	if fault != nil {
		if _, err := os.Lstat(path); path != DefaultPath || !errors.Is(err, os.ErrNotExist) {
			return nil, Errors{fault}
		}
		data = nil
	}
	return parseGateway(path, data, environ, flags)
}

func parseGateway(path string, data []byte, environ []string, flags []Flag) (*Gateway, error) {
	d := &document{file: path, schema: gatewaySchema, at: map[string]position{}, origins: map[*yaml.Node]string{}}
	top := d.parse(data)
	if top == nil {
		top = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: 1, Column: 1}
	}
	d.environment(top, environ)
	for _, f := range flags {
		d.override(top, f.Key, f.Value, "command line: "+f.Name)
	}
	g := &Gateway{}
	m := d.mapping(top, "")
	section := func(name string) *mapping { return d.mapping(m.value(name), name) }
	g.Listen = m.text("listen", "127.0.0.1:8080", 255)
	g.Pipelines = m.text("pipelines", "pipelines/", 4096)
	if g.Pipelines == "" {
		m.fault("pipelines", "it is empty", "name the folder of the pipeline files")
	}
	g.Encoders = m.text("encoders", "", 4096)
	g.State = cmp.Or(m.text("state", "", 4096), stateDir(environ))
	auth := section("auth")
	g.Auth = readAuth(auth)
	checkListen(m, g)
	g.HTTP = readHTTP(section("http"))
	g.HTTPS = readHTTPS(section("https"), g.Listen)
	if len(g.Auth.Machines) > 0 && g.HTTPS.ClientCA == "" {
		auth.fault("machines", "nobody can show a certificate: https.client_ca is missing", "name the CA that signs them")
	}
	readICE(section("ice"), &g.ICE)
	g.Room = readRoom(section("room"), Room{EmptyTimeout: 5 * time.Minute, DepartureTimeout: 30 * time.Second})
	g.Rooms = readRooms(m, g.Room)
	g.Isolation = m.one("isolation", IsolationProcess)
	g.Worker = readWorker(section("worker"))
	g.Confine = readConfine(section("confine"))
	g.Elements = readElements(section("elements"))
	log := section("log")
	g.Log.Level = log.one("level", "info")
	g.Log.Format = log.one("format", "text")
	g.Log.GST = readDebug(log)
	limits := section("limits")
	g.Limits.Viewers = limits.integer("viewers", 1000, "viewers")
	g.Limits.Rooms = limits.integer("rooms", 100, "rooms")
	g.Limits.SocketsPerAddress = limits.integer("sockets_per_address", 500, "sockets")
	g.Limits.ConnsPerAddress = limits.integer("connections_per_address", 1000, "connections")
	g.Limits.JoinsPerAddress = limits.integer("joins_per_address", 50, "joins a second")
	g.Limits.SessionsPerUser = limits.integer("sessions_per_user", 0, "sessions")
	g.Limits.ShutdownTimeout = limits.duration("shutdown_timeout", 10*time.Second)
	if err := d.errs.orNil(); err != nil {
		return nil, err
	}
	return g, nil
}

// stateDir is where the gateway keeps what it makes unless the file says: the
// folder that systemd has made for it, else the user's own (XDG Base Directory
// Specification); "" where there is neither.
func stateDir(environ []string) string {
	value := func(name string) (v string) {
		for _, entry := range environ {
			if k, rest, _ := strings.Cut(entry, "="); k == name {
				v = rest // the last counts
			}
		}
		return v
	}
	first, _, _ := strings.Cut(value("STATE_DIRECTORY"), ":") // systemd.exec(5): perhaps several
	switch xdg, home := value("XDG_STATE_HOME"), value("HOME"); {
	case filepath.IsAbs(first):
		return first
	case filepath.IsAbs(xdg):
		return filepath.Join(xdg, "gateway")
	case filepath.IsAbs(home):
		return filepath.Join(home, ".local", "state", "gateway")
	}
	return ""
}

// envName is the variable that overrides a key.
func envName(path string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// environment puts the values of variables into the tree. A name that is no key
// is a finding only if it is nearly one: others have variables of that prefix
// too (Kubernetes makes GATEWAY_SERVICE_HOST of a service called gateway).
func (d *document) environment(top *yaml.Node, environ []string) {
	names := map[string]string{} // variable → key
	var known []string
	for _, k := range gatewaySchema.keys {
		if len(gatewaySchema.children(k.path)) == 0 {
			names[envName(k.path)] = k.path
			known = append(known, envName(k.path))
		}
	}
	for _, entry := range environ {
		name, value, ok := strings.Cut(entry, "=")
		if !ok || !strings.HasPrefix(name, EnvPrefix) {
			continue
		}
		origin := "environment variable " + name
		if path, ok := names[name]; ok {
			d.override(top, path, value, origin)
			continue
		}
		for _, k := range known {
			if distance(name, k) <= 2 {
				d.errs = append(d.errs, &Error{File: origin, Message: "no such key", Remedy: "did you mean " + k + "?", Severity: Fault})
				break
			}
		}
	}
}

// listKeys are the keys whose variables hold lists, split at commas.
var listKeys = map[string]bool{"auth.keys": true, "confine.paths": true, "elements.allow": true, "http.allowed_origins": true, "http.trusted_proxies": true, "https.names": true, "https.acme.domains": true, "ice.servers": true, "ice.public_addresses": true, "ice.interfaces": true}

// structured are the keys whose variables may hold JSON or YAML, with an example.
var structured = map[string]string{
	"ice.servers":   `[{"urls": "turn:turn.example.org", "username": "u", "credential": "c"}]`,
	"rooms":         `{"lobby": {"title": "Lobby", "streams": ["door", "yard"]}}`,
	"auth.machines": `{"camera-7.lan": {"role": "publisher", "rooms": ["hall"]}}`,
	"auth.users":    `{"anna": {"password": "$argon2id$…", "role": "host"}}`,
}

// override sets a key of the tree to the text of a variable or flag. Findings
// about it name the origin.
func (d *document) override(top *yaml.Node, path, value, origin string) {
	parent := top
	names := strings.Split(path, ".")
	for _, name := range names[:len(names)-1] {
		next := child(parent, name)
		if next == nil || next.Kind != yaml.MappingNode {
			if next != nil && next.ShortTag() != "!!null" {
				return // a finding of its own
			}
			next = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
			setChild(parent, name, next)
		}
		parent = next
	}
	setChild(parent, names[len(names)-1], d.overriding(path, value, origin))
}

// overriding is the node that stands for a text from outside the file.
func (d *document) overriding(path, value, origin string) *yaml.Node {
	scalar := func(s string) *yaml.Node {
		// as if written plainly in the file: numbers and truth values are such
		n := &yaml.Node{Kind: yaml.ScalarNode, Value: s}
		if n.ShortTag() == "!!null" || n.ShortTag() == "!!merge" {
			n.Tag = "!!str"
		}
		return n
	}
	n := scalar(value)
	t := strings.TrimSpace(value)
	switch remedy := structured[path]; {
	case remedy != "" && (strings.HasPrefix(t, "[") || strings.HasPrefix(t, "{")):
		var doc yaml.Node
		if len(value) > maxFile || yaml.Unmarshal([]byte(value), &doc) != nil || len(doc.Content) == 0 {
			d.errs = append(d.errs, &Error{File: origin, Key: path, Message: "not JSON or YAML", Remedy: "write " + remedy, Severity: Fault})
			return &yaml.Node{}
		}
		n = doc.Content[0]
	case listKeys[path]:
		n = &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		for part := range strings.SplitSeq(value, ",") {
			if part = strings.TrimSpace(part); part != "" {
				n.Content = append(n.Content, scalar(part))
			}
		}
	}
	d.mark(n, origin)
	return n
}

// mark gives a tree its origin. It follows no alias, so that it ends.
func (d *document) mark(n *yaml.Node, origin string) {
	d.origins[n] = origin
	for _, c := range n.Content {
		d.mark(c, origin)
	}
}

func child(m *yaml.Node, name string) *yaml.Node {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == name {
			return m.Content[i+1]
		}
	}
	return nil
}

func setChild(m *yaml.Node, name string, v *yaml.Node) {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == name {
			m.Content[i+1] = v
			return
		}
	}
	m.Content = append(m.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name}, v)
}

var hostName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,251}[a-zA-Z0-9])?$`)

func readICE(m *mapping, ice *ICE) {
	ice.Servers = readServers(m)
	for _, n := range m.list("public_addresses") {
		addr, err := netip.ParseAddr(n.Value)
		if err != nil || addr.IsUnspecified() || addr.IsMulticast() || addr.Zone() != "" {
			m.d.fault(n, "ice.public_addresses", quote(n.Value)+" is not an IP address that viewers could reach", "write one such as 203.0.113.7")
			continue
		}
		ice.PublicAddresses = append(ice.PublicAddresses, addr.Unmap().String())
	}
	ice.RelayOnly = m.boolean("relay_only", false)
	ice.Lite = m.boolean("lite", false)
	for _, n := range m.list("interfaces") {
		if n.Value == "" || len(n.Value) > 15 || strings.ContainsAny(n.Value, "/ \t") { // IFNAMSIZ
			m.d.fault(n, "ice.interfaces", quote(n.Value)+" is not the name of a network interface", "write one such as eth0")
			continue
		}
		ice.Interfaces = append(ice.Interfaces, n.Value)
	}
	ice.UDPPort = m.integer("udp_port", 0, "(0: the port of listen)")
	if ice.RelayOnly {
		for _, s := range ice.Servers {
			for _, u := range s.URLs {
				if strings.HasPrefix(u, "turn") {
					return
				}
			}
		}
		if len(m.d.errs) == 0 {
			m.fault("relay_only", "there is no TURN server to relay by", "add one to ice.servers, with username and credential")
		}
	}
}

// readServers reads ice.servers: each an URL, or an object as RTCIceServer has it.
func readServers(m *mapping) []ICEServer {
	n := m.value("servers")
	if n == nil {
		return nil
	}
	items := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		items = n.Content
	}
	if len(items) > 16 {
		m.fault("servers", fmt.Sprintf("there are %d servers", len(items)), "at most 16; browsers slow down with more than a few")
		return nil
	}
	var servers []ICEServer
	for i, it := range items {
		path := "ice.servers"
		if len(items) > 1 {
			path += "[" + strconv.Itoa(i) + "]"
		}
		if it.Kind == yaml.ScalarNode && it.ShortTag() == "!!str" {
			if checkICEURL(m.d, it, path) {
				if strings.HasPrefix(it.Value, "turn") {
					m.d.fault(it, path, "a TURN server needs username and credential", `write it as {urls: `+it.Value+`, username: …, credential: …}`)
					continue
				}
				servers = append(servers, ICEServer{URLs: []string{it.Value}})
			}
			continue
		}
		sub := &document{file: m.d.file, schema: serverSchema, at: map[string]position{}, origins: m.d.origins}
		sm := sub.mapping(it, "")
		s := ICEServer{Username: sm.text("username", "", 512), Credential: sm.text("credential", "", 512)}
		turn := false
		for _, u := range sm.list("urls") {
			if checkICEURL(sub, u, "urls") {
				s.URLs = append(s.URLs, u.Value)
				turn = turn || strings.HasPrefix(u.Value, "turn")
			}
		}
		if sm.node != nil && !sm.has("urls") {
			sub.fault(it, "urls", "it is missing", "write urls: stun:stun.example.org:3478")
		}
		if turn && (s.Username == "" || s.Credential == "") {
			sub.fault(it, "", "a TURN server needs username and credential", "add both")
		}
		for _, e := range sub.errs {
			e.Key = strings.TrimSuffix(path+"."+e.Key, ".")
			m.d.errs = append(m.d.errs, e)
		}
		servers = append(servers, s)
	}
	return servers
}

// iceURL is the syntax of RFC 7064 §3.1 and RFC 7065 §3.1.
var iceURL = regexp.MustCompile(`^(stuns?|turns?):([a-zA-Z0-9.-]+|\[[0-9a-fA-F:.]+\])(?::([0-9]{1,5}))?(\?transport=(?:udp|tcp))?$`)

func checkICEURL(d *document, n *yaml.Node, path string) bool {
	p := iceURL.FindStringSubmatch(n.Value)
	remedy := "write one such as stun:stun.example.org:3478 or turn:turn.example.org:3478?transport=udp"
	switch {
	case p == nil:
		d.fault(n, path, quote(n.Value)+" is not the URL of a STUN or TURN server", remedy)
	case p[3] != "" && !validPort(p[3]):
		d.fault(n, path, quote(n.Value)+" has no valid port", remedy)
	case p[4] != "" && strings.HasPrefix(p[1], "stun"):
		d.fault(n, path, "a STUN URL has no transport", "remove "+quote(p[4]))
	default:
		return true
	}
	return false
}

func validPort(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n > 0 && n < 65536
}

// debugText is the syntax of GST_DEBUG: CATEGORY:LEVEL, comma-separated.
var debugText = regexp.MustCompile(`^([a-zA-Z0-9_*?.-]+:)?([0-9]|[A-Za-z]+)(,([a-zA-Z0-9_*?.-]+:)?([0-9]|[A-Za-z]+))*$`)

func readDebug(m *mapping) string {
	v := m.text("gst", "", 1024)
	if v != "" && !debugText.MatchString(v) {
		m.fault("gst", quote(v)+" is not in the syntax of GST_DEBUG", "write a level such as 3, or categories such as v4l2*:5,x264enc:4")
	}
	return v
}
