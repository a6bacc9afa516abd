package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"time"

	"gateway/test/impair"
	"gateway/test/rig"
)

// server is a contender, started.
type server struct {
	whep, page string
	state      func(ctx context.Context) (state, error) // nil: it tells nothing
	close      func() error
}

// state is what a gateway tells of its first viewer and of its encoder, in bit/s.
type state struct {
	estimate, target int
	reason           string
}

// contenders, by name.
var contenders = map[string]func(ctx context.Context, n *impair.Network, pipeline string, log io.Writer) (*server, error){
	"gateway": startGateway,
	"fixed":   startBaseline("fixed"),
	"gcc":     startBaseline("gcc"),
}

func startGateway(ctx context.Context, n *impair.Network, pipeline string, log io.Writer) (*server, error) {
	g, err := rig.StartGateway(ctx, rig.GatewayOptions{
		Namespace: n.Server, Host: impair.ServerIP, Log: log,
		Pipelines: map[string]string{"test": pipeline}, Config: "auth: {allow_open: true}\n",
	})
	if err != nil {
		return nil, err
	}
	ask := func(ctx context.Context, path string, answer any) error {
		status, body, err := g.Get(ctx, path)
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%s: status %d", path, status)
		}
		if err != nil {
			return err
		}
		return json.Unmarshal(body, answer)
	}
	tell := func(ctx context.Context) (s state, err error) {
		var watching struct{ Viewers []struct{ Estimate int } }
		var stream struct {
			Tracks []struct {
				Adaptation struct {
					Target int
					Reason string
				}
			}
		}
		if err := errors.Join(ask(ctx, "/api/streams/test/viewers", &watching), ask(ctx, "/api/streams/test", &stream)); err != nil {
			return s, err
		}
		if len(watching.Viewers) > 0 {
			s.estimate = watching.Viewers[0].Estimate
		}
		if len(stream.Tracks) > 0 {
			s.target, s.reason = stream.Tracks[0].Adaptation.Target, stream.Tracks[0].Adaptation.Reason
		}
		return s, nil
	}
	return &server{whep: g.URL("/whep/test"), page: g.URL("/watch/test"), state: tell, close: g.Close}, nil
}

func startBaseline(kind string) func(context.Context, *impair.Network, string, io.Writer) (*server, error) {
	return func(ctx context.Context, n *impair.Network, pipeline string, log io.Writer) (*server, error) {
		file, err := os.CreateTemp("", "baseline-*.yaml")
		if err != nil {
			return nil, err
		}
		defer os.Remove(file.Name())
		if _, err := file.WriteString(pipeline); err != nil {
			return nil, err
		}
		if err := file.Close(); err != nil {
			return nil, err
		}
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		port, err := rig.Port()
		if err != nil {
			return nil, err
		}
		address := fmt.Sprintf("%s:%d", impair.ServerIP, port)
		p, err := rig.Start(rig.Command{
			Path: self, Args: []string{"baseline", "-kind", kind, "-listen", address, "-file", file.Name()}, Namespace: n.Server, Log: log, Grace: 10 * time.Second,
		})
		if err != nil {
			return nil, err
		}
		if _, err := p.WaitLog(ctx, regexp.MustCompile("(?m)^ready$")); err != nil {
			p.Close()
			return nil, err
		}
		return &server{whep: "http://" + address + "/whep/test", page: "http://" + address + "/", close: p.Close}, nil
	}
}
