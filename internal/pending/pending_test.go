package pending_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/statedir"
)

// The tests open a whole state directory: a ledger says which rotations are unfinished.

const canary = "cfast_CANARYcanaryCANARYcanaryCANARYcanary0123deadbeef"

var issued = rotation.Issued{
	Credential:  rotation.Credential{ClientID: "id.access", ClientSecret: secret.New(canary)},
	Facts:       rotation.TokenFacts{ID: "uuid", ClientID: "id.access", UpdatedAt: time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)},
	GraceEndsAt: time.Date(2026, 11, 24, 4, 0, 0, 0, time.UTC),
}

func open(t *testing.T, o statedir.Options) *statedir.Dir {
	t.Helper()
	d, err := statedir.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func stateDir(t *testing.T) string { return filepath.Join(t.TempDir(), "state") }

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
