package cloudflare

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"rotatord/internal/outbound"
	"rotatord/internal/printable"
)

// This file describes answers that do not come from Cloudflare's API: a page of Cloudflare's edge in front of
// it, or of a proxy, a captive portal or a login page in between.

// describeForeign says what answered instead of the API, as far as that can be seen, and what to do.
func (r *recorder) describeForeign(operation string) string {
	page := outbound.ReadPage(r.header, r.body)
	said := page.Shown(showsNoSecret(operation), r.withoutCredential)
	if len(r.body) == 0 {
		said = "an empty body"
		if page.MediaType != "" {
			said += ", called " + printable.Line(page.MediaType, maxID)
		}
	}
	problem := readProblem(r.body)
	if shown := problem.text(); shown != "" {
		said = shown
	}
	ray := "no CF-Ray"
	if id := r.ray(problem); id != "" {
		ray = "CF-Ray " + id
	}
	return "not from Cloudflare's API: " + said + ", " + ray + ": " + r.advice(page, problem)
}

// showsNoSecret reports whether an answer to the operation never contains a client secret. From other answers
// only a title is quoted: a secret may have a form that is not known yet.
func showsNoSecret(operation string) bool {
	return slices.Contains([]string{"get", "list", "verify"}, operation)
}

// ray returns the ID under which Cloudflare's edge knows the request; empty if the edge did not answer.
func (r *recorder) ray(p problem) string {
	for _, id := range []string{r.header.Get("CF-Ray"), p.RayID, p.Instance} {
		if id != "" {
			return printable.Line(id, maxID)
		}
	}
	return ""
}

// edgeCode matches the number of an error of Cloudflare's edge, in its pages and texts.
var edgeCode = regexp.MustCompile(`(?i)\berror(?:\s+code)?:?\s*(?:</?[a-z][^<>]{0,100}>\s*)*(1[01]\d\d|5[23]\d)\b`)

// advice says what to do about an answer that is not from the API.
func (r *recorder) advice(page outbound.Page, p problem) string {
	code := p.Code
	if found := edgeCode.FindSubmatch(r.body[:min(len(r.body), 64<<10)]); code == 0 && found != nil {
		code, _ = strconv.Atoi(string(found[1])) // it has three or four digits
	}
	edge := r.header.Get("CF-Ray") != "" || strings.EqualFold(r.header.Get("Server"), "cloudflare") || p.of || code >= 1000
	number := ""
	if code >= 1000 {
		number = fmt.Sprintf(" (error %d)", code)
	}
	switch {
	case page.PlainOnTLS:
		return "the server speaks TLS and was asked in plain http: write https:// in base_url"
	case r.status == http.StatusProxyAuthRequired:
		return "a proxy in between wants a user and a password: " + r.lookAround()
	case r.status == http.StatusNetworkAuthenticationRequired:
		return "this network wants a login first (a captive portal): log in there, or use another network"
	case edge && (code == 1015 || r.status == http.StatusTooManyRequests):
		return "Cloudflare's edge limits the requests of this machine's address" + number + ": nothing is sent for a while"
	case edge && r.status >= 500:
		return "Cloudflare's edge got no good answer from what is behind it: look at www.cloudflarestatus.com, and at base_url if it is not Cloudflare's own; " +
			"name the CF-Ray to Cloudflare's support if it lasts"
	case edge && r.status >= 400:
		return "a rule of Cloudflare's edge refused this machine" + number + ": is base_url the API, https://api.cloudflare.com/client/v4? " +
			"If it is, name the CF-Ray to Cloudflare's support"
	case edge:
		return "is base_url the API, https://api.cloudflare.com/client/v4?"
	}
	return "a proxy, a captive portal or a login page answered: " + r.lookAround()
}

// lookAround names what may be between this machine and the API.
func (r *recorder) lookAround() string {
	if r.asked == nil {
		return "look at base_url and at the network"
	}
	way := outbound.Route(r.asked)
	if way == "" {
		way = "which is asked without a proxy"
	} else {
		way = "which is asked through " + way
	}
	return fmt.Sprintf("look at base_url (%s, %s) and at the network; curl -i shows the whole answer", printable.Line(r.asked.Host, maxID), way)
}

// problem is an error of Cloudflare's edge in the format of RFC 9457.
type problem struct {
	Type, Title, Detail, Instance string
	Code                          int
	Name, RayID                   string
	of                            bool // the body is such an error
}

func readProblem(body []byte) (p problem) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil {
		return problem{}
	}
	p = problem{Type: text(fields["type"]), Title: text(fields["title"]), Detail: text(fields["detail"]), Instance: text(fields["instance"]),
		Name: text(fields["error_name"]), RayID: text(fields["ray_id"])}
	p.Code, _ = wholeNumber(fields["error_code"])
	p.of = p.Title != "" && (p.Detail != "" || p.Code != 0 || p.Type != "") || p.Code != 0
	if !p.of {
		return problem{}
	}
	return p
}

// text says what the problem is; empty if there is none.
func (p problem) text() string {
	if !p.of {
		return ""
	}
	said := ""
	if p.Code != 0 {
		said = fmt.Sprintf("error %d", p.Code)
	}
	if p.Name != "" {
		said = strings.TrimSpace(said + " " + printable.Line(p.Name, maxID))
	}
	said = joined(joined(said, printable.Line(p.Title, maxMessage)), printable.Line(p.Detail, maxMessage))
	if strings.HasPrefix(p.Type, "http") {
		said += " (see " + printable.Line(p.Type, maxURL) + ")"
	}
	return said
}
