package rotation_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// This file tests answers that contain a good secret but are odd in another way.

// oddIssuer is an issuer whose answers are odd.
type oddIssuer struct {
	*world
	objection string
	clientID  string // replaces the right client ID
	replay    bool   // the answer shows the secret that the sink holds
}

func (o *oddIssuer) Rotate(ctx context.Context, req rotation.RotateRequest) (rotation.Issued, error) {
	if req.ClientID != o.tokenByID(req.TokenID).clientID {
		o.t.Errorf("the request is for the client ID %q", req.ClientID)
	}
	issued, err := o.world.Rotate(ctx, req)
	return o.alter(issued), err
}

func (o *oddIssuer) Create(ctx context.Context, req rotation.CreateRequest) (rotation.Issued, error) {
	issued, err := o.world.Create(ctx, req)
	return o.alter(issued), err
}

func (o *oddIssuer) alter(issued rotation.Issued) rotation.Issued {
	issued.Objection = o.objection
	if o.clientID != "" {
		issued.ClientID, issued.Facts.ClientID = o.clientID, o.clientID
	}
	if o.replay {
		issued.ClientSecret = secret.New(o.sink.ClientSecret.Reveal())
	}
	return issued
}

// odd returns the token with an issuer whose answers are odd.
func odd(token rotation.Token, w *world, o oddIssuer) (rotation.Token, *oddIssuer) {
	o.world = w
	token.Issuer, token.Creator = &o, &o
	return token, &o
}

// TestOddAnswerIsSealedAndNotDelivered: the secret is sealed and not delivered, even if the process dies right
// after the seal. An operator can order to deliver it.
func TestOddAnswerIsSealedAndNotDelivered(t *testing.T) {
	for _, dies := range []bool{false, true} {
		inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
			token, _ = odd(token, w, oddIssuer{objection: "it has HTTP 500"})
			if dies {
				w.failOnce("seal", fault{after: errors.New("x"), crash: true})
				if _, died := w.advance(r, token); !died {
					t.Fatal("it did not die")
				}
				r = w.start()
			}
			w.advance(r, token)
			record := w.record()
			if record.Step != rotation.StepInDoubt || record.Doubt.Reason != rotation.ReasonOddAnswer || !record.Doubt.Sealed || !record.Doubt.Answered() ||
				!strings.Contains(record.Doubt.Detail, "HTTP 500") || len(w.pending) != 1 {
				t.Fatalf("dies: %t: %q, %+v", dies, record.Step, record.Doubt)
			}
			w.check("while it is sealed")
			if _, _, err := r.Resolve(t.Context(), token, rotation.ResolveDeliver); err != nil {
				t.Fatal(err)
			}
			if err, _ := w.advance(r, token); err != nil || w.sink.ClientSecret.Reveal() != w.current || w.rotates != 1 || len(w.pending) != 0 {
				t.Errorf("dies: %t: %v, %d rotates, %d pending", dies, err, w.rotates, len(w.pending))
			}
		})
	}
}

// TestOddAnswersStrandNoConsumer: every answer is odd, and no operator resolves the doubts. Each secret is
// delivered before the old one dies, and no rotation is wasted.
func TestOddAnswersStrandNoConsumer(t *testing.T) {
	for _, grace := range []time.Duration{0, 40 * time.Minute} {
		inBubble(t, grace, func(w *world, token rotation.Token, r *rotation.Rotator) {
			token, _ = odd(token, w, oddIssuer{objection: "it says success: false"})
			for range 2 { // rotations
				w.advance(r, token)
				for w.record().Step != rotation.StepIdle {
					w.advance(r, token)
					w.check("while in doubt")
				}
			}
			if w.rotates != 2 || w.sink.ClientSecret.Reveal() != w.current || len(w.pending) != 0 {
				t.Errorf("grace %s: %d rotates, %d pending", grace, w.rotates, len(w.pending))
			}
		})
	}
}

// TestOddAnswerForAnotherClient: an odd answer for another client ID is sealed, and is never delivered.
func TestOddAnswerForAnotherClient(t *testing.T) {
	for _, client := range []string{"another.access", "-"} {
		inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
			token, issuer := odd(token, w, oddIssuer{objection: "it has HTTP 500", clientID: client})
			w.advance(r, token)
			if d := w.record().Doubt; d == nil || d.Reason != rotation.ReasonAnswerInvalid || !d.Sealed || d.MayDeliver() {
				t.Fatalf("%+v", d)
			}
			if _, _, err := r.Resolve(t.Context(), token, rotation.ResolveDeliver); !errors.Is(err, rotation.ErrUnfit) ||
				!strings.Contains(err.Error(), "the sealed answer holds no secret that ci could use (") {
				t.Errorf("the refusal does not say why: %v", err)
			}
			issuer.objection, issuer.clientID = "", ""
			for w.record().Step != rotation.StepIdle {
				w.advance(r, token)
				w.check("while in doubt")
			}
			if w.rotates != 1 && w.rotates != 2 || w.sink.ClientID != clientID {
				t.Errorf("%d rotates, and the sink holds %s", w.rotates, w.sink.ClientID)
			}
		})
	}
}

// TestRepeatedAnswerIsNotDelivered: an answer that contains the sink's present secret is not the answer to this
// request. If it was delivered, the rotation would count as done, although it may have cut consumers off.
func TestRepeatedAnswerIsNotDelivered(t *testing.T) {
	inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token, issuer := odd(token, w, oddIssuer{replay: true})
		w.advance(r, token)
		if d := w.record().Doubt; d == nil || d.Reason != rotation.ReasonOutcomeUnknown || d.Sealed {
			t.Fatalf("%q, %+v", w.record().Step, d)
		}
		issuer.replay = false
		for w.record().Step != rotation.StepIdle || w.record().Last == nil {
			w.advance(r, token)
			w.check("while in doubt")
		}
		if w.sink.ClientSecret.Reveal() != w.current || len(w.pending)+len(w.reserved) != 0 {
			t.Errorf("%d rotates, %d pending", w.rotates, len(w.pending))
		}
	})
}

// TestOddAnswerToACreate: an odd answer to a create is delivered automatically once Cloudflare shows the
// service token that was created.
func TestOddAnswerToACreate(t *testing.T) {
	inFresh(t, replacing, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.runUntilIdle(r, token)
		token, _ = odd(token, w, oddIssuer{objection: "it has HTTP 500"})
		w.advance(r, token)
		if d := w.record().Doubt; d == nil || d.Reason != rotation.ReasonOddAnswer {
			t.Fatalf("%q, %+v", w.record().Step, d)
		}
		creates := w.creates
		w.runFor(r, token, 10*time.Minute)
		last := w.created[len(w.created)-1]
		if w.creates != creates || w.sink.ClientID != last.clientID || w.sink.ClientSecret.Reveal() != last.current {
			t.Errorf("%d more creates, and the sink holds %s: %+v", w.creates-creates, w.sink.ClientID, w.record())
		}
	})
}
