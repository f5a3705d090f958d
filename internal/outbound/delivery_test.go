package outbound

import (
	"testing"
	"time"
)

// TestSignature holds the signature that receivers compute, as docs/hooks.md and docs/notifications.md describe it. The
// value is from openssl dgst -sha256 -hmac key.
func TestSignature(t *testing.T) {
	const want = "t=1795921925,v1=6f4a51fe4705cfc64de47251455bc7f37cc68f16e9ce0f68b4c0a017de53b7ed"
	if got := Signature([]byte("key"), time.Unix(1795921925, 999), []byte(`{"a":1}`)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
