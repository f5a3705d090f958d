package durable_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// writers are the functions of package os that create, replace or change files.
var writers = []string{"Create", "CreateTemp", "OpenFile", "Rename", "WriteFile", "Truncate", "Link", "Symlink"}

// exceptions are the files that may call them, with the reason.
var exceptions = map[string]string{
	"internal/durable/durable.go":                       "this package",
	"internal/durable/disktest/disktest.go":             "a test disk",
	"internal/audit/files.go":                           "opens for reading",
	"internal/audit/recorder.go":                        "lines are appended to a file, and its head is overwritten in place",
	"internal/audit/start.go":                           "files that are full get another name",
	"internal/ledger/ledger.go":                         "bbolt writes the file that is renamed",
	"internal/pending/pending.go":                       "Seal overwrites reserved space in place",
	"internal/statedir/moved.go":                        "bbolt writes the file that gets a name",
	"internal/statedir/lost.go":                         "whole directories are moved aside",
	"internal/smallfile/smallfile.go":                   "opens for reading",
	"internal/doctor/service_linux.go":                  "opens for reading",
	"internal/sink/file.go":                             "opens for reading",
	"internal/sink/file_linux.go":                       "opens for reading, and tries whether a file could be created",
	"internal/config/schemagen/main.go":                 "a generator",
	"internal/ageplugin/ageplugintest/ageplugintest.go": "a program of a test",
	"internal/drill/stage.go":                           "files of a rehearsal, which end with it",
	"internal/drill/gates.go":                           "a directory of a rehearsal is moved away",
	"cmd/rotatord/man.go":                               "pages of a package, made by a build that is not shipped",
	"cmd/rotatord/demo.go":                              "files of a demonstration, which end with it",
}

// TestEveryWriteIsDurable checks that the product writes files only with this package or bbolt.
func TestEveryWriteIsDurable(t *testing.T) {
	found := map[string]bool{}
	for _, dir := range []string{"internal", "cmd"} {
		err := filepath.WalkDir(filepath.Join("..", "..", dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			name := filepath.ToSlash(strings.TrimPrefix(path, filepath.Join("..", "..")+string(filepath.Separator)))
			ast.Inspect(file, func(n ast.Node) bool {
				call, ok := n.(*ast.SelectorExpr)
				if !ok || !slices.Contains(writers, call.Sel.Name) {
					return true
				}
				if pkg, ok := call.X.(*ast.Ident); ok && pkg.Name == "os" {
					found[name] = true
					if exceptions[name] == "" {
						t.Errorf("%s calls os.%s: use package durable, or say here why not", name, call.Sel.Name)
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name := range exceptions {
		if !found[name] {
			t.Errorf("%s is an exception and writes nothing: remove it from the list", name)
		}
	}
}
