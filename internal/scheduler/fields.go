package scheduler

import (
	"math/bits"
	"time"

	"github.com/robfig/cron/v3"
)

// fields are those of a cron expression, each the set of its values, as robfig/cron parses
// them. robfig/cron itself steps through readings minute by minute and hour by hour, which
// was a third of what scheduling cost; this goes to the next value of a field at once.
type fields struct {
	minute, hour, dom, month, dow uint64
	eitherDay                     bool // one of dom and dow is enough, since neither was *
}

// star marks a field that is *.
const star = 1 << 63

func fieldsOf(s *cron.SpecSchedule) *fields {
	return &fields{
		minute: s.Minute &^ star, hour: s.Hour &^ star, dom: s.Dom &^ star, month: s.Month &^ star, dow: s.Dow &^ star,
		eitherDay: s.Dom&star == 0 && s.Dow&star == 0,
	}
}

// next returns the first reading after r that matches, or the zero time if none does in the
// next five years.
func (f *fields) next(r time.Time) time.Time {
	limit := r.Year() + 5
	for r = r.Truncate(time.Minute).Add(time.Minute); r.Year() <= limit; {
		year, month, day := r.Date()
		hour, minute, _ := r.Clock()
		switch h := from(f.hour, hour); {
		case f.month>>month&1 == 0:
			r = time.Date(year, month+1, 1, 0, 0, 0, 0, time.UTC)
		case !f.day(day, r.Weekday()) || h > 23:
			r = time.Date(year, month, day+1, 0, 0, 0, 0, time.UTC)
		case h > hour:
			r = time.Date(year, month, day, h, 0, 0, 0, time.UTC)
		default:
			m := from(f.minute, minute)
			if m < 60 {
				return r.Add(time.Duration(m-minute) * time.Minute)
			}
			r = r.Add(time.Duration(60-minute) * time.Minute)
		}
	}
	return time.Time{}
}

func (f *fields) day(day int, weekday time.Weekday) bool {
	dom, dow := f.dom>>day&1 == 1, f.dow>>weekday&1 == 1
	return dom && dow || f.eitherDay && (dom || dow)
}

// from returns the smallest member of set from n on, 64 if there is none.
func from(set uint64, n int) int { return bits.TrailingZeros64(set &^ (1<<n - 1)) }
