package secret_test

import (
	"strings"
	"testing"

	"rotatord/internal/secret"
)

// The credentials are made up, and put together here so that no scanner takes them for real ones.
const random40 = "Ab3dEf6hIj9kLm2nOp5qRs8tUv1wXy4zAb7cDe0f"

func TestScrubTakesCredentialsOut(t *testing.T) {
	for name, s := range map[string]string{
		"an API token of an account":      "cfat_" + random40 + "0a1b2c3d",
		"an API token of a user":          "cfut_" + random40 + "0a1b2c3d",
		"a global API key":                "cfk_" + random40 + "0a1b2c3d",
		"one that was cut off":            "cfut_" + random40[:20],
		"one with dashes":                 "cfat_" + random40[:18] + "-_" + random40[18:],
		"a service token of Vault":        "hvs." + random40 + random40,
		"a short one":                     "hvs." + random40[:24],
		"a batch token":                   "hvb." + random40 + "-_" + random40,
		"a recovery token":                "hvr." + random40,
		"an older service token":          "s." + random40[:24],
		"an older recovery token":         "r." + random40[:24],
		"an older batch token":            "b.AAAAAQ" + random40 + "-_",
		"an identity of age":              "AGE-SECRET-KEY-1" + strings.ToUpper(random40) + "QQQQQQQQ",
		"one in lower case":               strings.ToLower("AGE-SECRET-KEY-1" + random40 + "QQQQQQQQ"),
		"one of the post-quantum kind":    "AGE-SECRET-KEY-PQ-1" + strings.ToUpper(random40) + "QQQQQQQQ",
		"a client secret":                 canary,
		"a client secret of the old kind": strings.Repeat("0123456789abcdef", 4),
	} {
		for _, around := range [][2]string{{"", ""}, {"before ", " after"}, {"Bearer ", "."}, {`{"token":"`, `"}`}, {"token=", "&x=1"}, {"(", ")"}, {"\n", "\n"}} {
			if got, want := secret.Scrub(around[0]+s+around[1]), around[0]+secret.Redacted+around[1]; got != want {
				t.Errorf("%s: %q became %q, want %q", name, around[0]+s+around[1], got, want)
			}
		}
	}
	// The namespace of an older token stays: it is not a secret.
	if got := secret.Scrub("s." + random40[:24] + ".dYgGw"); got != secret.Redacted+".dYgGw" {
		t.Errorf("with a namespace: %q", got)
	}
	two := "hvs." + random40 + " cfat_" + random40
	if got := secret.Scrub(two); got != secret.Redacted+" "+secret.Redacted {
		t.Errorf("two of them: %q", got)
	}
}

func TestScrubLeavesWordsAlone(t *testing.T) {
	for _, s := range []string{
		"", "s.", "hvs.", "cfat_", "the tokens.And then a sentence",
		"reading secret/data/access/ci: Vault denied permission",
		"no such host: hvs.kubernetes-cluster-prod-eu1.internal.example.com",
		"hvs.ALL-UPPER-CASE-NAME-OF-A-HOST",
		"cfk_some_very_long_metric_name_that_goes_on_total",
		"cfut_ABBREVIATIONS_IN_UPPER_CASE_ONLY",
		"s.abcdefghijklmnopqrstuvwx", "parts.AbcdefghijklmnopqrstuvWx", "s.AbcdefghijklmnopqrstuvWxyz",
		"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p", // a recipient is public
		"AGE-SECRET-KEY-1", "AGE-SECRET-KEY-file",
		"sha256:_dbuXZhU" + random40, "f174e90a-fafe-4643-bbbc-4a0ed4fc8415", "023e105f4ecef8ad9ca31a8372d0c353",
		"https://developers.cloudflare.com/fundamentals/api/troubleshooting/", "CF-Ray 8f2c1b7e9d3a4c5b-FRA",
	} {
		if got := secret.Scrub(s); got != s {
			t.Errorf("%q became %q", s, got)
		}
	}
}
