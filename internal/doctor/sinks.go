package doctor

import (
	"context"
	"fmt"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/kubernetes"
	"rotatord/internal/sink"
	"rotatord/internal/vault"
)

// sinkTime is the longest time for the checks of Vault and all sinks.
const sinkTime = 2 * time.Minute

// sinks checks Vault, every sink and every hook. If a daemon runs, the daemon does it, with its own session and its own
// rights. Otherwise doctor logs in to Vault itself, unless that would use up something that
// the daemon may need.
func (e *examination) sinks(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, sinkTime)
	defer cancel()
	v := e.Config.Vault
	if v == nil || v.Auth.Consumes() != "" && !(e.LogIn && !unwraps(v.Auth)) {
		why := "no running daemon could be asked: admin_socket is not configured"
		if e.AskDaemon != nil {
			findings, err := e.AskDaemon(ctx)
			if err == nil {
				e.findings = append(e.findings, findings...)
				return
			}
			why = "no running daemon could be asked: " + err.Error()
		}
		if v != nil {
			e.loginFiles(ctx, func(r vault.Remark) { e.add(Bad, VaultCredential, r.Field, r.Text, r.Advice) })
			e.notTried(why)
		}
	} else {
		e.loginFiles(ctx, nil) // the login itself says why it is impossible
		if session, end := e.ownSession(ctx); session != nil {
			e.through(ctx, session)
			end()
		}
	}
	user := e.serviceUser()
	e.otherSinks(ctx, user)
	e.hooks(ctx, user)
}

// Sinks checks every sink and hook, and Vault, for the running daemon that calls it. session is the daemon's; nil
// if no Vault is configured.
func Sinks(ctx context.Context, c *config.Config, session *vault.Session) []Finding {
	ctx, cancel := context.WithTimeout(ctx, sinkTime)
	defer cancel()
	e := &examination{Options: Options{Config: c, Now: time.Now}}
	if session != nil {
		e.health(ctx, session)
	}
	if session == nil {
		// There is nothing to look at.
	} else if err := session.Ready(ctx, 0); err != nil {
		e.add(Bad, VaultLogin, "vault", err.Error(), "look at vault.address, vault.tls and vault.auth, and at the daemon's log"+e.loginSecrets())
	} else {
		e.through(ctx, session)
	}
	e.otherSinks(ctx, nil)
	e.hooks(ctx, nil)
	return e.findings
}

// otherSinks proves that the sinks outside of Vault could be written to. user is whom the daemon runs as, if
// that is another user than this process has: the rights of this process then prove nothing.
func (e *examination) otherSinks(ctx context.Context, user *ServiceUser) {
	cluster := kubernetes.New(e.Config.Kubernetes, nil)
	defer cluster.Close()
	good, all := 0, 0
	files := sink.FilesOf(e.Config.Tokens)
	for _, t := range e.Config.Tokens {
		for i, s := range t.Sinks {
			if s.NeedsVault() {
				continue
			}
			all++
			if user != nil {
				e.add(Warning, SinkNotTried, subjectOf(t, i), fmt.Sprintf("%s was not tried: only %s can prove that it may write there", config.SinkName(s), user),
					"run doctor beside the daemon, with admin_socket configured")
				continue
			}
			opened, err := sink.Open(s, sink.Deps{Files: files, Kubernetes: cluster})
			if err == nil {
				_, err = opened.Preflight(ctx)
			}
			if err != nil {
				e.add(Bad, SinkUnusable, subjectOf(t, i), config.SinkName(s)+": "+err.Error(), "correct what the message names: no rotation of this token begins before that")
				continue
			}
			good++
		}
	}
	if good > 0 {
		e.add(Good, SinksGood, "sinks", fmt.Sprintf("%d of %d sink(s) outside of Vault can be written", good, all), "")
	}
}

// subjectOf is the path of a sink in the configuration.
func subjectOf(t config.Token, i int) string { return fmt.Sprintf("tokens.%s.sinks[%d]", t.Name, i) }
