package bench

import (
	"context"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rotatord/internal/app"
	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/statedir"
	"rotatord/internal/vault/vaulttest"
)

// BenchmarkRecoverUnfinished starts the whole daemon on the ledger of one that died with n
// secrets sealed and none of them delivered, over HTTP on loopback with the KV double: from
// the start until every one is delivered and its rotation closed.
func BenchmarkRecoverUnfinished(b *testing.B) {
	const n = 1000
	simulator := httptest.NewServer(cfsim.New(cfsim.Options{SeedTokens: n, RateLimit: -1}))
	defer simulator.Close()
	for b.Loop() {
		b.StopTimer()
		kv := vaulttest.New(vaulttest.Options{RootToken: "root", Mounts: []vaulttest.Mount{{Path: "secret", Version: 2}}})
		server := httptest.NewServer(kv)
		c := unfinished(b, n, simulator.URL, server.URL)
		b.StartTimer()

		a, err := app.New(app.Options{Config: c})
		if err != nil {
			b.Fatal(err)
		}
		a.Start()
		for left := n; left > 0; time.Sleep(5 * time.Millisecond) {
			left = 0
			for _, t := range a.Tokens() {
				if t.State != "idle" {
					left++
				}
			}
		}
		b.StopTimer()
		if kv.Writes() != n {
			b.Fatalf("%d writes", kv.Writes())
		}
		if err := a.Stop(context.Background()); err != nil {
			b.Fatal(err)
		}
		server.Close()
		b.StartTimer()
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/1000-records")
}

// unfinished makes a state directory with n sealed answers, and the configuration for it.
func unfinished(b *testing.B, n int, cloudflareURL, vaultURL string) *config.Config {
	b.Helper()
	dir := filepath.Join(b.TempDir(), "state")
	j, err := statedir.Open(statedir.Options{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	credential := secretFile(b, "root").File
	var text strings.Builder
	fmt.Fprintf(&text, `listen: 127.0.0.1:0
state: {dir: %s}
accounts: {prod: {account_id: %s, api_token: {file: %s}, base_url: %s}}
vault: {address: %s, auth: {token: {file: %s}}}
defaults: {account: prod, schedule: "@weekly"}
tokens:
`, dir, cfsim.DefaultAccountID, credential, cloudflareURL+cfsim.BasePath, vaultURL, credential)
	now := time.Now().UTC()
	for i := range n {
		name, id := fmt.Sprintf("token-%04d", i), cfsim.SeedTokenID(i+1)
		fmt.Fprintf(&text, "  %s: {id: %s, sinks: [{vault: {mount: secret, path: %s}}]}\n", name, id, name)
		value := secret.New(fmt.Sprintf("cfast_%048d", i))
		key := rotation.PendingKey{RotationID: fmt.Sprint("R", i), Token: name, TokenID: id}
		issued := rotation.Issued{Credential: rotation.Credential{ClientID: "id.access", ClientSecret: value}}
		if err := j.Pending.Reserve(b.Context(), key); err != nil {
			b.Fatal(err)
		}
		if err := j.Pending.Seal(b.Context(), key, issued); err != nil {
			b.Fatal(err)
		}
		_, err := j.Ledger.Save(b.Context(), rotation.Record{
			Format: rotation.RecordFormat, Token: name, TokenID: id, Account: "prod", Anchor: now.Add(-time.Hour), Step: rotation.StepSealed,
			Work: &rotation.Work{RotationID: key.RotationID, TokenID: id, Slot: now, Grace: rotation.Grace(24 * time.Hour), IntentAt: now,
				SealedAt: now, Digest: value.Digest(), GraceEndsAt: now.Add(24 * time.Hour)},
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	c, err := config.Parse("config.yaml", []byte(text.String()))
	if err != nil {
		b.Fatal(err)
	}
	return c
}
