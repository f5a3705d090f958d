package app

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
)

// everyPort is each port of a token.
type everyPort struct {
	rotation.Issuer
	rotation.Creator
	rotation.Renewer
	rotation.Prober
	rotation.Sink
}

// TestLeanTokenIsTheToken: no field of a token is lost, also not one that is added later.
func TestLeanTokenIsTheToken(t *testing.T) {
	port := &everyPort{}
	schedule, err := scheduler.Parse("@weekly", nil)
	if err != nil {
		t.Fatal(err)
	}
	values := []any{
		schedule, []rotation.Sink{nil}, &rotation.Creation{Name: "ci"}, []rotation.Hook{{Name: "h"}}, []scheduler.Freeze{{Name: "f"}},
	}
	var fill func(v reflect.Value, path string)
	fill = func(v reflect.Value, path string) {
		for _, value := range values {
			if value != nil && reflect.TypeOf(value) == v.Type() {
				v.Set(reflect.ValueOf(value))
				return
			}
		}
		switch v.Kind() {
		case reflect.String:
			v.SetString("a " + path)
		case reflect.Bool:
			v.SetBool(true)
		case reflect.Int64:
			v.SetInt(int64(len(path)) * int64(time.Second))
		case reflect.Interface:
			v.Set(reflect.ValueOf(ports(port)[v.Type()]))
		case reflect.Struct:
			for i := range v.NumField() {
				fill(v.Field(i), path+v.Type().Field(i).Name)
			}
		default:
			t.Fatalf("the test has no value for %s, a %s", path, v.Type())
		}
	}
	var all rotation.Token
	fill(reflect.ValueOf(&all).Elem(), "")
	if got := lean(all).token(); !reflect.DeepEqual(got, all) {
		t.Errorf("%+v\nwant %+v", got, all)
	}
	// And each field by itself.
	whole, kind := reflect.ValueOf(all), reflect.TypeFor[rotation.Token]()
	for i := range kind.NumField() {
		var one rotation.Token
		reflect.ValueOf(&one).Elem().Field(i).Set(whole.Field(i))
		if got := lean(one).token(); !reflect.DeepEqual(got, one) {
			t.Errorf("%s: %+v\nwant %+v", kind.Field(i).Name, got, one)
		}
	}
	if got := (leanToken{}).token(); !reflect.DeepEqual(got, rotation.Token{}) {
		t.Errorf("%+v", got)
	}
}

// ports returns a value for each type of port.
func ports(p *everyPort) map[reflect.Type]any {
	return map[reflect.Type]any{
		reflect.TypeFor[rotation.Issuer]():  struct{ rotation.Issuer }{p.Issuer},
		reflect.TypeFor[rotation.Creator](): struct{ rotation.Creator }{p.Creator},
		reflect.TypeFor[rotation.Renewer](): struct{ rotation.Renewer }{p.Renewer},
		reflect.TypeFor[rotation.Prober]():  struct{ rotation.Prober }{p.Prober},
	}
}

// TestTokensShareTheirTerms: what tokens have in common is in memory once.
func TestTokensShareTheirTerms(t *testing.T) {
	all := make(map[any]bool)
	for i := range 100 {
		token := rotation.Token{Name: fmt.Sprint("token-", i), Account: "prod", Grace: time.Hour, Issuer: spentIssuer{}}
		token.Timetable.Key = token.Name
		l := lean(token)
		if all[l.terms] = true; l.rare != nil {
			t.Fatalf("%+v", l.rare)
		}
	}
	if len(all) != 1 {
		t.Errorf("%d terms for 100 tokens", len(all))
	}
}
