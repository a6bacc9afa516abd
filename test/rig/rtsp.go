package rig

import (
	"context"
	_ "embed"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// RTSPServer is a network camera: gst-rtsp-server in a process of its own.
type RTSPServer struct {
	*Process
	Port int
}

// RTSPOptions says what an [RTSPServer] serves.
type RTSPOptions struct {
	Port      int               // 0: a free one
	Streams   map[string]string // name → launch text, whose payloaders are named pay0, pay1 …
	Namespace *Namespace        // network namespace; nil: the test's
}

//go:embed rtsp.py
var rtspServer string

var rtspAnswer = regexp.MustCompile(`(?m)^(ready|missing.*)\n`)

// StartRTSP starts the server and returns when it takes connections. A stream's
// pipeline runs while somebody plays it.
func StartRTSP(ctx context.Context, o RTSPOptions) (*RTSPServer, error) {
	var err error
	if o.Port == 0 {
		if o.Port, err = Port(); err != nil {
			return nil, err
		}
	}
	args := []string{"-c", rtspServer, strconv.Itoa(o.Port)}
	for name, launch := range o.Streams {
		args = slices.Concat(args, []string{name, launch})
	}
	p, err := Start(Command{Path: "/usr/bin/python3", Args: args, Namespace: o.Namespace}) // Debian's own, which has its modules
	if err != nil {
		return nil, &Missing{What: "python3", Remedy: "apt-get install python3-gi"}
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	m, err := p.WaitLog(ctx, rtspAnswer)
	if err == nil && m[1] != "ready" {
		err = &Missing{What: "GstRtspServer for Python (" + m[1] + ")", Remedy: "apt-get install python3-gi gir1.2-gst-rtsp-server-1.0"}
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return &RTSPServer{Process: p, Port: o.Port}, nil
}

// URL is the address of a stream.
func (s *RTSPServer) URL(name string) string {
	return fmt.Sprintf("rtsp://127.0.0.1:%d/%s", s.Port, name)
}
