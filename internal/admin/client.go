package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"rotatord/internal/outbound"
	"rotatord/internal/printable"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// maxAnswer is how many bytes of an answer a client reads; a hundred thousand tokens need less than half.
// maxError is the same for an error.
const (
	maxAnswer = 256 << 20
	maxError  = 64 << 10
)

// Client talks to a daemon through its socket. Its errors say what to do.
type Client struct {
	path string
	http *http.Client
}

// NewClient returns a client for the socket at path. It connects with each request.
func NewClient(path string) *Client {
	return &Client{path: path, http: &http.Client{
		// Longer than the daemon takes, because its answer says more than a timeout.
		Timeout: commandTime + 30*time.Second,
		Transport: &http.Transport{
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: outbound.MaxHeader,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", path)
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Refused is a request that the daemon answered with an error.
type Refused struct {
	Code    int // HTTP status
	Message string
}

// Error implements error.
func (r *Refused) Error() string { return r.Message }

// Tokens returns all tokens.
func (c *Client) Tokens(ctx context.Context) (o Overview, err error) {
	return o, c.do(ctx, http.MethodGet, "/v1/tokens", nil, &o)
}

// Token returns one token.
func (c *Client) Token(ctx context.Context, name string) (o Overview, err error) {
	return o, c.do(ctx, http.MethodGet, tokenPath(name), nil, &o)
}

// Names returns the names of the tokens that begin with a prefix.
func (c *Client) Names(ctx context.Context, prefix string) (n Names, err error) {
	return n, c.do(ctx, http.MethodGet, "/v1/names?prefix="+url.QueryEscape(prefix), nil, &n)
}

// History returns lines of the daemon's record of events.
func (c *Client) History(ctx context.Context, q status.HistoryQuery) (h status.History, err error) {
	params := url.Values{}
	for name, value := range map[string]string{"token": q.Token, "kind": q.Kind} {
		if value != "" {
			params.Set(name, value)
		}
	}
	if !q.Since.IsZero() {
		params.Set("since", q.Since.UTC().Format(time.RFC3339))
	}
	if q.Limit > 0 {
		params.Set("limit", strconv.Itoa(q.Limit))
	}
	return h, c.do(ctx, http.MethodGet, "/v1/history?"+params.Encode(), nil, &h)
}

// Resolve has the daemon resolve a doubt.
func (c *Client) Resolve(ctx context.Context, name string, how rotation.Resolution) (o Outcome, err error) {
	return o, c.do(ctx, http.MethodPost, tokenPath(name)+"/resolve", resolveArgs{how}, &o)
}

// Rotate has the daemon rotate a token now.
func (c *Client) Rotate(ctx context.Context, name string, o rotation.Overrides) (r Rotated, err error) {
	return r, c.do(ctx, http.MethodPost, tokenPath(name)+"/rotate", rotateArgs{o}, &r)
}

// RotateAll has the daemon order the rotation of all tokens of an account.
func (c *Client) RotateAll(ctx context.Context, account string, o rotation.Overrides) (p Progress, err error) {
	return p, c.do(ctx, http.MethodPost, accountPath(account)+"/rotate", rotateArgs{o}, &p)
}

// CancelAll has the daemon cancel the pending orders of an account.
func (c *Client) CancelAll(ctx context.Context, account string) (p Progress, err error) {
	return p, c.do(ctx, http.MethodPost, accountPath(account)+"/cancel", noArgs{}, &p)
}

// Progress returns the progress of an account's orders.
func (c *Client) Progress(ctx context.Context, account string) (p Progress, err error) {
	return p, c.do(ctx, http.MethodGet, accountPath(account)+"/progress", nil, &p)
}

// Cancel has the daemon cancel the order of one token.
func (c *Client) Cancel(ctx context.Context, name string) (o Cancelled, err error) {
	return o, c.do(ctx, http.MethodPost, tokenPath(name)+"/cancel", noArgs{}, &o)
}

// RevokePrevious has the daemon revoke a token's previous secret.
func (c *Client) RevokePrevious(ctx context.Context, name string) (g Grace, err error) {
	return g, c.do(ctx, http.MethodPost, tokenPath(name)+"/revoke-previous", revokeArgs{}, &g)
}

// RevokeInUse does the same even if consumers may not have another secret yet.
func (c *Client) RevokeInUse(ctx context.Context, name string) (g Grace, err error) {
	return g, c.do(ctx, http.MethodPost, tokenPath(name)+"/revoke-previous", revokeArgs{InUse: true}, &g)
}

// ExtendGrace has the daemon extend the grace of a token's previous secret to this time from now, in
// whole seconds.
func (c *Client) ExtendGrace(ctx context.Context, name string, grace time.Duration) (g Grace, err error) {
	return g, c.do(ctx, http.MethodPost, tokenPath(name)+"/extend-grace", extendArgs{int64(grace / time.Second)}, &g)
}

// RunHooks has the daemon run hooks of a token again; all of them without names.
func (c *Client) RunHooks(ctx context.Context, name string, hooks []string) (h Hooked, err error) {
	return h, c.do(ctx, http.MethodPost, tokenPath(name)+"/hooks", hookArgs{Hooks: hooks}, &h)
}

// DropHooks has the daemon give up the hooks of a token that are owed.
func (c *Client) DropHooks(ctx context.Context, name string) (h Hooked, err error) {
	return h, c.do(ctx, http.MethodPost, tokenPath(name)+"/hooks", hookArgs{Drop: true}, &h)
}

// LookAtVault has the daemon check Vault through its session.
func (c *Client) LookAtVault(ctx context.Context) (f Findings, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/vault", nil, &f)
	if refused, ok := errors.AsType[*Refused](err); ok && refused.Code == http.StatusNotFound {
		err = ErrUnsupported
	}
	return f, err
}

// TestNotify has the daemon send a test message to a receiver of notifications, or to all if the name is empty.
func (c *Client) TestNotify(ctx context.Context, receiver string) (t NotifyTests, err error) {
	return t, c.do(ctx, http.MethodPost, "/v1/notify/test", notifyArgs{receiver}, &t)
}

func accountPath(account string) string { return "/v1/accounts/" + url.PathEscape(account) }

// Pause has the daemon pause a token, or with rotation.AllTokens all of them, until some time. If that is
// zero, the pause lasts until it is resumed.
func (c *Client) Pause(ctx context.Context, name string, until time.Time, reason string) (p Paused, err error) {
	return p, c.do(ctx, http.MethodPost, pausePath(name)+"/pause", pauseArgs{until, reason}, &p)
}

// Resume lifts a pause.
func (c *Client) Resume(ctx context.Context, name string) (p Paused, err error) {
	return p, c.do(ctx, http.MethodPost, pausePath(name)+"/resume", noArgs{}, &p)
}

func pausePath(name string) string {
	if name == rotation.AllTokens {
		return "/v1"
	}
	return tokenPath(name)
}

func tokenPath(name string) string { return "/v1/tokens/" + url.PathEscape(name) }

func (c *Client) do(ctx context.Context, method, path string, args, answer any) error {
	var body io.Reader
	if args != nil {
		b, err := json.Marshal(args)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://rotatord"+path, body)
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return c.explain(err)
	}
	defer res.Body.Close()
	limit := int64(maxAnswer)
	if res.StatusCode != http.StatusOK {
		limit = maxError
	}
	content, err := outbound.ReadBody(res.Body, limit)
	if err != nil {
		return fmt.Errorf("reading the answer at %s: %w", c.path, err)
	}
	if res.StatusCode != http.StatusOK {
		var refusal errorAnswer
		if json.Unmarshal(content, &refusal) != nil || refusal.Error == "" {
			return fmt.Errorf("the process that listens at %s is not rotatord (it answered %s): check the path", c.path, printable.Line(res.Status, maxName))
		}
		return &Refused{Code: res.StatusCode, Message: printable.Text(refusal.Error)}
	}
	err = errors.New("it is not an object")
	if bytes.HasPrefix(content, []byte("{")) { // null would be read as an empty answer
		err = json.Unmarshal(content, answer)
	}
	if err != nil {
		return fmt.Errorf("the answer of the daemon at %s cannot be read; its version may differ from this command's: %w", c.path, err)
	}
	printable.InPlace(answer)
	return nil
}

// ErrNoDaemon is in the error of a request that found no daemon.
var ErrNoDaemon = errors.New("the daemon does not run on this host")

// explain returns an error that says what to do about a request without an answer.
func (c *Client) explain(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok && wrapped.Timeout() {
		return fmt.Errorf("the daemon at %s did not answer in time: the command may have been carried out, so check the token's status and the daemon's log", c.path)
	}
	info, statErr := os.Lstat(c.path)
	switch {
	case errors.Is(statErr, fs.ErrNotExist):
		return fmt.Errorf("there is no socket at %s: %w, or its configuration sets admin_socket to another path", c.path, ErrNoDaemon)
	case statErr == nil && info.Mode().Type() != fs.ModeSocket && info.Mode().Type() != fs.ModeSymlink:
		return fmt.Errorf("%s is not a socket: check admin_socket", c.path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("you may not use %s: %s", c.path, whoMay(c.path))
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no process listens at %s: %w, and its socket was left behind", c.path, ErrNoDaemon)
	}
	return fmt.Errorf("talking to the daemon at %s: %w", c.path, err)
}

// whoMay returns who can use the socket, or enter its directory.
func whoMay(path string) string {
	what := "it"
	info, err := os.Lstat(path)
	if err != nil {
		what = filepath.Dir(path)
		info, err = os.Lstat(what)
	}
	if err != nil {
		return "run the command as root"
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "run the command as root"
	}
	owner, group := strconv.FormatUint(uint64(stat.Uid), 10), strconv.FormatUint(uint64(stat.Gid), 10)
	if u, err := user.LookupId(owner); err == nil {
		owner = u.Username
	}
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return fmt.Sprintf("%s belongs to the user %s and the group %s (mode %04o); run the command as one of them, or as root", what, owner, group, info.Mode().Perm())
}
