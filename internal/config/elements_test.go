package config

import (
	"strings"
	"testing"
)

func TestElementsMustBeAllowed(t *testing.T) {
	for text, c := range map[string]struct {
		allow []string
		want  string
	}{
		"source: filesrc location=/x.mp4\nvideo: {}":        {DefaultElements, ""},
		"source: rtspsrc location=rtsp://x/\nvideo: {}":     {DefaultElements, ""},
		"source: videotestsrc\nvideo: {}":                   {nil, ""},
		"source:   filesrc location=/x.mp4\nvideo: {}":      {nil, "x.yaml:1:11: source: filesrc reads files"},
		"audio:\n  source: tcpserversrc port=1 ! decodebin": {DefaultElements, "x.yaml:2:11: audio.source: tcpserversrc uses the network"},
		"launch: >\n  videotestsrc ! tee name=t\n  t. ! filesink location=/etc/cron.d/x\n  t. ! vp8enc ! rtpvp8pay ! appsink name=video": {DefaultElements, "x.yaml:3:8: launch: filesink writes files"},
		"launch: videotestsrc ! vp8enc ! rtpvp8pay ! tee name=t ! appsink name=video t. ! udpsink":                                       {[]string{"rtspsrc"}, "udpsink uses the network"},
		"launch: wpesrc location=http://x/ ! vp8enc ! rtpvp8pay ! appsink name=video":                                                    {[]string{"srt*"}, "starts programs"},
		"source: srtclientsrc uri=srt://x\nvideo: {}":                                                                                    {[]string{"srt*"}, ""},
	} {
		_, err := ParseStream("x", "x.yaml", []byte(text), (*Encoders)(nil).Allowing(Elements{c.allow}))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "elements.allow")) {
			t.Errorf("%s\n\tsaid %v, want %q", text, err, c.want)
		}
	}
	if _, err := ParseStream("x", "x.yaml", []byte("launch: videotestsrc ! vp8enc ! rtpvp8pay ! tee ! fdsink"), nil); err == nil || !strings.Contains(err.Error(), "fdsink") {
		t.Errorf("without a table it said %v", err)
	}
}

func TestElementsInsideOthersAreAllowedWithThem(t *testing.T) {
	e := Elements{[]string{"rtsp*"}}
	if e.Refused("udpsrc") == "" || !e.Inside("udpsrc") || e.Inside("filesink") || e.Refused("x264enc") != "" {
		t.Errorf("udpsrc: %q, %t; filesink: %t; x264enc: %q", e.Refused("udpsrc"), e.Inside("udpsrc"), e.Inside("filesink"), e.Refused("x264enc"))
	}
}

func TestGatewayRefusesBadPathsAndElements(t *testing.T) {
	for text, want := range map[string]string{
		"confine: {paths: [overlays]}":       "gateway.yaml:1:19: confine.paths: \"overlays\" is not an absolute path; write it from / on",
		"confine: {enabled: perhaps}":        "confine.enabled",
		"elements: {allow: [\"filesrc !\"]}": "gateway.yaml:1:20: elements.allow: \"filesrc !\" is no element's name",
		"elements: {allow: [\"srt[\"]}":      "elements.allow",
		"elements: {deny: [filesrc]}":        "elements.deny",
	} {
		_, err := load(t, text, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n\tsaid %v, want %q", text, err, want)
		}
	}
}
