package scheduler_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rotatord/internal/scheduler"
)

const noFields = `" is neither five cron fields (minute hour day-of-month month day-of-week) nor a descriptor such as @weekly or @every 720h: `

// TestExpressionFaults holds that whatever people write in place of five cron fields is answered
// with what to write.
func TestExpressionFaults(t *testing.T) {
	const wrong = `" is not five cron fields (minute hour day-of-month month day-of-week): `
	for expression, want := range map[string]string{
		"* * * *":           noFields + "it has 4 of them, separated by spaces",
		"nonsense":          noFields + "it has 1 of them, separated by spaces",
		"0 0 4 * * 1":       noFields + `it has 6 fields, and there are none for seconds and years here: without them it is "0 4 * * 1" (Quartz counts days of the week from Sunday as 1, cron as 0)`,
		"0 0 4 ? * MON":     noFields + `it has 6 fields, and there are none for seconds and years here: without them it is "0 4 ? * MON"`,
		"0 0 4 ? * MON *":   noFields + `it has 7 fields, and there are none for seconds and years here: without them it is "0 4 ? * MON"`,
		"15 0 4 * * 1":      noFields + "it has 6 fields, and there are none for seconds and years here",
		"0 4 * * 1 2026":    noFields + "it has 6 fields, and there are none for seconds and years here",
		"0 4 * * 1, 3":      noFields + "a list or a range has no spaces in it: write 1,3 or 1-3",
		"0 4 * * 1 - 3":     noFields + "a list or a range has no spaces in it: write 1,3 or 1-3",
		"cron(0 4 * * ? *)": noFields + "that is of AWS EventBridge: write the five fields alone, such as 0 4 * * 1 (there, Sunday is 1)",
		"rate(7 days)":      noFields + "that is of AWS EventBridge: write the five fields alone, such as 0 4 * * 1 (there, Sunday is 1)",
		"Mon *-*-* 04:00":   noFields + "that is a calendar event of systemd or a time of day: Mon *-*-* 04:00 is 0 4 * * 1 here, with the minute first",
		"*-*-01 04:00:00":   noFields + "that is a calendar event of systemd or a time of day: Mon *-*-* 04:00 is 0 4 * * 1 here, with the minute first",
		"Sun 04:00":         noFields + "that is a calendar event of systemd or a time of day: Mon *-*-* 04:00 is 0 4 * * 1 here, with the minute first",
		"24:00":             noFields + "that is a calendar event of systemd or a time of day: Mon *-*-* 04:00 is 0 4 * * 1 here, with the minute first",
		"weekly":            noFields + "write @weekly",
		"Daily":             noFields + "write @daily",
		"every 720h":        noFields + "write @every with a duration, such as @every 720h",

		"60 4 * * *":                   wrong + `minute: "60" is out of range: minutes are 0 to 59`,
		"0 24 * * *":                   wrong + `hour: "24" is out of range: hours are 0 to 23, and midnight is 0`,
		"0 24:00 * * *":                wrong + `hour: "24:00" is a time of day: cron has the minute first and then the hour, so 04:30 is "30 4 * * *"`,
		"0 4 0 * *":                    wrong + `day-of-month: "0" is out of range: days of the month are 1 to 31`,
		"0 4 32 * *":                   wrong + `day-of-month: "32" is out of range: days of the month are 1 to 31`,
		"0 4 * 13 *":                   wrong + `month: "13" is out of range: months are 1 to 12 or JAN to DEC`,
		"0 4 * 0 *":                    wrong + `month: "0" is out of range: months are 1 to 12 or JAN to DEC`,
		"0 4 * * 8":                    wrong + `day-of-week: "8" is out of range: days of the week are 0 to 7 or SUN to SAT, and Sunday is 0, 7 or SUN`,
		"0 99999999999999999999 * * *": wrong + `hour: "99999999999999999999" is out of range: hours are 0 to 23, and midnight is 0`,
		"0 4 * * 0-8":                  wrong + `day-of-week: "8" is out of range: days of the week are 0 to 7 or SUN to SAT, and Sunday is 0, 7 or SUN`,
		"0 4 * * MONDAY":               wrong + `day-of-week: "MONDAY" is not a name that cron knows: write MON or 1`,
		"0 4 * * mon-friday":           wrong + `day-of-week: "friday" is not a name that cron knows: write FRI or 5`,
		"0 4 * june *":                 wrong + `month: "june" is not a name that cron knows: write JUN or 6`,
		"0 4 * * SAT-MON":              wrong + `day-of-week: the range "SAT-MON" runs backwards: write SAT-SUN,MON`,
		"0 4 * * FRI-TUE":              wrong + `day-of-week: the range "FRI-TUE" runs backwards: write FRI-SUN,MON-TUE`,
		"0 4 * * 6-2":                  wrong + `day-of-week: the range "6-2" runs backwards: write 6-7,1-2`,
		"0 4 * * 7-2":                  wrong + `day-of-week: the range "7-2" runs backwards: write 7,1-2`,
		"0 22-2 * * *":                 wrong + `hour: the range "22-2" runs backwards: write 22-23,0-2`,
		"0 4 * nov-feb *":              wrong + `month: the range "nov-feb" runs backwards: write nov-12,1-feb`,
		"0 22-2/2 * * *":               wrong + `hour: the range "22-2/2" runs backwards: write its values one by one, with commas`,
		"*/0 * * * *":                  wrong + `minute: the step in "*/0" must be 1 or more`,
		"0 4 * * 7/2":                  wrong + `day-of-week: "7/2" has a step and no range: write a range such as 1-7/2, or the day alone`,
		"H 4 * * *":                    wrong + `minute: "H" is Jenkins's, which spreads jobs: write a number, and set jitter, which spreads rotations`,
		"H/15 4 * * *":                 wrong + `minute: "H" is Jenkins's, which spreads jobs: write a number, and set jitter, which spreads rotations`,
		"H(0-29) 4 * * *":              wrong + `minute: "H(0-29)" is Jenkins's, which spreads jobs: write a number, and set jitter, which spreads rotations`,
		"0~59 4 * * *":                 wrong + `minute: "0~59" is a random time: write a number, and set jitter, which spreads rotations`,
		"0 4 L * *":                    wrong + `day-of-month: "L" is of Quartz or Spring (L, W and # for the last or the nth day), which cron does not have: days of the month are 1 to 31`,
		"0 4 15W * *":                  wrong + `day-of-month: "15W" is of Quartz or Spring (L, W and # for the last or the nth day), which cron does not have: days of the month are 1 to 31`,
		"0 4 ? * 1#2":                  wrong + `day-of-week: "1#2" is of Quartz or Spring (L, W and # for the last or the nth day), which cron does not have: days of the week are 0 to 7 or SUN to SAT, and Sunday is 0, 7 or SUN`,
		"0 4 ? * FRIL":                 wrong + `day-of-week: "FRIL" is of Quartz or Spring (L, W and # for the last or the nth day), which cron does not have: days of the week are 0 to 7 or SUN to SAT, and Sunday is 0, 7 or SUN`,
		"0 4 * * 1–5":                  wrong + `day-of-week: "1–5" has a character that only looks like one of cron's: type *, - and the digits again`,
		"0 4 ＊ * 1":                    wrong + `day-of-month: "＊" has a character that only looks like one of cron's: type *, - and the digits again`,
		"0 4 * * 1,,3":                 wrong + `day-of-week: a list has an empty part: remove the comma that is too much`,
		"0 4 * * mon-":                 wrong + `day-of-week: "mon-" is neither * nor a number, a name or a range of them: days of the week are 0 to 7 or SUN to SAT, and Sunday is 0, 7 or SUN`,
	} {
		want = `"` + expression + want
		if _, err := scheduler.Parse(expression, nil); err == nil || err.Error() != want {
			t.Errorf("Parse(%q)\n got %v\nwant %s", expression, err, want)
		}
	}
	for expression, want := range map[string]string{
		"@Weekly":                         `"@Weekly" must be in lower case: write @weekly`,
		"@fortnightly":                    `"@fortnightly" is none of the descriptors: they are @hourly, @daily, @weekly, @monthly, @yearly, and @every with a duration, such as @every 720h; or write five cron fields (minute hour day-of-month month day-of-week)`,
		"@REBOOT":                         "@reboot is not accepted: a restart must never rotate",
		"@every":                          "@every wants a duration: write one behind it, such as @every 720h",
		"@every30d":                       `@every wants a duration such as 720h, not "30d": write 720h`,
		"@every720h":                      "a space is missing: write @every 720h",
		"@every 720":                      `@every wants a duration such as 720h, not "720": write 720s, 720m or 720h`,
		"@every 30d":                      `@every wants a duration such as 720h, not "30d": write 720h`,
		"@every 1 day":                    `@every wants a duration such as 720h, not "1 day": write 24h`,
		"@every never":                    `@every wants a duration such as 720h, not "never"`,
		"CRON_TZ=Europe/Berlin 0 4 * * 1": `a zone inside the expression is not accepted: use time_zone (schedule: "0 4 * * 1", time_zone: "Europe/Berlin")`,
	} {
		if _, err := scheduler.Parse(expression, nil); err == nil || err.Error() != want {
			t.Errorf("Parse(%q)\n got %v\nwant %s", expression, err, want)
		}
	}
}

// TestSunday holds each way of writing days of the week with a Sunday in them against the same
// days as a list of the parser's own numbers.
func TestSunday(t *testing.T) {
	for field, want := range map[string]string{
		"7": "0", "SUN": "0", "0": "0", "00": "0", "07": "0", "5-7": "5,6,0", "FRI-SUN": "5,6,0", "fri-7": "5,6,0", "5-sun": "5,6,0", "1-7": "1,2,3,4,5,6,0",
		"0-7": "0,1,2,3,4,5,6", "7-7": "0", "SUN-SUN": "0", "0-SUN": "0", "7-SUN": "0", "SUN-7": "0,1,2,3,4,5,6", "SUN-TUE": "0,1,2", "SAT-SUN": "6,0",
		"1-7/2": "1,3,5,0", "0-7/2": "0,2,4,6", "0-7/7": "0", "1-7/3": "1,4,0", "2-7/5": "2,0", "1-7/9": "1", "MON-SUN/3": "1,4,0", "*/2": "0,2,4,6", "*/7": "0", "1/2": "1,3,5",
		"1,7": "1,0", "7,1": "0,1", "mon,sat-sun": "1,6,0", "7,sun,0": "0", "3,5-7/2,1": "3,5,0,1",
	} {
		sameDays(t, field, want)
	}
}

// TestSundayOfAnyRange does so for all ranges and steps.
func TestSundayOfAnyRange(t *testing.T) {
	names := []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun"}
	rapid.Check(t, func(t *rapid.T) {
		var parts, days []string
		for range rapid.IntRange(1, 3).Draw(t, "parts") {
			first := rapid.IntRange(0, 7).Draw(t, "first")
			last, step := rapid.IntRange(first, 7).Draw(t, "last"), rapid.IntRange(1, 8).Draw(t, "step")
			from, to := strconv.Itoa(first), strconv.Itoa(last)
			if rapid.Bool().Draw(t, "names") && first > 0 && first < 7 {
				from, to = names[first], names[last]
			}
			parts = append(parts, from+"-"+to+"/"+strconv.Itoa(step))
			for day := first; day <= last; day += step {
				days = append(days, strconv.Itoa(day%7))
			}
		}
		sameDays(t, strings.Join(parts, ","), strings.Join(days, ","))
	})
}

func sameDays(t interface {
	Errorf(format string, args ...any)
}, field, want string) {
	for _, day := range []string{"*", "13"} { // either and both
		got, err := scheduler.Parse("0 4 "+day+" * "+field, nil)
		if err != nil {
			t.Errorf("%s: %v", field, err)
			return
		}
		plain, err := scheduler.Parse("0 4 "+day+" * "+want, nil)
		if err != nil {
			t.Errorf("%s: %v", want, err)
			return
		}
		a := time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)
		for range 40 {
			next := got.Next(a)
			if other := plain.Next(a); !next.Equal(other) {
				t.Errorf("%s after %s: %s; with %s it is %s", field, a, next, want, other)
				return
			}
			a = next
		}
	}
}

// TestEitherDay holds the words for expressions that name days of the month and of the week.
func TestEitherDay(t *testing.T) {
	for expression, want := range map[string]string{
		"0 4 1 * 1":            "on the 1st of the month and also on every Monday",
		"0 4 1-7 * SUN":        "on the 1st to 7th of the month and also on every Sunday",
		"0 4 1,2,3,15 * 1-5":   "on the 1st to 3rd and 15th of the month and also on every Monday to Friday",
		"0 4 11,12,13 6,7 0,6": "on the 11th to 13th of the month and also on every Saturday and Sunday, in June and July",
		"0 4 21,22,23 * 7":     "on the 21st to 23rd of the month and also on every Sunday",
		"0 4 2,4,31 1-3,12 5":  "on the 2nd, 4th and 31st of the month and also on every Friday, in January to March and December",
		"0 4 1 * *":            "", "0 4 * * 1": "", "0 4 ? * 1": "", "@weekly": "", "@every 1h": "", "* * * * *": "",
	} {
		s, err := scheduler.Parse(expression, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.EitherDay(); got != want {
			t.Errorf("%s: %q, want %q", expression, got, want)
		}
	}
}

// TestDurationHint holds that a hint is a duration, and the one that was meant.
func TestDurationHint(t *testing.T) {
	for text, want := range map[string]string{
		"1d": "24h", "7d": "168h", "1w": "168h", "2 weeks": "336h", "1d12h": "36h", "30": "30s, 30m or 30h", "0030": "0030s, 0030m or 0030h", "1h30": "1h30m", "5m30": "5m30s", "1h5m30": "1h5m30s",
		"24H": "24h", "1H30M": "1h30m", "10 min": "10m", "1 hour 30 minutes": "1h30m", "24 hours": "24h", "90 sec": "1m30s", "1,5h": "1h30m", "PT1H": "1h", "P1D": "24h", "P1DT12H": "36h",
		"PT1H30M": "1h30m", "p1w": "168h", "01:30": "1h30m", "24:00": "24h", "1:00:30": "1h0m30s",
		"": "", "P": "", "PT": "", "soon": "", "1y": "", "1mo": "", "-1d": "", "d": "", "9999999999d": "", "99999999999999999999": "", "1d-": "", "00:00": "", "forever": "",
	} {
		got := scheduler.DurationHint(text)
		if got != want {
			t.Errorf("DurationHint(%q) = %q, want %q", text, got, want)
		}
		if _, err := time.ParseDuration(got); got != "" && !strings.Contains(got, " or ") && err != nil {
			t.Error(err)
		}
	}
}
