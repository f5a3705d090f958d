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

// TestDryRunRunsNothing: `make --dry-run` runs a line of a recipe that contains $(MAKE), so such a line contains nothing else.
// A line that begins with + it runs too.
func TestDryRunRunsNothing(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	if line := ranInDryRun(string(makefile)); line != "" {
		t.Errorf("make --dry-run runs this line of the Makefile: %s", line)
	}
	for _, recipe := range []string{
		"\tnice -n 15 $(MAKE) other & other=$$!; \\\n\tgo test ./...\n",
		"\tgo test ./... && \\\n\t${MAKE} other\n",
		"\t@+go test ./...\n",
	} {
		if ranInDryRun(recipe) == "" {
			t.Errorf("not found in %q", recipe)
		}
	}
	for _, recipe := range []string{"\t$(MAKE) other\n", "\t@$(MAKE) --no-print-directory other\n", "# Not $(MAKE).\n", "\tgo test ./... +x\n"} {
		if line := ranInDryRun(recipe); line != "" {
			t.Errorf("found %q in %q", line, recipe)
		}
	}
}

// ranInDryRun returns a command of a recipe that is not a call of make alone, and that `make --dry-run` runs.
func ranInDryRun(makefile string) string {
	makefile = strings.ReplaceAll(makefile, "\\\n", " ")
	for _, line := range regexp.MustCompile(`(?m)^\t.*`).FindAllString(makefile, -1) {
		plus := regexp.MustCompile(`^\t[@-]*\+`).MatchString(line)
		calls := strings.Contains(line, "$(MAKE)") || strings.Contains(line, "${MAKE}")
		if plus || calls && !regexp.MustCompile(`^\t[@-]*\$[({]MAKE[)}][\w -]*$`).MatchString(line) {
			return line
		}
	}
	return ""
}
