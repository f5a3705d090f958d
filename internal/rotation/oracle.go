package rotation

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// OracleLedger is a [Ledger] that answers [oracleTrusted] without reading all records. After an outage every token of a
// fleet can be in doubt, and each look asks.
type OracleLedger interface {
	Ledger
	// OracleTrusted reports whether the confirmed rotations of an account have shown that updated_at moves with each
	// rotation. What a save returned nil for counts.
	OracleTrusted(ctx context.Context, account string) (bool, error)
}

// oracleTrusted asks the ledger whether on this account an unchanged updated_at proves that no rotation took place.
func (r *Rotator) oracleTrusted(ctx context.Context, account string) (bool, error) {
	if l, ok := r.ledger.(OracleLedger); ok {
		return l.OracleTrusted(ctx, account)
	}
	records, err := r.ledger.All(ctx)
	return oracleTrusted(records, account), err
}

// Oracle counts by account what [OracleLedger] is asked for. A ledger has one, and notes in it each record that it saves
// or learns. It counts nothing before it is asked for the first time. The zero Oracle is usable, and safe for concurrent
// use.
type Oracle struct {
	filling sync.Mutex // held while all records are read

	mu        sync.Mutex
	on        bool // records are noted
	filled    bool
	byToken   map[string]oracleShare
	byAccount map[string]*oracleSum
	unsure    map[string]bool // tokens whose last save has failed: nobody knows whether it counts
}

// oracleShare is what one record adds to its account.
type oracleShare struct {
	sum          *oracleSum
	revision     uint64
	moved, still int
}

// oracleSum is what the records of an account add up to. still is the number of those in which updated_at stayed.
type oracleSum struct{ moved, still int }

// Note takes over a record, unless a newer one was noted. The record must be saved.
func (o *Oracle) Note(r Record) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.on {
		o.note(r)
	}
}

// Unsure notes that a save of records has failed, and may still be carried out. They are read again before the next
// answer.
func (o *Oracle) Unsure(all ...Record) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.on {
		return
	}
	for _, r := range all {
		o.unsure[r.Token] = true
	}
}

// Forget drops what was noted of a token: its next record may have any revision.
func (o *Oracle) Forget(token string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if before, there := o.byToken[token]; there {
		before.sum.moved -= before.moved
		before.sum.still -= before.still
		delete(o.byToken, token)
	}
}

// note does what Note does. o.mu must be held.
func (o *Oracle) note(r Record) {
	if before, there := o.byToken[r.Token]; there {
		if before.revision > r.Revision {
			return
		}
		before.sum.moved -= before.moved
		before.sum.still -= before.still
	}
	sum := o.byAccount[r.Account]
	if sum == nil {
		sum = &oracleSum{}
		o.byAccount[r.Account] = sum
	}
	share := oracleShare{sum: sum, revision: r.Revision, moved: r.MovedCount, still: min(r.StillCount, 1)}
	sum.moved += share.moved
	sum.still += share.still
	o.byToken[r.Token] = share
}

// Trusted answers [OracleLedger] for that ledger. It reads all records until that has succeeded once.
func (o *Oracle) Trusted(ctx context.Context, account string, l Ledger) (bool, error) {
	o.filling.Lock()
	defer o.filling.Unlock()
	if !o.isFilled() {
		records, err := l.All(ctx)
		if err != nil {
			return false, err
		}
		o.fill(records)
	}
	for _, token := range o.unsureTokens() {
		o.sure(token) // before the load: a save that fails meanwhile counts again
		r, err := l.Load(ctx, token)
		if err != nil {
			o.Unsure(Record{Token: token})
			return false, err
		}
		o.Note(r)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	sum := o.byAccount[account]
	return sum != nil && sum.still == 0 && sum.moved > 0, nil
}

// isFilled reports whether all records were noted. From then on, and while they are read, saved ones are noted.
func (o *Oracle) isFilled() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.on {
		o.on, o.byToken, o.byAccount, o.unsure = true, make(map[string]oracleShare), make(map[string]*oracleSum), make(map[string]bool)
	}
	return o.filled
}

// unsureTokens returns the tokens whose last save has failed.
func (o *Oracle) unsureTokens() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Collect(maps.Keys(o.unsure))
}

// sure notes that the record of a token is read again.
func (o *Oracle) sure(token string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.unsure, token)
}

func (o *Oracle) fill(records []Record) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range records {
		o.note(r)
	}
	o.filled = true
}
