package signal

import (
	"cmp"
	"context"
	"io"
	"net/http"
	"path"
	"strings"

	"golang.org/x/time/rate"

	"gateway/internal/auth"
	"gateway/internal/room"
)

// WHIP serves /whip/ROOM, where a stream of the room's own name is published, /whip/ROOM/STREAM
// and the Locations of sessions, as RFC 9725 has it.
func (s *Server) WHIP() http.Handler {
	return s.overHTTP(door{"/whip/", overWHIP, s.ingest})
}

// ingest begins a session for a publisher's offer and answers it.
func (s *Server) ingest(w http.ResponseWriter, r *http.Request, name, stream string, grant *auth.Grant, offer string) error {
	at := path.Join("/whip", name, stream)
	stream = cmp.Or(stream, name)
	switch {
	case !strings.HasPrefix(offer, "v=0"):
		return refuse(badSDP, "the offer is not SDP")
	case !room.ValidName(stream):
		return refuse(badMessage, "%.200q can't name a stream", stream)
	case !grant.May(auth.Publish, name, stream): // before anybody hears that he has come, or a room is made for him
		return refuse(forbidden, "publishing %q takes publish in %.200q", stream, name)
	}
	x := s.newSession(r.Context(), overWHIP, name, nobody{})
	x.from = prefixOf(r.RemoteAddr)
	x.whep = resource{
		path: path.Join(at, x.id), offer: offer, etag: newETag(), limiter: rate.NewLimiter(messageRate, messageBurst),
		publishes: name + "/" + stream, owner: grant.Subject,
	}
	etag := x.whep.etag
	if err := s.await(x, prefixOf(r.RemoteAddr)); err != nil {
		return err
	}
	if err := x.start(r.Context(), room.Joining{Grant: grant, Role: auth.Publisher, Create: true}, request{}); err != nil {
		return err
	}
	answer, err := call(r.Context(), x, func(ctx context.Context) (string, error) {
		return x.take(ctx, offer, []publication{{Label: stream, name: stream}})
	})
	if err != nil {
		return x.refused(err)
	}
	s.created(w, x.whep.path, etag)
	io.WriteString(w, answer)
	return nil
}

// predecessor is a session over which the same one publishes a stream that came before x: a
// WHIP client that comes again takes its place. Of several that come at the same time
// the last one stays.
func (s *Server) predecessor(x *session) *session {
	if x.kind != overWHIP {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, old := range s.sessions {
		if old.number < x.number && old.kind == overWHIP && old.whep.publishes == x.whep.publishes && old.whep.owner == x.whep.owner {
			return old
		}
	}
	return nil
}
