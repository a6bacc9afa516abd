package client_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"gateway/client"
)

// lossy drops every tenth packet of media on its way out; not what is sent again.
type lossy struct {
	interceptor.NoOp
	dropped, again atomic.Int64
}

func (l *lossy) NewInterceptor(string) (interceptor.Interceptor, error) { return l, nil }

func (l *lossy) BindLocalStream(info *interceptor.StreamInfo, next interceptor.RTPWriter) interceptor.RTPWriter {
	n := 0
	return interceptor.RTPWriterFunc(func(h *rtp.Header, payload []byte, a interceptor.Attributes) (int, error) {
		if h.SSRC == info.SSRCRetransmission {
			l.again.Add(1)
		} else if n++; n%10 == 0 {
			l.dropped.Add(1)
			return len(payload), nil
		}
		return next.Write(h, payload, a)
	})
}

// publisherAPI is pion with a lossy way out.
func publisherAPI(t *testing.T) (*webrtc.API, *lossy) {
	t.Helper()
	var m webrtc.MediaEngine
	check(t, m.RegisterDefaultCodecs())
	l := new(lossy)
	var registry interceptor.Registry
	registry.Add(l) // next to the wire
	check(t, webrtc.RegisterDefaultInterceptors(&m, &registry))
	setting := webrtc.SettingEngine{}
	setting.SetIncludeLoopbackCandidate(true)
	return webrtc.NewAPI(webrtc.WithMediaEngine(&m), webrtc.WithInterceptorRegistry(&registry), webrtc.WithSettingEngine(setting)), l
}

// What a publisher's network loses is sent again by RTX, and viewers get all of it.
func TestWhatIsLostIsSentAgain(t *testing.T) {
	ctx := patience(t)
	address := start(t, open, nil)
	api, way := publisherAPI(t)
	a := dial(ctx, t, address, client.Options{Name: "Anna", Create: true, API: api})
	_, err := a.Join(ctx, "meeting")
	check(t, err)
	track, err := webrtc.NewTrackLocalStaticSample(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8}, "video", "camera")
	check(t, err)
	feed(t, track)
	p, err := a.Publish(ctx, "camera", "", track)
	check(t, err)
	b := dial(ctx, t, address, client.Options{Name: "Bob"})
	_, err = b.Join(ctx, "meeting")
	check(t, err)
	w, err := b.Watch(ctx, p.Name, "")
	check(t, err)
	seen := tracks(ctx, t, w, 1)[webrtc.RTPCodecTypeVideo]
	var last uint16
	missing := 0
	for n := range 300 {
		p, err := seen.Read(ctx)
		check(t, err)
		if n > 20 && p.SequenceNumber != last+1 { // it is settled
			missing++
		}
		last = p.SequenceNumber
	}
	if missing > 3 || way.again.Load() == 0 || way.dropped.Load() < 10 {
		t.Errorf("%d dropped, %d sent again, %d gaps at the viewer", way.dropped.Load(), way.again.Load(), missing)
	}
	answer, err := http.Get(address + "/api/rooms/meeting")
	check(t, err)
	defer answer.Body.Close()
	var told struct {
		Publishers []struct {
			Streams []struct {
				Tracks []struct{ Repaired, Lost uint64 }
			}
		}
	}
	check(t, json.NewDecoder(answer.Body).Decode(&told))
	if len(told.Publishers) != 1 || told.Publishers[0].Streams[0].Tracks[0].Repaired == 0 {
		t.Errorf("%+v", told)
	}
}

// The candidates of a publisher go out as they are found, behind its offer: nobody waits
// until a STUN server has been given up.
func TestPublishingDoesNotWaitForCandidates(t *testing.T) {
	ctx := patience(t)
	silent, err := net.ListenPacket("udp4", "127.0.0.1:0") // a STUN server that never answers
	check(t, err)
	defer silent.Close()
	address := start(t, open+"ice: {servers: [\"stun:"+silent.LocalAddr().String()+"\"]}\n", nil)
	setting := webrtc.SettingEngine{}
	setting.SetIncludeLoopbackCandidate(true)
	setting.SetSTUNGatherTimeout(time.Hour)
	c := dial(ctx, t, address, client.Options{Create: true, API: webrtc.NewAPI(webrtc.WithSettingEngine(setting))})
	_, err = c.Join(ctx, "meeting")
	check(t, err)
	track, err := webrtc.NewTrackLocalStaticSample(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8}, "video", "camera")
	check(t, err)
	feed(t, track)
	p, err := c.Publish(ctx, "camera", "", track)
	check(t, err)
	w, err := c.Watch(ctx, p.Name, "")
	check(t, err)
	plays(ctx, t, tracks(ctx, t, w, 1)[webrtc.RTPCodecTypeVideo], webrtc.MimeTypeVP8)
}

// A gateway that is started again behind a proxy, or is asked too often, answers with an
// error for a while: the session is taken up when it doesn't any more.
func TestResumesThroughErrorsOfTheMoment(t *testing.T) {
	ctx := patience(t)
	address := start(t, open, map[string]string{"picture": picture})
	var w wire
	var refusals atomic.Int64
	refusing, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer refusing.Close()
	go func() {
		for {
			c, err := refusing.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				refusals.Add(1)
				io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			}
			c.Close()
		}
	}()
	var failing atomic.Bool
	c := dial(ctx, t, address, client.Options{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		if failing.Load() && refusals.Load() < 2 {
			address = refusing.Addr().String()
		}
		return w.dial(ctx, network, address)
	}})
	_, err = c.Join(ctx, "picture")
	check(t, err)
	watch, err := c.Watch(ctx, "picture", "")
	check(t, err)
	plays(ctx, t, tracks(ctx, t, watch, 1)[webrtc.RTPCodecTypeVideo], webrtc.MimeTypeVP8)
	failing.Store(true)
	w.cut(false)
	check(t, watch.View(ctx, 160, 120)) // answered when it is back
	if n := refusals.Load(); n != 2 {
		t.Errorf("taken up after %d refusals", n)
	}
}

// Who is moved goes on in the other room, on the same socket and connections, and can be
// taken up there; and ICE is restarted under a stream that plays.
func TestMovedClientGoesOnInTheOtherRoom(t *testing.T) {
	ctx := patience(t)
	address := start(t, open+"rooms: {hall: {streams: [picture]}, yard: {streams: [picture]}}\n", map[string]string{"picture": picture})
	var w wire
	guest := dial(ctx, t, address, client.Options{Name: "Guest", DialContext: w.dial})
	joined, err := guest.Join(ctx, "hall")
	check(t, err)
	events := guest.Events()
	watch, err := guest.Watch(ctx, "picture", "")
	check(t, err)
	track := tracks(ctx, t, watch, 1)[webrtc.RTPCodecTypeVideo]
	plays(ctx, t, track, webrtc.MimeTypeVP8)
	check(t, guest.Moderate(ctx, "restart-ice", nil))
	plays(ctx, t, track, webrtc.MimeTypeVP8)

	host := dial(ctx, t, address, client.Options{Name: "Host"})
	_, err = host.Join(ctx, "hall")
	check(t, err)
	check(t, host.Moderate(ctx, "move", map[string]any{"target": joined.UserID, "to": "yard"}))
	e := heard(ctx, t, events, "moved")
	var there client.Joined
	check(t, json.Unmarshal(e.Raw, &there))
	if there.RoomID != "yard" || there.UserID != joined.UserID {
		t.Errorf("moved: %s", e.Raw)
	}
	watch, err = guest.Watch(ctx, "picture", "")
	check(t, err)
	track = tracks(ctx, t, watch, 1)[webrtc.RTPCodecTypeVideo]
	plays(ctx, t, track, webrtc.MimeTypeVP8)
	w.cut(false)
	check(t, guest.Relay(ctx, "", "here")) // by the session that is taken up in the other room
	plays(ctx, t, track, webrtc.MimeTypeVP8)
	var refused *client.Error
	if err := host.Relay(ctx, joined.UserID, "psst"); !errors.As(err, &refused) || refused.Code != "unknown-target" {
		t.Errorf("the guest is still in the hall: %v", err)
	}
}
