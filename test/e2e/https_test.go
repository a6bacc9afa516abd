package e2e

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"strconv"
	"testing"
	"time"

	"gateway/test/rig"
)

// A camera is handed out in secure contexts only. Chromium comes by a name that isn't
// loopback's, which would be one without HTTPS, and knows the certificate by its key,
// as somebody who has compared the fingerprint.
func TestSelfSignedCertificateMakesASecureContext(t *testing.T) {
	ctx := bounded(t, 2*time.Minute)
	g := startGateway(ctx, t, rig.GatewayOptions{
		HTTPS: true, Config: "https: {names: [box.lan]}\n",
		Pipelines: map[string]string{"desktop": desktopPipeline(paintedScreen(ctx, t), "vp8")},
	})
	address := g.Host + ":" + strconv.Itoa(g.Port)
	c, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(ctx, "tcp", address)
	rig.Check(t, err)
	key := sha256.Sum256(c.(*tls.Conn).ConnectionState().PeerCertificates[0].RawSubjectPublicKeyInfo)
	c.Close()
	b := startChromium(ctx, t, rig.ChromiumOptions{Flags: map[string]string{
		"host-resolver-rules":                 "MAP box.lan " + g.Host,
		"ignore-certificate-errors-spki-list": base64.StdEncoding.EncodeToString(key[:]),
		"use-fake-device-for-media-stream":    "", "use-fake-ui-for-media-stream": "",
	}})
	// the port is known, the s was forgotten
	plain := "http://box.lan:" + strconv.Itoa(g.Port)
	page, err := b.Open(ctx, plain+"/healthz") // has no policy of its own about cameras
	rig.Check(t, err)
	defer page.Close()
	var seen struct {
		Origin string
		Secure bool
		Tracks int
	}
	rig.Check(t, page.Eval(ctx, `(async () => ({
		origin: location.origin, secure: isSecureContext,
		tracks: (await navigator.mediaDevices.getUserMedia({video: true, audio: true})).getTracks().length,
	}))()`, &seen))
	if seen.Origin != "https://box.lan:"+strconv.Itoa(g.Port) || !seen.Secure || seen.Tracks != 2 {
		t.Errorf("the page has %+v", seen)
	}
	rig.Check(t, page.Navigate(ctx, plain+"/watch/desktop"))
	live(ctx, t, page)
}
