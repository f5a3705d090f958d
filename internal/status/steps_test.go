package status_test

import (
	"strings"
	"testing"

	"rotatord/internal/status"
)

// TestSteps: what to type about a check names the place that the check is about, as a shell takes it.
func TestSteps(t *testing.T) {
	for _, test := range []struct {
		check status.Check
		want  string // the first command
	}{
		{status.Check{Name: status.CheckVault, Reason: "sealed", Place: "https://vault:8200"}, "vault operator unseal -address=https://vault:8200"},
		{status.Check{Name: status.CheckVault, Reason: "sealed"}, "vault operator unseal"},
		{status.Check{Name: status.CheckVault, Reason: "unreachable", Place: "https://vault:8200"}, "vault status -address=https://vault:8200"},
		{status.Check{Name: status.CheckVault, Reason: "no_session", Place: "https://vault:8200"}, "rotatord doctor"},
		{status.Check{Name: status.CheckSink, Subject: "vault:secret", Reason: "refused", Place: "https://vault:8200"},
			"vault policy write -address=https://vault:8200 rotatord <(rotatord docs deploy/vault/rotatord-policy.hcl)"},
		{status.Check{Name: status.CheckSink, Subject: "file:/srv/ci", Reason: "no_space", Place: "/srv/ci"}, "df -h /srv/ci; df -i /srv/ci"},
		{status.Check{Name: status.CheckSink, Subject: "file:/srv/ci", Reason: "no_permission", Place: "/srv/ci"}, "rotatord doctor"},
		{status.Check{Name: status.CheckCloudflare, Subject: "prod", Reason: "refused", Place: "/etc/rotatord/credentials/api token"}, "cat > '/etc/rotatord/credentials/api token'"},
		{status.Check{Name: status.CheckCloudflare, Subject: "prod", Reason: "unreachable", Place: "/x"}, "rotatord doctor"},
		{status.Check{Name: status.CheckCredential, Subject: "prod", Reason: "missing", Place: "/run/credentials/rotatord.service/api-token"}, "systemctl cat rotatord.service"},
		{status.Check{Name: status.CheckCredential, Subject: "prod", Reason: "missing", Place: "environment variable CF"}, "rotatord doctor"},
		{status.Check{Name: status.CheckStateDirectory, Reason: "no_space", Place: "/it's"}, `df -h '/it'\''s'; df -i '/it'\''s'`},
		{status.Check{Name: status.CheckAudit, Reason: "read_only", Place: "/var/lib/rotatord/audit"}, "findmnt --target /var/lib/rotatord/audit"},
		{status.Check{Name: status.CheckDiskSpace, Reason: "low_space", Place: "/var/lib/rotatord"}, "df -h /var/lib/rotatord; df -i /var/lib/rotatord"},
		{status.Check{Name: status.CheckConfiguration, Reason: "refused"}, "rotatord check"},
		{status.Check{Name: status.CheckNotify, Subject: "night"}, "rotatord notify test night"},
		{status.Check{Name: status.CheckAuditChain, Reason: "damaged"}, "rotatord audit verify"},
	} {
		commands := status.Commands(status.StepsOf(test.check))
		if len(commands) == 0 || commands[0] != test.want {
			t.Errorf("%+v: %q, want %q first", test.check, commands, test.want)
		}
	}
	for _, name := range status.CheckNames {
		trouble := status.Troubles(nil, []status.Check{{Name: name, Subject: "prod", Place: "/var/lib/rotatord", Reason: "other"}}, noon)[0]
		if len(status.Commands(trouble.Steps)) == 0 {
			t.Errorf("%s: nothing to type", name)
		}
		for _, step := range trouble.Steps {
			if step.Does == "" || strings.Contains(step.Command, "NAME") {
				t.Errorf("%s: %+v", name, step)
			}
		}
	}
}
