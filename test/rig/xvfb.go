package rig

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// Xvfb is an X server without a screen.
type Xvfb struct {
	*Process
	Display string // ":7", as DISPLAY has it
}

// XOptions says which screen an [Xvfb] has.
type XOptions struct {
	Width, Height int    // pixels; 0: 1280x720
	Display       string // ":7": exactly this one; empty: a free one
}

// StartXvfb starts an X server with one screen of 24 bits a pixel and returns
// when it takes connections.
func StartXvfb(ctx context.Context, o XOptions) (*Xvfb, error) {
	path, err := Need("Xvfb", "xvfb")
	if err != nil {
		return nil, err
	}
	if o.Width == 0 {
		o.Width, o.Height = 1280, 720
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	args := []string{"-displayfd", "3", "-screen", "0", fmt.Sprintf("%dx%dx24", o.Width, o.Height), "-nolisten", "tcp", "-noreset", "-dpi", "96"}
	if o.Display != "" {
		args = append([]string{o.Display}, args...)
	}
	p, err := Start(Command{Path: path, Args: args, Files: []*os.File{w}})
	w.Close() // the server has its own copy: a read ends with it
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(20 * time.Second)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	r.SetReadDeadline(deadline)
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("Xvfb tells no display: %w\n%s", err, tail(p.Log()))
	}
	return &Xvfb{Process: p, Display: ":" + strings.TrimSpace(line)}, nil
}
