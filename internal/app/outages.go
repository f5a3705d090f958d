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

// outages notices when something works again that did not: Vault, Cloudflare, or the disk of the ledger.
// Then all tokens with a pending secret are tried at once, without their back-off.
type outages struct {
	retry func()
	now   func() time.Time

	mu      sync.Mutex
	missing map[string]bool
	last    time.Time // when retry was last called
}

const (
	// retryEvery is the shortest time between two retries: an outage may come and go all the time.
	retryEvery = 5 * time.Second
	// retryDelay is the time from the end of an outage to the retry. When a login is reported, the
	// session does not use it yet.
	retryDelay = 100 * time.Millisecond
)

func newOutages(now func() time.Time, retry func()) *outages {
	return &outages{retry: retry, now: now, missing: make(map[string]bool)}
}

// note notes that something works, or that it does not.
func (o *outages) note(what string, there bool) {
	o.mu.Lock()
	back := there && o.missing[what]
	if now := o.now(); back && now.Sub(o.last) < retryEvery && !now.Before(o.last) {
		back = false // it still counts as missing, so the next sign of it leads to a retry
	} else if back {
		o.last = now
	}
	switch {
	case !there:
		o.missing[what] = true
	case back:
		delete(o.missing, what)
	}
	o.mu.Unlock()
	if back {
		time.AfterFunc(retryDelay, o.retry)
	}
}

// ledgerWritten notes that the ledger can be written, because a record was saved.
func (o *outages) ledgerWritten(rotation.Record) { o.note("ledger", true) }

// Subscriber returns a subscriber that notes errors of the ledger. The next save shows that it works again.
func (o *outages) Subscriber() *event.Subscriber {
	look := func(err error) {
		if errors.Is(err, rotation.ErrLedger) && !errors.Is(err, rotation.ErrConflict) { // a conflict says that it works
			o.note("ledger", false)
		}
	}
	return event.NewSubscriber("outages",
		event.On(func(_ event.Event, d event.RotationEnded) { look(d.Err) }),
		event.On(func(_ event.Event, d event.RotationStuck) { look(d.Err) }),
		// None of these says that an attempt could not read or write the ledger.
		event.Ignore(event.StepEnded, event.SinkWritten, event.SinkFailed, event.VersionDeletes, event.SealFailed, event.SecretAccepted, event.SecretRefused,
			event.SecretUntried, event.OvertakenEnded, event.DoubtJudged, event.DoubtUnchanged, event.DoubtResolved, event.GraceExtended,
			event.GraceExtensionFailed, event.SlotsMissed, event.ClockHealed, event.Adopted, event.Renewed, event.RenewalFailed, event.ReplacedDeleted,
			event.ReplacedNotDeleted, event.RotatedOutside, event.ChangedOutside, event.TokenGone, event.TokenDisabled, event.TokenUnreadable, event.TokenNotFound),
		event.Ignore(event.Watch...), event.Ignore(event.Hooks...), event.Ignore(event.Record...), event.Ignore(event.Replicas...), event.Ignore(event.Commands...), event.Ignore(event.DaemonLife...), event.Ignore(event.Surroundings...))
}

// failed reports whether an answer with that code shows a peer that cannot do what it is asked for.
func failed(code string) bool {
	return code == "error" || code == "429" || strings.HasPrefix(code, "5") || strings.HasPrefix(code, "3")
}

// vaultObserver, kubernetesObserver and cloudflareObserver count requests in the metrics, and note their outcomes as outages.
type vaultObserver struct {
	*httpapi.Metrics
	outages *outages
}

func (v vaultObserver) VaultRequest(operation, code string, d time.Duration) {
	v.Metrics.VaultRequest(operation, code, d)
	if operation == vault.OperationSealStatus { // a sealed Vault answers it, too; the caller reads the answer
		return
	}
	if operation == "login" { // without a session, Vault cannot be used either
		v.outages.note("session with Vault", strings.HasPrefix(code, "2"))
		return
	}
	v.outages.note("Vault", !failed(code))
}

type kubernetesObserver struct {
	*httpapi.Metrics
	outages *outages
}

func (k kubernetesObserver) KubernetesRequest(operation, code string, d time.Duration) {
	k.Metrics.KubernetesRequest(operation, code, d)
	k.outages.note("Kubernetes", !failed(code))
}

type cloudflareObserver struct {
	*httpapi.Metrics
	outages *outages
	refused func() // called after a 429; nil for nothing
}

func (c cloudflareObserver) CloudflareRequest(operation, code string, d time.Duration) {
	c.Metrics.CloudflareRequest(operation, code, d)
	c.outages.note("Cloudflare", !failed(code))
	if code == "429" && c.refused != nil {
		c.refused()
	}
}
