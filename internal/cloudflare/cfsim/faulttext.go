package cfsim

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// plainKinds are the kinds that are a word of their own in the text of a fault.
var plainKinds = slices.Concat([]Kind{KindDrop, KindCut, KindGarbage, KindRefuse}, slices.Sorted(maps.Keys(mutations)))

// ParseFault reads a fault as a command line has it, in parts between colons:
//
//	OPERATION:WHAT[:before|:after][:KEY=VALUE...]
//
// OPERATION is one of the Op constants, or * for all of the API. WHAT is drop, cut, garbage,
// refuse, wrong_client_id, wrong_token_id, missing_secret or malformed_secret, or
// status=STATUS, or delay=DURATION. The keys are the remaining ones of
//
//	shape=NAME           an answer that is carried out, and is not as documented: one of Shapes
//	status=500           of the answer, with garbage
//	delay=3s             wait before, or after, doing the rest
//	count=3              how many requests it strikes; always for all of them
//	token=UUID           only requests for this service token
//	retry-after=300      in seconds, with status
//	code=10000           of the error, with status and refuse
//	message=TEXT         the same; it is last and may contain colons
//
// The fault is complete: what was left away has its default. The error says what would be
// right. [Fault.String] is the way back.
func ParseFault(text string) (Fault, error) {
	f, err := parseFault(text)
	if err == nil {
		f, err = f.complete()
	}
	if err != nil {
		return Fault{}, fmt.Errorf("fault %q: %w", text, err)
	}
	return f, nil
}

func parseFault(text string) (Fault, error) {
	operation, rest, found := strings.Cut(text, ":")
	if operation == "" || !found {
		return Fault{}, fmt.Errorf("want OPERATION:WHAT, such as rotate:drop:after or list:status=429:retry-after=300")
	}
	f := Fault{Operation: operation}
	seen := map[string]bool{}
	for found {
		var part string
		if strings.HasPrefix(rest, "message=") {
			part, found = rest, false // the message may contain colons
		} else {
			part, rest, found = strings.Cut(rest, ":")
		}
		name, value, isKey := strings.Cut(part, "=")
		name = strings.ReplaceAll(name, "-", "_")
		what, err := f.setPart(name, value, isKey)
		if err != nil {
			return Fault{}, err
		}
		if seen[what] {
			return Fault{}, fmt.Errorf("%s is the second of its kind: give one", part)
		}
		seen[what] = true
	}
	return f, nil
}

// setPart applies one part, and returns which kind of part it was.
func (f *Fault) setPart(name, value string, isKey bool) (what string, err error) {
	switch {
	case isKey:
		return name, f.setKey(name, value)
	case name == string(Before), name == string(After):
		f.When = When(name)
		return "when", nil
	case slices.Contains(plainKinds, Kind(name)):
		f.Kind = Kind(name)
		return "kind", nil
	}
	return "", fmt.Errorf("%q is not known: use %s, status=STATUS, shape=NAME or delay=DURATION, then before or after, then KEY=VALUE", name, joinKinds())
}

func joinKinds() string {
	names := make([]string, len(plainKinds))
	for i, k := range plainKinds {
		names[i] = string(k)
	}
	return strings.Join(names, ", ")
}

func (f *Fault) setKey(key, value string) error {
	number := func(to *int, want string) error {
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 {
			return fmt.Errorf("%s=%s: want %s", key, value, want)
		}
		*to = n
		return nil
	}
	switch key {
	case "shape":
		if value == "" {
			return fmt.Errorf("shape=: want the name of one, such as bom")
		}
		f.Shape = value
	case "status":
		return number(&f.Status, "a status such as 503")
	case "retry_after":
		return number(&f.RetryAfter, "a number of seconds such as 300")
	case "code":
		return number(&f.Code, "a number of at least 1000")
	case "count":
		if value == "always" {
			f.Count = -1
			return nil
		}
		return number(&f.Count, "a number of at least 1, or always")
	case "delay":
		if err := f.Delay.UnmarshalText([]byte(value)); err != nil || f.Delay <= 0 {
			return fmt.Errorf("delay=%s: want a duration such as 3s or 1m30s", value)
		}
	case "token":
		if value == "" {
			return fmt.Errorf("token=: want the UUID of a service token")
		}
		f.TokenID = value
	case "message":
		if value == "" {
			return fmt.Errorf("message=: want a text")
		}
		f.Message = value
	default:
		return fmt.Errorf("there is no key %s: use count, token, delay, shape, status, retry-after, code or message", key)
	}
	return nil
}

// String writes the fault as [ParseFault] reads it.
func (f Fault) String() string {
	var b strings.Builder
	if b.WriteString(f.Operation); f.Operation == "" {
		b.WriteByte('*')
	}
	if slices.Contains(plainKinds, f.Kind) {
		fmt.Fprintf(&b, ":%s", f.Kind)
	}
	if f.Status != 0 {
		fmt.Fprintf(&b, ":status=%d", f.Status)
	}
	if f.Shape != "" {
		fmt.Fprintf(&b, ":shape=%s", f.Shape)
	}
	if f.Delay != 0 {
		fmt.Fprintf(&b, ":delay=%s", time.Duration(f.Delay))
	}
	if f.When != "" {
		fmt.Fprintf(&b, ":%s", f.When)
	}
	switch {
	case f.Count < 0:
		b.WriteString(":count=always")
	case f.Count > 0:
		fmt.Fprintf(&b, ":count=%d", f.Count)
	}
	for _, part := range []struct{ key, value string }{
		{"token", f.TokenID}, {"retry-after", nonZero(f.RetryAfter)}, {"code", nonZero(f.Code)}, {"message", f.Message},
	} {
		if part.value != "" {
			fmt.Fprintf(&b, ":%s=%s", part.key, part.value)
		}
	}
	return b.String()
}

// nonZero returns the empty string for 0.
func nonZero(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}
