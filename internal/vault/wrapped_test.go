package vault

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/secret"
	"rotatord/internal/vault/vaulttest"
)

// box is a Keeper in memory. It outlives a session, as the state directory does.
type box struct {
	mu      sync.Mutex
	content secret.Value
	broken  error // of the next writes
	writes  int
	left    int // writes until the process dies; 0: it does not. After that nothing is kept, and no error is seen
	dead    bool
}

// dieAfter lets n writes pass, and loses the others as a process does that was killed. 0 ends that.
func (b *box) dieAfter(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left, b.dead = n, false
}

func (b *box) Keep(v secret.Value) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken != nil {
		return b.broken
	}
	if b.dead {
		return nil
	}
	b.content, b.writes = v, b.writes+1
	if b.left > 0 {
		b.left--
		b.dead = b.left == 0
	}
	return nil
}

func (b *box) Kept() (secret.Value, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.content, nil
}

func (b *box) breakWith(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.broken = err
}

// wrappedWorld is a Vault with a wrapped secret ID, and what survives a restart of the daemon.
type wrappedWorld struct {
	t      *testing.T
	vault  *vaulttest.Server
	config config.Vault
	box    *box
	// before, if set, gets each request before Vault does; true means that Vault's answer is lost.
	before atomic.Pointer[func(path string) (lost bool)]

	mu     sync.Mutex
	events []event.Detail
}

func newWrappedWorld(t *testing.T) *wrappedWorld {
	server, c := approleServer(t, time.Hour, 0)
	w := &wrappedWorld{t: t, vault: server, config: c, box: &box{}}
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if before := w.before.Load(); before != nil && (*before)(strings.TrimPrefix(r.URL.Path, "/v1/")) {
			server.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		server.ServeHTTP(rw, r)
	}))
	t.Cleanup(front.Close)
	w.config.Address, w.config.Timeout = front.URL, 5*time.Second
	w.config.Auth.(*config.AppRole).Wrapped = true
	w.deliver(server.WrapSecretID(time.Hour))
	return w
}

// deliver puts a wrapping token into the file.
func (w *wrappedWorld) deliver(token string) {
	replace(w.t, w.config.Auth.(*config.AppRole).SecretID.File, token)
}

// start starts a daemon's session, and returns what the first login said. stop ends it, as a crash does.
func (w *wrappedWorld) start() (s *Session, stop func(), err error) {
	s, err = New(w.config, func(d event.Detail) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, d)
	}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	s.pause = 10 * time.Millisecond
	s.KeepIn(w.box)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-ended })
	w.t.Cleanup(stop)
	return s, stop, s.Ready(w.t.Context(), 0)
}

// alarms counts the unwrappings that failed.
func (w *wrappedWorld) alarms() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.events {
		if unwrap, ok := d.(event.VaultUnwrap); ok && unwrap.Err != nil {
			n++
		}
	}
	return n
}

// TestWrappedSecretID: a wrapping token is unwrapped once. Restarts and a file that is gone need no other one, and another
// one that is delivered is unwrapped too.
func TestWrappedSecretID(t *testing.T) {
	w := newWrappedWorld(t)
	_, stop, err := w.start()
	if err != nil || w.vault.Unwraps() != 1 {
		t.Fatalf("%v, %d unwrapped", err, w.vault.Unwraps())
	}
	stop()
	for range 3 {
		_, stop, err = w.start()
		if stop(); err != nil || w.vault.Unwraps() != 1 || w.alarms() != 0 {
			t.Errorf("after a restart: %v, %d unwrapped", err, w.vault.Unwraps())
		}
	}
	if err := os.Remove(w.config.Auth.(*config.AppRole).SecretID.File); err != nil {
		t.Fatal(err)
	}
	s, stop, err := w.start()
	if err != nil {
		t.Errorf("after a restart without the file: %v", err)
	}
	w.deliver(w.vault.WrapSecretID(time.Hour))
	eventually(t, "the second one unwrapped", func() bool { return w.vault.Unwraps() == 2 })
	eventually(t, "a login with it", func() bool { return w.vault.Logins() == 6 })
	if err := s.Ready(t.Context(), 0); err != nil || w.alarms() != 0 {
		t.Errorf("%v, %d alarms", err, w.alarms())
	}
	stop()
	if kept, _ := w.box.Kept(); !strings.Contains(kept.Reveal(), secretID) || strings.Contains(kept.Reveal(), "hvs.") {
		t.Error("what is kept is not the secret ID alone")
	}
}

// TestStolenWrappingToken: a token that another program has unwrapped raises one alarm for each process that sees it. A
// session that is there goes on, and the next token ends the alarm.
func TestStolenWrappingToken(t *testing.T) {
	w := newWrappedWorld(t)
	token := w.vault.WrapSecretID(time.Hour)
	w.deliver(token)
	w.vault.Unwrap(token) // the thief
	s, stop, err := w.start()
	if err == nil || !strings.Contains(err.Error(), "another program has unwrapped it") || !strings.Contains(err.Error(), "vault write -field=wrapping_token") ||
		strings.Contains(err.Error(), token) || strings.Contains(err.Error(), "daemon's own") {
		t.Errorf("%v", err)
	}
	if health := s.Health(); health.Unwrap == "" || health.UnwrapSince.IsZero() {
		t.Errorf("nothing in the health of the session: %+v", health)
	}
	time.Sleep(100 * time.Millisecond)
	if w.alarms() != 1 {
		t.Errorf("%d alarms", w.alarms())
	}
	w.deliver(w.vault.WrapSecretID(time.Hour))
	eventually(t, "a session", func() bool { return s.Ready(t.Context(), 0) == nil })
	if health := s.Health(); health.Unwrap != "" {
		t.Errorf("the alarm stays: %s", health.Unwrap)
	}

	// The session and the secret ID of before go on while another token is stolen, also after a restart.
	stolen := w.vault.WrapSecretID(time.Hour)
	w.vault.Unwrap(stolen)
	w.deliver(stolen)
	eventually(t, "a second alarm", func() bool { return w.alarms() == 2 })
	if err := s.Ready(t.Context(), 0); err != nil {
		t.Errorf("the session was lost: %v", err)
	}
	stop()
	if s, _, err = w.start(); err != nil || w.alarms() != 3 || s.Health().Unwrap == "" {
		t.Errorf("after a restart: %v, %d alarms", err, w.alarms())
	}
}

// TestForeignWrappingToken: a token that was not created for a secret ID of this mount is never unwrapped.
func TestForeignWrappingToken(t *testing.T) {
	for _, path := range []string{
		"cubbyhole/response", "sys/wrapping/wrap", "auth/approle/login", "auth/other/role/rotatord/secret-id", "auth/approle/role/rotatord/custom-secret-id",
		"auth/approle/role/a/b/secret-id", "auth/approle/role//secret-id", "xauth/approle/role/rotatord/secret-id", "auth/approle/role/rotatord/secret-id/x", "",
	} {
		w := newWrappedWorld(t)
		w.deliver(w.vault.Wrap(path, map[string]any{"secret_id": "evil-CANARY"}, time.Hour))
		_, stop, err := w.start()
		if stop(); err == nil || !strings.Contains(err.Error(), "so it is not unwrapped") || w.vault.Unwraps() != 0 || w.alarms() != 1 {
			t.Errorf("%q: %v, %d unwrapped, %d alarms", path, err, w.vault.Unwraps(), w.alarms())
		}
	}
}

// TestLostUnwrapping: the answer to an unwrapping is lost. The daemon does not take itself for a thief without saying so,
// and a request that was not carried out is repeated.
func TestLostUnwrapping(t *testing.T) {
	w := newWrappedWorld(t)
	w.before.Store(new(func(path string) bool { return path == pathUnwrap }))
	_, stop, err := w.start()
	stop()
	if err == nil {
		t.Fatal("the answer was not lost")
	}
	w.before.Store(nil)
	if _, stop, err = w.start(); err == nil || !strings.Contains(err.Error(), "or the answer to the daemon's own unwrapping at ") || w.alarms() == 0 {
		t.Errorf("%v, %d alarms", err, w.alarms())
	}
	stop()

	w = newWrappedWorld(t)
	var broken atomic.Bool
	w.before.Store(new(func(path string) bool {
		if path == pathUnwrap && !broken.Swap(true) {
			panic(http.ErrAbortHandler) // Vault never gets it
		}
		return false
	}))
	s, _, _ := w.start()
	eventually(t, "a session", func() bool { return s.Ready(t.Context(), 0) == nil })
	if w.vault.Unwraps() != 1 || w.alarms() != 0 {
		t.Errorf("%d unwrapped, %d alarms", w.vault.Unwraps(), w.alarms())
	}
}

// TestNoPlaceForTheSecretID: nothing is unwrapped while it could not be kept, and what could be unwrapped and not be kept is
// kept later.
func TestNoPlaceForTheSecretID(t *testing.T) {
	w := newWrappedWorld(t)
	w.box.breakWith(errors.New("no space left"))
	s, _, err := w.start()
	if err == nil || w.vault.Unwraps() != 0 || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("%v, %d unwrapped", err, w.vault.Unwraps())
	}
	w.before.Store(new(func(path string) bool {
		if path == pathUnwrap {
			w.box.breakWith(errors.New("the disk failed in between"))
		}
		return false
	}))
	w.box.breakWith(nil)
	eventually(t, "a session", func() bool { return s.Ready(t.Context(), 0) == nil })
	w.box.breakWith(nil)
	eventually(t, "the secret ID kept", func() bool { kept, _ := w.box.Kept(); return strings.Contains(kept.Reveal(), secretID) })
}

// TestDamagedBox: what is kept and cannot be read stops the login, with a way out.
func TestDamagedBox(t *testing.T) {
	w := newWrappedWorld(t)
	w.box.content = secret.New("nonsense-CANARY")
	_, _, err := w.start()
	if err == nil || !strings.Contains(err.Error(), "remove the file") || strings.Contains(err.Error(), "CANARY") || w.vault.Unwraps() != 0 {
		t.Errorf("%v", err)
	}
}

// TestDestroyedSecretID: the kept secret ID was destroyed. The message says which one it is, and what to deliver.
func TestDestroyedSecretID(t *testing.T) {
	w := newWrappedWorld(t)
	content, _ := json.Marshal(kept{keptID: keptID{SecretID: "destroyed-CANARY", From: string(secret.New("hvs.another").Digest()), At: time.Now()}})
	w.box.content = secret.New(string(content))
	if err := os.Remove(w.config.Auth.(*config.AppRole).SecretID.File); err != nil {
		t.Fatal(err)
	}
	s, _, err := w.start()
	if err == nil || !strings.Contains(err.Error(), "that was unwrapped at") || !strings.Contains(err.Error(), "deliver another one") || strings.Contains(err.Error(), "CANARY") {
		t.Errorf("%v", err)
	}
	w.deliver(w.vault.WrapSecretID(time.Hour))
	eventually(t, "a session", func() bool { return s.Ready(t.Context(), 0) == nil })
}

// TestOnlyTheDaemonUnwraps: a session for one command has no place for the secret ID, and leaves the token alone.
func TestOnlyTheDaemonUnwraps(t *testing.T) {
	w := newWrappedWorld(t)
	s, err := New(w.config, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.LogInOnce(t.Context()); err == nil || !strings.Contains(err.Error(), "only the daemon unwraps") || w.vault.Unwraps() != 0 {
		t.Errorf("%v", err)
	}
}

// TestHealthDoesNotWaitForVault: while Vault does not answer about a wrapping token, status and metrics do not hang.
func TestHealthDoesNotWaitForVault(t *testing.T) {
	w := newWrappedWorld(t)
	asked, answer := make(chan struct{}, 10), make(chan struct{})
	before := func(path string) bool {
		if path == pathWrapInfo {
			asked <- struct{}{}
			<-answer
		}
		return false
	}
	w.before.Store(&before)
	s, err := New(w.config, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.KeepIn(w.box)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Run(ctx) }()
	<-asked
	looked := make(chan Health, 1)
	go func() { looked <- s.Health() }()
	select {
	case <-looked:
	case <-time.After(3 * time.Second): // Vault's timeout is 5 s
		t.Error("the health of the session waits for Vault")
	}
	close(answer)
	cancel()
	<-ended
}
