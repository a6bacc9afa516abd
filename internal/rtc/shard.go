package rtc

import (
	"sync"
	"time"

	"gateway/internal/contain"
	"gateway/internal/media"
)

const (
	batchPackets = 128                    // packets of one track that a viewer may send in a turn at most
	shardTick    = 100 * time.Millisecond // how exact the time of a sender report is
)

// due tells when a viewer that had its turn is to have another.
type due uint8

const (
	notDue    due = iota
	dueAtTick     // of the pacers
	dueNow
)

// shard is one sending goroutine and the viewers that it serves. Only it calls
// their sources' Next and writes their RTP.
type shard struct {
	index int
	load  int           // viewers that were dealt to it; guarded by Engine.mu
	wake  chan struct{} // holds one token: there is something in ready
	asked chan struct{} // see Engine.Alive
	stop  chan struct{}
	done  chan struct{}

	mu      sync.Mutex // guards what follows; held to touch the lists, never across a write
	viewers []*Viewer
	ready   []*Viewer // each at most once: Viewer.marked

	// touched only by the goroutine
	turn     []*Viewer
	paced    []*Viewer      // those whose pacer lets them go on later: Viewer.paced
	again    []*Viewer      // those of them whose turn it is
	tick     *time.Timer    // runs while there are any
	batch    []media.Packet // what is due of a track, while it is held
	rest     []media.Packet // likewise what is due of the encoding before, at a switch
	rtx      []byte         // one retransmission's payload
	switched []switched     // of the viewer whose turn it is
	leaping  []Source       // likewise: are to go on at their next keyframe
	out      *batch
}

func newShard(index int) *shard {
	s := &shard{
		index: index,
		out:   newBatch(),
		tick:  time.NewTimer(paceTick),
		wake:  make(chan struct{}, 1),
		asked: make(chan struct{}),
		stop:  make(chan struct{}),
		done:  make(chan struct{}),
		batch: newPackets(),
		rest:  newPackets(),
		rtx:   make([]byte, 0, 2048),
	}
	go s.run()
	return s
}

func (s *shard) add(v *Viewer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.viewers = append(s.viewers, v)
	if cap(s.ready) < len(s.viewers) { // mark must not allocate
		s.ready = append(make([]*Viewer, 0, 2*len(s.viewers)), s.ready...)
	}
}

func (s *shard) remove(v *Viewer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.viewers {
		if s.viewers[i] == v {
			last := len(s.viewers) - 1
			s.viewers[i], s.viewers[last] = s.viewers[last], nil
			s.viewers = s.viewers[:last]
			return
		}
	}
}

// mark gives a viewer a turn. It is called from pipelines' streaming threads
// and neither waits nor allocates.
func (s *shard) mark(v *Viewer) {
	if v.marked.Swap(true) {
		return
	}
	s.mu.Lock()
	s.ready = append(s.ready, v)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *shard) run() {
	defer close(s.done)
	reports := time.NewTicker(shardTick)
	defer reports.Stop()
	defer s.tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-s.wake:
			s.serve()
		case <-s.tick.C:
			s.goOn()
		case <-reports.C:
			s.report()
		case <-s.asked:
		}
	}
}

// serve gives each ready viewer one turn. Who has more waits for the next round.
func (s *shard) serve() {
	s.mu.Lock()
	s.turn, s.ready = s.ready, s.turn[:0]
	if cap(s.ready) < len(s.viewers) {
		s.ready = make([]*Viewer, 0, 2*len(s.viewers))
	}
	s.mu.Unlock()
	for i, v := range s.turn {
		s.turn[i] = nil
		v.marked.Store(false) // before reading, so that what comes meanwhile marks again
		s.serveOne(v)
	}
}

func (s *shard) serveOne(v *Viewer) {
	defer contain.Panic(v.log, "viewer", func(err error) {
		v.broke(err)
		s.wipe(v)
	})
	switch v.send(s) {
	case dueNow:
		s.mark(v)
	case dueAtTick:
		if !v.paced {
			v.paced = true
			if s.paced = append(s.paced, v); len(s.paced) == 1 {
				s.tick.Reset(paceTick)
			}
		}
	}
}

// wipe leaves nothing of a viewer whose turn has ended in a panic to the next one: packets
// that were to be sent, encodings that were to be closed, what it held of its sources.
func (s *shard) wipe(v *Viewer) {
	s.out = newBatch() // in whatever state the old one is
	held, switched := [][]media.Packet{s.batch, s.rest}, s.switched
	s.batch, s.rest, s.switched, s.leaping = newPackets(), newPackets(), nil, nil
	for _, packets := range held {
		func() {
			defer contain.Panic(v.log, "viewer", nil)
			release(packets)
		}()
	}
	for _, c := range switched {
		func() {
			defer contain.Panic(v.log, "viewer", nil)
			if c.old != nil {
				c.old.close()
			}
		}()
	}
}

// newPackets has room for what a viewer may send in a turn.
func newPackets() []media.Packet { return make([]media.Packet, 0, batchPackets) }

// goOn gives each paced viewer a turn.
func (s *shard) goOn() {
	s.again = append(s.again[:0], s.paced...)
	clear(s.paced)
	s.paced = s.paced[:0]
	for i, v := range s.again {
		s.again[i], v.paced = nil, false
		s.serveOne(v)
	}
}

func (s *shard) report() {
	s.mu.Lock()
	viewers := append(s.turn[:0], s.viewers...)
	s.mu.Unlock()
	now := media.Now()
	for i, v := range viewers {
		viewers[i] = nil
		s.tend(v, now)
	}
	s.turn = viewers[:0]
}

func (s *shard) tend(v *Viewer, now time.Duration) {
	defer contain.Panic(v.log, "viewer", v.broke)
	v.tend(now)
}

func (s *shard) close() {
	close(s.stop)
	<-s.done
}
