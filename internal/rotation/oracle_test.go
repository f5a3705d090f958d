package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"rotatord/internal/rotation"
)

// countingLedger counts the records that are read. Only All, Load and Save are used.
type countingLedger struct {
	rotation.Ledger
	records map[string]rotation.Record
	read    int
	fails   error
}

func (l *countingLedger) All(context.Context) (all []rotation.Record, err error) {
	for _, r := range l.records {
		l.read++
		all = append(all, r)
	}
	return all, l.fails
}

func (l *countingLedger) Load(_ context.Context, token string) (rotation.Record, error) {
	l.read++
	return l.records[token], l.fails
}

// save changes a record as a rotation does.
func (l *countingLedger) save(token, account string, moved, still int) rotation.Record {
	r := l.records[token]
	r.Token, r.Account, r.MovedCount, r.StillCount = token, account, moved, still
	r.Revision++
	l.records[token] = r
	return r
}

// trusted is the answer by its definition.
func (l *countingLedger) trusted(account string) bool {
	moved := 0
	for _, r := range l.records {
		if r.Account == account && r.StillCount > 0 {
			return false
		}
		if r.Account == account {
			moved += r.MovedCount
		}
	}
	return moved > 0
}

// TestOracleReadsEachRecordOnce: each of n tokens in doubt asks, and saves between its looks. The records are read once,
// and not once for each look.
func TestOracleReadsEachRecordOnce(t *testing.T) {
	for _, n := range []int{100, 400} {
		l := &countingLedger{records: map[string]rotation.Record{}}
		var o rotation.Oracle
		for i := range n {
			o.Note(l.save(fmt.Sprint(i), "prod", 1, 0))
		}
		for i := range n {
			if trusted, err := o.Trusted(t.Context(), "prod", l); err != nil || !trusted {
				t.Fatalf("trusted: %t, %v", trusted, err)
			}
			o.Note(l.save(fmt.Sprint(i), "prod", 2, 0))
		}
		if l.read != n {
			t.Errorf("%d tokens in doubt read %d records", n, l.read)
		}
	}
}

// TestOracleIsExact: whatever is saved, forgotten, moved to another account or not known to be saved, the answer is that of
// all records.
func TestOracleIsExact(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 1))
		l := &countingLedger{records: map[string]rotation.Record{}}
		var o rotation.Oracle
		for step := range 300 {
			token, account := fmt.Sprint("token-", random.IntN(6)), fmt.Sprint("account-", random.IntN(2))
			still := 0
			if random.IntN(8) == 0 {
				still = 1 + random.IntN(2)
			}
			switch random.IntN(6) {
			case 0: // its answer is lost
				o.Unsure(l.save(token, account, random.IntN(2), still))
			case 1: // it fails
				o.Unsure(l.records[token])
			case 2: // it is removed, and begins again
				delete(l.records, token)
				o.Forget(token)
				o.Note(l.save(token, account, random.IntN(2), still))
			default:
				before := l.records[token]
				o.Note(l.save(token, account, random.IntN(2), still))
				if before.Revision > 0 && random.IntN(4) == 0 {
					o.Note(before) // late
				}
			}
			if got, err := o.Trusted(t.Context(), account, l); err != nil || got != l.trusted(account) {
				t.Fatalf("seed %d, step %d: trusted %t, %v", seed, step, got, err)
			}
		}
	}
}

// TestOracleThatCannotReadIsAnError: while a record cannot be read, nothing is trusted.
func TestOracleThatCannotReadIsAnError(t *testing.T) {
	l := &countingLedger{records: map[string]rotation.Record{}, fails: errors.New("no disk")}
	var o rotation.Oracle
	for _, at := range []string{"all", "one that may be saved"} {
		if _, err := o.Trusted(t.Context(), "prod", l); err == nil {
			t.Errorf("%s: no error", at)
		}
		l.fails = nil
		o.Note(l.save("ci", "prod", 1, 0))
		if trusted, err := o.Trusted(t.Context(), "prod", l); err != nil || !trusted {
			t.Errorf("%s: trusted %t, %v", at, trusted, err)
		}
		o.Unsure(l.save("ci", "prod", 1, 1))
		l.fails = errors.New("no disk")
	}
	l.fails = nil
	if trusted, err := o.Trusted(t.Context(), "prod", l); err != nil || trusted {
		t.Errorf("a record that was saved although it failed: trusted %t, %v", trusted, err)
	}
}
