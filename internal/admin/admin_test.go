//go:build linux

package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/admin"
	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/status"
)

// canary looks like a client secret. It must come out nowhere.
const canary = "cfast_CANARYcanaryCANARYcanaryCANARYcanary0123deadbeef"

// asStranger makes the test binary a client of its own: see TestMain.
const asStranger = "ADMIN_TEST_SOCKET"

// TestMain resolves the token ci at a socket, in the place of the tests, if it is asked to.
func TestMain(m *testing.M) {
	if path := os.Getenv(asStranger); path != "" {
		_, err := admin.NewClient(path).Resolve(context.Background(), "ci", rotation.ResolveLook)
		fmt.Println(err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fakeDaemon answers what it is told to and remembers what it was asked.
type fakeDaemon struct {
	tokens   []status.Token
	replicas *status.Replicas
	resolve  func(ctx context.Context, name string, how rotation.Resolution) (admin.Outcome, error)
	err      error // of the other orders

	mu    sync.Mutex
	asked []string
}

func (d *fakeDaemon) Token(name string) (status.Token, bool) {
	i := slices.IndexFunc(d.tokens, func(t status.Token) bool { return t.Name == name })
	if i < 0 {
		return status.Token{}, false
	}
	return d.tokens[i], true
}

func (d *fakeDaemon) TokensAfter(name string, n int) []status.Token {
	left := slices.DeleteFunc(slices.Clone(d.tokens), func(t status.Token) bool { return t.Name <= name })
	slices.SortFunc(left, func(a, b status.Token) int { return strings.Compare(a.Name, b.Name) })
	return left[:min(n, len(left))]
}

func (d *fakeDaemon) History(_ context.Context, q status.HistoryQuery) (status.History, error) {
	return status.History{Entries: []status.HistoryEntry{{Seq: 7, At: now, Kind: "rotation.failed", Token: q.Token, By: "alice", Message: "it failed", Error: canary}}, More: q.Limit == 1}, d.err
}
func (d *fakeDaemon) Replicas() *status.Replicas { return d.replicas }

func (d *fakeDaemon) LookAtVault(context.Context) []admin.Finding {
	return []admin.Finding{{Level: "bad", Code: "vault_login", Subject: "vault", Message: "refused cfast_" + strings.Repeat("Ab12", 12), Advice: "look"}}
}

func (d *fakeDaemon) Pending() (int, time.Time) { return 2, now }

func (d *fakeDaemon) Checks() []status.Check {
	return []status.Check{{Name: status.CheckVault, OK: true, LookedAt: now}}
}

func (d *fakeDaemon) Resolve(ctx context.Context, name string, how rotation.Resolution) (admin.Outcome, error) {
	d.mu.Lock()
	d.asked = append(d.asked, name+" "+string(how))
	d.mu.Unlock()
	return d.resolve(ctx, name, how)
}

func (d *fakeDaemon) ask(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, fmt.Sprintf(format, args...))
}

func (d *fakeDaemon) Progress(account string) (admin.Progress, error) {
	if account != "prod" {
		return admin.Progress{}, fmt.Errorf("%w %q is configured", admin.ErrNoAccount, account)
	}
	return admin.Progress{Account: account, Tokens: 3, Left: []admin.Left{{Token: "ci", LastError: "it is " + canary}}}, nil
}

func (d *fakeDaemon) RotateAll(_ context.Context, account string, o rotation.Overrides, by string) (admin.Progress, error) {
	d.ask("rotate all of %s %+v by %t", account, o, by != "")
	p, err := d.Progress(account)
	p.Problems = []string{"db: " + canary}
	return p, errors.Join(d.err, err)
}

func (d *fakeDaemon) CancelAll(_ context.Context, account string) (admin.Progress, error) {
	d.ask("cancel all of %s", account)
	return admin.Progress{Account: account, Cancelled: 2}, d.err
}

func (d *fakeDaemon) Cancel(_ context.Context, name string) (admin.Cancelled, error) {
	d.ask("cancel the order of %s", name)
	return admin.Cancelled{Token: d.tokens[1]}, d.err
}

func (d *fakeDaemon) RevokePrevious(_ context.Context, name string, inUse bool) (admin.Grace, error) {
	d.ask("revoke the previous secret of %s%s", name, map[bool]string{true: " in use"}[inUse])
	return admin.Grace{Token: d.tokens[1], EndsAt: now}, d.err
}

func (d *fakeDaemon) TestNotify(_ context.Context, receiver string) ([]status.NotifyTest, error) {
	if receiver == "other" {
		return nil, errors.New("there is no receiver of notifications with the name \"other\"")
	}
	return []status.NotifyTest{{Receiver: "night", Place: "the URL in file /u", ID: "1"}, {Receiver: "mail", Place: "a@b.c", ID: "2", Error: "cfast_" + strings.Repeat("Ab12", 12)}}, nil
}

func (d *fakeDaemon) ExtendGrace(_ context.Context, name string, grace time.Duration) (admin.Grace, error) {
	d.ask("extend the grace of %s by %s", name, grace)
	return admin.Grace{Token: d.tokens[1], EndsAt: now}, d.err
}

func (d *fakeDaemon) RunHooks(_ context.Context, name string, hooks []string) (admin.Hooked, error) {
	d.ask("run the hooks of %s %q", name, hooks)
	return admin.Hooked{Token: d.tokens[1]}, d.err
}

func (d *fakeDaemon) DropHooks(_ context.Context, name string) (admin.Hooked, error) {
	d.ask("drop the hooks of %s", name)
	return admin.Hooked{Token: d.tokens[1]}, d.err
}

func (d *fakeDaemon) Rotate(_ context.Context, name string, o rotation.Overrides, by string) (admin.Rotated, error) {
	if by == "" {
		d.ask("nobody asks for it")
	}
	d.ask("rotate %s %+v", name, o)
	return admin.Rotated{Token: d.tokens[1], RotationID: "R1", Digest: "sha256:d", GraceEndsAt: now}, d.err
}

func (d *fakeDaemon) Pause(_ context.Context, name string, p rotation.Pause) (admin.Paused, error) {
	d.ask("pause %q until %s by %s: %s", name, p.Until.Format(time.RFC3339), p.By, p.Reason)
	if time.Since(p.Since) > time.Minute {
		d.ask("since %s", p.Since)
	}
	return admin.Paused{Token: name, Pause: &status.Pause{Since: now}, InProgress: []string{"ci"}}, d.err
}

func (d *fakeDaemon) Resume(_ context.Context, name string) (admin.Paused, error) {
	d.ask("resume %q", name)
	return admin.Paused{Token: name}, d.err
}

func (d *fakeDaemon) commands() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.asked...)
}

// buffer is a log that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// audit returns the audit lines, without time and level.
// String returns what was written so far.
func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *buffer) audit(t *testing.T) []map[string]any {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []map[string]any
	for line := range strings.Lines(b.b.String()) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		if entry["msg"] == "admin command" && entry["level"] == "INFO" {
			delete(entry, "time")
			found = append(found, entry)
		}
	}
	return found
}

func newDaemon() *fakeDaemon {
	d := &fakeDaemon{tokens: []status.Token{
		{Name: "backup", State: "idle"},
		{Name: "ci", State: status.InDoubt, LastError: "an answer with " + canary, Doubt: &status.Doubt{Reason: "outcome_unknown", Detail: "detail " + canary, Since: now}},
	}}
	d.resolve = func(context.Context, string, rotation.Resolution) (admin.Outcome, error) {
		return admin.Outcome{Token: d.tokens[1], Doubt: *d.tokens[1].Doubt, Reason: "old_secret_works", Problem: "asked without success: " + canary}, nil
	}
	return d
}

// serve serves a daemon on a real socket.
func serve(t *testing.T, d admin.Daemon, allow ...config.Allow) (path string, log *buffer) {
	t.Helper()
	path, log = filepath.Join(t.TempDir(), "admin.sock"), &buffer{}
	listener, err := admin.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.NewJSONHandler(log, nil))
	server := admin.NewServer(d, logger, event.NewStream(time.Now, nil, event.NewLog(logger)).Tell, func() []config.Allow { return allow })
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Errorf("stopping the server: %v", err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serving: %v", err)
		}
		log.mu.Lock()
		defer log.mu.Unlock()
		if text := log.b.String(); secret.Scrub(text) != text {
			t.Errorf("the log holds a secret:\n%s", text)
		}
	})
	return path, log
}

// request sends anything to a socket, below what Client would send.
func request(t *testing.T, socket, method, path, body string) (*http.Response, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://rotatord"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(content)
}

func TestOverview(t *testing.T) {
	d := newDaemon()
	path, log := serve(t, d)
	client := admin.NewClient(path)
	got, err := client.Tokens(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := admin.Overview{Tokens: status.Scrubbed(d.tokens), PendingSecrets: 2, PendingSince: now, Checks: d.Checks(),
		Troubles: status.Troubles(d.tokens, d.Checks(), time.Now())}
	if len(want.Troubles) != 1 || want.Troubles[0].Kind != "in_doubt" {
		t.Errorf("the troubles are %+v", want.Troubles)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("all (-want +got):\n%s", diff)
	}
	want.Tokens = want.Tokens[1:]
	if got, err = client.Token(t.Context(), "ci"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("one (-want +got):\n%s", diff)
	}
	for name, hint := range map[string]string{
		"cd": "did you mean ci?", "zzzzzz": "known here: backup, ci", "ci/../backup": "known here: backup, ci", "ü <b>?#%": "known here: backup, ci",
	} {
		_, err := client.Token(t.Context(), name)
		refused, ok := errors.AsType[*admin.Refused](err)
		if want := fmt.Sprintf("no token %q is configured: %s", name, hint); !ok || refused.Code != http.StatusNotFound || refused.Message != want {
			t.Errorf("%q: %v, want %s", name, err, want)
		}
	}
	d.tokens = nil
	if res, body := request(t, path, http.MethodGet, "/v1/tokens", ""); res.StatusCode != http.StatusOK || !strings.Contains(body, `"tokens":[]`) {
		t.Errorf("without tokens: %s %s", res.Status, body)
	}
	if lines := log.audit(t); len(lines) != 0 {
		t.Errorf("looking was put into the audit log: %v", lines)
	}
}

func TestResolve(t *testing.T) {
	d := newDaemon()
	path, log := serve(t, d)
	client := admin.NewClient(path)
	o, err := client.Resolve(t.Context(), "ci", rotation.ResolveLook)
	if err != nil {
		t.Fatal(err)
	}
	if o.Resolved || o.Reason != "old_secret_works" || o.Doubt.Reason != "outcome_unknown" || o.Token.Name != "ci" ||
		o.Problem != "asked without success: "+secret.Redacted || o.Doubt.Detail != "detail "+secret.Redacted || o.Token.LastError != "an answer with "+secret.Redacted {
		t.Errorf("the outcome is %+v", o)
	}
	d.resolve = func(context.Context, string, rotation.Resolution) (admin.Outcome, error) {
		return admin.Outcome{Resolved: true, Reason: "operator_rotate_now"}, nil
	}
	if o, err := client.Resolve(t.Context(), "ci", rotation.ResolveRotateNow); err != nil || !o.Resolved {
		t.Errorf("the outcome is %+v, %v", o, err)
	}
	if diff := cmp.Diff([]string{"ci look", "ci rotate_now"}, d.commands()); diff != "" {
		t.Errorf("the daemon was asked (-want +got):\n%s", diff)
	}
	line := func(how, outcome string) map[string]any {
		l := map[string]any{
			"level": "INFO", "msg": "admin command", "verb": "resolve", "token": "ci", "how": how, "outcome": outcome,
			"uid": float64(os.Getuid()), "gid": float64(os.Getgid()), "pid": float64(os.Getpid()),
		}
		if os.Getuid() == 0 {
			l["user"] = "root"
		}
		return l
	}
	got := log.audit(t)
	if os.Getuid() != 0 { // whether it has a name is not for us to say
		for _, l := range got {
			delete(l, "user")
		}
	}
	if diff := cmp.Diff([]map[string]any{line("look", "still in doubt: old_secret_works"), line("rotate_now", "resolved: operator_rotate_now")}, got); diff != "" {
		t.Errorf("the audit log (-want +got):\n%s", diff)
	}
}

// TestEmergency gives the orders for secrets that others may have: of one account, and about
// previous secrets.
func TestEmergency(t *testing.T) {
	d := newDaemon()
	path, log := serve(t, d)
	client := admin.NewClient(path)
	p, err := client.RotateAll(t.Context(), "prod", rotation.Overrides{RevokeNow: true})
	if err != nil || p.Tokens != 3 || len(p.Left) != 1 || p.Left[0].LastError != "it is "+secret.Redacted || p.Problems[0] != "db: "+secret.Redacted {
		t.Errorf("rotate all: %+v, %v", p, err)
	}
	if p, err := client.Progress(t.Context(), "prod"); err != nil || len(p.Left) != 1 || p.Left[0].LastError != "it is "+secret.Redacted {
		t.Errorf("progress: %+v, %v", p, err)
	}
	for _, unknown := range []func() error{
		func() error { _, err := client.Progress(t.Context(), "nope"); return err },
		func() error { _, err := client.RotateAll(t.Context(), "nope", rotation.Overrides{}); return err },
	} {
		if refused, ok := errors.AsType[*admin.Refused](unknown()); !ok || refused.Code != http.StatusNotFound {
			t.Error("an account that is not configured:", unknown())
		}
	}
	if p, err := client.CancelAll(t.Context(), "prod"); err != nil || p.Cancelled != 2 {
		t.Errorf("cancel: %+v, %v", p, err)
	}
	if g, err := client.RevokePrevious(t.Context(), "ci"); err != nil || !g.EndsAt.Equal(now) || g.Token.LastError != "an answer with "+secret.Redacted {
		t.Errorf("revoke-previous: %+v, %v", g, err)
	}
	if g, err := client.RevokeInUse(t.Context(), "ci"); err != nil || !g.EndsAt.Equal(now) {
		t.Errorf("revoke-previous --override-in-use: %+v, %v", g, err)
	}
	if o, err := client.Cancel(t.Context(), "ci"); err != nil || o.Token.LastError != "an answer with "+secret.Redacted {
		t.Errorf("cancel of one: %+v, %v", o, err)
	}
	if tests, err := client.TestNotify(t.Context(), ""); err != nil || len(tests.Receivers) != 2 || tests.Receivers[0].ID != "1" || strings.Contains(tests.Receivers[1].Error, "cfast_") {
		t.Errorf("%+v, %v", tests, err)
	}
	if _, err := client.TestNotify(t.Context(), "other"); err == nil || !strings.Contains(err.Error(), "no receiver of notifications") {
		t.Errorf("%v", err)
	}
	if g, err := client.ExtendGrace(t.Context(), "ci", 90*time.Minute); err != nil || !g.EndsAt.Equal(now) {
		t.Errorf("extend-grace: %+v, %v", g, err)
	}
	for _, grace := range []time.Duration{0, -time.Hour, 721 * time.Hour} {
		if _, err := client.ExtendGrace(t.Context(), "ci", grace); err == nil || !strings.Contains(err.Error(), "at most 720h") {
			t.Errorf("a grace of %s: %v", grace, err)
		}
	}
	d.err = fmt.Errorf("%w: there is none", rotation.ErrNoPrevious)
	if _, err := client.RevokePrevious(t.Context(), "ci"); err == nil {
		t.Error("a refusal is not an error")
	} else if refused, ok := errors.AsType[*admin.Refused](err); !ok || refused.Code != http.StatusConflict {
		t.Error(err)
	}
	want := []string{
		"rotate all of prod {Freeze:false Pause:false Grace:false RevokeNow:true} by true",
		"rotate all of nope {Freeze:false Pause:false Grace:false RevokeNow:false} by true",
		"cancel all of prod", "revoke the previous secret of ci", "revoke the previous secret of ci in use", "cancel the order of ci", "extend the grace of ci by 1h30m0s", "revoke the previous secret of ci",
	}
	if diff := cmp.Diff(want, d.commands()); diff != "" {
		t.Errorf("the daemon was asked (-want +got):\n%s", diff)
	}
	var verbs []string
	for _, l := range log.audit(t) {
		verbs = append(verbs, fmt.Sprint(l["verb"], " ", l["token"], " ", l["account"], ": ", l["outcome"]))
	}
	wantAudit := []string{
		"rotate-all (all) prod: ordered: 1 of 3 tokens are to be rotated", "rotate-all (all) nope: refused", "cancel-all (all) prod: cancelled: 2 orders",
		"revoke-previous ci <nil>: the previous secret was revoked", "revoke-previous ci <nil>: the previous secret was revoked",
		"cancel ci <nil>: the order was cancelled", "notify-test (all) <nil>: taken by 1 of 2", "notify-test (all) <nil>: refused", "extend-grace ci <nil>: the previous secret works until " + now.UTC().Format(time.RFC3339),
		"extend-grace ci <nil>: refused", "extend-grace ci <nil>: refused", "extend-grace ci <nil>: refused", "revoke-previous ci <nil>: refused",
	}
	if diff := cmp.Diff(wantAudit, verbs); diff != "" {
		t.Errorf("the audit log (-want +got):\n%s", diff)
	}
}

// TestRotateAndPause gives the orders that are about the schedule, of one token and of all.
func TestRotateAndPause(t *testing.T) {
	d := newDaemon()
	path, log := serve(t, d)
	client := admin.NewClient(path)
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	r, err := client.Rotate(t.Context(), "ci", rotation.Overrides{Freeze: true, Grace: true})
	if err != nil || r.RotationID != "R1" || r.Token.Name != "ci" || !r.GraceEndsAt.Equal(now) || r.Token.LastError != "an answer with "+secret.Redacted {
		t.Errorf("rotate: %+v, %v", r, err)
	}
	p, err := client.Pause(t.Context(), "ci", until, "with "+canary)
	if err != nil || p.Token != "ci" || p.Pause == nil || len(p.InProgress) != 1 {
		t.Errorf("pause: %+v, %v", p, err)
	}
	if _, err := client.Pause(t.Context(), rotation.AllTokens, time.Time{}, ""); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"ci", rotation.AllTokens} {
		if p, err := client.Resume(t.Context(), name); err != nil || p.Token != name || p.Lifted != nil {
			t.Errorf("resume: %+v, %v", p, err)
		}
	}
	by := fmt.Sprint("uid ", os.Getuid())
	if os.Getuid() == 0 {
		by = "root"
	}
	want := []string{
		"rotate ci {Freeze:true Pause:false Grace:true RevokeNow:false}",
		fmt.Sprintf(`pause "ci" until %s by %s: with %s`, until.Format(time.RFC3339), by, secret.Redacted),
		fmt.Sprintf(`pause "" until 0001-01-01T00:00:00Z by %s: `, by),
		`resume "ci"`, `resume ""`,
	}
	if os.Getuid() == 0 { // whether another user has a name is not for us to say
		if diff := cmp.Diff(want, d.commands()); diff != "" {
			t.Errorf("the daemon was asked (-want +got):\n%s", diff)
		}
	}
	lines := log.audit(t)
	if len(lines) != 5 || lines[0]["override_freeze"] != true || lines[0]["outcome"] != "rotated: R1" || lines[1]["reason"] != "with "+secret.Redacted ||
		lines[2]["token"] != "(all)" || lines[2]["outcome"] != "paused" || lines[4]["outcome"] != "was not paused" {
		t.Errorf("the audit log is %v", lines)
	}
	if _, err := client.Pause(t.Context(), "ci", now.Add(-time.Hour), ""); err == nil || !strings.Contains(err.Error(), "is in the past") {
		t.Errorf("until the past: %v", err)
	}
	for _, reason := range []string{"two\nlines", strings.Repeat("x", 201)} {
		if _, err := client.Pause(t.Context(), "ci", until, reason); err == nil || !strings.Contains(err.Error(), "one line of at most 200 bytes") {
			t.Errorf("%q: %v", reason, err)
		}
	}
	if n := len(d.commands()); n != 5 {
		t.Errorf("the daemon was asked %d times", n)
	}
	d.err = fmt.Errorf("%w: the freeze year-end lasts", rotation.ErrNotRotated)
	_, err = client.Rotate(t.Context(), "ci", rotation.Overrides{})
	if refused, ok := errors.AsType[*admin.Refused](err); !ok || refused.Code != http.StatusConflict || refused.Message != d.err.Error() {
		t.Errorf("delayed: %v", err)
	}
}

// TestRefused has the daemon refuse, or fail, in each way.
func TestRefused(t *testing.T) {
	d := newDaemon()
	path, log := serve(t, d)
	for i, c := range []struct {
		err     error
		code    int
		outcome string
	}{
		{fmt.Errorf("ci is %w: its state is idle, %s", rotation.ErrNotInDoubt, canary), http.StatusConflict, "refused"},
		{fmt.Errorf("%w: it was carried out, %s", rotation.ErrUnfit, canary), http.StatusConflict, "refused"},
		{fmt.Errorf("%w: disk full, %s", rotation.ErrLedger, canary), http.StatusInternalServerError, "failed: the ledger could not be written"},
		{fmt.Errorf("asking %s: %w", canary, context.DeadlineExceeded), http.StatusGatewayTimeout, "failed: it did not end in time"},
		{&rotation.IssuerError{Class: rotation.Unknown, Message: canary}, http.StatusInternalServerError, "failed: it is not known whether Cloudflare carried it out"},
		{&rotation.IssuerError{Class: rotation.NotCarriedOut, Message: canary}, http.StatusInternalServerError, "failed: nothing was sent to Cloudflare"},
		{&rotation.IssuerError{Class: rotation.Refused, Message: canary}, http.StatusInternalServerError, "failed: Cloudflare refused it"},
		{&admin.Unfinished{Outcome: "rotated: the new secret is not in every sink yet", Err: errors.New(canary)}, http.StatusInternalServerError,
			"rotated: the new secret is not in every sink yet"},
	} {
		d.resolve = func(context.Context, string, rotation.Resolution) (admin.Outcome, error) {
			return admin.Outcome{}, c.err
		}
		_, err := admin.NewClient(path).Resolve(t.Context(), "ci", rotation.ResolveDeliver)
		refused, ok := errors.AsType[*admin.Refused](err)
		if want := secret.Scrub(c.err.Error()); !ok || refused.Code != c.code || refused.Message != want {
			t.Errorf("%v: got %+v, want %d %q", c.err, err, c.code, want)
		}
		if _, body := request(t, path, http.MethodPost, "/v1/tokens/ci/resolve", `{"how":"look"}`); strings.Contains(body, canary) {
			t.Errorf("the answer holds a secret: %s", body)
		}
		lines := log.audit(t)
		if len(lines) != 2*(i+1) || lines[2*i]["outcome"] != c.outcome || lines[2*i]["error"] != secret.Scrub(c.err.Error()) || lines[2*i]["how"] != "deliver" {
			t.Errorf("%v: the audit log is %v", c.err, lines)
		}
	}
}

// TestMalformed sends what no command of ours would. Nothing of it may reach the daemon, and
// what would have changed state is in the audit log.
func TestMalformed(t *testing.T) {
	d := newDaemon()
	path, log := serve(t, d)
	const resolve = "/v1/tokens/ci/resolve"
	audited := 0
	for _, c := range []struct {
		method, path, body string
		code               int
		message            string
	}{
		{"POST", resolve, ``, 400, "the body cannot be read: EOF"},
		{"POST", resolve, `look`, 400, "the body cannot be read"},
		{"POST", resolve, `["look"]`, 400, "the body cannot be read"},
		{"POST", resolve, `{"how": 1}`, 400, "the body cannot be read"},
		{"POST", resolve, `{"how": "look"`, 400, "the body cannot be read: unexpected EOF"},
		{"POST", resolve, `{"how": "look", "force": true}`, 400, `unknown field "force"`},
		{"POST", resolve, `{"how": "look"} {"how": "rotate_now"}`, 400, "there is something after the object"},
		{"POST", resolve, `{"how": "look"} x`, 400, "there is something after the object"},
		{"POST", resolve, `{}`, 400, `how is "", and must be one of ["look" "rotate_now" "assume_not_rotated" "deliver" "accept" "drop"]`},
		{"POST", resolve, `{"how": "LOOK"}`, 400, `how is "LOOK"`},
		{"POST", resolve, `{"how": "` + canary + `"}`, 400, `how is "` + secret.Redacted + `"`},
		{"POST", resolve, `{"how": "` + strings.Repeat("a", 5000) + `"}`, 413, "the body has more than 4096 bytes"},
		{"POST", "/v1/tokens/nosuch/resolve", `{"how": "look"}`, 404, `no token "nosuch" is configured`},
		{"POST", "/v1/tokens/" + canary + "/resolve", `{"how": "look"}`, 404, `no token "` + secret.Redacted + `" is configured`},
		{"GET", resolve, ``, 405, "GET is not allowed here; allowed: POST"},
		{"PUT", resolve, `{"how": "look"}`, 405, "PUT is not allowed here; allowed: POST"},
		{"POST", "/v1/tokens", ``, 405, "POST is not allowed here; allowed: GET, HEAD"},
		{"DELETE", "/v1/tokens/ci", ``, 405, "DELETE is not allowed here; allowed: GET, HEAD"},
		{"GET", "/", ``, 404, "does not support this request"},
		{"POST", "/v1/tokens/ci/explode", `{}`, 404, "does not support this request"},
		{"GET", "/v1/tokens/", ``, 404, "does not support this request"},
		{"GET", "/v2/tokens", ``, 404, "does not support this request"},
	} {
		res, body := request(t, path, c.method, c.path, c.body)
		var answer struct {
			Error string `json:"error"`
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil || res.StatusCode != c.code || !strings.Contains(answer.Error, c.message) {
			t.Errorf("%s %s %.60q: %s %s, want %d and %q", c.method, c.path, c.body, res.Status, body, c.code, c.message)
		}
		if got := res.Header.Get("Content-Type"); got != "application/json" {
			t.Errorf("%s %s: Content-Type %q", c.method, c.path, got)
		}
		if c.method == "POST" && strings.HasSuffix(c.path, "/resolve") {
			audited++
		}
	}
	if got := d.commands(); len(got) != 0 {
		t.Errorf("the daemon was asked: %q", got)
	}
	lines := log.audit(t)
	if len(lines) != audited {
		t.Errorf("%d audit lines for %d commands", len(lines), audited)
	}
	for _, l := range lines {
		if l["outcome"] != "refused" || l["error"] == "" || l["uid"] != float64(os.Getuid()) {
			t.Errorf("the audit line %v", l)
		}
	}
}

// TestHangingUp cancels a command that is being carried out. That must not stop it halfway.
func TestHangingUp(t *testing.T) {
	d := newDaemon()
	arrived, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	d.resolve = func(ctx context.Context, _ string, _ rotation.Resolution) (admin.Outcome, error) {
		close(arrived)
		<-goOn
		ended <- ctx.Err()
		return admin.Outcome{Resolved: true, Reason: "operator_rotate_now"}, nil
	}
	path, log := serve(t, d)
	ctx, cancel := context.WithCancel(t.Context())
	answered := make(chan error, 1)
	go func() {
		_, err := admin.NewClient(path).Resolve(ctx, "ci", rotation.ResolveRotateNow)
		answered <- err
	}()
	<-arrived
	cancel()
	if err := <-answered; !errors.Is(err, context.Canceled) {
		t.Errorf("the client's error is %v", err)
	}
	close(goOn)
	if err := <-ended; err != nil {
		t.Errorf("the daemon's context has ended: %v", err)
	}
	for end := time.Now().Add(2 * time.Minute); len(log.audit(t)) == 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	if lines := log.audit(t); len(lines) != 1 || lines[0]["outcome"] != "resolved: operator_rotate_now" {
		t.Errorf("the audit log is %v", lines)
	}
}

func TestConcurrent(t *testing.T) {
	d := newDaemon()
	path, log := serve(t, d)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			client := admin.NewClient(path)
			if _, err := client.Tokens(t.Context()); err != nil {
				t.Error(err)
			}
			if _, err := client.Resolve(t.Context(), "ci", rotation.ResolveLook); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got, lines := len(d.commands()), len(log.audit(t)); got != 16 || lines != 16 {
		t.Errorf("%d commands and %d audit lines, want 16 of each", got, lines)
	}
}

// TestWhoMay lets other users try: it is the kernel that refuses them, and that names
// those who may.
func TestWhoMay(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	const nobody = 65534
	for _, c := range []struct {
		name string
		gid  uint32
		want string // of what the client says
	}{
		{"in the group", 0, "<nil>"},
		{"in another group", nobody, "belongs to the user root and the group root (mode 0660); run the command as one of them, or as root"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDaemon()
			path, log := serve(t, d)
			for dir := filepath.Dir(path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
				if err := os.Chmod(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			// With a umask of 077, go test builds a binary that another user may not run.
			if err := os.Chmod("/proc/self/exe", 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
			cmd.Env = []string{asStranger + "=" + path}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: c.gid}}
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), c.want) {
				t.Fatalf("the client says %q (%v), want %q", out, err, c.want)
			}
			lines := log.audit(t)
			if c.gid == nobody {
				if len(lines) != 0 || len(d.commands()) != 0 {
					t.Errorf("it came through: %v", lines)
				}
				return
			}
			if len(lines) != 1 || lines[0]["uid"] != float64(nobody) || lines[0]["gid"] != float64(0) || lines[0]["pid"] != float64(cmd.Process.Pid) {
				t.Errorf("the audit log is %v", lines)
			}
		})
	}
}

// TestNoDaemon wants an error that helps, for each way in which no rotatord is there.
func TestNoDaemon(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, "left.sock")
	l, err := net.Listen("unix", left)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other.sock")
	l, err = net.Listen("unix", other)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/tokens") {
			fmt.Fprint(w, "<html>")
			return
		}
		http.Redirect(w, r, "http://elsewhere.example/", http.StatusFound)
	})}
	go func() { _ = server.Serve(l) }()
	defer server.Close()

	for path, want := range map[string]string{
		filepath.Join(dir, "nosuch.sock"):          "there is no socket at " + filepath.Join(dir, "nosuch.sock") + ": the daemon does not run on this host, or",
		filepath.Join(dir, "nosuch", "admin.sock"): "there is no socket at ",
		left:  "no process listens at " + left + ": the daemon does not run on this host, and its socket was left behind",
		file:  file + " is not a socket: check admin_socket",
		other: "the answer of the daemon at " + other + " cannot be read",
	} {
		if _, err := admin.NewClient(path).Tokens(t.Context()); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if _, err := admin.NewClient(other).Token(t.Context(), "ci"); err == nil || !strings.Contains(err.Error(), "is not rotatord (it answered 302 Found)") {
		t.Errorf("a redirect: %v", err)
	}
}

// TestOutcomeIsStable: programs read a count that is zero, and no doubt where there is none.
func TestOutcomeIsStable(t *testing.T) {
	for want, v := range map[string]any{`"cancelled":0`: admin.Progress{}, `"resolved":false`: admin.Outcome{}} {
		if text, err := json.Marshal(v); err != nil || !strings.Contains(string(text), want) || strings.Contains(string(text), `"doubt"`) {
			t.Errorf("%s, %v: want %s in it, and no doubt", text, err, want)
		}
	}
}

// TestLookAtVault: the findings come through, without what looks like a secret; and a daemon that is
// older says so.
func TestLookAtVault(t *testing.T) {
	path, _ := serve(t, newDaemon())
	got, err := admin.NewClient(path).LookAtVault(t.Context())
	if err != nil || len(got.Findings) != 1 || got.Findings[0].Code != "vault_login" || !strings.Contains(got.Findings[0].Message, secret.Redacted) {
		t.Errorf("%+v, %v", got, err)
	}
	older := filepath.Join(t.TempDir(), "older.sock")
	l, err := net.Listen("unix", older)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"error":"the daemon does not support this request"}`)
	})}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	if _, err := admin.NewClient(older).LookAtVault(t.Context()); !errors.Is(err, admin.ErrUnsupported) {
		t.Errorf("%v", err)
	}
}

// TestHookNamesInTheLog: what a client gives as the name of a hook is one line in the log, and no secret.
func TestHookNamesInTheLog(t *testing.T) {
	path, log := serve(t, newDaemon())
	pasted := "cfast_" + strings.Repeat("Ab12", 12)
	_, _ = admin.NewClient(path).RunHooks(t.Context(), "ci", []string{"exec:x", pasted, "a\nb"})
	if got := log.String(); strings.Contains(got, pasted) || strings.Contains(got, `a\nb`) || !strings.Contains(got, "exec:x") {
		t.Errorf("%s", got)
	}
}
