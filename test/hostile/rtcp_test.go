package hostile

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

var rtcpAttacks = []attack{
	{"RTCP", "spoofed: noise as SRTCP in good viewers' names", hear(overheard.isRTCP, func(ctx context.Context, e *enemy) error {
		return e.inTheirName(ctx, func(o overheard) []byte { return append(o.payload[:8:8], noise(20+rand.IntN(200))...) })
	})},
	{"RTCP", "replayed: good viewers' own, in their names", hear(overheard.isRTCP, func(ctx context.Context, e *enemy) error {
		return e.inTheirName(ctx, func(o overheard) []byte { return o.payload })
	})},
	{"RTCP", "flood: NACKs for all that was sent", sends(func(ssrc uint32, _ uint16) []rtcp.Packet {
		nack := &rtcp.TransportLayerNack{SenderSSRC: 1, MediaSSRC: ssrc}
		for range 300 {
			nack.Nacks = append(nack.Nacks, rtcp.NackPair{PacketID: uint16(rand.Uint32()), LostPackets: 0xffff})
		}
		return []rtcp.Packet{nack}
	})},
	{"RTCP", "flood: NACKs for the newest packets", sends(func(ssrc uint32, newest uint16) []rtcp.Packet {
		nack := &rtcp.TransportLayerNack{SenderSSRC: 1, MediaSSRC: ssrc}
		for i := range 10 {
			nack.Nacks = append(nack.Nacks, rtcp.NackPair{PacketID: newest - uint16(17*i), LostPackets: 0xffff})
		}
		return []rtcp.Packet{nack}
	})},
	{"RTCP", "flood: keyframe requests", sends(func(ssrc uint32, _ uint16) []rtcp.Packet {
		return []rtcp.Packet{
			&rtcp.PictureLossIndication{SenderSSRC: 1, MediaSSRC: ssrc},
			&rtcp.FullIntraRequest{SenderSSRC: rand.Uint32(), MediaSSRC: ssrc, FIR: []rtcp.FIREntry{{SSRC: ssrc, SequenceNumber: uint8(rand.Uint32())}}},
		}
	})},
	{"RTCP", "malformed: transport feedback that lies", sends(func(ssrc uint32, _ uint16) []rtcp.Packet {
		// 65535 statuses in chunks of noise, with deltas that aren't there (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1)
		b := append([]byte{0x8f, 205, 0, 99}, noise(396)...)
		b[14], b[15] = 0xff, 0xff
		raw := rtcp.RawPacket(b)
		return []rtcp.Packet{&raw}
	})},
	{"RTCP", "malformed: 44 bytes of feedback on 65535 packets", sends(func(ssrc uint32, _ uint16) []rtcp.Packet {
		b := append([]byte{0x8f, 205, 0, 10}, make([]byte, 40)...)
		b[14], b[15] = 0xff, 0xff
		for i := 20; i < len(b); i++ {
			b[i] = 0xff - 0xc0*byte(1-i%2) // runs of 8191 that have arrived (section 3.1.3)
		}
		raw := rtcp.RawPacket(b)
		return []rtcp.Packet{&rtcp.ReceiverReport{SSRC: 1}, &raw}
	})},
	{"RTCP", "malformed: reports that lie", sends(func(ssrc uint32, _ uint16) []rtcp.Packet {
		reports := make([]rtcp.ReceptionReport, 31)
		for i := range reports {
			reports[i] = rtcp.ReceptionReport{SSRC: ssrc, FractionLost: uint8(rand.Uint32()), TotalLost: rand.Uint32() >> 9,
				LastSequenceNumber: rand.Uint32(), Jitter: rand.Uint32(), LastSenderReport: rand.Uint32(), Delay: rand.Uint32()}
		}
		bitrate := []float32{0, 1, 1e18, -1}[rand.IntN(4)]
		return []rtcp.Packet{&rtcp.ReceiverReport{SSRC: 1, Reports: reports}, &rtcp.ReceiverEstimatedMaximumBitrate{SenderSSRC: 1, Bitrate: bitrate, SSRCs: []uint32{ssrc}}}
	})},
	{"RTCP", "malformed: sealed noise of all kinds", sends(func(ssrc uint32, _ uint16) []rtcp.Packet {
		n := 2 + rand.IntN(60)
		b := append([]byte{0x80 | byte(rand.IntN(32)), byte(192 + rand.IntN(32)), 0, byte(n - 1)}, noise(4*n-4)...)
		raw := rtcp.RawPacket(b)
		return []rtcp.Packet{&raw}
	})},
	{"RTCP", "flood: senders by the thousand", sends(func(uint32, uint16) []rtcp.Packet {
		return []rtcp.Packet{&rtcp.ReceiverReport{SSRC: rand.Uint32()}}
	})},
	{"RTCP", "flood: RTP from peers that may only watch", insiders(4, true, func(ctx context.Context, e *enemy, s *session) {
		e.send(ctx, s, func() []byte {
			p := rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: uint8(rand.IntN(128)), SSRC: rand.Uint32(), SequenceNumber: uint16(rand.Uint32())}, Payload: noise(1000)}
			raw, err := p.Marshal()
			if err == nil {
				raw, _ = s.out.EncryptRTP(nil, raw, nil)
			}
			return raw
		})
	})},
}

// sends is an attack by admitted peers that send RTCP: of their track's SSRC and the newest
// sequence number.
func sends(next func(ssrc uint32, newest uint16) []rtcp.Packet) func(context.Context, *enemy) error {
	return insiders(4, true, func(ctx context.Context, e *enemy, s *session) {
		for s.ssrc.Load() == 0 { // no media yet
			if !wait(ctx, 10*time.Millisecond) {
				return
			}
		}
		e.send(ctx, s, func() []byte {
			raw, err := rtcp.Marshal(next(s.ssrc.Load(), uint16(s.newest.Load())))
			if err == nil {
				raw, _ = s.out.EncryptRTCP(nil, raw, nil)
			}
			return raw
		})
	})
}
