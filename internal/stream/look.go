package stream

import "time"

// Look has the stream see at once what there is now, because something to capture
// came or went: what is absent and there again begins, and what failed and waits is
// tried without more waiting. What plays is left alone. It doesn't block; several
// calls may come to one look.
func (s *Stream) Look() {
	s.mu.Lock()
	for _, c := range s.captures {
		c.retry = retry{}
		signal(c.hurry)
	}
	s.mu.Unlock()
	signal(s.looks)
}

// longest is for how long is waited at most, before a pipeline that fails is tried
// again.
func (c *capture) longest() time.Duration {
	if c.feed.Announced {
		return backoffMax
	}
	return backoffBlind
}
