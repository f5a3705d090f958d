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

// noImports is an importer that fails. These tests need only the types that this package declares.
type noImports struct{}

func (noImports) Import(string) (*types.Package, error) { return nil, errors.New("not needed") }

// source parses the package without its tests, and checks its types.
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

// nameOf returns the name of a type of this package, also for a pointer to it; empty for other types.
func nameOf(t types.Type) string {
	if p, ok := t.(*types.Pointer); ok {
		t = p.Elem()
	}
	if n, ok := t.(*types.Named); ok {
		return n.Obj().Name()
	}
	return ""
}

// partsOfRecord are the types that make up a record.
var partsOfRecord = []string{
	"Record", "Work", "Doubt", "Lost", "Order", "Overtaken", "Verification", "Replaced", "Done", "Renewal", "Written", "Finding", "Restoring", "RefusedInUse", "After", "OwedHook",
}

// TestOnlyTransitionsWriteRecords checks the promise of transition.go: no other code changes a record. So the caller
// uses the next record only after it is saved, and there is nothing to roll back.
func TestOnlyTransitionsWriteRecords(t *testing.T) {
	transitions := []string{"transition.go", "transition_token.go", "heal.go", "record.go", "transition_watch.go", "transition_overtaken.go", "transition_after.go", "inplace.go", "pair.go", "fresh.go"}
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
	for _, file := range transitions[:3] { // otherwise this test does not work
		if writes[file] == 0 {
			t.Errorf("this test does not see that %s writes records", file)
		}
	}
}

// TestStrategiesKnowTheirOwnFields checks that only the strategies read the fields that distinguish them. Other code
// asks the strategy.
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
					t.Errorf("%s reads %s: ask the strategy instead", fset.Position(x.Pos()), types.ExprString(x))
				}
			}
			return true
		})
	}
	for name := range own {
		if !seen[name] {
			t.Errorf("this test does not see that a strategy reads %s", name)
		}
	}
}

// TestAttemptStaysSmall limits the methods of attempt. The methods that operators, listings and chores need belong to
// entry.
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
