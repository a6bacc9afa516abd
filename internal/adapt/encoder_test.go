package adapt

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// ladder are the pictures of a stream of 1280x720 at 30.
var ladder = []Shape{{1280, 720, 30}, {1280, 720, 15}, {640, 360, 15}, {320, 180, 15}}

func limitsOf(min, start, max int) EncoderLimits {
	return EncoderLimits{Min: min, Start: start, Max: max, Shapes: ladder, Last: true}
}

// drive plays an encoder's life by steps of 100 ms.
type drive struct {
	t       *testing.T
	e       *Encoder
	now     time.Duration
	carries []int
	fps     float64 // frames captured a second
	late    float64 // part of them that is dropped
	frames  float64
	dropped float64
	told    []string
}

func driven(t *testing.T, l EncoderLimits, carries ...int) *drive {
	d := &drive{t: t, e: NewEncoder(l), now: time.Hour, carries: carries, fps: 30}
	d.e.Begin(d.now, slices.Clone(carries))
	return d
}

// runs lets time pass while networks carry so much.
func (d *drive) runs(over time.Duration, carries ...int) {
	d.carries = carries
	for end := d.now + over; d.now < end; {
		d.now += 100 * time.Millisecond
		d.frames += d.fps / 10 * (1 - d.late)
		d.dropped += d.fps / 10 * d.late
		report := EncoderReport{Carries: slices.Clone(carries), Frames: uint64(d.frames), Dropped: uint64(d.dropped)}
		for _, w := range d.e.Step(d.now, report) {
			d.told = append(d.told, fmt.Sprintf("%s %s to %s: %s", w.What, w.From, w.To, w.Reason))
		}
	}
}

func (d *drive) is(level, bps int) {
	d.t.Helper()
	if d.e.Level() != level || d.e.Bps() != bps {
		d.t.Errorf("level %d at %d bit/s, want %d at %d; decisions:\n%s", d.e.Level(), d.e.Bps(), level, bps, strings.Join(d.told, "\n"))
	}
}

// reaches lets time pass until the encoder is at a level.
func (d *drive) reaches(level int, within time.Duration) time.Duration {
	d.t.Helper()
	began := d.now
	for d.e.Level() != level {
		if d.now-began > within {
			d.t.Fatalf("level %d after %v, want %d; decisions:\n%s", d.e.Level(), within, level, strings.Join(d.told, "\n"))
		}
		d.runs(100*time.Millisecond, d.carries...)
	}
	return d.now - began
}

func TestTargetIsTheSlowestFifthsShare(t *testing.T) {
	many := func(n, bps int) (all []int) { return slices.Repeat([]int{bps}, n) }
	for name, c := range map[string]struct {
		carries []int
		want    int
	}{
		"nobody":              {nil, 2_000_000},
		"unknown":             {[]int{0, 0}, 2_000_000},
		"one":                 {[]int{1_000_000}, 940_000},
		"one and an unknown":  {[]int{0, 1_000_000}, 940_000},
		"two":                 {[]int{2_000_000, 1_000_000}, 940_000},
		"five":                {append(many(4, 2_000_000), 1_000_000), 940_000},
		"six":                 {append(many(5, 2_000_000), 1_000_000), 1_880_000},
		"20 with 3 slow ones": {append(many(17, 2_000_000), many(3, 1_000_000)...), 1_880_000},
		"20 with 4 slow ones": {append(many(16, 2_000_000), many(4, 1_000_000)...), 940_000},
		"above max":           {[]int{9_000_000}, 2_500_000},
		"no more than half":   {[]int{300_000}, 282_000},                       // of a smaller picture
		"below all pictures":  {[]int{10_000}, 37_162},                         // what the smallest needs
		"one of three":        {[]int{2_000_000, 2_000_000, 100_000}, 500_000}, // two needn't put up with a smaller picture
		"two of four":         {[]int{2_000_000, 2_000_000, 100_000, 90_000}, 84_600},
	} {
		t.Run(name, func(t *testing.T) {
			if got := NewEncoder(limitsOf(500_000, 2_000_000, 2_500_000)).Target(c.carries); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
		})
	}
}

func TestBitrateGoesDownAtOnceAndUpBySteps(t *testing.T) {
	d := driven(t, limitsOf(500_000, 2_000_000, 2_500_000), 2_500_000)
	d.is(0, 2_350_000)
	d.runs(100*time.Millisecond, 600_000)
	d.is(0, 564_000)
	d.runs(5*time.Second, 590_000) // nothing that matters
	d.is(0, 554_600)
	d.runs(100*time.Millisecond, 2_500_000)
	d.is(0, 831_900)
	d.runs(100*time.Millisecond, 2_500_000)
	d.is(0, 831_900)
	d.runs(800*time.Millisecond, 2_500_000)
	d.is(0, 2_350_000)
	d.runs(3*time.Second, 2_500_000)
	for _, want := range []string{"bitrate 2.4 Mbit/s to 564 kbit/s: its viewer's network carries 600 kbit/s", "bitrate 564 kbit/s to 2.4 Mbit/s: its viewer's network carries 2.5 Mbit/s"} {
		if !slices.Contains(d.told, want) {
			t.Errorf("not told: %q, but\n%s", want, strings.Join(d.told, "\n"))
		}
	}
	if len(d.told) > 3 {
		t.Errorf("told %d things:\n%s", len(d.told), strings.Join(d.told, "\n"))
	}
}

func TestFixedBitrateStays(t *testing.T) {
	d := driven(t, limitsOf(2_000_000, 2_000_000, 2_000_000), 100_000)
	d.runs(10*time.Second, 100_000)
	d.is(0, 2_000_000)
}

func TestRenditionWithALowerOneKeepsItsPicture(t *testing.T) {
	l := limitsOf(500_000, 2_000_000, 2_500_000)
	l.Last = false
	d := driven(t, l, 2_500_000)
	d.runs(10*time.Second, 100_000)
	d.is(0, 500_000) // whom that is too much for must move
}

// Who is to move to the lower rendition has no say any more in the one above, unless
// nobody else has.
func TestWhoMovesDownDoesNotCount(t *testing.T) {
	l := limitsOf(500_000, 2_000_000, 2_500_000)
	l.Last = false
	for name, c := range map[string]struct {
		carries []int
		want    int
	}{
		"alone":          {[]int{600_000}, 564_000},
		"of four":        {[]int{600_000, 3_000_000, 3_000_000, 3_000_000}, 2_500_000},
		"one of two":     {[]int{600_000, 2_000_000}, 1_880_000},
		"a little less":  {[]int{1_900_000, 2_000_000}, 1_786_000}, // it stays
		"two in a row":   {[]int{600_000, 1_200_000, 3_000_000}, 2_500_000},
		"two alike":      {[]int{600_000, 610_000, 3_000_000}, 564_000}, // until the least is too much
		"below the rest": {[]int{100_000, 200_000, 300_000}, 500_000},
	} {
		e := NewEncoder(l)
		if got := e.Target(c.carries); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	d := driven(t, l, 3_000_000, 3_000_000, 3_000_000)
	d.runs(5*time.Second, 3_000_000, 3_000_000, 600_000)
	d.is(0, 2_500_000)
	if len(d.told) > 0 {
		t.Errorf("told %q", d.told)
	}
}

func TestFrameRateAndThenSizeGoDown(t *testing.T) {
	for _, c := range []struct{ carries, level, bps int }{
		{540_000, 0, 507_600}, {400_000, 1, 376_000}, {300_000, 2, 282_000}, {120_000, 2, 112_800}, {80_000, 3, 75_200}, {10_000, 3, 37_162},
	} {
		d := driven(t, limitsOf(500_000, 2_000_000, 2_500_000), 2_500_000)
		d.runs(2*time.Second, c.carries)
		d.is(c.level, c.bps)
		fresh := driven(t, limitsOf(500_000, 2_000_000, 2_500_000), c.carries) // one that starts needn't find out
		fresh.is(c.level, c.bps)
	}
}

func TestShortDipDoesNotReduceThePicture(t *testing.T) {
	d := driven(t, limitsOf(500_000, 2_000_000, 2_500_000), 2_500_000)
	for range 10 {
		d.runs(400*time.Millisecond, 200_000)
		d.runs(400*time.Millisecond, 2_000_000)
	}
	if d.e.Level() != 0 {
		t.Errorf("level %d:\n%s", d.e.Level(), strings.Join(d.told, "\n"))
	}
}

// A network that carries now enough and now too little has its viewers see few
// changes of the picture.
func TestPictureComesBackWithHysteresis(t *testing.T) {
	d := driven(t, limitsOf(500_000, 2_000_000, 2_500_000), 2_500_000)
	d.runs(time.Second, 300_000)
	d.is(2, 282_000)
	d.runs(time.Minute, 500_000) // enough for a better one, but for the margin of the best
	d.is(1, 470_000)
	d.carries = []int{900_000}
	if took := d.reaches(0, 10*time.Second); took < 4500*time.Millisecond {
		t.Errorf("back after %v", took)
	}
	var waited []time.Duration
	for range 6 {
		d.runs(time.Second, 300_000)
		d.carries = []int{900_000}
		waited = append(waited, d.reaches(0, 2*time.Minute).Round(time.Second))
	}
	if want := []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 80 * time.Second, 80 * time.Second}; !slices.Equal(waited, want) {
		t.Errorf("waited %v, want %v", waited, want)
	}
	d.runs(3*time.Minute, 900_000)
	d.runs(time.Second, 300_000)
	d.carries = []int{900_000}
	if took := d.reaches(0, time.Minute); took > 6*time.Second {
		t.Errorf("after a long good time it waited %v", took)
	}
}

func TestSlowEncoderIsGivenLess(t *testing.T) {
	for _, c := range []struct {
		late  float64
		level int
	}{{0.05, 0}, {0.2, 1}, {0.45, 1}, {0.7, 2}, {0.95, 3}} {
		d := driven(t, limitsOf(2_000_000, 2_000_000, 2_000_000))
		d.late = c.late
		for range 90 {
			if d.runs(100*time.Millisecond, 0); d.e.Level() > 0 {
				break
			}
		}
		d.is(c.level, 2_000_000)
		if c.level > 0 && !strings.Contains(d.told[0], "the encoder was too slow for ") {
			t.Errorf("told: %q", d.told)
		}
	}
}

func TestSlowEncoderComesBackSlowly(t *testing.T) {
	d := driven(t, limitsOf(500_000, 2_000_000, 2_500_000), 9_000_000)
	overload := func() {
		d.late = 0.3
		d.reaches(1, 15*time.Second)
		d.late = 0
		d.e.Renewed(d.now)
	}
	overload()
	d.runs(time.Second, 9_000_000)
	d.is(1, 1_486_508) // fewer frames need less
	if took := d.reaches(0, time.Minute); took < quietTime {
		t.Errorf("back after %v", took)
	}
	overload()
	if took := d.reaches(0, 2*time.Minute); took < 2*quietTime {
		t.Errorf("back after %v the second time", took)
	}
	d.runs(10*time.Second, 9_000_000)
	d.is(0, 2_500_000)
}

// Frames that are lost while an encoder starts, or while nobody watches, are no sign
// of a slow one.
func TestOnlyFramesOfARunningEncoderCount(t *testing.T) {
	d := driven(t, limitsOf(500_000, 2_000_000, 2_500_000), 9_000_000)
	d.late = 1
	d.runs(time.Second, 9_000_000)
	d.late = 0
	d.runs(10*time.Second, 9_000_000)
	d.is(0, 2_500_000)
	for range 10 { // now and then a bad moment
		d.late = 0.3
		d.runs(time.Second, 9_000_000)
		d.late = 0
		d.runs(9*time.Second, 9_000_000)
	}
	d.is(0, 2_500_000)
	d.now += time.Hour
	d.dropped += 1000
	d.runs(10*time.Second, 9_000_000)
	d.is(0, 2_500_000)
}

func TestRefusedPictureIsLeftAlone(t *testing.T) {
	d := driven(t, limitsOf(500_000, 2_000_000, 2_500_000), 2_500_000)
	d.runs(time.Second, 300_000)
	d.e.Refused(d.now, 0)
	d.runs(29*time.Second, 300_000)
	d.is(0, 282_000)
	d.reaches(2, 2*time.Second)
	d.e.Refused(d.now, 0)
	d.runs(59*time.Second, 300_000)
	d.is(0, 282_000)
}

func TestOtherLimitsTakeEffect(t *testing.T) {
	d := driven(t, limitsOf(500_000, 2_000_000, 2_500_000), 300_000)
	d.is(2, 282_000)
	d.e.Limit(EncoderLimits{Min: 200_000, Start: 1_000_000, Max: 1_000_000, Shapes: ladder, Last: true})
	d.runs(6*time.Second, 300_000)
	d.is(0, 282_000)
	d.runs(time.Second, 9_000_000)
	d.is(0, 1_000_000)
	d.e.Limit(EncoderLimits{Min: 200_000, Start: 1_000_000, Max: 1_000_000, Shapes: ladder[:1], Last: true})
	d.runs(time.Second, 20_000)
	d.is(0, 200_000)
}

func TestWithoutViewersNothingChanges(t *testing.T) {
	d := driven(t, limitsOf(500_000, 2_000_000, 2_500_000), 1_000_000)
	d.runs(time.Minute)
	d.is(0, 940_000)
}

func TestHugeNumbersDoNoHarm(t *testing.T) {
	huge := int(^uint(0) >> 1)
	d := driven(t, limitsOf(500_000, 2_000_000, 2_500_000), huge)
	d.runs(time.Second, huge, huge, -5, 1)
	if bps := d.e.Bps(); bps < 30_000 || bps > 2_500_000 {
		t.Errorf("%d bit/s", bps)
	}
}

func BenchmarkEncoderStep(b *testing.B) {
	for _, n := range []int{1, 200} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			e := NewEncoder(limitsOf(500_000, 2_000_000, 2_500_000))
			carries := make([]int, n)
			for i := range b.N {
				for v := range carries {
					carries[v] = 1_000_000 + (v*7919+i)%500_000
				}
				e.Step(time.Duration(i)*20*time.Millisecond, EncoderReport{Carries: carries})
			}
		})
	}
}
