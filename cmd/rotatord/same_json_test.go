package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/admin"
	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/httpapi"
	"rotatord/internal/status"
)

// shownDaemon is what commands and API see of a daemon. What it does not have is not asked for.
type shownDaemon struct {
	admin.Daemon
	httpapi.Source
	overview status.Overview
}

func (d *shownDaemon) Token(name string) (status.Token, bool) {
	i := slices.IndexFunc(d.overview.Tokens, func(t status.Token) bool { return t.Name == name })
	if i < 0 {
		return status.Token{}, false
	}
	return d.overview.Tokens[i], true
}
func (d *shownDaemon) TokensAfter(name string, n int) []status.Token {
	left := slices.DeleteFunc(slices.Clone(d.overview.Tokens), func(t status.Token) bool { return t.Name <= name })
	return left[:min(n, len(left))]
}
func (d *shownDaemon) Checks() []status.Check     { return d.overview.Checks }
func (d *shownDaemon) Replicas() *status.Replicas { return d.overview.Replicas }
func (d *shownDaemon) History(context.Context, status.HistoryQuery) (status.History, error) {
	return status.History{}, nil
}
func (d *shownDaemon) Pending() (int, time.Time) {
	return d.overview.PendingSecrets, d.overview.PendingSince
}

// filled sets every exported field below v to something that is not zero, with characters that need an escape.
func filled(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		filled(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			filled(v.Index(i))
		}
	case reflect.Struct:
		if _, isTime := v.Interface().(time.Time); isTime {
			v.Set(reflect.ValueOf(time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)))
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				filled(v.Field(i))
			}
		}
	case reflect.String:
		v.SetString("a <b> & \"c\" é \x1b[2J\u202e\n")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int:
		v.SetInt(7)
	case reflect.Float64:
		v.SetFloat(-0.25)
	}
}

// TestSameJSON: what `rotatord status -o json` prints and what the API answers are the same bytes, for all tokens and for
// one, with every field that there is and with as few as possible.
func TestSameJSON(t *testing.T) {
	d := &shownDaemon{}
	filled(reflect.ValueOf(&d.overview).Elem())
	d.overview.Tokens[0].Name, d.overview.Tokens[1].Name = "ci", "db"
	d.overview.Tokens[1].Troubles = nil
	few := &shownDaemon{overview: status.Overview{Tokens: []status.Token{{Name: "ci", Known: true, Enabled: true}}}}
	for name, d := range map[string]*shownDaemon{"every field": d, "few fields": few, "no tokens": {}} {
		t.Run(name, func(t *testing.T) {
			api := httptest.NewServer(httpapi.Handler(httpapi.Options{Source: d, Metrics: httpapi.NewMetrics(httpapi.Build{}), Logger: slog.New(slog.DiscardHandler), Now: time.Now}))
			defer api.Close()
			socket := filepath.Join(t.TempDir(), "a.sock")
			listener, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			server := admin.NewServer(d, slog.New(slog.DiscardHandler), func(string, event.Actor, event.Detail) {}, func() []config.Allow { return nil })
			go func() { _ = server.Serve(listener) }()
			defer server.Close()
			for path, args := range map[string][]string{"": nil, "/ci": {"ci"}} {
				res, err := http.Get(api.URL + "/api/v1/status" + path)
				if err != nil {
					t.Fatal(err)
				}
				answer, err := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if err != nil {
					t.Fatal(err)
				}
				var stdout, stderr bytes.Buffer
				code := run(append([]string{"status", "--socket", socket, "-o", "json"}, args...), strings.NewReader(""), &stdout, &stderr)
				if res.StatusCode == http.StatusNotFound && code == exitFailed {
					continue // there are no tokens
				}
				if code != exitGood || res.StatusCode != http.StatusOK || len(answer) == 0 {
					t.Fatalf("%d %s, %d %s", code, stderr.String(), res.StatusCode, answer)
				}
				if !bytes.Equal(stdout.Bytes(), answer) {
					t.Errorf("the command prints\n%s\nand the API answers\n%s", stdout.String(), answer)
				}
				if bytes.Contains(answer, []byte("null")) {
					t.Errorf("a list is null:\n%s", answer)
				}
			}
		})
	}
}
