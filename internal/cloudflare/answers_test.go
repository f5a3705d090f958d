package cloudflare_test

import (
	"context"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"rotatord/internal/cloudflare"
	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
	"rotatord/internal/secret"
	"rotatord/internal/statedir"
)

// shapedWorld is a service token, or one that is to be created, for which the next answer with a secret has
// an odd shape.
type shapedWorld struct {
	simulator *cfsim.Simulator
	rotator   *rotation.Rotator
	token     rotation.Token
	pending   rotation.Pending
	shelf     *shelf
	passed    time.Duration
}

// ledgerAndPending are in memory or in a state directory.
type ledgerAndPending struct {
	rotation.Ledger
	rotation.Pending
}

func inMemory() ledgerAndPending {
	return ledgerAndPending{&book{records: map[string]rotation.Record{}}, &drawer{issued: map[string]rotation.Issued{}}}
}

func newShapedWorld(t *testing.T, operation, shape string, grace time.Duration, kept ledgerAndPending) *shapedWorld {
	t.Helper()
	w := &shapedWorld{simulator: cfsim.New(cfsim.Options{SeedTokens: 3}), shelf: &shelf{}, pending: kept.Pending}
	server := httptest.NewServer(w.simulator)
	t.Cleanup(server.Close)
	fault := cfsim.Fault{Operation: operation, Shape: shape}
	if operation == cfsim.OpList {
		fault.Count, operation = -1, cfsim.OpCreate
	}
	if shape != "" {
		if err := w.simulator.Inject(fault); err != nil {
			t.Fatal(err)
		}
	}
	schedule, err := scheduler.Parse("@every 24h", time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	c := cloudflare.New(config.Account{
		Name: "prod", AccountID: cfsim.DefaultAccountID, APIToken: secretFile(t, apiToken), BaseURL: server.URL + cfsim.BasePath, RequestsPer5m: 1000,
	}, cloudflare.Options{})
	w.token = rotation.Token{
		Name: "ci", Account: "prod", ID: cfsim.SeedTokenID(1), Grace: grace, Timetable: scheduler.Timetable{Schedule: schedule, Key: "ci"},
		Issuer: c, Creator: c, Sinks: []rotation.Sink{w.shelf},
	}
	if operation == cfsim.OpCreate {
		w.token.ID, w.token.Create = "", &rotation.Creation{Name: "new"}
	}
	w.start(kept)
	if _, err := w.rotator.Enroll(t.Context(), w.token); err != nil {
		t.Fatal(err)
	}
	w.passed = 25 * time.Hour
	return w
}

// start starts a new process.
func (w *shapedWorld) start(kept ledgerAndPending) {
	w.rotator = rotation.New(rotation.Options{
		Ledger: kept.Ledger, Pending: kept.Pending, Now: func() time.Time { return time.Now().Add(w.passed) },
	})
}

// truth returns the service token as it is at Cloudflare; ok is false if it does not exist yet.
func (w *shapedWorld) truth() (truth cfsim.Token, ok bool) {
	for _, t := range w.simulator.Tokens() {
		if w.token.Create == nil && t.ID == w.token.ID || w.token.Create != nil && t.Name == w.token.Create.Name {
			return t, true
		}
	}
	return cfsim.Token{}, false
}

// delivered reports whether the sink has the secret that works.
func (w *shapedWorld) delivered() bool {
	truth, ok := w.truth()
	return ok && w.shelf.stored.Digest == truth.CurrentDigest && w.shelf.stored.ClientID == truth.ClientID
}

// kept returns the secrets that are sealed for a rotation.
func (w *shapedWorld) kept(t *testing.T, r rotation.Record) (all []secret.Digest, issued rotation.Issued) {
	t.Helper()
	if r.Work == nil {
		return nil, issued
	}
	issued, _, err := w.pending.Open(t.Context(), r.Work.RotationID)
	if err != nil {
		t.Fatal(err)
	}
	all = append(all, issued.ClientSecret.Digest())
	for _, other := range issued.Others {
		all = append(all, other.ClientSecret.Digest())
	}
	return all, issued
}

// outcome runs the rotation and says what became of the secret, in the words of docs/answers.md.
func (w *shapedWorld) outcome(t *testing.T, shape string) string {
	t.Helper()
	record, err := w.rotator.Advance(t.Context(), w.token)
	truth, made := w.truth()
	all, issued := w.kept(t, record)
	switch {
	case record.Last != nil && w.delivered():
		return "delivered"
	case w.delivered(), record.Step != rotation.StepInDoubt:
		t.Errorf("it is %q: %v", record.Step, err)
		return "?"
	case !record.Doubt.Sealed:
		return "nothing in it: `" + record.Doubt.Reason + "`"
	case !strings.HasPrefix(shape, "secret-") && (!made || !slices.Contains(all, truth.CurrentDigest)):
		t.Errorf("%s: what is sealed is not what Cloudflare has issued", shape)
	}
	outcome := "kept: `" + record.Doubt.Reason + "`"
	if !record.Doubt.MayDeliver() {
		return outcome
	}
	// An operator decides to deliver it. If the answer showed several, it may be one that does not work.
	if _, _, err := w.rotator.Resolve(t.Context(), w.token, rotation.ResolveDeliver); err != nil {
		t.Error(err)
	}
	if record, err = w.rotator.Advance(t.Context(), w.token); err != nil || record.Last == nil {
		t.Errorf("after --deliver: %v", err)
	}
	if w.delivered() != (issued.ClientSecret.Digest() == truth.CurrentDigest) {
		t.Error("--deliver has delivered another secret than the one that was chosen")
	}
	if n := w.simulator.Stats().Count("rotate") + w.simulator.Stats().Count("create"); n != 1 {
		t.Errorf("%d requests for a secret", n)
	}
	return outcome
}

// rowsOfAnswers reads a table of docs/answers.md.
func rowsOfAnswers(t *testing.T, columns string) (rows [][]string) {
	t.Helper()
	b, err := os.ReadFile("../../docs/answers.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(b), "| "+columns+" |")
	if !found {
		t.Fatalf("the documentation has no table of %s", columns)
	}
	for _, line := range strings.Split(table, "\n")[2:] {
		if !strings.HasPrefix(line, "|") {
			break
		}
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		cells[0] = strings.Trim(cells[0], "`")
		rows = append(rows, cells)
	}
	return rows
}

// TestAnswersAreDocumented has each row of docs/answers.md answered to a real client, and runs the
// whole protocol into it. Whatever is around the secret, the secret is delivered or kept.
func TestAnswersAreDocumented(t *testing.T) {
	left := cfsim.Shapes()
	for _, row := range rowsOfAnswers(t, "shape | the answer | rotate | create") {
		shape := row[0]
		left = slices.DeleteFunc(left, func(s string) bool { return s == shape })
		for i, operation := range []string{cfsim.OpRotate, cfsim.OpCreate} {
			w := newShapedWorld(t, operation, shape, time.Hour, inMemory())
			if got := w.outcome(t, shape); got != row[2+i] {
				t.Errorf("%s of a %s: %s, documented is %s", shape, operation, got, row[2+i])
			}
		}
	}
	for _, row := range rowsOfAnswers(t, listingColumns) {
		left = slices.DeleteFunc(left, func(s string) bool { return s == row[0] })
	}
	if len(left) > 0 {
		t.Errorf("not documented: %q", left)
	}
}

const listingColumns = "shape | the listing | the inventory | `create`"

// TestListingsAreDocumented has each row about listings answered to a real client. What is not known
// to be absent is not created.
func TestListingsAreDocumented(t *testing.T) {
	for _, row := range rowsOfAnswers(t, listingColumns) {
		w := newShapedWorld(t, cfsim.OpList, row[0], 0, inMemory())
		listing, err := w.token.Issuer.(*cloudflare.Client).List(t.Context())
		var inventory string
		switch n := len(listing.Tokens); {
		case err != nil && n == 0:
			inventory = "an error"
		case err != nil:
			inventory = "an error; the " + strconv.Itoa(n) + " that are listed are used"
		case listing.Unreadable() != "":
			inventory = "uses " + strconv.Itoa(n) + ", and says that one cannot be read"
		default:
			inventory = "uses all " + strconv.Itoa(n)
		}
		_, err = w.rotator.Advance(t.Context(), w.token)
		create := "creates none"
		if w.simulator.Stats().Count(cfsim.OpCreate) == 1 {
			create = "creates it"
		}
		if inventory != row[2] || create != row[3] || (err == nil) != (create == "creates it") {
			t.Errorf("%s: %s; %s: %v", row[0], inventory, create, err)
		}
	}
}

// TestOddAnswersInAStateDirectory: the same with answers that are sealed on disk, where the process dies
// right behind the seal. The next one finds the answer and decides the same.
func TestOddAnswersInAStateDirectory(t *testing.T) {
	for shape, want := range map[string]string{"bom": "", "gzip-twice": "", "status-500": rotation.ReasonOddAnswer, "second-secret": rotation.ReasonOddAnswer} {
		j, err := statedir.Open(statedir.Options{Dir: filepath.Join(t.TempDir(), "state")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = j.Close() })
		dying := &dyingPending{Pending: j.Pending}
		w := newShapedWorld(t, cfsim.OpRotate, shape, time.Hour, ledgerAndPending{j.Ledger, dying})
		func() {
			defer func() { _ = recover() }()
			_, _ = w.rotator.Advance(t.Context(), w.token)
		}()
		if !dying.died || w.delivered() {
			t.Fatalf("%s: it has not died behind the seal", shape)
		}
		w.start(ledgerAndPending{j.Ledger, j.Pending})
		record, err := w.rotator.Advance(t.Context(), w.token)
		if want == "" {
			if err != nil || !w.delivered() {
				t.Errorf("%s: %v", shape, err)
			}
			continue
		}
		truth, _ := w.truth()
		if all, _ := w.kept(t, record); record.Doubt == nil || record.Doubt.Reason != want || !slices.Contains(all, truth.CurrentDigest) {
			t.Errorf("%s: %+v: %v", shape, record.Doubt, err)
		}
	}
}

// dyingPending dies once it has sealed an answer.
type dyingPending struct {
	rotation.Pending
	died bool
}

func (d *dyingPending) Seal(ctx context.Context, key rotation.PendingKey, issued rotation.Issued) error {
	if err := d.Pending.Seal(ctx, key, issued); err != nil {
		return err
	}
	d.died = true
	panic("the process dies")
}
