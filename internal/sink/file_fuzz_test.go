package sink

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
)

// FuzzFileFormats checks that a format which can read a file can also change it: the two values read back,
// a second change has the same result, nothing else differs, and no error repeats the content.
func FuzzFileFormats(f *testing.F) {
	for _, seed := range []string{
		"", "# c\nA='b c'\nexport ID=\"x\"\n; d", "ID=a\nSECRET=it's\n", "A=b\\\n", "\ufeffA=b", "ID=a\r\nB=c\r\n", "A=\"b\\\"c\"d\n", "=x\n", "ID\n",
		`{"ID": "a", "b": [1, 2.0, {"ID": "c"}]}`, `{}`, "{\n}\n", `{"a":1}`, `{"ID":null}`, `{"ID":{"a":1}} `, `["ID"]`, `{"\u0049D": "x"}`, `{"ID":"a","ID":"b"}`,
		"ID: a # b\nc: d\n", "ID: |\n  a\n  b\n", "{ID: a, b: c}", "- a\n", "a: &x 1\nb: *x\n", "---\nID: a\n...\n", "? ID\n: b\n", "ID:\n  a: b\nc: d", "\"ID\": 'it''s'\n", "<<: {a: b}\n", "ID: a\n---\nb: c\n", "# only\n", "  ID: a\n  b: c\n", "ID: \"a\\\n  b\"\n",
	} {
		f.Add([]byte(seed), "88bf.access", "cfast_CANARYaB3")
		f.Add([]byte(seed), "a b", "it's \"$x\" \\ `y` # z: w")
	}
	f.Fuzz(func(t *testing.T, content []byte, id, value string) {
		if len(content) > 1<<12 || unprintable(id) != "" || unprintable(value) != "" {
			t.Skip()
		}
		values := []assignment{{"ID", id}, {"SECRET", value}}
		for name, format := range fileFormats {
			before, err := format.get(content, "ID", "SECRET")
			if _, other := errors.AsType[*otherValue](err); err != nil && !other {
				continue // refused
			}
			changed, err := format.set(bytes.Clone(content), values)
			if err != nil {
				if strings.Contains(err.Error(), "CANARY") {
					t.Errorf("%s: the error repeats a secret: %v", name, err)
				}
				continue
			}
			after, err := format.get(changed, "ID", "SECRET")
			if want := map[string]string{"ID": id, "SECRET": value}; err != nil || !maps.Equal(after, want) {
				t.Fatalf("%s: %q became %q, which reads as %q, %v (before: %q)", name, content, changed, after, err, before)
			}
			again, err := format.set(bytes.Clone(changed), values)
			if twice, getErr := format.get(again, "ID", "SECRET"); err != nil || getErr != nil || !maps.Equal(after, twice) {
				t.Fatalf("%s: %q became %q, and then %q, %v", name, content, changed, again, errors.Join(err, getErr))
			}
			if rest(t, name, content) != rest(t, name, changed) {
				t.Fatalf("%s: something else changed: %q became %q", name, content, changed)
			}
		}
	})
}

// rest is all of a file but the two values, in a form that can be compared.
func rest(t *testing.T, format string, content []byte) string {
	t.Helper()
	switch format {
	case "env":
		var kept strings.Builder
		for _, line := range envLines(content) {
			if found := envLine.FindStringSubmatch(strings.TrimRight(line, "\r\n")); found == nil || found[2] != "ID" && found[2] != "SECRET" {
				kept.WriteString(strings.TrimRight(line, "\r\n") + "\n")
			}
		}
		return kept.String()
	case "json":
		members, err := jsonMembers(content)
		if err != nil {
			t.Fatal(err)
		}
		var kept []any
		for _, m := range members {
			if m.name != "ID" && m.name != "SECRET" {
				kept = append(kept, m.name, string(m.value))
			}
		}
		b, _ := json.Marshal(kept)
		return string(b)
	}
	// yamlFormat compares by itself; here the number of keys must fit.
	root, err := yamlRoot(content)
	if err != nil {
		t.Fatal(err)
	}
	yamlRemove(root, "ID")
	yamlRemove(root, "SECRET")
	return strings.Repeat("x", len(root.Content))
}
