package sink

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"rotatord/internal/vault"
)

// TestReadAnswerInLittleMemory: a rotation reads three answers of Vault, each in several steps.
func TestReadAnswerInLittleMemory(t *testing.T) {
	body := fmt.Sprintf(`{"request_id": "1", "data": {"data": {"client_id": "id", "client_secret": %q},
		"metadata": {"version": 3, "created_time": "2026-01-02T03:04:05.6Z", "deletion_time": "", "destroyed": false, "custom_metadata": null}}}`,
		strings.Repeat("s", 2000))
	const n = 100
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		c, err := readAnswer(2, vault.Answer{Status: http.StatusOK, ContentType: "application/json", Body: []byte(body)})
		if err != nil || c.version != 3 || len(c.text("client_secret")) != 2000 {
			t.Fatal(c.version, err)
		}
	}
	runtime.ReadMemStats(&after)
	if each := int(after.TotalAlloc-before.TotalAlloc) / n; each > 14*len(body) {
		t.Errorf("an answer of %d bytes takes %d", len(body), each)
	}
}
