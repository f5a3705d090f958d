package replica

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// entryFormat is the format of the entries. Another one is not read.
const entryFormat = 1

// Everything means all entries where the names of some are expected: what has changed is not known in detail.
const Everything = "*"

const (
	// keptChanges is how many changes an entry lists at most, and keptFor for how long. A replica that has not read
	// it for longer reads everything again.
	keptChanges = 500
	keptFor     = 2 * time.Minute
)

// dir is the directory of the entries.
const dir = "replicas"

func pathOf(name string) string { return dir + "/" + name }

// entry is what a replica writes about itself.
type entry struct {
	Format  int    `json:"format"`
	Replica string `json:"replica"`
	Process string `json:"process"` // another one at each start
	// After is the process before this one, if that has told of all its changes. Seq and Changes go on from its.
	After   string    `json:"after,omitempty"`
	Home    string    `json:"home"` // its state directory
	Started time.Time `json:"started"`
	Version string    `json:"version"` // of rotatord
	Claim   duration  `json:"claim"`
	Listen  string    `json:"listen"`
	Leaving bool      `json:"leaving"`
	Wall    time.Time `json:"wall"` // its wall clock, just before it wrote this
	Aside   string    `json:"stands_aside,omitempty"`

	Identity   string   `json:"identity"`   // the public key with which it opens sealed answers
	Recipients []string `json:"recipients"` // the public keys that it seals answers to

	Seq     uint64   `json:"seq"` // how many changes it has told of
	Changes []change `json:"changes"`
}

// change says that an entry below the prefix was written.
type change struct {
	Name string    `json:"name"` // of a token, or of what else [Room.Notice] was called with
	At   time.Time `json:"at"`
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

// check returns an error about an entry that this replica cannot use.
func (e entry) check(name string) error {
	switch {
	case e.Format > entryFormat:
		return fmt.Errorf("%s has format %d, and this version of rotatord reads %d: update this replica", pathOf(name), e.Format, entryFormat)
	case e.Format < 1, e.Replica != name, e.Process == "", e.Claim <= 0, uint64(len(e.Changes)) > e.Seq:
		return fmt.Errorf("%s is not what a replica writes there", pathOf(name))
	}
	return nil
}

// since returns the names that have changed after a number of changes, each once. It returns [Everything] if the entry
// does not list all of them.
func (e entry) since(seq uint64) (names []string) {
	first := e.Seq - uint64(len(e.Changes))
	if seq > e.Seq || seq < first {
		return []string{Everything}
	}
	for _, c := range e.Changes[seq-first:] {
		if !slices.Contains(names, c.Name) {
			names = append(names, c.Name)
		}
	}
	return names
}

// Beat returns how often a replica with that claim writes its entry.
func Beat(claim time.Duration) time.Duration { return min(max(claim/6, time.Second), 10*time.Second) }

// look returns how often it reads the entries of the others.
func look(claim time.Duration) time.Duration { return min(max(claim/6, time.Second), 3*time.Second) }

// deadAfter returns for how long a replica with that claim may write nothing and count as living.
func deadAfter(claim time.Duration) time.Duration { return Beat(claim) * 7 / 2 }
