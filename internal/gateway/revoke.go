package gateway

import (
	"net/http"
	"time"

	"github.com/fsnotify/fsnotify"

	"gateway/internal/auth"
)

// revoke takes a token back, or all of a subject, and those who came by them out.
func (g *Gateway) revoke(w http.ResponseWriter, r *http.Request) {
	var asked struct{ Token, ID, Subject string }
	if !readJSON(w, r, &asked) {
		return
	}
	var err error
	if asked.Token != "" && asked.ID == "" {
		asked.ID, err = auth.TokenID(asked.Token)
	}
	var made auth.Revocation
	if err == nil {
		made, err = g.auth.Revoke(auth.Revocation{ID: asked.ID, Subject: asked.Subject})
	}
	if err != nil {
		writeProblem(w, r, http.StatusBadRequest, "bad-message", err.Error())
		return
	}
	g.log.Info("revoked", "token", made.ID, "subject", made.Subject, "by", grantOf(r).Subject)
	g.signal.Recheck()
	writeJSON(w, http.StatusCreated, made)
}

func (g *Gateway) listRevoked(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, struct {
		Revocations []auth.Revocation `json:"revocations"`
	}{append([]auth.Revocation{}, g.auth.Revocations()...)})
}

// revokedPoll is how often the folder of revocations is looked at where the kernel
// doesn't tell of changes.
const revokedPoll = 5 * time.Second

// followRevoked has revocations that another process makes (`gateway token -revoke`) come
// into force at once. stop ends it, and waits for that.
func (g *Gateway) followRevoked() (stop func()) {
	folder := g.auth.RevokedFolder()
	if folder == "" {
		return func() {}
	}
	w, err := fsnotify.NewWatcher()
	if err == nil {
		err = w.Add(folder)
	}
	var events chan fsnotify.Event
	var faults chan error
	if w != nil {
		events, faults = w.Events, w.Errors
	}
	var poll <-chan time.Time
	if err != nil {
		g.log.Warn("folder of revocations is looked at now and then only", "every", revokedPoll, "err", err)
		poll = time.Tick(revokedPoll)
	}
	closing, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-closing:
				return
			case <-events:
			case <-faults: // events may be lost
			case <-poll:
			}
			if err := g.auth.ReadRevoked(); err != nil {
				g.log.Error("revocations not read: those from before hold", "err", err)
			}
			g.signal.Recheck()
		}
	}()
	return func() {
		close(closing)
		<-done
		if w != nil {
			w.Close()
		}
	}
}
