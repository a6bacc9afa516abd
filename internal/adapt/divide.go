package adapt

import "slices"

// Claim is a track's claim on the transport that it shares with others.
type Claim struct {
	Audio  bool
	Pixels int // that it fills on screen, of video
	Least  int // bit/s below which it is worth nothing
	Most   int // bit/s that it has use for
}

// Divide shares what a transport carries, in bit/s, among its tracks: audio has all
// that it claims before any picture has a bit; then each picture has the least
// that it claims, the largest on screen first; what is left goes to the largest
// until it has the most, then to the next. What doesn't come to its least gets what
// is left, or 0. 0 in all means that nothing is known, and that is what all get.
func Divide(bps int, claims []Claim) []int {
	shares := make([]int, len(claims))
	order := make([]int, len(claims))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch x, y := claims[a], claims[b]; {
		case x.Audio != y.Audio && x.Audio:
			return -1
		case x.Audio != y.Audio:
			return 1
		default:
			return y.Pixels - x.Pixels
		}
	})
	give := func(i, upTo int) {
		more := min(max(upTo-shares[i], 0), bps)
		shares[i] += more
		bps -= more
	}
	for _, i := range order {
		if c := claims[i]; c.Audio {
			give(i, c.Most)
		} else {
			give(i, c.Least)
		}
	}
	for _, i := range order {
		give(i, claims[i].Most)
	}
	return shares
}
