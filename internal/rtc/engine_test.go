package rtc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"gateway/internal/config"
)

func TestPortThatIsTakenIsNamed(t *testing.T) {
	e := newEngine(t, Options{})
	if e.Port() == 0 {
		t.Fatal("the engine has port 0")
	}
	_, err := New(Options{UDPPort: e.Port(), Logger: testLog(t)})
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), fmt.Sprint(e.Port())) {
		t.Errorf("second engine on the port: %v", err)
	}
}

func TestAllCandidatesAreOnThePort(t *testing.T) {
	e := newEngine(t, Options{})
	v := newWHEP(t, e, videoTrack, newSource())
	p := newPeer(t, peerOptions{})
	receiveOnly(t, p, 2)
	answer, err := v.Answer(context.Background(), whepOffer(t, p))
	if err != nil {
		t.Fatal(err)
	}
	loopback, n := false, 0
	for _, line := range strings.Split(answer, "\r\n") {
		if c, ok := strings.CutPrefix(line, "a=candidate:"); ok {
			f := strings.Fields(c)
			n++
			loopback = loopback || net.ParseIP(f[4]).IsLoopback()
			if f[1] != "1" || f[2] != "udp" || f[5] != fmt.Sprint(e.Port()) || f[7] != "host" {
				t.Errorf("candidate %q", c)
			}
		}
	}
	if !loopback {
		t.Errorf("none of %d candidates is loopback", n)
	}
}

func TestPublicAddressReplacesTheLocalOnes(t *testing.T) {
	e := newEngine(t, Options{ICE: config.ICE{PublicAddresses: []string{"203.0.113.7"}}})
	v := newWHEP(t, e, videoTrack, newSource())
	p := newPeer(t, peerOptions{})
	receiveOnly(t, p, 2)
	answer, err := v.Answer(context.Background(), whepOffer(t, p))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, line := range strings.Split(answer, "\r\n") {
		if c, ok := strings.CutPrefix(line, "a=candidate:"); ok {
			n++
			ip := net.ParseIP(strings.Fields(c)[4])
			if ip.To4() != nil && ip.String() != "203.0.113.7" || ip.IsLoopback() {
				t.Errorf("candidate %q", c)
			}
		}
	}
	if n == 0 {
		t.Error("there are no candidates")
	}
	if _, err := New(Options{ICE: config.ICE{PublicAddresses: []string{"nonsense"}}, Logger: testLog(t)}); err == nil {
		t.Error("a public address that is none was taken")
	}
}

func TestUnknownInterfacesLeaveLoopback(t *testing.T) {
	addrs, err := localAddrs(true, []string{"no-such-interface"})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if !a.IsLoopback() {
			t.Errorf("address %v is used", a)
		}
	}
}

func TestEngineCloses(t *testing.T) {
	e, err := New(Options{Logger: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	src := newSource()
	v, err := e.NewViewer(ViewerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.AddTrack("video", videoTrack, "desk", src); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if !errors.Is(v.Err(), ErrClosed) || !src.isClosed() {
		t.Errorf("viewer: %v, source closed: %v", v.Err(), src.isClosed())
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if _, err := e.NewViewer(ViewerOptions{}); !errors.Is(err, ErrClosed) {
		t.Errorf("viewer of a closed engine: %v", err)
	}
}

// value reads a counter or gauge.
func value(t *testing.T, m prometheus.Metric) float64 {
	t.Helper()
	var d dto.Metric
	if err := m.Write(&d); err != nil {
		t.Fatal(err)
	}
	return d.GetCounter().GetValue() + d.GetGauge().GetValue()
}

func TestMetricsCount(t *testing.T) {
	r := prometheus.NewRegistry()
	e := newEngine(t, Options{Registerer: r})
	if _, err := New(Options{Registerer: r, Logger: testLog(t)}); err == nil {
		t.Error("a second engine took the same metrics")
	}
	src := newSource()
	src.push(true, 3)
	s := newSession(t, e, peerOptions{}, videoTrack, src)
	if err := s.SetAnswer(context.Background(), ""); err == nil {
		t.Error("an answer without an offer was taken")
	}
	s.connect(t)
	for range 3 {
		s.peer.next(t)
	}
	m := e.metrics
	if n := value(t, m.viewers.WithLabelValues("connected")); n != 1 {
		t.Errorf("%v viewers are connected", n)
	}
	if n := value(t, m.failed.WithLabelValues("bad-state")); n != 1 {
		t.Errorf("%v negotiations failed by bad-state", n)
	}
	s.Close()
	if n := value(t, m.packets); n != 3 {
		t.Errorf("%v packets were sent", n)
	}
	for _, st := range []State{StateNew, StateConnecting, StateConnected} {
		if n := value(t, m.viewers.WithLabelValues(st.String())); n != 0 {
			t.Errorf("%v viewers are %v after the end", n, st)
		}
	}
	if n := value(t, m.ended.WithLabelValues("closed")); n != 1 {
		t.Errorf("%v viewers ended by closing", n)
	}
}

func TestPeerThatNamesManyStreamsIsEnded(t *testing.T) {
	src := newSource()
	src.push(true, 1)
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, src)
	s.connect(t)
	s.peer.next(t)
	deadline := time.After(15 * time.Second)
	for n := uint32(1); ; n++ {
		select {
		case <-s.Done():
			if !errors.Is(s.Err(), errForeign) {
				t.Errorf("ended by %v", s.Err())
			}
			return
		case <-deadline:
			t.Fatal("the viewer still lives")
		default:
			_ = s.peer.pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: n}})
		}
	}
}

// Feedback on 65535 packets that have arrived, without a word when, took pion milliseconds each,
// and went on. Here it is on 100: what counts is that it is none.
func TestPeerWhoseRTCPIsNoneIsEnded(t *testing.T) {
	b := append([]byte{0x8f, 205, 0, 10}, make([]byte, 40)...)
	b[15] = 100
	for i := 20; i < len(b); i += 2 {
		b[i], b[i+1] = 0x3f, 0xff // a run of 8191
	}
	feedback := rtcp.RawPacket(b)
	for name, packets := range map[string][]rtcp.Packet{
		"alone":     {&feedback},
		"in others": {&rtcp.ReceiverReport{SSRC: 1}, &feedback},
	} {
		t.Run(name, func(t *testing.T) {
			src := newSource()
			src.push(true, 1)
			s := newSession(t, fullICE(t), peerOptions{}, videoTrack, src)
			s.connect(t)
			s.peer.next(t)
			deadline := time.After(15 * time.Second)
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-s.Done():
					if !errors.Is(s.Err(), errNonsense) {
						t.Errorf("ended by %v", s.Err())
					}
					return
				case <-deadline:
					t.Fatal("the viewer still lives")
				case <-tick.C:
					_ = s.peer.pc.WriteRTCP(packets)
				}
			}
		})
	}
}

// Viewers who have left make room: it is not by turns that a shard is chosen.
func TestViewersAreDealtToTheShardWithTheFewest(t *testing.T) {
	e := newEngine(t, Options{})
	if len(e.shards) < 2 {
		t.Skip("one processor: one shard")
	}
	var viewers []*Viewer
	for range 2 * len(e.shards) {
		viewers = append(viewers, newWHEP(t, e))
	}
	first := viewers[0].shard
	left := 0
	for _, v := range viewers {
		if v.shard == first {
			left++
			v.Close()
		}
	}
	if left != 2 {
		t.Errorf("%d of %d viewers were on one of %d shards", left, len(viewers), len(e.shards))
	}
	for range left {
		if v := newWHEP(t, e); v.shard != first {
			t.Errorf("a viewer is on shard %d, while shard %d has none", v.shard.index, first.index)
		}
	}
}
