package vault

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"rotatord/internal/printable"
	"rotatord/internal/secret"
)

// Vault locks a role ID out for 15 minutes after 5 refused logins, also for the right secret ID. It counts on until
// lockoutReset has passed without a refused login. Two refusals, and then one each refusedPause, never reach 5, and leave
// two wrong secret IDs to the operator.
const (
	lockoutReset      = 15 * time.Minute
	refusedPause      = lockoutReset + time.Minute
	firstRefusedPause = time.Minute
	fastRefusals      = 2
	// maxRefused is how many refused credentials are remembered.
	maxRefused = 16
)

// lockoutGuard keeps a credential that Vault has refused from being sent again too soon. The zero value is ready to use.
type lockoutGuard struct {
	mu      sync.Mutex
	counted []time.Time // refusals that Vault may still count, the oldest first
	first   string      // what Vault said to the first one since the last success
	refused map[secret.Digest]refusal
}

// refusal is what Vault said to one credential, and when it may be sent again.
type refusal struct {
	err  error
	next time.Time
}

// counts reports whether Vault counts a refused login: it refused the credential itself. A 403 is not counted. Vault
// answers it while the role ID is locked out, and where nothing is mounted.
func counts(err error) bool {
	e, ok := errors.AsType[*ResponseError](err)
	return ok && !e.Foreign && (e.Status == http.StatusBadRequest || e.says("invalid role or secret ID"))
}

// mayTry returns why a credential is not sent now, and nil if it may be.
func (g *lockoutGuard) mayTry(credential secret.Digest) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r, there := g.refused[credential]; there && time.Now().Before(r.next) {
		return r.err
	}
	return nil
}

// note records the result of a login.
func (g *lockoutGuard) note(credential secret.Digest, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err == nil {
		g.counted, g.first, g.refused = nil, "", nil
		return
	}
	if !counts(err) {
		return
	}
	now := time.Now()
	g.counted = append(slices.DeleteFunc(g.counted, func(at time.Time) bool { return now.Sub(at) > lockoutReset }), now)
	if g.first == "" {
		g.first = printable.Line(err.Error(), maxText/2) + " at " + now.UTC().Format(timeLayout)
	}
	if g.refused == nil || len(g.refused) >= maxRefused {
		g.refused = make(map[secret.Digest]refusal)
	}
	wait := firstRefusedPause
	if len(g.counted) >= fastRefusals {
		wait = refusedPause
	}
	g.refused[credential] = refusal{err, now.Add(wait)}
}

// next returns when the first of the refused credentials may be sent again; zero if none was refused.
func (g *lockoutGuard) next() (first time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.refused {
		if r.next.After(time.Now()) && (first.IsZero() || r.next.Before(first)) {
			first = r.next
		}
	}
	return first
}

// describe says what the refusals mean for the next logins; empty if there was none.
func (g *lockoutGuard) describe(mount string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.counted) == 0 {
		return ""
	}
	last := g.counted[len(g.counted)-1]
	return fmt.Sprintf(". The first refusal: %s. After 5 refused logins Vault locks the role_id out, also for the right secret ID: if it has done so, until about %s, or until you type "+
		"vault write -f sys/locked-users/MOUNT_ACCESSOR/unlock/ROLE_ID (MOUNT_ACCESSOR of auth/%s is in vault auth list). The same secret ID is tried again rarely, another one within %s",
		g.first, last.Add(lockoutReset).UTC().Format(timeLayout), mount, pause)
}
