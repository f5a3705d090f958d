package cloudflare

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"rotatord/internal/printable"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// wanted says what the answer to a rotate or create request must be about. Unknown fields are empty.
type wanted struct{ tokenID, clientID, name string }

// issue sends the one request whose answer contains a client secret. Whatever the answer is, a complete
// secret in it is returned: what speaks against the answer is then in Issued.Objection. The error is nil if
// there is a secret.
func (c *Client) issue(ctx context.Context, operation string, want wanted, do sdkCall) (rotation.Issued, error) {
	r, sdkErr, err := c.send(ctx, operation, c.rotate, do)
	if err != nil {
		return rotation.Issued{}, err
	}
	answer, failure := c.classify(operation, r, sdkErr)
	found, refused := findSecrets(r.body)
	if len(found) == 0 {
		if failure != nil {
			return rotation.Issued{}, failure
		}
		var result tokenResult
		_ = json.Unmarshal(answer.Result, &result) // without a secret, the rest is returned but decides nothing
		return rotation.Issued{Credential: rotation.Credential{ClientID: result.ClientID}, Facts: result.facts()}, nil
	}
	issued := want.choose(found, string(r.body))
	var objections []string
	if issued.Objection != "" {
		objections = append(objections, issued.Objection)
	}
	if refused {
		objections = append(objections, "it says success: false")
	}
	if ok := r.status >= 200 && r.status <= 299; !ok || refused {
		objections = append(objections, failureOf(failure, r.status))
	}
	issued.Objection = printable.Line(strings.Join(objections, "; "), maxObjection)
	if failure != nil || issued.Objection != "" {
		c.log.Warn("the answer is not as documented, but a complete secret is in it", "operation", operation, "status", r.status,
			"error", failure, "objection", cmp.Or(issued.Objection, "none"))
	}
	return issued, nil
}

func failureOf(failure error, status int) string {
	if failure != nil {
		return failure.Error()
	}
	return fmt.Sprintf("HTTP %d", status)
}

// maxOthers limits how many secrets are kept beside the one that was chosen, and maxObjection the bytes of
// the objection: both are sealed with the secret, in the reserved space.
const maxOthers, maxObjection = 4, 300

// choose decides which secret in an answer is the one that was asked for, and keeps the others beside it.
// Issued.Objection says why it may be the wrong one.
func (w wanted) choose(found []finding, text string) rotation.Issued {
	best := 0
	for i := range found {
		if w.score(found[i]) >= w.score(found[best]) { // the last of equals, as JSON decoders do
			best = i
		}
	}
	f := found[best]
	facts := f.object.facts()
	if strings.EqualFold(facts.ID, w.tokenID) {
		facts.ID = w.tokenID
	}
	bound := w.binds(f, len(found), text)
	issued := rotation.Issued{Credential: rotation.Credential{ClientID: facts.ClientID, ClientSecret: f.secret}, Facts: facts}
	if issued.ClientID == "" && (bound || !w.contradicts(f.object) && isNewFormat(f.secret)) { // a client ID never changes
		issued.ClientID = w.clientID
	}
	var objections []string
	if w.keepOthers(&issued, found, best) {
		objections = append(objections, "it shows several client secrets")
	}
	switch {
	case f.cut:
		objections = append(objections, "it ended with the secret")
	case !bound && !w.contradicts(f.object):
		objections = append(objections, "it does not say which service token the secret is of")
	}
	if f.object.reportsErrors() {
		objections = append(objections, "it reports errors and no success")
	}
	issued.Objection = strings.Join(objections, "; ")
	return issued
}

// binds reports whether an answer with so many secrets says that a secret is the one of what was asked for.
func (w wanted) binds(f finding, secrets int, text string) bool {
	if f.object == nil { // plain text has no fields, but it may name the service token
		return secrets == 1 && (w.clientID != "" && strings.Contains(text, w.clientID) || w.tokenID != "" && strings.Contains(text, w.tokenID))
	}
	return w.isAbout(f.object) || f.object.isResult()
}

// keepOthers keeps the secrets beside the best one. It reports whether one of those that it keeps may be
// the one that was asked for.
func (w wanted) keepOthers(issued *rotation.Issued, found []finding, best int) (ambiguous bool) {
	sure := w.score(found[best]) >= certain
	for i, other := range found {
		if i == best || len(issued.Others) == maxOthers {
			continue
		}
		issued.Others = append(issued.Others, rotation.Credential{ClientID: other.object.string("clientid"), ClientSecret: other.secret})
		if !w.contradicts(other.object) && !(sure && w.score(other) < certain) {
			ambiguous = true
		}
	}
	return ambiguous
}

// isNewFormat reports whether a secret can only be a client secret of Access. A secret in the older format
// looks like any digest.
func isNewFormat(v secret.Value) bool {
	return secret.WellFormed(v) && strings.HasPrefix(v.Reveal(), "cfast_")
}

// reportsErrors reports whether an answer has errors and does not say that it succeeded.
func (o *object) reportsErrors() (errors bool) {
	for ; o != nil; o = o.parent {
		if isTrue(o.fields["success"]) {
			return false
		}
		errors = errors || o.filled["errors"] || o.string("errors") != ""
	}
	return errors
}

// isAbout reports whether an object names what was asked for.
func (w wanted) isAbout(o *object) bool {
	if o == nil || w.contradicts(o) {
		return false
	}
	id, clientID, name := o.string("id"), o.string("clientid"), o.string("name")
	switch {
	case w.tokenID != "" && strings.EqualFold(id, w.tokenID), w.clientID != "" && clientID == w.clientID:
		return true
	case w.tokenID != "": // other users can change its name
		return false
	}
	return name != "" && name == w.name
}

// contradicts reports whether an object names something other than what was asked for.
func (w wanted) contradicts(o *object) bool {
	if o == nil {
		return false
	}
	id, clientID, name := o.string("id"), o.string("clientid"), o.string("name")
	return id != "" && w.tokenID != "" && !strings.EqualFold(id, w.tokenID) ||
		clientID != "" && w.clientID != "" && clientID != w.clientID ||
		name != "" && w.tokenID == "" && w.name != "" && name != w.name
}

// certain is the score of a secret in its documented place, in the object that names what was asked for.
const certain = 6

func (w wanted) score(f finding) (n int) {
	switch {
	case w.contradicts(f.object):
		return -1
	case w.isAbout(f.object):
		n = 4
	}
	if f.object.isResult() {
		n += 2
	}
	if secret.WellFormed(f.secret) {
		n++
	}
	return n
}
