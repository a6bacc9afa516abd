package rtc

import (
	"hash/maphash"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/pion/ice/v4"
)

// relays are the addresses of the relays that a viewer has named, and with
// ice.relay_only all that its ICE agent talks to: what comes from elsewhere,
// checks included, is dropped, so no candidate pair and no media gets there.
// Whether an address that a peer calls a relay is one can't be told from here.
type relays struct {
	mu    sync.Mutex // guards addrs
	addrs map[netip.Addr]struct{}
}

// admit is pion's filter of remote addresses, called on the agent's goroutine.
func (r *relays) admit(ip net.IP) bool {
	a, ok := netip.AddrFromSlice(ip)
	r.mu.Lock()
	defer r.mu.Unlock()
	_, known := r.addrs[a.Unmap()]
	return ok && known
}

// take notes the address of a relay candidate, and tells whether the line is one.
func (r *relays) take(line string) bool {
	c, err := ice.UnmarshalCandidate(strings.TrimPrefix(line, "candidate:"))
	if err != nil || c.Type() != ice.CandidateTypeRelay {
		return false
	}
	a, err := netip.ParseAddr(c.Address())
	if err != nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.addrs == nil {
		r.addrs = map[netip.Addr]struct{}{}
	}
	r.addrs[a.Unmap()] = struct{}{}
	return true
}

// forget begins anew: the peer's ICE has restarted.
func (r *relays) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.addrs)
}

func (r *relays) none() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.addrs) == 0
}

// paired are the candidates of a peer that ICE was given since its credentials are what they
// are, by their hashes.
type paired []uint64

var pairing = maphash.MakeSeed()

// take tells whether ICE may have a candidate: one that it has, or that isn't one too many.
func (p *paired) take(line string) bool {
	hash := maphash.String(pairing, line)
	if slices.Contains(*p, hash) {
		return true
	}
	if len(*p) == maxPaired {
		return false
	}
	*p = append(*p, hash)
	return true
}
