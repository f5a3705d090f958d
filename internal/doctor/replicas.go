package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/kvstore"
	"rotatord/internal/ledger/transfer"
	"rotatord/internal/vault"
)

// replicaEntry is what doctor needs of the entry that a replica publishes about itself.
type replicaEntry struct {
	Replica    string         `json:"replica"`
	Process    string         `json:"process"`
	Claim      transfer.Claim `json:"claim"`
	Leaving    bool           `json:"leaving"`
	Wall       time.Time      `json:"wall"` // its own clock when it wrote this
	Recipients []string       `json:"recipients"`
	Identity   string         `json:"identity"`

	written time.Time // by Vault's clock
}

// replicas checks what is below the prefix, and that the replicas that live fit together.
func (e *examination) replicas(ctx context.Context, s *vault.Session, c *config.Shared) {
	store := kvstore.New(s, c.Mount, c.Prefix)
	if mark, err := transfer.ReadMark(ctx, store); err != nil {
		e.unreadable(err)
	} else if mark.State != transfer.InUse {
		e.add(Bad, SharedMoved, sharedSubject, fmt.Sprintf("the shared ledger is out of use, and no replica begins anything: %s", mark),
			"rotatord ledger import FILE puts it into use; repeat one that is not complete")
	}
	e.foreign(ctx, s, c)
	names, err := store.List(ctx, transfer.ReplicasDir)
	if err != nil {
		e.unreadable(err)
		return
	}
	now := cmp.Or(e.vaultNow, e.Now())
	var living []replicaEntry
	for _, name := range names {
		entry, err := e.replicaEntry(ctx, store, name)
		if err != nil {
			e.unreadable(err)
			continue
		}
		if entry.lives(now) {
			living = append(living, entry)
		}
	}
	if len(living) == 0 {
		if len(names) > 0 {
			e.add(Warning, SharedReplicas, sharedSubject, "no replica lives; the last that were seen are "+strings.Join(names, ", "), "start the replicas, if they are to run")
		} else {
			e.add(Good, SharedReplicas, sharedSubject, "no replica was started yet", "")
		}
		return
	}
	var live []string
	for _, r := range living {
		live = append(live, r.Replica)
	}
	e.add(Good, SharedReplicas, sharedSubject, fmt.Sprintf("%d replica(s) live: %s", len(living), strings.Join(live, ", ")), "")
	e.ownName(c, living)
	e.recipients(living)
	e.claims(c, living)
	e.replicaClocks(living)
}

func (e *examination) unreadable(err error) {
	e.add(Bad, SharedUnreadable, sharedSubject, err.Error(), "bring back what was deleted, and use the version of rotatord that wrote it; below the prefix there must be nothing of others")
}

// foreign warns of what is below the prefix and not rotatord's. Without the right to list there, nothing is said.
func (e *examination) foreign(ctx context.Context, s *vault.Session, c *config.Shared) {
	answer, err := s.List(ctx, c.Mount+"/metadata/"+c.Prefix+"/")
	if err != nil || answer == nil {
		return
	}
	keys, _ := answer.Data["keys"].([]any)
	var others []string
	for _, key := range keys {
		if name, ok := key.(string); ok && !slices.Contains([]string{"tokens/", "replicas/", "inventory/", "notify/", "pending/", "pauses", transfer.MarkPath}, name) {
			others = append(others, name)
		}
	}
	if len(others) > 0 {
		e.add(Warning, SharedForeign, sharedSubject, fmt.Sprintf("%s/%s has what is not rotatord's: %s", c.Mount, c.Prefix, strings.Join(others[:min(len(others), 10)], ", ")),
			"give the shared ledger a prefix of its own: who writes those may write records too, and the policy of rotatord covers them")
	}
}

// lives reports whether a replica has written its entry a short time ago. It is an estimate for a person: only who
// watches the entry knows it.
func (r replicaEntry) lives(now time.Time) bool {
	return !r.Leaving && now.Sub(r.written) < r.Claim.DeadAfter()+2*time.Second
}

func (e *examination) replicaEntry(ctx context.Context, store *kvstore.Store, name string) (r replicaEntry, err error) {
	entry, err := store.Get(ctx, transfer.ReplicasDir+"/"+name)
	if err != nil {
		return r, err
	}
	if entry.Version == 0 {
		return replicaEntry{Replica: name, Leaving: true}, nil // removed meanwhile
	}
	if err := entry.Decode(store.Path(transfer.ReplicasDir+"/"+name), &r); err != nil {
		return r, err
	}
	if r.Replica != name {
		return r, fmt.Errorf("%s says that it is of the replica %q", store.Path(transfer.ReplicasDir+"/"+name), r.Replica)
	}
	r.written = entry.CreatedAt
	return r, nil
}

// ownName warns if a replica of this name lives elsewhere.
func (e *examination) ownName(c *config.Shared, living []replicaEntry) {
	name, err := c.Name()
	if err != nil {
		e.add(Bad, SharedName, sharedSubject+".replica", err.Error(), "write a name of a-z, 0-9, dot, dash and underscore")
		return
	}
	if e.Running == nil || e.Running() {
		return // the daemon here notices it by itself if another one has its name
	}
	for _, r := range living {
		if r.Replica == name {
			e.add(Bad, SharedName, sharedSubject+".replica", fmt.Sprintf("a replica %s lives (process %s), and no daemon runs here on %s: a second one of that name begins nothing", name, r.Process, e.Config.State.Dir),
				"give this replica another state.shared.replica")
		}
	}
}

// recipients finds replicas that do not seal to another one.
func (e *examination) recipients(living []replicaEntry) {
	for _, a := range living {
		var others, keys []string
		for _, b := range living {
			if b.Identity != "" && b.Identity != a.Identity && !slices.Contains(a.Recipients, b.Identity) {
				others, keys = append(others, b.Replica), append(keys, b.Identity)
			}
		}
		if len(others) > 0 {
			e.add(Bad, SharedRecipients, "state.recipients", fmt.Sprintf("replica %s does not seal to %s: if %s is lost with a secret that is not delivered, they cannot deliver it", a.Replica, strings.Join(others, ", "), a.Replica),
				fmt.Sprintf("add to state.recipients of %s: %s. Or give all replicas one state.identity", a.Replica, strings.Join(keys, ", ")))
		}
	}
}

// claims finds replicas with another claim.
func (e *examination) claims(c *config.Shared, living []replicaEntry) {
	for _, r := range living {
		if claim := time.Duration(r.Claim); claim != c.Claim {
			e.add(Warning, SharedClaim, sharedSubject+".claim", fmt.Sprintf("replica %s has a claim of %s, and this configuration one of %s", r.Replica, claim, c.Claim),
				"give all replicas the same, and restart them: each waits for the claims of the others as they have written them, so this is safe, and slower than it has to be")
		}
	}
}

// replicaClocks finds replicas whose clock is far from Vault's.
func (e *examination) replicaClocks(living []replicaEntry) {
	for _, r := range living {
		if apart := r.Wall.Sub(r.written); !r.Wall.IsZero() && apart.Abs() > sharedSkew {
			e.add(Bad, SharedClock, sharedSubject, fmt.Sprintf("the clock of replica %s is %s from Vault's: it begins nothing while it is far from the others' and Vault's", r.Replica, apart.Round(time.Second)),
				"set the clock of that machine, or of Vault's (timedatectl, chronyc tracking)")
		}
	}
}
