package cloudflare

import (
	"bytes"
	"compress/gzip"
	"strings"
	"testing"
	"time"

	"rotatord/internal/secret"
)

const (
	newSecret   = "cfast_0123456789abcdefghijABCDEFGHIJ0123456789deadbeef"
	otherSecret = "cfast_9876543210abcdefghijABCDEFGHIJ0123456789deadbeef"
	hexSecret   = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	ourID       = "f174e90a-fafe-4643-bbbc-4a0ed4fc8415"
	ourClient   = "ours.access"
)

// TestFindSecrets: bodies with and without a secret, and whether it is taken as ours. The shapes of
// docs/answers.md are tried with the whole protocol; these cases are about the search.
func TestFindSecrets(t *testing.T) {
	ours := func(s string) string {
		return `{"id":"` + ourID + `","client_id":"` + ourClient + `","client_secret":"` + s + `"}`
	}
	w := wanted{tokenID: ourID, clientID: ourClient}
	for name, test := range map[string]struct {
		body      string
		secret    string // empty: there is none
		clientID  string
		objection string
		others    int
	}{
		"the older format":              {`{"success":true,"result":` + ours(hexSecret) + `}`, hexSecret, ourClient, "", 0},
		"the older one alone":           {`{"client_secret":"` + hexSecret + `"}`, hexSecret, "", "does not say", 0},
		"the older one, beside another": {`{"client_id":"sso","client_secret":"` + hexSecret + `"}`, hexSecret, "sso", "", 0},
		"a digest":                      {`{"sha256":"` + hexSecret + `"}`, "", "", "", 0},
		"the older one in a query":      {`client_id=x&client_secret=` + hexSecret + `&x=1`, hexSecret, "", "does not say", 0},
		"the older one in YAML":         {"client_id: " + ourClient + "\nclient_secret: " + hexSecret + "\n", hexSecret, ourClient, "", 0},
		"a part of something longer":    {`{"x":"` + newSecret + `0"}`, "", "", "", 0},
		"its first part":                {`{"success":true,"result":{"client_secret":"` + newSecret[:30], "", "", "", 0},
		"an object in its place":        {`{"result":{"client_secret":{"value":"` + newSecret + `"}},"id":"` + ourID + `"}`, newSecret, ourClient, "", 0},
		"a list in its place":           {`{"result":{"id":"` + ourID + `","client_secret":["` + newSecret + `"]}}`, newSecret, ourClient, "", 0},
		"a number in its place":         {`{"success":true,"result":{"client_secret":7}}`, "", "", "", 0},
		"null in its place":             {`{"success":true,"result":{"client_secret":null}}`, "", "", "", 0},
		"without its beginning":         {`ient_id":"` + ourClient + `","client_secret":"` + newSecret + `"}}`, newSecret, ourClient, "", 0},
		"in an error message":           {`{"success":false,"errors":[{"message":"` + newSecret + `"}]}`, newSecret, ourClient, "does not say", 0},
		"an id in other letters":        {`{"id":"` + strings.ToUpper(ourID) + `","client_secret":"` + newSecret + `"}`, newSecret, ourClient, "", 0},
		"two, both ours":                {`[` + ours(newSecret) + `,` + ours(otherSecret) + `]`, otherSecret, ourClient, "several", 1},
		"two, one ours":                 {`{"a":{"client_id":"x","client_secret":"` + otherSecret + `"},"b":` + ours(newSecret) + `}`, newSecret, ourClient, "", 1},
		"one in result, one elsewhere":  {`{"success":true,"old":{"client_secret":"` + otherSecret + `"},"result":` + ours(newSecret) + `}`, newSecret, ourClient, "", 1},
		"a string in a string": {`{"a":"{\"b\":\"{\\\"id\\\":\\\"` + ourID + `\\\",\\\"client_secret\\\":\\\"` + newSecret + `\\\"}\"}"}`,
			newSecret, ourClient, "", 0},
	} {
		found, _ := findSecrets([]byte(test.body))
		if test.secret == "" {
			if len(found) > 0 {
				t.Errorf("%s: found %d", name, len(found))
			}
			continue
		}
		if len(found) == 0 {
			t.Errorf("%s: nothing was found", name)
			continue
		}
		issued := w.choose(found, test.body)
		if issued.ClientSecret.Reveal() != test.secret || issued.ClientID != test.clientID || len(issued.Others) != test.others ||
			(issued.Objection != "") != (test.objection != "") || !strings.Contains(issued.Objection, test.objection) {
			t.Errorf("%s: client %q, objection %q, others %d", name, issued.ClientID, issued.Objection, len(issued.Others))
		}
	}
}

// TestSearchIsBounded: a body that was built to cost time or memory costs neither.
func TestSearchIsBounded(t *testing.T) {
	const size = 1 << 16
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	_, _ = w.Write(make([]byte, 16*size))
	_ = w.Close()
	for name, body := range map[string][]byte{
		"opening braces":    bytes.Repeat([]byte("{"), size),
		"keys":              bytes.Repeat([]byte(`{"a":`), size/5),
		"quotation marks":   bytes.Repeat([]byte(`"`), size),
		"escapes":           append([]byte(`"`), bytes.Repeat([]byte(`\"`), size/2)...),
		"escapes and lines": bytes.Repeat(append(append([]byte(`"`), bytes.Repeat([]byte(`\"`), 1000)...), '\n'), size/2000),
		"entities":          bytes.Repeat([]byte("&quot;{"), size/7),
		"nested strings":    bytes.Repeat([]byte(`"{\"{\\\"`), size/9),
		"many secrets":      bytes.Repeat([]byte(`{"client_secret":"x"}`), size/20),
		"a bomb":            bomb.Bytes(),
	} {
		start := time.Now()
		plain := unpack(body, size)
		if name == "a bomb" && len(plain) > size {
			t.Errorf("%s: unpacked to %d bytes", name, len(plain))
		}
		if found, _ := findSecrets(plain); len(found) > maxFindings {
			t.Errorf("%s: %d are found", name, len(found))
		}
		if took := time.Since(start); took > 20*time.Second { // a quadratic search would take minutes
			t.Errorf("%s: it took %s", name, took)
		}
	}
}

// FuzzFindSecrets: whatever is around an answer, its secret is found, and nothing panics.
func FuzzFindSecrets(f *testing.F) {
	f.Add("", "")
	f.Add("\xef\xbb\xbf", "}")
	f.Add(`"`, `"`)
	f.Add(`{"success":false,`, `,{`)
	f.Add("<html>&quot;", "</html>")
	f.Fuzz(func(t *testing.T, before, after string) {
		if len(before) > 0 && isWord(before[len(before)-1]) {
			before += " "
		}
		body := before + `{"result":{"client_id":"` + ourClient + `","client_secret":"` + newSecret + `"}}` + after
		found, _ := findSecrets([]byte(body))
		for _, one := range found {
			if one.secret.Equal(secret.New(newSecret)) {
				return
			}
		}
		t.Errorf("it is not found among %d in %q", len(found), body)
	})
}
