package printable_test

import (
	"reflect"
	"testing"
	"time"

	"rotatord/internal/printable"
)

type inner struct {
	Text  string
	Texts []string
	ByKey map[string]string
}

type outer struct {
	Name    string
	Kind    kind
	Pointer *inner
	List    []inner
	Any     any
	At      time.Time
	Number  int
	None    *inner
	Pair    [2]string
	own     string
}

type kind string

func TestCopy(t *testing.T) {
	const bad, good = "a\x1bb\u202e", `a\x1bb\u202e`
	at := time.Now()
	make := func(text string) outer {
		in := inner{text, []string{text}, map[string]string{text: text}}
		second := in
		return outer{Name: text, Kind: kind(text), Pointer: &in, List: []inner{second}, Any: text, At: at, Number: 7, Pair: [2]string{text, text}, own: "x"}
	}
	from := make(bad)
	if got := printable.Copy(from); !reflect.DeepEqual(got, make(good)) {
		t.Errorf("%#v", got)
	}
	if !reflect.DeepEqual(from, make(bad)) {
		t.Errorf("what was copied has changed: %#v", from)
	}
	printable.InPlace(&from)
	if !reflect.DeepEqual(from, make(good)) {
		t.Errorf("%#v", from)
	}
	if got := printable.Copy([]string(nil)); got != nil {
		t.Errorf("%#v", got)
	}
}
