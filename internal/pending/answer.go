package pending

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"filippo.io/age"

	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// sealedAnswer is the plaintext of a sealed answer. Only here are secrets marshalled.
type sealedAnswer struct {
	ClientID     string              `json:"client_id"`
	ClientSecret string              `json:"client_secret"`
	Facts        rotation.TokenFacts `json:"facts"`
	GraceEndsAt  time.Time           `json:"grace_ends_at,omitzero"`
	Objection    string              `json:"objection,omitempty"`
	Others       []sealedOther       `json:"others,omitempty"`
}

// sealedOther is another secret from the same answer.
type sealedOther struct {
	ClientID     string `json:"client_id,omitempty"`
	ClientSecret string `json:"client_secret"`
}

func answerOf(issued rotation.Issued) sealedAnswer {
	a := sealedAnswer{
		ClientID: issued.ClientID, ClientSecret: issued.ClientSecret.Reveal(),
		Facts: issued.Facts, GraceEndsAt: issued.GraceEndsAt, Objection: issued.Objection,
	}
	for _, other := range issued.Others {
		a.Others = append(a.Others, sealedOther{other.ClientID, other.ClientSecret.Reveal()})
	}
	return a
}

func (a sealedAnswer) issued() rotation.Issued {
	issued := rotation.Issued{
		Credential: rotation.Credential{ClientID: a.ClientID, ClientSecret: secret.New(a.ClientSecret)},
		Facts:      a.Facts, GraceEndsAt: a.GraceEndsAt, Objection: a.Objection,
	}
	for _, other := range a.Others {
		issued.Others = append(issued.Others, rotation.Credential{ClientID: other.ClientID, ClientSecret: secret.New(other.ClientSecret)})
	}
	return issued
}

func encrypt(plain []byte, recipients []age.Recipient) ([]byte, error) {
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, recipients...)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return sealed.Bytes(), nil
}

// decrypt does not use age.Decrypt, which makes two buffers of 64 KiB for however little there is: a third of the memory that
// a rotation went through.
func decrypt(ciphertext []byte, identities ...age.Identity) ([]byte, error) {
	r, size, err := age.DecryptReaderAt(bytes.NewReader(ciphertext), int64(len(ciphertext)), identities...)
	if err != nil {
		return nil, err
	}
	plain := make([]byte, size)
	if n, err := r.ReadAt(plain, 0); n < len(plain) {
		return nil, err
	}
	return plain, nil
}

// unseal decrypts an answer.
func unseal(rotationID string, ciphertext []byte, identities ...age.Identity) (rotation.Issued, error) {
	plain, err := decrypt(ciphertext, identities...)
	if err != nil {
		return rotation.Issued{}, fmt.Errorf("opening the sealed secret of rotation %s: %w: %w", rotationID, rotation.ErrUnreadable, err)
	}
	defer clear(plain)
	var a sealedAnswer
	if err := json.Unmarshal(plain, &a); err != nil {
		// The decoder's error may contain what it read.
		return rotation.Issued{}, fmt.Errorf("%w: the sealed secret of rotation %s is not in the format of this version", rotation.ErrUnreadable, rotationID)
	}
	return a.issued(), nil
}
