package signal

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestTraceTakesTheClientsIDOrMakesOne(t *testing.T) {
	const given = "4bf92f3577b34da6a3ce929d0e0e4736"
	for name, c := range map[string]struct {
		header, value string
		taken         bool
	}{
		"traceparent":           {"traceparent", "00-" + given + "-00f067aa0ba902b7-01", true},
		"a later version":       {"traceparent", "01-" + given + "-00f067aa0ba902b7-01-more", true},
		"X-Trace-ID":            {"X-Trace-ID", given, true},
		"X-Trace-ID in capital": {"X-Trace-ID", "4BF92F3577B34DA6A3CE929D0E0E4736", true},
		"none":                  {"X-Other", given, false},
		"too short":             {"X-Trace-ID", given[1:], false},
		"no hex":                {"X-Trace-ID", "4bf92f3577b34da6a3ce929d0e0e473g", false},
		"line break":            {"X-Trace-ID", given[:31] + "\n", false},
		"zero":                  {"X-Trace-ID", "00000000000000000000000000000000", false},
		"zero parent":           {"traceparent", "00-" + given + "-0000000000000000-01", false},
		"version ff":            {"traceparent", "ff-" + given + "-00f067aa0ba902b7-01", false},
		"capital traceparent":   {"traceparent", "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false},
		"more in version 00":    {"traceparent", "00-" + given + "-00f067aa0ba902b7-01-more", false},
		"cut":                   {"traceparent", "00-" + given, false},
	} {
		t.Run(name, func(t *testing.T) {
			var seen string
			h := Trace(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { seen = TraceID(r.Context()) }), slog.New(slog.DiscardHandler))
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set(c.header, c.value)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if !isTraceID(seen) || w.Header().Get("X-Trace-ID") != seen {
				t.Fatalf("handler saw %q, answer has %q", seen, w.Header().Get("X-Trace-ID"))
			}
			if (seen == given) != c.taken {
				t.Errorf("trace id is %q", seen)
			}
		})
	}
}
