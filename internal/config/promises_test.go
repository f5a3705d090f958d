package config_test

import (
	"regexp"
	"strings"
	"testing"

	"rotatord/internal/config"
	"rotatord/internal/scheduler"
)

// section is a part of the reference, from its heading to the next one.
func section(t *testing.T, heading string) string {
	t.Helper()
	_, rest, found := strings.Cut(string(read(t, referencePath)), "\n"+heading+"\n")
	if !found {
		t.Fatalf("the reference has no %s", heading)
	}
	text, _, _ := strings.Cut(rest, "\n#")
	return text
}

// TestReferenceCredentials checks each row of the table of what a credential may look like against
// contents of that description.
func TestReferenceCredentials(t *testing.T) {
	const key = "cfk_AAAAAAAAAAAAAAAA"
	examples := map[string][]string{
		"Line ends (also Windows')": {"x\n", "x\r\n", " x\n\n"},
		"A byte order mark":         {"\ufeffx", "\xff\xfex\x00", "x\x00", "x\xff", "x\x1bx", "x\u200bx"},
		"Quotes around it":          {`"x"`, "Bearer x", "Authorization: x", "NAME=x", "export NAME=x", "token: x"},
		"JSON":                      {`{"token": "x"}`, `{"wrap_info": {}}`, "-----BEGIN CERTIFICATE-----\nx", "<html>", "age-encryption.org/v1\nx", "${TOKEN}"},
		"Two lines or more":         {"x\nx", strings.Repeat("x", 16<<10+1)},
		"A space or a character":    {"x x", "ä"},
		"Another credential":        {key, "cfast_x", "hvs.x", "AGE-SECRET-KEY-1X", "023e105f4ecef8ad9ca31a8372d0c353"},
	}
	rows := regexp.MustCompile(`(?m)^\| (.+) \| (dropped|refused) \|$`).FindAllStringSubmatch(section(t, "### What a credential may look like"), -1)
	if len(rows) != len(examples) {
		t.Errorf("%d rows, want %d", len(rows), len(examples))
	}
	for _, row := range rows {
		tried := 0
		for begins, contents := range examples {
			for _, content := range contents {
				if !strings.HasPrefix(row[1], begins) {
					continue
				}
				tried++
				if _, err := readAs(t, config.APIToken, content); (err == nil) != (row[2] == "dropped") {
					t.Errorf("%s: %q: %v", row[1], content, err)
				}
			}
		}
		if tried == 0 {
			t.Errorf("no example of %s", row[1])
		}
	}
	for kind, content := range map[config.SecretKind]string{
		config.AgeIdentity: "# a comment\n" + identity, config.RoleID: "a name ä", config.SecretID: "a name ä", config.GlobalKey: key,
	} {
		if _, err := readAs(t, kind, content); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	for _, token := range []string{"cfut_x", "cfat_x"} {
		if _, err := readAs(t, config.GlobalKey, token); err == nil {
			t.Errorf("%s is taken for a key", token)
		}
	}
}

// TestReferenceSchedules checks what the reference says of cron fields.
func TestReferenceSchedules(t *testing.T) {
	text := section(t, "### Schedules")
	parsed := func(expression string) *scheduler.Schedule {
		t.Helper()
		s, err := scheduler.Parse(expression, nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, field := range []string{"5-7", "FRI-SUN"} {
		if !strings.Contains(text, "`"+field+"`") {
			t.Errorf("%s is not there", field)
		}
		got, want := parsed("0 4 13 * "+field).EitherDay(), parsed("0 4 13 * 5,6,0").EitherDay()
		if got != want || !strings.HasSuffix(got, "Friday to Sunday") {
			t.Errorf("%s: %s, want %s", field, got, want)
		}
	}
	if _, err := scheduler.Parse("0 4 * * SAT-MON", nil); err == nil || !strings.HasSuffix(err.Error(), "write SAT-SUN,MON") || !strings.Contains(text, "`SAT-MON` is `SAT-SUN,MON`") {
		t.Errorf("SAT-MON: %v", err)
	}
	if words := parsed("0 4 1 * 1").EitherDay(); !strings.Contains(text, "`0 4 1 * 1` comes "+words+",") {
		t.Errorf("it does not say %q", words)
	}
	if parsed("0 4 */2 * 1").EitherDay() == "" || !strings.Contains(text, "(`*/2`)") {
		t.Error("a step does not restrict")
	}
	for _, other := range []string{"L", "W", "#", "H"} {
		if _, err := scheduler.Parse("0 4 "+other+" * *", nil); err == nil || !strings.Contains(text, "`"+other+"`") {
			t.Errorf("%s: %v", other, err)
		}
	}
}
