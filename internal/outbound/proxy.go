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

// proxySchemes are those that Go's transport speaks. Another one would be taken for http.
var proxySchemes = []string{"http", "https", "socks5", "socks5h"}

// proxyVariables name the proxy for https, in the order in which they count.
var proxyVariables = []string{"HTTPS_PROXY", "https_proxy"}

// proxyFor returns the proxy that the environment names for a URL, nil if there is none. The error says
// what is wrong with the variable, without its value: that may have a password.
func proxyFor(asked *url.URL) (*url.URL, error) {
	if asked.Scheme != "https" {
		return nil, nil
	}
	proxy, err := httpproxy.FromEnvironment().ProxyFunc()(asked)
	value := os.Getenv(proxyVariable())
	_, unreadable := url.Parse(value) // which the library takes for a host without a scheme
	switch {
	case err != nil, proxy != nil && unreadable != nil && strings.Contains(value, "://"):
		return nil, &ProxyError{Variable: proxyVariable(), text: "it cannot be read as the address of a proxy: write it as http://HOST:PORT"}
	case proxy != nil && !slices.Contains(proxySchemes, proxy.Scheme):
		return nil, &ProxyError{Proxy: proxyName(proxy), Variable: proxyVariable(), text: fmt.Sprintf(
			"%s:// is not the scheme of a proxy: write http://HOST:PORT, also for a proxy that https goes through", printable.Line(proxy.Scheme, 20))}
	}
	return proxy, nil
}

// proxyVariable is the variable that names the proxy.
func proxyVariable() string {
	for _, name := range proxyVariables {
		if value, set := os.LookupEnv(name); set && value != "" {
			return name
		}
	}
	return proxyVariables[0]
}

// proxyName is a proxy without its user and password.
func proxyName(proxy *url.URL) string { return printable.Line(proxy.Scheme+"://"+proxy.Host, maxShown) }

// Route names the proxy through which requests to a URL leave this machine, for an error; it is empty if
// there is none.
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

// ProxyError is a proxy that does not let a request through, so that nothing was sent to whoever it
// is for.
type ProxyError struct {
	// Proxy is its scheme, host and port; empty if they cannot be read. Variable is where it was named.
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

// connected checks a proxy's answer to CONNECT. What the proxy says of it is not quoted.
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
		e.text += ": it wants a user and a password: write http://USER:PASSWORD@HOST:PORT into " + e.Variable + direct
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
