package gateway

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"gateway/internal/contain"
)

func TestPanicOfARequestEndsItAlone(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /boom", func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte("half"))
		panic("injected")
	})
	mux.HandleFunc("GET /fine", func(http.ResponseWriter, *http.Request) {})
	server := httptest.NewServer(contained(mux, slog.New(slog.DiscardHandler)))
	defer server.Close()
	before := contain.Counts()["request"]
	if answer, err := http.Get(server.URL + "/boom"); err == nil {
		answer.Body.Close()
		t.Errorf("it was answered: %s", answer.Status)
	}
	if n := contain.Counts()["request"] - before; n != 1 {
		t.Errorf("%d panics were counted", n)
	}
	answer, err := http.Get(server.URL + "/fine")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	http.DefaultClient.CloseIdleConnections()
}
