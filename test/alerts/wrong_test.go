package alerts

import (
	"strings"
	"testing"
	"time"
)

// TestWrong: what a receiver was told decides whether an alert is good.
func TestWrong(t *testing.T) {
	t.Parallel()
	provoked := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	mended := provoked.Add(time.Minute)
	at := func(after time.Duration, status, labels string) call {
		c := call{at: provoked.Add(after), Status: status, Labels: map[string]string{"alertname": "RotatordTokenGone", "job": "gone", "token": "gone"},
			Annotations: map[string]string{"runbook_url": "https://example.com/runbook.md#rotatordtokengone", "summary": "gone is gone.", "description": "It was deleted."}}
		switch name, value, _ := strings.Cut(labels, "="); name {
		case "":
		case "summary":
			c.Annotations[name] = "The token " + value
		default:
			c.Labels[name] = value
		}
		return c
	}
	good := []call{at(10*time.Second, "firing", ""), at(70*time.Second, "resolved", "")}
	for name, test := range map[string]struct {
		calls []call
		want  string
	}{
		"good":                 {good, ""},
		"later than cleared":   {append(good[:2:2], at(80*time.Second, "firing", "")), ""},
		"before the failure":   {append(good[:2:2], at(-time.Second, "firing", "")), ""},
		"another place":        {append(good[:2:2], at(11*time.Second, "firing", "job=other")), ""},
		"nothing":              {nil, "did not fire"},
		"not cleared":          {good[:1], "did not clear"},
		"cleared too early":    {[]call{good[0], at(20*time.Second, "resolved", "")}, "did not clear"},
		"fired again":          {[]call{good[0], at(20*time.Second, "resolved", ""), at(30*time.Second, "firing", ""), good[1]}, "fired 2 times"},
		"no label":             {[]call{at(10*time.Second, "firing", "summary= is gone."), good[1]}, "something is missing"},
		"one for each replica": {[]call{good[0], at(11*time.Second, "firing", "instance=b"), good[1]}, "as several alerts"},
	} {
		f := &fault{what: "it is deleted", alerts: []string{"RotatordTokenGone"}, token: "gone", provoked: provoked, mended: mended}
		f.place = &place{design: design{name: "gone"}}
		s := &stage{fault: f, alert: "RotatordTokenGone"}
		for n := range test.calls { // as they come
			s.update(test.calls[:n+1])
		}
		got := strings.Join(s.wrong(), "; ")
		if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}
