// Package auth knows who may do what: an [Authority] turns tokens and passwords
// into grants, and a [Grant] answers whether an action is allowed on a room and
// its streams.
//
// It hides signatures, keys and their rotation, passwords, one-use links and the
// files in which the gateway keeps its own secrets. Nothing is allowed that a
// grant doesn't say, whoever asks and from wherever: loopback is no exception.
//
// It starts no goroutines. An Authority may be used by any number of them; what
// it is asked blocks for a signature, for a password (tenths of a second, a few
// at a time), or for the fetching of a key set (5 s at most), and no longer than
// the caller's context.
package auth
