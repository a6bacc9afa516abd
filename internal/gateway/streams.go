package gateway

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"gateway/internal/config"
	"gateway/internal/stream"
)

// streams are the streams of the pipelines folder, by name.
type streams struct {
	mu       sync.Mutex
	byName   map[string]*stream.Stream
	problems []string // what is wrong with files that were left out
}

// loadStreams starts every good stream of a folder and logs what is wrong with
// the others.
func loadStreams(dir string, log *slog.Logger) *streams {
	s := &streams{byName: make(map[string]*stream.Stream)}
	confs, err := config.LoadStreams(dir)
	var findings config.Errors
	if errors.As(err, &findings) {
		for _, f := range findings {
			log.Error("pipeline file", "finding", f)
			s.problems = append(s.problems, f.Error())
		}
	} else if err != nil {
		log.Error("pipelines", "err", err)
		s.problems = append(s.problems, err.Error())
	}
	for _, c := range confs {
		s.byName[c.Name] = stream.New(c, launcher{log: log}, log)
	}
	return s
}

// Stream finds a stream by name.
func (s *streams) Stream(name string) (*stream.Stream, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, ok := s.byName[name]
	return found, ok
}

// list returns all streams in the order of their names.
func (s *streams) list() []*stream.Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*stream.Stream, 0, len(s.byName))
	for _, one := range s.byName {
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b *stream.Stream) int { return strings.Compare(a.Name(), b.Name()) })
	return all
}

// close closes all streams, at the same time.
func (s *streams) close() error {
	var (
		wait sync.WaitGroup
		all  = s.list()
		errs = make([]error, len(all))
	)
	for i, one := range all {
		wait.Go(func() { errs[i] = one.Close() })
	}
	wait.Wait()
	return errors.Join(errs...)
}
