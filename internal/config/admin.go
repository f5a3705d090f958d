package config

import (
	accounts "os/user"
	"regexp"
	"slices"
)

// AllowVerbs are the commands that admin.allow can name. "status" is all that only reads, and "all" is every command.
var AllowVerbs = []string{"status", "rotate", "rotate-all", "cancel", "cancel-all", "pause", "resume", "resolve", "revoke-previous", "extend-grace", "hook", "notify-test", "all"}

// validAccount is the name or the number of a user or a group of the system.
var validAccount = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@-]{0,255}\$?$`)

// number is the number of a user or a group. It needs no name on this machine.
var number = regexp.MustCompile(`^[0-9]+$`)

// warnUnknown warns of users and groups that this machine does not know: their entry allows nobody anything. Whether they
// exist is known only where the daemon runs, so it is not an error.
func (c *checker) warnUnknown(path string, a Allow) {
	const unknown = "this machine has no %s %q in its files, so this entry allows nothing here: correct it, or write the number that the command id shows (rotatord does not ask LDAP or SSSD for names)"
	if name := a.User; validAccount.MatchString(name) && !number.MatchString(name) {
		if _, err := accounts.Lookup(name); err != nil {
			c.warn(path+".user", unknown, "user", name)
		}
	}
	if name := a.Group; validAccount.MatchString(name) && !number.MatchString(name) {
		if _, err := accounts.LookupGroup(name); err != nil {
			c.warn(path+".group", unknown, "group", name)
		}
	}
}

// checkAllow checks who may use which commands.
func (c *checker) checkAllow() {
	for i, in := range c.raw.Admin.Allow {
		path := itemPath("admin.allow", i)
		out := Allow{User: or(in.User, ""), Group: or(in.Group, "")}
		switch {
		case c.isBroken(path):
			continue
		case c.has(path+".user") && c.has(path+".group"):
			c.wrong(path, "has both user and group: write two entries")
		case !c.has(path+".user") && !c.has(path+".group"):
			c.wrong(path, "needs user or group")
		}
		for key, name := range map[string]*string{".user": in.User, ".group": in.Group} {
			if name != nil && !validAccount.MatchString(*name) {
				c.wrong(path+key, "is not the name or the number of a user or a group: write it as the command id shows it")
			}
		}
		for j, verb := range in.Verbs {
			at := itemPath(path+".verbs", j)
			switch {
			case verb == nil:
			case !slices.Contains(AllowVerbs, *verb):
				c.wrong(at, "is not a command that can be allowed: %s", Suggest(*verb, AllowVerbs))
			case slices.Contains(out.Verbs, *verb):
				c.wrong(at, "is in the list twice: remove one")
			default:
				out.Verbs = append(out.Verbs, *verb)
			}
		}
		c.warnUnknown(path, out)
		c.cfg.Allow = append(c.cfg.Allow, out)
	}
}
