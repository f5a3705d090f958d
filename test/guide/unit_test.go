package guide

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// unitRating has the systemd that runs the unit verify it, and rate it as the unit itself says.
func unitRating(t *testing.T, m *machine) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, "deploy/systemd/rotatord.service"))
	if err != nil {
		t.Fatal(err)
	}
	promised := regexp.MustCompile(`rates it ([0-9.]+) `).FindStringSubmatch(string(text))
	if promised == nil {
		t.Fatal("the unit does not say how it is rated")
	}
	said := m.run("", "systemd-analyze verify --man=no rotatord.service")
	for line := range strings.Lines(said) { // what systemd older than 254 does not know, as the unit says
		if !regexp.MustCompile(`rotatord\.service:.*'Restart(Steps|MaxDelaySec)'|^/lib/|^\S+: Unit configuration has fatal error`).MatchString(line) {
			t.Errorf("systemd-analyze verify: %s", line)
		}
	}
	want(t, "systemd-analyze security", m.run("", "systemd-analyze security --no-pager rotatord.service"), `Overall exposure level for rotatord\.service: `+regexp.QuoteMeta(promised[1])+` `)
}

// missingIdentity starts the unit without the file of its age identity, for which it has SetCredential=: an installation that has its
// key in the state directory starts, and a configuration that names the credential is refused with a message.
func missingIdentity(t *testing.T, m *machine) {
	t.Helper()
	const restart = "systemctl restart rotatord.service"
	m.run("", "mv /etc/rotatord/credentials/age-identity /root/ && cp -a /etc/rotatord/config.yaml /root/config.yaml")
	if out, err := m.try("", restart); err == nil {
		t.Errorf("it started without the key that the configuration names: %s", out)
	}
	journal := m.run("", "journalctl --unit rotatord.service --output cat --no-pager --lines 30")
	want(t, "the message of the daemon", journal, `/run/credentials/rotatord\.service/age-identity is "none", which the systemd unit puts in place of a file that does not exist: put the identity back into /etc/rotatord/credentials/age-identity`)
	want(t, "it is tried again", m.run("", "systemctl show --property SubState rotatord.service"), `^SubState=auto-restart$`)

	// As an installation from before: the key is in the state directory.
	m.run("", "cp /root/age-identity /var/lib/private/rotatord/identity.age && chmod 0600 /var/lib/private/rotatord/identity.age && "+
		"chown --reference /var/lib/private/rotatord /var/lib/private/rotatord/identity.age")
	m.run("", `sed -i 's/, identity: {file: [^}]*}//; /^ *identity:/d' /etc/rotatord/config.yaml && ! grep -q age-identity /etc/rotatord/config.yaml`)
	m.run("", restart+" && "+ready)
	want(t, "the credential in place of the file", m.run("", "cat /run/credentials/rotatord.service/age-identity"), `^none$`)

	m.run("", "mv /root/age-identity /etc/rotatord/credentials/ && cp -a /root/config.yaml /etc/rotatord/config.yaml && rm /var/lib/private/rotatord/identity.age")
	m.run("", restart+" && "+ready)
}
