package status

import (
	"slices"
	"strings"
	"time"
)

// WhatToType returns what an operator can do about the token, with at least one command, in every state: what ends the
// state or removes the obstacle, else how to follow what comes by itself, else what is possible with a token that needs
// nothing.
func (t *Token) WhatToType(now time.Time) []ToDo {
	all := slices.Clone(t.ToDo)
	if len(all) == 0 {
		all = t.MoreToDo(now) // the daemon is older than this command, or does not know it
	}
	switch {
	case len(all) == 0 && t.busy():
		all = []ToDo{{Does: "It goes on by itself."}, t.follow()}
	case len(all) == 0:
		all = []ToDo{
			{Does: "Nothing has to be done: it is rotated by itself."},
			{"rotatord rotate " + t.Name, t.rotateNow(now)},
			{"rotatord pause " + t.Name + " --for 24h --reason WHY", "Begin no rotation of it for a day."},
		}
	case !slices.ContainsFunc(all, func(do ToDo) bool { return do.Command != "" }):
		all = append(all, t.follow())
	}
	return all
}

// busy reports whether work on the token is in progress.
func (t *Token) busy() bool { return t.State != "" && t.State != "idle" || t.Waiting }

// follow returns the command that shows how the token goes on.
func (t *Token) follow() ToDo {
	return ToDo{"rotatord status " + t.Name + " --watch", "See it go on."}
}

// rotateNow says what rotating the token now does.
func (t *Token) rotateNow(now time.Time) string {
	if t.GraceEnd.After(now) {
		return "Rotate it now. It is refused until " + t.GraceEnd.UTC().Format("2006-01-02 15:04:05 MST") +
			", because consumers may still use the previous secret; with --override-grace it cuts that secret off."
	}
	return "Rotate it now, outside of its schedule. The secret in use becomes the previous one, and works until its grace ends."
}

// MoreToDo returns what an operator can do about what is wrong with the token and not with its rotation; nil if nothing
// has to be done.
func (t *Token) MoreToDo(now time.Time) (all []ToDo) {
	kinds := t.TroubleKinds(now)
	has := func(names ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(kinds, n) })
	}
	if t.AccountError != "" {
		all = append(all, ToDo{"rotatord doctor", "Say what is wrong with the credential of the account " + t.Account + ". When its file is right, it is read again by itself."})
	}
	if has("gone") {
		all = append(all, ToDo{"rotatord check", "Check the configuration that names another service token."},
			ToDo{reload.Command, "Have the daemon read it. With create the first secret goes to the sinks at once; with another id: rotatord rotate " + t.Name + ". On Kubernetes apply the changed ConfigMap."},
			ToDo{Does: "In the Access policies put the new service token in the place of the old one. Consumers must read the client ID from the sink as well: it is a new one."})
	}
	if has(unread) {
		all = append(all, ToDo{Does: "Put the record in the shared ledger right, as the last error says: docs/runbook.md#rotatordrecordunreadable."},
			ToDo{"rotatord doctor", "Look at the shared ledger and at Vault."})
	}
	if has("expires_very_soon", "expires_soon") {
		all = append(all, ToDo{Does: "Refresh the service token in Cloudflare's dashboard. Or set renew_before in its entry and reload the configuration: then rotatord renews it."},
			ToDo{"rotatord check", "Check the configuration before the reload."})
	}
	if has("version_deletes_soon", "version_deletes") {
		all = append(all, ToDo{Does: "Switch delete_version_after off, and write the present version again: docs/runbook.md#rotatordsinkversiondeletes."},
			ToDo{"rotatord rotate " + t.Name, "Write a new version at once."})
	}
	if has("hook_failing") {
		all = append(all, ToDo{"rotatord hook run " + t.Name, "Run its hooks again at once, when what their errors say is mended. They are tried again by themselves too."},
			ToDo{"rotatord hook drop " + t.Name, "Only if consumers have the new secret already: give up the hooks that are owed."})
	}
	if has("late_answer") {
		all = append(all, ToDo{Does: "Nothing, if it was one answer. If there are more, find out what stops or delays this machine: docs/runbook.md#rotatordlateanswer."})
	}
	if has("unverified") {
		all = append(all, ToDo{Does: "Mend why the secret could not be tried: the address in verify.url, the way to it, or its certificate. The next rotation tries its secret again."})
	}
	return all
}

// Commands returns the commands of a list of things to do.
func Commands(all []ToDo) (commands []string) {
	for _, do := range all {
		if strings.TrimSpace(do.Command) != "" {
			commands = append(commands, do.Command)
		}
	}
	return commands
}
