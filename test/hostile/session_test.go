package hostile

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/srtp/v3"
	"github.com/pion/stun/v4"
	"github.com/pion/webrtc/v4"

	"gateway/test/viewer"
)

// session is an admitted peer whose ICE is made by hand, so that what follows is up to the
// attack. Reading answers the gateway's checks by the way.
type session struct {
	*net.UDPConn
	own, theirs credentials
	certificate tls.Certificate
	heard       bool // the gateway has answered a check
	checked     bool // it has made one itself

	// after secure
	dtls *dtls.Conn
	out  *srtp.Context

	ssrc, newest atomic.Uint32 // of the media that came, and their sequence number
}

type credentials struct{ ufrag, pwd string }

var (
	ufragLine = regexp.MustCompile(`a=ice-ufrag:(\S+)`)
	pwdLine   = regexp.MustCompile(`a=ice-pwd:(\S+)`)
)

func credentialsOf(sdp string) (c credentials, err error) {
	ufrag, pwd := ufragLine.FindStringSubmatch(sdp), pwdLine.FindStringSubmatch(sdp)
	if ufrag == nil || pwd == nil {
		return c, errors.New("no ICE credentials")
	}
	return credentials{ufrag[1], pwd[1]}, nil
}

// admit makes a WHEP session and connects it as far as DTLS.
func (e *enemy) admit(ctx context.Context) (*session, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	certificate, err := webrtc.GenerateCertificate(key)
	if err != nil {
		return nil, err
	}
	pem, err := certificate.PEM()
	if err != nil {
		return nil, err
	}
	s := new(session)
	if s.certificate, err = tls.X509KeyPair([]byte(pem), []byte(pem)); err != nil {
		return nil, err
	}
	offer, err := newOffer(*certificate)
	if err != nil {
		return nil, err
	}
	answer, _, err := viewer.Post(ctx, http.DefaultClient, e.url("/whep/"+stream), offer)
	e.turnedAway(err)
	if err != nil {
		return nil, err
	}
	if s.own, err = credentialsOf(offer); err == nil {
		s.theirs, err = credentialsOf(answer)
	}
	if err != nil {
		return nil, err
	}
	to, err := net.ResolveUDPAddr("udp", e.host)
	if err != nil {
		return nil, err
	}
	if s.UDPConn, err = net.DialUDP("udp", nil, to); err != nil {
		return nil, err
	}
	if err := s.connect(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// connect checks until both sides have heard each other.
func (s *session) connect(ctx context.Context) error {
	b := make([]byte, 1500)
	for range 60 {
		if _, err := s.Write(check(s.theirs.ufrag, s.own.ufrag, s.theirs.pwd)); err != nil {
			return err
		}
		s.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		for {
			if _, _, err := s.ReadFrom(b); err != nil {
				break
			}
		}
		if s.heard && s.checked {
			s.SetReadDeadline(time.Time{})
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if s.heard { // ICE-lite makes no checks
		s.SetReadDeadline(time.Time{})
		return nil
	}
	return fmt.Errorf("the gateway answers no check")
}

// ReadFrom is a net.PacketConn's: what is neither STUN nor media.
func (s *session) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, err := s.Read(b)
		if err != nil {
			return 0, nil, err
		}
		switch {
		case n < 12:
		case b[0] < 4:
			s.answer(b[:n])
		case b[0] < 128:
			return n, s.RemoteAddr(), nil
		case b[1] < 192 || b[1] > 223: // RTP (RFC 5761 §4)
			s.newest.Store(uint32(binary.BigEndian.Uint16(b[2:])))
			s.ssrc.Store(binary.BigEndian.Uint32(b[8:]))
		}
	}
}

func (s *session) answer(b []byte) {
	m := &stun.Message{Raw: append([]byte(nil), b...)}
	if m.Decode() != nil {
		return
	}
	switch m.Type {
	case stun.BindingSuccess:
		s.heard = true
	case stun.BindingRequest:
		to := s.LocalAddr().(*net.UDPAddr)
		reply, err := stun.Build(stun.NewTransactionIDSetter(m.TransactionID), stun.BindingSuccess,
			&stun.XORMappedAddress{IP: to.IP, Port: to.Port}, stun.NewShortTermIntegrity(s.own.pwd), stun.Fingerprint)
		if err == nil {
			s.Write(reply.Raw)
			s.checked = true
		}
	}
}

// WriteTo is a net.PacketConn's.
func (s *session) WriteTo(b []byte, _ net.Addr) (int, error) { return s.Write(b) }

// handshake does DTLS with a certificate.
func (s *session) handshake(ctx context.Context, certificate tls.Certificate) (*dtls.Conn, error) {
	conn, err := dtls.ClientWithOptions(s, s.RemoteAddr(), dtls.WithCertificates(certificate), dtls.WithInsecureSkipVerify(true),
		dtls.WithSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM))
	if err != nil {
		return nil, err
	}
	return conn, conn.HandshakeContext(ctx)
}

// secure does DTLS as it should be and makes the keys of SRTP.
func (s *session) secure(ctx context.Context) error {
	var err error
	if s.dtls, err = s.handshake(ctx, s.certificate); err != nil {
		return err
	}
	state, ok := s.dtls.ConnectionState()
	if !ok {
		return errors.New("no DTLS state")
	}
	config := srtp.Config{Profile: srtp.ProtectionProfileAeadAes128Gcm}
	if err := config.ExtractSessionKeysFromDTLS(&state, true); err != nil {
		return err
	}
	s.out, err = srtp.CreateContext(config.Keys.LocalMasterKey, config.Keys.LocalMasterSalt, config.Profile)
	return err
}
