package rtc

import (
	"encoding/binary"
	"time"

	"gateway/internal/media"
)

const (
	recordApplication = 23
	// shakes is how long after its first media a peer may still repeat its handshake in the
	// clear, because the gateway's last flight was lost.
	shakes = 30 * time.Second
)

// forged tells whether a datagram from the peer of a link is none that a peer sends
// whose DTLS is done: it has a record that isn't sealed, or is no record, such as
// an alert in the clear. Anybody who knows the peer's address can make one, and
// pion/dtls 3.1.8 ends the connection by it instead of passing it over (RFC 6347
// §4.1.2.7). Seen in November 2026: one datagram each ended seven of ten viewers.
func (l *link) forged(b []byte) bool {
	since := l.sealed.Load()
	if since == 0 || len(b) == 0 || b[0] < recordChangeCipher || b[0] > 63 { // of RFC 7983 §7
		return false
	}
	late := media.Now()-time.Duration(since) > shakes
	for len(b) > 0 {
		if len(b) < recordHeader || b[0] > recordApplication {
			return true
		}
		n := recordHeader + int(binary.BigEndian.Uint16(b[11:]))
		if n > len(b) {
			return true
		}
		if epoch := binary.BigEndian.Uint16(b[3:]); epoch == 0 && (late || !repeats(b[0], b[recordHeader:n])) {
			return true
		}
		b = b[n:]
	}
	return false
}

// repeats tells whether a record in the clear is one of a handshake.
func repeats(kind byte, content []byte) bool {
	return kind == recordHandshake || kind == recordChangeCipher && len(content) == 1 && content[0] == 1
}

// seals notes that DTLS is done: media and reports go out by its keys.
func (l *link) seals() {
	if l.sealed.Load() == 0 {
		l.sealed.Store(int64(media.Now()))
	}
}
