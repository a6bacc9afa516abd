package rtc

import (
	"bytes"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/stun/v4"

	"gateway/internal/media"
)

// owners tells which viewer's an address is at one of the sockets. pion's mux gives
// what comes from an address to the ICE agent that wrote there last. One whose
// peer has vanished goes on writing for 30 s; the next viewer from that address
// (behind a NAT, or after a browser was killed) got no answer to its checks, which
// came to the agent that was left behind (2026-11).
type owners struct {
	mu      sync.Mutex // guards what follows
	byUfrag map[string]*link
	byAddr  map[netip.AddrPort]*link
}

func (o *owners) add(ufrag string, l *link) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.byUfrag == nil {
		o.byUfrag, o.byAddr = map[string]*link{}, map[netip.AddrPort]*link{}
	}
	o.byUfrag[ufrag] = l
}

func (o *owners) remove(l *link) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for ufrag, other := range o.byUfrag {
		if other == l {
			delete(o.byUfrag, ufrag)
		}
	}
	for addr, other := range o.byAddr {
		if other == l {
			delete(o.byAddr, addr)
		}
	}
}

// claim notes that a link writes to an address, and tells whether it may: not while
// the address is another's who is there. A peer may name any address as its own.
func (o *owners) claim(l *link, addr netip.AddrPort) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if other := o.byAddr[addr]; other != nil && other != l && !other.silent() {
		if sameViewer := l.viewer != nil && l.viewer == other.viewer; !sameViewer || l.silent() {
			return false
		}
	}
	o.byAddr[addr] = l
	return true
}

// heard follows what comes from an address. A check that names a viewer makes the
// address that viewer's, if nothing else has come from there lately. It returns
// the link that is to claim it, nil if none, and whether the datagram isn't the
// peer's.
func (o *owners) heard(from netip.AddrPort, b []byte) (claims *link, forged bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	at := o.byAddr[from]
	if at == nil {
		return nil, false
	}
	if named := o.named(b); named != nil && named != at {
		if at.silent() {
			return named, false
		}
		return nil, false
	}
	if at.forged(b) {
		return nil, true
	}
	at.at.Store(int64(media.Now()))
	return nil, false
}

// named is the link of the ICE agent that a check is for; nil if b isn't one.
func (o *owners) named(b []byte) *link {
	const binding, header = 0x0001, 20 // of a request (RFC 8489 §5)
	if !stun.IsMessage(b) || b[0] != binding>>8 || b[1] != binding&0xff {
		return nil
	}
	for rest := b[header:]; len(rest) >= 4; {
		n := int(rest[2])<<8 | int(rest[3])
		if 4+n > len(rest) {
			return nil
		}
		if rest[0] == byte(stun.AttrUsername>>8) && rest[1] == byte(stun.AttrUsername&0xff) {
			ufrag, _, _ := bytes.Cut(rest[4:4+n], []byte{':'})
			return o.byUfrag[string(ufrag)]
		}
		rest = rest[min(4+(n+3)&^3, len(rest)):]
	}
	return nil
}

// lastHeard is when something came from a link's peer.
type lastHeard struct{ at atomic.Int64 }

// silent tells whether nothing has come for a while. A peer that plays is heard
// several times a second.
func (h *lastHeard) silent() bool {
	return media.Now()-time.Duration(h.at.Load()) > pathSilence
}
