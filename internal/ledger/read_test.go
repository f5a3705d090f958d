package ledger

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"rotatord/internal/rotation"
)

// fleet returns a ledger with n tokens. A rotation of every tenth is in progress, and the others say so in a text.
func fleet(t *testing.T, n int) (l *Local, saved []rotation.Record) {
	t.Helper()
	l, err := OpenLocal(filepath.Join(t.TempDir(), FileName), LocalOptions{New: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	all := make([]rotation.Record, n)
	for i := range all {
		all[i] = rotation.Record{Format: rotation.RecordFormat, Token: fmt.Sprintf("token-%05d", i), Account: "prod", Anchor: time.Now().UTC().Round(0), LastError: `it answered {"step":"sealed"}`}
		if i%10 == 0 {
			all[i].Step, all[i].Work = rotation.StepSealed, &rotation.Work{RotationID: fmt.Sprint("R", i)}
		}
	}
	if saved, err = l.SaveAll(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	return l, saved
}

func names(all []rotation.Record) (names []string) {
	for _, r := range all {
		names = append(names, r.Token)
	}
	return names
}

// TestReadsOfAFleet: each way to read many records returns what Load and All return, and decodes only what is asked for.
func TestReadsOfAFleet(t *testing.T) {
	for _, n := range []int{50, 200} {
		l, saved := fleet(t, n)
		decodes := func(want int, what string) {
			t.Helper()
			if got := l.decoded.Swap(0); got != int64(want) {
				t.Errorf("%s of %d tokens: %d records were decoded, want %d", what, n, got, want)
			}
		}
		decodes(0, "saving")

		some, err := l.LoadAll(t.Context(), []string{saved[7].Token, "none", saved[0].Token})
		if want := []rotation.Record{saved[7], {}, saved[0]}; err != nil || !cmp.Equal(some, want) {
			t.Errorf("LoadAll: %v, %v", err, cmp.Diff(want, some))
		}
		l.decoded.Store(0)

		unfinished, err := l.Unfinished(t.Context())
		want := slices.DeleteFunc(slices.Clone(saved), func(r rotation.Record) bool { return r.Step == rotation.StepIdle })
		if err != nil || !cmp.Equal(unfinished, want) {
			t.Errorf("Unfinished: %v, %v", err, cmp.Diff(want, unfinished))
		}
		decodes(n/10, "Unfinished")

		wanted := map[string]bool{saved[3].Token: true, saved[9].Token: true, "none": true}
		var each []rotation.Record
		err = l.Each(t.Context(), func(token string) bool { return wanted[token] }, func(r rotation.Record) { each = append(each, r) })
		if err != nil || !cmp.Equal(each, []rotation.Record{saved[3], saved[9]}) {
			t.Errorf("Each: %v, %v", err, names(each))
		}
		decodes(2, "Each")

		if _, err := l.SaveAll(t.Context(), saved); err != nil {
			t.Error(err)
		}
		decodes(0, "saving them again")
	}
}

// TestReadsFindDamage: a record that is not asked for, but is damaged, is an error too.
func TestReadsFindDamage(t *testing.T) {
	l, saved := fleet(t, 20)
	err := l.db.Update(func(tx *bbolt.Tx) error {
		key := []byte(saved[5].Token)
		value := slices.Clone(tx.Bucket(ledgerBucket).Get(key))
		value[len(value)-3] ^= 1
		return tx.Bucket(ledgerBucket).Put(key, value)
	})
	if err != nil {
		t.Fatal(err)
	}
	_, unfinishedErr := l.Unfinished(t.Context())
	_, saveErr := l.Save(t.Context(), saved[5])
	_, loadErr := l.LoadAll(t.Context(), names(saved))
	for what, err := range map[string]error{
		"Unfinished": unfinishedErr, "Save": saveErr, "LoadAll": loadErr,
		"Each": l.Each(t.Context(), func(string) bool { return false }, func(rotation.Record) {}),
	} {
		if err == nil || !strings.Contains(err.Error(), "the ledger record of "+saved[5].Token) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestRevisionOf: the revision of a value is that of its record, whoever wrote the value.
func TestRevisionOf(t *testing.T) {
	r := rotation.Record{Format: rotation.RecordFormat, Revision: 12345678901, Token: "ci", Anchor: time.Now()}
	ours, err := encodeRecord(r)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(ours[checksumSize:], &fields); err != nil {
		t.Fatal(err)
	}
	fields["revision"] = 12345678901
	sorted, err := json.Marshal(fields) // as an editor may have left it: in another order
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string][]byte{
		"ours": ours, "in another order": withChecksum(sorted), "with spaces": withChecksum([]byte(`{"format": 3, "revision": 12345678901, "token": "ci"}`)),
		"old": withChecksum([]byte(`{"format":1,"revision":12345678901,"token":"ci"}`)),
	} {
		if got, err := revisionOf("ci", value); got != r.Revision || err != nil {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
	for name, value := range map[string][]byte{
		"of another token": withChecksum([]byte(`{"format":3,"revision":1,"token":"other"}`)), "newer": withChecksum([]byte(`{"format":99,"revision":1,"token":"ci"}`)),
		"no number": withChecksum([]byte(`{"format":3,"revision":"x","token":"ci"}`)),
	} {
		if _, err := revisionOf("ci", value); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if got, err := revisionOf("ci", nil); got != 0 || err != nil {
		t.Errorf("nil: %d, %v", got, err)
	}
}
