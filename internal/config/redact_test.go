package config

import "testing"

func TestRedactHidesWhatSourcesAreGiven(t *testing.T) {
	for text, want := range map[string]string{
		"rtspsrc location=rtsp://admin:hunter2@192.0.2.9/ch1 latency=0": "rtspsrc location=rtsp://…@192.0.2.9/ch1 latency=0",
		`rtspsrc user-id=admin user-pw="a b" ! fakesink`:                "rtspsrc user-id=… user-pw=… ! fakesink",
		"srtsrc uri=srt://host:1?passphrase=x":                          "srtsrc uri=srt://host:1?passphrase=…",
		"could not open rtsp://u:p@host/":                               "could not open rtsp://…@host/",
		"x264enc key-int-max=60 bitrate=2500 ! h264parse":               "x264enc key-int-max=60 bitrate=2500 ! h264parse",
		"videotestsrc pattern=ball":                                     "videotestsrc pattern=ball",
	} {
		if got := Redact(text); got != want {
			t.Errorf("Redact(%q) = %q, want %q", text, got, want)
		}
	}
}
