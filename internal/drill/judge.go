package drill

import (
	"fmt"
	"time"

	"rotatord/internal/status"
)

// tolerated is how long a consumer may be refused without a promise being broken: the time
// between a rotation that cuts the old secret off and the write of the new one.
const tolerated = 5 * time.Second

// judge says what became of each token, and which promises were broken.
func (st *stage) judge(d disaster) []TokenOutcome {
	tokens := map[string]status.Token{}
	if st.daemon != nil {
		tokens = st.tokens()
	}
	all := []TokenOutcome{}
	for _, p := range st.sample.tokens {
		r := st.consumers.result(p)
		t := TokenOutcome{
			Token: p.name, Rotations: r.rotations, NeverSeen: r.neverSeen, Refused: Duration(r.refused), State: tokens[p.name].State,
			Strategy: p.strategy(), Works: r.works, First: d.first,
		}
		if p.makes() {
			t.Made, t.Left = r.made, r.left
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

// violations are the promises that were broken to the consumers of one token.
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
	breaks(r.rotations > 1+d.rotations, "Cloudflare rotated %d times, where %d would do", r.rotations, 1+d.rotations)
	breaks(r.inUse, "a service token was to be deleted while a sink named it")
	breaks(p.makes() && r.left > 1, "in the end there are %d service tokens, of which consumers use one", r.left)
	breaks(!p.replace && !d.first && r.made > 0 || !p.replace && r.made > 1, "rotatord made %d service tokens that nobody needs", r.made)
	breaks(r.neverSeen > mayLose,
		"secrets that Cloudflare issued and no sink ever had: %d, where answers that were lost explain %d", r.neverSeen, mayLose)
	breaks(r.ends, "the service token ends, and was not renewed")
	if d.fatal {
		return broken // the disaster cuts consumers off, whatever rotatord does
	}
	breaks(!r.works, "what Vault holds in the end does not work")
	breaks(state != "idle", "in the end the token is still in the state %q", state)
	if p.grace == 0 || d.outside {
		return broken // nothing was promised to consumers, or nothing that could be kept
	}
	breaks(r.refused > tolerated && !d.refuses, "consumers that read Vault before each call were locked out for %s", Duration(r.refused))
	promised := p.grace
	if d.loses { // it is made up for by another rotation when half of the grace is left
		promised -= p.grace / 2
	}
	const rounding = 2 * time.Second // graces are told to Cloudflare in whole seconds
	breaks(r.oldDied >= 0 && r.rotations == 0, "the old secret died, and nobody had rotated it")
	breaks(r.oldDied >= 0 && r.rotations > 0 && r.oldDied-r.rotatedAt < promised-rounding,
		"the old secret died %s after the rotation, and at least %s were promised", Duration(r.oldDied-r.rotatedAt), Duration(promised))
	return broken
}
