package signal

import (
	"slices"
	"strings"
	"testing"

	"gateway/internal/config"
	"gateway/internal/media"
)

const someOffer = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n" +
	"m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=ice-ufrag:oldU\r\na=ice-pwd:oldPasswordoldPasswordol\r\n" +
	"a=recvonly\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n" +
	"m=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=ice-ufrag:oldU\r\na=ice-pwd:oldPasswordoldPasswordol\r\n" +
	"a=rtpmap:111 opus/48000/2\r\na=end-of-candidates\r\n"

func TestReceivingReadsDirectionsAndCodecs(t *testing.T) {
	got := receiving(someOffer)
	if !slices.Equal(got[media.Video], []media.Codec{media.VP8}) {
		t.Errorf("video: %v", got[media.Video])
	}
	if a := got[media.Audio]; !slices.Contains(a, media.Opus) || !slices.Contains(a, media.PCMU) {
		t.Errorf("audio, with the default direction: %v", a)
	}
	if got := receiving(strings.Replace(someOffer, "a=recvonly", "a=sendonly", 1)); got[media.Video] != nil {
		t.Errorf("a section that only sends receives %v", got[media.Video])
	}
	if got := receiving(strings.Replace(someOffer, "t=0 0\r\n", "t=0 0\r\na=inactive\r\n", 1)); got[media.Audio] != nil || got[media.Video] == nil {
		t.Errorf("an inactive session with one receiving section: %v", got)
	}
	if got := receiving(strings.Replace(someOffer, "m=video 9", "m=video 0", 1)); got[media.Video] != nil {
		t.Errorf("a rejected section receives %v", got[media.Video])
	}
}

func TestFragmentIsRead(t *testing.T) {
	f, err := parseFragment("a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n" +
		"a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host\r\na=foo:bar\r\na=end-of-candidates\r\n")
	if err != nil {
		t.Fatal(err)
	}
	if f.ufrag != "EsAw" || !f.end || len(f.candidates) != 1 {
		t.Fatalf("read %+v", f)
	}
	c := f.candidates[0]
	if !strings.HasPrefix(c.Candidate, "candidate:1387637174 ") || c.SDPMid == nil || *c.SDPMid != "0" || *c.UsernameFragment != "EsAw" {
		t.Errorf("candidate %+v", c)
	}
	f, err = parseFragment("m=video 9 RTP/AVP 0\na=candidate:1 1 udp 1 192.0.2.1 1 typ host\n")
	if err != nil || len(f.candidates) != 1 || f.candidates[0].SDPMLineIndex == nil || *f.candidates[0].SDPMLineIndex != 0 {
		t.Errorf("a section without mid: %+v, %v", f, err)
	}
}

func TestFragmentIsRefused(t *testing.T) {
	for what, body := range map[string]string{
		"garbage":             "hello",
		"a short ufrag":       "a=ice-ufrag:abc\r\n",
		"a ufrag with spaces": "a=ice-ufrag:ab cd ef\r\n",
		"a short password":    "a=ice-ufrag:abcd\r\na=ice-pwd:short\r\n",
		"a flood":             strings.Repeat("a=candidate:1 1 udp 1 192.0.2.1 1 typ host\r\n", maxCandidates+1),
		"a long mid":          "a=mid:" + strings.Repeat("0", 65) + "\r\n",
	} {
		if f, err := parseFragment(body); err == nil {
			t.Errorf("%s: read as %+v", what, f)
		}
	}
}

func TestRestartedOfferDiffersInICEOnly(t *testing.T) {
	got := restartedOffer(someOffer, fragment{ufrag: "newU", pwd: "newPasswordnewPasswordne"})
	if strings.Contains(got, "oldU") || strings.Contains(got, "oldPassword") || strings.Contains(got, "candidate") {
		t.Errorf("kept old ICE lines:\n%s", got)
	}
	if strings.Count(got, "a=ice-ufrag:newU\r\n") != 2 || !strings.Contains(got, "a=rtpmap:111 opus/48000/2\r\n") {
		t.Errorf("made:\n%s", got)
	}
	if remoteUfrag(got) != "newU" {
		t.Errorf("ufrag %q", remoteUfrag(got))
	}
}

func TestAnswerFragmentIsTheFirstSectionsICE(t *testing.T) {
	want := "a=group:BUNDLE 0 1\r\nm=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:0\r\na=ice-ufrag:oldU\r\na=ice-pwd:oldPasswordoldPasswordol\r\n" +
		"a=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n"
	if got := answerFragment(someOffer); got != want {
		t.Errorf("made:\n%s", got)
	}
}

func TestICEServersAsLinks(t *testing.T) {
	got := iceLinks(config.ICE{Servers: []config.ICEServer{
		{URLs: []string{"stun:stun.example.net"}},
		{URLs: []string{"turn:turn.example.net?transport=udp", "turns:turn.example.net"}, Username: "user", Credential: `pass"word\`},
	}})
	want := []string{
		`<stun:stun.example.net>; rel="ice-server"`,
		`<turn:turn.example.net?transport=udp>; rel="ice-server"; username="user"; credential="pass\"word\\"; credential-type="password"`,
		`<turns:turn.example.net>; rel="ice-server"; username="user"; credential="pass\"word\\"; credential-type="password"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func FuzzSDP(f *testing.F) {
	f.Add(someOffer)
	f.Add("m=video\na=rtpmap:\nm=audio 9 x 0 8")
	f.Add("a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:1 1 udp 1 ::1 1 typ host")
	f.Fuzz(func(t *testing.T, text string) {
		receiving(text)
		answerFragment(text)
		frag, err := parseFragment(text)
		if err != nil || frag.ufrag == "" || frag.pwd == "" {
			return
		}
		again := restartedOffer(text, frag)
		if remoteUfrag(again) != frag.ufrag || strings.Contains(again, "\na=candidate:") {
			t.Fatalf("restarted offer %q", again)
		}
	})
}
