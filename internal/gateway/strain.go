package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	strainLook    = time.Second // how old a look at the machine may be
	fullPercent   = 95          // of the control group's memory: nobody more is taken on
	leastMemory   = 32 << 20    // bytes that the machine has to have for others
	shortageTold  = time.Minute // how often a shortage of descriptors is logged
	shortagePause = 100 * time.Millisecond
)

// strain tells whether the machine bears more viewers: who watches goes on, and nobody
// more is let in, before the kernel ends the process for want of memory, or nothing
// can be opened any more.
type strain struct {
	log    *slog.Logger
	memory func() (limit, used, free uint64) // of the control group, 0: no limit; of the machine
	files  func() (free int, err error)

	mu  sync.Mutex // guards below; held for a look, which is some files of /proc
	at  time.Time
	now string // what why has found
}

func newStrain(log *slog.Logger) *strain {
	return &strain{log: log, files: freeFiles, memory: func() (limit, used, free uint64) {
		limit, used = cgroupLimit("/proc/self/cgroup", "/sys/fs/cgroup")
		if free, err := memAvailable(); err == nil {
			return limit, used, free
		}
		return limit, used, leastMemory
	}}
}

// why is the reason that nobody more is let in now, in words; "": there is none. It
// looks at the machine once a second at most.
func (s *strain) why() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.at) < strainLook && !s.at.IsZero() {
		return s.now
	}
	was := s.now
	s.now, s.at = s.look(), time.Now()
	switch {
	case s.now != "" && was == "":
		s.log.Warn("no more viewers are let in for now", "reason", s.now)
	case s.now == "" && was != "":
		s.log.Info("viewers are let in again")
	}
	return s.now
}

func (s *strain) look() string {
	limit, used, free := s.memory()
	switch {
	case limit > 0 && used >= limit/100*fullPercent:
		return fmt.Sprintf("%s of the %s of memory that it is allowed are used", bytesText(used), bytesText(limit))
	case free < leastMemory:
		return fmt.Sprintf("the machine has %s of memory left", bytesText(free))
	}
	if n, err := s.files(); errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || err == nil && n < scarceFiles {
		return "it can open hardly any file more"
	}
	return ""
}

// patient is a listener that says when connections can't be taken, for want of file
// descriptors or memory, and tries again after a pause: net/http would be silent.
type patient struct {
	net.Listener
	log  *slog.Logger
	told *time.Time // touched only by Accept, which one goroutine calls
}

// Accept implements net.Listener.
func (p patient) Accept() (net.Conn, error) {
	for {
		conn, err := p.Listener.Accept()
		if !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE) && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.ENOMEM) {
			return conn, err
		}
		if now := time.Now(); now.Sub(*p.told) > shortageTold {
			*p.told = now
			p.log.Error("connections can't be taken; those who are here go on", "err", err, "remedy", "raise LimitNOFILE, or lower limits.viewers")
		}
		time.Sleep(shortagePause) // what closes meanwhile makes room
	}
}
