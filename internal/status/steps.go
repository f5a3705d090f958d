package status

import "strings"

// StepsOf returns what to do about a check that fails, in order, with the commands as they are typed on the host. It is
// nil if the sentence of what to do says all.
func StepsOf(c Check) []ToDo {
	switch c.Name {
	case CheckVault, CheckVaultLogin, CheckVaultTLS:
		return vaultSteps(c)
	case CheckSink:
		return sinkSteps(c)
	case CheckCloudflare:
		if c.Reason == "refused" {
			return append([]ToDo{{Does: "In Cloudflare's dashboard create an API token for this account with the permission Access: Service Tokens Write, or give the one in use that permission."}}, credentialSteps(c.Place)...)
		}
		return []ToDo{{"rotatord doctor", "Say how far a request to Cloudflare comes from this host, and what it answers."}}
	case CheckCredential:
		return credentialSteps(c.Place)
	case CheckWrappingToken:
		return []ToDo{{"rotatord docs runbook#rotatordvaultunwrapfailed", "Read what to do: another program may have the secret ID."}}
	case CheckAuditChain:
		return []ToDo{{"rotatord audit verify", "Name what is missing or changed. Keep a copy of the directory of the record."},
			{"systemctl restart rotatord.service", "When that is clear: the next start ends this. Rotations go on until then. On Kubernetes restart the pod."}}
	case CheckConfiguration:
		return []ToDo{{"rotatord check", "Name each fault of the configuration. Correct them."}, reload,
			{"systemctl restart rotatord.service", "Only if the reload was refused because it needs a restart. A restart is safe."}}
	case CheckClock:
		return []ToDo{{"timedatectl", "Make sure that the clock is right, and is kept right by a time service."},
			{"systemctl restart rotatord.service", "Only then: the new process counts from its own start. On Kubernetes restart the pod."}}
	case CheckNotify:
		return []ToDo{{"rotatord notify test " + inShell(c.Subject), "Say why the receiver takes nothing. Correct what it names, and type it again."}}
	}
	if c.Place == "" {
		return nil
	}
	return diskSteps(c)
}

// reload has the daemon read its configuration again.
var reload = ToDo{"systemctl reload rotatord.service", "Have the daemon read it. On Kubernetes apply the changed ConfigMap."}

func vaultSteps(c Check) []ToDo {
	look := ToDo{"rotatord doctor", "Say what Vault answers to the login from this host, and which file or which right is to be corrected."}
	at := vaultAt(c)
	switch {
	case c.Name == CheckVault && c.Reason == "sealed":
		return []ToDo{{"vault operator unseal" + at, "Once for each key that is needed, until it says Sealed false. Rotations go on by themselves."}}
	case c.Name == CheckVault && (c.Reason == "unreachable" || c.Reason == "timeout" || c.Reason == "server_error"):
		return []ToDo{{"vault status" + at, "Say whether Vault answers at all. If it does not: start it, or mend the way to it."}, look}
	}
	return []ToDo{look}
}

// vaultAt returns the option of Vault's own command that says where Vault is; empty if that is not known.
func vaultAt(c Check) string {
	if c.Place == "" {
		return ""
	}
	return " -address=" + inShell(c.Place)
}

func sinkSteps(c Check) []ToDo {
	look := ToDo{"rotatord doctor", "Say what is wrong with each sink, and which rights are missing."}
	switch {
	case strings.HasPrefix(c.Subject, "vault:") && c.Reason == "refused":
		at := vaultAt(c)
		return []ToDo{
			{"vault policy write" + at + " rotatord <(rotatord docs deploy/vault/rotatord-policy.hcl)", "As an administrator of Vault, if the mount is there, and the policy has the name and the paths of the guide: write it again. Rotations go on by themselves."},
			{"rotatord doctor", "Otherwise: say what the policy lacks."},
		}
	case c.Reason == "no_space" && c.Place != "":
		return diskSteps(c)
	}
	return []ToDo{look}
}

// credentialSteps says how to write a credential into its place.
func credentialSteps(place string) []ToDo {
	verify := ToDo{"rotatord doctor", "Say whether Cloudflare takes it."}
	switch {
	case strings.HasPrefix(place, "/run/credentials/"): // a copy that systemd makes at the start
		return []ToDo{{"systemctl cat rotatord.service", "LoadCredential names the file that systemd copies to " + place + ": write the credential there."},
			{"systemctl restart rotatord.service", "Have systemd copy it. A restart is safe."}}
	case strings.HasPrefix(place, "/"):
		return []ToDo{{"cat > " + inShell(place), "Paste the credential, then press Enter and Ctrl-D. It is read again at once. On Kubernetes change the Secret that is mounted there."}, verify}
	case place != "":
		return []ToDo{{Does: "Correct the " + place + " where the daemon is started, and restart it."}, verify}
	}
	return []ToDo{verify}
}

// diskSteps says how to find what fills a disk, or what is wrong with it.
func diskSteps(c Check) []ToDo {
	at := inShell(c.Place)
	switch c.Reason {
	case "no_space", "low_space":
		return []ToDo{{"df -h " + at + "; df -i " + at, "Say how full the disk is. Once there is room, nothing has to be restarted: it is looked at again every 15 seconds."},
			{`du -axh --max-depth=2 "$(df --output=target ` + at + ` | tail -n 1)" | sort -h | tail`, "Show what is large on that disk. Delete nothing below " + c.Place + "."}}
	case "no_permission":
		return []ToDo{{"ls -ld " + at, "It must belong to the user that the daemon runs as."}}
	}
	return []ToDo{{"findmnt --target " + at, "Say whether it is mounted, and whether it can be written."}, {"dmesg | tail", "Say whether the disk has faults. While a secret is pending keep this disk."}}
}

// inShell returns a path or an address as a shell takes it for one word.
func inShell(word string) string {
	if word != "" && strings.Trim(word, plainInShell) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// plainInShell are the characters that mean nothing to a shell.
const plainInShell = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:@%+,-"
