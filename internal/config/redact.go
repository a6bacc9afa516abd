package config

import "regexp"

var (
	userInfo = regexp.MustCompile(`(://)[^/@\s"]+@`)
	secrets  = regexp.MustCompile(`(?i)\b([a-z-]*(?:password|passwd|passphrase|secret|token|user-pw|user-id|key)\s*=\s*)("[^"]*"|\S+)`)
)

// Redact returns launch text, or an error text that may repeat it, without the
// user names, passwords and keys that sources are given. What leaves the machine
// goes through it.
func Redact(text string) string {
	return secrets.ReplaceAllString(userInfo.ReplaceAllString(text, "$1…@"), "$1…")
}
