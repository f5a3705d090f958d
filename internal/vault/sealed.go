package vault

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
)

// OperationSealStatus is the name in metrics of what CheckSeal asks. Vault answers it also while it is
// sealed, so a success says only that Vault can be reached.
const OperationSealStatus = "seal_status"

const pathSealStatus = "sys/seal-status"

// SealedError says that Vault answers and cannot serve requests.
type SealedError struct{ what string }

// Error implements error.
func (e *SealedError) Error() string { return e.what }

// Cause implements rotation.Cause.
func (e *SealedError) Cause() string { return "sealed" }

// CheckSeal returns nil if Vault can be reached and is unsealed. The request needs no permission and
// costs none of the token's uses. If the answer does not say it, because a namespace or a proxy does
// not allow the question, the error is nil too: other requests will show a fault.
func (s *Session) CheckSeal(ctx context.Context) error {
	answer, err := s.send(ctx, Request{Path: pathSealStatus, Operation: OperationSealStatus})
	if status := StatusOf(err); status >= 400 && status < 500 && status != http.StatusTooManyRequests {
		return nil
	}
	if err != nil {
		return err
	}
	var seal struct {
		Initialized *bool `json:"initialized"`
		Sealed      *bool `json:"sealed"`
	}
	if answer.Status != http.StatusOK || json.Unmarshal(answer.Body, &seal) != nil {
		return nil
	}
	switch {
	case seal.Initialized != nil && !*seal.Initialized:
		return &SealedError{"Vault is not initialized yet"}
	case seal.Sealed != nil && *seal.Sealed:
		return &SealedError{"Vault is sealed: unseal it"}
	}
	return nil
}

// Cause implements rotation.Cause.
func (e *describedError) Cause() string {
	switch status := StatusOf(e.cause); {
	case status == http.StatusServiceUnavailable:
		return "sealed"
	case status == http.StatusForbidden:
		return "refused"
	case status == http.StatusTooManyRequests:
		return "throttled"
	case status >= 500:
		return "server_error"
	case status >= 400:
		return "refused"
	}
	if errors.Is(e.cause, context.DeadlineExceeded) {
		return "timeout"
	}
	if _, ok := errors.AsType[*foreignError](e.cause); ok {
		return "odd_answer"
	}
	return "unreachable"
}
