package gst

import (
	"strings"
	"testing"
	"time"

	"gateway/internal/config"
	"gateway/internal/media"
)

// What a fault makes of the pictures is seen by what an encoder is given, in a branch
// and in a whole pipeline.
func TestFrozenAndBlackPicturesAreSeen(t *testing.T) {
	for _, tt := range []struct {
		name, pattern string
		limits        config.Pictures
		want          string
	}{
		{"frozen", "smpte100", config.Pictures{Frozen: time.Second, Black: time.Second}, "the picture has been the same for 1s"},
		{"black", "black", config.Pictures{Frozen: time.Hour, Black: time.Second}, "the picture has been black for 1s"},
		{"black isn't asked for", "black", config.Pictures{Frozen: 2 * time.Second}, "the picture has been the same for 2s"},
	} {
		source := strings.Replace(picture, "is-live", "pattern="+tt.pattern+" is-live", 1)
		for form, f := range map[string]*config.Feed{"branch": feed(source), "whole": whole(source+" ! "+x264+" ! appsink name=video", media.H264)} {
			t.Run(tt.name+" in a "+form, func(t *testing.T) {
				f.Pictures = tt.limits
				p, s := capture(t, f)
				start(t, p, "video", branchOf(x264, media.H264))
				select {
				case err := <-s.failure:
					if err.Error() != tt.want {
						t.Error(err)
					}
				case <-time.After(deadline):
					t.Error("nothing is seen")
				}
			})
		}
	}
}

// A picture that moves isn't frozen, and a small bright thing not black.
func TestMovingPicturesAreWell(t *testing.T) {
	f := feed(strings.Replace(picture, "is-live", "pattern=ball is-live", 1))
	f.Pictures = config.Pictures{Frozen: time.Second, Black: time.Second}
	p, s := capture(t, f)
	start(t, p, "a", branchOf(x264, media.H264))
	for range 75 { // 2.5 s
		s.frame(t, "a") // fails if the capture does
	}
}
