package rotation

import (
	"slices"
	"testing"
	"time"
)

func TestRequestsOfARecord(t *testing.T) {
	at := func(seconds int) time.Time { return time.Unix(int64(1_800_000_000+seconds), 0).UTC() }
	record := Record{
		Last:    &Done{AskedAt: at(0), At: at(3)},
		Work:    &Work{IntentAt: at(100)}, // without an answer
		Doubt:   &Doubt{DecidedAt: at(200)},
		Renewal: Renewal{At: at(300)},
	}
	want := []time.Time{at(3), at(100).Add(rotateTimeout), at(200), at(300)}
	if got := record.RequestTimes(); !slices.Equal(got, want) {
		t.Errorf("%s, want %s", got, want)
	}
	record = Record{Last: &Done{AskedAt: at(0), At: at(7200)}, Work: &Work{IntentAt: at(100), SealedAt: at(101)}} // the sink was away
	want = []time.Time{at(0).Add(rotateTimeout), at(101)}
	if got := record.RequestTimes(); !slices.Equal(got, want) {
		t.Errorf("%s, want %s", got, want)
	}
	if got := (Record{Last: &Done{At: at(0)}, Work: &Work{Began: at(0)}}).RequestTimes(); len(got) != 0 {
		t.Errorf("a record without requests has the request times %s", got)
	}
}
