package realvault_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/doctor"
	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
	"rotatord/test/program"
	"rotatord/test/realvault"
)

var rotatord = program.Rotatord()

// TestDoctorShared: with the least rights of a replica doctor finds nothing to complain about at a real Vault, and it
// finds each right that is missing by Vault's own answers.
func TestDoctorShared(t *testing.T) {
	v := realvault.Start(t)
	v.MountKV(t, "secret", 2, false)
	v.MountKV(t, "old", 1, false)
	shared := &config.Shared{Mount: "secret", Prefix: "rotatord", Claim: 2 * time.Minute, Replica: "a"}
	roleID, secretID := v.AppRole(t, replicasPolicy(t), "1h", "2h")
	approle := config.Vault{Address: v.Address, Auth: &config.AppRole{Mount: "approle", RoleID: secretFile(t, roleID), SecretID: secretFile(t, secretID)}}
	wants(t, "the least rights", examineShared(t, approle, shared), doctor.SharedGood, doctor.SharedClockGood, doctor.SharedReplicas)
	wants(t, "another prefix", examineShared(t, approle, &config.Shared{Mount: "secret", Prefix: "other", Claim: time.Minute, Replica: "a"}), doctor.SharedRights)
	if _, err := v.Root(t).Logical().Write("secret/data/rotatord/ci/key", map[string]any{"data": map[string]any{"a": "b"}}); err != nil {
		t.Fatal(err)
	}
	wants(t, "a secret below the prefix", examineShared(t, approle, shared), doctor.SharedForeign)
	for _, right := range []string{`"create", "read", "update"`, `"create", "update", "list", "delete"`, `"create", "update", "list"`} {
		lacking := strings.ReplaceAll(realvault.ReplicasPolicy(t), "["+right+"]", "["+right[strings.Index(right, ",")+1:]+"]")
		lacking = strings.ReplaceAll(lacking, `, "list"]`, "]")
		if err := v.Root(t).Sys().PutPolicy("rotatord", realvault.LeastPolicy(t)+lacking); err != nil {
			t.Fatal(err)
		}
		if text := fmt.Sprint(examineShared(t, approle, shared)); !strings.Contains(text, string(doctor.SharedRights)) {
			t.Errorf("without the first of %s, and without list: %s", right, text)
		}
	}
}

// TestLedgerMoves: a local ledger moves to a real Vault and back, by the program and with the least rights, and
// nothing of it is lost. Vault keeps few versions of each record.
func TestLedgerMoves(t *testing.T) {
	binary, err := rotatord()
	if err != nil {
		t.Fatal(err)
	}
	v := realvault.Start(t)
	v.MountKV(t, "secret", 2, false)
	roleID, secretID := v.AppRole(t, replicasPolicy(t), "1h", "2h")
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	const tokens = 300
	before := localLedger(t, state, tokens)

	write := func(name, state string) string {
		path := filepath.Join(dir, name)
		text := fmt.Sprintf(`
state: %s
accounts: {main: {account_id: 023e105f4ecef8ad9ca31a8372d0c353, api_token: {file: %s}}}
vault: {address: %s, auth: {approle: {role_id: {file: %s}, secret_id: {file: %s}}}}
tokens: {t-000: {account: main, id: f174e90a-fafe-4643-bbbc-4a0ed4fc8415, schedule: "@weekly", sinks: [{vault: {mount: secret, path: access/ci}}]}}
`, state, secretFile(t, "made-up").File, v.Address, secretFile(t, roleID).File, secretFile(t, secretID).File)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	local := write("local.yaml", "{dir: "+state+"}")
	replica := write("replica.yaml", "{dir: "+state+", shared: {vault: {mount: secret, prefix: rotatord}, replica: a}}")
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), binary, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run("ledger", "export", "-c", local, "--out", "there.jsonl")
	began := time.Now()
	out := run("ledger", "import", "there.jsonl", "-c", replica, "--login")
	t.Logf("%d records were written to Vault in %s", tokens, time.Since(began).Round(time.Millisecond))
	if !strings.Contains(out, "300 written, 0 were there") {
		t.Errorf("import: %s", out)
	}
	if out := run("ledger", "import", "there.jsonl", "-c", replica, "--login"); !strings.Contains(out, "0 written, 300 were there") {
		t.Errorf("repeated: %s", out)
	}
	if out := run("plan", "-c", replica, "-o", "json", "--login"); !strings.Contains(out, `"counted_from": "ledger"`) {
		t.Errorf("plan does not read the shared ledger: %s", out)
	}
	metadata, err := v.Root(t).Logical().Read("secret/metadata/rotatord/tokens/t-000")
	if err != nil || metadata == nil || fmt.Sprint(metadata.Data["max_versions"]) != "3" {
		t.Errorf("the versions that Vault keeps: %v, %v", metadata, err)
	}
	run("ledger", "export", "-c", replica, "--out", "back.jsonl", "--login")
	run("ledger", "import", "back.jsonl", "-c", local)

	d, err := statedir.Open(statedir.Options{Dir: state})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	after, err := d.Ledger.All(t.Context())
	if err != nil || len(after) != tokens {
		t.Fatalf("%d records, %v", len(after), err)
	}
	for _, r := range after {
		if r.Revision = before[r.Token].Revision; fmt.Sprintf("%+v", r) != fmt.Sprintf("%+v", before[r.Token]) {
			t.Errorf("it has changed:\n%+v\n%+v", before[r.Token], r)
		}
	}
	pauses, err := d.Ledger.LoadPauses(t.Context())
	if err != nil || len(pauses) != 2 || pauses["t-001"].Reason != "the mill moves" {
		t.Errorf("pauses: %v, %v", pauses, err)
	}
}

// localLedger writes a local ledger, and returns its records by token.
func localLedger(t *testing.T, dir string, n int) map[string]rotation.Record {
	t.Helper()
	d, err := statedir.Open(statedir.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]rotation.Record, n)
	at := time.Date(2026, 11, 29, 2, 0, 0, 123456789, time.UTC)
	for i := range n {
		r := rotation.Record{
			Format: rotation.RecordFormat, Token: fmt.Sprintf("t-%03d", i), TokenID: "f174e90a-fafe-4643-bbbc-4a0ed4fc8415", Account: "main", Anchor: at,
			Failures: i % 3, LastError: "it failed: <\"ü\">", Abandoned: []string{fmt.Sprintf("R%d", i)}, OldDiesBy: at.Add(time.Duration(i)),
		}
		saved, err := d.Ledger.Save(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		all[r.Token] = saved
	}
	for token, p := range map[string]rotation.Pause{rotation.AllTokens: {Since: at}, "t-001": {Since: at, Until: at.Add(time.Hour), Reason: "the mill moves", By: "root"}} {
		if _, err := d.Ledger.SetPause(t.Context(), token, &p); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return all
}
