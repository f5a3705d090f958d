package replica

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"rotatord/internal/printable"
)

// entryFormat is the format of the entries.
const entryFormat = 1

// Everything is the name in a notice for all entries: what has changed is not known in detail.
const Everything = "*"

const (
	// keptNotices is how many names an entry tells of at most, and keptFor for how long. A replica that has not read it
	// for longer reads everything again.
	keptNotices = 1000
	keptFor     = time.Minute
	// Bounds of what is taken from the entry of another replica.
	maxShort    = 100
	maxName     = 200
	maxReason   = 500
	maxAccounts = 1000
)

// dir is the directory of the entries.
const dir = "replicas"

func pathOf(name string) string { return dir + "/" + name }

// entry is what a replica writes about itself.
type entry struct {
	Format  int       `json:"format"`
	Replica string    `json:"replica"`
	Process string    `json:"process"` // another one at each start
	Home    string    `json:"home"`    // its state directory
	Started time.Time `json:"started"`
	Version string    `json:"version"` // of rotatord
	Claim   duration  `json:"claim"`
	Listen  string    `json:"listen"`
	Leaving bool      `json:"leaving"`
	Wall    time.Time `json:"wall"`                   // its wall clock, just before it wrote this
	Aside   string    `json:"stands_aside,omitempty"` // why it begins nothing

	// Throttled says for how long, from this entry on, Cloudflare has asked it to send nothing, by account.
	Throttled map[string]duration `json:"throttled,omitempty"`

	Identity   string   `json:"identity"`   // the public key with which it opens sealed answers
	Recipients []string `json:"recipients"` // the public keys that it seals answers to

	// Seq counts the notices of this process. Those after number Since are all in Changes, each name once with the
	// number of its last notice, in the order of the numbers.
	Seq     uint64   `json:"seq"`
	Since   uint64   `json:"since"`
	Changes []notice `json:"changes"`
}

// notice says that an entry below the prefix was written.
type notice struct {
	Name string `json:"name"` // of a token, or of what else [Room.Notice] was called with
	Seq  uint64 `json:"seq"`

	at time.Time // on the monotonic clock; only of our own
}

// duration is written as 2m0s. It is read in nanoseconds, too.
type duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalJSON implements json.Unmarshaler.
func (d *duration) UnmarshalJSON(b []byte) error {
	var n int64
	if json.Unmarshal(b, &n) == nil {
		*d = duration(n)
		return nil
	}
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return err
	}
	parsed, err := time.ParseDuration(text)
	*d = duration(parsed)
	return err
}

// isNewer reports whether a newer version of rotatord has written the entry. It is known to live, and nothing else.
func (e entry) isNewer() bool { return e.Format > entryFormat }

// check returns an error about an entry that this replica cannot use.
func (e entry) check(name string) error {
	odd := func(what string) error {
		return fmt.Errorf("%s is not what a replica writes there: %s. Its replica writes it again within %s; if there is none, remove it with vault kv metadata delete",
			pathOf(name), what, beatMax)
	}
	switch {
	case e.Format < 1:
		return odd("it has no format")
	case e.Replica != name:
		return odd(fmt.Sprintf("it is of the replica %q", printable.Line(e.Replica, maxShort)))
	case e.Process == "" || len(e.Process) > maxShort:
		return odd("its process has no name")
	case e.isNewer():
		return nil
	case e.Claim <= 0:
		return odd("its claims do not last")
	case len(e.Changes) > keptNotices || len(e.Throttled) > maxAccounts:
		return odd("it is too long")
	}
	last := e.Since
	for _, c := range e.Changes {
		if c.Seq <= last || c.Seq > e.Seq || c.Name == "" || len(c.Name) > maxName || !printable.IsPlain(c.Name) {
			return odd("its notices cannot be read")
		}
		last = c.Seq
	}
	return nil
}

// after returns the names in the notices after a number; [Everything] if the entry does not have all of them.
func (e entry) after(seq uint64) (names []string) {
	if seq < e.Since || seq > e.Seq {
		return []string{Everything}
	}
	for _, c := range e.Changes {
		if c.Seq > seq {
			names = append(names, c.Name)
		}
	}
	return names
}

// notices are what this process tells in its entry.
type notices struct {
	seq, since uint64
	kept       []notice
}

// add adds a notice.
func (n *notices) add(name string, now time.Time) {
	n.seq++
	n.kept = slices.DeleteFunc(n.kept, func(c notice) bool { return c.Name == name })
	n.kept = append(n.kept, notice{name, n.seq, now})
	n.forget(now)
}

// forget drops what all living replicas have read by now, and what is too much.
func (n *notices) forget(now time.Time) {
	old := max(0, len(n.kept)-keptNotices)
	for old < len(n.kept) && now.Sub(n.kept[old].at) >= keptFor {
		old++
	}
	if old > 0 {
		n.since = n.kept[old-1].Seq
		n.kept = slices.Delete(n.kept, 0, old)
	}
}

const (
	beatMin, beatMax = time.Second, 10 * time.Second
	lookMax          = 5 * time.Second
)

// Beat returns how often a replica with that claim writes its entry.
func Beat(claim time.Duration) time.Duration { return min(max(claim/6, beatMin), beatMax) }

// look returns how often it reads the entries of the others.
func look(claim time.Duration) time.Duration { return min(max(claim/6, beatMin), lookMax) }

// deadAfter returns for how long a replica with that claim may write nothing and count as living.
func deadAfter(claim time.Duration) time.Duration { return Beat(claim) * 7 / 2 }

// requestTime bounds one request of a replica with that claim, so that one that hangs does not make it count as dead.
func requestTime(claim time.Duration) time.Duration { return max(Beat(claim), 2*time.Second) }
