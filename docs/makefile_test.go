package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// patterns are those of the tests that the Makefile runs in packages of the product: the names of a pattern, by package.
func patterns(t *testing.T) map[string][]string {
	t.Helper()
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for _, line := range regexp.MustCompile(`(?m)^\tgo test .*-run '?([\w|]+)'?((?: \./[\w/]+)+)`).FindAllStringSubmatch(string(makefile), -1) {
		for dir := range strings.FieldsSeq(line[2]) {
			all[filepath.Clean(dir)] = append(all[filepath.Clean(dir)], line[1])
		}
	}
	return all
}

// TestMakefileNamesTests: each name in a pattern of tests that the Makefile runs is part of the name of a test in a package
// beside it. `go test -run` is content with a pattern that matches nothing.
func TestMakefileNamesTests(t *testing.T) {
	tests := map[string]string{} // the tests that a pattern may mean
	for dir, all := range patterns(t) {
		files, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, pattern := range all {
				tests[pattern] += strings.Join(regexp.MustCompile(`(?m)^func Test\w+`).FindAllString(string(text), -1), "\n") + "\n"
			}
		}
	}
	names := 0
	for pattern, there := range tests {
		for name := range strings.SplitSeq(pattern, "|") {
			if names++; !strings.Contains(there, name) {
				t.Errorf("the Makefile runs tests named %q, and there is none in the packages beside it", name)
			}
		}
	}
	if names < 20 {
		t.Errorf("only %d names were found", names)
	}
}

// TestWhatTheRaceDetectorLeavesOutRuns: a test that does less, or nothing, with the race detector is run by the Makefile
// without it.
func TestWhatTheRaceDetectorLeavesOutRuns(t *testing.T) {
	found := 0
	all := patterns(t)
	for _, files := range []string{"cmd/*/*_test.go", "internal/*/*_test.go", "internal/*/*/*_test.go"} {
		paths, err := filepath.Glob(filepath.Join(root, files))
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: %v", files, err)
		}
		for _, path := range paths {
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			dir, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				t.Fatal(err)
			}
			for _, declared := range file.Decls {
				test, ok := declared.(*ast.FuncDecl)
				if !ok || !mentions(test, "racedetector") {
					continue
				}
				found++
				if strings.HasPrefix(test.Name.Name, "Test") {
					if !slices.ContainsFunc(all[dir], func(pattern string) bool { return regexp.MustCompile(pattern).MatchString(test.Name.Name) }) {
						t.Errorf("%s does less with the race detector, and the Makefile does not run it in %s without", test.Name.Name, dir)
					}
				} else if len(all[dir]) == 0 { // tests call it
					t.Errorf("%s does less with the race detector, and the Makefile runs no test in %s without", test.Name.Name, dir)
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d were found", found)
	}
}

// mentions reports whether a package is used in a function.
func mentions(f *ast.FuncDecl, name string) (used bool) {
	ast.Inspect(f, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if ok {
			x, ok := selector.X.(*ast.Ident)
			used = used || ok && x.Name == name
		}
		return !used
	})
	return used
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
