package config_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/rotation"
)

func TestWarnings(t *testing.T) {
	for _, test := range []struct {
		name string
		text string
		want []string
	}{
		{"none", minimal, nil},
		{"grace 0, said once for all who inherit it", "defaults: {grace: 0s}\n" + minimal + `  other:
    account: prod
    id: 3f2b8a52-1d0e-4c3c-9a54-7d0c0f6f2b11
    schedule: "@weekly"
    sinks: [{vault: {mount: secret, path: access/other}}]
`, []string{"1:19: defaults.grace: 0 revokes the previous secret at once: consumers fail from each rotation until they have read the new one"}},
		{"deferred", replaced(t, `"@weekly"`, "0 4 * * *\n    grace: 23h\n    jitter: 2h"),
			[]string{"15:13: tokens.ci.jitter: jitter (2h) and grace (23h) are 25h together, longer than 24h, the smallest gap between two slots of 0 4 * * *: " +
				"rotations will be deferred until the grace has ended; shorten jitter to 1h, or grace to 22h"}},
		{"deferred by a window", replaced(t, `"@weekly"`, "0 4 * * *\n    grace: 20h\n    jitter: 1h\n    window: 6h"),
			[]string{"16:13: tokens.ci.window: window (6h), jitter (1h) and grace (20h) are 27h together, longer than 24h, " +
				"the smallest gap between two slots of 0 4 * * *: rotations will be deferred until the grace has ended; shorten window to 3h, or grace to 17h"}},
		{"deferred where all are inherited", "defaults: {window: 6h, grace: 20h}\n" + replaced(t, `"@weekly"`, "0 4 * * *"),
			[]string{"14:15: tokens.ci.schedule: window (6h) and grace (20h) are 26h together, longer than 24h, " +
				"the smallest gap between two slots of 0 4 * * *: rotations will be deferred until the grace has ended; shorten window to 4h, or grace to 18h"}},
		{"deferred, whichever is shortened", replaced(t, `"@weekly"`, "0 4 * * *\n    grace: 23h30m\n    jitter: 16h\n    window: 16h"),
			[]string{"16:13: tokens.ci.window: window (16h), jitter (16h) and grace (23h30m) are 55h30m together, longer than 24h, " +
				"the smallest gap between two slots of 0 4 * * *: rotations will be deferred until the grace has ended; shorten them to 24h together"}},
		{"exactly the gap", replaced(t, `"@weekly"`, "0 4 * * *\n    grace: 16h\n    jitter: 1h\n    window: 7h"), nil},
		{"no grace that could defer", replaced(t, `"@weekly"`, "0 4 * * *\n    grace: 0\n    jitter: 20h\n    window: 20h"),
			[]string{"14:12: tokens.ci.grace: 0 revokes the previous secret at once: consumers fail from each rotation until they have read the new one"}},
		{"a window for one try", replaced(t, `"@weekly"`, "0 4 * * *\n    grace: 1h\n    window: 1ns"),
			[]string{"15:13: tokens.ci.window: a window of 1ns is long enough for one try, since the waits after failures grow from 1s to 10m: " +
				"whatever is down for longer makes the slot missed; give 10m or more"}},
		{"a window for few tries", "defaults: {window: 9m59s}\n" + minimal,
			[]string{"1:20: defaults.window: a window of 9m59s is long enough for 10 tries, since the waits after failures grow from 1s to 10m: " +
				"whatever is down for longer makes the slot missed; give 10m or more"}},
		{"a window as long as the longest wait", replaced(t, `"@weekly"`, "\"@weekly\"\n    window: 10m"), nil},
		{"a short window between slots that are near", replaced(t, `"@weekly"`, "\"@every 10m\"\n    grace: 5m\n    window: 1m"), nil},
		{"too short a window between slots that are near", replaced(t, `"@weekly"`, "\"@every 10m\"\n    grace: 5m\n    window: 59s"),
			[]string{"15:13: tokens.ci.window: a window of 59s is long enough for 6 tries, since the waits after failures grow from 1s to 10m: " +
				"whatever is down for longer makes the slot missed; give 1m or more"}},
		{"no room for any window", replaced(t, `"@weekly"`, "\"@every 1m\"\n    grace: 5s\n    window: 10s"), nil},
		{"skip without a window", "defaults: {catch_up: skip}\n" + minimal,
			[]string{"1:22: defaults.catch_up: skip without a window: a slot is missed only when the next one has come, so the last one before an outage " +
				"ended is still served late; give a window, such as 1h, or write once"}},
		{"skip with a window", "defaults: {catch_up: skip, window: 1h}\n" + minimal, nil},
		{"replace", replaced(t, `"@weekly"`, "\"@weekly\"\n    strategy: replace"),
			[]string{"14:15: tokens.ci.strategy: each rotation creates a new service token, with a new ID and client ID: a policy that names the old one " +
				"does not let the new one in, so use one for any valid service token (any_valid_service_token), or add the new one by hand before the " +
				"grace ends; while a policy names the old one, Cloudflare refuses to delete it (12139); consumers must read the client ID too"}},
		{"rotate for one", "defaults: {strategy: replace}\n" + replaced(t, `"@weekly"`, "\"@weekly\"\n    strategy: rotate"), nil},
		{"grace 0, and replace in defaults", "defaults: {strategy: replace}\n" + replaced(t, `"@weekly"`, "\"@weekly\"\n    grace: 0"),
			[]string{"1:22: defaults.strategy: each rotation creates a new service token, with a new ID and client ID: a policy that names the old one " +
				"does not let the new one in, so use one for any valid service token (any_valid_service_token), or add the new one by hand before the " +
				"grace ends; while a policy names the old one, Cloudflare refuses to delete it (12139); consumers must read the client ID too",
				"15:12: tokens.ci.grace: 0 deletes the old service token at once: consumers fail from each rotation until they have read the new client ID and secret"}},
		{"renew_for alone", "defaults: {renew_for: 1440h}\n" + minimal,
			[]string{"1:23: defaults.renew_for: has no effect without renew_before: set that too, or remove it"}},
		{"renew_for beside renew_before 0", replaced(t, `"@weekly"`, "\"@weekly\"\n    renew_for: 1440h\n    renew_before: 0"),
			[]string{"14:16: tokens.ci.renew_for: has no effect without renew_before: set that too, or remove it"}},
		{"renew_for of use to one", "defaults: {renew_for: 1440h}\n" + replaced(t, `"@weekly"`, "\"@weekly\"\n    renew_before: 720h") + `  other:
    account: prod
    create: {name: other, duration: forever}
    schedule: "@weekly"
    sinks: [{vault: {mount: secret, path: access/other}}]
`, nil},
		{"unused account", replaced(t, "vault:\n", "  spare:\n    account_id: 123e105f4ecef8ad9ca31a8372d0c353\n    api_token: {env: T}\nvault:\n"),
			[]string{"6:5: accounts.spare: is used by no token: remove it, or name it in a token's account"}},
		{"global key", replaced(t, "api_token: {", "api_email: ops@example.com\n    api_key: {"),
			[]string{"5:14: accounts.prod.api_key: a global API key can do whatever its user can: prefer an api_token that may only write service tokens"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, lines(parse(t, test.text).Warnings)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestBackOff checks that the linter knows how long rotations that fail wait: the time that
// it states, or up to a quarter less.
func TestBackOff(t *testing.T) {
	for failures, stated := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 1000: 10 * time.Minute} {
		if wait := rotation.BackOff(failures); wait > stated || wait < stated*3/4 {
			t.Errorf("after failure %d a rotation waits %s: the warning about short windows says %s", failures, wait, stated)
		}
	}
}
