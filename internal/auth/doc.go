// Package auth knows who may do what: tokens become grants, and grants answer
// whether an action is allowed on a room and its streams.
//
// It hides signatures, keys, passwords, one-use links and the files in which the
// gateway keeps its own secrets. Nothing is allowed that a grant doesn't say.
package auth
