package stream

// Carry is a placeholder until the encoder policy is merged.
func (s *Subscription) Carry(bps int) int { return s.Track().Bps }

// Target is a placeholder until the encoder policy is merged.
func (s *Stream) Target(track string, carries int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.find(track); e != nil {
		return e.ring.described().Bps
	}
	return 0
}
