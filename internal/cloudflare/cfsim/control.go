package cfsim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"time"
)

// Stats count what happened since the simulator started.
type Stats struct {
	// Requests to the API by operation and status. Status 0 means that the connection was broken instead of
	// an answer; a cut body counts with its status.
	Requests map[string]map[int]int `json:"requests"`
	// Rotations that were carried out, by token ID, whether or not the client received the answer, and by
	// whichever operation. Deleted tokens stay.
	Rotations map[string]int `json:"rotations"`
	// App counts requests to the application by status.
	App map[int]int `json:"app"`
	// Faults that struck, by kind.
	Faults map[Kind]int `json:"faults"`
}

func newStats() Stats {
	return Stats{
		Requests: map[string]map[int]int{}, Rotations: map[string]int{}, App: map[int]int{}, Faults: map[Kind]int{},
	}
}

func (s *Stats) countRequest(op string, status int) {
	if op == OpApp {
		s.App[status]++
		return
	}
	if s.Requests[op] == nil {
		s.Requests[op] = map[int]int{}
	}
	s.Requests[op][status]++
}

// Count returns how many requests of an operation there were, with any status.
func (s Stats) Count(op string) int {
	byStatus := s.Requests[op]
	if op == OpApp {
		byStatus = s.App
	}
	n := 0
	for _, count := range byStatus {
		n += count
	}
	return n
}

// Stats returns a copy of the statistics.
func (s *Simulator) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := newStats()
	for op, byStatus := range s.stats.Requests {
		out.Requests[op] = maps.Clone(byStatus)
	}
	maps.Copy(out.Rotations, s.stats.Rotations)
	maps.Copy(out.App, s.stats.App)
	maps.Copy(out.Faults, s.stats.Faults)
	return out
}

// routeControl serves as JSON what the Go methods do. docs/simulator.md describes it.
func (s *Simulator) routeControl() {
	s.mux.HandleFunc("GET /_sim/stats", func(w http.ResponseWriter, _ *http.Request) {
		writeControl(w, http.StatusOK, s.Stats())
	})
	s.mux.HandleFunc("GET /_sim/faults", func(w http.ResponseWriter, _ *http.Request) {
		writeControl(w, http.StatusOK, s.Faults())
	})
	s.mux.HandleFunc("POST /_sim/faults", func(w http.ResponseWriter, r *http.Request) {
		var f Fault
		err := readControl(w, r, &f)
		if err == nil {
			f, err = s.inject(f)
		}
		if err != nil {
			writeControlError(w, http.StatusBadRequest, err)
			return
		}
		writeControl(w, http.StatusCreated, f)
	})
	s.mux.HandleFunc("DELETE /_sim/faults", func(w http.ResponseWriter, _ *http.Request) {
		s.ClearFaults()
		w.WriteHeader(http.StatusNoContent)
	})
	s.mux.HandleFunc("GET /_sim/behaviour", func(w http.ResponseWriter, _ *http.Request) {
		writeControl(w, http.StatusOK, s.Behaviour())
	})
	s.mux.HandleFunc("PUT /_sim/behaviour", func(w http.ResponseWriter, r *http.Request) {
		var b Behaviour
		if err := readControl(w, r, &b); err != nil {
			writeControlError(w, http.StatusBadRequest, err)
			return
		}
		s.SetBehaviour(b)
		writeControl(w, http.StatusOK, b)
	})
	s.routeControlOfTokens()
}

// routeControlOfTokens serves what happens behind a client's back.
func (s *Simulator) routeControlOfTokens() {
	s.mux.HandleFunc("GET /_sim/tokens", func(w http.ResponseWriter, _ *http.Request) {
		writeControl(w, http.StatusOK, s.Tokens())
	})
	s.mux.HandleFunc("POST /_sim/tokens", func(w http.ResponseWriter, r *http.Request) {
		var p CreateParams
		if err := readControl(w, r, &p); err != nil {
			writeControlError(w, http.StatusBadRequest, err)
			return
		}
		t, _, err := s.Create(p)
		writeToken(w, http.StatusCreated, t, err)
	})
	s.mux.HandleFunc("PUT /_sim/tokens/{id}", func(w http.ResponseWriter, r *http.Request) {
		var e Edit
		if err := readControl(w, r, &e); err != nil {
			writeControlError(w, http.StatusBadRequest, err)
			return
		}
		t, err := s.Edit(r.PathValue("id"), e)
		writeToken(w, http.StatusOK, t, err)
	})
	s.mux.HandleFunc("DELETE /_sim/tokens/{id}", func(w http.ResponseWriter, r *http.Request) {
		writeToken(w, http.StatusNoContent, Token{}, s.Delete(r.PathValue("id")))
	})
	s.mux.HandleFunc("POST /_sim/tokens/{id}/rotate", func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Grace Duration `json:"grace"`
		}
		if err := readControl(w, r, &body); err != nil {
			writeControlError(w, http.StatusBadRequest, err)
			return
		}
		t, _, err := s.Rotate(r.PathValue("id"), time.Duration(body.Grace))
		writeToken(w, http.StatusOK, t, err)
	})
	s.mux.HandleFunc("PUT /_sim/tokens/{id}/policy", func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			InPolicy *bool `json:"in_policy"`
		}
		if err := readControl(w, r, &body); err != nil || body.InPolicy == nil {
			writeControlError(w, http.StatusBadRequest, errors.Join(err, errors.New(`want {"in_policy": true} or false`)))
			return
		}
		writeToken(w, http.StatusNoContent, Token{}, s.SetInPolicy(r.PathValue("id"), *body.InPolicy))
	})
}

// writeToken answers with a token, or with why the change was refused.
func writeToken(w http.ResponseWriter, status int, t Token, err error) {
	switch {
	case errors.Is(err, errNoToken):
		writeControlError(w, http.StatusNotFound, err)
	case errors.Is(err, errNotSaved):
		writeControlError(w, http.StatusInternalServerError, err)
	case err != nil:
		writeControlError(w, http.StatusBadRequest, err)
	case status == http.StatusNoContent:
		w.WriteHeader(status)
	default:
		writeControl(w, status, t)
	}
}

// readControl reads one JSON value and nothing else. Unknown fields are errors: a fault
// with a misspelt field would strike the wrong requests.
func readControl(w http.ResponseWriter, r *http.Request, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("reading the body: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("reading the body: something follows the JSON value")
	}
	return nil
}

func writeControl(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(encode(v), '\n')) // the client may have left
}

func writeControlError(w http.ResponseWriter, status int, err error) {
	writeControl(w, status, map[string]string{"error": err.Error()})
}
