package status_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/status"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// inTrouble is a token for each kind of trouble.
var inTrouble = map[string]status.Token{
	"cut_off":              {CutOffAt: noon, Emergency: true, Failures: 1},
	"gone":                 {Gone: true},
	"disabled":             {Known: true},
	"expired":              {Expiry: noon},
	"rotated_outside":      {Outside: noon},
	"in_doubt":             {State: status.InDoubt, Failures: 1, Doubt: &status.Doubt{OldWorksUntil: noon.Add(time.Hour)}},
	"overtaken":            {State: status.Overtook, Failures: 1, Overtaken: &status.Overtaken{}},
	"refused":              {State: "stored", Verification: &status.Verification{Refused: true}},
	"reissue_owed":         {ReissueOwed: noon, Failures: 1},
	"not_sealed":           {State: "intent", Failures: 1},
	"grace_ending":         {State: "sealed", Failures: 1, GraceEnd: noon.Add(2 * time.Hour)},
	"version_deletes_soon": {Next: noon.Add(2 * time.Hour), Deletions: []status.Deletion{{At: noon.Add(time.Hour)}}},
	"version_deletes":      {Next: noon.Add(200 * time.Hour), Deletions: []status.Deletion{{At: noon.Add(100 * time.Hour)}}},
	"expires_very_soon":    {Expiry: noon.Add(72 * time.Hour), Renews: noon.Add(time.Hour)},
	"not_delivered":        {State: "sealed", Failures: 1, GraceEnd: noon.Add(2*time.Hour + time.Second)},
	"failing":              {Failures: 1, State: "idle"},
	"renewal_failing":      {RenewalError: "refused"},
	"expires_soon":         {Expiry: noon.Add(14 * 24 * time.Hour)},
	"not_deleted":          {Replaced: 1, ReplacedError: "in a policy"},
	"unverified":           {Unverified: "no route"},
	"sink_empty":           {Findings: []status.Finding{{Kind: "deleted", Since: noon}}},
	"sink_changed":         {Findings: []status.Finding{{Kind: "rolled_back", Since: noon}}},
	"sink_never_written":   {Findings: []status.Finding{{Kind: "never_written", Since: noon}}},
	"sink_unreadable":      {Findings: []status.Finding{{Kind: "unreadable", Since: noon}}},
	"unread":               {Unread: true, Failures: 1},
	"late_answer":          {Sharing: &status.Sharing{Late: []status.LateAnswer{{RotationID: "R", SealedAt: noon, Superseded: true}}}},
	"hook_failing":         {GraceEnd: noon.Add(24 * time.Hour), Hooks: []status.Hook{{Name: "exec:reload", State: "failing", Failures: 1, Since: noon.Add(-10 * time.Minute), LastError: "no"}}},
	"refused_in_use":       {RefusedInUse: &status.RefusedInUse{Since: noon, Error: "403"}},
}

// TestKinds: each kind is recognised alone, and the runbook explains it with its severity and a section
// that is there.
func TestKinds(t *testing.T) {
	runbook, err := os.ReadFile("../../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string][]string{}
	var order []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (critical|warning) \\| [^|]+ \\| \\[[^]]+\\]\\(([^)]*)\\) \\|$").FindAllStringSubmatch(string(runbook), -1) {
		documented[row[1]] = row[2:]
		order = append(order, row[1])
	}
	if want := append(status.Kinds(), "replica_dead"); !slices.Equal(order, want) {
		t.Errorf("the runbook has the kinds %q, want %q", order, want)
	}
	for _, kind := range status.ReplicaKinds() {
		if !strings.Contains(string(runbook), "\n| `"+kind+"` | ") {
			t.Errorf("the runbook does not explain %s", kind)
		}
	}
	if len(inTrouble) != len(status.Kinds()) {
		t.Errorf("%d tokens for %d kinds", len(inTrouble), len(status.Kinds()))
	}
	headings := regexp.MustCompile(`(?m)^##+ (.*)$`).FindAllStringSubmatch(string(runbook), -1)
	for kind, token := range inTrouble {
		token.Name = "ci"
		if got := token.TroubleKinds(noon); !slices.Equal(got, []string{kind}) {
			t.Errorf("%s is recognised as %q", kind, got)
		}
		all := status.Troubles([]status.Token{{Name: "fine"}, token}, nil, noon)
		if len(all) != 1 || all[0].Kind != kind || !slices.Equal(all[0].Tokens, []string{"ci"}) || all[0].ToDo == "" || strings.Contains(all[0].ToDo, "NAME") ||
			!strings.HasPrefix(all[0].Line(noon), "ci: "+all[0].What) {
			t.Errorf("%s: %+v", kind, all)
			continue
		}
		row := documented[kind]
		if row == nil || row[0] != string(all[0].Severity) {
			t.Errorf("%s is %s, and the runbook has %q", kind, all[0].Severity, row)
			continue
		}
		page := "docs/"
		if strings.HasPrefix(row[1], "#") {
			page += "runbook.md"
		}
		if all[0].Runbook != page+row[1] {
			t.Errorf("%s leads to %s, and the runbook to %s", kind, all[0].Runbook, row[1])
		}
		if anchor, own := strings.CutPrefix(row[1], "#"); own && !slices.ContainsFunc(headings, func(h []string) bool { return strings.EqualFold(h[1], anchor) }) {
			t.Errorf("%s leads to a section that is not there: %s", kind, anchor)
		}
	}
}

// TestNoTrouble: what every rotation passes through, and what is taken care of, is none.
func TestNoTrouble(t *testing.T) {
	for name, token := range map[string]status.Token{
		"fresh":             {State: "idle"},
		"a rotation":        {State: "sealed", GraceEnd: noon.Add(time.Hour)},
		"a moment":          {State: "intent", CutOffAt: noon, Emergency: true},
		"is renewed before": {Expiry: noon.Add(100 * time.Hour), Renews: noon.Add(time.Hour)},
		"enabled":           {Known: true, Enabled: true, Expiry: noon.Add(15 * 24 * time.Hour)},
		"held":              {State: "stored", Sharing: &status.Sharing{Hold: &status.Hold{Replica: "b"}, BegunBy: "a", Late: []status.LateAnswer{{SealedAt: noon}}}},
		"paused":            {Pause: &status.Pause{}},
		"deletes later":     {Next: noon.Add(time.Hour), Deletions: []status.Deletion{{At: noon.Add(2 * time.Hour)}}},
	} {
		if got := status.Troubles([]status.Token{token}, []status.Check{{Name: status.CheckVault, OK: true}}, noon); got != nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if pair := (status.Token{Strategy: "pair", State: "sealed", Failures: 1, GraceEnd: noon.Add(time.Minute)}); !slices.Equal(pair.TroubleKinds(noon), []string{"not_delivered"}) {
		t.Errorf("a pair: %q", pair.TroubleKinds(noon))
	}
}

// TestChecksAreTroubles: one that stops rotations is critical once one of those is due soon.
func TestChecksAreTroubles(t *testing.T) {
	soon, late := status.Token{Name: "soon", Account: "a", Mounts: []string{"vault:a"}, Next: noon.Add(6 * time.Hour)}, status.Token{Name: "late", Account: "b", Mounts: []string{"vault:b"}, Next: noon.Add(6*time.Hour + time.Second)}
	for _, test := range []struct {
		check  status.Check
		tokens []status.Token
		want   status.Severity
	}{
		{status.Check{Name: status.CheckVault, Stops: true}, []status.Token{late}, status.Warning},
		{status.Check{Name: status.CheckVault, Stops: true}, []status.Token{late, soon}, status.Critical},
		{status.Check{Name: status.CheckCloudflare, Subject: "b", Stops: true}, []status.Token{late, soon}, status.Warning},
		{status.Check{Name: status.CheckCloudflare, Subject: "a", Stops: true}, []status.Token{late, soon}, status.Critical},
		{status.Check{Name: status.CheckDiskSpace}, []status.Token{soon}, status.Warning},
		{status.Check{Name: status.CheckSink, Subject: "vault:a", Stops: true}, []status.Token{late, soon}, status.Critical},
		{status.Check{Name: status.CheckSink, Subject: "vault:b", Stops: true}, []status.Token{late, soon}, status.Warning},
		{status.Check{Name: status.CheckVault, Stops: true}, nil, status.Warning},
	} {
		test.check.Since = noon.Add(-time.Minute)
		if all := status.Troubles(test.tokens, []status.Check{test.check}, noon); len(all) != 1 || all[0].Severity != test.want || all[0].Kind != "check" || all[0].Check.Name != test.check.Name {
			t.Errorf("%+v: %+v", test.check, all)
		}
	}
	if all := status.Troubles([]status.Token{soon}, []status.Check{{Name: status.CheckVault, Stops: true, Since: noon.Add(-59 * time.Second)}}, noon); all[0].Severity != status.Warning {
		t.Errorf("a fault of seconds: %+v", all)
	}
	for _, name := range status.CheckNames {
		all := status.Troubles(nil, []status.Check{{Name: name, Detail: "it is broken"}}, noon)
		if len(all) != 1 || all[0].ToDo == "" || strings.Contains(all[0].Line(noon), "_") {
			t.Errorf("%s: %+v", name, all)
		}
		if runbook := all[0].Runbook; !isSection(t, runbook) {
			t.Errorf("%s leads to %s, which is not there", name, runbook)
		}
	}
}

// TestMendSink: what to do about a sink fits its kind and what is wrong with it.
func TestMendSink(t *testing.T) {
	for _, test := range []struct{ subject, reason, want string }{
		{"file:/var/lib/ci", "no_space", "make room on the disk of /var/lib/ci"},
		{"file:/var/lib/ci", "no_permission", "what is wrong with the file or its directory"},
		{"file:/var/lib/ci", "hangs", "does not answer in time"},
		{"vault:secret", "refused", "what the policy lacks"},
		{"vault:secret", "server_error", "what is wrong with it"},
	} {
		c := status.Check{Name: status.CheckSink, Subject: test.subject, Reason: test.reason, Stops: true}
		if got := status.Troubles(nil, []status.Check{c}, noon)[0].ToDo; !strings.Contains(got, "until its sink can be written: ") || !strings.HasSuffix(got, test.want) && !strings.Contains(got, test.want+":") {
			t.Errorf("%s, %s: %s", test.subject, test.reason, got)
		}
	}
}

// TestRotateOverOutside: our own grace is of a secret that is dead since others rotated the token, so it is overridden.
func TestRotateOverOutside(t *testing.T) {
	token := status.Token{Name: "ci", Outside: noon, GraceEnd: noon.Add(time.Second)}
	for now, want := range map[time.Time]string{noon: "rotatord rotate ci --override-grace gives", noon.Add(time.Second): "rotatord rotate ci gives"} {
		if got := status.Troubles([]status.Token{token}, nil, now)[0].ToDo; !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", now, got)
		}
	}
}

// TestManyTokensAreOneLine: the same trouble of a whole fleet does not fill the screen.
func TestManyTokensAreOneLine(t *testing.T) {
	var tokens []status.Token
	for _, name := range []string{"f", "e", "d", "c", "b", "a"} {
		tokens = append(tokens, status.Token{Name: name, Outside: noon.Add(-time.Hour)})
	}
	line := status.Troubles(tokens, nil, noon)[0].Line(noon)
	if want := "6 tokens (a, b, c, d and 2 more): rotated by others: the secrets in their sinks are dead, or will be when the graces that they gave them end (since 2026-03-01 11:00:00 UTC, 1 h 0 min ago)"; line != want {
		t.Errorf("%s\nwant\n%s", line, want)
	}
	for kind, token := range inTrouble {
		one, two := token, token
		one.Name, two.Name = "a", "b"
		for _, trouble := range status.Troubles([]status.Token{one, two}, nil, noon) {
			if line := trouble.Line(noon); regexp.MustCompile(`\bits\b`).MatchString(line) {
				t.Errorf("%s: the line is about two tokens: %s", kind, line)
			}
		}
	}
	if line := status.Troubles(tokens[:2], nil, noon)[0].Line(noon); !strings.HasPrefix(line, "e, f: ") {
		t.Error(line)
	}
}

// isSection reports whether a page of docs has a section.
func isSection(t *testing.T, place string) bool {
	t.Helper()
	page, anchor, _ := strings.Cut(place, "#")
	text, err := os.ReadFile("../../" + page)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range regexp.MustCompile(`(?m)^##+ (.*)$`).FindAllStringSubmatch(string(text), -1) {
		if strings.EqualFold(strings.NewReplacer(" ", "-", "`", "").Replace(h[1]), anchor) {
			return true
		}
	}
	return false
}

// TestReplicaTroublesLeadToTheRunbook: each kind of trouble of replicas names a section that is there.
func TestReplicaTroublesLeadToTheRunbook(t *testing.T) {
	for _, r := range []status.Replicas{
		{Name: "a"},
		{Name: "a", SyncedAt: noon, Replicas: []status.Replica{{Name: "a", Living: true, StandsAside: "its clock is wrong"}, {Name: "b"}}},
	} {
		all := status.AllTroubles(nil, nil, &r, noon)
		if len(all) == 0 {
			t.Errorf("no trouble: %+v", r)
		}
		for _, trouble := range all {
			if !isSection(t, trouble.Runbook) {
				t.Errorf("%s leads to %q, which is not there", trouble.Kind, trouble.Runbook)
			}
		}
	}
}
