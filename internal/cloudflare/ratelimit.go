package cloudflare

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// This file reads what Cloudflare's answers say about the rate limit.

// ratelimit is what an answer's headers say of the limit.
type ratelimit struct {
	said   bool
	left   int
	reset  time.Duration
	quota  int           // 0: not said
	length time.Duration // of a window; 0: not said
}

// readRatelimit reads `Ratelimit: "default";r=<left>;t=<seconds>` and
// `Ratelimit-Policy: "default";q=<quota>;w=<seconds>`. What makes no sense counts as not said.
func readRatelimit(h http.Header) ratelimit {
	var l ratelimit
	now, policy := parameters(h.Get("Ratelimit")), parameters(h.Get("Ratelimit-Policy"))
	left, hasLeft := now["r"]
	reset, hasReset := now["t"]
	if l.said = hasLeft && hasReset && left >= 0 && reset >= 0; l.said {
		l.left, l.reset = left, wait(float64(reset))
	}
	if q, w := policy["q"], policy["w"]; q > 0 && q <= 1_000_000 && w > 0 && wait(float64(w)) < maxWait {
		l.quota, l.length = q, wait(float64(w))
	}
	return l
}

// RateLimit says how many requests Cloudflare's last answer about it left to all who use the
// credential, and out of how many in a window; quota is 0 if that was not said, and ok is
// false if nothing was.
func (c *Client) RateLimit() (left, quota int, ok bool) {
	l := c.limit.Load()
	if l == nil {
		return 0, 0, false
	}
	return l.left, l.quota, true
}

// parameters are the whole numbers among the parameters of a header's item "default", or of
// its first one.
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

// retryAfter says how long a refused answer asks us to wait: the longest of its Retry-After
// headers and of "retry_after" in its body. An answer that names no usable time gets
// Cloudflare's documented penalty of five minutes. An answer whose time has passed already
// gets 0: the budget then sets a minimum.
func retryAfter(h http.Header, body []byte) time.Duration {
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
		return budgetWindow
	}
	return longest
}

// bodyRetryAfter returns every "retry_after" of a JSON body as text: beside "errors", and in each
// of them. Numbers and strings are both in use.
func bodyRetryAfter(body []byte) []string {
	var top map[string]json.RawMessage
	if json.Unmarshal(body, &top) != nil {
		return nil
	}
	objects := []map[string]json.RawMessage{top}
	var inErrors []json.RawMessage
	_ = json.Unmarshal(top["errors"], &inErrors) // another type has none
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

// waitText reads seconds, with or without a fraction, or an HTTP date, which it compares with
// the answer's own.
func waitText(text string, date time.Time) (d time.Duration, ok bool) {
	text = strings.TrimSpace(text)
	if seconds, err := strconv.ParseFloat(text, 64); err == nil || math.IsInf(seconds, 1) { // too many digits count as very long
		return wait(math.Ceil(seconds)), seconds >= 0 // false for NaN
	}
	if at, err := http.ParseTime(text); err == nil {
		return wait(math.Ceil(at.Sub(date).Seconds())), true
	}
	return 0, false
}

// maxWait is the longest that a header can make us leave an account alone: one wrong
// header must not stop it for good, nor overflow a duration.
const maxWait = time.Hour

// wait is that many seconds, at least 0 and at most maxWait.
func wait(seconds float64) time.Duration {
	if !(seconds > 0) { // also NaN
		return 0
	}
	return time.Duration(min(seconds, maxWait.Seconds()) * float64(time.Second))
}
