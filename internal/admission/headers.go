package admission

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// This file reads what the headers and the bodies of Cloudflare's answers say about the rate limit.

// Report is what the headers of an answer say about the limit.
type Report struct {
	Said   bool
	Left   int           // requests, for all users of the credential
	Reset  time.Duration // until the window ends
	Quota  int           // requests in a window; 0: not said
	Length time.Duration // of a window; 0: not said
}

// ReadReport reads `Ratelimit: "default";r=<left>;t=<seconds>` and
// `Ratelimit-Policy: "default";q=<quota>;w=<seconds>`. A value that makes no sense counts as not said.
func ReadReport(h http.Header) Report {
	var r Report
	now, policy := parameters(h.Get("Ratelimit")), parameters(h.Get("Ratelimit-Policy"))
	left, hasLeft := now["r"]
	reset, hasReset := now["t"]
	if r.Said = hasLeft && hasReset && left >= 0 && reset >= 0; r.Said {
		r.Left, r.Reset = left, seconds(float64(reset))
	}
	if q, w := policy["q"], policy["w"]; q > 0 && q <= 1_000_000 && w > 0 && seconds(float64(w)) < maxWait {
		r.Quota, r.Length = q, seconds(float64(w))
	}
	return r
}

// parameters returns the parameters of a header's item "default", or of its first item, as far as they
// are whole numbers.
func parameters(header string) map[string]int {
	item := ""
	for next := range strings.SplitSeq(header, ",") {
		if next = strings.TrimSpace(next); item == "" || strings.HasPrefix(next, `"default"`) {
			item = next
		}
	}
	all := make(map[string]int)
	for part := range strings.SplitSeq(item, ";") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if n, err := strconv.Atoi(value); err == nil {
			all[key] = n
		}
	}
	return all
}

// RetryAfter returns how long a refusal asks us to wait: the longest of its Retry-After headers and of
// "retry_after" in its body. If it names no usable time, that is Cloudflare's documented penalty of five
// minutes. If the time has already passed, it is 0, and the budget sets a minimum.
func RetryAfter(h http.Header, body []byte) time.Duration {
	date := time.Now()
	if at, err := http.ParseTime(h.Get("Date")); err == nil {
		date = at
	}
	longest, found := time.Duration(0), false
	for _, text := range append(h.Values("Retry-After"), bodyRetryAfter(body)...) {
		if d, ok := waitText(text, date); ok {
			longest, found = max(longest, d), true
		}
	}
	if !found {
		return Window
	}
	return longest
}

// bodyRetryAfter returns every "retry_after" of a JSON body as text: the one beside "errors", and the
// one in each of them. Numbers and strings are both in use.
func bodyRetryAfter(body []byte) []string {
	var top map[string]json.RawMessage
	if json.Unmarshal(body, &top) != nil {
		return nil
	}
	objects := []map[string]json.RawMessage{top}
	var inErrors []json.RawMessage
	_ = json.Unmarshal(top["errors"], &inErrors) // a value of another type has none
	for _, raw := range inErrors {
		var object map[string]json.RawMessage
		if json.Unmarshal(raw, &object) == nil {
			objects = append(objects, object)
		}
	}
	var texts []string
	for _, object := range objects {
		raw := object["retry_after"]
		var text string
		if json.Unmarshal(raw, &text) != nil {
			text = string(raw)
		}
		texts = append(texts, text)
	}
	return texts
}

// waitText reads a number of seconds, or an HTTP date, which it compares with the date of the answer.
func waitText(text string, date time.Time) (d time.Duration, ok bool) {
	text = strings.TrimSpace(text)
	if n, err := strconv.ParseFloat(text, 64); err == nil || math.IsInf(n, 1) { // too many digits count as very long
		return seconds(math.Ceil(n)), n >= 0 // false for NaN
	}
	if at, err := http.ParseTime(text); err == nil {
		return seconds(math.Ceil(at.Sub(date).Seconds())), true
	}
	return 0, false
}

// maxWait limits how long a header can make us send nothing: one wrong header must not stop an account
// for good, nor overflow a duration.
const maxWait = time.Hour

// seconds returns that many seconds, at least 0 and at most maxWait.
func seconds(n float64) time.Duration {
	if !(n > 0) { // also NaN
		return 0
	}
	return time.Duration(min(n, maxWait.Seconds()) * float64(time.Second))
}
