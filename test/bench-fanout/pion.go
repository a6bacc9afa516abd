package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"gateway/internal/media"
	"gateway/test/traffic"
)

// pion is what a server is that uses pion as its examples do.
type pion struct {
	api         *webrtc.API
	certificate *webrtc.Certificate
	track       *webrtc.TrackLocalStaticRTP
	header      rtp.Header
	viewers     atomic.Int64
	packets     atomic.Uint64
}

func newPion() (*pion, error) {
	engine := new(webrtc.MediaEngine)
	if err := engine.RegisterDefaultCodecs(); err != nil {
		return nil, err
	}
	registry := new(interceptor.Registry)
	if err := webrtc.RegisterDefaultInterceptors(engine, registry); err != nil {
		return nil, err
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	setting := webrtc.SettingEngine{}
	setting.SetICEUDPMux(webrtc.NewICEUDPMux(nil, conn))
	setting.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	setting.SetIncludeLoopbackCandidate(true)
	setting.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	// the cheaper cipher, which pion would not get as DTLS client
	if err := setting.SetAnsweringDTLSRole(webrtc.DTLSRoleServer); err != nil {
		return nil, err
	}
	setting.SetSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	certificate, err := webrtc.GenerateCertificate(key)
	if err != nil {
		return nil, err
	}
	track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeH264, ClockRate: 90000,
		SDPFmtpLine: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"}, "video", "bench")
	if err != nil {
		return nil, err
	}
	return &pion{
		api:         webrtc.NewAPI(webrtc.WithMediaEngine(engine), webrtc.WithInterceptorRegistry(registry), webrtc.WithSettingEngine(setting)),
		certificate: certificate, track: track,
		header: rtp.Header{Version: 2, SequenceNumber: uint16(mathrand.Uint32N(1 << 15))},
	}, nil
}

func (p *pion) answer(ctx context.Context, offer string) (string, error) {
	peer, err := p.api.NewPeerConnection(webrtc.Configuration{Certificates: []webrtc.Certificate{*p.certificate}})
	if err != nil {
		return "", err
	}
	sender, err := peer.AddTrack(p.track)
	if err != nil {
		return "", err
	}
	go func() { // interceptors work on what is read; it ends with the peer
		b := make([]byte, 1500)
		for {
			if _, _, err := sender.Read(b); err != nil {
				return
			}
		}
	}()
	if err := peer.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}); err != nil {
		return "", err
	}
	answer, err := peer.CreateAnswer(nil)
	if err != nil {
		return "", err
	}
	gathered := webrtc.GatheringCompletePromise(peer)
	if err := peer.SetLocalDescription(answer); err != nil {
		return "", err
	}
	select {
	case <-gathered:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	p.viewers.Add(1)
	return peer.LocalDescription().SDP, nil
}

func (p *pion) send(b *traffic.Buffer, capture time.Duration) {
	p.header.Timestamp = media.RTPTime(capture, 90000)
	for i, payload := range b.Payloads {
		p.header.Marker = b.End && i == len(b.Payloads)-1
		p.header.SequenceNumber++
		packet := rtp.Packet{Header: p.header, Payload: payload}
		if err := p.track.WriteRTP(&packet); err != nil {
			fmt.Fprintln(os.Stderr, "pion:", err)
		}
	}
	p.packets.Add(uint64(len(b.Payloads)) * uint64(p.viewers.Load()))
}

func (p *pion) counts() (Counts, error) { return Counts{Packets: p.packets.Load()}, nil }
