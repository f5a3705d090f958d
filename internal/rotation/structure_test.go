package rotation_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// noImports leaves imported packages untyped. What this test looks at is declared in this one.
type noImports struct{}

func (noImports) Import(string) (*types.Package, error) { return nil, errors.New("not needed") }

// source parses and checks the package as it is outside of tests.
func source(t *testing.T) (*token.FileSet, map[string]*ast.File, *types.Info) {
	t.Helper()
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	fset, files := token.NewFileSet(), map[string]*ast.File{}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		if files[path], err = parser.ParseFile(fset, path, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	var all []*ast.File
	for _, f := range files {
		all = append(all, f)
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: noImports{}, Error: func(error) {}}
	_, _ = config.Check("rotation", fset, all, info) // the imports are missing
	return fset, files, info
}

// nameOf is the name of a type of this package, or of what a pointer points to; empty for others.
func nameOf(t types.Type) string {
	if p, ok := t.(*types.Pointer); ok {
		t = p.Elem()
	}
	if n, ok := t.(*types.Named); ok {
		return n.Obj().Name()
	}
	return ""
}

// partsOfRecord are the types of which a record consists.
var partsOfRecord = []string{
	"Record", "Work", "Doubt", "Lost", "Order", "Overtaken", "Verification", "Replaced", "Done", "Renewal",
}

// TestOnlyTransitionsWriteRecords holds what transition.go promises: no other code changes a record that
// it was given. A record that is only changed by transitions can be adopted after it is saved, and nothing
// has to be rolled back.
func TestOnlyTransitionsWriteRecords(t *testing.T) {
	transitions := []string{"transition.go", "transition_token.go", "heal.go", "record.go", "inplace.go", "pair.go", "fresh.go"}
	fset, files, info := source(t)
	writes := map[string]int{}
	check := func(file string, e ast.Expr) {
		for {
			switch x := e.(type) {
			case *ast.SelectorExpr:
				if tv, ok := info.Types[x.X]; ok && slices.Contains(partsOfRecord, nameOf(tv.Type)) {
					if writes[file]++; !slices.Contains(transitions, file) {
						t.Errorf("%s writes %s: only transitions change a record, by returning the next one", fset.Position(x.Pos()), types.ExprString(x))
					}
					return
				}
				e = x.X
			case *ast.IndexExpr:
				e = x.X
			case *ast.StarExpr:
				e = x.X
			case *ast.ParenExpr:
				e = x.X
			default:
				return
			}
		}
	}
	for path, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				for _, left := range n.Lhs {
					check(path, left)
				}
			case *ast.IncDecStmt:
				check(path, n.X)
			}
			return true
		})
	}
	for _, file := range transitions[:3] { // else the test sees nothing
		if writes[file] == 0 {
			t.Errorf("%s writes no record, says this test", file)
		}
	}
}

// TestStrategiesKnowTheirOwnFields holds that what tells the kinds of rotation apart is asked in the
// strategies alone: other code asks the strategy.
func TestStrategiesKnowTheirOwnFields(t *testing.T) {
	own := map[string][]string{
		"CreateName": {"fresh.go", "strategy.go"},
		"Spare":      {"pair.go", "strategy.go"},
	}
	fset, files, info := source(t)
	seen := map[string]bool{}
	for path, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			x, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			tv, ok := info.Types[x.X]
			if !ok || !slices.Contains([]string{"Record", "Work"}, nameOf(tv.Type)) {
				return true
			}
			if where, ok := own[x.Sel.Name]; ok {
				if seen[x.Sel.Name] = true; !slices.Contains(where, path) {
					t.Errorf("%s asks for %s: ask the strategy instead", fset.Position(x.Pos()), types.ExprString(x))
				}
			}
			return true
		})
	}
	for name := range own {
		if !seen[name] {
			t.Errorf("no strategy knows %s, says this test", name)
		}
	}
}

// TestAttemptStaysSmall holds that the attempt does not become the receiver of everything again: what an
// operator, a listing or a chore does belongs to the entry.
func TestAttemptStaysSmall(t *testing.T) {
	const most = 45
	_, files, _ := source(t)
	methods := 0
	for _, f := range files {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv != nil && strings.TrimPrefix(types.ExprString(fn.Recv.List[0].Type), "*") == "attempt" {
				methods++
			}
		}
	}
	if methods == 0 || methods > most {
		t.Errorf("attempt has %d methods, want 1 to %d", methods, most)
	}
}
