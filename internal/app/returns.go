package app

import (
	"errors"
	"strings"
	"sync"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/httpapi"
	"rotatord/internal/rotation"
	"rotatord/internal/vault"
)

// returns notices when something that was missing is there again: Vault, Cloudflare, or the disk of the
// ledger. Then all tokens whose secret is pending are tried at once, and do not wait for their back-off.
type returns struct {
	hurry func()
	now   func() time.Time

	mu      sync.Mutex
	missing map[string]bool
	last    time.Time // when they were last hurried
}

// hurryEvery is how often that happens at most: something may come and go all the time.
const (
	hurryEvery = 5 * time.Second
	hurryAfter = 100 * time.Millisecond
)

func newReturns(now func() time.Time, hurry func()) *returns {
	return &returns{hurry: hurry, now: now, missing: make(map[string]bool)}
}

// saw notes that what is there, or that it is not.
func (r *returns) saw(what string, there bool) {
	r.mu.Lock()
	back := there && r.missing[what]
	if now := r.now(); back && now.Sub(r.last) < hurryEvery && !now.Before(r.last) {
		back = false // it stays missing, and the next sign of it counts
	} else if back {
		r.last = now
	}
	switch {
	case !there:
		r.missing[what] = true
	case back:
		delete(r.missing, what)
	}
	r.mu.Unlock()
	if back { // soon: whoever told of a login has yet to make it the session's
		time.AfterFunc(hurryAfter, r.hurry)
	}
}

// ledgerWritten notes that the ledger can be written, as a record that was saved shows.
func (r *returns) ledgerWritten(rotation.Record) { r.saw("ledger", true) }

// Subscriber returns what listens for errors of the ledger. That it works again is seen when something is saved.
func (r *returns) Subscriber() *event.Subscriber {
	look := func(err error) {
		if errors.Is(err, rotation.ErrLedger) {
			r.saw("ledger", false)
		}
	}
	return event.NewSubscriber("returns",
		event.On(func(_ event.Event, d event.RotationEnded) { look(d.Err) }),
		event.On(func(_ event.Event, d event.RotationStuck) { look(d.Err) }),
		// None of these says that an attempt could not read or write the ledger.
		event.Ignore(event.StepEnded, event.SinkWritten, event.SinkFailed, event.VersionDeletes, event.SealFailed, event.SecretAccepted, event.SecretRefused,
			event.SecretUntried, event.OvertakenEnded, event.DoubtJudged, event.DoubtUnchanged, event.DoubtResolved, event.GraceExtended,
			event.GraceExtensionFailed, event.SlotsMissed, event.ClockHealed, event.Adopted, event.Renewed, event.RenewalFailed, event.ReplacedDeleted,
			event.ReplacedNotDeleted, event.RotatedOutside, event.ChangedOutside, event.TokenGone, event.TokenDisabled, event.TokenUnreadable, event.TokenNotFound),
		event.Ignore(event.Commands...), event.Ignore(event.DaemonLife...), event.Ignore(event.Surroundings...))
}

// failed reports whether the answer with that code shows a peer that cannot do what it is asked for.
func failed(code string) bool {
	return code == "error" || code == "429" || strings.HasPrefix(code, "5") || strings.HasPrefix(code, "3")
}

// vaultReturns and cloudflareReturns are the metrics of requests, which returns listens to.
type vaultReturns struct {
	*httpapi.Metrics
	returns *returns
}

func (v vaultReturns) VaultRequest(operation, code string, d time.Duration) {
	v.Metrics.VaultRequest(operation, code, d)
	if operation == vault.OperationSealStatus { // a sealed Vault answers it too: whoever asked looks at the answer
		return
	}
	if operation == "login" { // a session is missing as Vault itself is
		v.returns.saw("session with Vault", strings.HasPrefix(code, "2"))
		return
	}
	v.returns.saw("Vault", !failed(code))
}

type cloudflareReturns struct {
	*httpapi.Metrics
	returns *returns
}

func (c cloudflareReturns) CloudflareRequest(operation, code string, d time.Duration) {
	c.Metrics.CloudflareRequest(operation, code, d)
	c.returns.saw("Cloudflare", !failed(code))
}
