// Command paint paints the strip of package strip on an X display until it is
// interrupted: something that moves and tells its own time.
//
//	paint -display :7 [-hz 60]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"gateway/test/strip"
)

func main() {
	display := flag.String("display", os.Getenv("DISPLAY"), "X display to paint on")
	hz := flag.Int("hz", 60, "paintings a second")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := paint(ctx, *display, *hz); err != nil {
		fmt.Fprintln(os.Stderr, "paint:", err)
		os.Exit(1)
	}
}

func paint(ctx context.Context, display string, hz int) error {
	p, err := strip.NewPainter(display)
	if err != nil {
		return err
	}
	defer p.Close()
	return p.Run(ctx, hz)
}
