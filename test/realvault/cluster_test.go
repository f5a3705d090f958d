package realvault_test

import (
	"testing"
	"time"

	"rotatord/test/realvault"
)

// TestCluster is the contract of the starter: whatever happens to the leader, another one leads, nothing that was
// confirmed is lost, and a standby forwards.
func TestCluster(t *testing.T) {
	c := realvault.StartCluster(t, 3)
	c.Members[0].MountKV(t, "secret", 2, false)
	version := 0
	write := func(v *realvault.Vault) {
		t.Helper()
		s, err := v.Root(t).Logical().Write("secret/data/x", map[string]any{"data": map[string]any{"n": version}, "options": map[string]any{"cas": version}})
		if err != nil {
			t.Fatalf("version %d through %s: %v", version+1, v.Address, err)
		}
		version++
		if got := s.Data["version"]; got == nil {
			t.Errorf("no version in %v", s.Data)
		}
	}
	all := func() {
		t.Helper()
		c.Heal(t)
		for _, v := range c.Members {
			write(v)
		}
	}
	all()
	for what, change := range map[string]func(*realvault.Vault){
		"killed": (*realvault.Vault).Kill, "stopped": (*realvault.Vault).Stop,
		"stepped down": func(*realvault.Vault) { c.StepDown(t) },
	} {
		leader := c.Leader(t)
		began := time.Now()
		change(leader)
		next := c.Leader(t)
		for next == leader {
			next = c.Leader(t)
		}
		t.Logf("%s: another member led after %s", what, time.Since(began).Round(100*time.Millisecond))
		write(next)
		all()
	}
}
