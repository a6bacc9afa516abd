package stream

import (
	"context"
	"sync"

	"gateway/internal/media"
)

// notice guards the state of a stream, fed by whatever, and tells of its changes.
type notice struct {
	mu       sync.Mutex // guards below and its owner's state; held to read or set, never across a call outward
	watchers map[int]func(Info)
	watcher  int           // id of the last watcher
	changed  chan struct{} // closed and replaced at every change
}

func newNotice() notice {
	return notice{watchers: make(map[int]func(Info)), changed: make(chan struct{})}
}

// Watch has f called at every change of the stream's state or tracks, until
// cancel. f runs on the stream's goroutines and must not block or call the
// stream.
func (n *notice) Watch(f func(Info)) (cancel func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.watcher++
	id := n.watcher
	n.watchers[id] = f
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.watchers, id)
	}
}

// announce changes what is guarded by mu, then tells the watchers. info is called with
// mu held.
func (n *notice) announce(change func(), info func() Info) {
	n.mu.Lock()
	change()
	now := info()
	watchers := make([]func(Info), 0, len(n.watchers))
	for _, w := range n.watchers {
		watchers = append(watchers, w)
	}
	close(n.changed)
	n.changed = make(chan struct{})
	n.mu.Unlock()
	for _, w := range watchers {
		w(now)
	}
}

// awaitTracks looks for tracks, with mu held, until there are some. It returns ctx's
// error, or ErrClosed.
func (n *notice) awaitTracks(ctx context.Context, look func() (tracks []media.Track, closed bool)) ([]media.Track, error) {
	for {
		n.mu.Lock()
		tracks, closed := look()
		changed := n.changed
		n.mu.Unlock()
		switch {
		case closed:
			return nil, ErrClosed
		case len(tracks) > 0:
			return tracks, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
