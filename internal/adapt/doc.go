// Package adapt is the policy of adaptation as arithmetic: what a viewer's network
// carries, which encoding a viewer gets of that, how an encoder follows its viewers.
// It hides control theory. It has no clock, no goroutine, no lock and does no I/O: every
// answer is a function of the times and reports that were told, in their order. A value
// is used by one goroutine at a time: callers lock.
package adapt
