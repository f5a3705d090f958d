package realvault

import (
	"slices"
	"testing"
	"time"

	"rotatord/test/program"
)

// Cluster is some Vaults on Raft storage, one of which leads.
type Cluster struct{ Members []*Vault }

// StartCluster makes a cluster of so many members without TLS, and waits until one leads and all are unsealed.
// It ends with the test. A new leader is there a few seconds after the last one was killed.
func StartCluster(t testing.TB, members int) *Cluster {
	t.Helper()
	return StartClusterThrough(t, members, func(_ int, listen string) string { return listen })
}

// StartClusterThrough makes such a cluster whose members reach each other through something of the test. through gets
// the number of a member, counted from 0, and the address at which it listens for the others. It returns the address
// that the others are told.
func StartClusterThrough(t testing.TB, members int, through func(member int, listen string) string) *Cluster {
	t.Helper()
	member := func(n int, args ...string) *Vault {
		listen := program.FreeAddress(t)
		return prepare(t, "http", append([]string{"-cluster-address", listen, "-cluster-advertise", through(n, listen)}, args...)...)
	}
	first := member(0)
	first.begin(t)
	// A member that joins has no vote before it has been there for this long, and a leader that is killed earlier
	// leaves nobody who may elect another one. The default is ten seconds.
	if _, err := first.root.Logical().Write("sys/storage/raft/autopilot/configuration", map[string]any{"server_stabilization_time": "1s"}); err != nil {
		t.Fatal(err)
	}
	c := &Cluster{Members: []*Vault{first}}
	for len(c.Members) < members {
		v := member(len(c.Members), "-join", first.Address, "-init", first.initFile)
		v.initFile = first.initFile
		v.begin(t)
		c.Members = append(c.Members, v)
	}
	c.Heal(t)
	program.Eventually(t, 30*time.Second, "a vote for every member", func() bool { return c.voters(t) == members })
	return c
}

// voters counts the members that vote for a leader.
func (c *Cluster) voters(t testing.TB) int {
	t.Helper()
	s, err := c.Leader(t).root.Logical().Read("sys/storage/raft/configuration")
	if err != nil {
		return 0
	}
	config, _ := s.Data["config"].(map[string]any)
	servers, _ := config["servers"].([]any)
	voters := 0
	for _, server := range servers {
		if server, _ := server.(map[string]any); server["voter"] == true {
			voters++
		}
	}
	return voters
}

// Addresses returns the URL of each member.
func (c *Cluster) Addresses() []string {
	var all []string
	for _, v := range c.Members {
		all = append(all, v.Address)
	}
	return all
}

// Leader waits for a member that says of itself that it leads and may write, and returns it.
func (c *Cluster) Leader(t testing.TB) *Vault {
	t.Helper()
	var leader *Vault
	program.Eventually(t, 30*time.Second, "a leader", func() bool {
		for _, v := range c.Members {
			if v.Running() && v.Leads() {
				leader = v
			}
		}
		return leader != nil
	})
	return leader
}

// Leads reports whether the server says of itself that it leads. It asks the server, which may be paused.
func (v *Vault) Leads() bool {
	asking, err := v.root.Clone()
	if err != nil {
		return false
	}
	asking.SetClientTimeout(time.Second)
	asking.SetMaxRetries(0)
	status, err := asking.Sys().Leader()
	return err == nil && status.HAEnabled && status.IsSelf
}

// Standbys returns the members that do not lead.
func (c *Cluster) Standbys(t testing.TB) []*Vault {
	t.Helper()
	leader := c.Leader(t)
	return slices.DeleteFunc(slices.Clone(c.Members), func(v *Vault) bool { return v == leader })
}

// StepDown lets the leader give the lead away, and returns it.
func (c *Cluster) StepDown(t testing.TB) *Vault {
	t.Helper()
	leader := c.Leader(t)
	if err := leader.root.Sys().StepDown(); err != nil {
		t.Fatal(err)
	}
	return leader
}

// Heal starts the members that do not run, and waits until every member follows one leader: requests to any of
// them are carried out.
func (c *Cluster) Heal(t testing.TB) {
	t.Helper()
	for _, v := range c.Members {
		if !v.Running() {
			v.Resume(t)
		}
	}
	leader := c.Leader(t)
	for _, v := range c.Members {
		program.Eventually(t, 30*time.Second, "a request to "+v.Address, func() bool {
			status, err := v.root.Sys().Leader()
			if err != nil || status.LeaderAddress != leader.Address {
				leader = c.Leader(t)
				return false
			}
			_, err = v.root.Auth().Token().LookupSelf()
			return err == nil
		})
	}
}
