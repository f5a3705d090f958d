package crash

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"rotatord/internal/cloudflare/cfsim"
)

// points are all boundaries of steps, and "" for no kill.
func points() []string {
	all := []string{""}
	for _, step := range []string{
		"claim", "preflight", "intent", "rotate", "seal", "store", "commit", "erase", "extend",
		"ledger.claimed", "ledger.intent", "ledger.sealed", "ledger.stored", "ledger.idle", "ledger.in_doubt",
	} {
		all = append(all, step+".before", step+".after")
	}
	return all
}

// What Cloudflare does with the one rotate request that it is to spoil.
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

// matrixSize is the number of rounds that cover every point with every fault of either side.
var matrixSize = len(points()) * (len(inMatrix) + len(vaultFaults))

// plan is one round.
type plan struct {
	number            int
	point             string
	cloudflare, vault string
	graces            []time.Duration // of each token
	pairs             []int           // 1 for a pair
	frozen            bool            // updated_at does not move on a rotate
	moved             int             // what the ledger knows of that
	incarnations      []incarnation   // of a random round
	sabotage          sabotage
}

// incarnation is one life of the daemon in a random round.
type incarnation struct {
	failpoints string
	kill       time.Duration // from outside, if it still lives then
	cloudflare string
	vault      string
}

func (p plan) String() string {
	if p.incarnations != nil {
		return fmt.Sprintf("round %d: random %+v, graces %v, pairs %v, frozen %t", p.number, p.incarnations, p.graces, p.pairs, p.frozen)
	}
	return fmt.Sprintf("round %d: killed at %q, Cloudflare %q, Vault %q, graces %v, pairs %v, frozen %t, moved %d",
		p.number, p.point, p.cloudflare, p.vault, p.graces, p.pairs, p.frozen, p.moved)
}

// plans makes n rounds: first the matrix, in an order that covers much early, then random
// ones. The same seed makes the same rounds, whatever n is.
func plans(n int, seed uint64) []plan {
	var all []plan
	for _, point := range points() {
		for _, fault := range inMatrix {
			all = append(all, plan{point: point, cloudflare: fault, vault: vaultNormal})
		}
		for _, fault := range vaultFaults {
			all = append(all, plan{point: point, cloudflare: "normal", vault: fault})
		}
	}
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

func (p *plan) complete(r *rand.Rand) {
	tokens := 1
	if p.incarnations != nil {
		tokens = 3
	}
	for range tokens {
		pair := pick(r, 0, 0, 0, 1)
		grace := pick(r, 0, 2*time.Second, 3*time.Second, 3*time.Second)
		if pair == 1 {
			grace = 2 * time.Second
		}
		p.pairs, p.graces = append(p.pairs, pair), append(p.graces, grace)
	}
	p.frozen, p.moved = r.IntN(4) == 0, r.IntN(2)
	if p.frozen {
		p.moved = 0
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
