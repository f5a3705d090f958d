package drill

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

func sampleOfOne(t *testing.T, more string) *sample {
	t.Helper()
	c, err := config.Parse("config.yaml", []byte(`
accounts: {prod: {account_id: 023e105f4ecef8ad9ca31a8372d0c353, api_token: {env: NOT_SET}}}
vault: {address: "https://vault.invalid", auth: {token: {env: NOT_SET}}}
defaults: {account: prod, schedule: "0 4 * * 1"}
tokens:
  ci: {id: f174e90a-fafe-4643-bbbc-4a0ed4fc8415, grace: 24h, sinks: [{vault: {mount: secret, path: ci}}]}
`+more))
	if err != nil {
		t.Fatal(err)
	}
	s, err := sampleOf(c, 3)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestLossIsFound takes the only copy of a secret away, and the drill must notice.
func TestLossIsFound(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	t.Parallel()
	d := disaster{
		name: "state lost", strike: sealAtRotate, lasts: minutes(30), lift: func(st *stage) error {
			st.atCloudflare.set(nil)
			st.vault.Seal(false)
			if err := os.RemoveAll(filepath.Join(st.dir, stateDir)); err != nil {
				return err
			}
			return st.age(25 * time.Hour) // past the grace, with nothing that would extend it
		},
	}
	o := play(t.Context(), d, sampleOfOne(t, ""), Program{})
	if len(o.Tokens) != 1 || o.Broken() == 0 {
		t.Fatalf("nothing was noticed: %+v", o)
	}
	got := strings.Join(o.Tokens[0].Violations, "\n")
	for _, want := range []string{"no sink ever had: 1; lost answers explain 0", "locked out for"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s does not say %q", got, want)
		}
	}
}

func TestViolations(t *testing.T) {
	const day = 24 * time.Hour
	good := result{works: true, oldDied: -1, rotations: 1}
	for name, x := range map[string]struct {
		disaster disaster
		grace    time.Duration
		change   func(*result)
		player   player
		state    string
		want     string // empty: none is broken
	}{
		"all is well":                 {},
		"a moment":                    {change: func(r *result) { r.refused = tolerated }},
		"locked out":                  {change: func(r *result) { r.refused = tolerated + 1 }, want: "locked out"},
		"locked out, and no promise":  {grace: -1, change: func(r *result) { r.refused = day }},
		"does not work":               {change: func(r *result) { r.works = false }, want: "does not work"},
		"does not work, no grace":     {grace: -1, change: func(r *result) { r.works = false }, want: "does not work"},
		"fatal":                       {disaster: disaster{fatal: true}, change: func(r *result) { r.works, r.refused, r.oldDied = false, day, 0 }},
		"rotated twice":               {change: func(r *result) { r.rotations = 2 }, want: "rotated 2 times, and 1 would be enough"},
		"rotated twice, and must":     {disaster: disaster{rotations: 1}, change: func(r *result) { r.rotations = 2 }},
		"fatal, and rotated twice":    {disaster: disaster{fatal: true}, change: func(r *result) { r.rotations = 2 }, want: "rotated 2 times"},
		"a secret is gone":            {change: func(r *result) { r.neverSeen = 1 }, want: "no sink ever had"},
		"an answer was lost":          {disaster: disaster{loses: true}, change: func(r *result) { r.neverSeen = 1 }},
		"two are gone":                {disaster: disaster{loses: true}, change: func(r *result) { r.neverSeen = 2 }, want: "no sink ever had"},
		"stuck":                       {state: "sealed", want: `still in the state "sealed"`},
		"grace cut short":             {change: func(r *result) { r.rotatedAt, r.oldDied = time.Hour, day }, want: "the old secret stopped working 23 h after the rotation"},
		"grace kept":                  {change: func(r *result) { r.rotatedAt, r.oldDied = time.Hour, day+time.Hour }},
		"grace kept but for the last": {disaster: disaster{loses: true}, change: func(r *result) { r.oldDied = 12 * time.Hour }},
		"grace cut shorter":           {disaster: disaster{loses: true}, change: func(r *result) { r.oldDied = 11 * time.Hour }, want: "stopped working 11 h after"},
		"replaced":                    {player: player{replace: true}, change: func(r *result) { r.created, r.left = 1, 1 }},
		"a second one is left":        {player: player{replace: true}, change: func(r *result) { r.created, r.left = 1, 2 }, want: "there are 2 service tokens"},
		"made, and then rotated":      {player: player{create: true}, disaster: disaster{first: true}, change: func(r *result) { r.created, r.left = 1, 1 }},
		"made twice":                  {player: player{create: true}, disaster: disaster{first: true}, change: func(r *result) { r.created = 2 }, want: "created 2 service tokens"},
		"made again":                  {player: player{create: true}, change: func(r *result) { r.created = 1 }, want: "created 1 service tokens"},
		"deleted while in use":        {player: player{replace: true}, change: func(r *result) { r.inUse = true }, want: "while a sink named it"},
		"not renewed":                 {change: func(r *result) { r.ends = true }, want: "was not renewed"},
		"refused by the disaster":     {disaster: disaster{refuses: true}, change: func(r *result) { r.refused = day }},
		"died by itself":              {change: func(r *result) { r.rotations, r.oldDied = 0, day }, want: "although there was no rotation"},
	} {
		r, p, state := good, x.player, "idle"
		p.grace = day
		if x.change != nil {
			x.change(&r)
		}
		if x.grace < 0 {
			p.grace = 0
		}
		if x.state != "" {
			state = x.state
		}
		switch got := violations(x.disaster, p, r, state); {
		case x.want == "" && len(got) > 0:
			t.Errorf("%s: %q", name, got)
		case x.want != "" && (len(got) != 1 || !strings.Contains(got[0], x.want)):
			t.Errorf("%s: %q, want one that says %q", name, got, x.want)
		}
	}
}

// TestShift moves every time of a record, and nothing else.
func TestShift(t *testing.T) {
	at := time.Date(2026, 11, 2, 4, 0, 0, 0, time.UTC)
	record := func(at time.Time) rotation.Record {
		return rotation.Record{
			Token: "ci", Anchor: at, NotBefore: at, OldDiesBy: at, Revision: 7,
			Work:  &rotation.Work{Began: at, Deadline: at, Grace: 5, Before: rotation.TokenFacts{UpdatedAt: at}, GraceEndsAt: at},
			Doubt: &rotation.Doubt{Since: at, OldWorksUntil: at, Extensions: 2}, Last: &rotation.Done{At: at, GraceEndsAt: at},
			Facts: rotation.TokenFacts{ID: "x", ExpiresAt: at}, CatchUpAt: time.Time{},
		}
	}
	got := record(at)
	shift(reflect.ValueOf(&got).Elem(), -time.Hour)
	if want := record(at.Add(-time.Hour)); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestSample(t *testing.T) {
	var more strings.Builder
	for i := range 6 {
		fmt.Fprintf(&more, "  t%d: {id: f174e90a-fafe-4643-bbbc-4a0ed4fc842%d, grace: %dh, window: 30m, sinks: [{vault: {mount: m%d, path: p%d}}]}\n", i, i, i+1, i%2, i)
	}
	s := sampleOfOne(t, more.String())
	var graces []time.Duration
	for _, p := range s.tokens {
		graces = append(graces, p.grace)
	}
	if want := []time.Duration{time.Hour, 4 * time.Hour, 24 * time.Hour}; !slices.Equal(graces, want) {
		t.Errorf("graces %v, want %v", graces, want)
	}
	if !strings.Contains(strings.Join(s.notes, "\n"), "Of 7 different tokens, 3 take part.") {
		t.Errorf("notes: %q", s.notes)
	}
	if got := s.outage(); got != 18*time.Hour {
		t.Errorf("an outage of %s", got)
	}
	if s.every != 7*24*time.Hour+time.Minute {
		t.Errorf("a slot every %s", s.every)
	}
	content, err := s.configuration("/dir", "http://127.0.0.1:1/client/v4", "http://127.0.0.1:2", "http://127.0.0.1:3/app/")
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse("config.yaml", content)
	if err != nil || len(c.Tokens) != 3 || c.Accounts["prod"].BaseURL != "http://127.0.0.1:1/client/v4" {
		t.Errorf("%v in\n%s", err, content)
	}
}

// TestAlertsExist: every alert that a report can name has a rule and a section in the runbook.
func TestAlertsExist(t *testing.T) {
	rules, err := os.ReadFile("../../deploy/prometheus/rotatord.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	runbook, err := os.ReadFile("../../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, name := range files {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, alert := range regexp.MustCompile(`\bRotatord[A-Z][A-Za-z]+`).FindAllString(string(content), -1) {
			named[alert] = true
		}
	}
	for alert := range named {
		if !strings.Contains(string(rules), "- alert: "+alert+"\n") || !strings.Contains(string(runbook), "\n## "+alert+"\n") {
			t.Errorf("%s has no rule, or no section in the runbook", alert)
		}
	}
	if len(named) < 12 {
		t.Errorf("only %d alerts are named", len(named))
	}
}

func TestAlertsOf(t *testing.T) {
	now := time.Date(2026, 11, 2, 4, 0, 0, 0, time.UTC)
	for name, x := range map[string]struct {
		token status.Token
		after time.Duration
		want  []string
	}{
		"fine":                {status.Token{State: "idle"}, 24 * time.Hour, nil},
		"doubt, at first":     {status.Token{Doubt: &status.Doubt{Since: now}}, time.Minute, nil},
		"doubt":               {status.Token{Doubt: &status.Doubt{Since: now}}, 2 * time.Minute, []string{"RotatordTokenInDoubt"}},
		"sealed":              {status.Token{State: "sealed", GraceEnd: now.Add(24 * time.Hour)}, 12 * time.Minute, []string{"RotatordSecretPending"}},
		"sealed, soon dead":   {status.Token{State: "sealed", GraceEnd: now.Add(90 * time.Minute)}, 6 * time.Minute, []string{"RotatordSecretPendingGraceEnding"}},
		"sealed of a pair":    {status.Token{State: "sealed", Strategy: "pair"}, 6 * time.Minute, nil},
		"failing":             {status.Token{Failures: 3}, 5 * time.Minute, []string{"RotatordRotationFailing"}},
		"failed twice":        {status.Token{Failures: 2}, time.Hour, nil},
		"disabled":            {status.Token{Known: true}, 5 * time.Minute, []string{"RotatordTokenDisabled"}},
		"unknown":             {status.Token{}, 10 * time.Minute, nil},
		"expires in a week":   {status.Token{Expiry: now.Add(7 * 24 * time.Hour)}, time.Hour, []string{"RotatordTokenExpiresSoon"}},
		"expires tomorrow":    {status.Token{Expiry: now.Add(24 * time.Hour)}, time.Hour, []string{"RotatordTokenExpiresVerySoon"}},
		"expires in a month":  {status.Token{Expiry: now.Add(30 * 24 * time.Hour)}, time.Hour, nil},
		"refused":             {status.Token{Verification: &status.Verification{Refused: true}}, time.Minute, []string{"RotatordVerifyFailing"}},
		"tried, and refused":  {status.Token{Verification: &status.Verification{}}, time.Hour, nil},
		"cut off":             {status.Token{CutOffAt: now.Add(-time.Hour)}, time.Minute, []string{"RotatordConsumersCutOff"}},
		"cut off some day":    {status.Token{CutOffAt: now.Add(time.Hour)}, time.Minute, nil},
		"reissue owed":        {status.Token{ReissueOwed: now}, 7 * time.Minute, []string{"RotatordReissueDelayed"}},
		"gone":                {status.Token{Gone: true}, 5 * time.Minute, []string{"RotatordTokenGone"}},
		"rotated outside":     {status.Token{Outside: now}, 5 * time.Minute, []string{"RotatordTokenRotatedOutside"}},
		"not renewed":         {status.Token{RenewalError: "refused"}, 10 * time.Minute, []string{"RotatordRenewalFailing"}},
		"not deleted":         {status.Token{State: "idle", Replaced: 1}, time.Hour, []string{"RotatordOldTokenNotDeleted"}},
		"two not deleted":     {status.Token{State: "idle", Replaced: 2, GraceEnd: now.Add(time.Hour)}, time.Hour, []string{"RotatordOldTokenNotDeleted"}},
		"in its grace":        {status.Token{State: "idle", Replaced: 1, GraceEnd: now.Add(time.Hour)}, time.Hour, nil},
		"sealed without time": {status.Token{State: "sealed", GraceEnd: now.Add(24 * time.Hour)}, time.Minute, nil},
	} {
		if got := alertsOf(x.token, now, x.after); !slices.Equal(got, x.want) {
			t.Errorf("%s: %v, want %v", name, got, x.want)
		}
	}
}

func TestDurationInWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0 s", 1234 * time.Millisecond: "1.2 s", 59*time.Second + 700*time.Millisecond: "60 s", 10 * time.Minute: "10 min",
		98 * time.Minute: "98 min", 24*time.Hour - time.Second: "24 h", 71*time.Hour + 90*time.Second: "71 h 2 min",
		7 * 24 * time.Hour: "7 d", 170 * time.Hour: "7 d 2 h",
	} {
		if got := Duration(d).String(); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
}

// TestSampleOfKinds: where there is no room for all, there is one of each kind that disasters
// are about.
func TestSampleOfKinds(t *testing.T) {
	s := sampleOfOne(t, `
  t1: {id: f174e90a-fafe-4643-bbbc-4a0ed4fc8421, grace: 1h, sinks: [{vault: {mount: m, path: p1}}]}
  t2: {id: f174e90a-fafe-4643-bbbc-4a0ed4fc8422, grace: 2h, sinks: [{vault: {mount: m, path: p2}}]}
  t3: {create: {name: t3}, grace: 3h, sinks: [{vault: {mount: m, path: p3}}]}
  t4: {id: f174e90a-fafe-4643-bbbc-4a0ed4fc8424, grace: 4h, strategy: replace, sinks: [{vault: {mount: m, path: p4}}]}
`)
	var names []string
	for _, p := range s.tokens {
		names = append(names, p.name)
	}
	if slices.Sort(names); len(names) != 3 || !slices.Contains(names, "t3") || !slices.Contains(names, "t4") {
		t.Errorf("%v take part", names)
	}
}

// TestApplicationIsOurs: the application that new secrets are tried at is the drill's own, which
// takes every header that the configuration names, and nothing else of it is known.
func TestApplicationIsOurs(t *testing.T) {
	s := sampleOfOne(t, `
  t1:
    id: f174e90a-fafe-4643-bbbc-4a0ed4fc8421
    verify: {url: "https://app.invalid/health", header: Authorization, within: 7s}
    sinks: [{vault: {mount: m, path: p1}}]
  t2: {id: f174e90a-fafe-4643-bbbc-4a0ed4fc8422, verify: {url: "https://app.invalid", header: X-Token}, sinks: [{vault: {mount: m, path: p2}}]}
`)
	st, err := newStage(s, Program{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := st.close(); err != nil {
			t.Error(err)
		}
	}()
	if kept := fmt.Sprintf("%+v", *s); strings.Contains(kept, "invalid") {
		t.Errorf("an address of the configuration is kept: %s", kept)
	}
	url := ""
	for _, token := range st.config.Tokens {
		if v := token.Verify; v != nil {
			url = v.URL
		}
		if token.Name == "t1" && (token.Verify.Header != "Authorization" || token.Verify.Within != 7*time.Second) {
			t.Errorf("%+v", token.Verify)
		}
	}
	if !strings.HasPrefix(url, "http://127.0.0.1:") || !strings.HasSuffix(url, "/app/") {
		t.Fatalf("new secrets are tried at %q", url)
	}
	_, value, err := st.sim.Create(cfsim.CreateParams{Name: "x", ID: "f174e90a-fafe-4643-bbbc-4a0ed4fc8499"})
	if err != nil {
		t.Fatal(err)
	}
	made, _ := st.sim.Token("f174e90a-fafe-4643-bbbc-4a0ed4fc8499")
	try := func(header, secret string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(header, fmt.Sprintf(`{"cf-access-client-id": %q, "cf-access-client-secret": %q}`, made.ClientID, secret))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := res.Body.Close(); err != nil {
			t.Error(err)
		}
		return res.StatusCode
	}
	for header, want := range map[string]int{"Authorization": 200, "X-Token": 200, "X-Other": 401} {
		if got := try(header, value.Reveal()); got != want {
			t.Errorf("%s: HTTP %d, want %d", header, got, want)
		}
		if got := try(header, "wrong"); got != 401 {
			t.Errorf("%s: HTTP %d for a wrong secret", header, got)
		}
	}
	if st.edge.slow(0); try("X-Token", value.Reveal()) != 200 {
		t.Error("a slow edge refuses what it knows")
	}
	_, fresh, err := st.sim.Rotate(made.ID, time.Hour)
	if err != nil || try("X-Token", fresh.Reveal()) != 401 {
		t.Error("a slow edge accepts what is new", err)
	}
	if st.edge.quick(); try("Authorization", fresh.Reveal()) != 200 {
		t.Error("it never knows it")
	}
	if st.edge.away(true); try("X-Token", fresh.Reveal()) != http.StatusBadGateway {
		t.Error("it is there")
	}
}
