package adapt

import (
	"slices"
	"testing"
	"time"
)

var renditions = []Rendition{
	{"high", 2_500_000, 1280, 720},
	{"mid", 900_000, 640, 360},
	{"low", 300_000, 320, 180},
}

// viewing plays a viewer's story: each step lasts as long as it says, in which the
// policy is asked ten times a second, and ends with the rendition that is named.
type viewing struct {
	lasts   time.Duration
	carries int
	screen  Screen
	pinned  string
	ends    string
	reason  string // of the last change within the step
}

func TestViewerGetsWhatItsNetworkCarries(t *testing.T) {
	for name, story := range map[string][]viewing{
		"best at first":            {{time.Second, 0, Screen{}, "", "high", "the best there is"}},
		"known before the start":   {{time.Second, 1_000_000, Screen{}, "", "mid", "the network carries 1.0 Mbit/s"}},
		"nothing fits":             {{time.Second, 100_000, Screen{}, "", "low", "the network carries 100 kbit/s"}},
		"down at once":             {{time.Second, 0, Screen{}, "", "high", ""}, {1, 1_000_000, Screen{}, "", "mid", "the network carries 1.0 Mbit/s, high has 2.5 Mbit/s"}},
		"a queue drains":           {{time.Second, 0, Screen{}, "", "high", ""}, {400 * time.Millisecond, 2_000_000, Screen{}, "", "high", ""}, {time.Second, 2_500_000, Screen{}, "", "high", ""}, {400 * time.Millisecond, 2_000_000, Screen{}, "", "high", ""}},
		"a little too little":      {{time.Second, 0, Screen{}, "", "high", ""}, {600 * time.Millisecond, 2_000_000, Screen{}, "", "mid", ""}},
		"down over two":            {{time.Second, 0, Screen{}, "", "high", ""}, {1, 400_000, Screen{}, "", "low", ""}},
		"up when it has held":      {{time.Second, 400_000, Screen{}, "", "low", ""}, {1900 * time.Millisecond, 3_100_000, Screen{}, "", "low", ""}, {300 * time.Millisecond, 3_100_000, Screen{}, "", "high", "the network has carried 3.1 Mbit/s for 2s"}},
		"up by what has held":      {{time.Second, 400_000, Screen{}, "", "low", ""}, {time.Second, 3_100_000, Screen{}, "", "low", ""}, {1, 1_200_000, Screen{}, "", "low", ""}, {time.Second + 100*time.Millisecond, 3_100_000, Screen{}, "", "mid", ""}},
		"not up without margin":    {{time.Second, 400_000, Screen{}, "", "low", ""}, {time.Minute, 1_000_000, Screen{}, "", "low", ""}},
		"no flutter at the border": {{time.Second, 0, Screen{}, "", "high", ""}, {time.Minute, 2_400_000, Screen{}, "", "high", ""}},
		"a dip begins anew":        {{time.Second, 400_000, Screen{}, "", "low", ""}, {1500 * time.Millisecond, 1_200_000, Screen{}, "", "low", ""}, {1, 800_000, Screen{}, "", "low", ""}, {1500 * time.Millisecond, 1_200_000, Screen{}, "", "low", ""}},
		"a thumbnail":              {{time.Second, 0, Screen{Width: 320, Height: 180}, "", "low", "shown at 320×180"}},
		"a little larger":          {{time.Second, 0, Screen{Width: 390, Height: 240}, "", "low", ""}},
		"half the window":          {{time.Second, 0, Screen{Width: 641, Height: 900}, "", "mid", ""}},
		"made small":               {{time.Second, 0, Screen{Width: 1280, Height: 720}, "", "high", ""}, {1, 0, Screen{Width: 200, Height: 120}, "", "low", "shown at 200×120"}},
		"made large on a good network": {{time.Second, 800_000, Screen{Width: 200, Height: 120}, "", "low", ""}, {1, 800_000, Screen{Width: 1280, Height: 720}, "", "low", ""},
			{3 * time.Second, 4_000_000, Screen{Width: 1280, Height: 720}, "", "high", ""}},
		"made large, known to be carried": {{time.Second, 4_000_000, Screen{Width: 200, Height: 120}, "", "low", ""}, {1, 4_000_000, Screen{Width: 1280, Height: 720}, "", "high", "shown at 1280×720"}},
		"hidden":                          {{time.Second, 0, Screen{}, "", "high", ""}, {1, 0, Screen{Hidden: true}, "", "", "the page is hidden"}, {1, 0, Screen{}, "", "high", ""}},
		"hidden though pinned":            {{time.Second, 0, Screen{}, "mid", "mid", "chosen by hand"}, {1, 0, Screen{Hidden: true}, "mid", "", "the page is hidden"}},
		"back on a network that is known": {{time.Second, 350_000, Screen{}, "", "low", ""}, {1, 350_000, Screen{Hidden: true}, "", "", ""}, {1, 350_000, Screen{}, "", "low", "the network carries 350 kbit/s"}},
		"a pin wins":                      {{time.Second, 100_000, Screen{Width: 100, Height: 100}, "high", "high", "chosen by hand"}},
		"a pin that isn't there":          {{time.Second, 0, Screen{}, "ultra", "high", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			var v Viewer
			now, playing := time.Minute, ""
			for i, s := range story {
				reason := ""
				for end := now + s.lasts; now < end; now += 100 * time.Millisecond {
					c := v.Step(now, Situation{Renditions: renditions, Playing: playing, Carries: s.carries, Screen: s.screen, Pinned: s.pinned})
					if c.Rendition != playing {
						playing, reason = c.Rendition, c.Reason
					}
				}
				if playing != s.ends || s.reason != "" && reason != s.reason {
					t.Fatalf("step %d ends with %q (%s), not %q (%s)", i, playing, reason, s.ends, s.reason)
				}
			}
		})
	}
}

// A network that carries the better rendition only in the estimator's dreams: each
// try costs the viewer a stumble.
func TestViewerTriesLessOftenWhatDoesNotLast(t *testing.T) {
	var v Viewer
	playing, tries := "mid", []time.Duration{}
	for now := time.Duration(0); now < 3*time.Minute; now += 100 * time.Millisecond {
		carries := 3_100_000
		if playing == "high" && now-tries[len(tries)-1] > time.Second {
			carries = 2_000_000
		}
		c := v.Step(now, Situation{Renditions: renditions, Playing: playing, Carries: carries})
		if c.Rendition == "high" && playing != "high" {
			tries = append(tries, now)
		}
		playing = c.Rendition
	}
	var gaps []time.Duration
	for i := range tries[1:] {
		gaps = append(gaps, (tries[i+1] - tries[i]).Round(time.Second))
	}
	if want := []time.Duration{6 * time.Second, 10 * time.Second, 18 * time.Second, 34 * time.Second, 62 * time.Second}; !slices.Equal(gaps, want) {
		t.Errorf("tries come %v apart, want %v", gaps, want)
	}
}

// Near the border the next rendition's keyframe is asked for before the move.
func TestKeyframeIsAskedForAheadOfAMove(t *testing.T) {
	for carries, want := range map[int]string{0: "", 2_600_000: "", 2_450_000: "mid", 2_000_000: "mid", 5_000_000: ""} {
		var v Viewer
		c := v.Step(time.Minute, Situation{Renditions: renditions, Playing: "high", Carries: carries})
		if c.Rendition != "high" || c.Ahead != want {
			t.Errorf("%d bit/s: %+v, want %q ahead", carries, c, want)
		}
	}
	var v Viewer
	if c := v.Step(time.Minute, Situation{Renditions: renditions, Playing: "low", Carries: 100_000}); c.Ahead != "" {
		t.Errorf("below the lowest there is %q", c.Ahead)
	}
}

// A picture that there is no room for is paused after a second, and comes back when
// there has been room for two.
func TestPictureWithoutRoomIsPaused(t *testing.T) {
	var v Viewer
	now, playing := time.Minute, ""
	for i, s := range []struct {
		lasts   time.Duration
		crowded bool
		pinned  string
		ends    string
	}{
		{time.Second, false, "", "mid"},
		{900 * time.Millisecond, true, "", "mid"},
		{time.Second, false, "", "mid"}, // it was a dip
		{1200 * time.Millisecond, true, "", ""},
		{1900 * time.Millisecond, false, "", ""},
		{200 * time.Millisecond, true, "", ""},
		{2200 * time.Millisecond, false, "", "mid"},
		{time.Minute, true, "low", "low"}, // a pin wins
		{1200 * time.Millisecond, true, "", ""},
	} {
		for end := now + s.lasts; now < end; now += 100 * time.Millisecond {
			c := v.Step(now, Situation{Renditions: renditions, Playing: playing, Carries: 1_000_000, Pinned: s.pinned, Crowded: s.crowded})
			if playing = c.Rendition; playing == "" && c.Reason == "" {
				t.Error("nothing is said")
			}
		}
		if playing != s.ends {
			t.Fatalf("step %d ends with %q, not %q", i, playing, s.ends)
		}
	}
}

func TestDivide(t *testing.T) {
	sound := Claim{Audio: true, Most: 100}
	large := Claim{Pixels: 1000, Least: 200, Most: 1000}
	small := Claim{Pixels: 10, Least: 50, Most: 300}
	for _, c := range []struct {
		bps    int
		claims []Claim
		want   []int
	}{
		{0, []Claim{large, sound}, []int{0, 0}},
		{80, []Claim{large, sound}, []int{0, 80}},
		{250, []Claim{large, sound}, []int{150, 100}},
		{340, []Claim{small, large, sound}, []int{40, 200, 100}},
		{400, []Claim{small, large, sound}, []int{50, 250, 100}},
		{1200, []Claim{small, large, sound}, []int{100, 1000, 100}},
		{9000, []Claim{small, large, sound}, []int{300, 1000, 100}},
		{500, nil, []int{}},
		{340, []Claim{{Pixels: 10, Least: 50, Floor: 45, Most: 300}, large, sound}, []int{0, 240, 100}}, // the large one can use what is left
		{345, []Claim{{Pixels: 10, Least: 50, Floor: 45, Most: 300}, large, sound}, []int{45, 200, 100}},
		{20, []Claim{{Pixels: 10, Least: 50, Floor: 45, Most: 300}}, []int{20}}, // alone it has all that there is
		{150, []Claim{{Pixels: 9, Least: 40, Floor: 40, Most: 80}, {Pixels: 10, Least: 100, Floor: 100, Most: 300}, {Pixels: 11, Least: 100, Floor: 90, Most: 300}}, []int{40, 0, 110}},
	} {
		if got := Divide(c.bps, c.claims); !slices.Equal(got, c.want) {
			t.Errorf("Divide(%d, %v) = %v, want %v", c.bps, c.claims, got, c.want)
		}
	}
}
