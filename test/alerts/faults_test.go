package alerts

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rotatord/test/program"
)

// designs are the places, those first whose alerts take longest.
func designs() []design {
	return slices.Concat(slowDesigns(), tokenDesigns(), replicaDesigns(), singleDesigns(), sharedDesigns())
}

// sharedDesigns are places with one failure again, with two replicas that both see it: each alert must still fire once.
func sharedDesigns() (designs []design) {
	for _, d := range singleDesigns() {
		if !slices.Contains([]string{"cloudflare", "hook", "inventory", "throttled", "vault"}, d.name) {
			continue
		}
		d.name, d.ownVault, d.replicas = d.name+"-shared", true, true
		for _, f := range d.faults {
			f.what += atReplicas
		}
		designs = append(designs, d)
	}
	return designs
}

const atReplicas = ", at two replicas"

// slowDesigns fail in ways that the daemon wants to see for six minutes before it tells.
func slowDesigns() []design {
	return []design{
		// The check of a mount looks at one sink every five minutes, and at this one third: a sink that a check has found raises another alert.
		{name: "unreadable", slow: true, ownVault: true, tokens: []tokenOf{
			{name: "first", more: `schedule: "@every 240h"`}, {name: "second", more: `schedule: "@every 480h"`}, {name: "unreadable"},
		}, faults: []*fault{{
			token: "unreadable", what: "the policy of Vault does not allow to read the sink; mended by a policy that does, and resolve", alerts: []string{"RotatordSinkUnreadable"},
			before: func(_ *testing.T, p *place) { p.rotate("unreadable") },
			provoke: func(t *testing.T, p *place) {
				p.denySink(t, "unreadable")
				p.watchEvery = soon("unreadable", 73*time.Second)
				p.reload(t)
			},
			mend: func(t *testing.T, p *place) {
				p.putPolicy(t, "")
				progress("resolve: %s", firstLines(p.rotatord("resolve", "unreadable"), 2))
			},
		}}},
		{name: "inuse", slow: true, tokens: []tokenOf{{name: "inuse", more: `verify: {url: "$SIM/app/$ID", within: 1s, every: $EVERY}`}}, faults: []*fault{{
			what: "the application refuses the secret in use", token: "inuse", alerts: []string{"RotatordSecretInUseRefused"},
			before: func(_ *testing.T, p *place) { p.rotate("inuse") },
			provoke: func(t *testing.T, p *place) {
				p.fault(t, "inuse", `"operation": "app", "kind": "status", "status": 401, "count": -1`)
				p.trySoon(t)
			},
			mend: func(t *testing.T, p *place) {
				clearFaults(t, p)
				p.trySoon(t)
			},
		}}},
	}
}

// singleDesigns are places with one failure, and mostly one daemon.
func singleDesigns() []design {
	return []design{
		{name: "absent", alone: true, tokens: []tokenOf{{name: "absent"}}, faults: []*fault{{
			what: "the only daemon is killed", alerts: []string{"RotatordAbsent"},
			provoke: func(_ *testing.T, p *place) { p.stop() },
			mend:    func(t *testing.T, p *place) { p.launch(t) },
		}}},
		{name: "stepped", clocks: true, tokens: []tokenOf{{name: "stepped"}}, faults: []*fault{{
			what: "the daemon's clock, and no other one, is set three minutes ahead; mended by setting it back", alerts: []string{"RotatordClockStepped"},
			provoke: func(t *testing.T, p *place) { setClock(t, p.daemon, 3*time.Minute) },
			mend:    func(t *testing.T, p *place) { setClock(t, p.daemon, 0) },
		}}},
		{name: "overdue", account: ", requests_per_5m: 4", schedule: "@every 25s", grace: "5s", tokens: []tokenOf{{name: "overdue"}}, faults: []*fault{{
			what: "a token is due, and requests_per_5m is used up; mended by a higher one and a restart", token: "overdue",
			alerts: []string{"RotatordRotationOverdue"}, fromStart: true, provoke: nothing,
			mend: func(t *testing.T, p *place) {
				p.design.account = ""
				p.write(t, "config.yaml", p.yaml())
				p.daemon.end(syscall.SIGTERM)
				p.launch(t)
			},
		}}},
		{name: "overtaken", ownVault: true, tokens: []tokenOf{{name: "overtaken"}}, faults: []*fault{{
			what: "while Vault refuses a new secret, others rotate the token again and write their secret to Vault; mended by resolve --rotate-now", token: "overtaken",
			alerts: []string{"RotatordSecretOvertaken"}, provoke: overtake,
			mend: func(_ *testing.T, p *place) {
				progress("resolve: %s", firstLines(p.rotatord("resolve", "overtaken", "--rotate-now"), 2))
			},
		}}},
		{name: "reload", tokens: []tokenOf{{name: "reload"}}, faults: []*fault{{
			what: "a reload of a faulty configuration", alerts: []string{"RotatordConfigReloadFailed"},
			provoke: func(t *testing.T, p *place) { p.reloadWith(t, "listen: [\n") },
			mend:    func(t *testing.T, p *place) { p.reload(t) },
		}}},
		{name: "never", tokens: []tokenOf{{name: "never", file: true}}, faults: []*fault{{
			what: "a sink is added after the last rotation", token: "never", alerts: []string{"RotatordSinkNeverWritten"},
			provoke: func(t *testing.T, p *place) {
				p.rotate("never")
				added := fmt.Sprintf("format: env}}, {file: {path: %s/second.env, format: env}}]", p.folder("never"))
				p.reloadWith(t, strings.Replace(p.yaml(), "format: env}}]", added, 1))
			},
			mend: func(_ *testing.T, p *place) { p.rotate("never", "--override-grace") },
		}}},
		{name: "skew", tokens: []tokenOf{{name: "skew"}}, faults: []*fault{{
			what: "the clock is a minute off", alerts: []string{"RotatordClockSkew"},
			provoke: func(t *testing.T, p *place) { p.control(t, "PUT", "behaviour", `{"clock_skew": "60s"}`) },
			mend:    func(t *testing.T, p *place) { p.control(t, "PUT", "behaviour", `{}`) },
		}}},
		{name: "clock", schedule: "@every 40s", grace: "10s", tokens: []tokenOf{{name: "clock"}},
			prepare: func(t *testing.T, p *place) { p.control(t, "PUT", "behaviour", `{"clock_skew": "20m"}`) }, faults: []*fault{{
				what: "the clock was 20 minutes off when the daemon started", alerts: []string{"RotatordClockStopsRotations", "RotatordRotationFailing"}, fromStart: true,
				provoke: nothing,
				mend:    func(t *testing.T, p *place) { p.control(t, "PUT", "behaviour", `{}`) },
			}}},
		{name: "gone", tokens: []tokenOf{{name: "gone"}, {name: "stays"}}, faults: []*fault{{
			what: "the service token is deleted; mended by taking it out of the configuration", token: "gone", alerts: []string{"RotatordTokenGone"},
			provoke: func(t *testing.T, p *place) { p.control(t, "DELETE", "tokens/"+p.id("gone"), "") },
			mend: func(t *testing.T, p *place) {
				p.reloadWith(t, regexp.MustCompile(`(?m)^  gone: \{id: .*\n`).ReplaceAllString(p.yaml(), ""))
			},
		}}},
		{name: "down", schedule: "@every 10s", grace: "5s", tokens: []tokenOf{{name: "down"}}, faults: []*fault{{
			what: "the daemon is killed, while another one runs", token: "down", alerts: []string{"RotatordTokenUnwatched"}, after: []string{"RotatordSlotsMissed"},
			provoke: func(_ *testing.T, p *place) { p.daemon.end(syscall.SIGKILL); time.Sleep(25 * time.Second) },
			mend:    func(t *testing.T, p *place) { p.launch(t) },
		}}},
		{name: "twice", tokens: []tokenOf{{name: "twice"}}, prepare: func(t *testing.T, p *place) { p.others = []string{freeAddress(t)} }, faults: []*fault{{
			what: "a second daemon has the same token", token: "twice", alerts: []string{"RotatordTokenManagedTwice"},
			provoke: func(t *testing.T, p *place) {
				p.write(t, "second.yaml", p.yamlOf(p.other()))
				p.begin(t)
			},
			mend: func(_ *testing.T, p *place) { p.second.end(syscall.SIGTERM) },
		}}},
		{name: "vault", ownVault: true, schedule: "@every 4h", grace: "1h", tokens: []tokenOf{{name: "vault"}}, faults: []*fault{{
			what: "Vault is killed, four hours before a rotation", alerts: []string{"RotatordCheckFailing", "RotatordCannotRotate"},
			provoke: func(_ *testing.T, p *place) { p.vault.Kill() },
			mend:    func(t *testing.T, p *place) { p.vault.Resume(t) },
		}}},
		{name: "session", ownVault: true, tokens: []tokenOf{{name: "session"}}, faults: []*fault{{
			what: "the Vault session is revoked, and no login is possible", alerts: []string{"RotatordVaultSessionExpiring"},
			provoke: func(t *testing.T, p *place) { revokeSession(t, p.site); p.rotate("session") },
			mend: func(t *testing.T, p *place) {
				answer, err := p.vault.Root(t).Logical().Write("auth/approle/role/rotatord/secret-id", nil)
				if err != nil {
					t.Fatal(err)
				}
				p.write(t, "secret-id", answer.Data["secret_id"].(string))
			},
		}}},
		{name: "cloudflare", tokens: []tokenOf{{name: "cloudflare"}}, faults: []*fault{{
			what: "Cloudflare answers 503 to everything", alerts: []string{"RotatordCloudflareFailing"},
			provoke: func(t *testing.T, p *place) {
				p.control(t, "POST", "faults", `{"operation": "*", "kind": "status", "status": 503, "count": -1}`)
			},
			mend: clearFaults,
		}}},
		{name: "inventory", tokens: []tokenOf{{name: "inventory"}}, faults: []*fault{{
			what: "Cloudflare answers 503 to each listing", alerts: []string{"RotatordInventoryStale"},
			provoke: func(t *testing.T, p *place) {
				p.control(t, "POST", "faults", `{"operation": "list", "kind": "status", "status": 503, "count": -1}`)
			},
			mend: clearFaults,
		}}},
		{name: "throttled", tokens: []tokenOf{{name: "throttled"}}, faults: []*fault{{
			what: "Cloudflare answers 429 and asks to wait for 30 seconds", alerts: []string{"RotatordCloudflareThrottled"},
			provoke: func(t *testing.T, p *place) {
				p.control(t, "POST", "faults", `{"operation": "*", "kind": "status", "status": 429, "retry_after": 30, "count": -1}`)
			},
			mend: clearFaults,
		}}},
		{name: "wrapped", ownVault: true, vault: ", wrapped: true", tokens: []tokenOf{{name: "wrapped"}},
			prepare: func(t *testing.T, p *place) { p.write(t, "secret-id", p.wrap(t)) }, faults: []*fault{{
				what: "another program has unwrapped the wrapping token", alerts: []string{"RotatordVaultUnwrapFailed"},
				provoke: func(t *testing.T, p *place) {
					stolen := p.wrap(t)
					if _, err := p.vault.Root(t).Logical().Unwrap(stolen); err != nil {
						t.Fatal(err)
					}
					p.write(t, "secret-id", stolen)
				},
				mend: func(t *testing.T, p *place) { p.write(t, "secret-id", p.wrap(t)) },
			}}},
		{name: "hook", tokens: []tokenOf{{name: "hook", more: "after: [{exec: {command: [$DIR/hook]}}]"}},
			prepare: func(t *testing.T, p *place) { p.hook(t, "exit 0") }, faults: []*fault{{
				what: "the program of a hook ends with 1", token: "hook", alerts: []string{"RotatordHookFailing"},
				provoke: func(t *testing.T, p *place) { p.hook(t, "exit 1"); p.rotate("hook") },
				mend:    func(t *testing.T, p *place) { p.hook(t, "exit 0") },
			}}},
		{name: "notify", more: "notify: [{name: night, group: 5s, webhook: {url: {file: $DIR/receiver}, secret: {file: $DIR/webhook-secret}}}]\n", tokens: []tokenOf{{name: "notify"}},
			prepare: func(t *testing.T, p *place) {
				p.write(t, "webhook-secret", strings.Repeat("s", 40))
				p.write(t, "receiver", receiver(t, &p.refuses))
			}, faults: []*fault{{
				what: "the receiver of notifications answers 503", alerts: []string{"RotatordNotificationsFailing"},
				provoke: func(t *testing.T, p *place) {
					p.refuses.Store(true)
					p.control(t, "DELETE", "tokens/"+p.id("notify"), "")
				},
				mend: func(_ *testing.T, p *place) {
					p.refuses.Store(false)
					progress("notify test: %s", firstLines(p.rotatord("notify", "test", "night"), 2))
				},
			}}},
		{name: "unwatched", ownVault: true, tokens: []tokenOf{{name: "unwatched"}}, faults: []*fault{{
			what: "Vault is killed for a minute and a half, and sinks are looked at every minute", alerts: []string{"RotatordVaultFailing", "RotatordSinksNotWatched"},
			before:  func(_ *testing.T, p *place) { p.rotate("unwatched") },
			provoke: func(_ *testing.T, p *place) { p.vault.Kill() },
			mend:    func(t *testing.T, p *place) { p.vault.Resume(t) },
		}}},
	}
}

func setClock(t *testing.T, of *process, ahead time.Duration) {
	t.Helper()
	if err := of.clock.set(ahead); err != nil {
		t.Error(err)
	}
}

// trySoon has the secret in use tried within seconds.
func (p *place) trySoon(t *testing.T) {
	p.verifyEvery = soon(p.design.name+" verify", 395*time.Second)
	p.reload(t)
}

// overtake has a new secret wait, and meanwhile another one take its place.
func overtake(t *testing.T, p *place) {
	p.slowly(t, "overtaken", "6s", func() { p.denySink(t, "overtaken") })
	sealed := `rotatord_token_state{state="sealed",token="overtaken"} 1`
	program.Eventually(t, 0, "a secret that waits", func() bool {
		_, metrics := get("http://" + p.listen + "/metrics")
		return strings.Contains(metrics, sealed)
	})
	p.control(t, "POST", "tokens/"+p.id("overtaken")+"/rotate", `{"grace": "1h"}`)
	p.overwrite(t, "overtaken")
	p.putPolicy(t, "")
}
