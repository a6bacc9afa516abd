package adapt

import "slices"

// Claim is a track's claim on the transport that it shares with others.
type Claim struct {
	Audio  bool
	Pixels int // that it fills on screen, of video
	Least  int // bit/s that it should have
	Floor  int // and without which it is worth nothing; 0: any are good
	Most   int // bit/s that it has use for
}

// Divide shares what a transport carries, in bit/s, among its tracks: audio has all
// that it claims before any picture has a bit; then each picture has the least
// that it claims, the largest on screen first; what is left goes to the largest
// until it has the most, then to the next. A picture that doesn't come to its floor
// gets nothing, so that the others have what they can use, but for the first
// one. 0 in all means that nothing is known, and that is what all get.
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
	pictures := 0
	for k, i := range order {
		c := claims[i]
		if c.Audio {
			give(i, c.Most)
			continue
		}
		give(i, c.Least)
		if shares[i] < c.Floor && pictures > 0 {
			bps += shares[i]
			shares[i], order[k] = 0, -1
		}
		pictures++
	}
	for _, i := range order {
		if i >= 0 {
			give(i, claims[i].Most)
		}
	}
	return shares
}
