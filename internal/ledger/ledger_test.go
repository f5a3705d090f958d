package ledger_test

import (
	"path/filepath"
	"testing"
	"time"

	"rotatord/internal/ledger"
	"rotatord/internal/ledger/ledgertest"
	"rotatord/internal/ownpath"
)

// kinds are all kinds of ledger. Each passes the same suite.
var kinds = map[string]ledgertest.Kind{
	"local": {New: newLocal, Atomic: true},
}

func TestKinds(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) { ledgertest.Run(t, kind) })
	}
}

func newLocal(t *testing.T) func() ledger.Ledger {
	path := filepath.Join(t.TempDir(), ledger.FileName)
	return func() ledger.Ledger {
		state, err := ledger.Examine(path, time.Second, ownpath.Check)
		if err != nil {
			t.Fatal(err)
		}
		l, err := ledger.OpenLocal(path, ledger.LocalOptions{Timeout: time.Second, New: state == ledger.Missing})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
}
