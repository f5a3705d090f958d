package rotation

import (
	"errors"
	"fmt"

	"rotatord/internal/secret"
)

// replayed reports whether an answer shows a secret that a sink held before the request. Each request
// issues a new secret, so this is not its answer, and the sealed copy is useless.
func (w *Work) replayed(issued Issued) bool {
	for _, stored := range w.BeforeSink {
		if stored.Digest != "" && stored.Digest == issued.ClientSecret.Digest() {
			return true
		}
	}
	return false
}

// validate returns what is wrong with an answer: a reason code and an error; empty and nil if nothing is
// wrong. The issuer has checked the parts of the answer around the secret. Its objection comes last,
// because the other reasons say more.
func validate(before TokenFacts, issued Issued) (reason string, err error) {
	switch {
	case issued.ClientID == "" && issued.Objection != "":
		return ReasonAnswerInvalid, fmt.Errorf("the answer has no client ID: %s", issued.Objection)
	case issued.ClientID == "":
		return ReasonAnswerInvalid, errors.New("the answer has no client ID")
	case before.ClientID != "" && issued.ClientID != before.ClientID:
		return ReasonAnswerInvalid, fmt.Errorf("the answer is for client ID %q, not %q", issued.ClientID, before.ClientID)
	case issued.Facts.ID != "" && issued.Facts.ID != before.ID && before.ID != "":
		return ReasonAnswerInvalid, fmt.Errorf("the answer is for token %q, not %q", issued.Facts.ID, before.ID)
	case secret.Damaged(issued.ClientSecret):
		return ReasonAnswerInvalid, errors.New("the answer's client secret is a damaged form of a known format")
	case issued.Objection != "":
		return ReasonOddAnswer, fmt.Errorf("the answer shows a client secret, and %s", issued.Objection)
	case !secret.WellFormed(issued.ClientSecret):
		return ReasonUnfamiliarSecret, errors.New("the answer's client secret has neither of the two known formats")
	}
	return "", nil
}

func classOf(err error) Class {
	if e, ok := errors.AsType[*IssuerError](err); ok {
		return e.Class
	}
	return Unknown
}

func (c Class) reason() string {
	switch c {
	case NotCarriedOut:
		return "not_carried_out"
	case Refused:
		return "refused"
	case Throttled:
		return "throttled"
	default:
		return ReasonOutcomeUnknown
	}
}

// pendingKey returns the key that says which rotation an answer belongs to.
func (e *entry) pendingKey() PendingKey {
	return PendingKey{RotationID: e.record.Work.RotationID, Token: e.token.Name, TokenID: e.record.Work.TokenID}
}
