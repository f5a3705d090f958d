package drill

import (
	"slices"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/rotation"
	"rotatord/internal/vault/vaulttest"
)

// disaster describes a disaster: what happens, and what may result from it.
type disaster struct {
	name, what string
	before     func(*stage)      // sets up what was always so
	early      bool              // it happens long before the slot, not at the slot
	only       func(player) bool // the tokens that it is about; nil: all
	first      bool              // their service tokens do not exist yet
	renews     bool              // their service tokens expire, and are renewed
	// strike makes the disaster happen, before the slot comes. After the time that lasts returns,
	// lift ends it. A disaster without lasts ends by itself, or never.
	strike func(*stage) error
	lasts  func(*sample) time.Duration
	lift   func(*stage) error
	ends   string // what lift does, for the report
	// kill returns a channel that is closed at the moment at which the daemon is to be killed. It
	// is called before the daemon starts, which then runs in a process of its own.
	kill func(*stage) <-chan struct{}
	// killedAt is the step at which each rotation must be when the daemon is dead. A record at
	// another step is a fault of the drill: it did not test what it says.
	killedAt rotation.Step

	operator string
	alerts   []string // alerts that fire while it lasts, if that is half an hour or more
	// The following may happen without a broken promise.
	rotations int  // rotations of each token, in addition to the one that is due
	loses     bool // an answer does not arrive, and the secret in it is lost
	outside   bool // another person cuts consumers off; the configuration decides when rotatord helps
	refuses   bool // new secrets are refused everywhere while it lasts
	fatal     bool // the disaster itself cuts consumers off, and rotatord cannot help
}

// hours returns how long a service is away.
func hours(s *sample) time.Duration { return s.outage() }

func minutes(n int) func(*sample) time.Duration {
	return func(*sample) time.Duration { return time.Duration(n) * time.Minute }
}

// fault adds a fault to the next rotation of each service token. For a token whose rotation creates a
// service token, it adds the fault to that request.
func fault(text string) func(*stage) error {
	return func(st *stage) error {
		for _, p := range st.sample.tokens {
			targets := st.inUse(p)
			operation := cfsim.OpRotate
			if p.replace || len(targets) == 0 {
				targets, operation = []string{""}, cfsim.OpCreate
			}
			for _, id := range targets {
				f, err := cfsim.ParseFault(operation + ":" + text)
				if err != nil {
					return err
				}
				f.TokenID = id
				if err := st.sim.Inject(f); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// edit changes every service token without the daemon.
func edit(e cfsim.Edit) func(*stage) error {
	return func(st *stage) error {
		for _, p := range st.sample.tokens {
			for _, id := range st.inUse(p) {
				if _, err := st.sim.Edit(id, e); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// behave changes the behaviour of Cloudflare.
func behave(change func(*cfsim.Behaviour)) func(*stage) error {
	return func(st *stage) error {
		b := st.sim.Behaviour()
		change(&b)
		st.sim.SetBehaviour(b)
		return nil
	}
}

const inDoubtOperator = "Nothing is urgent: the grace of the old secret is extended as long as possible, and the token is rotated again " +
	"before the old secret stops working. `rotatord resolve NAME --rotate-now` rotates at once, if consumers can do without the old " +
	"secret. Runbook: RotatordTokenInDoubt."

const (
	vaultFailing      = "RotatordVaultFailing"
	cloudflareFailing = "RotatordCloudflareFailing"
)

// disasters are all disasters, in their order.
var disasters = slices.Concat(ofAll, ofCreated, ofVerified, ofRenewed)

// ofAll are the disasters that can happen to every token.
var ofAll = []disaster{
	{
		name: "lost-answer", what: "Cloudflare rotates, and the connection breaks before its answer",
		strike: fault("drop:after"), rotations: 1, loses: true, operator: inDoubtOperator,
	},
	{
		name: "500-before", what: "Cloudflare answers 500 and has not rotated",
		strike: fault("status=500:before"), operator: "Nothing: the daemon finds out that nothing was rotated, and serves the slot.",
	},
	{
		name: "500-after", what: "Cloudflare answers 500 and has rotated",
		strike: fault("status=500:after"), rotations: 1, loses: true, operator: inDoubtOperator,
	},
	{
		name: "cut-body", what: "the connection breaks in the middle of the new secret",
		strike: fault("cut:after"), rotations: 1, loses: true, operator: inDoubtOperator,
	},
	{
		name: "garbage", what: "the answer to the rotation is an HTML page",
		strike: fault("garbage:after"), rotations: 1, loses: true, operator: inDoubtOperator,
	},
	{
		name: "throttled", what: "Cloudflare answers 429: retry after five minutes",
		strike: fault("status=429:retry-after=300"), operator: "Find out who else uses the API token. Runbook: RotatordCloudflareThrottled.",
	},
	{
		name: "slow-answer", what: "the answer takes three seconds",
		strike: fault("delay=3s:after"), operator: "Nothing.",
	},
	{
		name: "clock-skew", what: "Cloudflare's clock is ten minutes behind this machine's",
		strike: behave(func(b *cfsim.Behaviour) { b.ClockSkew = cfsim.Duration(-10 * time.Minute) }),
		operator: "Set this machine's clock. The grace is counted on Cloudflare's clock, so consumers lose nothing. " +
			"Runbook: RotatordClockSkew.",
		alerts: []string{"RotatordClockSkew"}, lasts: minutes(60), ends: "the clock is set",
		lift: behave(func(b *cfsim.Behaviour) { b.ClockSkew = 0 }),
	},
	{
		name: "clock-wrong", what: "this machine's clock differs by an hour from Cloudflare's",
		strike:   behave(func(b *cfsim.Behaviour) { b.ClockSkew = cfsim.Duration(time.Hour) }),
		operator: "Set this machine's clock: until then no scheduled rotation starts. Runbook: RotatordClockSkew.",
		alerts:   []string{"RotatordClockSkew"}, lasts: minutes(60), ends: "the clock is set",
		lift: behave(func(b *cfsim.Behaviour) { b.ClockSkew = 0 }),
	},
	{
		name: "many-previous", what: "an answer is lost, and Cloudflare keeps every previous secret, not only the last one",
		before:    func(st *stage) { _ = behave(func(b *cfsim.Behaviour) { b.KeepAllPrevious = true })(st) },
		strike:    fault("drop:after"),
		rotations: 1, loses: true, operator: inDoubtOperator,
	},
	{
		name: "updated-at-frozen", what: "an answer is lost, and Cloudflare does not change updated_at when it rotates",
		before:    func(st *stage) { _ = behave(func(b *cfsim.Behaviour) { b.FrozenUpdatedAt = true })(st) },
		strike:    fault("drop:after"),
		rotations: 1, loses: true, operator: inDoubtOperator,
	},
	{
		name: "vault-sealed", what: "Vault is sealed when the slot comes",
		only:   player.inVault,
		strike: func(st *stage) error { st.vault.Seal(true); return nil },
		lasts:  hours, lift: func(st *stage) error { st.vault.Seal(false); return nil }, ends: "Vault is unsealed",
		operator: "Unseal Vault. Nothing is rotated until then. Runbook: RotatordVaultFailing.", alerts: []string{vaultFailing},
	},
	{
		name: "vault-sealed-midway", what: "Vault is sealed between Cloudflare's answer and the write",
		only:   player.inVault,
		strike: sealAtRotate,
		lasts:  hours, ends: "Vault is unsealed",
		lift: func(st *stage) error { st.atCloudflare.set(nil); st.vault.Seal(false); return nil },
		operator: "Unseal Vault, and do not delete the state directory: it has the only copy of the new secret. " +
			"Runbook: RotatordSecretPending.",
		alerts: []string{vaultFailing},
	},
	{
		name: "vault-denied", what: "the Vault policy no longer allows writes",
		only:   player.inVault,
		strike: func(st *stage) error { st.vault.ReadOnly(true); return nil },
		lasts:  hours, lift: func(st *stage) error { st.vault.ReadOnly(false); return nil }, ends: "the policy is corrected",
		operator: "Correct the policy: deploy/vault has it. Nothing is rotated until then.",
	},
	{
		name: "vault-answer-lost", what: "Vault writes the new secret, and the connection breaks before its answer",
		only: player.inVault,
		strike: func(st *stage) error {
			st.vault.Inject(vaulttest.Fault{Count: len(st.sample.tokens), After: true})
			return nil
		},
		operator: "Nothing: the daemon reads Vault again and finds the new secret.",
	},
	{
		name: "kill", what: "the daemon is killed while the new secret is on its way to the sink",
		kill: killAtWrite, killedAt: rotation.StepSealed,
		operator: "Start the daemon again with the same state directory: it continues where it was. RotatordAbsent fires after ten " +
			"minutes without the daemon. Runbook: The daemon is gone and a secret is sealed.",
	},
	{
		name: "kill-in-flight", what: "the daemon is killed while Cloudflare's answer is on its way",
		kill: killInFlight, killedAt: rotation.StepIntent, rotations: 1, loses: true, operator: inDoubtOperator,
	},
	{
		name: "token-deleted", what: "another person deletes the service token",
		strike: func(st *stage) error {
			for _, p := range st.sample.tokens {
				for _, id := range st.inUse(p) {
					if err := st.sim.Delete(id); err != nil {
						return err
					}
				}
			}
			return nil
		},
		fatal: true,
		operator: "Create another service token, and put its ID into the configuration and the policies. Until then its " +
			"consumers are locked out; with strategy: replace, until the next slot. Runbook: RotatordTokenGone.",
	},
	{
		name: "token-disabled", what: "another person disables the service token",
		strike: edit(cfsim.Edit{Enabled: new(bool)}), fatal: true,
		operator: "Enable it at Cloudflare, or find out who disabled it and why. Runbook: RotatordTokenDisabled.",
	},
	{
		name: "rotated-outside", what: "another person rotates the service token long before its slot, with a grace of an hour",
		early: true, outside: true, rotations: 1, loses: true,
		strike: func(st *stage) error {
			for _, p := range st.sample.tokens {
				if _, _, err := st.sim.Rotate(st.consumers.uses(p), time.Hour); err != nil {
					return err
				}
			}
			return st.age(30 * time.Minute) // the inventory comes once an hour
		},
		operator: "Find out who it was. Without outside_rotation: rotate, run `rotatord rotate NAME` within that hour. Otherwise " +
			"consumers are locked out after it, until the next slot.",
	},
	{
		name: "api-token-revoked", what: "the API token is revoked",
		strike: behave(func(b *cfsim.Behaviour) { b.APITokenStatus = cfsim.APITokenRevoked }),
		lasts:  hours, ends: "another API token replaces it",
		lift: behave(func(b *cfsim.Behaviour) { b.APITokenStatus = cfsim.APITokenActive }),
		operator: "Create another API token and put it into the file: the daemon reads the file again for each request. " +
			"Runbook: RotatordCloudflareFailing.",
		alerts: []string{cloudflareFailing},
	},
	{
		name: "expired", what: "the service token has expired, and a rotation does not renew it",
		strike: func(st *stage) error {
			past := time.Now().Add(-time.Minute)
			return edit(cfsim.Edit{ExpiresAt: &past})(st)
		},
		fatal: true, operator: "Renew it at Cloudflare, or let renew_before do it in time. Runbook: RotatordTokenExpiresVerySoon.",
	},
}
