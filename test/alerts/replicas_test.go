package alerts

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"rotatord/test/program"
)

// replicaDesigns are places with two replicas, which share a ledger in a Vault of their own.
func replicaDesigns() []design {
	one := func(name string, f *fault) design {
		return design{name: name, ownVault: true, replicas: true, tokens: []tokenOf{{name: name}}, faults: []*fault{f}}
	}
	stopped := one("stopped", &fault{
		what: "a replica is stopped (SIGSTOP) between a request and its answer for longer than its claim, twice, and then goes on", alerts: []string{"RotatordClaimsTakenOver", "RotatordLateAnswer"}, passing: true,
		provoke: func(t *testing.T, p *place) {
			for _, token := range p.design.tokens {
				p.stoppedAtIntent(t, token.name)
			}
		}, mend: nothing,
	})
	stopped.claim, stopped.grace, stopped.tokens = "8s", "0s", []tokenOf{{name: "stopped-1"}, {name: "stopped-2"}}
	cut := one("cut", &fault{
		what: "one of two replicas does not reach Vault", alerts: []string{"RotatordLedgerViewOld"},
		provoke: func(_ *testing.T, p *place) { p.cut.Store(true) },
		mend:    func(_ *testing.T, p *place) { p.cut.Store(false) },
	})
	cut.way = true
	designs := []design{
		stopped, cut,
		one("copy", &fault{
			what: "a replica is killed between an answer and its delivery, and Vault refuses the delivery to the other one", token: "copy", alerts: []string{"RotatordCopyPending"},
			provoke: copyWithoutOwner,
			mend: func(t *testing.T, p *place) {
				p.putPolicy(t, "")
				p.begin(t)
			},
		}),
		one("replica-down", &fault{
			what: "one of two replicas is killed", alerts: []string{"RotatordReplicaDown"},
			provoke: func(_ *testing.T, p *place) { p.second.end(syscall.SIGKILL) },
			mend:    func(t *testing.T, p *place) { p.begin(t) },
		}),
		one("replicas-down", &fault{
			what: "both replicas are killed, while another rotatord runs", alerts: []string{"RotatordNoReplicaAlive"},
			provoke: func(_ *testing.T, p *place) { p.stop() },
			mend: func(t *testing.T, p *place) {
				p.launch(t)
				p.begin(t)
			},
		}),
		one("record", &fault{
			what: "the record of a token in the shared ledger is damaged", token: "record", alerts: []string{"RotatordRecordUnreadable"},
			provoke: damageRecord, mend: mendRecord,
		}),
	}
	if clockCanBeSet {
		aside := one("aside", &fault{
			what: "the clock of one of two replicas, and no other one, is set a minute ahead; mended by setting it back", alerts: []string{"RotatordReplicaStandsAside"},
			provoke: func(t *testing.T, p *place) { setClock(t, p.second, time.Minute) },
			mend:    func(t *testing.T, p *place) { setClock(t, p.second, 0) },
		})
		aside.clocks = true
		designs = append(designs, aside)
	}
	return designs
}

func (p *place) prepareReplicas(t *testing.T) {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	p.write(t, "identity", identity.String())
	p.putPolicy(t, "")
	p.others = []string{freeAddress(t)}
	if p.design.way {
		p.wayToVault = p.openWay(t)
	}
}

// openWay returns the address of a way to Vault that can be cut.
func (p *place) openWay(t *testing.T) string {
	t.Helper()
	to, err := url.Parse(p.vault.Address)
	if err != nil {
		t.Fatal(err)
	}
	vault := httputil.NewSingleHostReverseProxy(to)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.cut.Load() {
			panic(http.ErrAbortHandler)
		}
		vault.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return server.URL
}

// rotations is how often the service token of a token was rotated.
func (p *place) rotations(t *testing.T, token string) int {
	t.Helper()
	var stats struct {
		Rotations map[string]int `json:"rotations"`
	}
	if answer := p.control(t, "GET", "stats", ""); json.Unmarshal([]byte(answer), &stats) != nil {
		t.Fatalf("the simulator's statistics: %s", answer)
	}
	return stats.Rotations[p.id(token)]
}

// stoppedAtIntent stops the second replica while it waits for the answer to a rotation, until the first one has taken the
// token over and has rotated it again.
func (p *place) stoppedAtIntent(t *testing.T, token string) {
	p.fault(t, token, `"operation": "rotate", "kind": "delay", "when": "after", "delay": "5s"`)
	ordered := make(chan struct{})
	go func() {
		defer close(ordered)
		progress("%s: rotate %s: %s", p.design.name, token, firstLines(p.rotatordWith(filepath.Join(p.dir, "second.yaml"), "rotate", token), 2))
	}()
	program.Eventually(t, 0, "a rotate request of "+token, func() bool { return p.rotations(t, token) == 1 })
	_ = p.second.cmd.Process.Signal(syscall.SIGSTOP)
	before := p.takenOver()
	program.Eventually(t, 0, "the other replica takes over "+token, func() bool { return p.takenOver() > before })
	progress("%s: %s is taken over", p.design.name, token)
	program.Eventually(t, 0, "another rotation of "+token, func() bool { return p.rotations(t, token) == 2 })
	progress("%s: %s is rotated again", p.design.name, token)
	_ = p.second.cmd.Process.Signal(syscall.SIGCONT)
	<-ordered
}

var takenOver = regexp.MustCompile(`(?m)^rotatord_claims_taken_over_total.* ([0-9.e+]+)$`)

// takenOver is how many claims the first replica has taken over.
func (p *place) takenOver() (n float64) {
	_, metrics := get("http://" + p.listen + "/metrics")
	for _, m := range takenOver.FindAllStringSubmatch(metrics, -1) {
		value, _ := strconv.ParseFloat(m[1], 64)
		n += value
	}
	return n
}

// copyWithoutOwner has the second replica receive a secret that Vault does not take, and kills it.
func copyWithoutOwner(t *testing.T, p *place) {
	p.fault(t, "copy", `"operation": "rotate", "kind": "delay", "when": "after", "delay": "6s"`)
	go p.rotatordWith(filepath.Join(p.dir, "second.yaml"), "rotate", "copy")
	program.Eventually(t, 0, "a rotate request", func() bool { return p.rotations(t, "copy") == 1 })
	p.denySink(t, "copy")
	copies := mount + "/metadata/rotatord/pending"
	program.Eventually(t, 0, "a copy of the answer", func() bool {
		list, err := p.vault.Root(t).Logical().List(copies)
		return err == nil && list != nil
	})
	time.Sleep(time.Second) // the delivery is tried
	p.second.end(syscall.SIGKILL)
}

// record is where the shared ledger has a token's record.
func (p *place) record(t *testing.T) string {
	t.Helper()
	var found string
	var walk func(folder string)
	walk = func(folder string) {
		list, err := p.vault.Root(t).Logical().List(mount + "/metadata/" + folder)
		if err != nil || list == nil {
			return
		}
		for _, key := range list.Data["keys"].([]any) {
			name := folder + key.(string)
			if strings.HasSuffix(name, "/") {
				walk(name)
			} else if strings.Contains(name, p.design.tokens[0].name) {
				found = name
			}
		}
	}
	walk("rotatord/")
	if found == "" {
		t.Fatalf("no record of %s", p.design.tokens[0].name)
	}
	return found
}

// damageRecord writes something else over a record, and mendRecord what was there before.
func damageRecord(t *testing.T, p *place) {
	root, path := p.vault.Root(t).Logical(), p.record(t)
	before, err := root.Read(mount + "/data/" + path)
	if err != nil {
		t.Fatal(err)
	}
	p.kept = before.Data["data"].(map[string]any)
	p.keptVersion = before.Data["metadata"].(map[string]any)["version"]
	p.putRecord(t, path, map[string]any{"record": "damaged"})
	p.stop() // a replica that runs knows the record
	p.launch(t)
	p.begin(t)
}

// mendRecord does what the error in rotatord status says: put back the version before, and say that it is the latest state.
func mendRecord(t *testing.T, p *place) {
	path := p.record(t)
	before := p.keptVersion
	p.putRecord(t, path, p.kept)
	p.kept["accept"] = before
	p.putRecord(t, path, p.kept)
}

func (p *place) putRecord(t *testing.T, path string, data any) {
	t.Helper()
	root := p.vault.Root(t).Logical()
	metadata, err := root.Read(mount + "/metadata/" + path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := root.Write(mount+"/data/"+path, map[string]any{"options": map[string]any{"cas": metadata.Data["current_version"]}, "data": data}); err != nil {
		t.Fatal(err)
	}
}
