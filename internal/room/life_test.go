package room

import (
	"testing"
	"testing/synctest"
	"time"

	"gateway/internal/auth"
)

func TestLifeOfARoom(t *testing.T) {
	for _, c := range []struct {
		name, room string
		script     func(*testing.T, *Rooms)
		want       State
	}{
		{"listed, idle for ever", "lobby", func(*testing.T, *Rooms) { time.Sleep(1000 * time.Hour) }, Idle},
		{"listed, idle for its timeout", "hall", func(*testing.T, *Rooms) { time.Sleep(time.Hour) }, Closed},
		{"listed, idle for less", "hall", func(*testing.T, *Rooms) { time.Sleep(time.Hour - 1) }, Idle},
		{"left and joined again in time", "hall", func(t *testing.T, r *Rooms) {
			for range 3 {
				time.Sleep(59 * time.Minute)
				enter(t, r, "hall", "ann", auth.Open()).Leave()
			}
			time.Sleep(59 * time.Minute)
		}, Idle},
		{"occupied past its timeout", "hall", func(t *testing.T, r *Rooms) {
			enter(t, r, "hall", "ann", auth.Open())
			time.Sleep(3 * time.Hour)
		}, Active},
		{"made, left for its timeout", "new", func(t *testing.T, r *Rooms) {
			enter(t, r, "new", "ann", auth.Open()).Leave()
			time.Sleep(5 * time.Minute)
		}, "gone"},
		{"made, left for less", "new", func(t *testing.T, r *Rooms) {
			enter(t, r, "new", "ann", auth.Open()).Leave()
			time.Sleep(5*time.Minute - 1)
		}, Idle},
		{"made and closed", "new", func(t *testing.T, r *Rooms) {
			enter(t, r, "new", "ann", auth.Open()).CloseRoom()
		}, Closed},
		{"made and closed for its timeout", "new", func(t *testing.T, r *Rooms) {
			enter(t, r, "new", "ann", auth.Open()).CloseRoom()
			time.Sleep(5 * time.Minute)
		}, "gone"},
		{"never made", "new", func(*testing.T, *Rooms) {}, "gone"},
		{"a pipeline's, closed", "door", func(t *testing.T, r *Rooms) {
			r.CloseRoom("door", auth.Open())
			time.Sleep(1000 * time.Hour)
		}, Closed},
		{"a pipeline's, closed while occupied, and opened", "door", func(t *testing.T, r *Rooms) {
			ann := enter(t, r, "door", "ann", auth.Open())
			r.CloseRoom("door", auth.Open())
			ann.hears("entered door [door] [ann] as ann admin", "left: room-closed")
			expect(t, "afterwards", ann.Lock(true), ErrLeft)
			_, err := try(t, r, "door", "bob", auth.Open())
			expect(t, "while it is closed", err, ErrClosed)
			if err := r.OpenRoom("door", auth.Open()); err != nil {
				t.Error(err)
			}
			enter(t, r, "door", "bob", auth.Open())
		}, Active},
		{"closed twice, opened twice", "hall", func(t *testing.T, r *Rooms) {
			for range 2 {
				expect(t, "close", r.CloseRoom("hall", granted(auth.Host)), nil)
			}
			for range 2 {
				expect(t, "open", r.OpenRoom("hall", granted(auth.Admin)), nil)
			}
		}, Idle},
		{"opened after its timeout, which begins anew", "hall", func(t *testing.T, r *Rooms) {
			time.Sleep(time.Hour)
			synctest.Wait()
			expect(t, "open", r.OpenRoom("hall", auth.Open()), nil)
			time.Sleep(59 * time.Minute)
		}, Idle},
		{"only who administers opens", "hall", func(t *testing.T, r *Rooms) {
			time.Sleep(time.Hour)
			synctest.Wait()
			expect(t, "a host", r.OpenRoom("hall", granted(auth.Host)), ErrForbidden)
			expect(t, "an admin elsewhere", r.OpenRoom("hall", granted(auth.Admin, "door")), ErrForbidden)
			expect(t, "closing as a publisher", r.CloseRoom("hall", granted(auth.Publisher)), ErrForbidden)
			expect(t, "a room that isn't", r.OpenRoom("new", auth.Open()), ErrNotFound)
		}, Closed},
		{"an absent participant keeps it", "hall", func(t *testing.T, r *Rooms) {
			enter(t, r, "hall", "ann", auth.Open()).Away()
			time.Sleep(time.Minute - 1)
		}, Active},
		{"an absent participant is gone", "hall", func(t *testing.T, r *Rooms) {
			ann := enter(t, r, "hall", "ann", auth.Open())
			ann.heard = nil
			ann.Away()
			time.Sleep(time.Minute)
			synctest.Wait()
			ann.hears("= ann admin absent", "left: connection-lost")
		}, Idle},
		{"an absent participant comes back", "hall", func(t *testing.T, r *Rooms) {
			ann := enter(t, r, "hall", "ann", auth.Open())
			ann.Away()
			time.Sleep(time.Minute - 1)
			ann.Back()
			time.Sleep(time.Hour)
		}, Active},
		{"no timer outlives the rooms", "hall", func(t *testing.T, r *Rooms) {
			enter(t, r, "hall", "ann", auth.Open()).Away()
			enter(t, r, "new", "ann", auth.Open()).Leave()
			r.Close()
			r.Close()
			time.Sleep(100 * time.Hour)
		}, Active},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, _ := newRooms(t)
				c.script(t, r)
				synctest.Wait()
				if got := state(t, r, c.room); got != c.want {
					t.Errorf("the room is %s, want %s", got, c.want)
				}
			})
		})
	}
}

func TestFullAndLockedRoomsRefuse(t *testing.T) {
	r, _ := newRooms(t)
	ann := enter(t, r, "lobby", "ann", granted(auth.Host))
	bob := enter(t, r, "lobby", "bob", granted(auth.Viewer))
	ann.heard, bob.heard = nil, nil
	expect(t, "locking as a viewer", bob.Lock(true), ErrForbidden)
	expect(t, "locking", ann.Lock(true), nil)
	expect(t, "locking again", ann.Lock(true), nil)
	ann.hears("locked true")
	bob.hears("locked true")
	_, err := try(t, r, "lobby", "cid", granted(auth.Publisher))
	expect(t, "joining a locked room", err, ErrLocked)
	// a page that only watches joins as a viewer, whoever has it open
	dan, err := r.Join("lobby", Joining{ID: "dan", Grant: granted(auth.Host), Role: auth.Viewer})
	if err != nil || dan.Grant().May(auth.Moderate, "lobby", "") {
		t.Fatalf("a host who only watches: %+v, %v", dan, err)
	}
	some := granted(auth.Host)
	some.Streams = []string{"door"}
	_, err = try(t, r, "lobby", "eve", some)
	expect(t, "joining a locked room as the host of one stream", err, ErrLocked)
	expect(t, "unlocking", ann.Lock(false), nil)
	enter(t, r, "lobby", "eve", granted(auth.Viewer))
	_, err = try(t, r, "lobby", "fay", granted(auth.Admin))
	expect(t, "joining a full room", err, ErrFull)
	bob.Leave()
	if _, err := try(t, r, "lobby", "eve", granted(auth.Admin)); err == nil {
		t.Error("two of the same userId")
	}
	enter(t, r, "lobby", "fay", granted(auth.Admin))
}

func TestALockGoesWithTheLast(t *testing.T) {
	r, _ := newRooms(t)
	ann := enter(t, r, "lobby", "ann", granted(auth.Host))
	expect(t, "lock", ann.Lock(true), nil)
	ann.Leave()
	enter(t, r, "lobby", "bob", granted(auth.Viewer))
}
