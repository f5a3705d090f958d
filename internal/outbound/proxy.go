package outbound

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"rotatord/internal/printable"
)

// proxySchemes are the schemes that Go's transport supports. It treats any other as http.
var proxySchemes = []string{"http", "https", "socks5", "socks5h"}

// proxyVariables are the variables for the https proxy; the first that is set counts.
var proxyVariables = []string{"HTTPS_PROXY", "https_proxy"}

// proxyFor returns the proxy that the environment names for a URL; nil if there is none. The error says what is
// wrong with the variable. It does not quote the value, which may have a password.
func proxyFor(asked *url.URL) (*url.URL, error) {
	if asked.Scheme != "https" {
		return nil, nil
	}
	proxy, err := httpproxy.FromEnvironment().ProxyFunc()(asked)
	value := os.Getenv(proxyVariable())
	_, unreadable := url.Parse(value) // the library treats it as a host without a scheme
	switch {
	case err != nil, proxy != nil && unreadable != nil && strings.Contains(value, "://"):
		return nil, &ProxyError{Variable: proxyVariable(), text: "it is not the address of a proxy: write it as http://HOST:PORT"}
	case proxy != nil && !slices.Contains(proxySchemes, proxy.Scheme):
		return nil, &ProxyError{Proxy: proxyName(proxy), Variable: proxyVariable(), text: fmt.Sprintf(
			"%s:// is not a scheme for a proxy: write http://HOST:PORT, also for a proxy for https", printable.Line(proxy.Scheme, 20))}
	}
	return proxy, nil
}

// proxyVariable returns the variable that names the proxy.
func proxyVariable() string {
	for _, name := range proxyVariables {
		if value, set := os.LookupEnv(name); set && value != "" {
			return name
		}
	}
	return proxyVariables[0]
}

// proxyName returns a proxy without its user and password.
func proxyName(proxy *url.URL) string { return printable.Line(proxy.Scheme+"://"+proxy.Host, maxShown) }

// Route returns the proxy for requests to a URL, for an error; empty if there is none.
func Route(asked *url.URL) string {
	proxy, err := proxyFor(asked)
	switch {
	case err != nil:
		return "the proxy of " + proxyVariable()
	case proxy != nil:
		return "the proxy " + proxyName(proxy) + " of " + proxyVariable()
	}
	return ""
}

// ProxyError says that a proxy did not let a request through. Nothing was sent to the peer.
type ProxyError struct {
	// Proxy has the scheme, host and port of the proxy; empty if they are not valid. Variable is the variable
	// that names it.
	Proxy, Variable string
	Status          int // of its answer to CONNECT; 0 if there is none
	text            string
	cause           error
}

// Error implements error.
func (e *ProxyError) Error() string {
	if e.Proxy == "" {
		return fmt.Sprintf("the proxy of %s: %s", e.Variable, e.text)
	}
	return fmt.Sprintf("the proxy %s (of %s): %s", e.Proxy, e.Variable, e.text)
}

// Unwrap returns the cause.
func (e *ProxyError) Unwrap() error { return e.cause }

// connected returns an error if a proxy refuses CONNECT. It does not quote the proxy's answer.
func connected(_ context.Context, proxy *url.URL, connect *http.Request, answer *http.Response) error {
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	e := &ProxyError{Proxy: proxyName(proxy), Variable: proxyVariable(), Status: answer.StatusCode}
	to := printable.Line(connect.Host, maxShown)
	e.text = fmt.Sprintf("it does not connect to %s (HTTP %d%s)", to, answer.StatusCode, statusText(answer.StatusCode))
	direct := "; NO_PROXY=" + hostOf(to) + " goes without it"
	switch {
	case answer.StatusCode == http.StatusProxyAuthRequired && proxy.User != nil:
		e.text += ": it does not accept the user and password that " + e.Variable + " has: correct them" + direct
	case answer.StatusCode == http.StatusProxyAuthRequired:
		e.text += ": it requires a user and a password: write http://USER:PASSWORD@HOST:PORT into " + e.Variable + direct
	case answer.StatusCode == http.StatusForbidden, answer.StatusCode == http.StatusMethodNotAllowed:
		e.text += ": let its rules allow CONNECT to " + to + direct
	case answer.StatusCode == http.StatusBadRequest:
		e.text += ": is it a proxy, and is the scheme right, http:// or https://?"
	case answer.StatusCode >= 500:
		e.text += ": can it resolve and reach that host?" + direct
	default:
		e.text += ": is it a proxy?"
	}
	return e
}

func statusText(status int) string {
	if text := http.StatusText(status); text != "" {
		return " " + text
	}
	return ""
}
