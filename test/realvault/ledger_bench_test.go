package realvault_test

import (
	"fmt"
	"testing"
	"time"

	"rotatord/internal/kvstore"
	"rotatord/internal/ledger/shared"
	"rotatord/internal/rotation"
	"rotatord/test/realvault"
)

// BenchmarkSharedLedger reads and saves 10,000 records in a real Vault.
func BenchmarkSharedLedger(b *testing.B) {
	const tokens = 10_000
	v := realvault.Start(b)
	v.MountKV(b, "secret", 2, false)
	roleID, secretID := v.AppRole(b, replicasPolicy(b), "1h", "2h")
	kv := kvstore.New(startSession(b, v.Address, roleID, secretID), "secret", "rotatord")
	open := func(process string) *shared.Ledger {
		return shared.Open(shared.Options{KV: kv, Replica: "a", Process: process})
	}
	records := make([]rotation.Record, tokens)
	for i := range records {
		at := time.Date(2026, 11, 29, 4, 0, 0, 0, time.UTC)
		records[i] = rotation.Record{Format: rotation.RecordFormat, Token: fmt.Sprintf("token-%05d", i), TokenID: "f174e90a-fafe-4643-bbbc-4a0ed4fc8415", Account: "prod",
			Anchor: at, Schedule: "0 4 * * 1 UTC", Last: &rotation.Done{RotationID: "01J00000000000000000000000", Trigger: rotation.TriggerSchedule, Slot: at, At: at, Digest: "0123456789abcdef", GraceEndsAt: at.Add(24 * time.Hour)},
			Written: map[string]rotation.Written{"vault:secret/access/ci": {}}, OwnUpdatedAt: at, MovedCount: 7}
	}
	first := open("first")
	began := time.Now()
	saved, err := first.SaveAll(b.Context(), records)
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("first saves of %d records: %s", tokens, time.Since(began).Round(time.Millisecond))
	b.Run("read all", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if all, err := open(fmt.Sprint(i)).All(b.Context()); err != nil || len(all) != tokens {
				b.Fatal(len(all), err)
			}
		}
	})
	b.Run("all from memory", func(b *testing.B) {
		if _, err := first.All(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if all, err := first.All(b.Context()); err != nil || len(all) != tokens {
				b.Fatal(len(all), err)
			}
		}
	})
	b.Run("save", func(b *testing.B) {
		r := saved[0]
		for b.Loop() {
			if r, err = first.Save(b.Context(), r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			if _, err := first.Load(b.Context(), saved[1].Token); err != nil {
				b.Fatal(err)
			}
		}
	})
}
