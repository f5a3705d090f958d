package main

import (
	"cmp"
	"errors"
	"path/filepath"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/doctor"
	"rotatord/internal/scheduler"
)

// place is where a daemon has its files and addresses. It depends on how the daemon runs.
type place struct {
	what                          string // for the first line of the file
	listen, adminSocket, stateDir string
	apiToken                      string // file
	identity                      string // file of the age identity; empty for one that the daemon makes in stateDir
	auth                          config.VaultAuth
}

// The values of --for. systemd is the default, because most users install the unit. The paths are those
// of the shipped unit, so only Vault's address has to be changed.
const (
	forSystemd    = "systemd"
	forKubernetes = "kubernetes"
	forHere       = "here"
)

// unitName is that of the shipped unit.
const unitName = "rotatord.service"

// The names of the four credentials, in the unit and in the Kubernetes Secret.
const (
	apiTokenName = "cloudflare-api-token"
	roleIDName   = "vault-role-id"
	secretIDName = "vault-secret-id"
	identityName = "age-identity"
)

// The values of --vault-auth. The other methods need parts of vault that import does not write.
const (
	authAppRole    = "approle"
	authKubernetes = "kubernetes"
	authJWT        = "jwt"
)

// placeFor returns the place for a value of --for, where the daemon logs in to Vault as it usually does
// there. With "here", base is the directory for the daemon's own files, and apiToken is the path of its API
// token.
func placeFor(name, base, apiToken string) (place, error) {
	in := func(dir string, p place) place {
		p.apiToken, p.identity, p.auth = filepath.Join(dir, apiTokenName), filepath.Join(dir, identityName), appRoleIn(dir)
		return p
	}
	const local, socket = "127.0.0.1:9321", "/run/rotatord/admin.sock"
	switch name {
	case forSystemd: // deploy/systemd/rotatord.service
		return in(filepath.Join(doctor.UnitCredentials, unitName), place{
			what: "the unit rotatord.service", listen: local, adminSocket: socket, stateDir: "/var/lib/rotatord",
		}), nil
	case forKubernetes: // deploy/kubernetes/base
		p := in(podCredentials, place{
			what: "the pod of deploy/kubernetes", listen: "0.0.0.0:9321", adminSocket: socket, stateDir: "/var/lib/rotatord/state",
		})
		p.auth = &config.KubernetesAuth{JWT: config.SecretSource{File: config.DefaultServiceAccountFile}}
		return p, nil
	case forHere:
		p := in(filepath.Dir(apiToken), place{
			what: "a daemon that you start by hand", listen: local,
			adminSocket: filepath.Join(base, "run", "admin.sock"), stateDir: filepath.Join(base, "state"),
		})
		p.apiToken, p.identity = apiToken, ""
		return p, nil
	}
	return place{}, usagef("--for %s is not one of the values: use %s, %s or %s", name, forSystemd, forKubernetes, forHere)
}

// podCredentials is where the pod of deploy/kubernetes has its Secret.
const podCredentials = "/etc/rotatord/credentials"

// appRoleIn is AppRole with the files of a directory.
func appRoleIn(dir string) *config.AppRole {
	return &config.AppRole{
		RoleID: config.SecretSource{File: filepath.Join(dir, roleIDName)}, SecretID: config.SecretSource{File: filepath.Join(dir, secretIDName)},
	}
}

// logIn returns how the daemon logs in to Vault, by --vault-auth and the flags for each method. usual is how it
// does at this place, and credentials the directory of its other credentials there.
func (o *importOptions) logIn(usual config.VaultAuth, credentials string) (config.VaultAuth, error) {
	method := cmp.Or(o.vaultAuth, usual.Kind())
	for _, flag := range []struct{ file, name, method string }{
		{o.roleIDFile, "vault-role-id-file", authAppRole}, {o.secretIDFile, "vault-secret-id-file", authAppRole}, {o.jwtFile, "vault-jwt-file", authJWT},
	} {
		if flag.file != "" && flag.method != method {
			return nil, usagef("--%s is for --vault-auth %s, and the method is %s", flag.name, flag.method, method)
		}
	}
	if o.vaultRoleGiven && method == authAppRole {
		return nil, usagef("--vault-role is for --vault-auth %s and %s: AppRole has a role ID in a file", authKubernetes, authJWT)
	}
	var err error
	absolute := func(file string) config.SecretSource {
		path, failed := filepath.Abs(file) // the daemon has a working directory of its own
		err = errors.Join(err, failed)
		return config.SecretSource{File: path}
	}
	switch method {
	case authAppRole:
		a := appRoleIn(credentials)
		if o.roleIDFile != "" {
			a.RoleID = absolute(o.roleIDFile)
		}
		if o.secretIDFile != "" {
			a.SecretID = absolute(o.secretIDFile)
		}
		return a, err
	case authKubernetes:
		return &config.KubernetesAuth{Role: o.vaultRole, JWT: config.SecretSource{File: config.DefaultServiceAccountFile}}, nil
	case authJWT:
		jwt := config.SecretSource{File: config.DefaultServiceAccountFile}
		switch {
		case o.jwtFile != "":
			jwt = absolute(o.jwtFile)
		case o.placement != forKubernetes:
			return nil, usagef("--vault-jwt-file is missing: with --for %s, name the file in which the daemon will find its JWT", o.placement)
		}
		return &config.JWTAuth{Role: o.vaultRole, JWT: jwt}, err
	default:
		return nil, usagef("--vault-auth %s is not one of the values: use %s, %s or %s, or write another method into the file yourself", method, authAppRole, authKubernetes, authJWT)
	}
}

// place returns the place for --for, changed by the other flags.
func (o *importOptions) place() (place, error) {
	apiToken, err := filepath.Abs(o.apiTokenFile) // the daemon has a working directory of its own
	if err != nil {
		return place{}, err
	}
	base, err := filepath.Abs(filepath.Dir(o.out)) // without --out: the working directory
	if err != nil {
		return place{}, err
	}
	p, err := placeFor(o.placement, base, apiToken)
	if err != nil {
		return place{}, err
	}
	if o.stateDir != "" {
		if p.stateDir, err = filepath.Abs(o.stateDir); err != nil {
			return place{}, err
		}
	}
	credentials := filepath.Dir(p.apiToken)
	if p.auth, err = o.logIn(p.auth, credentials); err != nil {
		return place{}, err
	}
	p.listen = cmp.Or(o.listen, p.listen)
	return p, nil
}

// knownPlace returns the place that a configuration names. The new file is for the same daemon.
func knownPlace(c *config.Config) place {
	return place{what: "the daemon of " + c.File, listen: c.Listen, adminSocket: c.AdminSocket, stateDir: c.State.Dir}
}

// spans are the defaults that depend on the time between two slots.
type spans struct{ jitter, window, grace time.Duration }

// usualSpans are those of config.example.yaml. They fit a schedule with enough time between slots.
var usualSpans = spans{jitter: 10 * time.Minute, window: 6 * time.Hour, grace: 24 * time.Hour}

// spansOf returns spans that fit a schedule: check refuses spans that are longer than the smallest gap
// between two slots. A window of 0 lasts until the next slot. For a schedule that is not valid it returns
// the usual spans; the loader reports the fault.
func spansOf(expression string) spans {
	const slots = 400
	schedule, err := scheduler.Parse(expression, time.UTC)
	if err != nil {
		return usualSpans
	}
	gap := schedule.SmallestGap(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), slots)
	if gap == 0 { // there is only one slot in the next years
		return usualSpans
	}
	s := spans{
		jitter: min(usualSpans.jitter, gap/10).Truncate(time.Second),
		grace:  min(usualSpans.grace, gap/2).Truncate(time.Second),
	}
	if gap >= 4*usualSpans.window {
		s.window = usualSpans.window
	}
	return s
}
