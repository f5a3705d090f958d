package cloudflare

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rotatord/internal/config"
)

// refusing counts requests and sends none.
type refusing struct{ requests int }

func (r *refusing) RoundTrip(*http.Request) (*http.Response, error) {
	r.requests++
	return nil, errors.New("no request is wanted")
}

// TestCredentialOfAnotherKind: content that cannot be a credential is not sent. Neither error, log nor
// readiness check contains it.
func TestCredentialOfAnotherKind(t *testing.T) {
	for content, want := range map[string]string{
		`"CANARY"`:            "has quotes around it: write the API token without them",
		"Bearer CANARY":       "begins with a word such as Bearer: write the API token alone, which follows it",
		"CF_API_TOKEN=CANARY": "has the form NAME=VALUE, as in a shell or an environment file: write the API token alone, what follows the =",
		"hvs.CANARY":          "is a Vault token, and not the API token: write the API token",
		"\ufeffCANARY":        "begins with a byte order mark (BOM): save it as plain text (ASCII or UTF-8, without a byte order mark)",
	} {
		path := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		wire := &refusing{}
		c := New(config.Account{Name: "prod", AccountID: "a", APIToken: config.SecretSource{File: path}, RequestsPer5m: 100}, Options{
			Logger: slog.New(slog.NewTextHandler(&log, nil)), WrapTransport: func(http.RoundTripper) http.RoundTripper { return wire },
		})
		want = "accounts.prod.api_token: the secret in file " + path + " " + want
		_, listErr := c.List(t.Context())
		_, verifyErr := c.VerifyCredential(t.Context())
		for what, err := range map[string]error{"list": listErr, "verify": verifyErr, "readiness": c.CredentialError()} {
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "CANARY") {
				t.Errorf("%s: %v, want %s", what, err, want)
			}
		}
		if wire.requests > 0 {
			t.Errorf("%d requests were sent", wire.requests)
		}
		if strings.Contains(log.String(), "CANARY") || !strings.Contains(log.String(), "cannot be read") {
			t.Errorf("the log is %s", log.String())
		}
	}
}
