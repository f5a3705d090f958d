package scheduler

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// This file reads cron expressions before the parser does: it says in an operator's words what
// is wrong with one, and writes Sunday, which is 7 or the end of a range in most crontabs, as
// the parser takes it.

// cronField is one of the five.
type cronField struct {
	name     string
	min, max int
	names    []string // of its values from min on
	values   string   // for messages
}

var cronFields = [...]cronField{
	{"minute", 0, 59, nil, "minutes are 0 to 59"},
	{"hour", 0, 23, nil, "hours are 0 to 23, and midnight is 0"},
	{"day-of-month", 1, 31, nil, "days of the month are 1 to 31"},
	{"month", 1, 12, []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"},
		"months are 1 to 12 or JAN to DEC"},
	{"day-of-week", 0, 7, []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"},
		"days of the week are 0 to 7 or SUN to SAT, and Sunday is 0, 7 or SUN"},
}

const (
	fieldNames = "minute hour day-of-month month day-of-week"
	dayOfWeek  = 4
	sunday     = 7 // at the end of a week; 0 at its beginning
)

// item is what each part of a field's list may look like. The parser takes more than it
// understands: "*-5" is * to it, "+5" is 5, and it overlooks that a list has nothing in it.
var item = regexp.MustCompile(`^([*?]|(\w+)(?:-(\w+))?)(/\d+)?$`)

// descriptors are what the parser knows by one word, without @every.
var descriptors = []string{"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"}

// readable returns an expression of five fields as the parser takes it, or says what is wrong.
func readable(expression string) (string, error) {
	fields := strings.Fields(expression)
	if problem := otherSyntax(expression, fields); problem != "" {
		return "", fmt.Errorf("%q is neither five cron fields (%s) nor a descriptor such as @weekly or @every 720h: %s", expression, fieldNames, problem)
	}
	for i, text := range fields {
		parts := strings.Split(text, ",")
		for j, part := range parts {
			written, problem := cronFields[i].read(part)
			if problem != "" {
				return "", fmt.Errorf("%q is not five cron fields (%s): %s: %s", expression, fieldNames, cronFields[i].name, problem)
			}
			parts[j] = written
		}
		fields[i] = strings.Join(parts, ",")
	}
	return strings.Join(fields, " "), nil
}

// read checks one part of a list and returns it as the parser takes it.
func (f cronField) read(part string) (written, problem string) {
	found := item.FindStringSubmatch(part)
	if found == nil {
		return "", f.strange(part)
	}
	step := 1
	if found[4] != "" {
		n, err := strconv.Atoi(found[4][1:])
		if err != nil || n == 0 {
			return "", fmt.Sprintf("the step in %q must be 1 or more", part)
		}
		step = n
	}
	if found[2] == "" { // * or ?
		return part, ""
	}
	first, problem := f.value(found[2])
	if problem != "" {
		return "", problem
	}
	last, isRange := first, found[3] != ""
	if isRange {
		if last, problem = f.value(found[3]); problem != "" {
			return "", problem
		}
		if f.max == sunday && last == 0 && first > 0 && strings.EqualFold(found[3], "sun") {
			last = sunday
		}
	}
	switch {
	case last < first:
		return "", f.backwards(part, found[2], found[3], step)
	case f.max != sunday || last < sunday:
		return part, ""
	case !isRange && found[4] != "":
		return "", fmt.Sprintf("%q has a step and no range: write a range such as 1-7/2, or the day alone", part)
	}
	var days []string // 7 is 0 to the parser
	for day := first; day <= last; day += step {
		days = append(days, strconv.Itoa(day%sunday))
	}
	return strings.Join(days, ","), ""
}

// value returns the number that a word stands for.
func (f cronField) value(word string) (n int, problem string) {
	if i := slices.Index(f.names, strings.ToLower(word)); i >= 0 {
		return f.min + i, ""
	}
	n, err := strconv.Atoi(word)
	switch {
	case err == nil && n >= f.min && n <= f.max:
		return n, ""
	case errors.Is(err, strconv.ErrRange), err == nil:
		return 0, fmt.Sprintf("%q is out of range: %s", word, f.values)
	}
	return 0, f.strange(word)
}

// quartz are signs of the expressions of Quartz, Spring and AWS.
var quartz = regexp.MustCompile(`(?i)^(\d*L|L-\d+|\d+W|LW|L|\w+L|\w+#\d)$`)

// strange says what is wrong with a part of a field that is neither a number nor a name nor a range.
func (f cronField) strange(part string) string {
	if i := strings.IndexFunc(part, func(c rune) bool { return c > unicode.MaxASCII }); i >= 0 {
		return fmt.Sprintf("%q has a character that only looks like one of cron's: type *, - and the digits again", part)
	}
	for i, name := range f.names { // MONDAY
		long := time.Weekday(i).String()
		if f.min == 1 {
			long = time.Month(i + 1).String()
		}
		if word := strings.ToLower(part); len(word) > 3 && strings.HasPrefix(strings.ToLower(long)+"s", word) {
			return fmt.Sprintf("%q is not a name that cron knows: write %s or %d", part, strings.ToUpper(name), f.min+i)
		}
	}
	switch {
	case part == "":
		return "a list has an empty part: remove the comma that is too much"
	case strings.EqualFold(part, "H"), strings.HasPrefix(part, "H/"), strings.HasPrefix(part, "H("):
		return fmt.Sprintf("%q is Jenkins's, which spreads jobs: write a number, and set jitter, which spreads rotations", part)
	case strings.Contains(part, "~"):
		return fmt.Sprintf("%q is a random time: write a number, and set jitter, which spreads rotations", part)
	case quartz.MatchString(part) && f.names != nil || quartz.MatchString(part) && f.max == 31:
		return fmt.Sprintf("%q is of Quartz or Spring (L, W and # for the last or the nth day), which cron does not have: %s", part, f.values)
	case strings.Contains(part, ":"):
		return fmt.Sprintf("%q is a time of day: cron has the minute first and then the hour, so 04:30 is \"30 4 * * *\"", part)
	}
	return fmt.Sprintf("%q is neither * nor a number, a name or a range of them: %s", part, f.values)
}

// backwards says how to write a range that goes over the end, such as 22-2 or SAT-MON.
func (f cronField) backwards(part, first, last string, step int) string {
	if step != 1 {
		return fmt.Sprintf("the range %q runs backwards: write its values one by one, with commas", part)
	}
	highest, lowest := strconv.Itoa(f.max), strconv.Itoa(f.min)
	if f.max == sunday {
		highest, lowest = "SUN", "MON"
		if _, err := strconv.Atoi(first); err == nil {
			highest, lowest = "7", "1"
		}
	}
	join := func(a, b string) string {
		n, _ := f.value(a)
		if m, _ := f.value(b); n == m {
			return a
		}
		return a + "-" + b
	}
	return fmt.Sprintf("the range %q runs backwards: write %s,%s", part, join(first, highest), join(lowest, last))
}

// otherSyntax says what an expression is that has not five fields; empty if it has.
func otherSyntax(expression string, fields []string) string {
	word := strings.ToLower(fields[0])
	switch {
	case strings.HasPrefix(word, "cron("), strings.HasPrefix(word, "rate("):
		return "that is of AWS EventBridge: write the five fields alone, such as 0 4 * * 1 (there, Sunday is 1)"
	case strings.Contains(expression, "*-*"), !strings.Contains(expression, "*") && strings.Contains(expression, ":"):
		return "that is a calendar event of systemd or a time of day: Mon *-*-* 04:00 is 0 4 * * 1 here, with the minute first"
	case len(fields) == len(cronFields):
		return ""
	case len(fields) == 1 && slices.Contains(descriptors, "@"+word):
		return "write @" + word
	case len(fields) > 1 && word == "every", strings.HasPrefix(word, "every"):
		return "write @every with a duration, such as @every 720h"
	case strings.Contains(expression, ", "), strings.Contains(expression, " ,"), strings.Contains(expression, " -"), strings.Contains(expression, "- "):
		return "a list or a range has no spaces in it: write 1,3 or 1-3"
	case len(fields) == 6 || len(fields) == 7:
		return seconds(fields)
	}
	return fmt.Sprintf("it has %d of them, separated by spaces", len(fields))
}

// seconds says what to leave out of six or seven fields.
func seconds(fields []string) string {
	problem := fmt.Sprintf("it has %d fields, and there are none for seconds and years here", len(fields))
	five := strings.Join(fields[1:6], " ")
	if _, err := readable(five); err != nil || fields[0] != "0" && fields[0] != "*" {
		return problem
	}
	problem += fmt.Sprintf(": without them it is %q", five)
	if strings.ContainsAny(fields[5], "0123456789") {
		problem += " (Quartz counts days of the week from Sunday as 1, cron as 0)"
	}
	return problem
}

// unknownDescriptor says what is wrong with a word that begins with @.
func unknownDescriptor(expression string) error {
	word := strings.ToLower(expression)
	if slices.Contains(descriptors, word) {
		return fmt.Errorf("%q must be in lower case: write %s", expression, word)
	}
	return fmt.Errorf("%q is none of the descriptors: they are @hourly, @daily, @weekly, @monthly, @yearly, and @every with a duration, such as @every 720h; "+
		"or write five cron fields (%s)", expression, fieldNames)
}
