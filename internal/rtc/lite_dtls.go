package rtc

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/srtp/v3"
	"github.com/pion/transport/v4/deadline"

	"gateway/internal/contain"
	"gateway/internal/media"
)

const (
	dtlsQueue   = 16                     // datagrams that may wait for the handshake
	redoPause   = 50 * time.Millisecond  // between two looks at what comes after it
	resumeLimit = 200 * time.Millisecond // of such a look
)

// The types of DTLS records (RFC 6347 §4.1).
const (
	recordChangeCipher = 20
	recordAlert        = 21
	recordHandshake    = 22
	recordHeader       = 13
)

// profiles of SRTP in the order of preference: as DTLS server the gateway decides.
// AES-GCM costs half of what AES-CM with HMAC-SHA1 does.
var profiles = []dtls.SRTPProtectionProfile{dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80}

// begin starts the handshake when there is a way to the peer and it is known what
// certificate it has; what came before waits in the pipe. There is one handshake
// for a viewer, and it takes the password of its signaling to start it. mu is held.
func (l *lite) begin() {
	if l.shaken || l.closed || l.fingerprint == "" || l.path.Load() == nil {
		return
	}
	l.shaken = true
	fingerprint, client := l.fingerprint, l.client
	l.running.Add(1)
	go func() {
		defer contain.Panic(l.viewer.log, "viewer", l.broke)
		defer l.running.Done()
		switch err := l.handshake(fingerprint, client); {
		case err == nil:
			l.enter(StateConnected)
		case errors.Is(err, errStranger): // with full ICE it would be one, too
			l.viewer.log.Debug("DTLS handshake failed", "error", err)
			l.enter(StateFailed)
		default:
			l.viewer.end(fmt.Errorf("%w: DTLS handshake: %v", ErrNeedsFullICE, err))
		}
	}()
}

// handshake makes the keys. The DTLS connection ends with it: what may come later
// (the peer repeats its last flight for it has lost ours, an alert) is answered
// from what is kept.
func (l *lite) handshake(fingerprint string, client bool) error {
	p := l.pipe
	defer p.Close()
	conn, err := l.dtlsConn(p, fingerprint, client)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(p.ctx, l.peers.shaking)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	flight := p.mute() // also the alert of Close
	state, ok := conn.ConnectionState()
	profile, agreed := conn.SelectedSRTPProtectionProfile()
	if !ok || !agreed {
		return errors.New("no SRTP profile was agreed on")
	}
	config := srtp.Config{Profile: srtp.ProtectionProfileAeadAes128Gcm}
	if profile != dtls.SRTP_AEAD_AES_128_GCM {
		config.Profile = srtp.ProtectionProfileAes128CmHmacSha1_80
	}
	if err := config.ExtractSessionKeysFromDTLS(&state, client); err != nil {
		return err
	}
	k := config.Keys
	out, err := srtp.CreateContext(k.LocalMasterKey, k.LocalMasterSalt, config.Profile)
	if err != nil {
		return err
	}
	in, err := srtp.CreateContext(k.RemoteMasterKey, k.RemoteMasterSalt, config.Profile, srtp.SRTCPReplayProtection(64))
	if err != nil {
		return err
	}
	state.PeerCertificates = nil // were checked
	l.viewer.sendMu.Lock()
	l.out = out
	l.viewer.sendMu.Unlock()
	l.mu.Lock()
	l.in, l.secret, l.flight, l.pipe = in, &state, flight, nil
	l.mu.Unlock()
	return nil
}

func (l *lite) dtlsConn(p *pipe, fingerprint string, client bool) (*dtls.Conn, error) {
	common := append(l.dtlsOptions(),
		dtls.WithSRTPProtectionProfiles(profiles...),
		dtls.WithFlightInterval(dtlsRetransmit),
		dtls.WithVerifyPeerCertificate(func(certs [][]byte, _ [][]*x509.Certificate) error {
			return checkCertificate(certs, fingerprint)
		}))
	if client {
		var options []dtls.ClientOption
		for _, o := range common {
			options = append(options, o)
		}
		return dtls.ClientWithOptions(p, p.RemoteAddr(), options...)
	}
	options := []dtls.ServerOption{
		dtls.WithClientAuth(dtls.RequireAnyClientCert),
		dtls.WithInsecureSkipVerifyHello(true), // ICE has verified the peer's address: saves a round trip
	}
	for _, o := range common {
		options = append(options, o)
	}
	return dtls.ServerWithOptions(p, p.RemoteAddr(), options...)
}

// dtlsOptions are those of a handshake and of a connection that is resumed.
func (l *lite) dtlsOptions() []dtls.Option {
	return []dtls.Option{
		dtls.WithCertificates(l.certificate.tls),
		dtls.WithInsecureSkipVerify(true), // its fingerprint came over signaling (RFC 5763 §5)
		dtls.WithLoggerFactory(pionLog{l.viewer.log}),
	}
}

var errStranger = errors.New("peer's certificate is not the one of its description")

// checkCertificate compares the peer's certificate with its description (RFC 8122 §5).
func checkCertificate(certs [][]byte, fingerprint string) error {
	if len(certs) == 0 {
		return errors.New("peer has no certificate")
	}
	hash, text, _ := strings.Cut(fingerprint, " ")
	want, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
	if err != nil {
		return err
	}
	if got := digest(hash, certs[0]); got == nil || subtle.ConstantTimeCompare(got, want) != 1 {
		return errStranger
	}
	return nil
}

// digest is a hash by the name that SDP has for it, nil if it is unknown.
func digest(hash string, b []byte) []byte {
	switch hash {
	case "sha-1":
		d := sha1.Sum(b)
		return d[:]
	case "sha-224":
		d := sha256.Sum224(b)
		return d[:]
	case "sha-256":
		d := sha256.Sum256(b)
		return d[:]
	case "sha-384":
		d := sha512.Sum384(b)
		return d[:]
	case "sha-512":
		d := sha512.Sum512(b)
		return d[:]
	}
	return nil
}

// receiveDTLS takes a datagram on the goroutine that reads the socket. The source
// may be a stranger's invention: what is done for it is little, and seldom.
func (l *lite) receiveDTLS(b []byte) {
	now := media.Now()
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	if p := l.pipe; p != nil {
		l.mu.Unlock()
		p.put(b)
		return
	}
	if l.secret == nil || now-l.redone < redoPause {
		l.mu.Unlock()
		return
	}
	var again [][]byte
	switch {
	case holds(b, recordHandshake) && l.flight != nil: // the peer's last flight: ours was lost (RFC 6347 §4.2.4)
		again, l.redone = l.flight, now
	case holds(b, recordAlert):
		l.redone = now
		secret, b := l.secret, slices.Clone(b)
		l.running.Add(1)
		go func() {
			defer contain.Panic(l.viewer.log, "viewer", l.broke)
			defer l.running.Done()
			if l.ends(secret, b) {
				l.enter(StateClosed)
			}
		}()
	}
	l.mu.Unlock()
	for _, b := range again {
		_ = l.write(b) // lost, as on a network that loses packets
	}
}

// holds tells whether a datagram has an encrypted record of a type in it.
func holds(b []byte, kind byte) bool {
	for len(b) >= recordHeader {
		if b[0] == kind && binary.BigEndian.Uint16(b[3:]) != 0 { // epoch
			return true
		}
		n := recordHeader + int(binary.BigEndian.Uint16(b[11:]))
		if n > len(b) {
			return false
		}
		b = b[n:]
	}
	return false
}

// ends tells whether a datagram ends the DTLS connection: an alert, which it answers.
func (l *lite) ends(secret *dtls.State, b []byte) bool {
	ctx, cancel := context.WithTimeout(context.Background(), resumeLimit)
	defer cancel()
	p := newPipe(ctx, l.write)
	conn, err := l.resume(p, secret)
	if err != nil {
		return false
	}
	defer conn.Close()
	p.put(b) // not before: the alert would end what resumes
	select {
	case <-p.closed: // by the DTLS connection
		return true
	case <-p.drained: // it has read on: it was no such thing
	case <-ctx.Done():
	}
	p.mute()
	return false
}

// bid tells the peer that the connection ends (close_notify).
func (l *lite) bid(secret *dtls.State) error {
	ctx, cancel := context.WithTimeout(context.Background(), resumeLimit)
	defer cancel()
	conn, err := l.resume(newPipe(ctx, l.write), secret)
	if err != nil {
		return err
	}
	return conn.Close()
}

func (l *lite) resume(p *pipe, secret *dtls.State) (*dtls.Conn, error) {
	conn, err := dtls.ResumeWithOptions(secret, p, p.RemoteAddr(), l.dtlsOptions()...)
	if err != nil {
		p.Close()
		return nil, err
	}
	if err := conn.HandshakeContext(p.ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// pipe is the socket that pion's DTLS is given: it reads what put brings, until
// ctx ends, and writes to where the peer is.
type pipe struct {
	ctx     context.Context
	send    func([]byte) error
	in      chan []byte
	expired *deadline.Deadline
	once    sync.Once
	closed  chan struct{}

	read    bool          // something; ReadFrom's
	drained chan struct{} // has one when more was to be read after a datagram

	mu     sync.Mutex // guards what follows
	muted  bool
	flight [][]byte // datagrams written since the last ChangeCipherSpec
}

func newPipe(ctx context.Context, send func([]byte) error) *pipe {
	return &pipe{
		ctx: ctx, send: send, in: make(chan []byte, dtlsQueue), expired: deadline.New(),
		closed: make(chan struct{}), drained: make(chan struct{}, 1),
	}
}

// put brings a datagram, which is lost if there are too many.
func (p *pipe) put(b []byte) {
	select {
	case p.in <- slices.Clone(b):
	default:
	}
}

// mute ends what is written, and returns the last flight.
func (p *pipe) mute() [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.muted = true
	return p.flight
}

// ReadFrom is a net.PacketConn's.
func (p *pipe) ReadFrom(b []byte) (int, net.Addr, error) {
	if p.read && len(p.in) == 0 {
		select {
		case p.drained <- struct{}{}:
		default:
		}
	}
	select {
	case d := <-p.in:
		p.read = true
		return copy(b, d), p.RemoteAddr(), nil
	case <-p.closed:
		return 0, nil, net.ErrClosed
	case <-p.ctx.Done():
		return 0, nil, net.ErrClosed
	case <-p.expired.Done():
		return 0, nil, os.ErrDeadlineExceeded
	}
}

// WriteTo is a net.PacketConn's.
func (p *pipe) WriteTo(b []byte, _ net.Addr) (int, error) {
	p.mu.Lock()
	if p.muted {
		p.mu.Unlock()
		return len(b), nil
	}
	if last := len(b) > 0 && b[0] == recordChangeCipher; last || p.flight != nil {
		if last {
			p.flight = nil
		}
		p.flight = append(p.flight, slices.Clone(b))
	}
	p.mu.Unlock()
	if err := p.send(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close is a net.PacketConn's. Idempotent.
func (p *pipe) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// LocalAddr is a net.PacketConn's, of no meaning here.
func (p *pipe) LocalAddr() net.Addr { return &net.UDPAddr{} }

// RemoteAddr is what pion's DTLS takes for the peer's address, of no meaning here.
func (p *pipe) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(netip.AddrPort{}) }

// SetDeadline is a net.PacketConn's.
func (p *pipe) SetDeadline(t time.Time) error { return p.SetReadDeadline(t) }

// SetReadDeadline is a net.PacketConn's.
func (p *pipe) SetReadDeadline(t time.Time) error {
	p.expired.Set(t)
	return nil
}

// SetWriteDeadline is a net.PacketConn's: writing doesn't wait.
func (p *pipe) SetWriteDeadline(time.Time) error { return nil }

// certificate is the gateway's, for both kinds of connection.
type certificate struct {
	tls         tls.Certificate
	fingerprint string // as SDP has it
}

// fingerprintOf writes a certificate's SHA-256 as SDP does.
func fingerprintOf(der []byte) string {
	d := sha256.Sum256(der)
	return "sha-256 " + strings.ReplaceAll(fmt.Sprintf("% X", d), " ", ":")
}
