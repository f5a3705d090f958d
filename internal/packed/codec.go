package packed

import (
	"fmt"
	"reflect"
	"time"
)

// codec packs values of one type. decode is given a zero value.
type codec interface {
	encode(*writer, reflect.Value)
	decode(*reader, reflect.Value)
}

var timeType = reflect.TypeFor[time.Time]()

// codecOf returns how values of a type are packed. It panics if they cannot be.
func codecOf(t reflect.Type) codec {
	switch t.Kind() {
	case reflect.Bool:
		return boolCodec{}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return intCodec{}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return uintCodec{}
	case reflect.String:
		return stringCodec{}
	case reflect.Pointer:
		return pointerCodec{t.Elem(), codecOf(t.Elem())}
	case reflect.Slice:
		return sliceCodec{t, codecOf(t.Elem())}
	case reflect.Map:
		if t.Key().Kind() == reflect.String {
			return mapCodec{t, codecOf(t.Elem())}
		}
	case reflect.Struct:
		if t == timeType {
			return timeCodec{}
		}
		c := structCodec{make([]codec, t.NumField())}
		for i := range c.fields {
			f := t.Field(i)
			if !f.IsExported() {
				panic(fmt.Sprintf("packed: the field %s of %s is not exported", f.Name, t))
			}
			c.fields[i] = codecOf(f.Type)
		}
		return c
	}
	panic(fmt.Sprintf("packed: a %s cannot be packed", t))
}

type boolCodec struct{}

func (boolCodec) encode(w *writer, v reflect.Value) {
	n := uint64(0)
	if v.Bool() {
		n = 1
	}
	w.number(n)
}
func (boolCodec) decode(r *reader, v reflect.Value) { v.SetBool(r.number() == 1) }

type intCodec struct{}

func (intCodec) encode(w *writer, v reflect.Value) { w.signed(v.Int()) }
func (intCodec) decode(r *reader, v reflect.Value) { v.SetInt(r.signed()) }

type uintCodec struct{}

func (uintCodec) encode(w *writer, v reflect.Value) { w.number(v.Uint()) }
func (uintCodec) decode(r *reader, v reflect.Value) { v.SetUint(r.number()) }

type stringCodec struct{}

func (stringCodec) encode(w *writer, v reflect.Value) { w.text(v.String()) }
func (stringCodec) decode(r *reader, v reflect.Value) { v.SetString(r.text()) }

type timeCodec struct{}

func (timeCodec) encode(w *writer, v reflect.Value) {
	t := v.Addr().Interface().(*time.Time)
	w.signed(t.Unix())
	w.number(uint64(t.Nanosecond()))
}

func (timeCodec) decode(r *reader, v reflect.Value) {
	sec := r.signed()
	*v.Addr().Interface().(*time.Time) = time.Unix(sec, int64(r.number())).UTC()
}

type pointerCodec struct {
	of   reflect.Type
	elem codec
}

func (c pointerCodec) encode(w *writer, v reflect.Value) {
	if v.IsNil() {
		w.number(0)
		return
	}
	w.number(1)
	c.elem.encode(w, v.Elem())
}

func (c pointerCodec) decode(r *reader, v reflect.Value) {
	if r.number() == 1 {
		v.Set(reflect.New(c.of))
		c.elem.decode(r, v.Elem())
	}
}

// sliceCodec writes one more than the length, and 0 for nil.
type sliceCodec struct {
	of   reflect.Type
	elem codec
}

func (c sliceCodec) encode(w *writer, v reflect.Value) {
	if v.IsNil() {
		w.number(0)
		return
	}
	w.number(uint64(v.Len()) + 1)
	for i := range v.Len() {
		c.elem.encode(w, v.Index(i))
	}
}

func (c sliceCodec) decode(r *reader, v reflect.Value) {
	n := int(r.number()) - 1
	if n < 0 {
		return
	}
	v.Set(reflect.MakeSlice(c.of, n, n))
	for i := range n {
		c.elem.decode(r, v.Index(i))
	}
}

// mapCodec writes one more than the length, and 0 for nil.
type mapCodec struct {
	of   reflect.Type
	elem codec
}

func (c mapCodec) encode(w *writer, v reflect.Value) {
	if v.IsNil() {
		w.number(0)
		return
	}
	w.number(uint64(v.Len()) + 1)
	elem := reflect.New(c.of.Elem()).Elem() // a value in a map has no address
	for all := v.MapRange(); all.Next(); {
		w.text(all.Key().String())
		elem.SetIterValue(all)
		c.elem.encode(w, elem)
	}
}

func (c mapCodec) decode(r *reader, v reflect.Value) {
	n := int(r.number()) - 1
	if n < 0 {
		return
	}
	v.Set(reflect.MakeMapWithSize(c.of, n))
	for range n {
		key, elem := reflect.New(c.of.Key()).Elem(), reflect.New(c.of.Elem()).Elem()
		key.SetString(r.text())
		c.elem.decode(r, elem)
		v.SetMapIndex(key, elem)
	}
}

// structCodec writes which fields are not zero, eight in a byte, and then these fields.
type structCodec struct{ fields []codec }

func (c structCodec) encode(w *writer, v reflect.Value) {
	from := len(w.bytes)
	for range (len(c.fields) + 7) / 8 {
		w.bytes = append(w.bytes, 0)
	}
	for i, field := range c.fields {
		if f := v.Field(i); !f.IsZero() {
			w.bytes[from+i/8] |= 1 << (i % 8)
			field.encode(w, f)
		}
	}
}

func (c structCodec) decode(r *reader, v reflect.Value) {
	size := (len(c.fields) + 7) / 8
	there := r.rest[:size]
	r.rest = r.rest[size:]
	for i, field := range c.fields {
		if there[i/8]&(1<<(i%8)) != 0 {
			field.decode(r, v.Field(i))
		}
	}
}
