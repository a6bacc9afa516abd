package rtc

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
	"github.com/pion/webrtc/v4"

	"gateway/internal/config"
	"gateway/internal/media"
)

// side is a track and the source that it is to send.
type side struct {
	*track
	spec media.Track
	src  *fakeSource
}

// churn has tracks send by w what chance brings, until done: frames of some packets,
// whole or in parts, other encodings and formats, and floods of NACKs.
func churn(t *testing.T, v *Viewer, w webrtc.TrackLocalWriter, dice *rand.Rand, specs []media.Track, most int, begin func(*track), done func([]*side) bool) {
	t.Helper()
	formatOf := func(s media.Track) format {
		f := format{codec: s.Codec, fmtp: s.Fmtp, pt: []uint8{102, 104}[dice.IntN(2)], transportID: uint8(2 * dice.IntN(2))}
		if s.Kind == media.Video {
			f.delayID, f.captureID, f.inStep, f.rtx = uint8(dice.IntN(2)), uint8(3*dice.IntN(2)), dice.IntN(2) == 0, []uint8{0, 103}[dice.IntN(2)]
		}
		return f
	}
	var sides []*side
	for i, spec := range specs {
		src := newMarked(byte(i))
		src.ragged = true
		tr := playing(v, spec, src, formatOf(spec), w)
		tr.ssrc, tr.rtxSSRC = uint32(10*i+1), uint32(10*i+2)
		tr.cur = (&encoding{spec: spec, src: src, offset: tr.cur.offset}).in(formatOf(spec), tr.ssrc, tr.rtxSSRC)
		begin(tr)
		v.tracks = append(v.tracks, tr)
		sides = append(sides, &side{tr, spec, src})
	}
	defer func() { v.tracks = nil }()
	shard := newIdleShard(t)
	for at := time.Hour; !done(sides); {
		s := sides[dice.IntN(len(sides))]
		at += time.Duration(dice.IntN(40)) * time.Millisecond
		switch dice.IntN(6) {
		case 0, 1: // frames, whole or in parts
			s.src.pushPart(at, dice.IntN(4) == 0, true, dice.IntN(8) > 0, 1+dice.IntN(most))
		case 2: // what is due
			s.take(shard, 1+dice.IntN(batchPackets), func(batch []media.Packet) {
				for _, p := range batch {
					if err := s.write(p); err != nil {
						t.Fatal(err)
					}
				}
			})
			shard.switched = shard.switched[:0]
		case 3: // a flood of NACKs, for the past and the future, also of what peers never ask again
			s.tokens = rtxBurst
			for range 20 {
				s.wanted = append(s.wanted, uint16(s.history.next)-uint16(dice.IntN(120))+5)
			}
			if s.recent != nil {
				*s.recent = [rtxRecent]resent{}
			}
			if _, _, err := s.answerNACKs(&shard.rtx, media.Now(), maxNacked); err != nil {
				t.Fatal(err)
			}
		case 4: // the peer agrees to something else
			f := []format{formatOf(s.spec)}
			s.agree(f, f)
		case 5: // another encoding, with its own or the same format
			src := newMarked(byte(dice.IntN(200)))
			src.ragged = dice.IntN(2) == 0
			src.pushAt(at, true, 2)
			s.next, s.src = (&encoding{spec: s.spec, src: src}).in(formatOf(s.spec), s.ssrc, s.rtxSSRC), src
		}
	}
}

// unique is a way to the peer that seals nothing twice: under one SSRC and sequence
// number there are the same bytes always (AES-GCM would use a nonce twice, which
// gives the keys away), and no transport-wide number is used twice.
type unique struct {
	t       *testing.T
	bytes   map[uint64]string
	numbers map[uint16]bool
	repeats int
}

func (u *unique) WriteRTP(h *rtp.Header, payload []byte) (int, error) {
	head, err := h.Marshal()
	if err != nil {
		u.t.Fatal(err)
	}
	id, is := uint64(h.SSRC)<<16|uint64(h.SequenceNumber), string(head)+string(payload)+string([]byte{h.PaddingSize})
	if was, ok := u.bytes[id]; !ok {
		u.bytes[id] = is
	} else if u.repeats++; was != is {
		u.t.Fatalf("SSRC %d, number %d has other bytes:\n%x\n%x", h.SSRC, h.SequenceNumber, was[:len(head)], head)
	}
	if ext := h.GetExtension(2); ext != nil {
		n := binary.BigEndian.Uint16(ext)
		if u.numbers[n] {
			u.t.Fatalf("transport-wide number %d is used twice", n)
		}
		u.numbers[n] = true
	}
	return len(payload), nil
}
func (u *unique) Write(b []byte) (int, error) { return len(b), nil }

func TestNothingIsSealedTwice(t *testing.T) {
	for seed := range uint64(40) {
		u := &unique{t: t, bytes: map[uint64]string{}, numbers: map[uint16]bool{}}
		v := newWHEP(t, newEngine(t, Options{}))
		steps := 0
		churn(t, v, u, rand.New(rand.NewPCG(seed, 0)), []media.Track{videoTrack, audioTrack, lowTrack}, 5, func(*track) {}, func([]*side) bool {
			steps++
			return steps > 1000
		})
		if len(u.bytes) < 200 || u.repeats == 0 || len(u.numbers) == 0 {
			t.Errorf("seed %d: %d packets, %d repeats, %d numbers", seed, len(u.bytes), u.repeats, len(u.numbers))
		}
	}
}

// opener is the peer of a way by which packets are sealed: it opens each, and knows
// what was sealed under which SSRC, roll-over counter and sequence number.
type opener struct {
	t       *testing.T
	out     webrtc.TrackLocalWriter
	sealed  func() []byte // what out has made of the last packet
	in      *srtp.Context
	newest  map[uint32]uint64 // index of the newest packet, by SSRC
	opened  map[nonce]uint64  // hash of the packet
	seed    maphash.Seed
	repeats int
	padded  int
}

// nonce is what AES-GCM's is made of, besides the keys (RFC 7714 §8.1).
type nonce struct {
	ssrc  uint32
	index uint64 // ROC and sequence number
}

func newOpener(t *testing.T, out webrtc.TrackLocalWriter, sealed func() []byte) *opener {
	in, err := srtp.CreateContext(make([]byte, 16), make([]byte, 12), srtp.ProtectionProfileAeadAes128Gcm)
	if err != nil {
		t.Fatal(err)
	}
	return &opener{t: t, out: out, sealed: sealed, in: in, newest: map[uint32]uint64{}, opened: map[nonce]uint64{}, seed: maphash.MakeSeed()}
}

func (o *opener) WriteRTP(h *rtp.Header, payload []byte) (int, error) {
	n, err := o.out.WriteRTP(h, payload)
	if err != nil || n == 0 {
		o.t.Fatalf("%d bytes written: %v", n, err)
	}
	plain, err := o.in.DecryptRTP(nil, o.sealed(), nil)
	if err != nil {
		o.t.Fatalf("SSRC %d, number %d: %v", h.SSRC, h.SequenceNumber, err)
	}
	head, err := h.Marshal()
	if err != nil {
		o.t.Fatal(err)
	}
	whole := append(append(head, payload...), make([]byte, h.PaddingSize)...)
	if h.PaddingSize > 0 {
		whole[len(whole)-1] = h.PaddingSize
		o.padded++
	}
	if !bytes.Equal(plain, whole) {
		o.t.Fatalf("SSRC %d, number %d: %d bytes are opened, %d were sealed", h.SSRC, h.SequenceNumber, len(plain), len(whole))
	}
	id := nonce{h.SSRC, uint64(h.SequenceNumber)}
	if last, ok := o.newest[h.SSRC]; ok { // RFC 3711 §3.3.1
		id.index = uint64(int64(last) + int64(int16(h.SequenceNumber-uint16(last))))
	}
	o.newest[h.SSRC] = max(o.newest[h.SSRC], id.index)
	if roc, _ := o.in.ROC(h.SSRC); uint64(roc) != o.newest[h.SSRC]>>16 {
		o.t.Fatalf("SSRC %d, index %d: the roll-over counter is %d", h.SSRC, o.newest[h.SSRC], roc)
	}
	sum := maphash.Bytes(o.seed, plain)
	if was, ok := o.opened[id]; !ok {
		o.opened[id] = sum
	} else if o.repeats++; was != sum {
		o.t.Fatalf("SSRC %d, roll-over counter %d, number %d is sealed twice, with other bytes", id.ssrc, id.index>>16, uint16(id.index))
	}
	return n, nil
}
func (o *opener) Write(b []byte) (int, error) { return len(b), nil }

// last is a connection that keeps the last packet.
type last struct {
	nowhere
	packet []byte
}

func (l *last) Write(b []byte) (int, error) {
	l.packet = append(l.packet[:0], b...)
	return len(b), nil
}

// Sequence numbers wrap several times, with the contexts that seal for viewers.
func TestNothingIsSealedTwiceAsNumbersWrap(t *testing.T) {
	for name, seals := range map[string]func(t *testing.T) (*Viewer, *opener){
		"full": func(t *testing.T) (*Viewer, *opener) {
			conn := &last{nowhere: newNowhere()}
			keys := srtp.SessionKeys{
				LocalMasterKey: make([]byte, 16), LocalMasterSalt: make([]byte, 12),
				RemoteMasterKey: make([]byte, 16), RemoteMasterSalt: make([]byte, 12),
			}
			s, err := srtp.NewSessionSRTP(conn, &srtp.Config{Profile: srtp.ProtectionProfileAeadAes128Gcm, Keys: keys})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			out, err := s.OpenWriteStream()
			if err != nil {
				t.Fatal(err)
			}
			return newWHEP(t, newEngine(t, Options{})), newOpener(t, out, func() []byte { return conn.packet })
		},
		"lite": func(t *testing.T) (*Viewer, *opener) {
			v := newWHEP(t, newEngine(t, Options{ICE: config.ICE{Lite: true}}))
			l := v.conn.(*lite)
			l.mu.Lock()
			l.choose(l.newPath(v.engine.sockets.muxes[netip.MustParseAddr("127.0.0.1")].socket, netip.MustParseAddrPort("127.0.0.1:9")))
			l.mu.Unlock()
			var err error
			if l.out, err = srtp.CreateContext(make([]byte, 16), make([]byte, 12), srtp.ProtectionProfileAeadAes128Gcm); err != nil {
				t.Fatal(err)
			}
			out := v.shard.out
			return v, newOpener(t, l, func() []byte {
				defer out.clear() // isn't sent
				return out.arena[out.begin(len(out.ends)-1):]
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			v, o := seals(t)
			const wraps = 3
			churn(t, v, o, rand.New(rand.NewPCG(1, 2)), []media.Track{videoTrack, audioTrack}, 40, func(tr *track) {
				tr.history.next, tr.rtxSeq = 65500, 65500
			}, func(sides []*side) bool { return sides[0].history.next > wraps<<16+2000 })
			if o.newest[1]>>16 != wraps || o.newest[2]>>16 == 0 || o.newest[11]>>16 == 0 {
				t.Errorf("the newest packets are %v", o.newest)
			}
			if o.repeats == 0 || o.padded == 0 {
				t.Errorf("%d packets are opened, %d of them padded, %d are the same again", len(o.opened), o.padded, o.repeats)
			}
		})
	}
}
