package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"gateway/test/rig"
)

func must(err error) {
	if err != nil {
		fmt.Println("ERR", err)
		os.Exit(1)
	}
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	b, err := rig.StartChromium(ctx, rig.ChromiumOptions{Flags: map[string]string{"use-fake-device-for-media-stream": "", "use-fake-ui-for-media-stream": "", "window-size": "1280,800"}})
	must(err)
	defer b.Close()
	base := "http://localhost:18080"
	q, err := b.Open(ctx, base+"/room/lobby?name=Ann"+os.Args[1])
	must(err)
	var s string
	for range 6 {
		time.Sleep(2 * time.Second)
		must(q.Eval(ctx, `(() => { const all=[]; const walk=(n)=>{ for (const e of n.querySelectorAll('*')) { if (e.tagName==='VIDEO') all.push([e.videoWidth,e.currentTime,e.paused,e.muted,e.readyState,getComputedStyle(e).opacity,getComputedStyle(e).visibility,e.className,JSON.stringify(e.getBoundingClientRect())].join(' ')); if (e.shadowRoot) walk(e.shadowRoot) } }; walk(document); return all.join('\n') })()`, &s))
		fmt.Println(s)
	}
	shot(ctx, q, "/tmp/try/room.png")
}

func shot(ctx context.Context, p rig.Page, path string) {
	data, err := p.Screenshot(ctx)
	must(err)
	must(os.WriteFile(path, data, 0o644))
}
