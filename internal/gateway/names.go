package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"sync"
	"time"

	"gateway/internal/config"
	"gateway/internal/stream"
)

const (
	nameTimeout = 5 * time.Second // to look up names, all at once
	failTimeout = 2 * time.Second // the same when a pipeline has failed
)

var urlHost = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9+.-]*://(?:[^/@]*@)?(\[[^\]]*\]|[^/:?#]*)`)

// isName tells whether a host is to be looked up.
func isName(host string) bool {
	_, err := netip.ParseAddr(host)
	return err != nil && host != "" && host != "localhost" && host[0] != '['
}

// hostsOf lists the hosts that the elements of a launch text name.
func hostsOf(text string) (hosts []string) {
	nodes, err := config.ParseLaunch(text)
	if err != nil {
		return nil // GStreamer will say what is wrong
	}
	for _, n := range nodes {
		for _, p := range n.Props {
			host := ""
			switch p.Name {
			case "location", "uri", "url":
				if m := urlHost.FindStringSubmatch(p.Value); m != nil {
					host = m[1]
				}
			case "host":
				host = p.Value
			}
			if isName(host) {
				hosts = append(hosts, host)
			}
		}
	}
	return hosts
}

// unknown is a host whose name has no address, or none that the DNS would tell.
type unknown struct {
	host string
	err  error
}

// Error names the host, and says whether there is no such name or nobody could tell.
func (u *unknown) Error() string {
	if u.missing() {
		return u.host + ": there is no such name"
	}
	return fmt.Sprintf("%s can't be looked up: %v", u.host, u.err)
}

// missing tells whether the DNS has answered that there is none.
func (u *unknown) missing() bool {
	var fault *net.DNSError
	return errors.As(u.err, &fault) && fault.IsNotFound
}

// lookUp tells why a host's address isn't known; nil: it is.
func lookUp(ctx context.Context, host string) *unknown {
	if _, err := net.DefaultResolver.LookupHost(ctx, host); err != nil {
		return &unknown{host, err}
	}
	return nil
}

// lookingUp says of a pipeline that fails which of its hosts isn't known, if that is so:
// GStreamer's network sources call that a generic error.
type lookingUp struct {
	stream.Sink
	hosts []string
	once  sync.Once // the first failure is the reason; others follow from it
}

// Fail has the failure told when the hosts were looked up, on a goroutine that ends after failTimeout at
// the latest.
func (l *lookingUp) Fail(failure error) {
	l.once.Do(func() { go l.fail(failure) })
}

func (l *lookingUp) fail(failure error) {
	ctx, cancel := context.WithTimeout(context.Background(), failTimeout)
	defer cancel()
	for _, host := range l.hosts {
		if u := lookUp(ctx, host); u != nil {
			failure = fmt.Errorf("%w (%w)", u, failure)
			break
		}
	}
	l.Sink.Fail(failure)
}
