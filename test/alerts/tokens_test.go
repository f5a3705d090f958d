package alerts

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// options are what the token of a fault has in the configuration, beside its ID.
var options = map[string]tokenOf{
	"pending":  {more: "grace: 1h", file: true},
	"cutoff":   {more: "grace: 0s", file: true},
	"verify":   {more: `verify: {url: "$SIM/app/$ID", within: 1s}`},
	"stuck":    {more: `verify: {url: "$SIM/app/$ID", within: 1s}`},
	"restored": {more: "outside_change: restore"},
	"renewal":  {more: "renew_before: 720h"},
	"replaced": {more: "strategy: replace, grace: 5s"},
}

// tokenDesigns have all faults of single tokens at one daemon, and again at two replicas, which both see them: each alert must
// still fire once.
func tokenDesigns() []design {
	alone, shared := tokenFaults(), tokenFaults()
	for _, f := range shared {
		f.what += atReplicas
	}
	return []design{
		{name: "tokens", tokens: tokensOfFaults(alone), faults: alone, prepare: prepareTokens},
		{name: "shared", ownVault: true, replicas: true, tokens: tokensOfFaults(shared), faults: shared, prepare: prepareTokens},
	}
}

// tokensOfFaults gives each fault a token of its own.
func tokensOfFaults(faults []*fault) (tokens []tokenOf) {
	for _, f := range faults {
		token := options[f.token]
		token.name = f.token
		tokens = append(tokens, token)
	}
	return tokens
}

// prepareTokens has service tokens that end, so that no renewal is due at the start.
func prepareTokens(t *testing.T, p *place) {
	for _, token := range p.design.tokens {
		p.set(t, token.name, "expires_at", time.Now().AddDate(1, 0, 0).UTC())
		p.set(t, token.name, "last_seen_at", time.Now().UTC())
	}
}

// tokenFaults are faults of single tokens of one daemon.
func tokenFaults() []*fault {
	in := func(days int) time.Time { return time.Now().AddDate(0, 0, days).UTC() }
	set := func(token, field string, value any) func(*testing.T, *place) {
		return func(t *testing.T, p *place) { p.set(t, token, field, value) }
	}
	away := func(token string) func(*testing.T, *place) {
		return func(t *testing.T, p *place) {
			p.slowly(t, token, "5s", func() { rename(t, p.folder(token), p.folder(token)+".away") })
		}
	}
	back := func(token string) func(*testing.T, *place) {
		return func(t *testing.T, p *place) { rename(t, p.folder(token)+".away", p.folder(token)) }
	}
	return []*fault{
		{token: "doubt", what: "the answer to a rotation is lost, and Cloudflare does not say what happened", alerts: []string{"RotatordTokenInDoubt"},
			provoke: func(t *testing.T, p *place) {
				p.fault(t, "doubt", `"operation": "get", "kind": "status", "status": 500, "count": -1`)
				p.fault(t, "doubt", `"operation": "rotate", "kind": "drop", "when": "after"`)
				p.rotate("doubt")
			},
			mend: func(t *testing.T, p *place) {
				clearFaults(t, p)
				progress("resolve: %s", firstLines(p.rotatord("resolve", "doubt", "--rotate-now"), 2))
			}},
		{token: "reissue", what: "a secret is lost, and Cloudflare answers 500 to the next rotation", alerts: []string{"RotatordReissueDelayed"},
			provoke: func(t *testing.T, p *place) {
				p.fault(t, "reissue", `"operation": "rotate", "kind": "drop", "when": "after"`)
				p.rotate("reissue")
				p.fault(t, "reissue", rotateFails)
				progress("resolve: %s", firstLines(p.rotatord("resolve", "reissue", "--rotate-now"), 2))
			}, mend: clearFaults},
		{token: "intent", what: "the answer to a rotation takes twelve seconds", alerts: []string{"RotatordIntentStuck"}, passing: true,
			provoke: func(t *testing.T, p *place) { p.slowly(t, "intent", "12s", func() {}) }, mend: nothing},
		{token: "pending", what: "the folder of the sink is moved away during a rotation with a grace of an hour",
			alerts:  []string{"RotatordSecretPending", "RotatordSecretPendingGraceEnding", "RotatordSinkWritesFailing"},
			provoke: away("pending"), mend: back("pending")},
		{token: "cutoff", what: "the folder of the sink is moved away during a rotation without a grace", alerts: []string{"RotatordConsumersCutOff"},
			provoke: away("cutoff"), mend: back("cutoff")},
		{token: "verify", what: "the application refuses the new secret", alerts: []string{"RotatordVerifyFailing"},
			provoke: func(t *testing.T, p *place) {
				p.fault(t, "verify", `"operation": "app", "kind": "status", "status": 401, "count": -1`)
				go p.rotate("verify")
			},
			mend: func(t *testing.T, p *place) {
				clearFaults(t, p)
				progress("resolve: %s", firstLines(p.rotatord("resolve", "verify", "--accept"), 2))
			}},
		{token: "stuck", what: "the application does not say whether the new secret is good", alerts: []string{"RotatordRotationStuck"}, passing: true,
			provoke: func(t *testing.T, p *place) {
				p.fault(t, "stuck", `"operation": "rotate", "kind": "delay", "when": "before", "delay": "1s"`)
				p.fault(t, "stuck", `"operation": "app", "kind": "delay", "when": "before", "delay": "9s", "count": -1`)
				go p.rotate("stuck")
			}, mend: clearFaults},
		{token: "outside", what: "others rotate the token", alerts: []string{"RotatordTokenRotatedOutside"},
			provoke: func(t *testing.T, p *place) {
				p.control(t, "POST", "tokens/"+p.id("outside")+"/rotate", `{"grace": "1h"}`)
			},
			mend: func(_ *testing.T, p *place) { p.rotate("outside", "--override-grace") }},
		{token: "disabled", what: "the service token is disabled", alerts: []string{"RotatordTokenDisabled"},
			provoke: set("disabled", "enabled", false), mend: set("disabled", "enabled", true)},
		{token: "ends", what: "the service token ends in ten days", alerts: []string{"RotatordTokenExpiresSoon"},
			provoke: set("ends", "expires_at", in(10)), mend: set("ends", "expires_at", in(300))},
		{token: "ends-soon", what: "the service token ends in a day", alerts: []string{"RotatordTokenExpiresVerySoon"},
			provoke: set("ends-soon", "expires_at", in(1)), mend: set("ends-soon", "expires_at", in(300))},
		{token: "renewal", what: "the service token ends in 20 days, and Cloudflare refuses to renew it", alerts: []string{"RotatordRenewalFailing"}, passing: true,
			provoke: func(t *testing.T, p *place) {
				for _, operation := range []string{"refresh", "update"} {
					p.fault(t, "renewal", fmt.Sprintf(`"operation": %q, "kind": "refuse", "when": "before", "count": -1`, operation))
				}
				p.set(t, "renewal", "expires_at", in(20))
			},
			mend: func(t *testing.T, p *place) { clearFaults(t, p); p.set(t, "renewal", "expires_at", in(300)) }},
		{token: "unused", what: "Cloudflare last saw the token 26 days ago", alerts: []string{"RotatordTokenUnused"},
			provoke: set("unused", "last_seen_at", in(-26)), mend: set("unused", "last_seen_at", in(0))},
		{token: "paused", what: "the token is paused", alerts: []string{"RotatordTokenPaused"},
			provoke: func(_ *testing.T, p *place) { p.rotatord("pause", "paused") },
			mend:    func(_ *testing.T, p *place) { p.rotatord("resume", "paused") }},
		{token: "replaced", what: "a policy refers to the service token that was replaced", alerts: []string{"RotatordOldTokenNotDeleted"},
			provoke: func(t *testing.T, p *place) {
				p.control(t, "PUT", "tokens/"+p.id("replaced")+"/policy", `{"in_policy": true}`)
				p.rotate("replaced")
			},
			mend: func(t *testing.T, p *place) {
				p.control(t, "PUT", "tokens/"+p.id("replaced")+"/policy", `{"in_policy": false}`)
				p.rotate("replaced", "--override-grace")
			}},
		{token: "emptied", what: "the secret is deleted in Vault", alerts: []string{"RotatordSinkEmpty"},
			provoke: func(t *testing.T, p *place) {
				p.rotate("emptied")
				if _, err := p.vault.Root(t).Logical().Delete(mount + "/metadata/" + p.path("emptied")); err != nil {
					t.Fatal(err)
				}
			},
			mend: func(_ *testing.T, p *place) { p.rotate("emptied", "--override-grace") }},
		{token: "changed", what: "another secret is written to Vault", alerts: []string{"RotatordSinkChanged"},
			provoke: func(t *testing.T, p *place) { p.rotate("changed"); p.overwrite(t, "changed") },
			mend:    func(_ *testing.T, p *place) { p.rotate("changed", "--override-grace") }},
		{token: "restored", what: "another secret is written to Vault, with outside_change: restore", alerts: []string{"RotatordSinkRestored"}, passing: true,
			provoke: func(t *testing.T, p *place) { p.rotate("restored"); p.overwrite(t, "restored") }, mend: nothing},
		{token: "deletes", what: "Vault deletes the version in ten days", alerts: []string{"RotatordSinkVersionDeletes"},
			provoke: deletesAfter("deletes", "240h"), mend: deletesAfter("deletes", "0s")},
		{token: "deletes-soon", what: "Vault deletes the version in a day", alerts: []string{"RotatordSinkVersionDeletesSoon"},
			provoke: deletesAfter("deletes-soon", "24h"), mend: deletesAfter("deletes-soon", "0s")},
	}
}

// deletesAfter lets Vault delete the next versions after some time, and rotates.
func deletesAfter(token, after string) func(*testing.T, *place) {
	return func(t *testing.T, p *place) {
		if _, err := p.vault.Root(t).Logical().Write(mount+"/metadata/"+p.path(token), map[string]any{"delete_version_after": after}); err != nil {
			t.Fatal(err)
		}
		p.rotate(token, "--override-grace")
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Error(err)
	}
}
