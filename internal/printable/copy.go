package printable

import (
	"reflect"
	"time"
)

// Copy returns a copy of v in which every text is safe to show: see [Text]. It follows pointers, lists, maps and
// exported fields, also those that are added to a type later. It does not change v.
func Copy[T any](v T) T {
	var result T
	reflect.ValueOf(&result).Elem().Set(copied(reflect.ValueOf(&v).Elem()))
	return result
}

// InPlace does the same to the value that a pointer points to.
func InPlace(pointer any) {
	to := reflect.ValueOf(pointer).Elem()
	to.Set(copied(to))
}

var moment = reflect.TypeFor[time.Time]()

func copied(v reflect.Value) reflect.Value {
	if v.IsZero() || v.Type() == moment { // it has no text; this is the most frequent case
		return v
	}
	result := reflect.New(v.Type()).Elem()
	result.Set(v)
	switch v.Kind() {
	case reflect.String:
		result.SetString(Text(v.String()))
	case reflect.Pointer, reflect.Interface:
		inner := copied(v.Elem())
		if v.Kind() == reflect.Interface {
			result.Set(inner)
			break
		}
		result.Set(reflect.New(v.Type().Elem()))
		result.Elem().Set(inner)
	case reflect.Slice:
		result.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
		for i := range v.Len() {
			result.Index(i).Set(copied(v.Index(i)))
		}
	case reflect.Array:
		for i := range v.Len() {
			result.Index(i).Set(copied(v.Index(i)))
		}
	case reflect.Map:
		result.Set(reflect.MakeMapWithSize(v.Type(), v.Len()))
		for key, value := range v.Seq2() {
			result.SetMapIndex(copied(key), copied(value))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				result.Field(i).Set(copied(v.Field(i)))
			}
		}
	}
	return result
}
