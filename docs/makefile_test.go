package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// testRun is a run of tests of the product that the Makefile has: those with a name that matches, in some packages.
type testRun struct {
	pattern string
	dirs    []string
}

// testRuns reads them in the Makefile.
func testRuns(t *testing.T) (all []testRun) {
	t.Helper()
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range regexp.MustCompile(`(?m)^\tgo test .*-run '?([\w|]+)'?((?: \./[\w/]+)+)`).FindAllStringSubmatch(string(makefile), -1) {
		run := testRun{pattern: line[1]}
		for dir := range strings.FieldsSeq(line[2]) {
			run.dirs = append(run.dirs, filepath.Clean(dir))
		}
		all = append(all, run)
	}
	return all
}

// functions returns the functions of the tests in a package, by name.
func functions(t *testing.T, dir string) map[string]*ast.FuncDecl {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*ast.FuncDecl{}
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, declared := range file.Decls {
			if f, ok := declared.(*ast.FuncDecl); ok && f.Recv == nil {
				all[f.Name.Name] = f
			}
		}
	}
	return all
}

// TestMakefileNamesTests: each name in a pattern of tests that the Makefile runs is part of the name of a test in the packages
// beside it. `go test -run` is content with a pattern that matches nothing.
func TestMakefileNamesTests(t *testing.T) {
	names := 0
	for _, run := range testRuns(t) {
		var tests []string
		for _, dir := range run.dirs {
			tests = slices.AppendSeq(tests, maps.Keys(functions(t, dir)))
		}
		for name := range strings.SplitSeq(run.pattern, "|") {
			names++
			if !slices.ContainsFunc(tests, func(test string) bool { return strings.HasPrefix(test, "Test") && strings.Contains(test, name) }) {
				t.Errorf("the Makefile runs tests named %q in %v, and there is none", name, run.dirs)
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
	dirs := map[string]bool{}
	for _, top := range []string{"cmd", "internal"} {
		if err := filepath.WalkDir(filepath.Join(root, top), func(path string, _ fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, "_test.go") {
				path, err = filepath.Rel(root, filepath.Dir(path))
				dirs[path] = true
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	runs, found := testRuns(t), 0
	for dir := range dirs {
		all := functions(t, dir)
		// What mentions it, and then what calls that.
		less := map[string]bool{"racedetector": true}
		for before := 0; before < len(less); {
			before = len(less)
			for name, f := range all {
				less[name] = less[name] || mentions(f, less)
			}
			maps.DeleteFunc(less, func(_ string, does bool) bool { return !does })
		}
		for name := range less {
			if !strings.HasPrefix(name, "Test") {
				continue
			}
			found++
			if !slices.ContainsFunc(runs, func(r testRun) bool {
				return slices.Contains(r.dirs, dir) && regexp.MustCompile(r.pattern).MatchString(name)
			}) {
				t.Errorf("%s in %s does less with the race detector, and the Makefile does not run it without", name, dir)
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d were found", found)
	}
}

// mentions reports whether one of some names is used in a function.
func mentions(f *ast.FuncDecl, names map[string]bool) (used bool) {
	ast.Inspect(f.Body, func(n ast.Node) bool {
		if name, ok := n.(*ast.Ident); ok {
			used = used || names[name.Name]
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
