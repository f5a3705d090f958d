package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"rotatord/internal/config"
	"rotatord/internal/doctor"
)

// unitSources is the directory that the shipped unit takes its credentials from.
const unitSources = "/etc/rotatord/credentials"

// credentialPlaces are the directories in which commands look for credentials. Tests replace them.
type credentialPlaces struct {
	runtime, sources string
	root             bool // this process runs as root and can read the sources
}

func systemPlaces() credentialPlaces {
	return credentialPlaces{doctor.UnitCredentials, unitSources, os.Geteuid() == 0}
}

func credentialsFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "credentials", "", "`directory` to read the unit's credentials from, in place of "+doctor.UnitCredentials+"/UNIT, which exists only while the unit runs "+
		"(default for root while it does not run: "+unitSources+")")
	_ = cmd.MarkFlagDirname("credentials")
}

// relocate changes a configuration so that the credentials of a unit are read from another directory
// while the unit does not run. That is dir, or if dir is empty and this is root, the directory that the
// shipped unit takes them from.
func (p credentialPlaces) relocate(c *config.Config, dir string) ([]doctor.Relocation, error) {
	if dir != "" {
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			err = errors.New("it is not a directory")
		}
		if err != nil {
			return nil, usagef("--credentials %s: %v", dir, err)
		}
	}
	var all []doctor.Relocation
	for _, from := range p.directories(c) {
		r := doctor.Relocation{From: from, To: dir, Requested: dir != ""}
		if dir == "" {
			info, err := os.Stat(p.sources)
			if !p.root || err != nil || !info.IsDir() || !missing(from) {
				continue
			}
			r.To = p.sources
		}
		c.Relocate(r.From, r.To)
		all = append(all, r)
	}
	if dir != "" && len(all) == 0 {
		return nil, usagef("--credentials: %s names no file in %s/UNIT", c.File, p.runtime)
	}
	return all, nil
}

// directories returns the directories of units from which a configuration reads credentials.
func (p credentialPlaces) directories(c *config.Config) []string {
	var all []string
	for _, f := range c.Files() {
		if dir := filepath.Dir(f.Path); filepath.Dir(dir) == p.runtime {
			all = append(all, dir)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// missing reports whether nothing exists at path. If that cannot be found out, it is false.
func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// outOfSight returns the files of units that this user cannot read, because the unit does not run or
// because systemd allows only the service to read them, and a warning for each unit.
func (p credentialPlaces) outOfSight(c *config.Config) (warnings []string, files map[string]bool) {
	files = map[string]bool{}
	for _, dir := range p.directories(c) {
		why := "systemd puts them there when it starts the unit; until then run check as root, or with --credentials DIR"
		if _, err := os.ReadDir(dir); errors.Is(err, fs.ErrPermission) {
			why = "systemd lets only root and the service read them: run check as root"
		} else if !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		n := 0
		for _, f := range c.Files() {
			if filepath.Dir(f.Path) == dir {
				files[f.Path] = true
				n++
			}
		}
		warnings = append(warnings, fmt.Sprintf("%s: %d credential(s) in %s were not checked: %s", c.File, n, dir, why))
	}
	return warnings, files
}
