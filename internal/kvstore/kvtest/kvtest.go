// Package kvtest is a shared store in memory, for tests of what several processes do with it. Each process has a
// client of its own, whose requests can be lost, delayed or refused.
package kvtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"rotatord/internal/kvstore"
	"rotatord/internal/moment"
)

// Server is one store. The zero Server is empty and has the clock of the machine.
type Server struct {
	// Now is the server's clock; nil for time.Now. Set it before the first request, and let it be changed by what
	// it returns.
	Now func() time.Time

	mu      sync.Mutex
	entries map[string]*entry
	counts  map[string]int
}

type entry struct {
	version int
	data    json.RawMessage // nil if deleted
	created time.Time
	gone    bool // destroyed
	limit   int
}

// Fault is what goes wrong with one request.
type Fault struct {
	Before error         // it is not carried out, and this is its error
	After  error         // it is carried out, and this is its error
	Delay  time.Duration // before it is carried out
	Late   time.Duration // after it was carried out
}

// ErrLost is an error without an answer.
var ErrLost = errors.New("no answer came")

// Client is one process's way to a Server.
type Client struct {
	server *Server
	mu     sync.Mutex
	fault  func(operation, path string) Fault
}

var _ kvstore.KV = (*Client)(nil)

// Client returns a client. fault says what goes wrong with each request (get, put, list, limit, remove); nil for nothing.
func (s *Server) Client(fault func(operation, path string) Fault) *Client {
	return &Client{server: s, fault: fault}
}

// Break sets what goes wrong with the next requests; nil for nothing.
func (c *Client) Break(fault func(operation, path string) Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = fault
}

// Count returns how many requests of an operation were carried out.
func (s *Server) Count(operation string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[operation]
}

// Delete deletes the current version, as a person may.
func (s *Server) Delete(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[path]; e != nil {
		e.data = nil
	}
}

// Destroy destroys the current version.
func (s *Server) Destroy(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[path]; e != nil {
		e.data, e.gone = nil, true
	}
}

// Set writes any content as another program would, without check-and-set.
func (s *Server) Set(path, content string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entry(path)
	e.version++
	e.data, e.created, e.gone = json.RawMessage(content), s.now(), false
}

func (s *Server) now() time.Time {
	if s.Now != nil {
		return s.Now().UTC()
	}
	return time.Now().UTC()
}

func (s *Server) entry(path string) *entry {
	if s.entries == nil {
		s.entries = make(map[string]*entry)
	}
	if s.entries[path] == nil {
		s.entries[path] = &entry{}
	}
	return s.entries[path]
}

// do carries out one request with its fault.
func (c *Client) do(ctx context.Context, operation, path string, work func(*Server) error) error {
	c.mu.Lock()
	fault := Fault{}
	if c.fault != nil {
		fault = c.fault(operation, path)
	}
	c.mu.Unlock()
	if err := moment.Sleep(ctx, fault.Delay); err != nil {
		return err
	}
	if fault.Before != nil {
		return fault.Before
	}
	c.server.mu.Lock()
	if c.server.counts == nil {
		c.server.counts = make(map[string]int)
	}
	c.server.counts[operation]++
	err := work(c.server)
	c.server.mu.Unlock()
	if lateErr := moment.Sleep(ctx, fault.Late); lateErr != nil {
		return lateErr
	}
	if fault.After != nil {
		return fault.After
	}
	return err
}

// Get implements [kvstore.KV].
func (c *Client) Get(ctx context.Context, path string) (got kvstore.Entry, err error) {
	err = c.do(ctx, "get", path, func(s *Server) error {
		e := s.entries[path]
		switch {
		case e == nil || e.version == 0:
			return nil
		case e.gone:
			return fmt.Errorf("%s: version %d %w and destroyed", path, e.version, kvstore.ErrDeleted)
		case e.data == nil:
			return fmt.Errorf("%s: version %d %w", path, e.version, kvstore.ErrDeleted)
		}
		got = kvstore.Entry{Data: bytes.Clone(e.data), Version: e.version, CreatedAt: e.created}
		return nil
	})
	if err != nil {
		return kvstore.Entry{}, err
	}
	return got, nil
}

// Put implements [kvstore.KV]. After a lost answer it reads back as [kvstore.Store] does.
func (c *Client) Put(ctx context.Context, path string, data any, version int) (put kvstore.Entry, err error) {
	content, err := objectOf(data)
	if err != nil {
		return kvstore.Entry{}, err
	}
	err = c.do(ctx, "put", path, func(s *Server) error {
		e := s.entry(path)
		if e.version != version {
			return kvstore.ErrConflict
		}
		e.version++
		e.data, e.created, e.gone = content, s.now(), false
		put = kvstore.Entry{Data: bytes.Clone(content), Version: e.version, CreatedAt: e.created}
		return nil
	})
	if err == nil {
		return put, nil
	}
	if version == kvstore.Never && errors.Is(err, kvstore.ErrConflict) {
		return kvstore.Entry{}, err
	}
	now, readErr := c.Get(context.WithoutCancel(ctx), path)
	switch {
	case readErr != nil:
		return kvstore.Entry{}, errors.Join(err, readErr)
	case now.Version == version+1 && bytes.Equal(now.Data, content):
		return now, nil
	case now.Version != version:
		return kvstore.Entry{}, fmt.Errorf("%w: %w", kvstore.ErrConflict, err)
	}
	return kvstore.Entry{}, err
}

// objectOf returns data as the JSON object that Get returns for it.
func objectOf(data any) (json.RawMessage, error) {
	raw, err := json.Marshal(data)
	if err != nil {
		return nil, err
	}
	var object map[string]any
	if err := json.Unmarshal(raw, &object); err != nil || object == nil {
		return nil, errors.New("an entry must be a JSON object")
	}
	return json.Marshal(object)
}

// At implements [kvstore.KV].
func (c *Client) At(path string) string { return "-mount=secret rotatord/" + path }

// List implements [kvstore.KV].
func (c *Client) List(ctx context.Context, dir string) (names []string, err error) {
	err = c.do(ctx, "list", dir, func(s *Server) error {
		for _, path := range slices.Sorted(maps.Keys(s.entries)) {
			if name, below := strings.CutPrefix(path, strings.TrimSuffix(dir, "/")+"/"); below && !strings.Contains(name, "/") {
				names = append(names, name)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return names, nil
}

// Limit implements [kvstore.KV].
func (c *Client) Limit(ctx context.Context, path string, versions int) error {
	return c.do(ctx, "limit", path, func(s *Server) error { s.entry(path).limit = versions; return nil })
}

// Remove implements [kvstore.KV].
func (c *Client) Remove(ctx context.Context, path string) error {
	return c.do(ctx, "remove", path, func(s *Server) error { delete(s.entries, path); return nil })
}
