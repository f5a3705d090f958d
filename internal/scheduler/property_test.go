package scheduler_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rotatord/internal/scheduler"
)

// An expression is drawn as text and, independently of any parser, as the numbers that its
// fields stand for.
type expression struct {
	text       string
	fields     [5]map[int]bool // minute, hour, day of month, month, day of week
	onTheClock bool
	either     bool // one of its two kinds of days is enough
}

func (e expression) String() string { return e.text }

var drawExpression = rapid.Custom(func(t *rapid.T) expression {
	var e expression
	var texts [5]string
	for i, limits := range [5][2]int{{0, 59}, {0, 23}, {1, 31}, {1, 12}, {0, 6}} {
		texts[i], e.fields[i] = drawField(t, limits[0], limits[1], i > 1)
	}
	e.text = strings.Join(texts[:], " ")
	e.onTheClock = texts[0][0] == '*' || texts[1][0] == '*'
	isAny := func(field string) bool { return slices.Contains(strings.Split(field, ","), "*") }
	e.either = !isAny(texts[2]) && !isAny(texts[4])
	return e
})

func drawField(t *rapid.T, low, high int, mostlyAll bool) (string, map[int]bool) {
	set := make(map[int]bool)
	add := func(first, last, step int) {
		for n := first; n <= last; n += step {
			set[n] = true
		}
	}
	if mostlyAll && rapid.IntRange(0, 3).Draw(t, "all") > 0 {
		add(low, high, 1)
		return "*", set
	}
	var parts []string
	for range rapid.SampledFrom([]int{1, 1, 1, 2, 3}).Draw(t, "parts") {
		first := rapid.IntRange(low, high).Draw(t, "first")
		if high == 23 && rapid.Bool().Draw(t, "where clocks are set") {
			first = rapid.SampledFrom([]int{0, 1, 2, 3, 23}).Draw(t, "hour")
		}
		last := rapid.IntRange(first, high).Draw(t, "last")
		step := rapid.IntRange(1, high+1).Draw(t, "step")
		switch rapid.IntRange(0, 5).Draw(t, "kind") {
		case 0:
			parts = append(parts, "*")
			add(low, high, 1)
		case 1:
			parts = append(parts, fmt.Sprintf("*/%d", step+1))
			add(low, high, step+1)
		case 2:
			parts = append(parts, fmt.Sprintf("%d-%d", first, last))
			add(first, last, 1)
		case 3:
			parts = append(parts, fmt.Sprintf("%d-%d/%d", first, last, step))
			add(first, last, step)
		default:
			parts = append(parts, fmt.Sprint(first))
			set[first] = true
		}
	}
	return strings.Join(parts, ","), set
}

// describes reports whether a clock shows a time that the expression means.
func (e expression) describes(shown time.Time) bool {
	day, weekday := e.fields[2][shown.Day()], e.fields[4][int(shown.Weekday())]
	return e.fields[0][shown.Minute()] && e.fields[1][shown.Hour()] && e.fields[3][int(shown.Month())] &&
		(day && weekday || e.either && (day || weekday))
}

// clock is what clocks in a zone show at t, as a time in UTC.
func clock(t time.Time, zone *time.Location) time.Time {
	t = t.In(zone)
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// isSlot decides about a minute only by what the clocks show at it and in the hours before:
// in none of the zones are they set by more than three.
func (e expression) isSlot(minute time.Time, zone *time.Location) bool {
	shown := clock(minute, zone)
	if e.onTheClock {
		return e.describes(shown)
	}
	before := clock(minute.Add(-time.Minute), zone)
	for left := before.Add(time.Minute); left.Before(shown); left = left.Add(time.Minute) {
		if e.describes(left) {
			return true
		}
	}
	if !e.describes(shown) {
		return false
	}
	for ago := 15 * time.Minute; ago <= 3*time.Hour; ago += 15 * time.Minute {
		if clock(minute.Add(-ago), zone).Equal(shown) {
			return false
		}
	}
	return true
}

// TestNextIsTheNextSlot draws expressions, zones and moments from 2000 until 2060, most of
// them where clocks are set, and looks at all minutes until the next slot, or two days.
func TestNextIsTheNextSlot(t *testing.T) {
	names := slices.Sorted(maps.Keys(zones))
	locations := make(map[string]*time.Location)
	for _, name := range names {
		locations[name] = loadZone(t, name)
	}
	from, until := at(t, "2000-01-01T00:00:00Z"), at(t, "2060-01-01T00:00:00Z")
	found, near := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		e := drawExpression.Draw(t, "expression")
		zone := locations[rapid.SampledFrom(names).Draw(t, "zone")]
		schedule, err := scheduler.Parse(e.text, zone)
		if err != nil {
			if strings.Contains(err.Error(), "never comes") {
				t.Skip()
			}
			t.Fatal(err)
		}
		for range 8 {
			moment := from.Add(time.Duration(rapid.Int64Range(0, int64(until.Sub(from))-1).Draw(t, "moment")))
			if _, set := moment.In(zone).ZoneBounds(); !set.IsZero() && rapid.IntRange(0, 3).Draw(t, "anywhere") > 0 {
				moment = set.Add(time.Duration(rapid.Int64Range(-int64(6*time.Hour), int64(6*time.Hour)).Draw(t, "away")))
			}
			for range 3 {
				next := schedule.Next(moment)
				if far, err := e.checkNext(schedule, moment, next); err != nil {
					t.Fatalf("after %s: %s, %v", moment.In(zone), next, err)
				} else if found++; !far {
					near++
				}
				between := moment.Add(time.Duration(rapid.Int64Range(0, int64(next.Sub(moment))-1).Draw(t, "between")))
				for _, between := range []time.Time{between, next.Add(-1)} {
					if again := schedule.Next(between); !again.Equal(next) {
						t.Fatalf("after %s: %s, but after %s: %s", moment.In(zone), next, between.In(zone), again)
					}
				}
				moment = next
			}
		}
	})
	if near < found/2 {
		t.Errorf("of %d slots only %d were near enough to look at all minutes before", found, near)
	}
}

// checkNext holds next against all minutes since moment, and says that it is far if these are
// those of the first two days only.
func (e expression) checkNext(schedule *scheduler.Schedule, moment, next time.Time) (far bool, err error) {
	zone := schedule.Location()
	if !next.After(moment) {
		return false, errors.New("which is not after it")
	}
	if !next.Equal(next.Truncate(time.Minute)) || !e.isSlot(next, zone) {
		return false, errors.New("which is not a slot")
	}
	minute := moment.Truncate(time.Minute).Add(time.Minute)
	for ; minute.Before(next); minute = minute.Add(time.Minute) {
		if minute.Sub(moment) > 48*time.Hour {
			return true, nil
		}
		if e.isSlot(minute, zone) {
			return false, fmt.Errorf("but %s is a slot", minute.In(zone))
		}
	}
	return false, nil
}
