package config

import (
	"strings"
	"testing"
)

func TestRedactHidesWhatSourcesAreGiven(t *testing.T) {
	for text, want := range map[string]string{
		"rtspsrc location=rtsp://admin:hunter2@192.0.2.9/ch1 latency=0":   "rtspsrc location=rtsp://…@192.0.2.9/ch1 latency=0",
		`rtspsrc user-id=admin user-pw="a b" ! fakesink`:                  "rtspsrc user-id=… user-pw=… ! fakesink",
		"srtsrc uri=srt://host:1?passphrase=x":                            "srtsrc uri=srt://host:1?passphrase=…",
		"could not open rtsp://u:p@host/":                                 "could not open rtsp://…@host/",
		"x264enc key-int-max=60 bitrate=2500 ! h264parse":                 "x264enc key-int-max=60 bitrate=2500 ! h264parse",
		"videotestsrc pattern=ball":                                       "videotestsrc pattern=ball",
		"GET /watch/x?token=abc&mode=1":                                   "GET /watch/x?token=…&mode=1",
		"open http://h/#token=abc_-9":                                     "open http://h/#token=…",
		"Authorization: Bearer abcdefgh.ijk":                              "Authorization: Bearer …",
		"join eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhIn0.c2ln refused":          "join … refused",
		"x\n-----BEGIN PRIVATE KEY-----\nMC4C\n-----END PRIVATE KEY-----": "x\n…",
	} {
		if got := Redact(text); got != want {
			t.Errorf("Redact(%q) = %q, want %q", text, got, want)
		}
	}
}

// What one file says is found in every other: in a log, in the text of an error.
func TestRedactorFindsWhatItHasLearned(t *testing.T) {
	var r Redactor
	r.Learn([]byte(`
ice:
  servers: [{urls: [turn:turn.example.org], username: gateway, credential: "turn s3cret"}]
auth:
  users: {anna: {password: $argon2id$v=19$m=1,t=1,p=1$c2FsdA$aGFzaA, role: host}}
source: rtspsrc location=rtsp://admin:h%40nter2@192.0.2.9/ch1 ! queue
launch: srtsrc passphrase="my phrase" ! fakesink
pin:
  api-key: 48151623
note:
  secret: |
    first line
    second line
`))
	for _, text := range []string{
		"TURN refused turn s3cret", "as a query ?x=turn+s3cret", "hash $argon2id$v=19$m=1,t=1,p=1$c2FsdA$aGFzaA is bad",
		"user h%40nter2", "user h@nter2", "phrase my phrase", "48151623", "has first line", "has second line",
		"password: abc", `{"Password":"a\"b"}`, "- credential: 'x y'", "{token: abc, role: host}",
	} {
		got := r.Redact(text)
		for _, secret := range []string{"s3cret", "argon2id", "nter2", "my phrase", "48151623", "first line", "second line", "abc", `a\"b`, "x y"} {
			if strings.Contains(got, secret) {
				t.Errorf("Redact(%q) = %q", text, got)
			}
		}
	}
	for _, text := range []string{"admin of gateway is anna", "source: rtspsrc latency=0", "key-int-max=60", "role: host", "state: live"} {
		if got := r.Redact(text); got != text {
			t.Errorf("Redact(%q) = %q", text, got)
		}
	}
}

func FuzzRedactor(f *testing.F) {
	f.Add("a: {password: x}", "password: x")
	f.Add("://a:b@", "\x00://")
	f.Fuzz(func(t *testing.T, file, text string) {
		var r Redactor
		r.Learn([]byte(file))
		r.Redact(text)
	})
}
