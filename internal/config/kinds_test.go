package config

import (
	"reflect"
	"slices"
	"testing"

	"rotatord/internal/config/raw"
)

// TestTables compares the tables of kinds with what the file may say: each key that is supported is in
// the table, and each kind of the table is a key.
func TestTables(t *testing.T) {
	for name, test := range map[string]struct {
		written reflect.Type
		kinds   []string
	}{
		"sinks":        {reflect.TypeFor[raw.Sink](), keysOf(kindsIn[Sink, SinkKinds]())},
		"auth methods": {reflect.TypeFor[raw.VaultAuth](), keysOf(kindsIn[VaultAuth, AuthMethods]())},
	} {
		var keys []string
		for key, field := range fieldsOf(test.written) {
			if field.Type != reflect.TypeFor[raw.Unsupported]() {
				keys = append(keys, key)
			}
		}
		slices.Sort(keys)
		if len(keys) == 0 || !slices.Equal(keys, test.kinds) {
			t.Errorf("%s: the file may say %q, and the table has %q", name, keys, test.kinds)
		}
	}
}
