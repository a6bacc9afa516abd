package internal_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// patched are the first releases without the faults that advisories tell of: of dtls and stun those
// of 2026, of interceptor a panic by padding (CVE-2025-49140). govulncheck's database can't be had by
// the Go module proxy, so this list is kept by hand.
var patched = map[string]string{
	"github.com/pion/dtls/v3":     "v3.1.4",
	"github.com/pion/stun/v3":     "v3.1.5",
	"github.com/pion/stun/v4":     "v4.0.0",
	"github.com/pion/interceptor": "v0.1.39",
}

var required = regexp.MustCompile(`(?m)^\s*(\S+) (v\d+\.\d+\.\d+)\b`)

func TestLibrariesHaveTheFixesOfAdvisories(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, m := range required.FindAllStringSubmatch(string(text), -1) {
		least, ok := patched[m[1]]
		if !ok {
			continue
		}
		found++
		if number(t, m[2]) < number(t, least) {
			t.Errorf("go.mod: %s %s: an advisory asks for %s", m[1], m[2], least)
		}
	}
	if found < 3 {
		t.Errorf("go.mod names %d of the libraries", found)
	}
}

// number is a version that can be compared.
func number(t *testing.T, version string) int {
	t.Helper()
	var major, minor, patch int
	if _, err := fmt.Sscanf(version, "v%d.%d.%d", &major, &minor, &patch); err != nil {
		t.Fatalf("%s: %v", version, err)
	}
	return major<<40 | minor<<20 | patch
}
