package leader

import (
	"fmt"
	"path/filepath"
	"strings"

	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/statedir"
	"rotatord/test/program"
)

// violations is the oracle. What was issued it takes from the simulator, what was written from Vault.
func (w *world) violations() (wrong []string) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	issued := w.sim.Secrets(w.id)
	if len(issued) != 3 {
		say("Cloudflare issued %d secrets, want the first, that of the slot, and that of the order", len(issued))
	}
	versions := w.versions()
	for n, v := range versions {
		if v["canary"] != canary {
			say("version %d has lost what another program keeps there", n+1)
		}
		value, _ := v["client_secret"].(string)
		if n >= len(issued) || secret.New(value).Digest() != issued[n].Digest {
			say("version %d is not secret %d", n+1, n+1)
		}
	}
	if len(versions) != len(issued) {
		say("Vault has %d versions of %d secrets", len(versions), len(issued))
	}
	id, value, _ := w.stored(w.cluster.Leader(w.t))
	if !program.Accepts(w.sim, id, value) {
		say("what Vault holds at the end is refused")
	}
	if len(w.refused) > 0 {
		say("%d of %d looks at what Vault held were refused, the first at %s", len(w.refused), w.looks, w.refused[0])
	}
	text := w.log.String()
	if strings.Contains(text, `"result":"in_doubt"`) {
		say("a rotation was in doubt")
	}
	for n, s := range issued {
		if strings.Contains(text, s.Value.Reveal()) {
			say("secret %d is in the log", n+1)
		}
	}
	w.checkState(say)
	return wrong
}

// versions reads every version of the secret, the first one first.
func (w *world) versions() (all []map[string]any) {
	w.t.Helper()
	root := w.cluster.Leader(w.t).Root(w.t)
	metadata, err := root.Logical().Read(mount + "/metadata/" + w.path)
	w.must(err)
	versions, _ := metadata.Data["versions"].(map[string]any)
	for n := range len(versions) {
		s, err := root.Logical().ReadWithData(mount+"/data/"+w.path, map[string][]string{"version": {fmt.Sprint(n + 1)}})
		w.must(err)
		data, _ := s.Data["data"].(map[string]any)
		all = append(all, data)
	}
	return all
}

func (w *world) checkState(say func(string, ...any)) {
	dir := filepath.Join(w.dir, "state")
	records, err := statedir.ReadLedger(w.t.Context(), dir)
	if err != nil {
		say("the ledger cannot be read: %v", err)
	}
	for _, r := range records {
		if r.Step != rotation.StepIdle {
			say("the token is left at %s", r.Step)
		}
	}
	state, err := statedir.Open(statedir.Options{Dir: dir})
	if err != nil {
		say("the state cannot be opened: %v", err)
		return
	}
	defer state.Close()
	if sealed, err := state.Pending.Sealed(); err != nil || len(sealed) > 0 {
		say("%d secrets are pending, %v", len(sealed), err)
	}
}
