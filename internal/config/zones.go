package config

import (
	"context"
	"errors"
	"path"
	"regexp"
	"strings"
	"time"
	"unicode"

	"rotatord/internal/smallfile"
)

// zone returns the zone of that name, or reports it and returns nil.
func (c *checker) zone(where, name string) *time.Location {
	zone, err := loadZone(name)
	switch {
	case strings.EqualFold(name, "Local"):
		c.wrong(where, "Local would change with the host: write the zone's name, such as Europe/Berlin or UTC")
	case errors.Is(err, smallfile.ErrHangs):
		c.wrong(where, "%v", err)
	case err != nil:
		c.wrong(where, "%q is not a known time zone: %s", name, zoneHint(name))
	default:
		if warning := fixedZones[name]; warning != "" {
			c.warn(where, "%s", warning)
		} else if found := etcZone.FindStringSubmatch(name); found != nil {
			sign := "-"
			if found[1] == "-" {
				sign = "+"
			}
			c.warn(where, "%s is UTC%s%s all year, since the sign is the other way round there, without daylight saving: write a name such as Europe/Berlin, if that is not meant",
				name, sign, found[2])
		}
		return zone
	}
	return nil
}

// loadZone reads a zone from the system's files, or whatever ZONEINFO names.
func loadZone(name string) (zone *time.Location, err error) {
	err = smallfile.Within(context.Background(), "the time zone "+name, func() (err error) {
		zone, err = time.LoadLocation(name)
		return err
	})
	return zone, err
}

var (
	etcZone    = regexp.MustCompile(`^Etc/GMT([+-])(\d+)$`)
	zoneOffset = regexp.MustCompile(`^(?i:utc|gmt|z)? ?([+-]) ?(\d{1,2})(?::?(\d\d))?$`)
)

// fixedZones are names that work and may not be what was meant.
var fixedZones = map[string]string{
	"EST": "EST is 5 hours behind UTC all year, without daylight saving: write America/New_York, if that is not meant",
	"MST": "MST is 7 hours behind UTC all year, without daylight saving: write America/Denver, if that is not meant",
	"HST": "HST is 10 hours behind UTC all year, the same as Pacific/Honolulu: write that",
}

// abbreviations are what clocks are called in a zone, and not its name.
var abbreviations = map[string]string{
	"Z": "UTC", "CEST": "Europe/Berlin", "MEZ": "Europe/Berlin", "MESZ": "Europe/Berlin", "BST": "Europe/London", "EEST": "Europe/Helsinki", "MSK": "Europe/Moscow",
	"EDT": "America/New_York", "ET": "America/New_York", "CST": "America/Chicago", "CDT": "America/Chicago", "MDT": "America/Denver", "PST": "America/Los_Angeles",
	"PDT": "America/Los_Angeles", "PT": "America/Los_Angeles", "IST": "Asia/Kolkata, Europe/Dublin or Asia/Jerusalem", "JST": "Asia/Tokyo", "SGT": "Asia/Singapore",
	"AEST": "Australia/Sydney", "AEDT": "Australia/Sydney", "NZST": "Pacific/Auckland", "NZDT": "Pacific/Auckland",
}

// zoneHint says what to write in place of a name that is not known.
func zoneHint(name string) string {
	const general = "write a name such as Europe/Berlin or UTC"
	if meant, known := abbreviations[strings.ToUpper(name)]; known {
		return "write " + meant
	}
	if zoneOffset.MatchString(name) {
		return "an offset has no daylight saving; write the name of a place, such as Europe/Berlin, or UTC"
	}
	if strings.HasSuffix(strings.ToLower(name), "standard time") {
		return "that is a name of Windows; " + general
	}
	if len(name) > 40 {
		return general
	}
	plain := strings.Trim(path.Clean(strings.NewReplacer(`\`, "/", " ", "_").Replace(name)), "/_")
	if at := strings.LastIndex(plain, "zoneinfo/"); at >= 0 {
		plain = plain[at+len("zoneinfo/"):]
	}
	candidates := []string{plain, capitals(plain), strings.ToUpper(plain)}
	if !strings.Contains(plain, "/") {
		for _, area := range []string{"Europe", "America", "Asia", "Africa", "Australia", "Pacific", "Atlantic", "Indian"} {
			candidates = append(candidates, area+"/"+capitals(plain))
		}
	}
	for _, candidate := range candidates {
		if zone, err := loadZone(candidate); err == nil && candidate != "" && zone != time.Local {
			return "write " + candidate
		}
	}
	return general
}

// capitals writes each word of a name as the database does: america/new_york as America/New_York.
func capitals(name string) string {
	first := true
	return strings.Map(func(c rune) rune {
		defer func() { first = c == '/' || c == '_' || c == '-' }()
		if first {
			return unicode.ToUpper(c)
		}
		return unicode.ToLower(c)
	}, name)
}
