package e2e

import (
	"fmt"
	"regexp"
	"testing"
	"time"

	"gateway/test/rig"
)

// TestRelayOnlyWithoutUDP puts the browser where no UDP leaves the machine. It
// watches through coturn over TCP alone, as the configuration's relay_only says.
// Needs root for the namespaces.
func TestRelayOnlyWithoutUDP(t *testing.T) { watchThroughRelay(t, true, "relay_only") }

// TestRelayOnlyWhereUDPPasses has a direct way too, which relay_only forbids.
func TestRelayOnlyWhereUDPPasses(t *testing.T) { watchThroughRelay(t, false, "relay_only") }

// TestLiteConnectionThroughRelay has the browser's checks come to a lite gateway through coturn.
func TestLiteConnectionThroughRelay(t *testing.T) { watchThroughRelay(t, true, "lite") }

// watchThroughRelay has a key of ice set.
func watchThroughRelay(t *testing.T, blockUDP bool, key string) {
	ctx := bounded(t, 2*time.Minute)
	turnserver, err := rig.Need("turnserver", "coturn")
	rig.Check(t, err)
	const serverIP, clientIP = "10.97.2.1", "10.97.2.2"
	server, client := rig.Pair(ctx, t, serverIP+"/24", clientIP+"/24")
	rig.Check(t, client.IP(ctx, "route", "add", "default", "via", serverIP))
	if blockUDP {
		rig.Check(t, client.BlockUDP(ctx))
	}

	turn, err := rig.Start(rig.Command{Path: turnserver, Namespace: server, Args: []string{
		"-n", "--listening-ip=" + serverIP, "--relay-ip=" + serverIP, "--listening-port=3478", "--no-udp", "--no-tls", "--no-dtls",
		"--lt-cred-mech", "--user=viewer:secret", "--realm=test", "--no-cli", "--log-file=stdout", "--verbose",
		"--pidfile=" + t.TempDir() + "/pid", "--userdb=" + t.TempDir() + "/db",
	}})
	rig.Check(t, err)
	rig.End(t, "coturn", turn.Close)
	_, err = turn.WaitLog(ctx, regexp.MustCompile(`TCP listener opened on ?: ?`+regexp.QuoteMeta(serverIP)))
	rig.Check(t, err)

	// an X server's socket is a file (and an abstract name, which is the
	// namespace's own): the gateway in the namespace reaches it
	display := paintedScreen(ctx, t)
	g := startGateway(ctx, t, rig.GatewayOptions{
		Namespace: server, Host: serverIP,
		Pipelines: map[string]string{"desktop": desktopPipeline(display, "h264")},
		Config: fmt.Sprintf(`auth: {allow_open: true}
ice:
  %s: true
  servers:
    - urls: "turn:%s:3478?transport=tcp"
      username: viewer
      credential: secret
`, key, serverIP),
	})
	b := startChromium(ctx, t, rig.ChromiumOptions{Namespace: client})
	page, err := b.Open(ctx, g.URL("/watch/desktop"))
	rig.Check(t, err)
	defer page.Close()
	live(ctx, t, page)
	var pair struct {
		Local, Remote struct{ CandidateType, RelayProtocol, Address string }
	}
	rig.Check(t, page.Eval(ctx, "selectedPair()", &pair))
	t.Logf("selected: %+v", pair)
	if pair.Local.CandidateType != "relay" || pair.Local.RelayProtocol != "tcp" {
		t.Errorf("the browser's candidate is %q over %q, want relay over tcp", pair.Local.CandidateType, pair.Local.RelayProtocol)
	}
	m, err := g.Metrics(ctx)
	rig.Check(t, err)
	if n := m[`gateway_rtc_connected_total{ice="lite"}`]; (n == 1) != (key == "lite") {
		t.Errorf("%v lite connections", n)
	}
}
