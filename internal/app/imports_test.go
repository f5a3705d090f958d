package app_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "rotatord/"

// mayImport lists, for each room, which other rooms its code may import. Tests are free.
var mayImport = map[string][]string{
	"internal/secret":                 {},
	"internal/scheduler":              {},
	"internal/config":                 {"internal/secret", "internal/scheduler", "internal/config/raw"},
	"internal/config/raw":             {},
	"internal/config/schemagen":       {"internal/config/raw"},
	"internal/rotation":               {"internal/secret", "internal/scheduler"},
	"internal/journal":                {"internal/rotation", "internal/secret"},
	"internal/cloudflare":             {"internal/rotation", "internal/secret", "internal/config"},
	"internal/cloudflare/cfsim":       {"internal/secret"},
	"internal/cloudflare/openapitest": {"internal/secret"},
	"internal/vault":                  {"internal/secret", "internal/config"},
	"internal/vault/vaulttest":        {},
	"internal/sink":                   {"internal/rotation", "internal/secret", "internal/config", "internal/vault"},
	"internal/sink/sinktest":          {"internal/rotation", "internal/secret"},
	"internal/httpapi":                {"internal/rotation"},
	"internal/app": {
		"internal/cloudflare", "internal/config", "internal/httpapi", "internal/journal",
		"internal/rotation", "internal/scheduler", "internal/sink", "internal/vault",
	},
	"cmd/rotatord": {
		"internal/app", "internal/config", "internal/httpapi", "internal/journal", "internal/rotation", "internal/scheduler", "internal/secret",
		"internal/cloudflare/cfsim", "internal/vault/vaulttest", // sim and demo
	},
}

func goList(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// TestImports holds the one direction in which data flows.
func TestImports(t *testing.T) {
	seen := map[string]bool{}
	for _, line := range goList(t, "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...") {
		fields := strings.Fields(line)
		room, ok := strings.CutPrefix(fields[0], module)
		allowed, known := mayImport[room]
		if !ok || !known {
			t.Errorf("the package %s has no place in the list of who may import whom", fields[0])
			continue
		}
		seen[room] = true
		for _, imported := range fields[1:] {
			if ours, ok := strings.CutPrefix(imported, module); ok && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s", room, ours)
			}
		}
	}
	for room := range mayImport {
		if !seen[room] {
			t.Errorf("the list names %s, which is no package", room)
		}
	}
}

// TestBinary holds what is not linked into what we ship.
func TestBinary(t *testing.T) {
	dependencies := goList(t, "-deps", "./cmd/rotatord")
	if len(dependencies) < 100 {
		t.Fatalf("only %d dependencies: this proves nothing", len(dependencies))
	}
	for _, d := range dependencies {
		switch {
		case d == "github.com/cloudflare/cloudflare-go/v7":
			t.Errorf("%s pulls in every Cloudflare product", d)
		case strings.HasPrefix(d, "github.com/hashicorp/vault/") && !strings.HasPrefix(d, "github.com/hashicorp/vault/api"):
			t.Errorf("%s is under the BUSL, and for tests only", d)
		case strings.HasPrefix(d, "github.com/invopop/jsonschema"), strings.HasPrefix(d, "github.com/getkin/"), d == "testing":
			t.Errorf("%s is for tests and generators only", d)
		}
	}
}
