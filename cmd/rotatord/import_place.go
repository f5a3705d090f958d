package main

import (
	"cmp"
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
	apiToken, roleID, secretID    string // files
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

// The names of the three credentials, in the unit and in the Kubernetes Secret.
const (
	apiTokenName = "cloudflare-api-token"
	roleIDName   = "vault-role-id"
	secretIDName = "vault-secret-id"
)

// placeFor returns the place for a value of --for. With "here", base is the directory for the daemon's
// own files, and apiToken is the path of its API token.
func placeFor(name, base, apiToken string) (place, error) {
	in := func(dir string, p place) place {
		p.apiToken, p.roleID, p.secretID = filepath.Join(dir, apiTokenName), filepath.Join(dir, roleIDName), filepath.Join(dir, secretIDName)
		return p
	}
	const local, socket = "127.0.0.1:9321", "/run/rotatord/admin.sock"
	switch name {
	case forSystemd: // deploy/systemd/rotatord.service
		return in(filepath.Join(doctor.UnitCredentials, unitName), place{
			what: "the unit rotatord.service", listen: local, adminSocket: socket, stateDir: "/var/lib/rotatord",
		}), nil
	case forKubernetes: // deploy/kubernetes/base
		return in("/etc/rotatord/credentials", place{
			what: "the pod of deploy/kubernetes", listen: "0.0.0.0:9321", adminSocket: socket, stateDir: "/var/lib/rotatord/state",
		}), nil
	case forHere:
		p := in(filepath.Dir(apiToken), place{
			what: "a daemon that you start by hand", listen: local,
			adminSocket: filepath.Join(base, "run", "admin.sock"), stateDir: filepath.Join(base, "state"),
		})
		p.apiToken = apiToken
		return p, nil
	}
	return place{}, usagef("--for %s is not one of the values: use %s, %s or %s", name, forSystemd, forKubernetes, forHere)
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
	for _, set := range []struct {
		field *string
		flag  string
	}{{&p.stateDir, o.stateDir}, {&p.roleID, o.roleIDFile}, {&p.secretID, o.secretIDFile}} {
		if set.flag == "" {
			continue
		}
		if *set.field, err = filepath.Abs(set.flag); err != nil {
			return place{}, err
		}
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
