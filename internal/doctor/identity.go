package doctor

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"rotatord/internal/ageplugin"
	"rotatord/internal/config"
)

// identity looks where the key of the sealed secrets is. A directory that this user may not enter is another finding.
func (e *examination) identity() {
	const subject = "state.identity"
	dir, source := e.Config.State.Dir, e.Config.State.Identity
	if e.IdentityFile == "" {
		return
	}
	const move = "docs/operating.md, \"The key apart from what it opens\", moves it without a loss"
	if !source.IsZero() {
		e.plugin(subject, source)
	}
	_, err := e.stat(e.IdentityFile)
	beside := err == nil
	switch {
	case source.IsZero() && beside:
		e.add(Warning, IdentityBeside, subject, "the key that opens the sealed secrets lies beside them ("+e.IdentityFile+"): a copy of the state directory is enough to open them", move)
	case !source.IsZero() && source.File != "" && within(dir, source.File):
		e.add(Warning, IdentityBeside, subject, "the key that opens the sealed secrets is in the state directory too ("+source.File+"): a copy of the directory is enough to open them", move)
	case !source.IsZero() && beside:
		e.add(Warning, IdentityBeside, subject, "state.identity names a key elsewhere, and "+e.IdentityFile+" lies beside the sealed secrets still",
			"rotatord identity remove, which proves first that it is the same key")
	case !source.IsZero() && errors.Is(err, fs.ErrNotExist):
		e.add(Good, IdentityApart, subject, "the key that opens the sealed secrets is not in the state directory", "")
	}
}

// plugin looks for the program that holds an identity. It does not run it: that may want a touch. What cannot be read is another finding.
func (e *examination) plugin(subject string, source config.SecretSource) {
	text, err := source.ReadAs(context.Background(), config.AgeIdentity)
	if err != nil {
		return
	}
	holder, err := ageplugin.Find(text.Reveal())
	if err == nil && holder != nil {
		_, err = holder.Program()
	}
	switch {
	case err != nil:
		e.add(Bad, IdentityPlugin, subject, err.Error(), "the daemon does not start without it")
	case holder != nil:
		e.add(Good, IdentityPlugin, subject, "the program age-plugin-"+holder.Name+" holds the key; it is asked when the daemon starts", "")
	}
}

// within reports whether a path is below a directory, by its name or by where it leads.
func within(dir, path string) bool {
	for _, resolve := range []func(string) (string, error){filepath.Abs, filepath.EvalSymlinks} {
		base, err := resolve(dir)
		if err != nil {
			continue
		}
		target, err := resolve(path)
		if err != nil {
			continue
		}
		if strings.HasPrefix(target, strings.TrimSuffix(base, "/")+"/") {
			return true
		}
	}
	return false
}
