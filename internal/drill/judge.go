package drill

import (
	"fmt"
	"time"

	"rotatord/internal/status"
)

// tolerated is how long a consumer may be refused without a broken promise: the time between a rotation
// that cuts the old secret off and the write of the new one.
const tolerated = 5 * time.Second

// outcomes returns the result for each token, with the promises that were broken.
func (st *stage) outcomes(d disaster) []TokenOutcome {
	tokens := map[string]status.Token{}
	if st.daemon != nil {
		tokens = st.tokens()
	}
	all := []TokenOutcome{}
	for _, p := range st.sample.tokens {
		r := st.consumers.result(p)
		t := TokenOutcome{
			Token: p.name, Rotations: r.rotations, NeverSeen: r.neverSeen, Refused: Duration(r.refused), State: tokens[p.name].State,
			Strategy: p.strategy(), Sink: p.sinks[0].Kind(), Works: r.works, First: d.first,
		}
		if p.creates() {
			t.Created, t.Left = r.created, r.left
		}
		t.Story, t.Alerts = st.notes.storyOf(p.name)
		if r.oldDied >= 0 {
			died := Duration(r.oldDied)
			t.OldDied = &died
		}
		t.Violations = violations(d, p, r, t.State)
		all = append(all, t)
	}
	return all
}

// violations returns the promises to the consumers of a token that were broken.
func violations(d disaster, p player, r result, state string) []string {
	broken := []string{}
	breaks := func(condition bool, format string, args ...any) {
		if condition {
			broken = append(broken, fmt.Sprintf(format, args...))
		}
	}
	mayLose := 0
	if d.loses {
		mayLose = 1
	}
	breaks(r.rotations > 1+d.rotations, "Cloudflare rotated %d times, and %d would be enough", r.rotations, 1+d.rotations)
	breaks(r.inUse, "rotatord asked Cloudflare to delete a service token while a sink named it")
	breaks(p.creates() && r.left > 1, "at the end there are %d service tokens, and consumers use one", r.left)
	breaks(!p.replace && !d.first && r.created > 0 || !p.replace && r.created > 1, "rotatord created %d service tokens that are not needed", r.created)
	breaks(r.neverSeen > mayLose,
		"secrets that Cloudflare issued and no sink ever had: %d; lost answers explain %d", r.neverSeen, mayLose)
	breaks(r.ends, "the service token expires, and was not renewed")
	if d.fatal {
		return broken // the disaster itself cuts consumers off
	}
	breaks(!r.works, "the secret in the sink does not work at the end")
	breaks(state != "idle", "at the end the token is still in the state %q", state)
	if p.grace == 0 || d.outside {
		return broken // there was no promise to consumers, or none that rotatord could keep
	}
	breaks(r.refused > tolerated && !d.refuses, "consumers that read the sink before each call were locked out for %s", Duration(r.refused))
	promised := p.grace
	if d.loses { // the reissue comes when half of the grace is left
		promised -= p.grace / 2
	}
	const rounding = 2 * time.Second // Cloudflare gets graces in whole seconds
	breaks(r.oldDied >= 0 && r.rotations == 0, "the old secret stopped working, although there was no rotation")
	breaks(r.oldDied >= 0 && r.rotations > 0 && r.oldDied-r.rotatedAt < promised-rounding,
		"the old secret stopped working %s after the rotation, although at least %s were promised", Duration(r.oldDied-r.rotatedAt), Duration(promised))
	return broken
}
