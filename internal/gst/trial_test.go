package gst

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway/internal/config"
)

func TestTrialTellsHowFastAnEncoderIs(t *testing.T) {
	r := NewRegistry()
	quick, err := r.Trial(row("x264enc"), x264, 320, 240, 30)
	if err != nil {
		t.Fatal(err)
	}
	slow, err := r.Trial(row("x264enc"), "identity sleep-time=50000 ! "+x264, 320, 240, 30)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.0f and %.1f frames a second", quick, slow)
	if quick < 60 || slow < 15 || slow > 20 {
		t.Errorf("%.0f and %.1f frames a second", quick, slow)
	}
	if fps, err := r.Trial(row("opusenc"), "audioconvert ! opusenc ! rtpopuspay", 0, 0, 0); err != nil || fps < 50 {
		t.Errorf("sound: %.0f packets a second, %v", fps, err)
	}
}

func TestTrialSaysWhatIsWrong(t *testing.T) {
	r := NewRegistry()
	for launch, want := range map[string]string{
		"nosuchelement ! rtph264pay":            "nosuchelement",
		"x264enc nosuchproperty=1 ! rtph264pay": "nosuchproperty",
		"v4l2h264enc ! rtph264pay":              "v4l2h264enc",             // no such device
		"video/x-raw,width=10 ! " + x264:        "",                        // fails at start
		"identity error-after=10 ! " + x264:     "Failed after iterations", // fails later
		x264 + " ! valve drop=true":             "no frame",                // yields nothing
		x264 + " ! identity sleep-time=4000000": "no frame",                // hangs
		"audioconvert ! opusenc ! rtpopuspay":   "audioconvert",            // isn't for pictures
		"video/x-raw,format=RGB ! fakesink":     "",                        // has no end
	} {
		began := time.Now()
		err := r.Try(row("x264enc"), launch, 160, 120, 30)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n\tsaid %v, want %q", launch, err, want)
		}
		if took := time.Since(began); took > trialTimeout+stopTimeout+2*time.Second {
			t.Errorf("%s\n\ttook %v", launch, took)
		}
		began = time.Now()
		if again := r.Try(row("x264enc"), launch, 160, 120, 30); again != err || time.Since(began) > 100*time.Millisecond {
			t.Errorf("%s\n\tthe second time it took %v and said %v", launch, time.Since(began), again)
		}
	}
}

func TestTrialIsRunOnce(t *testing.T) {
	r := NewRegistry()
	var wait sync.WaitGroup
	speeds := make([]float64, 8)
	for i := range speeds {
		wait.Go(func() {
			bitrate := []string{"bitrate=500", "bitrate=2000"}[i%2]
			speeds[i], _ = r.Trial(row("x264enc"), strings.Replace(x264, "x264enc", "x264enc "+bitrate, 1), 320, 240, 30)
		})
	}
	wait.Wait()
	for _, s := range speeds {
		if s != speeds[0] || s == 0 {
			t.Errorf("speeds %v", speeds)
			break
		}
	}
}

func TestBlamedRowFailsForAWhile(t *testing.T) {
	r := NewRegistry()
	cause := errors.New("the driver lost its firmware")
	r.Blame("x264enc", cause)
	if err := r.Try(row("x264enc"), x264, 320, 240, 30); !errors.Is(err, cause) {
		t.Errorf("said %v", err)
	}
	if err := r.Try(row("openh264enc"), x264, 320, 240, 30); err != nil {
		t.Errorf("another row said %v", err)
	}
	r.blamed["x264enc"] = blame{cause, time.Now().Add(-trialForget)}
	if err := r.Try(row("x264enc"), x264, 320, 240, 30); err != nil {
		t.Errorf("after a while it said %v", err)
	}
}

func TestFailedTrialIsRepeatedAfterAWhile(t *testing.T) {
	r := NewRegistry()
	first := r.Try(row("x264enc"), "identity error-after=2 ! "+x264, 160, 120, 30)
	for _, run := range r.runs {
		run.at = run.at.Add(-trialForget)
	}
	if again := r.Try(row("x264enc"), "identity error-after=2 ! "+x264, 160, 120, 30); first == nil || again == nil || again == first {
		t.Errorf("said %v, then %v", first, again)
	}
}

// row is what a trial must know of an encoder.
func row(name string) config.Encoder { return config.Encoder{Name: name} }
