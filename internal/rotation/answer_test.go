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

// This file holds what becomes of answers with a good secret that something speaks against.

// oddIssuer answers so.
type oddIssuer struct {
	*world
	objection string
	clientID  string // in place of the right one
	replay    bool   // the answer shows the secret that the sink holds
}

func (o *oddIssuer) Rotate(ctx context.Context, req rotation.RotateRequest) (rotation.Issued, error) {
	if req.ClientID != o.tokenByID(req.TokenID).clientID {
		o.t.Errorf("the answer is to be for %q", req.ClientID)
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

// odd makes the token one that is answered so.
func odd(token rotation.Token, w *world, o oddIssuer) (rotation.Token, *oddIssuer) {
	o.world = w
	token.Issuer, token.Creator = &o, &o
	return token, &o
}

// TestOddAnswerIsSealedAndNotDelivered: the secret is sealed and not delivered, also when the process dies right behind
// the seal, and an operator may have it delivered.
func TestOddAnswerIsSealedAndNotDelivered(t *testing.T) {
	for _, dies := range []bool{false, true} {
		inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
			token, _ = odd(token, w, oddIssuer{objection: "it has HTTP 500"})
			if dies {
				w.failOnce("seal", fault{after: errors.New("x"), crash: true})
				if _, died := w.advance(r, token); !died {
					t.Fatal("it has not died")
				}
				r = w.start()
			}
			w.advance(r, token)
			record := w.record()
			if record.Step != rotation.StepInDoubt || record.Doubt.Reason != rotation.ReasonOddAnswer || !record.Doubt.Sealed || !record.Doubt.Answered() ||
				!strings.Contains(record.Doubt.Detail, "HTTP 500") || len(w.pending) != 1 {
				t.Fatalf("dies: %t: %q, %+v", dies, record.Step, record.Doubt)
			}
			w.check("while it is kept")
			if _, _, err := r.Resolve(t.Context(), token, rotation.ResolveDeliver); err != nil {
				t.Fatal(err)
			}
			if err, _ := w.advance(r, token); err != nil || w.sink.ClientSecret.Reveal() != w.current || w.rotates != 1 || len(w.pending) != 0 {
				t.Errorf("dies: %t: %v, %d rotates, %d pending", dies, err, w.rotates, len(w.pending))
			}
		})
	}
}

// TestOddAnswersStrandNoConsumer: where every answer is odd and nobody decides, the secret is delivered
// before the old one dies, and no rotation is wasted.
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

// TestOddAnswerForAnotherClient: it is sealed, and is never delivered.
func TestOddAnswerForAnotherClient(t *testing.T) {
	for _, client := range []string{"another.access", "-"} {
		inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
			token, issuer := odd(token, w, oddIssuer{objection: "it has HTTP 500", clientID: client})
			w.advance(r, token)
			if d := w.record().Doubt; d == nil || d.Reason != rotation.ReasonAnswerInvalid || !d.Sealed || d.MayDeliver() {
				t.Fatalf("%+v", d)
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

// TestRepeatedAnswerIsNotDelivered: an answer with the secret that the sink holds is not the answer to
// this request. Delivering it would end a rotation that may have cut consumers off.
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

// TestOddAnswerToACreate: it is delivered by itself once Cloudflare shows what was created.
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
		made := w.created[len(w.created)-1]
		if w.creates != creates || w.sink.ClientID != made.clientID || w.sink.ClientSecret.Reveal() != made.current {
			t.Errorf("%d more creates, and the sink holds %s: %+v", w.creates-creates, w.sink.ClientID, w.record())
		}
	})
}
