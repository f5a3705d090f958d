package scheduler_test

import (
	"strings"
	"testing"

	"rotatord/internal/scheduler"
)

func TestParseRefusesOddFields(t *testing.T) {
	for _, odd := range []string{",", "0,", ",0", "0,,5", "*-5", "*-nonsense", "?-1/2", "+5", "0,+5"} {
		for i := range 5 {
			fields := []string{"1", "1", "1", "1", "1"}
			fields[i] = odd
			expression := strings.Join(fields, " ")
			if _, err := scheduler.Parse(expression, nil); err == nil || !strings.Contains(err.Error(), "five cron fields") {
				t.Errorf("Parse(%q) = %v", expression, err)
			}
		}
	}
	for _, good := range []string{"*", "?", "5", "1-5", "1-5/2", "2/2", "*/2", "5,*", "1,2-3,4/2,*/3", "0005"} {
		for i := range 5 {
			fields := []string{"1", "1", "1", "1", "1"}
			fields[i] = good
			expression := strings.Join(fields, " ")
			if _, err := scheduler.Parse(expression, nil); err != nil {
				t.Errorf("Parse(%q) = %v", expression, err)
			}
		}
	}
}
