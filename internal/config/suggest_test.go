package config_test

import (
	"testing"

	"rotatord/internal/config"
)

// TestSuggest: a name that is not known is answered with the names that were probably meant.
func TestSuggest(t *testing.T) {
	for _, test := range []struct {
		name  string
		known []string
		want  string
	}{
		{"t9", []string{"t2", "t1"}, "did you mean t1 or t2?"},
		{"t9", []string{"t3", "t2", "t1"}, "did you mean t1, t2 or t3?"},
		{"t9", []string{"t4", "t3", "t2", "t1"}, "did you mean t1, t2, t3, or another one (4 are as near)?"},
		{"othr", []string{"ci", "other"}, "did you mean other?"},
		{"zzzzzz", []string{"other", "ci"}, "known here: ci, other"},
		{"t9", nil, "there are none"},
	} {
		if got := config.Suggest(test.name, test.known); got != test.want {
			t.Errorf("%s of %q: %q, want %q", test.name, test.known, got, test.want)
		}
	}
}
