package scheduler_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"rotatord/internal/racedetector"
	"rotatord/internal/scheduler"
)

// zones are those that schedules are held against ISC cron in, with how often their clocks
// are set from 2015 until 2036. Their files are in testdata, so that the table, which is
// made by another program, and these tests go by the same rules on every machine.
var zones = map[string]int{
	"Africa/Casablanca":   51,
	"America/New_York":    42,
	"America/Santiago":    40,
	"America/Sao_Paulo":   9,
	"Asia/Kathmandu":      0,
	"Asia/Tehran":         16,
	"Australia/Lord_Howe": 42,
	"Europe/Berlin":       42,
	"Pacific/Chatham":     42,
	"UTC":                 0,
}

func loadZone(t testing.TB, name string) *time.Location {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata/isc/zoneinfo", filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	zone, err := time.LoadLocationFromTZData(name, data)
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

// A table is slots.txt, whose head explains it.
type table struct {
	madeWith map[string]string // file: SHA-256
	zones    map[string]*iscZone
}

type iscZone struct {
	changes     []change
	expressions []iscSlots
}

type change struct {
	at            time.Time
	before, after int // minutes ahead of UTC
}

type iscSlots struct {
	expression string
	count      int
	sum        string
	around     [][]int64 // each change
}

// The table holds the slots from iscBegin until iscEnd.
var (
	iscBegin = time.Date(2015, time.January, 1, 0, 0, 0, 0, time.UTC)
	iscEnd   = time.Date(2036, time.January, 1, 0, 0, 0, 0, time.UTC)
)

// around is how far from a change the table lists each slot.
const around = 36 * time.Hour

func readTable(t *testing.T) table {
	t.Helper()
	data, err := os.ReadFile("testdata/isc/slots.txt")
	if err != nil {
		t.Fatal(err)
	}
	all := table{make(map[string]string), make(map[string]*iscZone)}
	zone := &iscZone{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		words := strings.Fields(lines.Text())
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		switch words[0] {
		case "with":
			all.madeWith[words[1]] = words[2]
		case "zone":
			zone = &iscZone{}
			all.zones[words[1]] = zone
		case "set":
			zone.changes = append(zone.changes, change{minute(t, words[1]), number(t, words[2]), number(t, words[3])})
		case "cron":
			zone.expressions = append(zone.expressions,
				iscSlots{expression: strings.Join(words[3:], " "), count: number(t, words[1]), sum: words[2]})
		default:
			set := minute(t, words[0])
			last := &zone.expressions[len(zone.expressions)-1]
			if of := zone.changes[len(last.around)].at; !of.Equal(set) {
				t.Fatalf("slots.txt:%d: slots around %s, want those around %s", n, set, of)
			}
			last.around = append(last.around, expand(t, set, words[1:]))
		}
	}
	return all
}

// expand reads minutes from set on, in which A+D*N stands for N of them that begin with A and
// are D apart. It returns Unix seconds.
func expand(t *testing.T, set time.Time, words []string) []int64 {
	t.Helper()
	slots := []int64{}
	for _, word := range words {
		first, rest, _ := strings.Cut(word, "+")
		apart, n, ok := strings.Cut(rest, "*")
		if !ok {
			apart, n = "0", "1"
		}
		for i := range number(t, n) {
			slots = append(slots, set.Unix()+60*int64(number(t, first)+i*number(t, apart)))
		}
	}
	return slots
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func minute(t *testing.T, s string) time.Time {
	t.Helper()
	v, err := time.Parse("2006-01-02T15:04Z", s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestISCTable holds that the table is whole, and made with the files beside it.
func TestISCTable(t *testing.T) {
	all := readTable(t)
	files := []string{"generate.py"}
	for name := range zones {
		files = append(files, "zoneinfo/"+name)
	}
	if got := slices.Sorted(maps.Keys(all.madeWith)); !slices.Equal(got, slices.Sorted(slices.Values(files))) {
		t.Errorf("made with %q", got)
	}
	for file, sum := range all.madeWith {
		data, err := os.ReadFile(filepath.Join("testdata/isc", filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprintf("%x", sha256.Sum256(data)) != sum {
			t.Errorf("%s is not what slots.txt was made with: run generate.py", file)
		}
	}
	if len(all.zones) != 10 {
		t.Errorf("%d zones, want 10", len(all.zones))
	}
	listed := 0
	for name, want := range zones {
		zone := all.zones[name]
		if zone == nil {
			t.Errorf("%s is missing", name)
			continue
		}
		if len(zone.changes) != want {
			t.Errorf("the clocks of %s are set %d times, want %d", name, len(zone.changes), want)
		}
		for _, set := range zone.changes {
			for at, want := range map[time.Time]int{set.at.Add(-1): set.before, set.at: set.after} {
				if _, ahead := at.In(loadZone(t, name)).Zone(); ahead != want*60 {
					t.Errorf("clocks in %s are %ds ahead at %s, want %dm", name, ahead, at, want)
				}
			}
		}
		if len(zone.expressions) != 48 {
			t.Errorf("%s: %d expressions, want 48", name, len(zone.expressions))
		}
		for _, e := range zone.expressions {
			if len(e.around) != want || e.count < 5 {
				t.Errorf("%s, %s: %d slots, those around %d changes are listed; want %d", name, e.expression, e.count, len(e.around), want)
			}
			for _, slots := range e.around {
				listed += len(slots)
			}
		}
	}
	if listed < 100_000 {
		t.Errorf("only %d slots are listed", listed)
	}
}

// TestISC holds slots against those of ISC cron, which another program computed from its
// rules: every one in 21 years, for 48 expressions in ten zones. -short goes to three zones,
// and it and the race detector look at frequent slots only where clocks are set.
func TestISC(t *testing.T) {
	for name, zone := range readTable(t).zones {
		if testing.Short() && name != "Europe/Berlin" && name != "Australia/Lord_Howe" && name != "America/Sao_Paulo" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			location := loadZone(t, name)
			for _, want := range zone.expressions {
				schedule, err := scheduler.Parse(want.expression, location)
				if err != nil {
					t.Fatal(err)
				}
				difference := compareAround(schedule, zone.changes, want.around)
				if frequent := want.count > 6000; difference == "" && !(frequent && (testing.Short() || racedetector.On)) {
					difference = compareAll(schedule, want)
				}
				if difference != "" {
					t.Errorf("%s: %s", want.expression, difference)
				}
			}
		})
	}
}

// compareAround returns what is first different where clocks are set, or nothing.
func compareAround(schedule *scheduler.Schedule, changes []change, want [][]int64) string {
	show := func(slots []int64, i int) string {
		if i == len(slots) {
			return "none"
		}
		return time.Unix(slots[i], 0).In(schedule.Location()).Format("2006-01-02 15:04:05 -07:00")
	}
	for i, set := range changes {
		got, want := []int64{}, want[i]
		for slot := schedule.Next(set.at.Add(-around - 1)); len(got) <= len(want); slot = schedule.Next(slot) {
			if slot.IsZero() || !slot.Before(set.at.Add(around)) || !slot.Before(iscEnd) {
				break
			}
			got = append(got, slot.Unix())
		}
		for i := 0; i < len(got) || i < len(want); i++ {
			if i == len(got) || i == len(want) || got[i] != want[i] {
				return fmt.Sprintf("where clocks are set from %s to %s, the slot is %s, want %s", set.at.In(time.FixedZone("", set.before*60)).Format("15:04"),
					set.at.In(schedule.Location()).Format("15:04"), show(got, i), show(want, i))
			}
		}
	}
	return ""
}

// compareAll returns how the slots of all years differ, or nothing.
func compareAll(schedule *scheduler.Schedule, want iscSlots) string {
	n, sum := 0, sha256.New()
	var line []byte
	for slot := schedule.Next(iscBegin.Add(-1)); !slot.IsZero() && slot.Before(iscEnd) && n <= want.count; slot = schedule.Next(slot) {
		line = append(strconv.AppendInt(line[:0], slot.Unix(), 10), '\n')
		sum.Write(line)
		n++
	}
	if got := fmt.Sprintf("%x", sum.Sum(nil)); n != want.count || got != want.sum {
		return fmt.Sprintf("%d slots with the sum %s; want %d, %s; all are right where clocks are set", n, got, want.count, want.sum)
	}
	return ""
}

// TestEveryIsElapsedTime holds that @every takes no notice of clocks that are set.
func TestEveryIsElapsedTime(t *testing.T) {
	for name, zone := range readTable(t).zones {
		for _, period := range []time.Duration{time.Minute, 90 * time.Minute, 24 * time.Hour} {
			schedule, err := scheduler.Parse("@every "+period.String(), loadZone(t, name))
			if err != nil {
				t.Fatal(err)
			}
			for _, set := range zone.changes {
				for slot := set.at.Add(-3*time.Hour + 7*time.Second); slot.Before(set.at.Add(3 * time.Hour)); {
					next := schedule.Next(slot)
					if next.Sub(slot) != period {
						t.Fatalf("%s, @every %s after %s: %s", name, period, slot, next)
					}
					slot = next
				}
			}
		}
	}
}
