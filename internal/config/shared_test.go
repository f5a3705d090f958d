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
	c := parse(t, "state: {identity: {file: /etc/rotatord/identity.age}, shared: {vault: {mount: secret, prefix: rotatord}}}\n"+minimal)
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
	const unused = "vault: is used by no sink"
	if got := lines(parse(t, file).Warnings); len(got) != 1 || !strings.Contains(got[0], unused) {
		t.Errorf("%q", got)
	}
	for _, w := range lines(parse(t, "state: {shared: {vault: {mount: secret, prefix: rotatord}}}\n"+file).Warnings) {
		if strings.Contains(w, unused) {
			t.Error(w)
		}
	}
}

// TestSharedWarnings: what does not fit several replicas.
func TestSharedWarnings(t *testing.T) {
	const identity = "identity: {file: /etc/rotatord/identity.age}"
	for name, test := range map[string]struct{ state, vault, sink, want string }{
		"no identity":  {state: "shared: {vault: {mount: secret, prefix: rotatord}}", want: "state.shared: has neither state.identity nor state.recipients beside it"},
		"recipients":   {state: "recipients: [age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj], shared: {vault: {mount: secret, prefix: rotatord}}"},
		"short claim":  {state: identity + ", shared: {vault: {mount: secret, prefix: rotatord}, claim: 5s}", want: "state.shared.claim: a claim of 5s has room for fewer than 4 requests to Vault of 30s"},
		"long timeout": {state: identity + ", shared: {vault: {mount: secret, prefix: rotatord}}", vault: "  timeout: 60s\n", want: "state.shared: a claim of 2m has room for fewer than 4 requests to Vault of 1m (vault.timeout)"},
		"both short":   {state: identity + ", shared: {vault: {mount: secret, prefix: rotatord}, claim: 8s}", vault: "  timeout: 2s\n"},
		"a file": {state: identity + ", shared: {vault: {mount: secret, prefix: rotatord}}", sink: "file: {path: /var/lib/ci/cf.env}",
			want: "tokens.ci.sinks[0]: is a file, and with state.shared any replica may rotate"},
	} {
		t.Run(name, func(t *testing.T) {
			text := "state: {" + test.state + "}\n" + minimal
			if test.sink != "" {
				text = strings.Replace(text, "vault: {mount: secret, path: access/ci}", test.sink, 1)
			}
			text = strings.Replace(text, "\nvault:\n", "\nvault:\n"+test.vault, 1)
			if test.vault != "" && !strings.Contains(text, test.vault) {
				t.Fatal("the case changes nothing")
			}
			got := lines(parse(t, text).Warnings)
			if test.want == "" && len(got) > 0 || test.want != "" && (len(got) != 1 || !strings.Contains(got[0], test.want)) {
				t.Errorf("%q\nwant: %s", got, test.want)
			}
		})
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
