package doctor

import (
	"context"
	"encoding/json"
	"fmt"

	"rotatord/internal/config"
	"rotatord/internal/hook"
	"rotatord/internal/kubernetes"
)

// sharedHook is a hook, and where the configuration has it.
type sharedHook struct {
	config  config.Hook
	subject string // of the first token that has it
	tokens  int
}

// hooks checks each hook without running it. A hook that several tokens share is checked once. user is as in otherSinks.
func (e *examination) hooks(ctx context.Context, user *ServiceUser) {
	cluster := kubernetes.New(e.Config.Kubernetes, nil)
	defer cluster.Close()
	all := distinctHooks(e.Config.Tokens)
	good := 0
	for _, h := range all {
		name := config.HookName(h.config)
		if h.tokens > 1 {
			name = fmt.Sprintf("%s (of %d tokens)", name, h.tokens)
		}
		program, isProgram := h.config.(*config.ExecHook)
		var err error
		switch {
		case isProgram && user != nil:
			err = e.programOf(program, *user)
		case user != nil:
			e.add(Warning, HookNotTried, h.subject, fmt.Sprintf("%s was not checked: only %s can prove that it may run", name, user),
				"run doctor beside the daemon, with admin_socket configured")
			continue
		default:
			var opened hook.Hook
			if opened, err = hook.Open(h.config, hook.Deps{Kubernetes: cluster}); err == nil {
				err = opened.Check(ctx)
			}
		}
		if err != nil {
			e.add(Warning, HookUnusable, h.subject, name+": "+err.Error(),
				"correct what the message names: rotations go on, and consumers do not learn of the new secret by this hook")
			continue
		}
		good++
	}
	if good > 0 {
		e.add(Good, HooksGood, "after", fmt.Sprintf("%d of %d hook(s) can run, as far as that can be seen without a run", good, len(all)), "")
	}
}

// programOf returns why the user of the daemon cannot run a program.
func (e *examination) programOf(c *config.ExecHook, user ServiceUser) error {
	path, err := hook.LookUp(c.Command[0], &hook.User{UID: user.UID, GID: user.GID, Groups: user.Groups})
	if dir := hiddenIn(path); err == nil && dir != "" && e.ofUnit() {
		err = fmt.Errorf("%s is in %s, which the shipped unit hides from the service (ProtectHome=, PrivateTmp=): put it elsewhere, such as into /usr/local/bin", path, dir)
	}
	return err
}

// distinctHooks returns the hooks of tokens, each once.
func distinctHooks(tokens []config.Token) (all []*sharedHook) {
	known := map[string]*sharedHook{}
	for _, t := range tokens {
		for i, h := range t.After {
			document, _ := json.Marshal(h.Document()) // texts and numbers only
			key := h.Kind() + " " + string(document)
			if known[key] == nil {
				known[key] = &sharedHook{config: h, subject: fmt.Sprintf("tokens.%s.after[%d]", t.Name, i)}
				all = append(all, known[key])
			}
			known[key].tokens++
		}
	}
	return all
}
