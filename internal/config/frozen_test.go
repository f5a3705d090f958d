package config_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/config"
)

// TestBlocked checks which freezes cause a warning because nothing is rotated for two months.
func TestBlocked(t *testing.T) {
	for _, test := range []struct {
		name              string
		schedule, freezes string
		want              []string
	}{
		{"a weekend", "0 4 * * *", "x: {schedule: 0 18 * * 5, duration: 62h, slots: skip}", nil},
		{"60 days", "0 4 * * *", "x: {from: 2026-12-01 04:00, to: 2027-01-30 04:00}", nil},
		{"a second more", "0 4 * * *", "x: {from: 2026-12-01 04:00, to: 2027-01-30 04:00:01}",
			[]string{"1:14: freezes.x: no slot of 0 4 * * * is served from 2026-12-01 04:00:00Z to 2027-01-30 04:00:01Z, 60 days, because of " +
				"the freeze x (from 2026-12-01 04:00:00Z to 2027-01-30 04:00:01Z): shorten it, or except the token from x (except_freezes)"}},
		{"long, but over", "0 4 * * *", "x: {from: 2025-01-01, to: 2026-01-01}", nil},
		{"far ahead", "0 4 * * *", "x: {from: 2031-06-01, to: 2031-09-01, time_zone: Europe/Berlin}",
			[]string{"1:14: freezes.x: no slot of 0 4 * * * is served from 2031-06-01 04:00:00Z to 2031-08-31 22:00:00Z, 91 days, because of " +
				"the freeze x (from 2031-06-01 00:00:00+02:00 to 2031-09-01 00:00:00+02:00): shorten it, or except the token from x (except_freezes)"}},
		{"one slot of a rare schedule is deferred", "0 4 1 1 *", "x: {from: 2026-12-20, to: 2027-01-04}", nil},
		{"one slot of a rare schedule is passed over", "0 4 1 1 *", "x: {from: 2026-12-20, to: 2027-01-04, slots: skip}",
			[]string{"1:14: freezes.x: no slot of 0 4 1 1 * is served from 2027-01-01 04:00:00Z to 2028-01-01 04:00:00Z, 365 days, because of the freeze x " +
				"(from 2026-12-20 00:00:00Z to 2027-01-04 00:00:00Z): write slots: defer, or shorten it, or except the token from x (except_freezes)"}},
		{"every summer", "0 4 * * *", "x: {schedule: 0 0 1 6 *, duration: 2208h}",
			[]string{"1:14: freezes.x: no slot of 0 4 * * * is served from 2026-06-01 04:00:00Z to 2026-09-01 00:00:00Z, 91 days, because of " +
				"the freeze x (2208h from each 0 0 1 6 *, UTC): shorten it, or except the token from x (except_freezes)"}},
		{"two together", "0 4 * * *", "a: {schedule: 0 0 * * 6, duration: 48h}, x: {from: 2027-01-02 03:00, to: 2027-02-15}, y: {from: 2027-02-14, to: 2027-03-13 01:00}",
			[]string{"1:100: freezes.y: no slot of 0 4 * * * is served from 2027-01-02 04:00:00Z to 2027-03-15 00:00:00Z, 71 days, because of " +
				"the freezes x (from 2027-01-02 03:00:00Z to 2027-02-15 00:00:00Z) and y (from 2027-02-14 00:00:00Z to 2027-03-13 01:00:00Z): " +
				"shorten one of them, or except the token from x (except_freezes)"}},
		{"few Fridays are the first of a month", "0 4 1 * *", "x: {schedule: 0 0 * * 6, duration: 140h, slots: skip}",
			[]string{"1:14: freezes.x: no slot of 0 4 1 * * is served from 2026-01-01 04:00:00Z to 2026-05-01 04:00:00Z, 120 days, because of the freeze x " +
				"(140h from each 0 0 * * 6, UTC): write slots: defer, or shorten it, or except the token from x (except_freezes)"}},
		{"@every that a freeze blocks", "@every 24h", "x: {from: 2027-01-01, to: 2027-04-01}",
			[]string{"1:14: freezes.x: no slot of @every 24h may be served from 2027-01-01 00:00:00Z to 2027-04-01 00:00:00Z, 90 days, because of " +
				"the freeze x (from 2027-01-01 00:00:00Z to 2027-04-01 00:00:00Z): shorten it, or except the token from x (except_freezes)"}},
		{"passed over for long, and it would last as long", "0 4 * * *", "x: {from: 2026-12-01, to: 2027-03-01, slots: skip}",
			[]string{"1:14: freezes.x: no slot of 0 4 * * * is served from 2026-12-01 04:00:00Z to 2027-03-01 04:00:00Z, 90 days, because of " +
				"the freeze x (from 2026-12-01 00:00:00Z to 2027-03-01 00:00:00Z): shorten it, or except the token from x (except_freezes)"}},
		{"@every that stays in a freeze", "@every 24h", "x: {schedule: 0 4 * * *, duration: 1h, slots: skip}",
			[]string{"1:14: freezes.x: a slot of @every 24h that falls into the freeze x (1h from each 0 4 * * *, UTC) is followed by none outside of it, " +
				"and is never served: write slots: defer, or write a schedule of five cron fields that lie outside of it, or except the token from x (except_freezes)"}},
		{"@every that a freeze defers", "@every 24h", "x: {schedule: 0 4 * * *, duration: 1h}", nil},
		{"@every that moves on", "@every 25h", "x: {schedule: 0 4 * * *, duration: 1h, slots: skip}", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			head, rest, _ := strings.Cut(minimal, `"@weekly"`)
			cfg := parse(t, "freezes: {"+test.freezes+"}\ndefaults: {schedule: \""+test.schedule+"\", grace: 1h}\n"+
				strings.TrimSuffix(head, "    schedule: ")+strings.TrimPrefix(rest, "\n"))
			if diff := cmp.Diff(test.want, lines(cfg.Warnings)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestBlockedIsSaidOnce checks that many tokens with one schedule and the same freezes have one
// warning, and that of tokens with something of their own each has one.
func TestBlockedIsSaidOnce(t *testing.T) {
	var text strings.Builder
	head, _, _ := strings.Cut(minimal, "tokens:")
	text.WriteString("freezes: {x: {from: 2027-01-01, to: 2027-04-01}}\ndefaults: {account: prod, schedule: \"@weekly\"}\n" + head + "tokens:\n")
	for i, own := range []string{"", "", "", "schedule: 0 4 * * 1", "time_zone: Asia/Tokyo", "freezes: {y: {from: 2028-01-01, to: 2028-04-01}}", "except_freezes: [x]"} {
		fmt.Fprintf(&text, "  t%d:\n    id: 3f2b8a52-1d0e-4c3c-9a54-7d0c0f6f2b1%d\n    sinks: [{vault: {mount: secret, path: t%d}}]\n    %s\n", i, i, i, own)
	}
	var paths []string
	for _, w := range parse(t, text.String()).Warnings {
		paths = append(paths, w.Path)
	}
	if diff := cmp.Diff([]string{"freezes.x", "tokens.t3.schedule", "tokens.t4.time_zone"}, paths); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestTimeBetweenFreezes checks that the linter knows how slots that wait for the end of a
// freeze are spread: where it finds nothing to say, each slot of each token is served, and
// what it refuses would keep some from it.
func TestTimeBetweenFreezes(t *testing.T) {
	for _, test := range []struct {
		schedule, jitter, lasts string
		fits                    bool
	}{
		{"0 4 * * *", "0", "23h49m", true},
		{"0 4 * * *", "0", "23h50m", true},
		{"0 4 * * *", "0", "23h51m", false},
		{"0 4 * * *", "1h", "23h", true},
		{"0 4 * * *", "1h", "23h10m", false},
		{"*/20 * * * *", "0", "23h55m", true}, // a quarter of 20 minutes
		{"*/20 * * * *", "0", "23h56m", false},
		{"@every 10m", "9m", "23h57m30s", true},
		{"@every 10m", "9m", "23h58m", false},
	} {
		text := "freezes: {x: {schedule: 0 0 * * *, duration: " + test.lasts + "}}\n" +
			replaced(t, `"@weekly"`, `"`+test.schedule+"\"\n    grace: 0\n    jitter: "+test.jitter)
		_, err := config.Parse("test.yaml", []byte(text))
		if (err == nil) != test.fits {
			t.Errorf("%+v: %v", test, err)
		}
		base := parse(t, replaced(t, `"@weekly"`, `"`+test.schedule+"\"\n    grace: 0\n    jitter: "+test.jitter)).Tokens[0]
		lasts, _ := time.ParseDuration(test.lasts)
		base.Freezes = parse(t, "freezes: {x: {schedule: 0 0 * * *, duration: 1h}}\n"+minimal).Tokens[0].Freezes
		base.Freezes[0].Duration = lasts
		lost := false
		for i := 0; i < 60 && !lost; i++ {
			base.Name = fmt.Sprint("token-", i)
			table := base.Timetable()
			lost = table.Next(at(t, "2026-11-24T03:00:00Z")).Slot.IsZero()
		}
		if lost == test.fits {
			t.Errorf("%+v: a slot is never served: %t", test, lost)
		}
	}
}
