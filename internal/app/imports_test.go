package app_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// module is the prefix of our own packages.
const module = "rotatord/"

// goPackage is what the test needs to know about a package. Imports are those outside of tests.
type goPackage struct {
	ImportPath string
	Imports    []string
	Standard   bool
}

// list asks the go command for packages and everything that they depend on, by import path.
func list(t *testing.T, patterns ...string) map[string]goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-deps", "-json=ImportPath,Imports,Standard"}, patterns...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, stderr.String())
	}
	all := map[string]goPackage{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
	}
}

// allowed is the whole picture: which of our packages each package may import outside of tests. A package
// that is missing here fails the test, so that its author decides where it belongs.
var allowed = map[string][]string{
	// The core imports no adapter.
	"internal/secret":           {},
	"internal/event":            {"internal/patience"},
	"internal/printable":        {"internal/secret"},
	"internal/logqueue":         {"internal/patience"},
	"internal/patience":         {},
	"internal/scheduler":        {},
	"internal/failpoint":        {},
	"internal/harden":           {},
	"internal/durable":          {},
	"internal/smallfile":        {},
	"internal/connlimit":        {},
	"internal/ownpath":          {},
	"internal/rotation":         {"internal/event", "internal/failpoint", "internal/moment", "internal/scheduler", "internal/secret"},
	"internal/moment":           {},
	"internal/packed":           {},
	"internal/forecast":         {"internal/moment", "internal/printable", "internal/rotation", "internal/scheduler"},
	"internal/status":           {"internal/moment", "internal/printable"},
	"internal/precheck":         {"internal/moment", "internal/printable", "internal/rotation", "internal/status"},
	"internal/config/raw":       {},
	"internal/config":           {"internal/config/raw", "internal/printable", "internal/scheduler", "internal/secret", "internal/smallfile"},
	"internal/config/schemagen": {"internal/config/raw"},

	"internal/ageplugin":               {"internal/printable"},
	"internal/ageplugin/ageplugintest": {},

	// The limits for answers are the same for every peer.
	"internal/outbound": {"internal/printable", "internal/smallfile"},

	// Adapters import the core. A sink uses the one session with Vault.
	"internal/access":          append([]string{"internal/outbound"}, core...),
	"internal/admin":           append([]string{"internal/outbound", "internal/ownpath", "internal/status"}, core...),
	"internal/admission":       core,
	"internal/audit":           {"internal/durable", "internal/event", "internal/ownpath", "internal/printable", "internal/status"},
	"internal/cloudflare":      append([]string{"internal/admission", "internal/outbound", "internal/smallfile"}, core...),
	"internal/ledger":          append([]string{"internal/durable", "internal/ledger/boltfile", "internal/ownpath"}, core...),
	"internal/ledger/shared":   append([]string{"internal/durable", "internal/kvstore", "internal/ledger", "internal/pending"}, core...),
	"internal/ledger/transfer": append([]string{"internal/durable", "internal/kvstore", "internal/replica", "internal/smallfile"}, core...),
	"internal/pending":         append([]string{"internal/ageplugin", "internal/durable", "internal/ownpath", "internal/smallfile"}, core...),
	"internal/statedir":        append([]string{"internal/durable", "internal/ledger", "internal/ownpath", "internal/pending", "internal/smallfile"}, core...),
	"internal/kubernetes":      append([]string{"internal/outbound", "internal/smallfile"}, core...),
	"internal/vault":           append([]string{"internal/outbound", "internal/smallfile"}, core...),
	"internal/kvstore":         append([]string{"internal/vault"}, core...),
	"internal/replica":         append([]string{"internal/kvstore", "internal/status"}, core...),
	"internal/notify":          append([]string{"internal/durable", "internal/failpoint", "internal/kvstore", "internal/outbound", "internal/smallfile", "internal/status"}, core...),
	"internal/httpapi":         append([]string{"internal/outbound", "internal/status", "internal/webpage"}, core...),
	"internal/profile":         {"internal/connlimit", "internal/webpage"},
	"internal/webpage":         append([]string{"deploy", "docs", "internal/status"}, core...),
	"internal/sink":            append([]string{"internal/durable", "internal/failpoint", "internal/kubernetes", "internal/outbound", "internal/ownpath", "internal/smallfile", "internal/vault"}, core...),

	// Neither the check of a file's structure nor a test disk knows what the file contains.
	"internal/ledger/boltfile":  {},
	"internal/durable/disktest": {},
	"internal/racedetector":     {},

	// Doubles know nothing about the product except the type that keeps a secret from being printed. The
	// suites for sinks and ledgers have the core's types.
	"internal/cloudflare/cfsim":       {"internal/durable", "internal/secret"},
	"internal/cloudflare/openapitest": {"internal/secret"},
	"internal/vault/vaulttest":        {"internal/secret"},
	"internal/kubernetes/kubetest":    {"internal/secret"},
	"internal/webpage/webpagetest":    {"internal/status"},
	"internal/sink/sinktest":          append([]string{"internal/kubernetes/kubetest"}, core...),
	"internal/kvstore/kvtest":         append([]string{"internal/kvstore"}, core...),
	"internal/ledger/ledgertest":      append([]string{"internal/ledger"}, core...),

	"internal/hook":   append([]string{"internal/failpoint", "internal/kubernetes", "internal/outbound"}, core...),
	"internal/doctor": append([]string{"internal/ageplugin", "internal/audit", "internal/cloudflare", "internal/hook", "internal/kubernetes", "internal/kvstore", "internal/ledger/transfer", "internal/ownpath", "internal/sink", "internal/status", "internal/vault"}, core...),
	"internal/app": append([]string{"internal/access", "internal/admin", "internal/admission", "internal/audit", "internal/cloudflare", "internal/connlimit", "internal/doctor", "internal/forecast", "internal/hook", "internal/httpapi", "internal/kubernetes", "internal/kvstore", "internal/ledger", "internal/ledger/shared", "internal/ledger/transfer", "internal/notify",
		"internal/packed", "internal/pending", "internal/precheck", "internal/replica", "internal/sink", "internal/smallfile", "internal/statedir", "internal/status", "internal/vault", "internal/webpage"}, core...),
	// The drill runs the whole daemon with the doubles.
	"internal/drill": append([]string{"internal/app", "internal/cloudflare/cfsim", "internal/httpapi", "internal/kubernetes", "internal/kubernetes/kubetest", "internal/sink", "internal/statedir", "internal/status",
		"internal/vault/vaulttest"}, core...),
	"deploy/prometheus": {},
	"docs":              {}, // the documents, which the binary serves
	"deploy":            {}, // and the guides
	"cmd/rotatord": append([]string{"deploy", "deploy/prometheus", "docs", "internal/admin", "internal/app", "internal/audit", "internal/cloudflare", "internal/cloudflare/cfsim", "internal/doctor", "internal/drill", "internal/durable", "internal/forecast", "internal/harden", "internal/hook", "internal/httpapi", "internal/kvstore", "internal/ledger", "internal/ledger/shared", "internal/ledger/transfer", "internal/logqueue", "internal/notify",
		"internal/ownpath", "internal/pending", "internal/profile", "internal/smallfile", "internal/statedir", "internal/status", "internal/vault", "internal/vault/vaulttest", "internal/webpage"}, core...),
}

var core = []string{"internal/config", "internal/event", "internal/moment", "internal/printable", "internal/rotation", "internal/scheduler", "internal/secret"}

func TestImports(t *testing.T) {
	found := 0
	for path, p := range list(t, module+"...") {
		name, ours := strings.CutPrefix(path, module)
		if !ours {
			continue
		}
		found++
		may, known := allowed[name]
		if !known {
			t.Errorf("%s is not in the picture: say what it may import", name)
		}
		for _, imported := range p.Imports {
			if target, ours := strings.CutPrefix(imported, module); ours && !slices.Contains(may, target) {
				t.Errorf("%s must not import %s", name, target)
			}
		}
	}
	if found < len(allowed) {
		t.Errorf("only %d of %d packages were found", found, len(allowed))
	}
}

// TestDaemonIsLean checks that the released binary links only what it needs.
func TestDaemonIsLean(t *testing.T) {
	deps := list(t, module+"cmd/rotatord")
	// These must be there, or the test looks at the wrong binary.
	for _, needed := range []string{
		module + "internal/app", "github.com/hashicorp/vault/api", "github.com/hashicorp/vault/api/auth/approle",
		"github.com/cloudflare/cloudflare-go/v7/zero_trust", "go.etcd.io/bbolt", "net/http",
	} {
		if _, ok := deps[needed]; !ok {
			t.Errorf("%s is not linked in: does this test look at the right binary?", needed)
		}
	}
	for path := range deps {
		switch {
		case path == "testing", strings.HasPrefix(path, "testing/"):
			t.Errorf("%s is linked in: test code is in the product", path)
		case path == "github.com/cloudflare/cloudflare-go/v7":
			t.Errorf("the SDK's root package is linked in, and with it every Cloudflare product")
		case strings.HasPrefix(path, "github.com/hashicorp/vault/") && !vaultClient(path):
			t.Errorf("%s is linked in: of Vault only its client may be, all else is under another licence", path)
		case path == "github.com/hashicorp/vault",
			strings.HasPrefix(path, "k8s.io/kubernetes/"), strings.HasPrefix(path, "k8s.io/apiserver/"), strings.HasPrefix(path, "go.etcd.io/etcd/"),
			strings.HasPrefix(path, "github.com/invopop/jsonschema"),
			strings.HasPrefix(path, "github.com/getkin/kin-openapi"),
			strings.HasPrefix(path, "github.com/rogpeppe/"),
			strings.HasPrefix(path, "github.com/google/go-cmp"),
			strings.HasPrefix(path, "pgregory.net/rapid"):
			t.Errorf("%s is linked in: it is a tool", path)
		}
	}
}

// vaultClient reports whether a package of Vault belongs to the API client or one of its login methods.
func vaultClient(path string) bool {
	return path == "github.com/hashicorp/vault/api" || strings.HasPrefix(path, "github.com/hashicorp/vault/api/auth/")
}
