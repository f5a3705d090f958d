package scheduler

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// EitherDay says in words on which days an expression comes that names days of the month and days
// of the week. Cron takes either, while those who write it often mean both. It is empty for all
// other schedules.
func (s *Schedule) EitherDay() string {
	if s.fields == nil || !s.fields.eitherDay {
		return ""
	}
	dates := runs(s.fields.dom, 1, 31, ordinal)
	week := s.fields.dow | s.fields.dow&1<<sunday // which ends with Sunday
	days := runs(week, 1, sunday, func(n int) string { return time.Weekday(n % sunday).String() })
	words := fmt.Sprintf("on the %s of the month and also on every %s", and(dates), and(days))
	if s.fields.month != 1<<13-2 {
		words += ", in " + and(runs(s.fields.month, 1, 12, func(n int) string { return time.Month(n).String() }))
	}
	return words
}

// runs names the members of a set. Three or more that follow each other are one range.
func runs(set uint64, first, last int, name func(int) string) []string {
	var out []string
	for n := first; n <= last; n++ {
		if set>>n&1 == 0 {
			continue
		}
		end := n
		for end < last && set>>(end+1)&1 == 1 {
			end++
		}
		if end-n < 2 {
			out = append(out, name(n))
			continue
		}
		out = append(out, name(n)+" to "+name(end))
		n = end
	}
	return out
}

// and joins with commas and a last and.
func and(words []string) string {
	if n := len(words) - 1; n > 0 {
		return strings.Join(words[:n], ", ") + " and " + words[n]
	}
	return strings.Join(words, "")
}

func ordinal(n int) string {
	ending := "th"
	switch {
	case n%10 == 1 && n != 11:
		ending = "st"
	case n%10 == 2 && n != 12:
		ending = "nd"
	case n%10 == 3 && n != 13:
		ending = "rd"
	}
	return strconv.Itoa(n) + ending
}
