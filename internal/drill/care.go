package drill

import (
	"slices"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/rotation"
)

// This file has the disasters that are only for tokens with some setting.

func isCreated(p player) bool  { return p.create }
func isReplaced(p player) bool { return p.replace }
func isVerified(p player) bool { return p.verify != nil }
func isRenewed(p player) bool  { return p.renewBefore > 0 }

// ofCreated are the disasters of tokens whose service tokens rotatord creates.
var ofCreated = []disaster{
	{
		name: "create-answer-lost", what: "Cloudflare creates the first service token, and the connection breaks before its answer",
		only: isCreated, first: true, strike: fault("drop:after"), rotations: 1, loses: true,
		operator: "Nothing: the daemon finds the service token by its name. With strategy: rotate it is rotated; with strategy: " +
			"replace it is deleted, and another one is created.",
	},
	{
		name: "create-killed", what: "the daemon is killed while the answer with the first service token is on its way",
		only: isCreated, first: true, kill: killInFlight, killedAt: rotation.StepIntent, rotations: 1, loses: true,
		operator: "Start the daemon again with the same state directory. It finds the service token by its name. Runbook: RotatordTokenInDoubt.",
	},
	{
		name: "old-token-in-policy", what: "a policy names the service token, so Cloudflare refuses to delete it after it is replaced",
		only:   isReplaced,
		strike: inPolicy(true), lift: inPolicy(false), ends: "the policy no longer names it",
		lasts: func(s *sample) time.Duration { return s.longestGrace() + 3*time.Hour },
		operator: "Name the new service token in the policy, or allow any valid one. Otherwise the new one is not accepted, and the old " +
			"one works until it is deleted. Runbook: RotatordOldTokenNotDeleted.",
	},
}

// inPolicy makes a policy name every service token that is in use when the disaster begins, or none.
func inPolicy(in bool) func(*stage) error {
	return func(st *stage) error {
		for id := range st.issued {
			if _, there := st.sim.Token(id); !there {
				continue
			}
			named := in && slices.ContainsFunc(st.sample.tokens, func(p player) bool { return slices.Contains(st.inUse(p), id) })
			if err := st.sim.SetInPolicy(id, named); err != nil {
				return err
			}
		}
		return nil
	}
}

// edgeDelay is how long a slow edge takes to accept a new secret. It is shorter than the time that
// consumers may be locked out.
const edgeDelay = 3 * time.Second

// ofVerified are the disasters of tokens with verify.
var ofVerified = []disaster{
	{
		name: "edge-slow", what: "Cloudflare's edge takes up to three seconds to accept the new secret",
		only: func(p player) bool { return isVerified(p) && p.verify.within >= time.Second },
		strike: func(st *stage) error {
			delay := edgeDelay
			for _, p := range st.sample.tokens {
				delay = min(delay, p.verify.within/2)
			}
			st.edge.slow(delay)
			return nil
		},
		operator: "Nothing: the daemon tries the new secret again until verify.within is over.",
	},
	{
		name: "new-secret-refused", what: "the application answers 401 to the new secret",
		only: isVerified, refuses: true,
		strike: func(st *stage) error { st.edge.slow(0); return nil },
		lasts:  hours, lift: func(st *stage) error { st.edge.quick(); return nil }, ends: "the application is repaired",
		operator: "Find out whether the application or the secret is at fault: `rotatord resolve NAME --accept`, or --rotate-now. " +
			"The grace of the old secret is extended until then. Runbook: RotatordVerifyFailing.",
	},
	{
		name: "application-down", what: "the application at verify.url answers 502",
		only:     isVerified,
		strike:   func(st *stage) error { st.edge.away(true); return nil },
		operator: "Repair the application. Its answer says nothing about the secret, so the rotation is done, and counted as unproven.",
	},
}

// ofRenewed are the disasters of tokens with renew_before.
var ofRenewed = []disaster{
	{
		name: "token-about-to-end", what: "the service token expires within renew_before",
		only: isRenewed, renews: true, early: true, strike: aboutToEnd,
		operator: "Nothing: the daemon renews it.",
	},
	{
		name: "renewal-refused", what: "the service token expires within renew_before, and Cloudflare refuses to renew it",
		only: isRenewed, renews: true, early: true,
		strike: func(st *stage) error {
			for _, text := range []string{"refresh:status=403:count=always", "update:status=403:count=always"} {
				f, err := cfsim.ParseFault(text)
				if err == nil {
					err = st.sim.Inject(f)
				}
				if err != nil {
					return err
				}
			}
			return aboutToEnd(st)
		},
		lasts: func(s *sample) time.Duration { return min(hours(s), s.shortestRenewal()/2) },
		lift:  func(st *stage) error { st.sim.ClearFaults(); return nil }, ends: "Cloudflare renews it again",
		operator: "Find out why Cloudflare refuses. The likely cause is the permissions of the API token. When the service token expires, " +
			"its consumers are locked out. Runbook: RotatordRenewalFailing.",
	},
}

// aboutToEnd makes every service token expire in nine tenths of renew_before.
func aboutToEnd(st *stage) error {
	for _, p := range st.sample.tokens {
		end := st.sim.Now().Add(p.renewBefore / 10 * 9)
		for _, id := range st.inUse(p) {
			if _, err := st.sim.Edit(id, cfsim.Edit{ExpiresAt: &end}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *sample) longestGrace() (d time.Duration) {
	for _, p := range s.tokens {
		d = max(d, p.grace)
	}
	return d
}

func (s *sample) shortestRenewal() time.Duration {
	d := s.tokens[0].renewBefore
	for _, p := range s.tokens {
		d = min(d, p.renewBefore)
	}
	return d
}
