package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"gateway/client"
)

// peer is how watch and publish come to a gateway.
type peer struct {
	token, name, ca, cert, key string
	insecure, create           bool
	room, stream               string // of the address
}

func (p *peer) flags(flags *flag.FlagSet) {
	flags.StringVar(&p.token, "token", os.Getenv("GATEWAY_TOKEN"), "")
	flags.StringVar(&p.name, "name", "", "")
	flags.StringVar(&p.ca, "ca", "", "")
	flags.StringVar(&p.cert, "cert", "", "")
	flags.StringVar(&p.key, "key", "", "")
	flags.BoolVar(&p.insecure, "insecure", false, "")
	flags.BoolVar(&p.create, "create", false, "")
}

// join connects by a page's address: /watch/NAME, /room/ROOM or /whep/ROOM/STREAM, with
// the token in the fragment if it isn't given otherwise.
func (p *peer) join(ctx context.Context, address string) (*client.Client, *client.Joined, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, nil, err
	}
	_, path, _ := strings.Cut(strings.Trim(u.Path, "/"), "/")
	if p.room, p.stream, _ = strings.Cut(path, "/"); p.room == "" {
		return nil, nil, fmt.Errorf("%s: which room? It ends in /watch/NAME or /room/NAME", address)
	}
	if token, ok := strings.CutPrefix(u.Fragment, "token="); ok && p.token == "" {
		p.token = token
	}
	conf, err := p.tls()
	if err != nil {
		return nil, nil, err
	}
	u.Fragment = ""
	c, err := client.Dial(ctx, u.String(), client.Options{Token: p.token, Name: p.name, Create: p.create, TLS: conf})
	if err != nil {
		return nil, nil, err
	}
	joined, err := c.Join(ctx, p.room)
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return c, joined, nil
}

// comeBack is how often a gateway that is away is tried.
const comeBack = 250 * time.Millisecond

// rejoin joins anew as soon as a gateway that was lost is back. Where ctx ends before, the
// error is why it isn't.
func (p *peer) rejoin(ctx context.Context, address string, stderr io.Writer) (*client.Client, *client.Joined, error) {
	fmt.Fprintln(stderr, "gateway: connection lost; joining anew as soon as the gateway is back")
	for {
		select {
		case <-ctx.Done():
		case <-time.After(comeBack):
		}
		c, joined, err := p.join(ctx, address)
		if !client.Lost(err) || ctx.Err() != nil {
			return c, joined, err
		}
	}
}

func (p *peer) tls() (*tls.Config, error) {
	conf := &tls.Config{InsecureSkipVerify: p.insecure}
	if p.ca != "" {
		pem, err := os.ReadFile(p.ca)
		if err != nil {
			return nil, err
		}
		if conf.RootCAs = x509.NewCertPool(); !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: it holds no certificate in PEM", p.ca)
		}
	}
	if p.cert != "" {
		pair, err := tls.LoadX509KeyPair(p.cert, p.key)
		if err != nil {
			return nil, err
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

// interrupted ends with SIGINT or SIGTERM.
func interrupted() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
}
