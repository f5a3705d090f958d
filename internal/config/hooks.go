package config

import (
	"hash/fnv"
	"strconv"
	"strings"
	"time"

	"rotatord/internal/config/raw"
)

// HookKinds is the table of hooks: one line for each kind. See kinds.go for how to add a kind.
type HookKinds interface {
	Exec(*ExecHook)
	Webhook(*WebhookHook)
	Restart(*RestartHook)
}

// Hook is something that runs after each rotation. A Hook must not be changed: tokens share those of defaults.
type Hook interface {
	// Kind is the key of the kind in the configuration file, such as exec.
	Kind() string
	// Target says what the hook acts on. Two hooks of one kind and target are the same action.
	Target() string
	// Times are its timeout and its batch.
	Times() HookTimes
	// NeedsKubernetes reports whether it works through the API server of a cluster.
	NeedsKubernetes() bool
	// Document is what the configuration file says below the key of the kind. It has no secret.
	Document() map[string]any
	// Dispatch calls the method of the table for this kind.
	Dispatch(HookKinds)

	// check takes over what the file says at path, which is the key of the kind. It reports what is
	// wrong, and returns false if the target is not known.
	check(c *checker, path string, in raw.Hook) bool
	// eachSecret calls do for each secret that the hook is configured with.
	eachSecret(path string, do func(field string, source *SecretSource, kind SecretKind))
}

// HookTimes are the times of a hook.
type HookTimes struct {
	Timeout time.Duration // of one run. Default 30s.
	Batch   time.Duration // how long a run waits for other tokens. Default 0: it does not wait.
}

// Times implements [Hook].
func (t HookTimes) Times() HookTimes { return t }

const (
	defaultHookTimeout  = 30 * time.Second
	shortestHookTimeout = time.Second
	longestHookTimeout  = 10 * time.Minute
	longestBatch        = time.Hour
	longestHookName     = 100
)

// HookName is the name of a hook in the ledger, in logs and in status, such as exec:systemctl reload app. If it
// would be long, its end is replaced by a number that differs for different targets.
func HookName(h Hook) string {
	name := h.Kind() + ":" + h.Target()
	if len(name) <= longestHookName {
		return name
	}
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(name))
	end := "..." + strconv.FormatUint(sum.Sum64(), 16)
	return strings.ToValidUTF8(name[:longestHookName-len(end)], "") + end
}

// addTo adds the times to what the configuration file says of a hook, unless they are the defaults.
func (t HookTimes) addTo(document map[string]any) map[string]any {
	if t.Timeout != defaultHookTimeout {
		document["timeout"] = t.Timeout.String()
	}
	if t.Batch != 0 {
		document["batch"] = t.Batch.String()
	}
	return document
}

func (c *checker) hookTimes(path string, timeout, batch *raw.Duration) HookTimes {
	out := HookTimes{Timeout: c.between(path+".timeout", timeout, defaultHookTimeout, shortestHookTimeout, longestHookTimeout), Batch: time.Duration(or(batch, 0))}
	if out.Batch > longestBatch {
		c.wrong(path+".batch", "%s is too long: at most %s, since consumers do not know of the new secret until then", short(out.Batch), short(longestBatch))
	}
	return out
}

// placedHook is a hook and its place in the file.
type placedHook struct {
	path string // of the key of the kind
	Hook
}

// hooks returns the hooks of a list whose targets are known.
func (c *checker) hooks(path string, in []raw.Hook) []placedHook {
	var out []placedHook
	if len(in) == 0 {
		return nil
	}
	seen := map[string]string{}
	for i, hook := range in {
		item := c.below(path, "", i)
		if c.isBroken(item) {
			continue
		}
		chosen, ok := chosenKinds[Hook, HookKinds, raw.Hook](c, item)
		switch {
		case len(chosen) > 1:
			c.wrong(item, "has %s: write one entry of the list for each hook", list(keysOf(chosen)))
		case len(chosen) == 1:
			at := c.below(item, chosen[0].Kind(), 0)
			if !chosen[0].check(c, at, hook) {
				continue
			}
			name := HookName(chosen[0])
			if first := seen[name]; first != "" {
				c.wrong(at, "does the same as %s: remove one", c.full(first))
				continue
			}
			seen[name] = at
			out = append(out, placedHook{at, chosen[0]})
		case ok:
			c.wrong(item, "does nothing: give one of %s", list(keysOf(kindsIn[Hook, HookKinds]())))
		}
	}
	return out
}

// checkHooks notes what the hooks of a token need.
func (c *checker) checkHooks(hooks []placedHook) {
	for _, h := range hooks {
		if h.NeedsKubernetes() && c.needKubernetes == "" {
			c.needKubernetes = c.full(h.path)
		}
		if e, ok := h.Hook.(*ExecHook); ok {
			c.noteCommand(h.path+".command", e.Command[0])
		}
	}
}

// placedCommand is the program of a hook and its place in the file.
type placedCommand struct {
	spot    spot
	program string
}

// noteCommand stores a program. Tokens share the hooks of defaults, which have one place.
func (c *checker) noteCommand(path, program string) {
	if !strings.HasPrefix(path, inEntry) {
		if c.applied[path] {
			return
		}
		c.applied[path] = true
	}
	c.commands = append(c.commands, placedCommand{c.placed(path), program})
}
