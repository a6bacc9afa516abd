package hostile

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/pion/webrtc/v4"
)

var dataAttacks = []attack{
	{"data", "flood: messages as fast as they go", talks(func(p *talker) error {
		return p.reliable.SendText(`{"data":[1,2,3]}`)
	})},
	{"data", "oversized: messages of 1 MiB", talks(func(p *talker) error { return p.reliable.Send(make([]byte, 1<<20)) })},
	{"data", "malformed: envelopes damaged at random", talks(func(p *talker) error {
		if rand.IntN(2) == 0 {
			return p.reliable.Send(noise(rand.IntN(1000)))
		}
		return p.reliable.SendText(string(damage([]byte(`{"target":"abcdefgh","data":{"x":[1,2,3,{"y":null}]}}`))))
	})},
	{"data", "flood: channels by the hundred", talks(func(p *talker) error {
		_, err := p.peer.CreateDataChannel(strings.Repeat("x", 1000), nil)
		return err
	})},
	{"data", "slow: one that reads nothing of what others send", func(ctx context.Context, e *enemy) error {
		joining, cancel := context.WithTimeout(context.Background(), preparing)
		defer cancel()
		deaf, err := prepare(joining, e.talker)
		if err != nil {
			return err
		}
		defer deaf.close()
		deaf.reliable.OnMessage(func(webrtc.DataChannelMessage) { select {} })
		return talks(func(p *talker) error { return p.reliable.SendText(`{"data":"` + strings.Repeat("x", 10_000) + `"}`) })(ctx, e)
	}},
}

var largest = regexp.MustCompile(`a=max-message-size:\d+`)

// talker is a peer with data channels.
type talker struct {
	socket   *websocket.Conn
	peer     *webrtc.PeerConnection
	reliable *webrtc.DataChannel
}

func (p *talker) close() {
	p.socket.Close()
	p.peer.Close()
}

// talks is an attack by peers that say something on their channel, again and again.
func talks(say func(*talker) error) func(context.Context, *enemy) error {
	return func(_ context.Context, e *enemy) error {
		joining, cancel := context.WithTimeout(context.Background(), preparing)
		defer cancel()
		talkers := make(chan *talker, 4)
		for range cap(talkers) {
			p, err := prepare(joining, e.talker)
			if err != nil {
				return err
			}
			talkers <- p
		}
		ctx, cancel := e.begin()
		defer cancel()
		e.many(ctx, cap(talkers), func() {
			var p *talker
			var err error
			select {
			case p = <-talkers:
			default: // those were turned out
				if p, err = e.talker(ctx); err != nil {
					return
				}
			}
			defer p.close()
			p.talk(ctx, e, say)
		})
		return nil
	}
}

func (p *talker) talk(ctx context.Context, e *enemy, say func(*talker) error) {
	for ctx.Err() == nil && p.peer.ConnectionState() == webrtc.PeerConnectionStateConnected {
		if p.reliable.BufferedAmount() > 4<<20 {
			wait(ctx, time.Millisecond)
			continue
		}
		if say(p) != nil {
			return
		}
		e.did()
	}
}

// talker joins with data channels and waits until one is open.
func (e *enemy) talker(ctx context.Context) (*talker, error) {
	s, err := e.join(ctx)
	if err != nil {
		return nil, err
	}
	setting := webrtc.SettingEngine{}
	setting.SetIncludeLoopbackCandidate(true)
	p := &talker{socket: s}
	if p.peer, err = webrtc.NewAPI(webrtc.WithSettingEngine(setting)).NewPeerConnection(webrtc.Configuration{}); err != nil {
		s.Close()
		return nil, err
	}
	open := make(chan *webrtc.DataChannel, 2)
	p.peer.OnDataChannel(func(c *webrtc.DataChannel) {
		c.OnOpen(func() {
			if c.Label() == "reliable" {
				open <- c
			}
		})
	})
	ended := make(chan error, 1)
	go func() { ended <- p.converse() }()
	select {
	case p.reliable = <-open:
		return p, nil
	case err = <-ended:
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.close()
	return nil, err
}

// converse answers the gateway's offers until the socket ends.
func (p *talker) converse() error {
	var mu sync.Mutex // held to write
	write := func(v any) error {
		mu.Lock()
		defer mu.Unlock()
		return p.socket.WriteJSON(v)
	}
	if err := write(map[string]any{"type": "open-data"}); err != nil {
		return err
	}
	p.peer.OnICECandidate(func(c *webrtc.ICECandidate) {
		if c != nil {
			write(map[string]any{"type": "ice-candidate", "candidate": c.ToJSON()})
		}
	})
	for {
		var m struct {
			Type, SDP string
			Candidate json.RawMessage
			Message   string
			Fatal     bool
		}
		if err := p.socket.ReadJSON(&m); err != nil {
			return err
		}
		switch m.Type {
		case "error":
			if m.Fatal {
				return fmt.Errorf("refused: %s", m.Message)
			}
		case "ice-candidate":
			var c webrtc.ICECandidateInit
			if json.Unmarshal(m.Candidate, &c) == nil && c.Candidate != "" {
				p.peer.AddICECandidate(c)
			}
		case "offer":
			m.SDP = largest.ReplaceAllString(m.SDP, "a=max-message-size:16777216") // or pion keeps to it
			if err := p.peer.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: m.SDP}); err != nil {
				return err
			}
			answer, err := p.peer.CreateAnswer(nil)
			if err != nil {
				return err
			}
			if err := p.peer.SetLocalDescription(answer); err != nil {
				return err
			}
			if err := write(map[string]any{"type": "answer", "sdp": answer.SDP}); err != nil {
				return err
			}
		}
	}
}
