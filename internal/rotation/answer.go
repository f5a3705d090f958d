package rotation

import (
	"errors"
	"fmt"

	"rotatord/internal/secret"
)

// replayed reports whether an answer shows the secret that a sink held before the request. Each
// request brings a new one, so that one is not the answer to it. The sealed copy is of no use.
func (w *Work) replayed(issued Issued) bool {
	for _, stored := range w.BeforeSink {
		if stored.Digest != "" && stored.Digest == issued.ClientSecret.Digest() {
			return true
		}
	}
	return false
}

// validate says what is wrong with an answer. The issuer has looked at what is around the secret: its objection
// counts last, since the other reasons say more.
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

// pendingKey says which rotation an answer belongs to.
func (e *entry) pendingKey() PendingKey {
	return PendingKey{RotationID: e.record.Work.RotationID, Token: e.token.Name, TokenID: e.record.Work.TokenID}
}
