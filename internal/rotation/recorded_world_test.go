package rotation_test

import (
	"context"
	"time"

	"rotatord/internal/event"
)

// recorder is the record of events of a world. It may fail at each call, and then no request may leave.
type recorder struct{ w *world }

func (r recorder) Reserve(_ context.Context, token string) (release func(), err error) {
	if err = r.w.do("room", func() error { return nil }); err != nil {
		return nil, err
	}
	r.w.rooms[token]++
	return func() { r.w.rooms[token]-- }, nil
}

func (r recorder) Record(_ context.Context, e event.Event) error {
	d := e.Detail.(event.RequestLeaving)
	if r.w.rooms[e.Token] != 1 {
		r.w.t.Errorf("%s is recorded with %d rooms", d.Operation, r.w.rooms[e.Token])
	}
	err := r.w.do("record", func() error { return nil })
	if err == nil {
		r.w.mayLeave[d.Operation+" "+d.TokenID+d.Creates] = true
	}
	return err
}

// leaves is called when a request that changes or ends a secret leaves. It must have been recorded, and each line is good
// for one request.
func (w *world) leaves(operation, what string) {
	if w.mayLeave == nil { // a test without a record
		return
	}
	key := operation + " " + what
	if !w.mayLeave[key] {
		w.t.Errorf("a request left that was not recorded: %s", key)
	}
	delete(w.mayLeave, key)
}

// leavesSetGrace is leaves for the request that moves the end of a secret: only revoking ends one.
func (w *world) leavesSetGrace(id string, grace time.Duration) {
	if grace == 0 {
		w.leaves("revoke", id)
	}
}

// newRecord returns the record of events for a new process, which records its requests again.
func (w *world) newRecord() recorder {
	w.mayLeave, w.rooms = map[string]bool{}, map[string]int{}
	return recorder{w}
}
