package sink

import (
	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// This file says which fields a sink has after a delivery. It is the same for all kinds of sinks.

// assignment is a value for a name.
type assignment struct{ name, value string }

// ownFields are the names of the fields that belong to rotatord.
func ownFields(f config.SinkFields) []string {
	names := []string{f.ClientIDField, f.ClientSecretField}
	for _, name := range []string{f.PreviousSecretField, f.PreviousEndsField, f.PreviousIDField} {
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

// wanted returns the values of our fields after a delivery. get returns the value that a field has now,
// empty if there is none.
//
// The secret that the sink has now becomes the previous one if it is the one that the rotation has replaced.
// If the sink has that one as the previous secret already, the delivery is a repeated one, and the field stays,
// with the end that was written with it. In all other cases no previous secret is known to work, and the
// fields are empty: a secret that has ended would mislead consumers. They are emptied and not removed, because
// templates and operators that read a secret often fail on a missing field.
func wanted(f config.SinkFields, get func(name string) string, d rotation.Delivery) []assignment {
	all := []assignment{{f.ClientIDField, d.ClientID}, {f.ClientSecretField, d.ClientSecret.Reveal()}}
	if f.PreviousSecretField == "" {
		return all
	}
	var id, value, ends string
	current, previous := get(f.ClientSecretField), get(f.PreviousSecretField)
	switch {
	case d.Replaces == "" || d.GraceEndsAt.IsZero():
	case isSecret(current, d.Replaces):
		id, value, ends = get(f.ClientIDField), current, shownTime(d.GraceEndsAt)
	case isSecret(previous, d.Replaces):
		id, value, ends = get(f.PreviousIDField), previous, get(f.PreviousEndsField)
	}
	for _, a := range []assignment{{f.PreviousSecretField, value}, {f.PreviousEndsField, ends}, {f.PreviousIDField, id}} {
		if a.name != "" {
			all = append(all, a)
		}
	}
	return all
}

// isSecret reports whether a text is the secret with that digest, which is not empty.
func isSecret(text string, digest secret.Digest) bool {
	return text != "" && secret.New(text).Digest() == digest
}

// have reports whether all fields have these values now.
func have(get func(name string) string, all []assignment) bool {
	for _, a := range all {
		if get(a.name) != a.value {
			return false
		}
	}
	return true
}
