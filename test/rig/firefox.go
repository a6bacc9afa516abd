package rig

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// Firefox is a headless Firefox with a fresh profile, driven over WebDriver
// BiDi (w3c.github.io/webdriver-bidi).
type Firefox struct {
	*Process
	dir  string
	conn *websocket.Conn
	read chan struct{} // closed when the reader has ended

	writing sync.Mutex // guards writes to conn

	mu      sync.Mutex // guards what follows
	next    int
	waiting map[int]chan bidiMessage
	lost    error
	closing sync.Once
}

// firefoxPrefs are what a WebRTC test on loopback needs beyond a fresh profile,
// and what keeps it from calling home.
const firefoxPrefs = `
user_pref("media.peerconnection.ice.loopback", true);
user_pref("media.peerconnection.ice.obfuscate_host_addresses", false);
user_pref("media.autoplay.default", 0);
user_pref("media.autoplay.blocking_policy", 0);
user_pref("media.gmp-manager.updateEnabled", false);
user_pref("media.gmp-manager.url", "");
user_pref("app.update.disabledForTesting", true);
user_pref("app.normandy.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.startup.page", 0);
user_pref("browser.safebrowsing.update.enabled", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("datareporting.healthreport.uploadEnabled", false);
user_pref("toolkit.telemetry.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("services.settings.server", "data:,");
user_pref("extensions.update.enabled", false);
`

// FirefoxOptions says how a test wants its browser.
type FirefoxOptions struct {
	Namespace *Namespace // network namespace; nil: the test's
	Prefs     string     // further lines for user.js
	Preload   string     // script that runs in every page before the page's own
}

var bidiAddress = regexp.MustCompile(`WebDriver BiDi listening on (ws://\S+)`)

// StartFirefox starts the browser.
func StartFirefox(ctx context.Context, o FirefoxOptions) (*Firefox, error) {
	path, err := Need("firefox-esr", "firefox-esr")
	if err != nil {
		return nil, err
	}
	f := &Firefox{waiting: make(map[int]chan bidiMessage), read: make(chan struct{})}
	if f.dir, err = os.MkdirTemp("", "gateway-firefox-"); err != nil {
		return nil, err
	}
	if err := f.start(ctx, path, o); err != nil {
		f.Close()
		return nil, fmt.Errorf("start firefox: %w", err)
	}
	return f, nil
}

func (f *Firefox) start(ctx context.Context, path string, o FirefoxOptions) error {
	profile := filepath.Join(f.dir, "profile")
	if err := os.Mkdir(profile, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(profile, "user.js"), []byte(firefoxPrefs+o.Prefs), 0o600); err != nil {
		return err
	}
	p, err := Start(Command{
		Path: path, Namespace: o.Namespace,
		Args: []string{"--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0"},
		// its home is fresh too: it refuses another user's
		Env: []string{"HOME=" + f.dir, "XDG_CACHE_HOME=" + f.dir, "MOZ_CRASHREPORTER_DISABLE=1", "DISPLAY=", "DBUS_SESSION_BUS_ADDRESS="},
	})
	if err != nil {
		return err
	}
	f.Process = p
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	m, err := p.WaitLog(ctx, bidiAddress)
	if err != nil {
		return err
	}
	dialer := websocket.Dialer{NetDialContext: o.Namespace.Dial}
	if f.conn, _, err = dialer.DialContext(ctx, m[1]+"/session", nil); err != nil {
		return err
	}
	go f.receive()
	if err := f.call(ctx, "session.new", map[string]any{"capabilities": map[string]any{}}, nil); err != nil {
		return err
	}
	return f.call(ctx, "script.addPreloadScript", map[string]any{"functionDeclaration": "() => {\n" + o.Preload + "\n}"}, nil)
}

// bidiMessage is an answer or an event of the protocol.
type bidiMessage struct {
	ID      int             `json:"id"`
	Type    string          `json:"type"`
	Error   string          `json:"error"`
	Message string          `json:"message"`
	Result  json.RawMessage `json:"result"`
}

func (f *Firefox) receive() {
	defer close(f.read)
	for {
		var m bidiMessage
		err := f.conn.ReadJSON(&m)
		f.mu.Lock()
		if err != nil {
			f.lost = fmt.Errorf("connection to firefox: %w", err)
			for _, answer := range f.waiting {
				close(answer)
			}
			f.waiting = nil
			f.mu.Unlock()
			return
		}
		answer := f.waiting[m.ID]
		delete(f.waiting, m.ID)
		f.mu.Unlock()
		if answer != nil && m.Type != "event" {
			answer <- m
		}
	}
}

// call sends a command and waits for its answer.
func (f *Firefox) call(ctx context.Context, method string, params, result any) error {
	answer := make(chan bidiMessage, 1)
	f.mu.Lock()
	if f.lost != nil {
		f.mu.Unlock()
		return f.lost
	}
	f.next++
	id := f.next
	f.waiting[id] = answer
	f.mu.Unlock()

	f.writing.Lock()
	err := f.conn.WriteJSON(map[string]any{"id": id, "method": method, "params": params})
	f.writing.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	select {
	case m, ok := <-answer:
		if !ok {
			return f.lost
		}
		if m.Type == "error" {
			return fmt.Errorf("%s: %s: %s", method, m.Error, m.Message)
		}
		if result == nil {
			return nil
		}
		return json.Unmarshal(m.Result, result)
	case <-ctx.Done():
		f.mu.Lock()
		delete(f.waiting, id)
		f.mu.Unlock()
		return fmt.Errorf("%s: %w", method, ctx.Err())
	}
}

// Open opens a tab at an address and waits until it is loaded.
func (f *Firefox) Open(ctx context.Context, url string) (Page, error) {
	var created struct {
		Context string `json:"context"`
	}
	if err := f.call(ctx, "browsingContext.create", map[string]any{"type": "tab"}, &created); err != nil {
		return nil, err
	}
	p := &foxPage{f: f, id: created.Context}
	if url == "" {
		return p, nil
	}
	if err := p.Navigate(ctx, url); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close ends the browser and removes its profile.
func (f *Firefox) Close() (err error) {
	f.closing.Do(func() {
		if f.conn != nil {
			f.conn.Close()
			<-f.read
		}
		if f.Process != nil {
			err = f.Process.Close()
		}
		err = errors.Join(err, os.RemoveAll(f.dir))
	})
	return err
}

// foxPage is a tab of Firefox as a [Page].
type foxPage struct {
	f  *Firefox
	id string
}

func (p *foxPage) Navigate(ctx context.Context, url string) error {
	err := p.f.call(ctx, "browsingContext.navigate", map[string]any{"context": p.id, "url": url, "wait": "complete"}, nil)
	if err != nil {
		return fmt.Errorf("open %s: %w", url, err)
	}
	return nil
}

func (p *foxPage) Eval(ctx context.Context, expression string, out any) error {
	var r struct {
		Type   string `json:"type"`
		Result struct {
			Value string `json:"value"`
		} `json:"result"`
		Exception struct {
			Text string `json:"text"`
		} `json:"exceptionDetails"`
	}
	err := p.f.call(ctx, "script.evaluate", map[string]any{
		"expression": wrapped(expression), "target": map[string]any{"context": p.id}, "awaitPromise": true, "userActivation": true,
	}, &r)
	if err != nil {
		return err
	}
	if r.Type != "success" {
		return fmt.Errorf("firefox: %s", r.Exception.Text)
	}
	return unwrap(r.Result.Value, out)
}

func (p *foxPage) Resize(ctx context.Context, width, height int) error {
	return p.f.call(ctx, "browsingContext.setViewport", map[string]any{
		"context": p.id, "viewport": map[string]any{"width": width, "height": height},
	}, nil)
}

func (p *foxPage) Screenshot(ctx context.Context) ([]byte, error) {
	var shot struct {
		Data string `json:"data"`
	}
	if err := p.f.call(ctx, "browsingContext.captureScreenshot", map[string]any{"context": p.id}, &shot); err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(shot.Data)
}

func (p *foxPage) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return p.f.call(ctx, "browsingContext.close", map[string]any{"context": p.id}, nil)
}
