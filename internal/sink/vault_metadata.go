package sink

import (
	"context"
	"strings"
	"time"
	"unicode"

	"rotatord/internal/rotation"
)

// This file notes rotations in the custom metadata of a secret, for people. No part of rotatord reads them.

// The keys have a prefix, because other people and programs have keys there too.
const (
	keyRotatedAt  = "rotatord_rotated_at"
	keyRotatedBy  = "rotatord_rotated_by"
	keyRotationID = "rotatord_rotation_id"
	keyGraceEnd   = "rotatord_grace_end"
)

const (
	// noGrace is the value of keyGraceEnd if the previous secret has ended. Vault does not accept an empty
	// value, and rotatord deletes nothing.
	noGrace = "none"
	// maxCustomKeys is how many keys Vault accepts when a person writes all of them. A merge may exceed it,
	// and then that person could not write them any more.
	maxCustomKeys = 64
	// maxCustomValue is the longest value, in bytes.
	maxCustomValue = 512
	// noteTimeout bounds the request.
	noteTimeout = 5 * time.Second
)

// note writes the custom metadata after the credential was read back. It does not delay the rotation, and
// its failure means nothing. now is what was read back.
func (v *Vault) note(ctx context.Context, kv int, now content, d rotation.Delivery) {
	if kv != 2 || !v.config.Metadata || d.RotationID == "" || !v.session.MayAnnotate(v.config.Mount) {
		return
	}
	values := customMetadata(d)
	if now.custom[keyRotationID] == d.RotationID || !fits(now.custom, values) {
		return
	}
	v.mu.Lock()
	repeated := v.noted == d.RotationID
	v.noted = d.RotationID
	v.mu.Unlock()
	if repeated {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
		defer cancel()
		v.session.Annotate(ctx, v.config.Mount, v.config.Path, values)
	}()
}

func customMetadata(d rotation.Delivery) map[string]string {
	end := noGrace
	if !d.GraceEndsAt.IsZero() {
		end = shownTime(d.GraceEndsAt)
	}
	all := map[string]string{keyRotationID: d.RotationID, keyRotatedAt: shownTime(d.At), keyRotatedBy: d.By, keyGraceEnd: end}
	for key, value := range all {
		value = strings.Map(func(r rune) rune {
			if !unicode.IsPrint(r) {
				return -1
			}
			return r
		}, strings.ToValidUTF8(value, ""))
		if value = strings.ToValidUTF8(value[:min(len(value), maxCustomValue)], ""); value == "" {
			delete(all, key)
			continue
		}
		all[key] = value
	}
	return all
}

// shownTime is how a time is written for people and programs that read a sink.
func shownTime(t time.Time) string { return t.UTC().Truncate(time.Second).Format(time.RFC3339) }

// fits reports whether Vault would accept all keys together.
func fits(have, more map[string]string) bool {
	n := len(have)
	for key := range more {
		if _, ok := have[key]; !ok {
			n++
		}
	}
	return n <= maxCustomKeys
}
