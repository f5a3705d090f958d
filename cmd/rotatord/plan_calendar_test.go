package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	ics "github.com/arran4/golang-ical"
	"github.com/google/go-cmp/cmp"

	"rotatord/internal/config"
	"rotatord/internal/forecast"
	"rotatord/internal/scheduler"
)

// parseCalendar reads iCalendar as RFC 5545 has it and nothing more: the calendar's own properties come
// first, then those of each event. It is not the library's parser, which may err with its writer.
func parseCalendar(t *testing.T, b []byte) (all []map[string]string) {
	t.Helper()
	if !utf8.Valid(b) {
		t.Error("it is not UTF-8")
	}
	text, ok := strings.CutSuffix(string(b), "\r\n")
	if !ok || strings.Contains(strings.ReplaceAll(text, "\r\n", ""), "\n") {
		t.Fatal("not every line ends with CR and LF")
	}
	for line := range strings.SplitSeq(text, "\r\n") {
		if len(line) > 75 || !utf8.ValidString(line) {
			t.Errorf("%d octets, or a character that was cut: %q", len(line), line)
		}
	}
	unescape := strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\,`, ",", `\;`, ";")
	var open []string
	for line := range strings.SplitSeq(strings.ReplaceAll(text, "\r\n ", ""), "\r\n") {
		name, value, ok := strings.Cut(line, ":")
		switch {
		case !ok:
			t.Fatalf("no property: %q", line)
		case name == "BEGIN":
			open, all = append(open, value), append(all, map[string]string{"": value})
			continue
		case name == "END":
			if len(open) == 0 || open[len(open)-1] != value {
				t.Fatalf("%q ends within %q", value, open)
			}
			open = open[:len(open)-1]
			continue
		}
		if _, twice := all[len(all)-1][name]; twice {
			t.Errorf("%s stands twice in one component", name)
		}
		all[len(all)-1][name] = unescape.Replace(value)
	}
	if len(open) > 0 {
		t.Errorf("%q do not end", open)
	}
	return all
}

func calendarOf(t *testing.T, tokens []config.Token, r forecast.Range) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := writeCalendar(&b, &config.Config{Tokens: tokens}, forecastFor(t, tokens, r), r); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestCalendar(t *testing.T) {
	// No configuration has such names; the format must still accept them.
	name := "a,b;c\\d:e \"f\" " + strings.Repeat("Schlüssel→🔑", 12) + "\nnext"
	freeze := scheduler.Freeze{Name: "größe, " + strings.Repeat("ü", 60), From: at(2, 0), To: at(2, 10)}
	token := planToken(t, func(c *config.Token) {
		c.Name, c.Grace, c.Window, c.Freezes = name, time.Hour, 2*time.Hour, []scheduler.Freeze{freeze}
	})
	b := calendarOf(t, []config.Token{*token}, forecast.Range{Now: noon, Until: at(3, 12)})
	all := parseCalendar(t, b)
	if len(all) != 4 {
		t.Fatalf("%d components, want the calendar, two rotations and a freeze:\n%s", len(all), b)
	}
	if diff := cmp.Diff(map[string]string{
		"": "VCALENDAR", "VERSION": "2.0", "PRODID": "-//rotatord//plan//EN", "METHOD": "PUBLISH",
		"NAME": "Service token rotations", "X-WR-CALNAME": "Service token rotations",
		"X-WR-CALDESC":                    "When rotatord rotates the client secrets of Cloudflare Access service tokens",
		"REFRESH-INTERVAL;VALUE=DURATION": "PT6H", "X-PUBLISHED-TTL": "PT6H",
	}, all[0]); diff != "" {
		t.Errorf("the calendar (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{
		"": "VEVENT", "UID": planTokenID + "-20270603T040000Z@rotatord", "DTSTAMP": "20270601T120000Z",
		"DTSTART": "20270603T040000Z", "DTEND": "20270603T040100Z", "SUMMARY": "Rotate " + name, "TRANSP": "TRANSPARENT",
		"DESCRIPTION": "Schedule: 0 4 * * *, time zone UTC\nSlot: Thu 2027-06-03 04:00:00 +00:00\n" +
			"Latest start: 2027-06-03 06:00:00 UTC\nThe previous secret works until: 2027-06-03 05:00:00 UTC",
	}, all[2]); diff != "" {
		t.Errorf("the second rotation (-want +got):\n%s", diff)
	}
	if !strings.HasSuffix(all[1]["DESCRIPTION"], "\nWarning: it waits 6h8m for the end of the freeze "+freeze.Name) {
		t.Errorf("the first rotation does not say what deferred it: %q", all[1]["DESCRIPTION"])
	}
	if got := all[3]; got["SUMMARY"] != "No rotations: "+freeze.Name || got["DTSTART"] != "20270602T000000Z" || got["DTEND"] != "20270602T100000Z" ||
		got["TRANSP"] != "TRANSPARENT" || got["DESCRIPTION"] != "Tokens: all\nSlots in it are served when it ends." {
		t.Errorf("the freeze: %q", got)
	}
	// The library's own parser reads the same.
	parsed, err := ics.ParseCalendar(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for i, event := range parsed.Events() {
		if got := event.GetProperty(ics.ComponentPropertySummary).Value; got != all[i+1]["SUMMARY"] {
			t.Errorf("the library reads %q, want %q", got, all[i+1]["SUMMARY"])
		}
	}
}

// TestCalendarIsUpdated holds that an event stays the same one when its time changes, that
// nothing but the time of writing differs if nothing has changed, and that no two are one.
func TestCalendarIsUpdated(t *testing.T) {
	ids := func(all []map[string]string) map[string]string {
		starts := map[string]string{}
		for _, event := range all[1:] {
			if _, twice := starts[event["UID"]]; twice {
				t.Errorf("two events have the UID %s", event["UID"])
			}
			starts[event["UID"]] = event["DTSTART"]
		}
		return starts
	}
	weekend := scheduler.Freeze{Name: "weekend", Schedule: parsed(t, "0 18 * * 5"), Duration: 55 * time.Hour}
	mine := scheduler.Freeze{Name: "mine", From: at(2, 0), To: at(2, 10)}
	theirs := scheduler.Freeze{Name: "mine", From: at(2, 0), To: at(2, 11)} // another of the same name
	one := *planToken(t, func(c *config.Token) { c.Freezes = []scheduler.Freeze{weekend, mine} })
	two := *planToken(t, func(c *config.Token) {
		c.Name, c.ID, c.Freezes = "cd", "5eed0000-0000-4000-8000-000000000001", []scheduler.Freeze{weekend, theirs}
	})
	r := forecast.Range{Now: noon, Until: at(15, 0)}
	first := calendarOf(t, []config.Token{one, two}, r)
	before := ids(parseCalendar(t, first))
	freezes := 0
	for id := range before {
		if strings.HasPrefix(id, "freeze-") {
			freezes++
		}
	}
	if freezes != 4 { // two weekends for both, and one of each token
		t.Errorf("%d freezes, want 4: %q", freezes, before)
	}

	r.Now = noon.Add(time.Minute)
	second := calendarOf(t, []config.Token{one, two}, r)
	if diff := cmp.Diff(strings.ReplaceAll(string(first), "20270601T120000Z", "20270601T120100Z"), string(second)); diff != "" {
		t.Errorf("a minute later (-want +got):\n%s", diff)
	}

	one.Freezes = []scheduler.Freeze{weekend, {Name: "mine", From: at(2, 0), To: at(2, 12)}}
	after := ids(parseCalendar(t, calendarOf(t, []config.Token{one, two}, r)))
	slot := planTokenID + "-20270602T040000Z@rotatord"
	if before[slot] == after[slot] || after[slot] == "" {
		t.Errorf("the slot that a longer freeze puts off was at %q and is at %q, want the same event at another time", before[slot], after[slot])
	}
}

// TestCalendarNamesFew holds that a freeze of many tokens does not name them all.
func TestCalendarNamesFew(t *testing.T) {
	weekend := []scheduler.Freeze{{Name: "weekend", Schedule: parsed(t, "0 18 * * 5"), Duration: 55 * time.Hour, Skip: true}}
	var tokens []config.Token
	for i := range 9 {
		c := *planToken(t, func(c *config.Token) {
			c.Name, c.ID = fmt.Sprintf("t%d", i), fmt.Sprintf("5eed0000-0000-4000-8000-%012d", i)
		})
		if i > 0 {
			c.Freezes = weekend
		}
		tokens = append(tokens, c)
	}
	all := parseCalendar(t, calendarOf(t, tokens, forecast.Range{Now: noon, Until: at(5, 0)}))
	want := "Tokens: t1, t2, t3, t4, t5 and 3 more\nSlots in it are skipped."
	if got := all[len(all)-1]["DESCRIPTION"]; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestCalendarIsReplacedWhole holds that what was there is left alone when writing fails.
func TestCalendarIsReplacedWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "r.ics")
	if err := os.WriteFile(path, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &config.Config{Tokens: []config.Token{*planToken(t, func(c *config.Token) {
		c.Freezes = []scheduler.Freeze{{Name: "hourly", Schedule: parsed(t, "0 * * * *"), Duration: time.Minute}}
	})}}
	endless := forecast.Range{Now: noon, Until: noon.AddDate(100, 0, 0)} // more freezes than a calendar may have
	if err := saveCalendar(path, c, nil, endless); err == nil || !isUsage(err) {
		t.Errorf("a hundred years of hourly freezes: %v", err)
	}
	if b, err := os.ReadFile(path); string(b) != "before" {
		t.Errorf("there is %q: %v", b, err)
	}
	if err := saveCalendar(path, c, nil, forecast.Range{Now: noon, Until: noon}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil || len(parseCalendar(t, b)) < 1 {
		t.Errorf("there is %q: %v", b, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
		t.Errorf("its mode is %v: %v", info.Mode(), err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
