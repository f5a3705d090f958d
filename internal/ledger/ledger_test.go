package ledger_test

import (
	"path/filepath"
	"testing"
	"time"

	"rotatord/internal/ledger"
	"rotatord/internal/ledger/ledgertest"
	"rotatord/internal/ownpath"
)

func TestLocalLedger(t *testing.T) {
	ledgertest.Run(t, ledgertest.Kind{
		Atomic: true,
		New: func(t *testing.T) func() ledger.Ledger {
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
		},
	})
}
