package hook

import (
	"strings"
	"testing"
)

// TestOutputWithoutCredentials: what programs print of their credentials is not shown, and the rest is.
func TestOutputWithoutCredentials(t *testing.T) {
	for _, text := range []string{
		"> Authorization: Bearer abcCANARYdef\n< HTTP/1.1 403", "authorization: Basic CANARY==\n< HTTP/1.1 403", "Set-Cookie: CF_Authorization=CANARY; Path=/\n< HTTP/1.1 403",
		"CF-Access-Client-Secret: CANARY\n< HTTP/1.1 403", "curl: https://u:CANARY@host/x HTTP/1.1 403", "GET /?token=CANARY&x=1 HTTP/1.1 403", "DB_PASSWORD=CANARY HTTP/1.1 403",
		"sent bearer CANARY, got HTTP/1.1 403", "X-Api-Key : CANARY\r\nHTTP/1.1 403",
	} {
		out := &tail{limit: maxOutput}
		_, _ = out.Write([]byte(text))
		if shown := out.shown(); strings.Contains(shown, "CANARY") || !strings.Contains(shown, "HTTP/1.1 403") {
			t.Errorf("%q is shown as %q", text, shown)
		}
	}
	plain := &tail{limit: maxOutput}
	_, _ = plain.Write([]byte("app.service: unknown token: ci-deploy was not found at https://host/path?x=1"))
	if shown := plain.shown(); !strings.HasSuffix(shown, ": app.service: unknown token: ci-deploy was not found at https://host/path?x=1") {
		t.Errorf("too much was removed: %q", shown)
	}
}
