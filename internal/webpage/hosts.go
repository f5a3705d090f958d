package webpage

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Hosts says under which names the daemon may be reached.
type Hosts struct {
	Listen      string   // host:port, as configured
	Names       []string // host names without a port
	ExternalURL string   // empty: none
}

// Accepts reports whether a request with that Host header is answered. Addresses and localhost are accepted always: a foreign
// site cannot make a browser send them for its own name.
func (h Hosts) Accepts(host string) bool {
	name := host
	if without, _, err := net.SplitHostPort(host); err == nil {
		name = without
	}
	name = strings.ToLower(strings.TrimSuffix(strings.Trim(name, "[]"), "."))
	if _, err := netip.ParseAddr(name); err == nil || name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	listen, _, _ := net.SplitHostPort(h.Listen)
	external := ""
	if u, err := url.Parse(h.ExternalURL); err == nil {
		external = u.Hostname()
	}
	return name != "" && slices.ContainsFunc(append([]string{listen, external}, h.Names...), func(known string) bool { return strings.EqualFold(known, name) })
}

// exempt are the paths that are answered under any name: Prometheus and the kubelet use names of their own, and a scrape
// that is refused would be an alert that does not come.
var exempt = []string{"/metrics", "/livez", "/readyz"}

// Guard refuses requests that name another host than those that hosts accepts. Without hosts it accepts what is accepted
// always.
func Guard(next http.Handler, hosts func() Hosts) http.Handler {
	if hosts == nil {
		hosts = func() Hosts { return Hosts{} }
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if slices.Contains(exempt, r.URL.Path) || hosts().Accepts(r.Host) {
			next.ServeHTTP(w, r)
			return
		}
		http.Error(w, "This host name is not configured, so the request is refused: a foreign site could otherwise read this page through your browser.\n"+
			"Use the IP address, or add the name to hosts in the configuration (docs/configuration.md).", http.StatusMisdirectedRequest)
	})
}
