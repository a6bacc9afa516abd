package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
)

var gatewayDefaults = Gateway{
	Listen: "127.0.0.1:8080", Pipelines: "pipelines/", Auth: Auth{Mode: "token"}, HTTPS: HTTPS{ACME: ACME{Directory: LetsEncrypt}}, Log: Log{Level: "info", Format: "text"},
	Room:   Room{EmptyTimeout: 5 * time.Minute, DepartureTimeout: 30 * time.Second},
	Limits: Limits{Viewers: 1000, Rooms: 100, SocketsPerAddress: 500, ConnsPerAddress: 1000, JoinsPerAddress: 50, ShutdownTimeout: 10 * time.Second},

	Isolation: IsolationProcess, Worker: Worker{Memory: 2 << 30, Files: 1024, Scheduler: "normal"},
	Confine: Confine{Enabled: true}, Elements: Elements{DefaultElements},
}

func TestGatewayHasDefaultsWithoutAFile(t *testing.T) {
	t.Chdir(t.TempDir())
	g, err := LoadGateway(DefaultPath, nil)
	if err != nil || !reflect.DeepEqual(*g, gatewayDefaults) {
		t.Errorf("got %+v, %v", g, err)
	}
	if _, err := LoadGateway("other.yaml", nil); err == nil {
		t.Error("a file that was asked for by name is missing, and nobody says so")
	}
	if err := os.MkdirAll(DefaultPath, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadGateway(DefaultPath, nil); err == nil {
		t.Error("a folder was read as the file")
	}
}

// configs/gateway.yaml shows every key, in order, with its default and a sentence.
func TestShippedFileShowsEveryKeyAndItsDefault(t *testing.T) {
	const path = "../../configs/gateway.yaml"
	g, err := LoadGateway(path, nil)
	if err != nil || !reflect.DeepEqual(*g, gatewayDefaults) {
		t.Errorf("the shipped file gives %+v, %v; the defaults are %+v", g, err, gatewayDefaults)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	var got []string
	var walk func(n *yaml.Node, path string, explained bool)
	walk = func(n *yaml.Node, path string, explained bool) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, v := n.Content[i], n.Content[i+1]
			full := joinPath(path, k.Value)
			if v.Kind == yaml.MappingNode && len(v.Content) > 0 {
				got = append(got, full+"=")
				walk(v, full, explained)
				continue
			}
			if k.HeadComment == "" {
				t.Errorf("%s has no sentence", full)
			}
			def := v.Value
			if v.Kind == yaml.MappingNode {
				def = "{}"
			} else if v.Kind == yaml.SequenceNode {
				var items []string
				for _, n := range v.Content {
					items = append(items, n.Value)
				}
				def = "[" + strings.Join(items, ", ") + "]"
			} else if def == "" {
				def = `""`
			}
			got = append(got, full+"="+def)
		}
	}
	walk(doc.Content[0], "", false)
	var want []string
	for _, k := range gatewaySchema.keys {
		want = append(want, k.path+"="+k.def)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the file shows %v\nthe code has %v", got, want)
	}
}

func load(t *testing.T, text string, environ []string, flags ...Flag) (*Gateway, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := LoadGateway(path, environ, flags...)
	if err != nil {
		err = errors.New(strings.ReplaceAll(err.Error(), path, "gateway.yaml"))
	}
	return g, err
}

var goodPassword = Password{
	Memory: 65536, Time: 3, Threads: 4, Salt: []byte("saltsaltsaltsalt"), Hash: []byte("hashhashhashhashhashhashhashhash"),
}

func TestGatewayReadsEveryKey(t *testing.T) {
	want := &Gateway{
		Listen: "[::]:9000", Pipelines: "/etc/gateway/pipelines", Encoders: "mine.yaml", State: "/var/lib/gateway",
		Auth: Auth{
			Mode: "jwt", AllowOpen: true, Keys: []string{"a.pem", "b.key"}, JWKS: "https://login.example.org/jwks.json", Issuer: "https://login.example.org", Audience: "gateway",
			Users: map[string]User{
				"anna": {Password: goodPassword, Role: "host", Rooms: []string{"lobby", "hall-*"}, Streams: []string{"front-*"}},
				"bob":  {Password: goodPassword, Role: "viewer", Rooms: []string{"*"}},
			},
			Machines: map[string]Machine{"camera-7.lan": {Role: "publisher", Rooms: []string{"hall"}}, "spiffe://lab/robot": {Role: "viewer", Rooms: []string{"*"}, Streams: []string{"a"}}},
		},
		HTTP: HTTP{AllowedOrigins: []string{"https://example.org", "*"}, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("fd00::/8")}},
		HTTPS: HTTPS{
			SelfSigned: true, Names: []string{"camera.lan", "192.0.2.7"}, ClientCA: "machines.pem", Redirect: ":80", PublicPort: 443, HSTS: time.Hour,
			ACME: ACME{Domains: []string{"cam.example.org", "b.example.org"}, Email: "a@example.org", Directory: "https://ca.lan/dir", Roots: "root.pem"},
		},
		ICE: ICE{
			Servers: []ICEServer{
				{URLs: []string{"stun:stun.example.org"}},
				{URLs: []string{"turn:192.0.2.1:3478?transport=udp", "turns:[2001:db8::1]:5349"}, Username: "u", Credential: "c"},
			},
			PublicAddresses: []string{"203.0.113.7", "2001:db8::7"}, RelayOnly: true, Lite: true, Interfaces: []string{"eth0", "wlan0"}, UDPPort: 9001,
		},
		Rooms: []Room{
			{Name: "lobby", Title: "The lobby", Streams: []string{"door", "yard"}, MaxParticipants: 50, EmptyTimeout: time.Hour, DepartureTimeout: time.Minute},
			{Name: "4th-floor", Streams: []string{"door"}, MaxParticipants: 20, DepartureTimeout: 10 * time.Second},
		},
		Room:      Room{MaxParticipants: 20, EmptyTimeout: time.Minute, DepartureTimeout: 10 * time.Second},
		Log:       Log{Level: "debug", Format: "json", GST: "v4l2*:5,3"},
		Isolation: IsolationNone,
		Worker:    Worker{Memory: 500 << 20, Files: 256, Nice: -5, Scheduler: "rr", CPUs: "0,2-3"},
		Confine:   Confine{Paths: []string{"/dev/bus/usb", "/srv/overlays"}},
		Elements:  Elements{[]string{"srt*", "filesrc"}},
		Limits:    Limits{Viewers: 5, Rooms: 7, SocketsPerAddress: 20, ConnsPerAddress: 30, JoinsPerAddress: 0, SessionsPerUser: 4, ShutdownTimeout: 3 * time.Second},
	}
	file := `
listen: "[::]:9000"
pipelines: /etc/gateway/pipelines
encoders: mine.yaml
state: /var/lib/gateway
auth:
  mode: jwt
  allow_open: true
  keys: [a.pem, b.key]
  jwks: https://login.example.org/jwks.json
  issuer: https://login.example.org
  audience: gateway
  users:
    anna:
      password: $argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g
      role: host
      rooms: [lobby, hall-*]
      streams: front-*
    bob: {password: "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g"}
  machines: {camera-7.lan: {rooms: hall}, "spiffe://lab/robot": {role: viewer, streams: [a]}}
http: {allowed_origins: ["https://Example.org", "*"], trusted_proxies: [127.0.0.1, "fd00::/8"]}
https:
  cert: ""
  key: ""
  self_signed: true
  names: [Camera.lan, 192.0.2.7]
  acme: {domains: [Cam.example.org, b.example.org], email: a@example.org, directory: https://ca.lan/dir, roots: root.pem}
  client_ca: machines.pem
  redirect: :80
  public_port: 443
  hsts: 1h
ice:
  servers:
    - stun:stun.example.org
    - {urls: ["turn:192.0.2.1:3478?transport=udp", "turns:[2001:db8::1]:5349"], username: u, credential: c}
  public_addresses: [203.0.113.7, "2001:db8::7"]
  relay_only: true
  lite: true
  interfaces: [eth0, wlan0]
  udp_port: 9001
rooms:
  lobby: {title: The lobby, streams: [door, yard], max_participants: 50, empty_timeout: 1h, departure_timeout: 1m}
  4th-floor: {streams: door}
room: {max_participants: 20, empty_timeout: 1m, departure_timeout: 10s}
isolation: none
worker: {memory: 500M, files: 256, nice: -5, scheduler: rr, cpus: "0,2-3"}
confine: {enabled: false, paths: [/dev/bus/usb, /srv/overlays/]}
elements: {allow: [srt*, filesrc]}
log: {level: debug, format: json, gst: "v4l2*:5,3"}
limits: {viewers: 5, rooms: 7, sockets_per_address: 20, connections_per_address: 30, joins_per_address: 0, sessions_per_user: 4, shutdown_timeout: 3s}
`
	environ := []string{
		"HOME=/root", "GATEWAY_LISTEN=[::]:9000", "GATEWAY_PIPELINES=/etc/gateway/pipelines", "GATEWAY_ENCODERS=mine.yaml", "GATEWAY_STATE=/var/lib/gateway", "GATEWAY_AUTH_MODE=jwt", "GATEWAY_AUTH_ALLOW_OPEN=true",
		"GATEWAY_AUTH_KEYS=a.pem, b.key", "GATEWAY_AUTH_JWKS=https://login.example.org/jwks.json", "GATEWAY_AUTH_ISSUER=https://login.example.org", "GATEWAY_AUTH_AUDIENCE=gateway",
		`GATEWAY_AUTH_MACHINES={"camera-7.lan": {"rooms": "hall"}, "spiffe://lab/robot": {"role": "viewer", "streams": ["a"]}}`,
		`GATEWAY_AUTH_USERS={"anna": {"password": "` + goodPassword.String() + `", "role": "host", "rooms": ["lobby", "hall-*"], "streams": "front-*"}, "bob": {"password": "` + goodPassword.String() + `"}}`,
		"GATEWAY_HTTP_ALLOWED_ORIGINS=https://example.org, *", "GATEWAY_HTTP_TRUSTED_PROXIES=127.0.0.1,fd00::/8", "GATEWAY_LIMITS_CONNECTIONS_PER_ADDRESS=30",
		"GATEWAY_HTTPS_CERT=", "GATEWAY_HTTPS_KEY=", "GATEWAY_HTTPS_SELF_SIGNED=true", "GATEWAY_HTTPS_NAMES=camera.lan,192.0.2.7", "GATEWAY_HTTPS_ACME_DOMAINS=cam.example.org,b.example.org",
		"GATEWAY_HTTPS_ACME_EMAIL=a@example.org", "GATEWAY_HTTPS_ACME_DIRECTORY=https://ca.lan/dir", "GATEWAY_HTTPS_ACME_ROOTS=root.pem", "GATEWAY_HTTPS_CLIENT_CA=machines.pem",
		"GATEWAY_HTTPS_REDIRECT=:80", "GATEWAY_HTTPS_PUBLIC_PORT=443", "GATEWAY_HTTPS_HSTS=1h",
		`GATEWAY_ICE_SERVERS=["stun:stun.example.org", {"urls": ["turn:192.0.2.1:3478?transport=udp", "turns:[2001:db8::1]:5349"], "username": "u", "credential": "c"}]`,
		"GATEWAY_ICE_PUBLIC_ADDRESSES=203.0.113.7,2001:db8::7", "GATEWAY_ICE_RELAY_ONLY=true", "GATEWAY_ICE_LITE=true", "GATEWAY_ICE_INTERFACES=eth0,wlan0", "GATEWAY_ICE_UDP_PORT=9001",
		`GATEWAY_ROOMS={"lobby": {"title": "The lobby", "streams": ["door", "yard"], "max_participants": 50, "empty_timeout": "1h", "departure_timeout": "1m"}, "4th-floor": {"streams": "door"}}`,
		"GATEWAY_ROOM_MAX_PARTICIPANTS=20", "GATEWAY_ROOM_EMPTY_TIMEOUT=1m", "GATEWAY_ROOM_DEPARTURE_TIMEOUT=10s", "GATEWAY_LIMITS_ROOMS=7",
		"GATEWAY_ISOLATION=none", "GATEWAY_WORKER_MEMORY=500M", "GATEWAY_WORKER_FILES=256", "GATEWAY_WORKER_NICE=-5", "GATEWAY_WORKER_SCHEDULER=rr", "GATEWAY_WORKER_CPUS=0,2-3",
		"GATEWAY_CONFINE_ENABLED=false", "GATEWAY_CONFINE_PATHS=/dev/bus/usb,/srv/overlays", "GATEWAY_ELEMENTS_ALLOW=srt*,filesrc",
		"GATEWAY_LOG_LEVEL=debug", "GATEWAY_LOG_FORMAT=json", "GATEWAY_LOG_GST=v4l2*:5,3", "GATEWAY_LIMITS_VIEWERS=5", "GATEWAY_LIMITS_SOCKETS_PER_ADDRESS=20", "GATEWAY_LIMITS_JOINS_PER_ADDRESS=0", "GATEWAY_LIMITS_SESSIONS_PER_USER=4", "GATEWAY_LIMITS_SHUTDOWN_TIMEOUT=3s",
	}
	// each key of the schema must be among them: none can be forgotten
	for _, k := range gatewaySchema.keys {
		if len(gatewaySchema.children(k.path)) == 0 && !strings.Contains(strings.Join(environ, "\n"), envName(k.path)+"=") {
			t.Errorf("%s is not tested", envName(k.path))
		}
	}
	for name, c := range map[string]struct {
		file    string
		environ []string
	}{"file": {file, nil}, "variables": {"", environ}, "variables over a file": {"listen: 127.0.0.1:1\nauth:\nice: {udp_port: 7, servers: [\"stun:a\"]}", environ}} {
		if g, err := load(t, c.file, c.environ); err != nil || !reflect.DeepEqual(g, want) {
			t.Errorf("%s: got %+v, %v\nwant %+v", name, g, err, want)
		}
	}
}

func TestStateIsKeptWhereTheEnvironmentSays(t *testing.T) {
	for _, c := range []struct {
		environ []string
		file    string
		want    string
	}{
		{nil, "", ""},
		{[]string{"HOME=/home/a"}, "", "/home/a/.local/state/gateway"},
		{[]string{"HOME=/home/a", "XDG_STATE_HOME=/s"}, "", "/s/gateway"},
		{[]string{"HOME=/home/a", "XDG_STATE_HOME=relative"}, "", "/home/a/.local/state/gateway"},
		{[]string{"HOME=/home/a", "XDG_STATE_HOME=/s", "STATE_DIRECTORY=/var/lib/gateway:/var/lib/b"}, "", "/var/lib/gateway"},
		{[]string{"STATE_DIRECTORY=/var/lib/gateway"}, "state: mine", "mine"},
	} {
		if g, err := load(t, c.file, c.environ); err != nil || g.State != c.want {
			t.Errorf("%q: %+v, %v, want %q", c.environ, g, err, c.want)
		}
	}
}

func TestVariablesAndFlagsOverride(t *testing.T) {
	g, err := load(t, "listen: 127.0.0.1:1", []string{"GATEWAY_LISTEN=127.0.0.1:2", "GATEWAY_LISTEN=127.0.0.1:3"})
	if err != nil || g.Listen != "127.0.0.1:3" {
		t.Errorf("the last variable should win: %+v, %v", g, err)
	}
	g, err = load(t, "listen: 0.0.0.0:1", []string{"GATEWAY_LISTEN=0.0.0.0:2"}, Flag{"-listen", "listen", "127.0.0.1:4"})
	if err != nil || g.Listen != "127.0.0.1:4" {
		t.Errorf("a flag should win: %+v, %v", g, err)
	}
	g, err = load(t, "", []string{"GATEWAY_ICE_SERVERS=stun:a:1, stun:b", "GATEWAY_SERVICE_HOST=10.0.0.1", "GATEWAY_PORT_8080_TCP=x", "GATEWAY_LOG_GST="})
	if want := []ICEServer{{URLs: []string{"stun:a:1"}}, {URLs: []string{"stun:b"}}}; err != nil || !reflect.DeepEqual(g.ICE.Servers, want) {
		t.Errorf("got %+v, %v, want %+v", g, err, want)
	}
}

func TestBadGatewayConfigIsExplained(t *testing.T) {
	for _, c := range []struct {
		name, file string
		environ    []string
		want       string
	}{
		{"open", "listen: 0.0.0.0:8080\nauth: {mode: none}", nil,
			`gateway.yaml:1:9: listen: 0.0.0.0:8080 can be reached from other machines, and nobody is asked who they are (auth.mode: none); set auth.mode: token, listen on 127.0.0.1, or set auth.allow_open: true if everyone on that network may do everything`},
		{"open by an empty host", "listen: ':8080'\nauth: {mode: none}", nil, `gateway.yaml:1:9: listen: :8080 can be reached`},
		{"open by name", "listen: box.local:8080\nauth: {mode: none}", nil, `gateway.yaml:1:9: listen: box.local:8080 can be reached`},
		{"open by a mapped address", "listen: '[::ffff:10.0.0.1]:8080'\nauth: {mode: none}", nil, `can be reached`},
		{"open by a variable", "auth: {mode: none}", []string{"GATEWAY_LISTEN=0.0.0.0:80"}, `environment variable GATEWAY_LISTEN: listen: 0.0.0.0:80 can be reached`},
		{"port alone", "listen: 8080", nil, `gateway.yaml:1:9: listen: "8080" is not an address with a port; write host:port`},
		{"port out of range", "listen: localhost:80808", nil, `there is no port 80808`},
		{"all at once", "listn: a\nauth: {mode: tokn}\nlog: {level: loud, gst: 'a b'}\nlimits: {viewers: 0, shutdown_timeout: 1h}\nhttp: {allowed_origins: [example.org]}", nil,
			`gateway.yaml:1:1: listn: unknown key; did you mean listen?
gateway.yaml:2:14: auth.mode: "tokn" is not one of token, jwt, none; did you mean token?
gateway.yaml:3:14: log.level: "loud" is not one of debug, info, warn, error; use debug, info, warn or error
gateway.yaml:3:25: log.gst: "a b" is not in the syntax of GST_DEBUG; write a level such as 3, or categories such as v4l2*:5,x264enc:4
gateway.yaml:4:19: limits.viewers: 0 is out of range; allowed are 1 to 100000 viewers
gateway.yaml:4:40: limits.shutdown_timeout: 1h is out of range; allowed are 1s to 5m
gateway.yaml:5:26: http.allowed_origins: "example.org" is not an origin; write scheme and host, such as https://example.org, without a path`},
		{"proxies", "http:\n  trusted_proxies: [proxy.lan, 10.0.0.1/8, 0.0.0.0/0, 'fe80::1%eth0']", nil, `gateway.yaml:2:21: http.trusted_proxies: "proxy.lan" is not the address of a proxy, nor a network of some; write such as 127.0.0.1, ::1 or 10.0.0.0/8
gateway.yaml:2:32: http.trusted_proxies: "10.0.0.1/8" is not the address of a proxy, nor a network of some; write such as 127.0.0.1, ::1 or 10.0.0.0/8
gateway.yaml:2:44: http.trusted_proxies: "0.0.0.0/0" is not`},
		{"later", "tls: {}", nil,
			`gateway.yaml:1:1: tls: not supported yet; remove it; HTTPS is configured under https`},
		{"keys of others", "auth: {keys: a.pem}", nil, `auth.mode: auth.keys and auth.jwks are for tokens of others, which mode token doesn't take; set auth.mode: jwt`},
		{"no keys", "auth: {mode: jwt}", nil, `gateway.yaml:1:14: auth.mode: there is no key for tokens of others; name key files under auth.keys`},
		{"key set for all", "auth: {mode: jwt, jwks: 'https://a/b'}", nil, `gateway.yaml:1:25: auth.jwks: its issuer signs tokens for others too`},
		{"key set on the way", "auth: {mode: jwt, audience: a, jwks: 'http://a/b'}", nil, `auth.jwks: "http://a/b" is not the URL of a key set; write one that begins with https://`},
		{"users of nobody", "auth: {mode: none, users: {a: {password: '" + goodPassword.String() + "'}}}", nil, `auth.users: nobody is asked for a password (auth.mode: none)`},
		{"users", "auth:\n  users:\n    a b: {}\n    c: {}\n    d: {password: hunter2, role: boss, rom: x}\n    e: {password: '" + goodPassword.String() + "', rooms: ['[']}\n    e: {}\n    f: x", nil,
			`gateway.yaml:3:5: auth.users: "a b" is no name of a user; use letters, digits, and . _ @ + -, at most 64
gateway.yaml:4:8: auth.users.c.password: it is missing; make one with: gateway token -hash
gateway.yaml:5:19: auth.users.d.password: it is not an Argon2id hash of sensible cost; make one with: gateway token -hash
gateway.yaml:5:34: auth.users.d.role: "boss" is not one of viewer, publisher, host, admin; use viewer, publisher, host or admin
gateway.yaml:5:40: auth.users.d.rom: unknown key; known here: password, role, rooms, streams
gateway.yaml:6:128: auth.users.e.rooms: "[" is no pattern of names; write a name, or a pattern such as front-*
gateway.yaml:7:5: auth.users.e: the user is there already; remove one of them
gateway.yaml:8:8: auth.users.f: expected keys and values, found the text "x"; indent its keys below it`},
		{"cheap password", "auth: {users: {a: {password: '$argon2id$v=19$m=16,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA'}}}", nil, `auth.users.a.password: it is not an Argon2id hash of sensible cost`},
		{"machines of nobody", "auth: {machines: {a.lan: {}}}", nil, `gateway.yaml:1:18: auth.machines: nobody can show a certificate: https.client_ca is missing`},
		{"machines", "auth: {machines: {a b: {}, c: {role: x}}}\nhttps: {self_signed: true, client_ca: a}", nil, `gateway.yaml:1:19: auth.machines: "a b" is no name of a machine; write a name of its certificate`},
		{"servers", "ice:\n  servers:\n    - http://a\n    - turn:a\n    - {urls: turn:a, username: u, pasword: p}\n    - {username: u}\n    - stun:a?transport=udp\n    - stun:a:99999", nil,
			`gateway.yaml:3:7: ice.servers[0]: "http://a" is not the URL of a STUN or TURN server; write one such as stun:stun.example.org:3478 or turn:turn.example.org:3478?transport=udp
gateway.yaml:4:7: ice.servers[1]: a TURN server needs username and credential; write it as {urls: turn:a, username: …, credential: …}
gateway.yaml:5:7: ice.servers[2]: a TURN server needs username and credential; add both
gateway.yaml:5:35: ice.servers[2].pasword: unknown key; known here: urls, username, credential
gateway.yaml:6:7: ice.servers[3].urls: it is missing; write urls: stun:stun.example.org:3478
gateway.yaml:7:7: ice.servers[4]: a STUN URL has no transport; remove "?transport=udp"
gateway.yaml:8:7: ice.servers[5]: "stun:a:99999" has no valid port`},
		{"rooms", "rooms:\n  a b: {}\n  lobby: {title: 'a\tb', streams: [door, door, ../x], max_participant: 3}\n  yard: {empty_timeout: 1w, streams: {}}\n  hall: []\n  lobby: {}\nroom: {departure_timeout: 1h}", nil,
			`gateway.yaml:2:3: rooms: "a b" can't be a room's name; use letters, digits, - and _, at most 64, beginning with a letter or digit
gateway.yaml:3:18: rooms.lobby.title: it holds a control character; write it on one line
gateway.yaml:3:41: rooms.lobby.streams: "door" is listed twice; remove one of them
gateway.yaml:3:47: rooms.lobby.streams: "../x" can't be a stream's name; write the name of a pipeline file without .yaml
gateway.yaml:3:54: rooms.lobby.max_participant: unknown key; did you mean max_participants?
gateway.yaml:4:25: rooms.yard.empty_timeout: expected a duration, found the text "1w"; write a number with its unit, such as 10s, 500ms or 2m
gateway.yaml:4:38: rooms.yard.streams: expected a list of texts, found keys and values; write it as [one, two]
gateway.yaml:5:9: rooms.hall: expected keys and values, found a list; indent its keys below it
gateway.yaml:6:3: rooms.lobby: the room was already given in line 3; remove one of them
gateway.yaml:7:27: room.departure_timeout: 1h is out of range; allowed are 0s to 10m`},
		{"rooms as a list", "rooms: [lobby]", nil, `gateway.yaml:1:8: rooms: expected rooms by their names, found a list; write it as {lobby: {title: Lobby, streams: [door, yard]}}`},
		{"rooms that are no YAML", "", []string{"GATEWAY_ROOMS=[{"}, `environment variable GATEWAY_ROOMS: rooms: not JSON or YAML; write {"lobby"`},
		{"relay without a relay", "ice: {relay_only: true, public_addresses: [example.org], interfaces: ['a/b']}", nil, `"example.org" is not an IP address`},
		{"relay without a relay", "ice: {relay_only: true}", nil, `gateway.yaml:1:19: ice.relay_only: there is no TURN server to relay by`},
		{"half a pair", "https: {cert: a.pem}", nil, `gateway.yaml:1:15: https.cert: https.key is missing; name both files`},
		{"two certificates", "https: {cert: a.pem, key: b.pem, self_signed: true}", nil, `gateway.yaml:1:15: https.cert: there is another certificate too; keep one of`},
		{"no certificate", "https: {hsts: 1h}", nil, `gateway.yaml:1:15: https.hsts: HTTPS isn't served; set cert and key, self_signed: true or acme.domains`},
		{"https", "https: {self_signed: true, names: [a/b], acme: {domains: ['*.example.org', 192.0.2.1, cam], email: me, directory: 'http://a'}, redirect: ':8080', hsts: 1}", nil,
			`gateway.yaml:1:36: https.names: "a/b" is neither a host name nor an IP address; write one such as camera.lan
gateway.yaml:1:59: https.acme.domains: "*.example.org" is not a public host name; write one such as cam.example.org, no wildcard and no address
gateway.yaml:1:76: https.acme.domains: "192.0.2.1" is not a public host name; write one such as cam.example.org, no wildcard and no address
gateway.yaml:1:87: https.acme.domains: "cam" is not a public host name; write one such as cam.example.org, no wildcard and no address
gateway.yaml:1:100: https.acme.email: "me" is not an e-mail address; write one such as admin@example.org
gateway.yaml:1:115: https.acme.directory: "http://a" is not an https URL; write one such as https://acme-v02.api.letsencrypt.org/directory
gateway.yaml:1:138: https.redirect: it has the port of listen; leave it out: that port answers plain HTTP with a redirect by itself
gateway.yaml:1:153: https.hsts: expected a duration, found the number 1; add the unit: 1s for seconds`},
		{"variables", "", []string{"GATEWAY_LIMITS_VIEWERS=many", "GATEWAY_LISTN=x", "GATEWAY_ICE_SERVERS=[{", "GATEWAY_LOG_LEVEL=", "GATEWAY_AUTH_ALLOW_OPEN=yes"},
			`environment variable GATEWAY_AUTH_ALLOW_OPEN: auth.allow_open: expected true or false, found the text "yes"; write true
environment variable GATEWAY_ICE_SERVERS: ice.servers: not JSON or YAML; write [{"urls": "turn:turn.example.org", "username": "u", "credential": "c"}]
environment variable GATEWAY_LIMITS_VIEWERS: limits.viewers: expected a whole number, found the text "many"; allowed are 1 to 100000 viewers
environment variable GATEWAY_LISTN: no such key; did you mean GATEWAY_LISTEN?
environment variable GATEWAY_LOG_LEVEL: log.level: "" is not one of debug, info, warn, error; use debug, info, warn or error`},
	} {
		_, err := load(t, c.file, c.environ)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(c.want, "\n") && !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s:\n got %v\nwant %s", c.name, err, c.want)
		}
	}
}
