package app_test

import (
	"fmt"
	"strings"
	"testing"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/vault/vaulttest"
)

// TestVaultRequestsForEachRotation counts the requests to Vault of a daemon in its steady state, under what the
// shipped policy allows.
func TestVaultRequestsForEachRotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.vault.SetPolicy(vaulttest.ShippedPolicy("secret"))
	ci := w.token("ci", seldom, "0s")
	c, client := w.withSocket()
	d := w.start(c)
	rotations := 0
	rotate := func() {
		t.Helper()
		rotations++
		if _, err := client.Rotate(t.Context(), "ci", rotation.Overrides{}); err != nil {
			t.Fatal(err)
		}
		w.eventually("it is rotated", func() bool { return len(d.events.of("ci", event.ResultSuccess)) == rotations })
	}
	requests := func(operation, code string) int {
		n, _ := d.metric(fmt.Sprintf(`rotatord_vault_requests_total{code=%q,operation=%q}`, code, operation))
		return int(n)
	}
	rotate()
	// The first check between rotations is done, and what the policy does not allow is known.
	w.eventually("the steady state", func() bool {
		return requests("metadata", "403") == 1 && requests("seal_status", "200") > 0 && requests("probe", "400") > 1
	})
	const each = 5
	count := func() (all map[string]int) {
		all = make(map[string]int)
		for _, series := range []string{"read 200", "read 404", "write 200", "write 400", "probe 400", "mounts 200", "lifetime 200", "lifetime 403", "metadata 204", "metadata 403",
			"lookup 200", "capabilities 200"} {
			operation, code, _ := strings.Cut(series, " ")
			all[series] = requests(operation, code)
		}
		return all
	}
	before := count()
	for range each {
		rotate()
	}
	if !w.delivered(ci) {
		t.Error("Vault does not have the current secret")
	}
	want := map[string]int{"read 200": 2, "probe 400": 1, "write 200": 1}
	for series, n := range count() {
		if got := n - before[series]; got != each*want[series] {
			t.Errorf("%d rotations sent %d requests %s, want %d", each, got, series, each*want[series])
		}
	}
}
