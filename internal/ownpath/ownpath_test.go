package ownpath

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestCheck looks at directories as services, containers and other users leave them.
func TestCheck(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files to other users")
	}
	const service, stranger, fsGroup = 65532, 1001, 2000
	daemon := process{uid: service, gid: service, groups: []int{service, fsGroup}}
	for name, test := range map[string]struct {
		uid, gid int
		mode     uint32
		as       process
		link     int // the owner of a symbolic link in front; -1: none
		err      string
	}{
		"StateDirectory of systemd":             {service, service, 0o700, daemon, -1, ""},
		"RuntimeDirectory of systemd":           {service, service, 0o750, daemon, -1, ""},
		"DynamicUser: root's link":              {service, service, 0o700, daemon, 0, ""},
		"our own link":                          {service, service, 0o700, daemon, service, ""},
		"another's link":                        {service, service, 0o700, daemon, stranger, "belongs to uid 1001"},
		"volume of Kubernetes, fsGroup":         {0, fsGroup, 0o2775, daemon, -1, ""},
		"volume of Kubernetes, fsGroup is ours": {0, service, 0o2770, daemon, -1, ""},
		"emptyDir of Kubernetes":                {0, fsGroup, 0o2777, daemon, -1, "every user (mode 0777)"},
		"/tmp":                                  {0, 0, 0o1777, daemon, -1, ""},
		"user private group, umask 002":         {service, service, 0o775, daemon, -1, ""},
		"ours, and a shared group may write":    {service, fsGroup, 0o770, daemon, -1, "by the group 2000"},
		"root's, and a strange group may write": {0, stranger, 0o770, daemon, -1, "by the group 1001"},
		"everybody may write":                   {service, service, 0o702, daemon, -1, "every user"},
		"another's":                             {stranger, service, 0o770, daemon, -1, "belongs to uid 1001"},
		"another's, as root":                    {stranger, stranger, 0o700, process{}, -1, "belongs to uid 1001"},
		"root's, as root":                       {0, 0, 0o755, process{}, -1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "dir")
			if err := errors.Join(os.Mkdir(path, 0o700), os.Chown(path, test.uid, test.gid), syscall.Chmod(path, test.mode)); err != nil {
				t.Fatal(err)
			}
			if test.link >= 0 {
				link := path + "-link"
				if err := errors.Join(os.Symlink(path, link), os.Lchown(link, test.link, test.link)); err != nil {
					t.Fatal(err)
				}
				path = link
			}
			err := check(path, test.as)
			if (err == nil) != (test.err == "") || err != nil && (!strings.Contains(err.Error(), test.err) || !strings.Contains(err.Error(), path)) {
				t.Errorf("%v, want %q", err, test.err)
			}
		})
	}
}

func TestNotThere(t *testing.T) {
	dir := t.TempDir()
	if err := Check(filepath.Join(dir, "none")); err != nil {
		t.Error(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := Check(filepath.Join(dir, "link")); err == nil || !strings.Contains(err.Error(), "leads nowhere") {
		t.Error(err)
	}
}
