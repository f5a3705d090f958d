package drill

import (
	"slices"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/rotation"
	"rotatord/internal/vault/vaulttest"
)

// disaster is one of those that are played.
type disaster struct {
	name, what string
	before     func(*stage)      // what has always been so
	early      bool              // it comes long before the slot, and not with it
	only       func(player) bool // the tokens that it is about; nil: all
	first      bool              // their service tokens are yet to be made
	renews     bool              // their service tokens end, and are renewed
	// strike brings it about, before the slot comes. How long it lasts stands in lasts; zero
	// means that it is over by itself, or never.
	strike func(*stage) error
	lasts  func(*sample) time.Duration
	lift   func(*stage) error
	ends   string // what lift is, for the report
	// kill returns a channel that is closed at the moment at which the daemon is to be killed. It
	// is called before the daemon starts, which then runs in a process of its own.
	kill func(*stage) <-chan struct{}
	// killedAt is the step at which each rotation must be when the daemon is dead. A record at
	// another step is a fault of the drill: it did not test what it says.
	killedAt rotation.Step

	operator string
	alerts   []string // those that fire for the time that it lasts, if that is half an hour
	// What may happen without a promise being broken.
	rotations int  // carried out for each token, besides the one that is due
	loses     bool // an answer does not arrive, and the secret in it is gone
	outside   bool // somebody else cuts consumers off; how soon they are helped is up to the configuration
	refuses   bool // what is new is refused everywhere for as long as it lasts
	fatal     bool // consumers are cut off by the disaster itself, and rotatord cannot help
}

// hours is a disaster that lasts long enough to matter.
func hours(s *sample) time.Duration { return s.outage() }

func minutes(n int) func(*sample) time.Duration {
	return func(*sample) time.Duration { return time.Duration(n) * time.Minute }
}

// fault arms a fault of the operation that rotates for each service token that may be rotated.
// Where one is made in its place, that is what the fault strikes.
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

// edit changes every service token behind the daemon's back.
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

// behave changes what is assumed of Cloudflare.
func behave(change func(*cfsim.Behaviour)) func(*stage) error {
	return func(st *stage) error {
		b := st.sim.Behaviour()
		change(&b)
		st.sim.SetBehaviour(b)
		return nil
	}
}

const inDoubtOperator = "Nothing has to be done in a hurry: the old secret is kept alive as long as that is possible, " +
	"and a new one is made before it dies. `rotatord resolve NAME --rotate-now` does it at once, if consumers can stand that " +
	"the old secret dies with it. Runbook: RotatordTokenInDoubt."

const (
	vaultFailing      = "RotatordVaultFailing"
	cloudflareFailing = "RotatordCloudflareFailing"
)

// disasters are all that there are, in the order in which they are played.
var disasters = slices.Concat(ofAll, ofMade, ofVerified, ofRenewed)

// ofAll are those that every token may meet with.
var ofAll = []disaster{
	{
		name: "lost-answer", what: "Cloudflare rotates, and the connection breaks before its answer",
		strike: fault("drop:after"), rotations: 1, loses: true, operator: inDoubtOperator,
	},
	{
		name: "500-before", what: "Cloudflare answers 500 and has not rotated",
		strike: fault("status=500:before"), operator: "Nothing: it is found out that nothing was rotated, and the slot is served.",
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
		name: "garbage", what: "the answer to the rotation is a page of HTML",
		strike: fault("garbage:after"), rotations: 1, loses: true, operator: inDoubtOperator,
	},
	{
		name: "throttled", what: "Cloudflare answers 429: come back in five minutes",
		strike: fault("status=429:retry-after=300"), operator: "Look for who else uses the API token. Runbook: RotatordCloudflareThrottled.",
	},
	{
		name: "slow-answer", what: "the answer takes three seconds",
		strike: fault("delay=3s:after"), operator: "Nothing.",
	},
	{
		name: "clock-skew", what: "Cloudflare's clock is ten minutes behind this machine's",
		strike: behave(func(b *cfsim.Behaviour) { b.ClockSkew = cfsim.Duration(-10 * time.Minute) }),
		operator: "Set this machine's clock. The grace is counted on Cloudflare's, so consumers lose nothing. " +
			"Runbook: RotatordClockSkew.",
		alerts: []string{"RotatordClockSkew"}, lasts: minutes(60), ends: "the clock is set",
		lift: behave(func(b *cfsim.Behaviour) { b.ClockSkew = 0 }),
	},
	{
		name: "clock-wrong", what: "this machine's clock is an hour from Cloudflare's",
		strike:   behave(func(b *cfsim.Behaviour) { b.ClockSkew = cfsim.Duration(time.Hour) }),
		operator: "Set this machine's clock: until then no scheduled rotation begins. Runbook: RotatordClockSkew.",
		alerts:   []string{"RotatordClockSkew"}, lasts: minutes(60), ends: "the clock is set",
		lift: behave(func(b *cfsim.Behaviour) { b.ClockSkew = 0 }),
	},
	{
		name: "many-previous", what: "an answer is lost, and Cloudflare turns out to keep every previous secret",
		before:    func(st *stage) { _ = behave(func(b *cfsim.Behaviour) { b.KeepAllPrevious = true })(st) },
		strike:    fault("drop:after"),
		rotations: 1, loses: true, operator: inDoubtOperator,
	},
	{
		name: "updated-at-frozen", what: "an answer is lost, and updated_at never tells that Cloudflare has rotated",
		before:    func(st *stage) { _ = behave(func(b *cfsim.Behaviour) { b.FrozenUpdatedAt = true })(st) },
		strike:    fault("drop:after"),
		rotations: 1, loses: true, operator: inDoubtOperator,
	},
	{
		name: "vault-sealed", what: "Vault is sealed when the slot comes",
		only:   player.inVault,
		strike: func(st *stage) error { st.vault.Seal(true); return nil },
		lasts:  hours, lift: func(st *stage) error { st.vault.Seal(false); return nil }, ends: "Vault is unsealed",
		operator: "Unseal Vault. Nothing was rotated meanwhile. Runbook: RotatordVaultFailing.", alerts: []string{vaultFailing},
	},
	{
		name: "vault-sealed-midway", what: "Vault is sealed between Cloudflare's answer and the write",
		only:   player.inVault,
		strike: sealAtRotate,
		lasts:  hours, ends: "Vault is unsealed",
		lift: func(st *stage) error { st.atCloudflare.set(nil); st.vault.Seal(false); return nil },
		operator: "Unseal Vault, and do not delete the state directory: it holds the only copy of the new secret. " +
			"Runbook: RotatordSecretPending.",
		alerts: []string{vaultFailing},
	},
	{
		name: "vault-denied", what: "the Vault policy lost the right to write",
		only:   player.inVault,
		strike: func(st *stage) error { st.vault.ReadOnly(true); return nil },
		lasts:  hours, lift: func(st *stage) error { st.vault.ReadOnly(false); return nil }, ends: "the policy is put right",
		operator: "Put the policy right: deploy/vault has it. Nothing was rotated meanwhile.",
	},
	{
		name: "vault-answer-lost", what: "Vault writes the new secret, and the connection breaks before its answer",
		only: player.inVault,
		strike: func(st *stage) error {
			st.vault.Inject(vaulttest.Fault{Count: len(st.sample.tokens), After: true})
			return nil
		},
		operator: "Nothing: what is in Vault is read back and found to be right.",
	},
	{
		name: "kill", what: "the daemon is killed while the new secret is on its way to Vault",
		only: player.inVault,
		kill: killAtWrite, killedAt: rotation.StepSealed,
		operator: "Start it again, on the same state directory: it goes on where it was. After ten minutes without it " +
			"RotatordAbsent fires. Runbook: The daemon is gone and a secret is sealed.",
	},
	{
		name: "kill-in-flight", what: "the daemon is killed while Cloudflare's answer is on its way",
		kill: killInFlight, killedAt: rotation.StepIntent, rotations: 1, loses: true, operator: inDoubtOperator,
	},
	{
		name: "token-deleted", what: "somebody has deleted the service token",
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
		operator: "Make another service token, put its ID into the configuration and into the policies. Until then its " +
			"consumers are locked out; with strategy: replace, until the next slot. Runbook: RotatordTokenGone.",
	},
	{
		name: "token-disabled", what: "somebody has disabled the service token",
		strike: edit(cfsim.Edit{Enabled: new(bool)}), fatal: true,
		operator: "Enable it at Cloudflare, or find out who disabled it and why. Runbook: RotatordTokenDisabled.",
	},
	{
		name: "rotated-outside", what: "somebody else rotates the service token long before its slot, with a grace of an hour",
		early: true, outside: true, rotations: 1, loses: true,
		strike: func(st *stage) error {
			for _, p := range st.sample.tokens {
				if _, _, err := st.sim.Rotate(st.consumers.uses(p), time.Hour); err != nil {
					return err
				}
			}
			return st.age(30 * time.Minute) // the inventory comes once an hour
		},
		operator: "Find out who it was. Without outside_rotation: rotate, `rotatord rotate NAME` before that hour is over: " +
			"then it ends for consumers, until the next slot.",
	},
	{
		name: "api-token-revoked", what: "the API token is revoked",
		strike: behave(func(b *cfsim.Behaviour) { b.APITokenStatus = cfsim.APITokenRevoked }),
		lasts:  hours, ends: "another API token is put in its place",
		lift: behave(func(b *cfsim.Behaviour) { b.APITokenStatus = cfsim.APITokenActive }),
		operator: "Make another API token and put it into the file: it is read anew for each request. " +
			"Runbook: RotatordCloudflareFailing.",
		alerts: []string{cloudflareFailing},
	},
	{
		name: "expired", what: "the service token has come to its end of life: rotating it is not renewing it",
		strike: func(st *stage) error {
			past := time.Now().Add(-time.Minute)
			return edit(cfsim.Edit{ExpiresAt: &past})(st)
		},
		fatal: true, operator: "Renew it at Cloudflare, or let renew_before do it in time. Runbook: RotatordTokenExpiresVerySoon.",
	},
}
