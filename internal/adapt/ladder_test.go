package adapt

import (
	"slices"
	"testing"
	"time"
)

// house is a stream of several renditions and its viewers, each with a simulated network
// of its own. Each rendition has one encoder for all who watch it.
type house struct {
	now    time.Duration
	rungs  []*rung // best first
	guests []*guest
}

type rung struct {
	name     string
	encoder  *Encoder
	bitrates []int // each 100 ms, of the encoder
}

// guest is a viewer; what it is sent is its rung's bitrate.
type guest struct {
	*sim
	policy Viewer
	on     int // of house.rungs
	moves  []move
}

type move struct {
	at     time.Duration
	to     string
	reason string
}

// newHouse has a ladder of 2.5 Mbit/s down to 800 kbit/s, and of 300 down to 150.
func newHouse(networks ...scene) *house {
	h := &house{rungs: []*rung{
		{name: "high", encoder: NewEncoder(EncoderLimits{Min: 800e3, Start: 2.5e6, Max: 2.5e6, Shapes: ladder})},
		{name: "low", encoder: NewEncoder(EncoderLimits{Min: 150e3, Start: 300e3, Max: 300e3, Shapes: ladder[:1], Last: true})},
	}}
	for i, c := range networks {
		c.seed, c.want = uint64(i), 1.3*2.5e6
		h.guests = append(h.guests, &guest{sim: newSim(c)})
	}
	return h
}

// carries are those of who watches a rung; one may be left out.
func (h *house) carries(on int, but *guest) (all []int) {
	for _, g := range h.guests {
		if g.on == on && g != but {
			all = append(all, g.e.Estimate().Bps)
		}
	}
	return all
}

// asks is what a rung asks of a guest, as stream.Subscription.Carry has it.
func (h *house) asks(on int, g *guest) int {
	others := h.carries(on, g)
	target := h.rungs[on].encoder.Target(append(slices.Clone(others), g.e.Estimate().Bps))
	if slices.ContainsFunc(others, func(bps int) bool { return bps > 0 }) {
		target = max(target, h.rungs[on].encoder.Target(others))
	}
	return target
}

func (h *house) runs(until time.Duration) {
	for ; h.now < until; h.now += tick {
		for _, g := range h.guests {
			g.now, g.fixed = h.now, float64(h.rungs[g.on].encoder.Bps())
			g.tick()
		}
		if h.now%(20*ms) == 0 { // encoders hear of networks before viewers decide
			for i, r := range h.rungs {
				r.encoder.Step(h.now, EncoderReport{Carries: h.carries(i, nil)})
			}
		}
		if h.now%(100*ms) != 0 {
			continue
		}
		for _, r := range h.rungs {
			r.bitrates = append(r.bitrates, r.encoder.Bps())
		}
		for _, g := range h.guests {
			s := Situation{Playing: h.rungs[g.on].name, Carries: g.e.Estimate().Bps}
			for i, r := range h.rungs {
				s.Renditions = append(s.Renditions, Rendition{Name: r.name, Bps: h.asks(i, g)})
			}
			c := g.policy.Step(h.now, s)
			if c.Rendition != s.Playing {
				g.on = slices.IndexFunc(h.rungs, func(r *rung) bool { return r.name == c.Rendition })
				g.moves = append(g.moves, move{h.now, c.Rendition, c.Reason})
				g.wantKey = true
			}
		}
	}
}

// one whose network breaks down moves to the low rendition; the bitrate of those who
// stay was pulled down with it for the half second until it did.
func TestGoodViewersKeepTheirBitrateBesideABadOne(t *testing.T) {
	good := scene{rate: constant(5e6), delay: 20 * ms}
	bad := scene{rate: steps(5e6, 20*sec, 0.5e6, time.Hour, 0), delay: 20 * ms}
	h := newHouse(good, good, good, bad)
	h.runs(40 * sec)
	for _, g := range h.guests[:3] {
		if g.on != 0 {
			t.Errorf("a good viewer is on %q: %+v", h.rungs[g.on].name, g.moves)
		}
	}
	if g := h.guests[3]; g.on != 1 || len(g.moves) != 1 || g.moves[0].at > 23*sec {
		t.Errorf("the bad one is on %q: %+v", h.rungs[g.on].name, g.moves)
	}
	before := h.rungs[0].bitrates[199]
	for i, bps := range h.rungs[0].bitrates[200:] {
		if bps < before*9/10 {
			t.Fatalf("%d ms after one network broke down the encoder of four makes %d bit/s, %d before", 100*i, bps, before)
		}
	}
	t.Logf("high %d bit/s before and %d least after; %+v", before, slices.Min(h.rungs[0].bitrates[200:]), h.guests[3].moves)
}

// Alone it pulls the encoder down as long as it is sent its picture.
func TestEncoderFollowsItsLastViewerDown(t *testing.T) {
	h := newHouse(scene{rate: steps(5e6, 20*sec, 0.5e6, time.Hour, 0), delay: 20 * ms})
	h.runs(25 * sec)
	if least := slices.Min(h.rungs[0].bitrates[200:]); least != 800e3 {
		t.Errorf("its encoder came down to %d bit/s, want its least", least)
	}
	if g := h.guests[0]; g.on != 1 {
		t.Errorf("it is on %q: %+v", h.rungs[g.on].name, g.moves)
	}
}

// A viewer who gives no transport-wide feedback can't be probed, and on the low
// rendition sends too little for growth: it stayed there for good.
func TestViewerWithoutFeedbackComesBackUpTheLadder(t *testing.T) {
	h := newHouse(scene{rate: steps(5e6, 10*sec, 0.5e6, 20*sec, 5e6), delay: 20 * ms, reports: true})
	h.runs(20 * sec)
	g := h.guests[0]
	if g.on != 1 {
		t.Fatalf("on a network of 0.5 Mbit/s it is on %q; the estimate is %d", h.rungs[g.on].name, g.e.Estimate().Bps)
	}
	h.runs(90 * sec)
	if g.on != 0 {
		t.Errorf("70 s after the network has recovered it is on %q; the estimate is %d; %+v", h.rungs[g.on].name, g.e.Estimate().Bps, g.moves)
	}
	t.Logf("%+v", g.moves)
}

// And where the network hasn't recovered, the trials become rare.
func TestViewerWithoutFeedbackTriesSeldomWhatFails(t *testing.T) {
	h := newHouse(scene{rate: steps(5e6, 10*sec, 0.5e6, time.Hour, 0), delay: 20 * ms, reports: true})
	h.runs(250 * sec)
	g := h.guests[0]
	ups := 0
	for _, m := range g.moves {
		if m.to == "high" {
			ups++
		}
	}
	frozen := time.Duration(0)
	for _, f := range g.freezes {
		frozen += f
	}
	t.Logf("%d trials; frozen for %v of 240 s; %+v", ups, frozen, g.moves)
	if ups > 5 || g.on != 1 {
		t.Errorf("in four minutes it went up %d times, and is on %q", ups, h.rungs[g.on].name)
	}
}
