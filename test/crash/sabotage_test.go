package crash

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/test/program"
)

// sabotage makes a round go wrong in a way that the oracle has to find. The zero sabotage does
// nothing.
type sabotage struct {
	failpoint  string       // in the first life
	between    func(*world) // after the first life
	noRecovery bool
	before     func(*world) // the oracle is asked
}

// noSeal leaves out the commit point.
var noSeal = sabotage{failpoint: "seal=off"}

// TestOracle plays rounds in which something is broken on purpose, one for each of
// the oracle's rules. An oracle that finds nothing wrong in them would prove nothing in
// the others.
func TestOracle(t *testing.T) {
	type broken struct {
		name, point, cloudflare, finds string
		sabotage
		entry
	}
	const grace = 3 * time.Second
	rounds := []broken{
		{"the seal is left out", "", "normal", "sealed answer", noSeal, entry{}},
		{"the seal is left out, killed before the store", "store.before", "normal", "sealed answer", noSeal, entry{}},
		{"the state directory is lost with a sealed answer", "ledger.sealed.after", "normal", "never reached Vault, and no doubt was reported",
			sabotage{between: (*world).loseState}, entry{}},
		{"the state directory is of before the rotation", "commit.after", "normal", "after a rotation that promised a grace",
			sabotage{between: (*world).restoreState}, entry{}},
		{"a script repeats a request whose answer is lost", "rotate.after", "normal", "after a rotation that consumers had not got",
			sabotage{between: (*world).rotateBlindly}, entry{}},
		{"nobody is told of a doubt", "", "answer lost", "no doubt was reported", sabotage{before: (*world).forgetDoubts}, entry{}},
		{"a whole answer is not kept", "", "normal", "was not kept", sabotage{failpoint: "seal=off", before: (*world).blameCloudflare}, entry{}},
		{"nobody recovers", "store.before", "normal", "is left at sealed", sabotage{noRecovery: true}, entry{}},
		{"a sealed answer is left behind", "store.before", "normal", "is left sealed", sabotage{noRecovery: true}, entry{}},
		{"Vault holds what is not accepted", "", "normal", "is refused", sabotage{before: func(w *world) {
			w.write(w.subjects[0].path, map[string]any{"client_id": "x", "client_secret": "y", "canary": canary})
		}}, entry{}},
		{"a field of another program is dropped", "", "normal", "has lost what another program keeps there", sabotage{before: func(w *world) {
			id, value, _ := w.stored(w.subjects[0])
			w.write(w.subjects[0].path, map[string]any{"client_id": id, "client_secret": value})
		}}, entry{}},
		{"a slot is served twice", "", "normal", "served twice", sabotage{before: func(w *world) { w.logs = append(w.logs, w.logs[0]) }}, entry{}},
		{"a secret is logged", "", "normal", "is in a log", sabotage{before: func(w *world) {
			fmt.Fprintln(w.logs[0], w.current(w.subjects[0].ids[0]))
		}}, entry{}},
		{"a secret is on disk", "", "normal", "is in note", sabotage{before: func(w *world) {
			w.check(os.WriteFile(filepath.Join(w.dir, "state", "note"), []byte(w.current(w.subjects[0].ids[0])), 0o600))
		}}, entry{}},
		{"the seal is left out, and a service token is made", "", "normal", "sealed answer", noSeal, entry{kind: created, grace: grace}},
		{"the state directory is of before one took another's place", "commit.after", "normal", "is left, and the ledger does not know it",
			sabotage{between: (*world).restoreState}, entry{kind: replaced, grace: grace}},
		{"a script makes one that is there", "", "normal", "was created 2 times", sabotage{before: (*world).createAgain}, entry{kind: created, grace: grace}},
		{"a script deletes the one in use", "", "normal", "in use was deleted",
			sabotage{before: func(w *world) { w.deleteAt(-1) }}, entry{kind: createdInZone, grace: grace}},
		{"a script deletes the one that was replaced", "commit.after", "normal", "after another took its place",
			sabotage{between: func(w *world) { w.deleteAt(0) }}, entry{kind: replaced, grace: grace}},
		{"consumers wait for long after one lost answer", "", "answer lost", "after one lost answer", sabotage{before: func(w *world) {
			w.runs = append(w.runs, refusalRun{w.subjects[0].name, time.Now().Add(-time.Hour), time.Now()})
		}}, entry{}},
		{"a new secret is not tried", "", "normal", "never accepted by the application of verify",
			sabotage{before: func(w *world) { clear(w.accepts) }}, entry{kind: single, grace: grace, verifies: true}},
	}
	all := make([]plan, len(rounds))
	for i, b := range rounds {
		if b.kind == "" {
			b.entry = entry{kind: single, grace: grace}
		}
		all[i] = plan{
			number: i, point: b.point, cloudflare: b.cloudflare, vault: vaultNormal, sabotage: b.sabotage, tokens: []entry{b.entry}, moved: 1,
		}
	}
	var mu sync.Mutex
	violations := 0
	playAll(t, all, 20*time.Second, func(r result) {
		mu.Lock()
		defer mu.Unlock()
		violations += len(r.wrong)
		b := rounds[r.number]
		if !slices.ContainsFunc(r.wrong, func(s string) bool { return strings.Contains(s, b.finds) }) {
			t.Errorf("%s: the oracle does not find %q but %q\n%s", b.name, b.finds, r.wrong, tail(r.log))
		}
		if os.Getenv("CRASH_VERBOSE") != "" {
			t.Logf("%s:\n  %s", b.name, strings.Join(r.wrong, "\n  "))
		}
	})
	t.Logf("the oracle finds %d violations in %d rounds that were sabotaged", violations, len(all))
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// loseState empties the state directory, as a pod without a volume does.
func (w *world) loseState() { w.check(os.RemoveAll(filepath.Join(w.dir, "state"))) }

// restoreState puts the state back as it was before the first life, as an fsync that does nothing
// and a power failure do, or a backup.
func (w *world) restoreState() {
	w.loseState()
	w.copyState("state.before", "state")
}

func (w *world) copyState(from, to string) {
	out, err := exec.Command("cp", "-a", filepath.Join(w.dir, from), filepath.Join(w.dir, to)).CombinedOutput()
	if err != nil {
		w.t.Fatalf("copying the state: %v\n%s", err, out)
	}
}

// rotateBlindly is what a script with retries does.
func (w *world) rotateBlindly() {
	s := w.subjects[0]
	until := time.Now().Add(s.grace).UTC().Format(time.RFC3339)
	w.script(http.MethodPost, "/accounts/"+cfsim.DefaultAccountID+"/access/service_tokens/"+s.ids[0]+"/rotate",
		`{"previous_client_secret_expires_at":"`+until+`"}`)
}

// createAgain is what a script does that never looks.
func (w *world) createAgain() {
	w.script(http.MethodPost, "/accounts/"+cfsim.DefaultAccountID+"/access/service_tokens", `{"name":"`+w.subjects[0].name+`"}`)
}

// deleteAt deletes the service token that stood in a version of what Vault holds; -1 is the last.
func (w *world) deleteAt(n int) {
	versions := history(w.t, w.server.Root(w.t), w.subjects[0].path)
	clientID := versions[(n+len(versions))%len(versions)].clientID
	for _, t := range w.sim.Tokens() {
		if t.ClientID == clientID {
			w.script(http.MethodDelete, "/zones/"+zoneID+"/access/service_tokens/"+t.ID, "")
		}
	}
}

// script sends one request to Cloudflare that is not the daemon's.
func (w *world) script(method, path, body string) {
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.simURL+cfsim.BasePath+path, strings.NewReader(body))
	w.check(err)
	req.Header.Set("Authorization", "Bearer script")
	res, err := http.DefaultClient.Do(req)
	w.check(err)
	w.check(res.Body.Close())
	if res.StatusCode > 299 {
		w.t.Errorf("the script was answered %s", res.Status)
	}
}

// forgetDoubts removes what raises a doubt from all logs.
func (w *world) forgetDoubts() {
	for i, log := range w.logs {
		kept := &program.Output{}
		for l := range strings.Lines(log.String()) {
			if !strings.Contains(l, `"result":"in_doubt"`) && !strings.Contains(l, inDoubtAtStart) {
				fmt.Fprint(kept, l)
			}
		}
		w.logs[i] = kept
	}
}

// blameCloudflare has the log say of a lost answer that none came.
func (w *world) blameCloudflare() {
	for i, log := range w.logs {
		blamed := &program.Output{}
		fmt.Fprint(blamed, strings.ReplaceAll(log.String(), `"reason":"sealed_lost"`, `"reason":"outcome_unknown"`))
		w.logs[i] = blamed
	}
}
