package config_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/config"
)

func TestShared(t *testing.T) {
	c := parse(t, "state: {shared: {vault: {mount: secret, prefix: rotatord}}}\n"+minimal)
	if diff := cmp.Diff(&config.Shared{Mount: "secret", Prefix: "rotatord", Claim: 2 * time.Minute}, c.State.Shared); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(c.Warnings) != 0 {
		t.Errorf("%q", lines(c.Warnings))
	}
	if parse(t, minimal).State.Shared != nil {
		t.Error("a ledger is shared that the file does not share")
	}
}

// TestSharedNeedsAVaultOnly: the ledger alone makes use of the section vault.
func TestSharedNeedsAVaultOnly(t *testing.T) {
	file := replaced(t, "vault: {mount: secret, path: access/ci}", "file: {path: /var/lib/ci/cf.env}")
	for text, warnings := range map[string]int{file: 1, "state: {shared: {vault: {mount: secret, prefix: rotatord}}}\n" + file: 0} {
		if c := parse(t, text); len(c.Warnings) != warnings {
			t.Errorf("%q\n%s", lines(c.Warnings), text)
		}
	}
}

// TestSharedSinks: a sink may be beside the ledger, in another mount, or have a name that begins alike.
func TestSharedSinks(t *testing.T) {
	for _, place := range []string{"{mount: secret, path: rotatord-ci}", "{mount: kv, path: rotatord/ci}", "{mount: secret, path: ci/rotatord}"} {
		parse(t, "state: {shared: {vault: {mount: secret, prefix: rotatord}}}\n"+replaced(t, "{mount: secret, path: access/ci}", place))
	}
}

func TestReplicaName(t *testing.T) {
	if name, err := (&config.Shared{Replica: "b"}).Name(); name != "b" || err != nil {
		t.Error(name, err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Skip(err)
	}
	if name, err := (&config.Shared{}).Name(); err == nil && name != strings.ToLower(host) || err != nil && !strings.Contains(err.Error(), "state.shared.replica") {
		t.Error(name, err)
	}
}
