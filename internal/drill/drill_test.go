package drill_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/drill"
	"rotatord/internal/racedetector"
)

// configuration has tokens of three kinds, and one that is like another.
const configuration = `
accounts:
  prod: {account_id: 023e105f4ecef8ad9ca31a8372d0c353, base_url: %[1]s, api_token: {file: /nonexistent/token}}
vault: {address: %[1]s, auth: {token: {file: /nonexistent/vault-token}}}
state: {dir: /nonexistent/state}
defaults: {account: prod, schedule: "0 4 * * 1", jitter: 10m}
tokens:
  single: {id: f174e90a-fafe-4643-bbbc-4a0ed4fc8415, grace: 24h, window: 6h, sinks: [{vault: {mount: secret, path: access/ci}}]}
  twin: {id: f174e90a-fafe-4643-bbbc-4a0ed4fc8416, grace: 24h, window: 6h, sinks: [{vault: {mount: secret, path: access/other}}]}
  at-once: {id: f174e90a-fafe-4643-bbbc-4a0ed4fc8417, grace: 0s, outside_rotation: rotate, sinks: [{vault: {mount: secret, path: access/at-once}}]}
  pair:
    pair: [f174e90a-fafe-4643-bbbc-4a0ed4fc8418, f174e90a-fafe-4643-bbbc-4a0ed4fc8419]
    grace: 1h
    sinks: [{vault: {mount: kv, path: both, fields: {client_id: ID, client_secret: SECRET}}}]
`

// settings has tokens with the settings that disasters of their own are about.
const settings = `
accounts:
  prod: {account_id: 023e105f4ecef8ad9ca31a8372d0c353, base_url: %[1]s, api_token: {file: /nonexistent/token}}
  zone: {zone_id: 123e105f4ecef8ad9ca31a8372d0c353, base_url: %[1]s, api_token: {file: /nonexistent/token}}
vault: {address: %[1]s, auth: {token: {file: /nonexistent/vault-token}}}
state: {dir: /nonexistent/state}
defaults: {account: prod, schedule: "0 4 * * 1", jitter: 10m, verify: {url: "%[1]s/health?q=canary"}}
tokens:
  single: {id: f174e90a-fafe-4643-bbbc-4a0ed4fc8415, grace: 24h, renew_before: 720h, sinks: [{vault: {mount: secret, path: access/ci}}]}
  made:
    create: {name: the-made-one, duration: 2000h}
    grace: 12h
    renew_before: 200h
    verify: {url: "%[1]s/app/", header: Authorization, within: 2m}
    sinks: [{vault: {mount: secret, path: access/made}}]
  edge:
    account: zone
    id: f174e90a-fafe-4643-bbbc-4a0ed4fc8420
    strategy: replace
    grace: 24h
    verify: {url: "%[1]s", header: X-Token}
    sinks: [{vault: {mount: secret, path: access/edge}}]
  made-edge: {create: {name: made-edge}, strategy: replace, grace: 0s, renew_before: 100h, sinks: [{vault: {mount: secret, path: access/made-edge}}]}
`

// load reads a configuration whose addresses are those of a server that must not be asked.
func load(t *testing.T, text string) *config.Config {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("something that the configuration names was asked: %s %s", r.Method, r.URL)
	}))
	t.Cleanup(server.Close)
	c, err := config.Parse("config.yaml", fmt.Appendf(nil, text, server.URL))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// rotatord builds the program.
func rotatord(t *testing.T) drill.Program {
	t.Helper()
	path, err := drill.BuildProgram()
	if err != nil {
		t.Fatal(err)
	}
	return drill.Program{Path: path, Name: "rotatord"}
}

// expected is what must have become of a token.
type expected struct {
	rotations, neverSeen int
	died                 time.Duration // of the old secret, within diedWithin; -1: it works
	alerts               []string
	story                string // is part of it
}

// What must have become of the single token, whose grace is 24 h.
var single = map[string]expected{
	"lost-answer":       {2, 1, 72 * time.Hour, []string{"RotatordTokenInDoubt"}, "grace was extended"},
	"500-before":        {1, 0, -1, nil, "the rotation was not carried out"},
	"500-after":         {2, 1, 72 * time.Hour, []string{"RotatordTokenInDoubt"}, "HTTP 500"},
	"cut-body":          {2, 1, 72 * time.Hour, []string{"RotatordTokenInDoubt"}, "cut off"},
	"garbage":           {2, 1, 72 * time.Hour, []string{"RotatordTokenInDoubt"}, "not from Cloudflare's API"},
	"throttled":         {1, 0, -1, []string{"RotatordCloudflareThrottled"}, "retry after 5m0s"},
	"slow-answer":       {1, 0, -1, nil, "rotated"},
	"clock-skew":        {1, 0, -1, []string{"RotatordClockSkew"}, "the clock is set"},
	"clock-wrong":       {1, 0, -1, []string{"RotatordClockSkew", "RotatordRotationFailing"}, "too far apart"},
	"many-previous":     {2, 1, -1, []string{"RotatordTokenInDoubt"}, "half of the grace is left"},
	"updated-at-frozen": {2, 1, 12 * time.Hour, []string{"RotatordTokenInDoubt"}, "half of the grace is left"},
	"vault-sealed":      {1, 0, -1, []string{"RotatordRotationFailing", "RotatordVaultFailing"}, "nothing was sent to Cloudflare"},
	"vault-sealed-midway": {1, 0, -1, []string{"RotatordRotationFailing", "RotatordSecretPending", "RotatordSinkWritesFailing", "RotatordVaultFailing"},
		"grace was extended"},
	"vault-denied":      {1, 0, -1, []string{"RotatordRotationFailing"}, "does not allow update"},
	"vault-answer-lost": {1, 0, -1, nil, "rotated"},
	"kill":              {1, 0, -1, nil, "killed, and started again"},
	"kill-in-flight":    {2, 1, 72 * time.Hour, []string{"RotatordTokenInDoubt"}, "the process ended before an answer was kept"},
	"token-deleted":     {0, 0, 0, []string{"RotatordRotationFailing", "RotatordTokenGone"}, "service_token_not_found"},
	"token-disabled":    {1, 0, 0, []string{"RotatordTokenDisabled"}, "rotated"},
	"rotated-outside":   {2, 1, time.Hour, []string{"RotatordTokenRotatedOutside"}, "another person or program rotated"},
	"api-token-revoked": {1, 0, -1, []string{"RotatordCloudflareFailing", "RotatordRotationFailing"}, "another API token"},
	"expired":           {1, 0, 0, []string{"RotatordTokenExpiresVerySoon"}, "rotated"},
}

// TestDisasters plays all of them: nothing that the configuration names is asked, no promise
// is broken, and what becomes of the tokens is what docs/drill.md says.
func TestDisasters(t *testing.T) {
	t.Parallel()
	o := drill.Options{Only: []string{"500-before", "throttled", "clock-skew"}, AtOnce: 8}
	if !testing.Short() && !racedetector.On {
		o = drill.Options{Program: rotatord(t), AtOnce: 8}
	}
	report, err := drill.Run(t.Context(), load(t, configuration), o)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"at-once", "pair", "single"}; !slices.Equal(report.Sample, want) || report.Tokens != 4 {
		t.Errorf("%v of %d take part, want %v", report.Sample, report.Tokens, want)
	}
	if report.Violated() {
		t.Error("a promise was broken")
	}
	for _, d := range report.Disasters {
		if d.Error != "" || len(d.Tokens) != 3 {
			t.Errorf("%s: %d tokens, %s", d.Name, len(d.Tokens), d.Error)
			continue
		}
		for _, got := range d.Tokens {
			if len(got.Violations) > 0 {
				t.Errorf("%s: %s: %q", d.Name, got.Token, got.Violations)
			}
			switch got.Token {
			case "single":
				single[d.Name].check(t, d.Name, got)
			case "pair": // consumers never notice, but for what cuts them off by itself
				if got.Rotations > 2 || !d.Fatal && d.Name != "rotated-outside" && (got.Refused != 0 || got.OldDied != nil) {
					t.Errorf("%s: pair: %d rotations, locked out for %s, the old secret died after %v",
						d.Name, got.Rotations, got.Refused, got.OldDied)
				}
			}
		}
	}
	if len(o.Only) == 0 && !strings.Contains(strings.Join(report.Notes, "\n"), "settings that no token has: create-answer-lost, create-killed, old-token-in-policy, edge-slow,") {
		t.Errorf("notes: %q", report.Notes)
	}
	if want := len(o.Only); want > 0 && len(report.Disasters) != want || want == 0 && len(report.Disasters) != len(single) {
		t.Errorf("%d disasters were played", len(report.Disasters))
	}
	encoded, err := json.Marshal(report)
	if err != nil || strings.Contains(string(encoded), "cfast_") || !strings.Contains(string(encoded), "in doubt") {
		t.Errorf("the report holds a secret, or nothing: %v", err)
	}
	var again drill.Report
	if err := json.Unmarshal(encoded, &again); err != nil || len(again.Disasters) != len(report.Disasters) {
		t.Errorf("the report cannot be read: %v", err)
	}
}

// became is what must have become of a token that has settings.
type became struct {
	rotations, neverSeen, made, left int
	died                             time.Duration // of the old secret, within diedWithin; -1: it works, or there was none
	refused                          time.Duration // consumers of Vault, to an hour
	story                            string        // is part of it
}

var withSettings = map[string]map[string]became{
	"lost-answer": {
		"made": {2, 1, 0, 1, 36 * time.Hour, 0, "grace was extended"},
		"edge": {2, 1, 2, 1, 24*time.Hour + time.Minute, 0, "a service token was created, and its secret is lost"},
	},
	"vault-sealed-midway": {
		"edge":      {1, 0, 1, 1, 42 * time.Hour, 0, "waits to be delivered"},
		"made-edge": {1, 0, 1, 1, 18 * time.Hour, 0, "waits to be delivered"},
	},
	"kill": {"edge": {1, 0, 1, 1, 24 * time.Hour, 0, "killed, and started again"}},
	"token-deleted": {
		"made": {0, 0, 0, 0, 0, 25 * time.Hour, "service_token_not_found"},
		"edge": {1, 0, 1, 1, 0, 0, "a service token was created"},
	},
	"create-answer-lost": {
		"made":      {2, 1, 1, 1, -1, 0, "makes up for a secret"},
		"made-edge": {2, 1, 2, 1, -1, 0, "that was replaced was deleted"},
	},
	"create-killed": {
		"made":      {2, 1, 1, 1, -1, 0, "the process ended before an answer was kept"},
		"made-edge": {2, 1, 2, 1, -1, 0, "that was replaced was deleted"},
	},
	"old-token-in-policy": {"edge": {1, 0, 1, 1, 27 * time.Hour, 0, "code 12139"}},
	"edge-slow":           {"single": {1, 0, 0, 0, 24 * time.Hour, 0, "the new secret is accepted"}, "made": {1, 0, 0, 1, 12 * time.Hour, 0, "rotated"}},
	"new-secret-refused": {
		"single": {1, 0, 0, 0, 36 * time.Hour, 18 * time.Hour, "grace was extended"},
		"made":   {1, 0, 0, 1, 27 * time.Hour, 18 * time.Hour, "HTTP 401"},
		"edge":   {1, 0, 1, 1, 42 * time.Hour, 18 * time.Hour, "HTTP 401"},
	},
	"application-down":   {"single": {1, 0, 0, 0, 24 * time.Hour, 0, "HTTP 502"}},
	"token-about-to-end": {"single": {1, 0, 0, 0, -1, 0, "lasts for another 365 d"}, "made": {1, 0, 0, 1, -1, 0, "lasts for another 83 d 8 h"}},
	"renewal-refused":    {"single": {1, 0, 0, 0, -1, 0, "HTTP 403"}, "made-edge": {1, 0, 1, 1, 84 * time.Hour, 0, "HTTP 403"}},
}

// rings are the alerts that must fire.
var rings = map[string]string{
	"old-token-in-policy": "RotatordOldTokenNotDeleted", "new-secret-refused": "RotatordVerifyFailing", "renewal-refused": "RotatordRenewalFailing",
	"token-deleted": "RotatordTokenGone", "create-answer-lost": "", "edge-slow": "", "application-down": "", "token-about-to-end": "", "kill": "",
}

// TestSettings plays those disasters that are about settings, and some others with service tokens
// that rotatord makes. The applications that the configuration names are not asked.
func TestSettings(t *testing.T) {
	t.Parallel()
	o := drill.Options{Only: []string{"token-about-to-end"}, AtOnce: 8}
	if !testing.Short() && !racedetector.On {
		o.Program, o.Only = rotatord(t), slices.Sorted(maps.Keys(withSettings))
	}
	report, err := drill.Run(t.Context(), load(t, settings), o)
	if err != nil || len(report.Disasters) != len(o.Only) || len(report.Sample) != 4 {
		t.Fatalf("%d disasters with %v, %v", len(report.Disasters), report.Sample, err)
	}
	for _, d := range report.Disasters {
		if d.Error != "" || len(d.Tokens) == 0 {
			t.Errorf("%s: %d tokens, %s", d.Name, len(d.Tokens), d.Error)
		}
		found := 0
		var alerts []string
		for _, got := range d.Tokens {
			if len(got.Violations) > 0 {
				t.Errorf("%s: %s: %q", d.Name, got.Token, got.Violations)
			}
			alerts = append(alerts, got.Alerts...)
			if want, any := withSettings[d.Name][got.Token]; any {
				found++
				want.check(t, d.Name, got)
			}
		}
		if found != len(withSettings[d.Name]) {
			t.Errorf("%s: of %d tokens %d took part", d.Name, len(withSettings[d.Name]), found)
		}
		if want, any := rings[d.Name]; any && (want == "" && len(alerts) > 0 || want != "" && !slices.Contains(alerts, want)) {
			t.Errorf("%s: alerts %v, want %s", d.Name, alerts, want)
		}
	}
}

// diedWithin is how far the end of the old secret may be from what is expected: the drill steps from one look of
// the daemon to the next, and a machine that is busy makes it look again.
const diedWithin = 5 * time.Minute

func (want became) check(t *testing.T, name string, got drill.TokenOutcome) {
	t.Helper()
	is := became{got.Rotations, got.NeverSeen, got.Created, got.Left, -1, time.Duration(got.Refused).Round(time.Hour), want.story}
	if got.OldDied != nil {
		is.died = time.Duration(*got.OldDied).Round(time.Minute)
		if want.died >= 0 && (is.died-want.died).Abs() <= diedWithin {
			is.died = want.died
		}
	}
	if is != want {
		t.Errorf("%s: %s: %+v, want %+v", name, got.Token, is, want)
	}
	for _, m := range got.Story {
		if strings.Contains(m.What, want.story) {
			return
		}
	}
	t.Errorf("%s: %s: the story does not say %q: %v", name, got.Token, want.story, got.Story)
}

func (want expected) check(t *testing.T, name string, got drill.TokenOutcome) {
	t.Helper()
	died := time.Duration(-1)
	if got.OldDied != nil {
		died = time.Duration(*got.OldDied).Round(time.Minute)
	}
	if got.Rotations != want.rotations || got.NeverSeen != want.neverSeen || (died-want.died).Abs() > diedWithin || (died < 0) != (want.died < 0) {
		t.Errorf("%s: %d rotations, %d secrets never seen, the old one died after %s; want %+v", name, got.Rotations, got.NeverSeen, died, want)
	}
	if !slices.Equal(got.Alerts, want.alerts) && len(got.Alerts)+len(want.alerts) > 0 {
		t.Errorf("%s: alerts %v, want %v", name, got.Alerts, want.alerts)
	}
	var story strings.Builder
	for _, m := range got.Story {
		fmt.Fprintln(&story, m.What)
	}
	if want.story == "" || !strings.Contains(story.String(), want.story) {
		t.Errorf("%s: the story does not say %q:\n%s", name, want.story, story.String())
	}
}

// files has tokens with files, of two formats, and one with a file and Vault, if the last line stays.
const files = `
accounts:
  prod: {account_id: 023e105f4ecef8ad9ca31a8372d0c353, base_url: %[1]s, api_token: {file: /nonexistent/token}}
state: {dir: /nonexistent/state}
defaults: {account: prod, schedule: "0 4 * * 1", grace: 24h}
tokens:
  env: {id: f174e90a-fafe-4643-bbbc-4a0ed4fc8415, sinks: [{file: {path: /var/lib/ci/a.env}}]}
  env-2: {id: f174e90a-fafe-4643-bbbc-4a0ed4fc8416, sinks: [{file: {path: /var/lib/ci/b.env}}]}
  json: {id: f174e90a-fafe-4643-bbbc-4a0ed4fc8417, sinks: [{file: {path: /var/lib/ci/c.json, format: json}}]}
`

// secrets has one token with a Secret of Kubernetes, and one with a Secret and a file.
const secrets = `
accounts:
  prod: {account_id: 023e105f4ecef8ad9ca31a8372d0c353, base_url: %[1]s, api_token: {file: /nonexistent/token}}
state: {dir: /nonexistent/state}
kubernetes: {kubeconfig: /nonexistent/kubeconfig, context: prod}
defaults: {account: prod, schedule: "0 4 * * 1", grace: 24h}
tokens:
  alone: {id: f174e90a-fafe-4643-bbbc-4a0ed4fc8415, sinks: [{kubernetes: {namespace: ci, name: cf, type: example.com/access, labels: {team: ci}}}]}
  both: {id: f174e90a-fafe-4643-bbbc-4a0ed4fc8416, sinks: [{file: {path: /var/lib/ci/a.env}}, {kubernetes: {namespace: other, name: cf}}]}
`

const filesAndVault = files + `
  both: {id: f174e90a-fafe-4643-bbbc-4a0ed4fc8418, sinks: [{vault: {mount: secret, path: both}}, {file: {path: /var/lib/ci/d.env}}]}
  vault: {id: f174e90a-fafe-4643-bbbc-4a0ed4fc8419, sinks: [{vault: {mount: secret, path: alone}}]}
vault: {address: %[1]s, auth: {token: {file: /nonexistent/vault-token}}}
`

// TestFiles: the format of a file counts, the daemon is killed between seal and write also without Vault, and
// the report names Vault only where it is.
func TestFiles(t *testing.T) {
	t.Parallel()
	o := drill.Options{Only: []string{"500-before", "vault-sealed", "vault-denied"}}
	if !testing.Short() && !racedetector.On {
		o.Program, o.Only = rotatord(t), append(o.Only, "kill")
	}
	for _, test := range []struct {
		text   string
		sample []string
		notes  []string
		played int
	}{
		{files, []string{"env", "json"}, []string{"Cloudflare is a simulator in this process.",
			"because no token that takes part has a sink in Vault: vault-sealed, vault-denied.", "The files of file sinks were"}, len(o.Only) - 2},
		{secrets, []string{"alone", "both"}, []string{"The Secrets of Kubernetes sinks were in an API server in this process.",
			"has a sink in Vault: vault-sealed, vault-denied."}, len(o.Only) - 2},
		{filesAndVault, []string{"both", "env", "json", "vault"}, []string{"Vault is a KV server", "The files of file sinks were"}, len(o.Only)},
	} {
		report, err := drill.Run(t.Context(), load(t, test.text), o)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(report.Sample)
		if !slices.Equal(report.Sample, test.sample) || len(report.Disasters) != test.played || report.Violated() {
			t.Errorf("%v take part in %d disasters, violated: %t: %+v", report.Sample, len(report.Disasters), report.Violated(), report.Disasters)
		}
		notes := strings.Join(report.Notes, "\n")
		for _, want := range test.notes {
			if !strings.Contains(notes, want) {
				t.Errorf("the notes do not say %q: %s", want, notes)
			}
		}
		for _, d := range report.Disasters {
			for _, got := range d.Tokens {
				if got.Rotations != 1 || got.NeverSeen != 0 {
					t.Errorf("%s: %+v", d.Name, got)
				}
			}
			if want := len(test.sample); !strings.HasPrefix(d.Name, "vault-") && len(d.Tokens) != want {
				t.Errorf("%s: %d tokens take part, want %d", d.Name, len(d.Tokens), want)
			}
		}
	}
}

// TestInterrupted: a drill that is broken off accuses nobody.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	report, err := drill.Run(ctx, load(t, configuration), drill.Options{Only: []string{"throttled", "lost-answer"}})
	if err != nil || len(report.Disasters) != 2 || !report.Violated() {
		t.Fatalf("%+v, %v", report, err)
	}
	for _, d := range report.Disasters {
		if d.Broken() != 0 || !strings.Contains(d.Error, context.Canceled.Error()) {
			t.Errorf("%+v", d)
		}
	}
}

func TestRunRefuses(t *testing.T) {
	c := load(t, configuration)
	_, err := drill.Run(t.Context(), c, drill.Options{Only: []string{"kill", "flood", "fire"}})
	if !errors.Is(err, drill.ErrUnknown) || !strings.Contains(err.Error(), "flood, fire") {
		t.Errorf("unknown disasters: %v", err)
	}
	if _, err := drill.Run(t.Context(), &config.Config{}, drill.Options{}); err == nil || !strings.Contains(err.Error(), "no token") {
		t.Errorf("no tokens: %v", err)
	}
	report, err := drill.Run(t.Context(), c, drill.Options{Only: []string{"kill"}})
	if err != nil || len(report.Disasters) != 0 || !strings.Contains(strings.Join(report.Notes, " "), "there is no program to run") {
		t.Errorf("kill without a program: %v, %v", report, err)
	}
	nothing := drill.Program{Path: "/bin/false", Name: "false"}
	if report, err = drill.Run(t.Context(), c, drill.Options{Only: []string{"kill"}, Program: nothing}); err != nil {
		t.Fatal(err)
	}
	if got := report.Disasters[0].Error; !strings.Contains(got, "ended before it was killed") || !report.Violated() {
		t.Errorf("a program that does not run: %q", got)
	}
}
