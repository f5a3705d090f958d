package cfsim

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"rotatord/internal/durable"
	"rotatord/internal/secret"
)

// stateFormat and stateVersion begin a state file.
const (
	stateFormat  = "rotatord-simulator"
	stateVersion = 1
)

// stateFile is the content of a state file. SHA256 is the digest of the bytes of State.
type stateFile struct {
	Format  string          `json:"format"`
	Version int             `json:"version"`
	SHA256  string          `json:"sha256"`
	State   json.RawMessage `json:"state"`
}

// savedState is what survives the process. It does not contain faults, which belong to a rehearsal and not to
// an account, the statistics, and the used part of the rate limit.
type savedState struct {
	Seed      uint64       `json:"seed"`
	Random    []byte       `json:"random,omitempty"` // the position of the random source; absent without a seed
	Behaviour Behaviour    `json:"behaviour"`
	Tokens    []savedToken `json:"tokens"` // deleted ones included
}

type savedToken struct {
	ID         string        `json:"id"`
	ClientID   string        `json:"client_id"`
	OwnerKind  string        `json:"owner_kind"`
	OwnerID    string        `json:"owner_id"`
	Name       string        `json:"name"`
	Duration   string        `json:"duration"`
	Enabled    bool          `json:"enabled"`
	Version    float64       `json:"client_secret_version"`
	CreatedAt  time.Time     `json:"created_at"`
	UpdatedAt  time.Time     `json:"updated_at"`
	ExpiresAt  time.Time     `json:"expires_at,omitzero"`
	LastSeenAt time.Time     `json:"last_seen_at,omitzero"`
	Rotations  int           `json:"rotations"`
	InPolicy   bool          `json:"in_policy"`
	Deleted    bool          `json:"deleted"`
	Secrets    []savedSecret `json:"secrets"` // the last one is current
}

type savedSecret struct {
	Value      string    `json:"value"`
	At         time.Time `json:"issued_at"`
	Superseded bool      `json:"superseded,omitempty"`
	Until      time.Time `json:"until,omitzero"`
}

// Open returns a simulator that keeps its tokens, their secrets and its behaviour in a file. If the file
// exists, the simulator continues from it: Options.Behaviour is then ignored, and only those seeded tokens
// are created that never existed. With a seed, it continues the same random sequence, so a run in two parts
// gives the same result as one run.
//
// Each change is in the file before its answer is sent. The file is replaced as a whole. One exception: the
// time at which a token was last seen is written with the next change, or by Close. The file contains the
// simulated secrets in clear text and has mode 0600. Only one simulator at a time may use it.
//
// If the file is damaged, has a newer version or was created with another seed, the error says what to do,
// and the file is not changed.
func Open(o Options, path string) (*Simulator, error) {
	if path == "" {
		return nil, errors.New("opening the simulator's state: no file is named")
	}
	s := newSimulator(o)
	s.stateFile = path
	content, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("opening the simulator's state: %w", err)
	default:
		if err := s.restore(content); err != nil {
			return nil, fmt.Errorf("opening the simulator's state: %s: %w", path, err)
		}
	}
	s.addSeedTokens()
	return s, s.save()
}

// Close saves what was not worth a write of its own. The simulator can still be used afterwards. Close does
// nothing for a simulator without a file.
func (s *Simulator) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.save()
}

// errDamaged says what to do about a file that cannot be read.
var errDamaged = errors.New("it is damaged: replace it with a copy, or move it away to begin again with other secrets")

// errNotSaved means that a change was carried out but is only in memory.
var errNotSaved = errors.New("saving the simulator's state")

// restore continues from the state in a file.
func (s *Simulator) restore(content []byte) error {
	var file stateFile
	if err := json.Unmarshal(content, &file); err != nil {
		return errDamaged
	}
	if file.Format != stateFormat {
		return errors.New("it is not a state file of the simulator: name another one")
	}
	if file.Version > stateVersion {
		return fmt.Errorf("it has version %d and this program knows up to %d: use the newer rotatord that wrote it, or another file",
			file.Version, stateVersion)
	}
	if sum := sha256.Sum256(file.State); file.Version < 1 || hex.EncodeToString(sum[:]) != file.SHA256 {
		return errDamaged
	}
	var state savedState
	if err := strict(file.State, &state); err != nil {
		return errDamaged
	}
	if o := &s.options; o.Seed == 0 {
		o.Seed = state.Seed
	} else if o.Seed != state.Seed {
		return fmt.Errorf("it was made with seed %d and not with %d: leave the seed away to go on with it, or use another file", state.Seed, o.Seed)
	}
	if s.random = newRandom(s.options.Seed); !s.random.moveTo(state.Random) {
		return errDamaged
	}
	s.behaviour = state.Behaviour
	for _, saved := range state.Tokens {
		t, err := saved.token()
		if err != nil || s.byID[t.id] != nil || s.byClient[t.clientID] != nil {
			return errDamaged
		}
		s.keep(t)
	}
	return nil
}

// strict decodes JSON and refuses unknown fields.
func strict(content []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(content))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

// token checks values that this program never writes, but another one may have written.
func (saved savedToken) token() (*token, error) {
	o := owner{saved.OwnerKind, saved.OwnerID}
	if !uuidShape.MatchString(saved.ID) || saved.ClientID == "" || len(saved.Secrets) == 0 || !isIdentifier(o.id) ||
		o.kind != accounts && o.kind != zones || checkDuration(saved.Duration) != nil {
		return nil, errDamaged
	}
	t := &token{
		id: saved.ID, clientID: saved.ClientID, owner: o, name: saved.Name, duration: saved.Duration, enabled: saved.Enabled,
		version: saved.Version, createdAt: saved.CreatedAt, updatedAt: saved.UpdatedAt, expiresAt: saved.ExpiresAt,
		lastSeenAt: saved.LastSeenAt, rotations: saved.Rotations, inPolicy: saved.InPolicy, deleted: saved.Deleted,
	}
	for i, s := range saved.Secrets {
		if s.Value == "" || s.Superseded == (i == len(saved.Secrets)-1) {
			return nil, errDamaged
		}
		t.secrets = append(t.secrets, &issued{value: secret.New(s.Value), at: s.At, superseded: s.Superseded, until: s.Until})
	}
	return t, nil
}

func (t *token) saved() savedToken {
	saved := savedToken{
		ID: t.id, ClientID: t.clientID, OwnerKind: t.owner.kind, OwnerID: t.owner.id, Name: t.name, Duration: t.duration,
		Enabled: t.enabled, Version: t.version, CreatedAt: t.createdAt, UpdatedAt: t.updatedAt, ExpiresAt: t.expiresAt,
		LastSeenAt: t.lastSeenAt, Rotations: t.rotations, InPolicy: t.inPolicy, Deleted: t.deleted,
	}
	for _, i := range t.secrets {
		saved.Secrets = append(saved.Secrets, savedSecret{Value: i.value.Reveal(), At: i.at, Superseded: i.superseded, Until: i.until})
	}
	return saved
}

// save writes the state file, if there is one. The caller holds mu.
func (s *Simulator) save() error {
	if s.stateFile == "" {
		return nil
	}
	state := savedState{Seed: s.options.Seed, Random: s.random.position(), Behaviour: s.behaviour, Tokens: []savedToken{}}
	for _, t := range s.tokens {
		state.Tokens = append(state.Tokens, t.saved())
	}
	encoded := encode(state)
	sum := sha256.Sum256(encoded)
	content := encode(stateFile{Format: stateFormat, Version: stateVersion, SHA256: hex.EncodeToString(sum[:]), State: encoded})
	if err := durable.WriteFile(s.stateFile, append(content, '\n'), 0o600); err != nil {
		return fmt.Errorf("%w: %w", errNotSaved, err)
	}
	return nil
}

// saveOrLog saves for a caller that cannot return an error.
func (s *Simulator) saveOrLog() {
	if err := s.save(); err != nil {
		s.log.Error("the state file cannot be written: what was just done is in memory only", "error", err)
	}
}
