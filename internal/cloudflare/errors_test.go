package cloudflare_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/cloudflare"
	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/config"
	"rotatord/internal/rotation"
)

// trouble is a way in which a request can end, in the words of docs/cloudflare-errors.md. It strikes the
// requests of one operation; a simulator answers the others.
type trouble struct {
	// answers replace the simulator's answers. Each one is tried.
	answers []func(w http.ResponseWriter, good goodAnswer)
	// send, if set, replaces sending the request.
	send func(next http.RoundTripper, r *http.Request) (*http.Response, error)
	zone bool
}

// goodAnswer is what the simulator would have answered.
type goodAnswer struct {
	status int
	body   []byte
}

func refusing(status, code int, header ...string) trouble {
	body := fmt.Sprintf(`{"success":false,"errors":[{"code":%d,"message":"no"}],"messages":[],"result":null}`, code)
	return answering(status, "application/json", body, header...)
}

func answering(status int, contentType, body string, header ...string) trouble {
	return trouble{answers: []func(http.ResponseWriter, goodAnswer){func(w http.ResponseWriter, _ goodAnswer) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}}}
}

// each returns a trouble for a range of statuses.
func each(first, last int) (all trouble) {
	for status := first; status <= last; status++ {
		all.answers = append(all.answers, answering(status, "text/html", "<html>").answers...)
	}
	return all
}

// cutting breaks the answer off after the part that after returns, or in its middle.
func cutting(after func(good goodAnswer) []byte) trouble {
	return trouble{answers: []func(http.ResponseWriter, goodAnswer){func(w http.ResponseWriter, good goodAnswer) {
		w.Header().Set("Content-Length", fmt.Sprint(4*len(good.body)))
		w.WriteHeader(good.status)
		_, _ = w.Write(after(good))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}}}
}

// changing changes fields of the result of a good answer; nil removes one.
func changing(fields map[string]any) trouble {
	return trouble{answers: []func(http.ResponseWriter, goodAnswer){func(w http.ResponseWriter, good goodAnswer) {
		result := good.result()
		for name, value := range fields {
			if result[name] = value; value == nil {
				delete(result, name)
			}
		}
		b, _ := json.Marshal(map[string]any{"success": true, "errors": []any{}, "messages": []any{}, "result": result})
		w.WriteHeader(good.status)
		_, _ = w.Write(b)
	}}}
}

func (g goodAnswer) result() (result map[string]any) {
	var envelope struct{ Result map[string]any }
	_ = json.Unmarshal(g.body, &envelope) // a listing has no such fields, and no trouble changes it
	return envelope.Result
}

// secretFirst is an answer with the secret, but nothing after it.
func secretFirst(good goodAnswer) []byte {
	return fmt.Appendf(nil, `{"success":true,"result":{"client_id":%q,"client_secret":%q,"na`, good.result()["client_id"], good.result()["client_secret"])
}

func underContext(change func(context.Context) (context.Context, context.CancelFunc)) trouble {
	return trouble{
		answers: []func(http.ResponseWriter, goodAnswer){nil}, // without a server
		send: func(next http.RoundTripper, r *http.Request) (*http.Response, error) {
			ctx, cancel := change(r.Context())
			defer cancel()
			return next.RoundTrip(r.WithContext(ctx))
		},
	}
}

var troubles = map[string]trouble{
	"no connection": {send: func(next http.RoundTripper, r *http.Request) (*http.Response, error) {
		elsewhere := r.Clone(r.Context())
		elsewhere.URL.Host = "127.0.0.1:1" // a port without a server
		return next.RoundTrip(elsewhere)
	}},
	"the deadline passed before anything was sent": underContext(func(ctx context.Context) (context.Context, context.CancelFunc) {
		return context.WithDeadline(ctx, time.Now().Add(-time.Second))
	}),
	"the deadline passed while the answer was awaited": underContext(func(ctx context.Context) (context.Context, context.CancelFunc) {
		return context.WithTimeout(ctx, 20*time.Millisecond)
	}),
	"a zone's service token":          {zone: true},
	"HTTP 400":                        refusing(400, 12130),
	"HTTP 401, code 10000":            refusing(401, 10000),
	"HTTP 401, code 1000":             refusing(401, 1000),
	"HTTP 403, code 9109":             refusing(403, 9109),
	"HTTP 404, code 7003":             refusing(404, 7003),
	"HTTP 404, no such service token": refusing(404, 12133),
	"HTTP 405":                        refusing(405, 10405),
	"HTTP 408":                        refusing(408, 10408),
	"HTTP 409":                        refusing(409, 12130),
	"HTTP 409, code 12139":            refusing(409, 12139),
	"HTTP 429 with Retry-After":       refusing(429, 10429, "Retry-After", "7"),
	"HTTP 429 without Retry-After":    refusing(429, 10429),
	"HTTP 429 with a Retry-After that is over": {answers: append(refusing(429, 10429, "Retry-After", "0").answers,
		refusing(429, 10429, "Retry-After", "Fri, 31 Dec 1999 23:59:59 GMT").answers...)},
	"HTTP 4xx that is not Cloudflare's JSON": {answers: slices.Concat(each(400, 407).answers, each(413, 413).answers, each(499, 499).answers)},
	"HTTP 500":                               refusing(500, 10001),
	"HTTP 502, 503, 504":                     each(502, 504),
	"HTTP 520 to 530":                        each(520, 530),
	"a redirect":                             {answers: slices.Concat(answering(302, "text/html", "", "Location", "/").answers, answering(307, "text/html", "", "Location", "/").answers)},
	"the connection broke before an answer":  cutting(func(goodAnswer) []byte { panic(http.ErrAbortHandler) }),
	"an answer cut off before the end of the secret": cutting(func(good goodAnswer) []byte {
		return good.body[:strings.Index(string(good.body), "cfast_")+30]
	}),
	"an answer cut off after the secret": cutting(secretFirst),
	"an answer cut off":                  cutting(func(good goodAnswer) []byte { return good.body[:len(good.body)/2] }),
	"success that is not JSON":           answering(200, "text/html", "<html>"),
	"success: false with status 200":     refusing(200, 12130),
	"success without a result":           answering(200, "application/json", `{"success":true,"errors":[],"messages":[],"result":null}`),
	"a result without a secret":          changing(map[string]any{"client_secret": nil}),
	"a result for another client ID":     changing(map[string]any{"client_id": "another.access"}),
	"a result for another token":         changing(map[string]any{"id": "00000000-0000-4000-8000-000000000bad"}),
	"a result without a client ID":       changing(map[string]any{"client_id": nil}),
	"a secret that lost its end":         changing(map[string]any{"client_secret": "cfast_short"}),
	"a secret of an unknown format":      changing(map[string]any{"client_secret": "cfnew-0123456789"}),
	"a result with fields of odd types":  changing(map[string]any{"name": 7, "updated_at": 0, "enabled": "yes"}),
}

// operationOf returns the operation of a request.
func operationOf(r *http.Request) string {
	switch last := path.Base(r.URL.Path); {
	case last == "verify", last == "rotate", last == "refresh":
		return last
	case last == "service_tokens":
		return map[string]string{"GET": "list", "POST": "create"}[r.Method]
	default:
		return map[string]string{"GET": "get", "PUT": "update", "DELETE": "delete"}[r.Method]
	}
}

// troubled returns a client and an existing service token. Requests of one operation get the n-th answer of a
// trouble.
func troubled(t *testing.T, trouble trouble, n int, operation string) (*cloudflare.Client, *cfsim.Simulator, string) {
	t.Helper()
	simulator := cfsim.New(cfsim.Options{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n >= len(trouble.answers) || operationOf(r) != operation {
			simulator.ServeHTTP(w, r)
			return
		}
		if trouble.answers[n] == nil {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
			return
		}
		good := httptest.NewRecorder()
		simulator.ServeHTTP(good, r)
		trouble.answers[n](w, goodAnswer{good.Code, good.Body.Bytes()})
	}))
	t.Cleanup(server.Close)
	account := config.Account{Name: "prod", AccountID: accountID, APIToken: secretFile(t, apiToken), BaseURL: server.URL + cfsim.BasePath, RequestsPer5m: 1000}
	if trouble.zone {
		account.AccountID, account.ZoneID = "", zoneID
	}
	made, _, err := simulator.Create(cfsim.CreateParams{Name: "there", AccountID: account.AccountID, ZoneID: account.ZoneID})
	if err != nil {
		t.Fatal(err)
	}
	return cloudflare.New(account, cloudflare.Options{WrapTransport: func(next http.RoundTripper) http.RoundTripper {
		return sender(func(r *http.Request) (*http.Response, error) {
			if trouble.send == nil || operationOf(r) != operation {
				return next.RoundTrip(r)
			}
			return trouble.send(next, r)
		})
	}}), simulator, made.ID
}

type sender func(*http.Request) (*http.Response, error)

func (s sender) RoundTrip(r *http.Request) (*http.Response, error) { return s(r) }

// operationCalls make one request each, beside the requests that the call needs anyway.
var operationCalls = map[string]string{
	"rotate": "Rotate", "create": "Create", "get": "Inspect", "list": "List", "update": "SetGrace", "refresh": "Renew",
	"delete": "Delete", "verify": "VerifyCredential",
}

// classIn returns what the documentation calls an outcome.
func classIn(err error) string {
	e, ok := errors.AsType[*rotation.IssuerError](err)
	switch {
	case err == nil:
		return "good"
	case !ok:
		return "no IssuerError: " + err.Error()
	case errors.Is(err, rotation.ErrGone):
		return e.Class.String() + ", gone"
	case errors.Is(err, rotation.ErrInUse):
		return e.Class.String() + ", in use"
	default:
		return e.Class.String()
	}
}

// rowsOf reads the table of the documentation that begins with these columns.
func rowsOf(t *testing.T, columns string) (rows [][]string) {
	t.Helper()
	b, err := os.ReadFile("../../docs/cloudflare-errors.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(b), "| "+columns+" |")
	if !found {
		t.Fatalf("the documentation has no table of %s", columns)
	}
	for _, line := range strings.Split(table, "\n")[2:] {
		if !strings.HasPrefix(line, "|") {
			break
		}
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if want := strings.Count(columns, "|") + 1; len(cells) != want {
			t.Fatalf("%d columns in %q, want %d", len(cells), line, want)
		}
		rows = append(rows, cells)
	}
	return rows
}

const (
	issuingColumns = "what came | operations | class | state | rotatord | you"
	otherColumns   = "what came | operations | class | rotatord | you"
)

// TestErrorsAreDocumented provokes each row of docs/cloudflare-errors.md, and knows no other failure.
func TestErrorsAreDocumented(t *testing.T) {
	undocumented := maps.Clone(troubles)
	operations := maps.Clone(operationCalls)
	others := "get, list, update, refresh, delete, verify"
	for _, row := range slices.Concat(rowsOf(t, issuingColumns), rowsOf(t, otherColumns)) {
		what, class := row[0], row[2]
		trouble, ok := troubles[what]
		if !ok {
			t.Errorf("%q is documented, and not known here", what)
			continue
		}
		delete(undocumented, what)
		for operation := range strings.SplitSeq(strings.Replace(row[1], "all", others, 1), ", ") {
			call, ok := everyCall[operationCalls[operation]]
			if !ok {
				t.Errorf("%q: there is no operation %q", what, operation)
				continue
			}
			delete(operations, operation)
			for n := range max(len(trouble.answers), 1) {
				if testing.Short() && n > 0 {
					break
				}
				c, _, id := troubled(t, trouble, n, operation)
				err := call(t.Context(), c, id)
				if got := classIn(err); got != class {
					t.Errorf("%s of a %s, number %d: %s, documented is %s: %v", what, operation, n, got, class, err)
				}
				e, _ := errors.AsType[*rotation.IssuerError](err)
				wait := map[string]time.Duration{"HTTP 429 with Retry-After": 7 * time.Second, "HTTP 429 without Retry-After": 5 * time.Minute,
					"HTTP 429 with a Retry-After that is over": 5 * time.Second}[what]
				if e != nil && (e.Operation != operation || e.RetryAfter != wait) {
					t.Errorf("%s of a %s: operation %q, retry after %s", what, operation, e.Operation, e.RetryAfter)
				}
			}
		}
	}
	if len(undocumented) > 0 || len(operations) > 0 {
		t.Errorf("not documented: %q; operations without a row: %q", slices.Sorted(maps.Keys(undocumented)), slices.Sorted(maps.Keys(operations)))
	}
}

// TestStatesAreDocumented runs the whole protocol into each row about rotate and create.
func TestStatesAreDocumented(t *testing.T) {
	for _, row := range rowsOf(t, issuingColumns) {
		what, state := row[0], row[3]
		for operation := range strings.SplitSeq(row[1], ", ") {
			for n := range max(len(troubles[what].answers), 1) {
				if n > 0 && n < len(troubles[what].answers)-1 {
					continue // the first and the last are enough
				}
				record, simulator, err := rotateIn(t, troubles[what], n, operation)
				if got := stateIn(record); got != state {
					t.Errorf("%s of a %s, number %d: %s, documented is %s: %v", what, operation, n, got, state, err)
				}
				if n := simulator.Stats().Count(operation); n > 1 {
					t.Errorf("%s of a %s: sent %d times", what, operation, n)
				}
			}
		}
	}
}

// stateIn returns what the documentation calls the state of a token.
func stateIn(r rotation.Record) string {
	switch {
	case r.Step == rotation.StepInDoubt:
		return "in doubt, " + r.Doubt.Reason
	case r.Step != rotation.StepIdle:
		return "unfinished: " + string(r.Step)
	case r.Last != nil:
		return "done"
	case r.Failures > 0:
		return "idle, back-off"
	case r.NotBefore.After(time.Now()):
		return "idle, waits"
	default:
		return cmp.Or(r.LastError, "nothing happened")
	}
}
