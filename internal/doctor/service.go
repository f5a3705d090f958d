package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"rotatord/internal/config"
	"rotatord/internal/ownpath"
)

// Relocation is a directory of credentials that is read instead of another one, which systemd creates
// when it starts the unit.
type Relocation struct {
	From, To  string
	Requested bool // by --credentials; otherwise because the unit does not run
}

// String says so.
func (r Relocation) String() string {
	if r.Requested {
		return fmt.Sprintf("the credentials of %s were read in %s, as --credentials says", r.From, r.To)
	}
	return fmt.Sprintf("the unit does not run, so there is no %s: its credentials were read in %s, where the shipped unit takes them from", r.From, r.To)
}

// ServiceUser is the user that the daemon runs as, if that is not the user of this process.
type ServiceUser struct {
	UID, GID int
	Groups   []int
	// Assumed says that the user is not known: a unit that never ran has none yet. UID and GID are
	// then those of a user without rights.
	Assumed bool
}

// overflowUser is the kernel's overflow user, which has no rights.
const overflowUser = 65534

func (u ServiceUser) String() string {
	if u.Assumed {
		return "a service user without any rights"
	}
	return fmt.Sprintf("the service's user (uid %d)", u.UID)
}

// UnitCredentials is where systemd puts the credentials of a unit while it runs, in a directory of the unit's
// name.
const UnitCredentials = "/run/credentials"

// ofUnit reports whether the configuration is for a systemd unit: it names credentials that only
// systemd creates.
func (e *examination) ofUnit() bool {
	return len(e.Relocations) > 0 || slices.ContainsFunc(e.Config.Files(), func(f config.NamedFile) bool { return handedOver(f.Path) })
}

// handedOver reports whether systemd creates a file for the unit, which can then read it.
func handedOver(path string) bool { return filepath.Dir(filepath.Dir(path)) == UnitCredentials }

// serviceUser returns the user that the daemon runs as, as far as that is known; nil for the user of this
// process. Only root can try the rights of another user.
func (e *examination) serviceUser() *ServiceUser {
	if e.User != nil {
		return e.User
	}
	if e.euid() != 0 {
		return nil
	}
	switch owner, err := OwnerOf(e.Config.State.Dir); {
	case err == nil && owner.UID != 0:
		return owner
	case errors.Is(err, fs.ErrNotExist) && e.ofUnit():
		return &ServiceUser{UID: overflowUser, GID: overflowUser, Assumed: true}
	}
	return nil
}

// OwnerOf returns the owner of a state directory, who is the user that the daemon runs as.
func OwnerOf(stateDir string) (*ServiceUser, error) {
	uid, gid, err := ownpath.Owner(stateDir)
	if err != nil {
		return nil, err
	}
	return &ServiceUser{UID: uid, GID: gid}, nil
}

// service checks the files that this user can read and the daemon's user may not.
func (e *examination) service() {
	for _, r := range e.Relocations {
		e.add(Good, CredentialsElsewhere, "credentials", r.String(), "")
	}
	user := e.serviceUser()
	if user == nil {
		return
	}
	files := []config.NamedFile{{Field: "--config", Path: e.Config.File}}
	for _, f := range e.Config.Files() {
		relocated := slices.ContainsFunc(e.Relocations, func(r Relocation) bool { return filepath.Dir(f.Path) == r.To })
		if !relocated && !handedOver(f.Path) { // the service can read what systemd hands over
			files = append(files, f)
		}
	}
	unit := e.ofUnit()
	for _, f := range files {
		if !filepath.IsAbs(f.Path) {
			continue
		}
		if dir := hiddenIn(f.Path); unit && dir != "" {
			e.add(Warning, ServiceCannotRead, f.Field, fmt.Sprintf("%s is in %s, which the shipped unit hides from the service (ProtectHome=, PrivateTmp=)", f.Path, dir),
				"put it elsewhere, such as into /etc/rotatord")
			continue
		}
		if info, err := os.Stat(f.Path); err != nil || !info.Mode().IsRegular() {
			continue // another check reports that
		}
		e.readable(f, *user)
	}
}

// readable adds a finding if the service's user cannot read a file.
func (e *examination) readable(f config.NamedFile, user ServiceUser) {
	closed, err := e.openAs(user, f.Path)
	if !errors.Is(err, fs.ErrPermission) {
		return
	}
	level := Bad
	if user.Assumed {
		level = Warning
	}
	message := fmt.Sprintf("this user can read %s, and %s cannot", f.Path, user)
	var advice string
	switch {
	case closed != f.Path:
		message += ": it may not enter " + closed
		advice = "chmod a+x " + closed
		if f.Secret {
			advice = "hand the file over by LoadCredential= in the unit, or put it where that user may enter"
		}
	case f.Secret:
		advice = "hand it over by LoadCredential= in the unit, or give it to that user (chown)"
	case f.Field == "--config":
		advice = "chmod 0644 " + f.Path + ": no secret is in it"
	default:
		advice = "chmod a+r " + f.Path
	}
	e.add(level, ServiceCannotRead, f.Field, message, advice)
}

// hiddenIn returns the directory in which the shipped unit hides a path, or "".
func hiddenIn(path string) string {
	for _, dir := range []string{"/home", "/root", "/run/user", "/tmp", "/var/tmp"} {
		if strings.HasPrefix(path, dir+"/") {
			return dir
		}
	}
	return ""
}

// prefixes returns the directories above a path, from the top, and the path itself.
func prefixes(path string) []string {
	var all []string
	for p := filepath.Clean(path); ; p = filepath.Dir(p) {
		all = append(all, p)
		if p == filepath.Dir(p) {
			break
		}
	}
	slices.Reverse(all)
	return all
}
