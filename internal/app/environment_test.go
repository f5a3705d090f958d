package app_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// computed are reads of variables whose names are computed: the names by package and expression.
var computed = map[string][]string{
	"rotatord/internal/config name":                             {},                                            // variables that the configuration names
	"rotatord/internal/ageplugin name":                          {"PATH", "HOME", "TMPDIR", "XDG_RUNTIME_DIR"}, // what the program of an age plugin gets
	"rotatord/internal/outbound name":                           {"HTTPS_PROXY", "https_proxy"},
	"rotatord/internal/outbound proxyVariable()":                {"HTTPS_PROXY", "https_proxy"},
	"github.com/hashicorp/go-secure-stdlib/parseutil envKey":    {}, // in ParsePath, which is never called
	"github.com/hashicorp/vault/api/auth/approle a.secretIDEnv": {}, // rotatord passes the value itself
	"golang.org/x/net/http/httpproxy n":                         {"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"},
	"vendor/golang.org/x/net/http/httpproxy n":                  {"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"},
	"github.com/spf13/cobra activeHelpGlobalEnvVar":             {"COBRA_ACTIVE_HELP"},
	"github.com/spf13/cobra activeHelpEnvVar()":                 {"ROTATORD_ACTIVE_HELP"},
	"github.com/spf13/cobra configEnvVar()":                     {"ROTATORD_COMPLETION_DESCRIPTIONS", "COBRA_COMPLETION_DESCRIPTIONS"},
	"os key":                                                    {}, // os.Getenv itself
	"os name":                                                   {},
	"os env":                                                    {"HOME", "home"}, // os.UserHomeDir
	"internal/testlog name":                                     {},
	"golang.org/x/sys/unix key":                                 {},
	"runtime key":                                               {},
	"google.golang.org/protobuf/reflect/protoregistry env":      {"GOLANG_PROTOBUF_REGISTRATION_CONFLICT"},
}

// TestEnvironmentIsDocumented compares docs/environment.md with every variable that the source of the binary
// reads, including Go itself and the libraries.
func TestEnvironmentIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/environment.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := regexp.MustCompile("`([A-Za-z0-9_]+)`").FindAllStringSubmatch(string(doc), -1)
	known := func(name string) bool {
		return slices.ContainsFunc(documented, func(m []string) bool { return m[1] == name })
	}
	read := environmentRead(t)
	for name, where := range read {
		if !known(name) {
			t.Errorf("%s is read by %s, and is not in docs/environment.md", name, where)
		}
		// The variables of Vault's library are hidden from it: see the tests of internal/vault and
		// internal/doctor.
		if strings.HasPrefix(name, "VAULT_") && where != "rotatord/cmd/rotatord" && where != "github.com/hashicorp/vault/api" || strings.HasPrefix(name, "CLOUDFLARE_") || strings.HasPrefix(name, "CF_") {
			t.Errorf("%s is read by %s: the configuration alone must decide", name, where)
		}
	}
	for _, must := range []string{"VAULT_ADDR", "HTTPS_PROXY", "SSL_CERT_FILE", "GODEBUG", "NOTIFY_SOCKET", "BBOLT_VERIFY"} {
		if _, ok := read[must]; !ok {
			t.Errorf("%s is not found: does this test look at the right source?", must)
		}
	}
}

// environmentRead returns the variables that linked code reads, each with a package that does.
func environmentRead(t *testing.T) map[string]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{.ImportPath}}\t{{.Dir}}\t{{range .GoFiles}}{{.}} {{end}}", "rotatord/cmd/rotatord")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as in a release
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	read := map[string]string{}
	for line := range strings.Lines(string(out)) {
		parts := strings.Split(strings.TrimSpace(line), "\t")
		if len(parts) < 3 {
			continue
		}
		for file := range strings.FieldsSeq(parts[2]) {
			source, err := os.ReadFile(filepath.Join(parts[1], file))
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(source, []byte("etenv(")) || bytes.Contains(source, []byte("LookupEnv(")) {
				readsOf(t, parts[0], parts[1], source, read)
			}
		}
	}
	return read
}

// readsOf adds the variables that one file reads.
func readsOf(t *testing.T, pkg, dir string, source []byte, read map[string]string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "", source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) != 1 || !slices.Contains([]string{"Getenv", "LookupEnv", "gogetenv"}, calledName(call.Fun)) {
			return true
		}
		switch arg := call.Args[0].(type) {
		case *ast.BasicLit:
			name, err := strconv.Unquote(arg.Value)
			if err != nil {
				t.Fatal(err)
			}
			read[name] = pkg
			return true
		case *ast.Ident:
			if value := constant(t, dir, arg.Name); value != "" {
				read[value] = pkg
				return true
			}
		}
		expression := calledName(call.Args[0])
		if inner, ok := call.Args[0].(*ast.CallExpr); ok {
			expression = calledName(inner.Fun) + "()"
		} else if s, ok := call.Args[0].(*ast.SelectorExpr); ok {
			expression = calledName(s.X) + "." + s.Sel.Name
		}
		names, ok := computed[pkg+" "+expression]
		if !ok {
			t.Errorf("%s reads a variable whose name it computes (%s): find out which, and add it here and to docs/environment.md", pkg, expression)
		}
		for _, name := range names {
			read[name] = pkg
		}
		return true
	})
}

func calledName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return "?"
}

// constant returns the value of a string constant of a package, empty if there is none.
func constant(t *testing.T, dir, name string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	declared := regexp.MustCompile(`(?m)^(?:const)?\s*` + regexp.QuoteMeta(name) + `\s*=\s*"([A-Za-z0-9_]+)"`)
	for _, path := range files {
		if source, err := os.ReadFile(path); err == nil && !strings.HasSuffix(path, "_test.go") {
			if m := declared.FindSubmatch(source); m != nil {
				return string(m[1])
			}
		}
	}
	return ""
}
