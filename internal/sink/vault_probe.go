package sink

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"rotatord/internal/vault"
)

// impossible is a check-and-set that no version can match. Vault counts versions from 1, uses 0
// for "no version yet", and compares unsigned numbers, in which -1 is the largest one. A server
// that does not accept negative numbers refuses it as well. (Never send null, true or false: Vault
// reads them as 0 and 1.)
const impossible = -1

// probe proves that the write would be allowed, and writes nothing. It sends the same request with a
// check-and-set that cannot match. Vault answers 400 if the policy, its allowed, denied and required
// parameters and the rate limits allow the request, and 403 if they do not.
//
// The request has the fields that are stored already, and empty ones for those that are missing. So
// even a server that ignores the check would store nothing new.
func (v *Vault) probe(ctx context.Context, kv int, now content) error {
	var same []assignment
	for _, name := range ownFields(v.config.SinkFields) {
		same = append(same, assignment{name, now.text(name)})
	}
	body := v.body(kv, now, same, impossible)
	answer, err := v.session.Send(ctx, vault.Request{Path: v.path(kv), Body: body, Operation: "probe"})
	switch status := vault.StatusOf(err); {
	case err == nil && answer.Status == http.StatusOK:
		return fmt.Errorf("%s accepted a write whose check-and-set cannot match, which Vault refuses: a write of another program could be lost, so nothing is rotated", v.path(kv))
	case err == nil:
		if _, err = writeAnswer(kv, answer); err != nil {
			return fmt.Errorf("trying whether %s may be written: %w", v.path(kv), err)
		}
		return fmt.Errorf("trying whether %s may be written: %w", v.path(kv), notVaults(answer, "to a write that it must refuse"))
	case conflict(err):
		return nil
	case status == http.StatusForbidden:
		return fmt.Errorf("the policy does not allow %s at %s with the parameters data and options (%w): add to it\n"+
			"  path %q { capabilities = [\"create\", \"read\", \"update\"] }\n"+
			"and let no allowed_parameters, denied_parameters, required_parameters or wrapping TTL there refuse the write",
			v.need(now), v.path(kv), err, v.path(kv))
	case status == http.StatusBadRequest:
		return fmt.Errorf("%s cannot be written: %w", v.path(kv), err)
	default:
		return fmt.Errorf("trying whether %s may be written: %w", v.path(kv), err)
	}
}

// need returns the capability that a write needs. It depends on whether a version is stored already.
func (v *Vault) need(now content) string {
	if now.fields != nil || now.version > 0 {
		return "update"
	}
	return "create"
}

// mayWrite asks Vault what the policy allows. Version 1 has no check-and-set, so nothing more
// can be found out without writing. The answer does not consider allowed_parameters.
func (v *Vault) mayWrite(ctx context.Context, kv int, now content) error {
	path := v.path(kv)
	all, err := v.session.Capabilities(ctx, []string{path})
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	have := all[path]
	need := v.need(now)
	if slices.Contains(have, "root") || slices.Contains(have, need) {
		return nil
	}
	return fmt.Errorf("the policy does not allow %s at %s (it allows: %s): add to it\n  path %q { capabilities = [\"create\", \"read\", \"update\"] }",
		need, path, strings.Join(have, ", "), path)
}
