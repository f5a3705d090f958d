package crash

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"rotatord/internal/cloudflare/cfsim"
)

// points are all boundaries of steps, and "" for no kill.
func points() []string {
	all := []string{""}
	for _, step := range []string{
		"claim", "preflight", "intent", "record", "rotate", "seal", "store", "verify", "commit", "erase", "extend", "find", "delete",
		"ledger.claimed", "ledger.intent", "ledger.sealed", "ledger.stored", "ledger.idle", "ledger.in_doubt",
	} {
		all = append(all, step+".before", step+".after")
	}
	return all
}

// What Cloudflare does with the one rotate request that it spoils.
var cloudflareFaults = map[string]cfsim.Fault{
	"normal":                {},
	"answer lost":           {Kind: cfsim.KindDrop, When: cfsim.After},
	"500 before":            {Kind: cfsim.KindStatus, Status: 500, When: cfsim.Before},
	"500 after":             {Kind: cfsim.KindStatus, Status: 500, When: cfsim.After},
	"cut in the body":       {Kind: cfsim.KindCut, When: cfsim.After},
	"unreadable":            {Kind: cfsim.KindGarbage, When: cfsim.After},
	"success: false":        {Kind: cfsim.KindRefuse, When: cfsim.After},
	"slower than the bound": {Kind: cfsim.KindDelay, When: cfsim.After, Delay: cfsim.Duration(2 * time.Second)},
	"wrong client ID":       {Kind: cfsim.KindWrongClientID},
	// And in random rounds:
	"connection lost before": {Kind: cfsim.KindDrop, When: cfsim.Before},
	"throttled":              {Kind: cfsim.KindStatus, Status: 429, RetryAfter: 2, When: cfsim.Before},
	"refused":                {Kind: cfsim.KindStatus, Status: 403, When: cfsim.Before},
	"damaged secret":         {Kind: cfsim.KindMalformedSecret},
	"no secret":              {Kind: cfsim.KindMissingSecret},
}

var inMatrix = []string{
	"normal", "answer lost", "500 before", "500 after", "cut in the body", "unreadable", "success: false", "slower than the bound", "wrong client ID",
}

// What Cloudflare and Vault do in the matrix to service tokens that are created.
var (
	inMatrixOfMade = []string{"normal", "answer lost", "500 before", "500 after", "cut in the body"}
	vaultOfMade    = []string{vault500, vaultLostWrite}
)

// matrix covers every point with every fault of either side for service tokens that are rotated,
// and with the most important faults for those that are created.
func matrix() (all []plan) {
	for _, point := range points() {
		step, _, _ := strings.Cut(point, ".")
		if step != "find" && step != "delete" {
			for _, fault := range inMatrix {
				all = append(all, plan{point: point, cloudflare: fault, vault: vaultNormal})
			}
			for _, fault := range vaultFaults {
				all = append(all, plan{point: point, cloudflare: "normal", vault: fault})
			}
		}
		if step != "extend" { // what consumers use is not touched
			for _, fault := range inMatrixOfMade {
				all = append(all, plan{point: point, cloudflare: fault, vault: vaultNormal, creates: true})
			}
			for _, fault := range vaultOfMade {
				all = append(all, plan{point: point, cloudflare: "normal", vault: fault, creates: true})
			}
		}
	}
	for range extendedRounds {
		all = append(all, plan{cloudflare: "normal", vault: vaultNormal, extended: &extended{}})
	}
	return all
}

var matrixSize = len(matrix())

// plan is one round.
type plan struct {
	number            int
	point             string
	cloudflare, vault string
	creates           bool // service tokens are created
	tokens            []entry
	frozen            bool          // updated_at does not move on a rotate
	moved             int           // what the ledger knows of that
	incarnations      []incarnation // of a random round
	extended          *extended     // of a round about the end of an extended grace
	sabotage          sabotage
}

// entry is one token of the configuration.
type entry struct {
	kind  kind
	grace time.Duration
	// verifies has new secrets tried; refused, by an application that refuses them for a while.
	verifies, refused bool
}

// kind is which service tokens an entry is about.
type kind string

const (
	single        kind = "single"
	pair          kind = "pair"
	created       kind = "created"         // at the first start, and rotated from then on
	createdInZone kind = "created in zone" // at the first start, and replaced from then on
	replaced      kind = "replaced"        // is there, in a zone, and replaced from then on
)

func (k kind) inZone() bool { return k == createdInZone || k == replaced }

// absent reports whether there is no service token, and nothing in Vault, at the start.
func (k kind) absent() bool { return k == created || k == createdInZone }

// apart reports whether what consumers use is not touched by a rotation.
func (k kind) apart() bool { return k == pair || k.inZone() }

// incarnation is one life of the daemon in a random round.
type incarnation struct {
	failpoints string
	kill       time.Duration // from outside, if it still lives then
	cloudflare string
	vault      string
}

func (p plan) String() string {
	if p.incarnations != nil {
		return fmt.Sprintf("round %d: random %+v, tokens %+v, frozen %t", p.number, p.incarnations, p.tokens, p.frozen)
	}
	if p.extended != nil {
		return fmt.Sprintf("round %d: %v, tokens %+v, frozen %t, moved %d", p.number, p.extended, p.tokens, p.frozen, p.moved)
	}
	return fmt.Sprintf("round %d: killed at %q, Cloudflare %q, Vault %q, tokens %+v, frozen %t, moved %d",
		p.number, p.point, p.cloudflare, p.vault, p.tokens, p.frozen, p.moved)
}

// plans returns n rounds: first the matrix, in an order that covers much early, then random
// ones. The same seed gives the same rounds, for every n.
func plans(n int, seed uint64) []plan {
	all := matrix()
	rand.New(rand.NewPCG(seed, 0)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for len(all) < n {
		all = append(all, plan{incarnations: []incarnation{}})
	}
	for i := range all {
		all[i].number = i
		all[i].complete(rand.New(rand.NewPCG(seed, uint64(i+1))))
	}
	return all[:n]
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// entry draws a token that comes by the point of the round.
func (p *plan) entry(r *rand.Rand) entry {
	e := entry{kind: pick(r, single, single, single, pair), grace: pick(r, 0, 2*time.Second, 3*time.Second, 3*time.Second)}
	step, _, _ := strings.Cut(p.point, ".")
	switch {
	case step == "delete":
		e.kind = replaced
	case step == "find":
		e.kind = pick(r, created, createdInZone)
	case p.creates, p.incarnations != nil && r.IntN(2) == 0:
		e.kind = pick(r, created, createdInZone, replaced)
	}
	switch { // a doubt without a grace is left alone for a minute
	case e.kind == pair:
		e.grace = 2 * time.Second
	case e.kind != single:
		e.grace = pick(r, 2*time.Second, 3*time.Second)
	}
	e.verifies = step == "verify" || r.IntN(4) == 0
	e.refused = e.verifies && r.IntN(3) == 0
	return e
}

func (p *plan) complete(r *rand.Rand) {
	tokens := 1
	if p.incarnations != nil {
		tokens = 3
	}
	for range tokens {
		p.tokens = append(p.tokens, p.entry(r))
	}
	p.frozen, p.moved = r.IntN(4) == 0, r.IntN(2)
	if p.frozen {
		p.moved = 0
	}
	if p.extended != nil {
		// Of a token that others have not confirmed to move, an answer that is lost leaves the doubt open.
		p.frozen, p.moved = false, 1
		p.tokens[0] = entry{kind: single, grace: 3 * time.Second}
		p.extended.complete(r, p.tokens[0].grace)
	}
	if p.incarnations == nil {
		return
	}
	faults := slices.Sorted(maps.Keys(cloudflareFaults))
	ofVault := []string{vaultNormal, vaultNormal, vault500, vaultSlow, vaultDenied, vaultConflict, vaultLostWrite}
	if r.IntN(8) == 0 {
		ofVault = []string{vaultNormal, vaultSealed, vaultRestarted}
	}
	for range 2 + r.IntN(3) {
		i := incarnation{kill: time.Duration(200+r.IntN(3800)) * time.Millisecond, cloudflare: pick(r, faults...)}
		if point := pick(r, points()...); point != "" && r.IntN(3) > 0 {
			i.failpoints = fmt.Sprintf("%s=kill#%d", point, 1+r.IntN(3))
		}
		i.vault = pick(r, ofVault...)
		p.incarnations = append(p.incarnations, i)
	}
}
