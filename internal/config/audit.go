package config

import (
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"rotatord/internal/config/raw"
)

// The defaults and the bounds of the record of events.
const (
	defaultMaxAge  = 720 * time.Hour
	shortestMaxAge = time.Hour
	defaultKeep    = 12
	defaultMaxSize = 64 << 20
	smallestSize   = 1 << 20
	largestSize    = 1 << 30
)

var validSize = regexp.MustCompile(`^([0-9]{1,10})(KiB|MiB|GiB)$`)

// checkAudit checks where the record of events is and how it is kept. state.dir is checked before.
func (c *checker) checkAudit() {
	in := c.raw.Audit
	out := Audit{File: filepath.Join(c.cfg.State.Dir, "audit", "audit.jsonl"), MaxSize: defaultMaxSize, MaxAge: time.Duration(or(in.MaxAge, raw.Duration(defaultMaxAge))),
		Keep: or(in.Keep, defaultKeep)}
	if in.File != nil {
		const path = "audit.file"
		out.File = filepath.Clean(*in.File)
		switch {
		case !c.absolute(path, *in.File, "must be an absolute path, such as /var/log/rotatord/audit.jsonl"):
		case strings.HasSuffix(*in.File, "/"), strings.HasSuffix(*in.File, "/."), strings.HasSuffix(*in.File, "/.."), out.File == "/":
			c.wrong(path, "is a directory: give the file in it, such as /var/log/rotatord/audit.jsonl")
		case out.File == c.cfg.AdminSocket:
			c.wrong(path, "is also admin_socket: give each its own path")
		case filepath.Dir(out.File) == c.cfg.State.Dir, strings.HasPrefix(out.File, filepath.Join(c.cfg.State.Dir, "pending")+"/"):
			c.wrong(path, "is among the files of state.dir: give a directory of its own, such as %s", filepath.Join(c.cfg.State.Dir, "audit", "audit.jsonl"))
		}
	}
	if in.MaxSize != nil {
		out.MaxSize = c.size("audit.max_size", *in.MaxSize)
	}
	if out.MaxAge != 0 && out.MaxAge < shortestMaxAge {
		c.wrong("audit.max_age", "must be at least %s, or 0 for never: it is %s", short(shortestMaxAge), short(out.MaxAge))
	}
	if in.Keep != nil && (out.Keep < 1 || out.Keep > 10000) {
		c.wrong("audit.keep", "must be 1 to 10000: it is %d", out.Keep)
	}
	c.cfg.Audit = out
}

// size returns a number of bytes.
func (c *checker) size(path, text string) int64 {
	found := validSize.FindStringSubmatch(text)
	if found == nil {
		c.wrong(path, "%.40q is not a size: write 64MiB (units are KiB, MiB and GiB)", text)
		return 0
	}
	n, _ := strconv.ParseInt(found[1], 10, 64)
	size := n << map[string]int{"KiB": 10, "MiB": 20, "GiB": 30}[found[2]]
	if size < smallestSize || size > largestSize {
		c.wrong(path, "must be 1MiB to 1GiB: it is %s", text)
	}
	return size
}
