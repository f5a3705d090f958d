package program

import "testing"

// TestUnrun: a block of which a line was not run is found, unless it is marked, and so is a mark that is wrong.
func TestUnrun(t *testing.T) {
	var ran Commands
	ran.Add("make build\nrotatord import --a \\\n  --b\n")
	for text, want := range map[string]int{
		"```sh\nmake build\n```\n":                                               0,
		"1. x\n   ```sh\n   rotatord import --a --b\n   ```\n":                   0,
		"```sh\nmake build\nmake install\n```\n":                                 1,
		"<!-- illustration: it needs hosts -->\n```sh\nmake install\n```\n":      0,
		"<!-- illustration: it needs hosts -->\n```sh\nmake build\n```\n":        1,
		"<!-- illustration: it needs hosts -->\n\nText.\n\n```sh\nmake x\n```\n": 1,
		"no commands\n": 1,
	} {
		if got := unrun(text, ran); len(got) != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}
