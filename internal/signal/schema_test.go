package signal

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// docs/protocol.schema.json has every type of message with every field that it must
// and may have. That it is right about them a conformance test shows.
func TestSchemaHasEveryMessage(t *testing.T) {
	data, err := os.ReadFile("../../docs/protocol.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Defs map[string]json.RawMessage `json:"$defs"`
	}
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	described := 0
	for name := range schema.Defs {
		if strings.HasPrefix(name, "client-") {
			described++
		}
	}
	if described != len(requests) {
		t.Errorf("the schema has %d types of a client, the code %d", described, len(requests))
	}
	for kind, allowed := range requests {
		var def struct {
			Required   []string
			Properties map[string]any
		}
		if err := json.Unmarshal(schema.Defs["client-"+kind], &def); err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		if want := slices.Sorted(slices.Values(append([]string{"type"}, allowed.must...))); !slices.Equal(slices.Sorted(slices.Values(def.Required)), want) {
			t.Errorf("%s requires %v, in the schema %v", kind, want, def.Required)
		}
		if want := slices.Compact(slices.Sorted(slices.Values(slices.Concat(common, allowed.must, allowed.may)))); !slices.Equal(slices.Sorted(maps.Keys(def.Properties)), want) {
			t.Errorf("%s may have %v, in the schema %v", kind, want, slices.Sorted(maps.Keys(def.Properties)))
		}
	}
	var code struct{ Enum []string }
	if err := json.Unmarshal(schema.Defs["code"], &code); err != nil {
		t.Fatal(err)
	}
	for c := range codes {
		httpOnly := c == methodNotAllowed || c == unsupportedType || c == notReceiving || c == preconditionFailed || c == preconditionRequired || c == streamAbsent
		if !httpOnly && !slices.Contains(code.Enum, string(c)) {
			t.Errorf("the schema has no code %s", c)
		}
	}
}
