// Package patience decides whether those who add to a queue wait for its reader.
//
// To wait keeps a fast producer from filling the queue. Not to wait keeps a reader that stalls from stopping everything. So a
// reader is waited for until it has been late once, and again as soon as it keeps up, also while its queue is never empty.
//
// It is a room of its own because two queues need it that know nothing of each other: that of package event, and
// that of the log below it.
package patience

import "time"

// paceOf is by how many items it is seen how fast a reader is. One that is late again within relapse after it kept up has to be
// fast for twice as many, up to slowest times: a disk that stalls every few seconds may not delay each rotation.
const (
	paceOf  = 64
	relapse = time.Minute
	slowest = 1024
)

// Reader is what is known of the reader of a queue. The zero value has no patience. The lock of the queue guards it.
type Reader struct {
	Patience time.Duration // how long an item is waited for

	behind bool
	needs  int       // how many times paceOf items it has to be fast for, to be waited for again
	fast   int       // how many times in a row it was
	since  time.Time // when it was last waited for again
	read   int       // items since began
	began  time.Time
}

// IsBehind reports whether the reader was late, and does not keep up yet: then it is not waited for.
func (r *Reader) IsBehind() bool { return r.behind }

// Late notes that an item was not read within the patience.
func (r *Reader) Late() {
	if r.behind {
		return
	}
	if r.needs *= 2; time.Since(r.since) > relapse {
		r.needs = 1
	}
	r.behind, r.fast, r.needs = true, 0, min(r.needs, slowest)
}

// Next notes that the reader takes the next of so many items that wait. If none waits, it has caught up.
func (r *Reader) Next(waiting int) {
	switch {
	case waiting == 0:
		r.behind, r.read = false, 0
		return
	case r.read == 0:
		r.began = time.Now()
	case r.read == paceOf:
		r.judge(waiting)
	}
	r.read++
}

// judge looks at the time that the last paceOf items took. The reader is fast if what waits will have been read well within the
// patience.
func (r *Reader) judge(waiting int) {
	now := time.Now()
	if each := now.Sub(r.began) / paceOf; each*time.Duration(waiting) <= r.Patience/2 {
		r.fast++
	} else {
		r.fast = 0
	}
	if r.behind && r.fast >= r.needs {
		r.behind, r.since = false, now
	}
	r.read, r.began = 0, now
}
