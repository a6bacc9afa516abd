package room

import (
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"gateway/internal/auth"
	"gateway/internal/config"
)

// A thousand see each other; fifty come and as many go in each second. One message for
// each of that to each of them would be a hundred thousand a second.
func TestACrowdIsToldOfItselfInLots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Options{Rooms: []config.Room{{Name: "lobby"}}, Pipelines: &feeds{}, Logger: slog.New(slog.DiscardHandler)})
		defer r.Close()
		told := 0
		known := map[string]bool{}
		join := func(i int, sink Sink) *Participant {
			p, err := r.Join("lobby", Joining{ID: fmt.Sprint(i), Grant: granted(auth.Publisher), Sink: sink})
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		first := join(0, func(e Event) {
			switch e := e.(type) {
			case Entered:
				for _, f := range e.Participants {
					known[f.ID] = true
				}
			case Joined:
				known[e.ID] = true
			case Departed:
				delete(known, e.ID)
			case *Presence:
				told++
				for _, f := range e.Here {
					known[f.ID] = true
				}
				for _, id := range e.Gone {
					delete(known, id)
				}
			}
		})
		var others []*Participant
		for i := 1; i < 1000; i++ {
			others = append(others, join(i, nil))
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		told = 0
		for i := range 500 {
			others[i].Leave()
			others = append(others, join(1000+i, nil))
			time.Sleep(20 * time.Millisecond)
		}
		synctest.Wait()
		if told < 9 || told > 11 {
			t.Errorf("in ten seconds each is told %d times of who is there", told)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s := first.Snapshot(); len(s.Participants) != len(known) {
			t.Errorf("%d are there, %d are known of", len(s.Participants), len(known))
		}
		for _, f := range first.Snapshot().Participants {
			if !known[f.ID] {
				t.Errorf("nothing was told of %s", f.ID)
			}
		}
	})
}

// What somebody says or sends comes after the news that he is there.
func TestACrowdKnowsWhoSpeaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := newRooms(t)
		defer r.Close()
		r.crowd = 3
		ann := enter(t, r, "hall", "ann", granted(auth.Host))
		bob := enter(t, r, "hall", "bob", granted(auth.Viewer))
		cid := enter(t, r, "hall", "cid", granted(auth.Host))
		enter(t, r, "hall", "zoe", granted(auth.Publisher)).Leave()
		synctest.Wait() // they are told of her, and of the next in a while
		ann.heard, cid.heard = nil, nil
		dan := enter(t, r, "hall", "dan", granted(auth.Publisher))
		dan.hears("entered hall [] [ann bob cid dan] as dan publisher")
		expect(t, "a message to ann", dan.Relay("ann", "psst"), nil)
		ann.hears("here [dan publisher] gone []", "dan says psst")
		cid.hears()
		expect(t, "a stream", dan.Publish(Offer{Stream: feed("dan-camera")}), nil)
		cid.hears("here [dan publisher [dan-camera]] gone []", "stream dan-camera by dan")
		ann.heard = nil
		eve := enter(t, r, "hall", "eve", granted(auth.Publisher))
		eve.Leave()
		bob.Leave()
		dan.Away()
		expect(t, "a message to all", ann.Relay("", "hello"), nil)
		cid.hears("here [dan publisher [dan-camera] absent] gone [bob eve]", "ann says hello")
		bob.heard = nil

		// who is allowed to see others is told of all at once
		fay := enter(t, r, "hall", "fay", granted(auth.Viewer))
		fay.heard = nil
		expect(t, "a role", ann.SetRole("fay", auth.Host), nil)
		fay.hears("= fay host", "here [ann host cid host dan publisher [dan-camera] absent fay host] gone []")

		// nobody is told of a room that is closed
		expect(t, "closing", ann.CloseRoom(), nil)
		cid.heard = nil
		time.Sleep(time.Minute)
		synctest.Wait()
		cid.hears()
	})
}
