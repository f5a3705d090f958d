package rotation

import "context"

// FleetLedger is a [Ledger] that reads many records without having all of them in memory. None of its methods may be called
// by what it calls.
type FleetLedger interface {
	Ledger
	// LoadAll returns the records of tokens as Load does, in their order.
	LoadAll(ctx context.Context, tokens []string) ([]Record, error)
	// Unfinished returns the records with a rotation in progress.
	Unfinished(ctx context.Context) ([]Record, error)
	// Each calls do with each record whose token is wanted.
	Each(ctx context.Context, wanted func(token string) bool, do func(Record)) error
}

// Unfinished returns the records of a ledger that have a rotation in progress.
func Unfinished(ctx context.Context, l Ledger) ([]Record, error) {
	if l, ok := l.(FleetLedger); ok {
		return l.Unfinished(ctx)
	}
	records, err := l.All(ctx)
	var unfinished []Record
	for _, r := range records {
		if r.Step != StepIdle {
			unfinished = append(unfinished, r)
		}
	}
	return unfinished, err
}

// Each calls do with each record of a ledger whose token is wanted. do must not use the ledger.
func Each(ctx context.Context, l Ledger, wanted func(token string) bool, do func(Record)) error {
	if l, ok := l.(FleetLedger); ok {
		return l.Each(ctx, wanted, do)
	}
	records, err := l.All(ctx)
	if err != nil {
		return err
	}
	for _, r := range records {
		if wanted(r.Token) {
			do(r)
		}
	}
	return nil
}

// storedRecords returns a function that loads the records of tokens, in their order.
func (r *Rotator) storedRecords(ctx context.Context) (load func(tokens []Token) ([]Record, error), err error) {
	if l, ok := r.ledger.(FleetLedger); ok {
		return func(tokens []Token) ([]Record, error) {
			names := make([]string, len(tokens))
			for i, t := range tokens {
				names[i] = t.Name
			}
			return l.LoadAll(ctx, names)
		}, nil
	}
	stored, err := r.ledger.All(ctx)
	byName := make(map[string]Record, len(stored))
	for _, record := range stored {
		byName[record.Token] = record
	}
	return func(tokens []Token) ([]Record, error) {
		records := make([]Record, len(tokens))
		for i, t := range tokens {
			records[i] = byName[t.Name]
		}
		return records, nil
	}, err
}
