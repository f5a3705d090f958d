package app

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/sink"
)

// countingPeers counts how often a token is looked at.
type countingPeers struct{ looks int }

func (p *countingPeers) MayBegin() error                              { p.looks++; return nil }
func (p *countingPeers) Wait(string, rotation.Record) time.Duration   { return 0 }
func (p *countingPeers) HeldFor(rotation.Record) (left time.Duration) { return 0 }
func (p *countingPeers) Owns(rotation.Record) bool                    { return false }

// TestLooksGrowWithTheFleet: each token has an account and a directory of its own. A look-ahead check of each of them looks
// at each token once, and not at all tokens once for each of them.
func TestLooksGrowWithTheFleet(t *testing.T) {
	for _, n := range []int{50, 200} {
		a := &App{config: &config.Config{}, now: time.Now, log: slog.New(slog.DiscardHandler)}
		a.engine = newEngine(time.Now, a.log, nil)
		peers := &countingPeers{}
		a.engine.peers = peers
		for i := range n {
			configured := &config.FileSink{Path: fmt.Sprintf("/run/%d/cf.env", i), Format: "env", Mode: 0o600}
			opened, err := sink.Open(configured, sink.Deps{})
			if err != nil {
				t.Fatal(err)
			}
			token := config.Token{Name: fmt.Sprint("token-", i), Account: fmt.Sprint("account-", i), Sinks: []config.Sink{configured}}
			a.config.Tokens = append(a.config.Tokens, token)
			a.engine.tokens[token.Name] = keep(scheduled{token: rotation.Token{Name: token.Name, Account: token.Account, Sinks: []rotation.Sink{opened}}})
		}
		for group := range a.sinkGroups() {
			if all := a.sinksIn(group); len(all) != 1 || !strings.HasPrefix(all[0].token, "token-") {
				t.Fatalf("the sinks of %s: %+v", group, all)
			}
		}
		if peers.looks != n {
			t.Errorf("checks of %d directories with one sink each have looked at %d tokens", n, peers.looks)
		}
		peers.looks = 0
		for i := range n {
			if token, _ := a.tokenToLookAt(fmt.Sprint("account-", i)); token.Name != fmt.Sprint("token-", i) {
				t.Fatalf("account %d has the token %q", i, token.Name)
			}
		}
		if peers.looks != n {
			t.Errorf("checks of %d accounts with one token each have looked at %d tokens", n, peers.looks)
		}
	}
}

// TestIndexFollowsAReload: after a reload the tokens are found in their new places.
func TestIndexFollowsAReload(t *testing.T) {
	a := &App{config: &config.Config{Tokens: []config.Token{{Name: "a", Account: "one"}, {Name: "b", Account: "two"}}}}
	names := func(account string) (all []string) {
		for t := range a.tokensIn(account) {
			all = append(all, t.Name)
		}
		return all
	}
	if got := names("two"); len(got) != 1 || got[0] != "b" {
		t.Errorf("before: %v", got)
	}
	a.config = &config.Config{Tokens: []config.Token{{Name: "b", Account: "one"}, {Name: "c", Account: "one"}}}
	if got := names("one"); strings.Join(got, " ") != "b c" {
		t.Errorf("after: %v", got)
	}
	if got := names("two"); len(got) != 0 {
		t.Errorf("an account without tokens: %v", got)
	}
}
