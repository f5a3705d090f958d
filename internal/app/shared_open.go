package app

import (
	"context"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/kvstore"
	"rotatord/internal/ledger/shared"
	"rotatord/internal/ledger/transfer"
	"rotatord/internal/replica"
	"rotatord/internal/rotation"
)

// identity is whom sealed answers are for.
type identity interface {
	PublicKey() string
	Recipients() []string
}

// connect connects the parts of a replica with its store. listen is where this replica answers HTTP.
func (s *sharing) connect(kv kvstore.KV, keys identity, listen string) {
	a := s.app
	room := replica.New(replica.Options{
		KV: kv, Self: s.replica, Version: a.options.Build.Version, Listen: listen, Identity: keys.PublicKey(), Recipients: keys.Recipients(), Now: a.now,
		Sealed: s.hasSealed, Usable: func(ctx context.Context) error { return transfer.Usable(ctx, kv) },
		Joined: s.isJoined, Throttled: s.throttled, Throttle: s.throttle,
		Changed: s.note, Living: s.livingChanged, Tell: func(d event.Detail) { a.tell("", d) }, Log: a.log,
	})
	s.ledger = shared.Open(shared.Options{
		KV: kv, Replica: s.replica.Name, Process: s.replica.Process, Clock: vaultClock{room.Clock()},
		Saved: func(token string, _ uint64) {
			if token == rotation.AllTokens {
				token = namePauses
			}
			room.Notice(token)
		},
	})
	s.kv, s.room, a.state.ledger = kv, room, s.ledger
}

// vaultClock is what the room knows of Vault's clock, as the ledger asks for it.
type vaultClock struct{ *replica.Clock }

// VaultNow implements [shared.VaultClock].
func (c vaultClock) VaultNow() (shared.ClockReading, bool) {
	r, ok := c.Read()
	return shared.ClockReading(r), ok
}

// nudge tells the other replicas soon that Cloudflare has refused a request because of its limit.
func (s *sharing) nudge() {
	if s != nil {
		s.room.Nudge()
	}
}

// throttled returns for how long Cloudflare has asked this process to send nothing, by account.
func (s *sharing) throttled() map[string]time.Duration {
	s.app.mu.Lock()
	defer s.app.mu.Unlock()
	all := make(map[string]time.Duration)
	for name, account := range s.app.accounts {
		if d := account.client.Refused(); d > 0 {
			all[name] = d
		}
	}
	return all
}

// throttle sends nothing to an account for a time, because Cloudflare has asked another replica for that.
func (s *sharing) throttle(name string, d time.Duration) {
	if account := s.app.accountOf(name); account != nil {
		account.client.Block(d)
	}
}
