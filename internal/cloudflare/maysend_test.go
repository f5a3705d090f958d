package cloudflare_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"rotatord/internal/cloudflare"
	"rotatord/internal/rotation"
)

// TestMaySend: a request that must not leave is stopped when its connection is there already, and is known not to be
// carried out.
func TestMaySend(t *testing.T) {
	url, requests := serve(t, answer(200, "application/json", goodBody))
	c := client(t, url, cloudflare.Options{})
	asked := 0
	ended := errors.New("the claim has ended")
	check := func() error { asked++; return ended }
	ctx := rotation.WithSendCheck(t.Context(), check)
	for name, send := range map[string]func(context.Context) error{
		"rotate": func(ctx context.Context) error {
			_, err := c.Rotate(ctx, rotation.RotateRequest{TokenID: tokenID, Grace: time.Hour})
			return err
		},
		"create": func(ctx context.Context) error {
			_, err := c.Create(ctx, rotation.CreateRequest{Name: "ci"})
			return err
		},
	} {
		asked = 0
		err := send(ctx)
		e, is := errors.AsType[*rotation.IssuerError](err)
		if !is || e.Class != rotation.NotCarriedOut || !errors.Is(err, ended) || !strings.Contains(err.Error(), "nothing was sent") || asked != 1 {
			t.Errorf("%s: %v, asked %d times", name, err, asked)
		}
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
	if _, err := c.Rotate(rotation.WithSendCheck(t.Context(), func() error { return nil }), rotation.RotateRequest{TokenID: tokenID, Grace: time.Hour}); err != nil {
		t.Error(err)
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests arrived, want 1", n)
	}
}
