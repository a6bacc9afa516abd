package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"

	"golang.org/x/crypto/argon2"

	"gateway/internal/config"
)

// hashesAtATime bounds what logins take of memory and CPU: each has its
// password's memory, 64 MiB for one of ours.
const (
	hashesAtATime = 2
	loginsAtATime = 32 // those included that wait
)

// The cost of the passwords that HashPassword makes: the second choice of RFC
// 9106 §4, 64 MiB and 3 passes, with fewer lanes.
const (
	hashMemory  = 64 << 10 // KiB
	hashPasses  = 3
	hashThreads = 2
	hashSalt    = 16 // bytes
	hashLength  = 32 // bytes
	maxPassword = 1024
)

// HashPassword makes the PHC string that the configuration has for a password of
// 8 to 1024 bytes.
func HashPassword(password string) (string, error) {
	if len(password) < 8 || len(password) > maxPassword {
		return "", errors.New("a password has 8 to 1024 bytes")
	}
	salt := make([]byte, hashSalt)
	rand.Read(salt) // never fails
	p := config.Password{Memory: hashMemory, Time: hashPasses, Threads: hashThreads, Salt: salt}
	p.Hash = argon2.IDKey([]byte(password), salt, p.Time, p.Memory, p.Threads, hashLength)
	return p.String(), nil
}

// matches computes a password's hash, which takes tenths of a second, and
// compares.
func matches(want config.Password, password string) bool {
	if len(password) > maxPassword {
		password = ""
	}
	got := argon2.IDKey([]byte(password), want.Salt, want.Time, want.Memory, want.Threads, uint32(len(want.Hash)))
	return subtle.ConstantTimeCompare(got, want.Hash) == 1
}

// nobodysPassword is what is computed for a name that doesn't exist, so that the
// answer takes as long.
var nobodysPassword = config.Password{
	Memory: hashMemory, Time: hashPasses, Threads: hashThreads, Salt: make([]byte, hashSalt), Hash: make([]byte, hashLength),
}

// fingerprint tells one password of a user from the next, and nothing else.
func fingerprint(p config.Password) string {
	sum := sha256.Sum256([]byte("gateway password " + p.String()))
	return hex.EncodeToString(sum[:8])
}
