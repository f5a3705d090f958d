package doctor

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/ledger/transfer"
)

// share has the world's ledger be shared, with the rights that replicas need.
func (w *world) share() {
	w.config.State.Shared = &config.Shared{Mount: "secret", Prefix: "rotatord", Claim: 2 * time.Minute, Replica: "a"}
	w.vault.SetPolicy(replicaRights)
}

// replicaRights are the least rights of a replica.
func replicaRights(path string) []string {
	switch {
	case strings.HasPrefix(path, "secret/data/rotatord/"):
		return []string{"create", "read", "update"}
	case strings.HasPrefix(path, "secret/metadata/rotatord/") || path == "secret/metadata/rotatord":
		return []string{"create", "delete", "list", "update"}
	}
	return least(path)
}

// without returns the rights of a replica without some at one path.
func without(at string, capabilities ...string) func(string) []string {
	return func(path string) []string {
		if path != at {
			return replicaRights(path)
		}
		return slices.DeleteFunc(replicaRights(path), func(c string) bool { return slices.Contains(capabilities, c) })
	}
}

// lives has a replica live.
func (w *world) lives(name string, change func(map[string]any)) {
	entry := map[string]any{"format": 1, "replica": name, "process": "P-" + name, "claim": "2m0s", "wall": time.Now().UTC().Format(time.RFC3339Nano),
		"identity": "age1" + name, "recipients": []string{"age1a", "age1b"}}
	change(entry)
	w.vault.Write("secret", "rotatord/replicas/"+name, entry)
}

func as(map[string]any) {}

var sharedIlls = map[string]ill{
	"a good shared ledger": {func(w *world) { w.share() }, Good, SharedGood, "state.shared", "secret/ is KV version 2, and the policy allows what replicas need below rotatord/, and no more"},
	"in KV version 1": {func(w *world) { w.share(); w.config.State.Shared.Mount = "old" }, Bad, SharedMount, "state.shared",
		"old/ is KV version 1: a shared ledger needs check-and-set"},
	"in no mount": {func(w *world) { w.share(); w.config.State.Shared.Mount = "nosuch" }, Bad, SharedMount, "state.shared", "nosuch"},
	"records cannot be written": {func(w *world) { w.share(); w.vault.SetPolicy(without("secret/data/rotatord/tokens/"+nobody, "update")) }, Bad, SharedRights, "state.shared",
		"the policy does not allow update at secret/data/rotatord/tokens/*: no rotation is recorded"},
	"replicas cannot be listed": {func(w *world) { w.share(); w.vault.SetPolicy(without("secret/metadata/rotatord/replicas/", "list")) }, Bad, SharedRights, "state.shared",
		"the policy does not allow list at secret/metadata/rotatord/replicas/: the replicas do not see each other"},
	"copies cannot be removed": {func(w *world) {
		w.share()
		w.vault.SetPolicy(without("secret/metadata/rotatord/pending/"+nobody, "delete"))
	}, Bad, SharedRights, "state.shared",
		"copies of sealed secrets stay"},
	"records can be destroyed": {func(w *world) {
		w.share()
		w.vault.SetPolicy(func(path string) []string {
			if strings.HasPrefix(path, "secret/destroy/rotatord/") {
				return []string{"update"}
			}
			return replicaRights(path)
		})
	}, Warning, SharedExcess, "state.shared", "secret/destroy/rotatord/tokens/*"},
	"exported": {func(w *world) {
		w.share()
		w.vault.Write("secret", "rotatord/"+transfer.MarkPath, map[string]any{"format": 1, "state": "exported", "at": "2026-11-29T02:00:00Z", "by": "root"})
	}, Bad, SharedMoved, "state.shared", "exported at 2026-11-29T02:00:00Z by root"},
	"a deleted mark": {func(w *world) {
		w.share()
		w.vault.Write("secret", "rotatord/"+transfer.MarkPath, map[string]any{"format": 1})
		w.vault.Delete("secret", "rotatord/"+transfer.MarkPath)
	}, Bad, SharedUnreadable, "state.shared", "was deleted"},
	"an odd entry": {func(w *world) { w.share(); w.lives("b", func(e map[string]any) { e["wall"] = 7 }) }, Bad, SharedUnreadable, "state.shared", "replicas/b"},
	"an entry of another name": {func(w *world) { w.share(); w.lives("b", func(e map[string]any) { e["replica"] = "c" }) }, Bad, SharedUnreadable, "state.shared",
		`secret/rotatord/replicas/b says that it is of the replica "c"`},
	"secrets below the prefix": {func(w *world) {
		w.share()
		w.vault.Write("secret", "rotatord/notify/night", map[string]any{"a": "b"}) // rotatord's own
		w.vault.Write("secret", "rotatord/prod/key", map[string]any{"a": "b"})
	}, Warning, SharedForeign, "state.shared", "secret/rotatord has what is not rotatord's: prod/"},
	"two replicas live": {func(w *world) { w.share(); w.lives("a", as); w.lives("b", as) }, Good, SharedReplicas, "state.shared", "2 replica(s) live: a, b"},
	"no replica lives":  {func(w *world) { w.share(); w.lives("a", func(e map[string]any) { e["leaving"] = true }) }, Warning, SharedReplicas, "state.shared", "no replica lives"},
	"another process has the name": {func(w *world) { w.share(); w.lives("a", as); w.Running = func() bool { return false } }, Bad, SharedName, "state.shared.replica",
		"a replica a lives (process P-a), and no daemon runs here"},
	"a replica seals to itself": {func(w *world) {
		w.share()
		w.lives("a", as)
		w.lives("b", func(e map[string]any) { e["recipients"] = []string{"age1b"} })
	}, Bad, SharedRecipients, "state.recipients", "replica b does not seal to a: if b is lost"},
	"another claim":            {func(w *world) { w.share(); w.lives("b", func(e map[string]any) { e["claim"] = "1m0s" }) }, Warning, SharedClaim, "state.shared.claim", "replica b has a claim of 1m0s, and this configuration one of 2m0s"},
	"a replica's clock is off": {func(w *world) { w.share(); w.lives("b", func(e map[string]any) { e["wall"] = "2026-01-01T00:00:00Z" }) }, Bad, SharedClock, "state.shared", "the clock of replica b is -"},
	"the clock is Vault's":     {func(w *world) { w.share() }, Good, SharedClockGood, "state.shared", "this machine's clock and Vault's agree"},
	"the clock is off": {func(w *world) {
		w.share()
		w.inFront(func(rw http.ResponseWriter, _ *http.Request) bool {
			rw.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
			return false
		})
	}, Bad, SharedClock, "state.shared", "from Vault's: a replica whose clock is far"},
}

// TestSharedRightsAreNamed: each right that a replica needs is missed, and the advice has a stanza for it.
func TestSharedRightsAreNamed(t *testing.T) {
	for _, r := range sharedRights(&config.Shared{Mount: "secret", Prefix: "rotatord"}) {
		for _, need := range r.needs {
			w := newWorld(t)
			w.share()
			w.vault.SetPolicy(without(r.path, need))
			text := fmt.Sprint(Examine(t.Context(), w.Options))
			if !strings.Contains(text, "does not allow "+need+" at "+strings.TrimSuffix(r.path, nobody)) || !strings.Contains(text, `path "`+strings.TrimSuffix(r.path, nobody)) {
				t.Errorf("%s at %s: %s", need, r.path, text)
			}
		}
	}
}
