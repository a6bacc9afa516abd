package signal

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"gateway/internal/media"
)

func TestDecodeTakesWhatTheProtocolHas(t *testing.T) {
	mid := `"sdpMid":"0","sdpMLineIndex":0,"usernameFragment":"abcd"`
	for _, text := range []string{
		`{"type":"join","roomId":"test","version":1}`,
		`{"type":"join","roomId":"test","version":1,"stream":"test","token":"","resume":"x","codecs":{"video":["video/H264","video/rtx"],"audio":[]},"requestId":"1","timestamp":1763800000000}`,
		`{"type":"answer","sdp":"v=0\r\n","session":"S"}`,
		`{"type":"ice-candidate","candidate":null}`,
		`{"type":"ice-candidate","candidate":{"candidate":"candidate:1 1 udp 1 127.0.0.1 9 typ host",` + mid + `}}`,
		`{"type":"ice-candidate","candidate":{"candidate":"candidate:1","sdpMid":null,"sdpMLineIndex":null,"usernameFragment":null}}`,
		`{"type":"restart-ice"}`,
		`{"type":"report","firstFrameMs":212.5}`,
		`{"type":"observe","on":false}`,
		`{"type":"ping","requestId":"7"}`,
		`{"type":"join","roomId":"test","version":1,"name":" Änne ","role":"viewer","create":true}`,
		`{"type":"offer","sdp":"v=0","target":"u"}`,
		`{"type":"message","data":null}`,
		`{"type":"message","target":"u","data":{"a":[1,"2"]}}`,
		`{"type":"mute","target":"u","kind":"audio","on":true}`,
		`{"type":"remove","target":"u"}`,
		`{"type":"move","target":"u","to":"hall"}`,
		`{"type":"set-role","target":"u","role":"host"}`,
		`{"type":"lock","on":true}`,
		`{"type":"close-room"}`,
		`{"type":"token","token":"t"}`,
		` { "type" : "leave" } `,
	} {
		if _, err := decode([]byte(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestDecodeReadsEachField(t *testing.T) {
	r, err := decode([]byte(`{"type":"join","requestId":"r","roomId":"a","userId":"u","target":"","version":1,"stream":"s","token":"t",` +
		`"resume":"x","codecs":{"video":["video/VP8","video/rtx","video/VP8","audio/opus"]}}`))
	if err != nil {
		t.Fatal(err)
	}
	if r.RequestID != "r" || r.RoomID != "a" || r.UserID != "u" || r.Version != 1 || r.Stream != "s" || r.Token != "t" || r.Resume != "x" {
		t.Errorf("read %+v", r)
	}
	if v := r.Codecs.of(media.Video); len(v) != 1 || v[0] != media.VP8 {
		t.Errorf("video codecs %v", v)
	}
	if a := r.Codecs.of(media.Audio); a != nil {
		t.Errorf("audio codecs %v of a join that says nothing of audio", a)
	}
	r, err = decode([]byte(`{"type":"ice-candidate","candidate":{"candidate":"","sdpMid":"0"}}`))
	if err != nil || r.Candidate != nil {
		t.Errorf("an empty candidate read as %v, %v; want the end", r.Candidate, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	long := strings.Repeat("x", 200)
	for what, text := range map[string]string{
		"nothing":                 ``,
		"a name of two lines":     `{"type":"join","roomId":"test","version":1,"name":"a\nb"}`,
		"a name that turns text":  `{"type":"join","roomId":"test","version":1,"name":"a\u202eb"}`,
		"a long name":             `{"type":"join","roomId":"test","version":1,"name":"` + long + `"}`,
		"an unknown role":         `{"type":"set-role","target":"u","role":"root"}`,
		"a role of no type":       `{"type":"set-role","target":"u","role":["host"]}`,
		"an unknown kind":         `{"type":"mute","target":"u","kind":"smell","on":true}`,
		"a mute of nobody":        `{"type":"mute","kind":"audio","on":true}`,
		"a message of nothing":    `{"type":"message","target":"u"}`,
		"too long a message":      `{"type":"message","data":"` + strings.Repeat("x", maxData) + `"}`,
		"a move to nowhere":       `{"type":"move","target":"u"}`,
		"create of no truth":      `{"type":"join","roomId":"test","version":1,"create":1}`,
		"malformed JSON":          `{"type":"ping"`,
		"no JSON":                 `ping`,
		"a list":                  `[{"type":"ping"}]`,
		"a string":                `"ping"`,
		"null":                    `null`,
		"trailing data":           `{"type":"ping"}{"type":"ping"}`,
		"trailing garbage":        `{"type":"ping"}x`,
		"a field twice":           `{"type":"ping","type":"leave"}`,
		"no type":                 `{}`,
		"type of a wrong type":    `{"type":1}`,
		"unknown type":            `{"type":"exec"}`,
		"a message of ours":       `{"type":"joined","roomId":"test"}`,
		"unknown field":           `{"type":"ping","x":1}`,
		"a field in another case": `{"type":"join","RoomId":"test"}`,
		"a field of another type": `{"type":"ping","sdp":"v=0"}`,
		"a missing field":         `{"type":"join","version":1}`,
		"a null string":           `{"type":"join","roomId":null,"version":1}`,
		"a number for a string":   `{"type":"answer","sdp":1}`,
		"a string for a number":   `{"type":"join","roomId":"test","version":"1"}`,
		"a fraction for a count":  `{"type":"join","roomId":"test","version":1.5}`,
		"a huge number":           `{"type":"join","roomId":"test","version":1e99}`,
		"a negative time":         `{"type":"report","firstFrameMs":-1}`,
		"observing a number":      `{"type":"observe","on":1}`,
		"observing nothing":       `{"type":"observe","on":null}`,
		"a time of hours":         `{"type":"report","firstFrameMs":1e9}`,
		"a long room":             `{"type":"join","roomId":"` + long + `"}`,
		"a long request id":       `{"type":"ping","requestId":"` + long + `"}`,
		"a candidate of no kind":  `{"type":"ice-candidate","candidate":"candidate:1"}`,
		"an empty candidate":      `{"type":"ice-candidate","candidate":{}}`,
		"an unknown candidate":    `{"type":"ice-candidate","candidate":{"candidate":"x","foo":1}}`,
		"a big line index":        `{"type":"ice-candidate","candidate":{"candidate":"x","sdpMLineIndex":65536}}`,
		"codecs of no kind":       `{"type":"join","roomId":"test","codecs":{"smell":["x"]}}`,
		"codecs that are numbers": `{"type":"join","roomId":"test","codecs":{"video":[1]}}`,
		"too many codecs":         `{"type":"join","roomId":"test","codecs":{"video":["x"` + strings.Repeat(`,"x"`, maxCodecs) + `]}}`,
		"depth":                   `{"type":"ping","x":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`,
		"depth in a known field":  `{"type":"join","roomId":` + strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000) + `}`,
		"text that isn't UTF-8":   "{\"type\":\"ping\",\"requestId\":\"\xff\"}",
	} {
		_, err := decode([]byte(text))
		var r *refusal
		if !errors.As(err, &r) || r.code != badMessage {
			t.Errorf("%s: %v, want %s", what, err, badMessage)
		} else if len(r.message) > 400 {
			t.Errorf("%s: the refusal has %d bytes", what, len(r.message))
		}
	}
	_, err := decode(make([]byte, maxMessage+1))
	if r := refusalOf(err); r.code != messageTooLarge {
		t.Errorf("a huge message: %v", err)
	}
}

func TestRefusalNamesTheRequest(t *testing.T) {
	for _, text := range []string{
		`{"type":"nonsense","requestId":"42"}`,
		`{"type":"answer","requestId":"42"}`,
		`{"type":"ping","requestId":"42","x":0}`,
	} {
		if r, err := decode([]byte(text)); err == nil || r.RequestID != "42" {
			t.Errorf("%s: request id %q, error %v", text, r.RequestID, err)
		}
	}
}

func TestEndOfCandidatesIsNull(t *testing.T) {
	data, err := encode(&candidateMessage{header{Type: "ice-candidate"}, "S", nil})
	if err != nil || !strings.Contains(string(data), `"candidate":null`) {
		t.Errorf("wrote %s, %v", data, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"type":"join","roomId":"test","version":1,"codecs":{"video":["video/VP8"]},"requestId":"1"}`))
	f.Add([]byte(`{"type":"ice-candidate","candidate":{"candidate":"candidate:1 1 udp 1 ::1 9 typ host","sdpMid":"0"}}`))
	f.Add([]byte(`{"type":"answer","sdp":"v=0","session":"x"}`))
	f.Add([]byte(`{"type":"report","firstFrameMs":1}`))
	f.Add([]byte(`{"type":"report","frames":[{"rtp":1,"received":2.5,"jitterBuffer":3,"decode":4,"render":5}]}`))
	f.Add([]byte(`{"type":"observe","on":true}`))
	f.Add([]byte(`{"type":"ping"}{}`))
	f.Add([]byte(`{"type":"join","roomId":"test","name":"A","role":"viewer","create":true}`))
	f.Add([]byte(`{"type":"message","target":"u","data":{"a":[1,"2"]}}`))
	f.Add([]byte(`{"type":"mute","target":"u","kind":"audio","on":true}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decode(data)
		if err != nil {
			if c := refusalOf(err).code; c != badMessage && c != messageTooLarge {
				t.Fatalf("refused with %s: %v", c, err)
			}
			return
		}
		if _, known := requests[r.Type]; !known || !json.Valid(data) {
			t.Fatalf("took %q", data)
		}
		if len(r.RequestID) > 64 || len(r.RoomID) > 128 || len(r.Session) > 128 || r.FirstFrameMs != nil && *r.FirstFrameMs < 0 ||
			len(r.Frames) > maxFrames {
			t.Fatalf("took fields out of range: %+v", r)
		}
	})
}
