// Package stat is the little arithmetic that the benchmarks print.
package stat

import "slices"

// Quantile is the value that a share q of the values, 0 to 1, doesn't exceed, by
// nearest rank; 0 without values.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
