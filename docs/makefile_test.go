package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestMakefileNamesTests: each name in a pattern of tests that the Makefile runs is part of the name of a test in the packages
// beside it. `go test -run` is content with a pattern that matches nothing.
func TestMakefileNamesTests(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	names := 0
	for _, line := range regexp.MustCompile(`(?m)^\tgo test .*-run '?([\w|]+)'?((?: \./[\w/]+)+)`).FindAllStringSubmatch(string(makefile), -1) {
		var tests strings.Builder
		for dir := range strings.FieldsSeq(line[2]) {
			files, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range files {
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				for _, test := range regexp.MustCompile(`(?m)^func Test\w+`).FindAllString(string(text), -1) {
					tests.WriteString(test + "\n")
				}
			}
		}
		for name := range strings.SplitSeq(line[1], "|") {
			if names++; !strings.Contains(tests.String(), name) {
				t.Errorf("the Makefile runs tests named %q in%s, and there is none", name, line[2])
			}
		}
	}
	if names < 20 {
		t.Errorf("only %d names were found", names)
	}
}
