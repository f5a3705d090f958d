package forecast

import (
	"strings"
	"testing"
	"time"

	"rotatord/internal/rotation"
)

// TestSpareExpires: the spare of a pair ends before the second rotation, and every later rotation warns of it.
func TestSpareExpires(t *testing.T) {
	token := daily(t, func(c *rotation.Token) { c.Partner = "0aa5bb5c-1f5e-4f0b-9d6c-6f3a2f1f9b11" })
	state := rotated(func(r *rotation.Record) {
		r.Facts = rotation.TokenFacts{ID: tokenID, ClientID: "a", UpdatedAt: at(1, 4), ExpiresAt: noon.Add(1000 * time.Hour)}
		r.Spare = rotation.TokenFacts{ID: token.Partner, ClientID: "b", UpdatedAt: at(1, 4), ExpiresAt: noon.Add(20 * time.Hour)}
	})
	all, err := Of(t.Context(), []rotation.Token{*token}, state, Range{Now: noon, Count: 4, Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	var warned []bool
	for _, e := range all {
		warned = append(warned, strings.Contains(summary(e), "token_expired"))
	}
	if len(warned) != 4 || warned[0] || !warned[1] || !warned[2] || !warned[3] {
		t.Errorf("warned of the end: %v, want all but the first", warned)
	}
}
