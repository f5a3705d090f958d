package scheduler

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// units are those that people write, in the units of this program.
var units = map[string]time.Duration{
	"w": 168 * time.Hour, "week": 168 * time.Hour, "weeks": 168 * time.Hour,
	"d": 24 * time.Hour, "day": 24 * time.Hour, "days": 24 * time.Hour,
	"h": time.Hour, "hr": time.Hour, "hrs": time.Hour, "hour": time.Hour, "hours": time.Hour,
	"m": time.Minute, "min": time.Minute, "mins": time.Minute, "minute": time.Minute, "minutes": time.Minute,
	"s": time.Second, "sec": time.Second, "secs": time.Second, "second": time.Second, "seconds": time.Second,
}

var (
	quantities = regexp.MustCompile(`^(?:\d+ ?[a-z]+ ?)+$`)
	quantity   = regexp.MustCompile(`(\d+) ?([a-z]+)`)
	isoPeriod  = regexp.MustCompile(`^p(\d+w)?(\d+d)?(?:t(\d+h)?(\d+m)?(\d+s)?)?$`)
	onlyDigits = regexp.MustCompile(`^\d+$`)
	lastNumber = regexp.MustCompile(`^(?:\d+h)?\d+([hm])\d+$`)
	timeOfDay  = regexp.MustCompile(`^(\d{1,4}):([0-5]\d)(?::([0-5]\d))?$`)
)

// DurationHint says how to write a duration that [time.ParseDuration] does not take: 24h for 1d,
// and a choice for 30, which has no unit. It is empty if what was meant cannot be told.
func DurationHint(text string) string {
	word := strings.ToLower(strings.TrimSpace(text))
	switch {
	case onlyDigits.MatchString(word) && len(word) < 10:
		return fmt.Sprintf("%ss, %sm or %sh", word, word, word)
	case lastNumber.MatchString(word):
		after := map[string]string{"h": "m", "m": "s"}
		return word + after[lastNumber.FindStringSubmatch(word)[1]]
	}
	if d, err := time.ParseDuration(strings.ReplaceAll(word, ",", ".")); err == nil && d > 0 {
		return shortDuration(d) // 24H, 1,5h
	}
	var parts []string
	switch {
	case quantities.MatchString(word):
		parts = quantity.FindAllString(word, -1)
	case isoPeriod.MatchString(word):
		parts = isoPeriod.FindStringSubmatch(word)[1:]
	case timeOfDay.MatchString(word):
		parts = timeOfDay.FindStringSubmatch(word)[1:]
		for i, unit := range []string{"h", "m", "s"} {
			if parts[i] != "" {
				parts[i] += unit
			}
		}
	}
	var sum time.Duration
	for _, part := range parts {
		found := quantity.FindStringSubmatch(part)
		if found == nil {
			continue
		}
		n, err := strconv.Atoi(found[1])
		unit, known := units[found[2]]
		if err != nil || !known || n > 1_000_000 {
			return ""
		}
		sum += time.Duration(n) * unit
	}
	if sum <= 0 {
		return ""
	}
	return shortDuration(sum)
}

// shortDuration leaves out what is zero.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
