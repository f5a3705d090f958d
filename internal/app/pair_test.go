package app_test

import (
	"strings"
	"testing"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// TestPair runs a pair through the whole daemon: its first rotation loses the answer, the second succeeds,
// and the credential in Vault is accepted all the time.
func TestPair(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for slots")
	}
	t.Parallel()
	w := newWorld(t)
	ci := w.token("ci", "@every 2s", "1s")
	partner, _, err := w.sim.Create(cfsim.CreateParams{Name: "ci-2"})
	if err != nil {
		t.Fatal(err)
	}
	w.tokens[0].Partner = partner.ID
	truth, ok := w.sim.Token(ci.ID)
	if !ok {
		t.Fatal("no such token")
	}
	used := w.truth(ci)
	w.vault.Write("secret", "access/ci", map[string]any{"client_id": truth.ClientID, "client_secret": used.Reveal()})
	if err := w.sim.Inject(cfsim.Fault{Operation: cfsim.OpRotate, Kind: cfsim.KindDrop, When: cfsim.After}); err != nil {
		t.Fatal(err)
	}
	d := w.start(w.config())
	// accepted returns which of the two service tokens Vault's credential is for, and checks that it works.
	accepted := func() string {
		stored := w.vault.Read("secret", "access/ci")
		id, _ := stored["client_id"].(string)
		value, _ := stored["client_secret"].(string)
		for _, token := range w.sim.Tokens() {
			if token.ClientID == id && (token.CurrentDigest == secret.New(value).Digest() ||
				token.PreviousDigest == secret.New(value).Digest() && time.Now().Before(token.PreviousExpiresAt)) {
				return token.ID
			}
		}
		t.Fatal("what Vault holds is not accepted")
		return ""
	}
	w.eventually("the second of the pair is in use", func() bool { return accepted() == partner.ID })
	if doubts := d.events.of("ci", event.ResultInDoubt); len(doubts) != 1 || !w.truth(ci).Equal(used) {
		t.Errorf("%d doubts; the one in use was touched: %t", len(doubts), !w.truth(ci).Equal(used))
	}
	w.eventually("the doubt is resolved", func() bool { return len(d.logged("doubt resolved")) == 1 })
	if line := d.logged("doubt resolved")[0]; line["reason"] != rotation.ReasonSpare {
		t.Errorf("resolved because of %v", line["reason"])
	}
	d.wantMetric(`rotatord_doubt_verdicts_total{reason="spare"}`, 1)
	w.eventually("the first of the pair is in use", func() bool { return accepted() == ci.ID })
	w.eventually("the status follows", func() bool { return d.status("ci").TokenID == ci.ID })
	if s := d.status("ci"); s.Strategy != "pair" || s.Spare != partner.ID || s.ClientID != truth.ClientID || !s.Enabled {
		t.Errorf("the status is %+v", s)
	}
	if _, body := d.get("/metrics"); !strings.Contains(body, `strategy="pair"`) {
		t.Error("the metrics do not say that it is a pair")
	}
}

// TestOldSecretIsExtended loses an answer. The grace of the old secret is extended at Cloudflare until the
// token is reissued.
func TestOldSecretIsExtended(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a grace to end")
	}
	t.Parallel()
	w := newWorld(t)
	ci := w.due("ci", "4s")
	if err := w.sim.Inject(cfsim.Fault{Operation: cfsim.OpRotate, Kind: cfsim.KindStatus, Status: 502, When: cfsim.After}); err != nil {
		t.Fatal(err)
	}
	d := w.start(w.config())
	var promised time.Time
	w.eventually("the token is in doubt", func() bool {
		token, _ := w.sim.Token(ci.ID)
		promised = token.PreviousExpiresAt
		return d.status("ci").State == "in_doubt"
	})
	w.eventually("the grace is extended", func() bool { v, _ := d.metric(`rotatord_grace_extensions_total{result="success"}`); return v >= 2 })
	if token, _ := w.sim.Token(ci.ID); token.PreviousExpiresAt.Sub(promised) < 2*time.Second || token.Rotations != 1 {
		t.Errorf("the old secret works until %s, promised was %s; %d rotations", token.PreviousExpiresAt, promised, token.Rotations)
	}
	if len(d.logged("the old secret's grace was extended, since consumers have nothing else yet")) < 2 {
		t.Error("the log does not tell of it")
	}
	w.eventually("it is reissued", func() bool { return w.delivered(ci) && !d.status("ci").LastSuccess.IsZero() })
	if token, _ := w.sim.Token(ci.ID); token.Rotations != 2 {
		t.Errorf("%d rotations", token.Rotations)
	}
}
