package rig

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Chromium is a headless Chromium with a fresh profile.
type Chromium struct {
	ctx     context.Context // of chromedp: its first tab, which keeps the browser
	preload string
	cancel  context.CancelFunc
	profile string
	out     *lockedBuffer
	closing sync.Once
}

// ChromiumOptions says how a test wants its browser.
type ChromiumOptions struct {
	Namespace *Namespace        // network namespace; nil: the test's
	Flags     map[string]string // further command line flags, without --
	Dark      bool              // prefers dark pages
	Preload   string            // script that runs in every page before the page's own
}

// StartChromium starts the browser. It runs as root too, without its sandbox.
func StartChromium(ctx context.Context, o ChromiumOptions) (*Chromium, error) {
	path, err := Need("chromium", "chromium")
	if err != nil {
		return nil, err
	}
	ip := ""
	if o.Namespace != nil {
		if ip, err = Need("ip", "iproute2"); err != nil {
			return nil, err
		}
	}
	profile, err := os.MkdirTemp("", "gateway-chromium-")
	if err != nil {
		return nil, err
	}
	c := &Chromium{profile: profile, preload: o.Preload, out: new(lockedBuffer)}
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.UserDataDir(profile),
		chromedp.Headless, chromedp.NoSandbox, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.DisableGPU,
		chromedp.CombinedOutput(c.out),
		chromedp.ModifyCmdFunc(func(cmd *exec.Cmd) {
			if ip != "" {
				cmd.Args = append([]string{ip, "netns", "exec", o.Namespace.Name, path}, cmd.Args[1:]...)
				cmd.Path = ip
			}
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		}),
	}
	for _, flag := range []string{
		"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync", "disable-default-apps",
		"disable-dev-shm-usage", "disable-background-timer-throttling", "disable-renderer-backgrounding",
		"disable-backgrounding-occluded-windows", "disable-breakpad", "enable-automation",
	} {
		options = append(options, chromedp.Flag(flag, true))
	}
	options = append(options, chromedp.Flag("password-store", "basic"), chromedp.Flag("force-color-profile", "srgb"))
	if o.Dark {
		options = append(options, chromedp.Flag("blink-settings", "preferredColorScheme=0"))
	}
	for name, value := range o.Flags {
		options = append(options, chromedp.Flag(name, value))
	}
	// The browser's life is its own, not ctx's: ctx bounds its start only.
	allocator, cancelAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	tab, cancelTab := chromedp.NewContext(allocator)
	c.ctx, c.cancel = tab, func() { cancelTab(); cancelAllocator() }
	stop := context.AfterFunc(ctx, cancelTab)
	if err := chromedp.Do(tab); err != nil {
		c.Close()
		return nil, fmt.Errorf("start chromium: %w\n%s", err, tail(c.out.String()))
	}
	if !stop() {
		c.Close()
		return nil, ctx.Err()
	}
	return c, nil
}

// Open opens a tab at an address, in a storage of its own, and waits until it is
// loaded.
func (c *Chromium) Open(ctx context.Context, url string) (Page, error) {
	tab, cancel := chromedp.NewContext(c.ctx, chromedp.WithNewBrowserContext())
	p := &tabPage{ctx: tab, cancel: cancel}
	preload := func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: c.preload})
		return err
	}
	if err := chromedp.Do(tab, chromedp.Func(preload)); err != nil {
		cancel()
		return nil, fmt.Errorf("open a tab: %w", err)
	}
	if url != "" {
		if err := p.Navigate(ctx, url); err != nil {
			p.Close()
			return nil, err
		}
	}
	return p, nil
}

// Log is what the browser printed.
func (c *Chromium) Log() string { return c.out.String() }

// Kill ends the browser without a word to anybody, as a crash does. Close it all the same.
func (c *Chromium) Kill() error { return chromedp.FromContext(c.ctx).Browser.Process().Kill() }

// Close ends the browser and removes its profile.
func (c *Chromium) Close() (err error) {
	c.closing.Do(func() {
		graceful, cancel := context.WithTimeout(c.ctx, 5*time.Second)
		chromedp.Cancel(graceful) // an error means that it is gone already
		cancel()
		c.cancel()
		// its children write on for a moment
		for range 50 {
			if err = os.RemoveAll(c.profile); err == nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	return err
}

// tabPage is a tab of Chromium as a [Page].
type tabPage struct {
	ctx     context.Context
	cancel  context.CancelFunc
	closing sync.Once
}

// bounded is the tab's context that ends with ctx too.
func (p *tabPage) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	both, cancel := context.WithCancelCause(p.ctx)
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	return both, func() { stop(); cancel(nil) }
}

func (p *tabPage) Navigate(ctx context.Context, url string) error {
	both, cancel := p.bounded(ctx)
	defer cancel()
	if err := chromedp.Do(both, chromedp.Navigate(url)); err != nil {
		return fmt.Errorf("open %s: %w", url, err)
	}
	return nil
}

func (p *tabPage) Eval(ctx context.Context, expression string, out any) error {
	both, cancel := p.bounded(ctx)
	defer cancel()
	await := true
	text, err := chromedp.Run(both, chromedp.Evaluate[string](wrapped(expression), func(p *runtime.EvaluateParams) {
		p.AwaitPromise, p.UserGesture = &await, &await
	}))
	if err != nil {
		return fmt.Errorf("chromium: %w", err)
	}
	return unwrap(text, out)
}

func (p *tabPage) Resize(ctx context.Context, width, height int) error {
	both, cancel := p.bounded(ctx)
	defer cancel()
	return chromedp.Do(both, chromedp.EmulateViewport(int64(width), int64(height)))
}

func (p *tabPage) Screenshot(ctx context.Context) ([]byte, error) {
	both, cancel := p.bounded(ctx)
	defer cancel()
	return chromedp.Run(both, chromedp.CaptureScreenshot())
}

func (p *tabPage) Close() error {
	p.closing.Do(p.cancel)
	return nil
}

// lockedBuffer is a buffer that a process writes and a test reads.
type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
