// Package transfer moves what a ledger holds to another ledger, by way of a file: from the local ledger of
// one daemon to the ledger that several replicas share, and back.
//
// Guarantees:
//
//   - Nothing moves while a rotation is in progress: its record belongs to a process.
//   - A file is used only if it is whole. One that is truncated, changed, of another program, or of a newer
//     version is an error, and nothing is written.
//   - An import replaces no record of a ledger that is in use, except one of a token that a daemon has enrolled
//     and never worked on. If the target holds another record of a token, nothing is written.
//   - An import that was interrupted is continued by repeating it. A ledger in a key-value store cannot save
//     all records or none, so the target holds a part of them until then.
//
// A file has no secret: a ledger has none. It has the names of the tokens and when they were rotated.
package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"rotatord/internal/rotation"
)

// Content is what a ledger holds.
type Content struct {
	// From is the ledger that it was read from, for people.
	From string
	// At is when it was read, and By the version of rotatord that read it.
	At time.Time
	By string

	Records []rotation.Record         // by the names of the tokens
	Pauses  map[string]rotation.Pause // by token; that of all tokens is under [rotation.AllTokens]
}

// Ledger is what is read from and written to.
type Ledger interface {
	rotation.Ledger
	LoadPauses(ctx context.Context) (map[string]rotation.Pause, error)
	// SavePauses replaces all pauses.
	SavePauses(ctx context.Context, all map[string]rotation.Pause) error
}

// Of returns what a ledger holds, in the form in which it is moved: a record loses its revision and its
// hold, which belong to the ledger that it was in.
func Of(from, by string, at time.Time, records []rotation.Record, pauses map[string]rotation.Pause) Content {
	c := Content{From: from, At: at.UTC().Truncate(time.Millisecond), By: by, Pauses: pauses}
	for _, r := range records {
		c.Records = append(c.Records, bare(r))
	}
	slices.SortFunc(c.Records, func(a, b rotation.Record) int { return strings.Compare(a.Token, b.Token) })
	return c
}

// bare returns a record without what belongs to the ledger that it is in.
func bare(r rotation.Record) rotation.Record {
	r.Revision, r.Hold = 0, nil
	return r
}

// same reports whether two records say the same.
func same(a, b rotation.Record) (bool, error) {
	first, err := json.Marshal(bare(a))
	if err != nil {
		return false, err
	}
	second, err := json.Marshal(bare(b))
	return bytes.Equal(first, second), err
}

// shownNames is how many tokens an error names at most.
const shownNames = 20

// ErrInProgress is the error about rotations in progress: each token with its step, and what to type.
type ErrInProgress struct {
	Where   string // what holds the records, such as a path
	Records []rotation.Record
}

// Error implements error.
func (e *ErrInProgress) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s has %d rotation(s) in progress, and a rotation does not move to another ledger:", e.Where, len(e.Records))
	for i, r := range e.Records {
		if i == shownNames {
			fmt.Fprintf(&b, "\nand %d more", len(e.Records)-i)
			break
		}
		fmt.Fprintf(&b, "\n%s: %s: %s", r.Token, r.Step, exitOf(r))
	}
	return b.String()
}

// exitOf says how a rotation in progress ends.
func exitOf(r rotation.Record) string {
	switch {
	case r.Step == rotation.StepInDoubt:
		return "start the daemon that has this ledger, and decide with rotatord resolve " + r.Token
	case r.Work != nil && r.Work.Overtaken != nil:
		return fmt.Sprintf("start the daemon that has this ledger, and decide with rotatord resolve %s --drop, --deliver or --rotate-now", r.Token)
	case r.Step == rotation.StepStored:
		return fmt.Sprintf("start the daemon that has this ledger, which ends it; if the new secret is not accepted, rotatord resolve %s says what to do", r.Token)
	}
	return fmt.Sprintf("start the daemon that has this ledger, and wait until rotatord status %s shows idle", r.Token)
}

// InProgress returns an [*ErrInProgress] if a rotation is in progress; else nil. where names what holds the
// records.
func InProgress(where string, records []rotation.Record) error {
	var busy []rotation.Record
	for _, r := range records {
		if r.Step != rotation.StepIdle || r.Work != nil || r.Doubt != nil {
			busy = append(busy, r)
		}
	}
	if len(busy) == 0 {
		return nil
	}
	slices.SortFunc(busy, func(a, b rotation.Record) int { return strings.Compare(a.Token, b.Token) })
	return &ErrInProgress{Where: where, Records: busy}
}

// Sealed returns the rotations that were given up with their answer sealed, by their IDs, with the names of
// their tokens. The sealed answers are files of the state directory that they came to, and do not move.
func (c Content) Sealed() map[string]string {
	all := make(map[string]string)
	for _, r := range c.Records {
		for _, id := range r.Abandoned {
			all[id] = r.Token
		}
	}
	return all
}

// Plan is what an import has to write.
type Plan struct {
	Ends
	records []rotation.Record         // that the target does not hold, or not so
	pauses  map[string]rotation.Pause // all, with those of the target; nil if nothing changes

	// Same is how many records the target holds already.
	Same int
	// New is how many records of further tokens are written, and Old how many replace one of a ledger that was out
	// of use.
	New, Old int
	// Begun are the names of the tokens that a daemon has only begun to know in the target. Their records
	// are replaced: nothing was ever done with them.
	Begun []string
	// Beside are the names of the tokens that the target holds and the file does not.
	Beside []string
}

// Ends are the two ends of an import.
type Ends struct {
	File string // names the file
	// Target is what is written to, and Where names it.
	Target Ledger
	Where  string
	// OutOfUse says that the target was exported, so that what it holds is in another file: records and pauses
	// that differ are replaced.
	OutOfUse bool
	// AtOnce says that the target saves all records or none.
	AtOnce bool
}

// Compare compares c with what a target holds, and changes nothing. It is an error if a rotation is in
// progress in one of them, or if the target is in use and holds another record or another pause.
func Compare(ctx context.Context, c Content, e Ends) (*Plan, error) {
	file, where, target := e.File, e.Where, e.Target
	if err := InProgress(file, c.Records); err != nil {
		return nil, err
	}
	held, err := target.All(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", where, err)
	}
	if err := InProgress(where, held); err != nil {
		return nil, err
	}
	p := &Plan{Ends: e}
	there := make(map[string]rotation.Record, len(held))
	for _, r := range held {
		there[r.Token] = r
	}
	var others []string
	for _, r := range c.Records {
		before, known := there[r.Token]
		delete(there, r.Token)
		equal, err := same(before, r)
		switch {
		case err != nil:
			return nil, err
		case known && equal:
			p.Same++
			continue
		case known && e.OutOfUse:
			p.Old++
		case known && !untouched(before):
			others = append(others, r.Token)
			continue
		case known:
			p.Begun = append(p.Begun, r.Token)
		default:
			p.New++
		}
		r.Revision = before.Revision
		p.records = append(p.records, r)
	}
	for token := range there {
		p.Beside = append(p.Beside, token)
	}
	slices.Sort(p.Beside)
	if len(others) > 0 {
		return nil, fmt.Errorf("%s holds other records of %s than %s: nothing was written. If the target is right, this file is not needed. "+
			"If the file is right, take the target out of use with rotatord ledger export, which keeps what it holds in a file", where, names(others), file)
	}
	return p, p.comparePauses(ctx, c)
}

// untouched reports whether nothing is known about a token but what Cloudflare shows: a daemon enrolled it,
// and did nothing with it.
func untouched(r rotation.Record) bool {
	return r.Last == nil && r.Step == rotation.StepIdle && r.Order == nil && r.Lost == nil && r.NextTrigger == "" && r.OldDiesBy.IsZero() &&
		r.Failures == 0 && len(r.Written) == 0 && len(r.Replaced) == 0 && len(r.Abandoned) == 0 && r.Outside.IsZero()
}

// names returns names in one text, but not more than a person reads.
func names(all []string) string {
	if len(all) <= shownNames {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:shownNames], ", "), len(all)-shownNames)
}

func (p *Plan) comparePauses(ctx context.Context, c Content) error {
	where := p.Where
	held, err := p.Target.LoadPauses(ctx)
	if err != nil {
		return fmt.Errorf("reading the pauses of %s: %w", where, err)
	}
	all := make(map[string]rotation.Pause, len(held)+len(c.Pauses))
	maps.Copy(all, held)
	changed := false
	if p.OutOfUse { // the pauses of a ledger that was out of use are old
		changed = len(held) != len(c.Pauses)
		clear(all)
	}
	for token, pause := range c.Pauses {
		before, known := held[token]
		equal := known && samePause(before, pause)
		ended := !before.Until.IsZero() && before.Until.Before(time.Now())
		if known && !equal && !ended && !p.OutOfUse {
			name, resume := token, token
			if token == rotation.AllTokens {
				name, resume = "all tokens", "--all"
			}
			return fmt.Errorf("%s has another pause of %s: nothing was written. Start a daemon on it, end that pause with rotatord resume %s, stop the daemon and import again",
				where, name, resume)
		}
		changed = changed || !equal
		all[token] = pause
	}
	if changed {
		p.pauses = all
	}
	return nil
}

func samePause(a, b rotation.Pause) bool {
	return a.Since.Equal(b.Since) && a.Until.Equal(b.Until) && a.Reason == b.Reason && a.By == b.By
}

// Records returns how many records are to be written.
func (p *Plan) Records() int { return len(p.records) }

// batch is how many records are saved at once, so that progress can be told and a stop is not late.
const batch = 64

// Write writes what Compare has found missing: first the pauses, so that a daemon which starts too early
// rotates nothing that is paused. It returns how many records it has written, also with an error. wrote is
// called after each batch.
func (p *Plan) Write(ctx context.Context, wrote func(done, all int)) (int, error) {
	if p.pauses != nil {
		if err := p.Target.SavePauses(ctx, p.pauses); err != nil {
			return 0, fmt.Errorf("saving what is paused: %w", err)
		}
	}
	done, size := 0, batch
	if p.AtOnce {
		size = max(1, len(p.records))
	}
	for some := range slices.Chunk(p.records, size) {
		if err := ctx.Err(); err != nil {
			return done, context.Cause(ctx)
		}
		if _, err := p.Target.SaveAll(ctx, some); err != nil {
			return p.count(ctx, done, some), err
		}
		done += len(some)
		wrote(done, len(p.records))
	}
	return done, nil
}

// count returns how many records were written when a batch failed in the middle.
func (p *Plan) count(ctx context.Context, done int, some []rotation.Record) int {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), countTime)
	defer cancel()
	for _, r := range some {
		held, err := p.Target.Load(ctx, r.Token)
		if err != nil {
			break
		}
		if equal, err := same(held, r); err == nil && equal {
			done++
		}
	}
	return done
}

// countTime is the longest time to find out how far an interrupted import came.
const countTime = 10 * time.Second
