// Package packed keeps a value in few bytes. A fleet has one large record for each token. Nearly all fields of it are
// zero, and between two rotations it is only looked at.
//
// Guarantees: [Value.Get] returns what [Of] was given, for every field that the type has. Two things are different: a
// time comes back in UTC and without its monotonic reading, and pointers, slices and maps are copies. A packed value is
// never changed. It is one string, so the garbage collector has nothing to follow in it.
package packed

import (
	"encoding/binary"
	"reflect"
	"sync"
)

// Value is a packed T. T is a struct whose fields are exported, and are strings, whole numbers, booleans, times, or
// structs, pointers, slices and maps of these; the keys of maps are strings. No type may
// contain itself. For another type Of panics. The zero Value is the zero T.
type Value[T any] struct{ packed string }

// Of packs v.
func Of[T any](v T) Value[T] {
	t := typeOf[T]()
	scratch := t.scratch.Get().(*T) // what reflection sees is on the heap, and v need not be
	w := writers.Get().(*writer)
	*scratch = v
	t.encode(w, reflect.ValueOf(scratch).Elem())
	p := Value[T]{string(w.bytes)}
	*scratch = *new(T)
	t.scratch.Put(scratch)
	w.bytes, w.seen = w.bytes[:0], clearing(w.seen)
	writers.Put(w)
	return p
}

// Get returns the value. Its strings share the memory of the packed value.
func (p Value[T]) Get() (v T) {
	if p.packed == "" {
		return v
	}
	t := typeOf[T]()
	scratch := t.scratch.Get().(*T)
	r := readers.Get().(*reader)
	r.rest = p.packed
	t.decode(r, reflect.ValueOf(scratch).Elem())
	v, *scratch = *scratch, v
	t.scratch.Put(scratch)
	r.rest, r.seen = "", clearing(r.seen)
	readers.Put(r)
	return v
}

// packedType is how a T is packed, and memory to do that in.
type packedType struct {
	codec
	scratch *sync.Pool // of *T
}

var types sync.Map // from reflect.Type to *packedType

func typeOf[T any]() *packedType {
	key := reflect.TypeFor[T]()
	if known, ok := types.Load(key); ok {
		return known.(*packedType)
	}
	made := &packedType{codec: codecOf(key), scratch: &sync.Pool{New: func() any { return new(T) }}}
	known, _ := types.LoadOrStore(key, made)
	return known.(*packedType)
}

var (
	writers = sync.Pool{New: func() any { return new(writer) }}
	readers = sync.Pool{New: func() any { return new(reader) }}
)

// minShared is the length from which on a string that comes again is written once.
const minShared = 3

// writer is what was packed so far.
type writer struct {
	bytes []byte
	seen  []string // that are at least minShared long
}

func (w *writer) number(n uint64) { w.bytes = binary.AppendUvarint(w.bytes, n) }
func (w *writer) signed(n int64)  { w.bytes = binary.AppendVarint(w.bytes, n) }

// text writes a string: its length and its bytes, or that it is the same as one before.
func (w *writer) text(s string) {
	if len(s) >= minShared {
		for i, before := range w.seen {
			if before == s {
				w.number(uint64(i)<<1 | 1)
				return
			}
		}
		w.seen = append(w.seen, s)
	}
	w.number(uint64(len(s)) << 1)
	w.bytes = append(w.bytes, s...)
}

// reader is what is still to be read. What it reads was written by a writer of this process, so it is never malformed.
type reader struct {
	rest string
	seen []string
}

func (r *reader) number() (n uint64) {
	for shift := 0; ; shift += 7 {
		b := r.rest[0]
		r.rest = r.rest[1:]
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return n
		}
	}
}

func (r *reader) signed() int64 {
	n := r.number()
	return int64(n>>1) ^ -int64(n&1)
}

func (r *reader) text() string {
	n := r.number()
	if n&1 == 1 {
		return r.seen[n>>1]
	}
	s := r.rest[:n>>1]
	r.rest = r.rest[n>>1:]
	if len(s) >= minShared {
		r.seen = append(r.seen, s)
	}
	return s
}

// clearing returns an empty slice with the same memory, which keeps no string alive.
func clearing(all []string) []string {
	clear(all)
	return all[:0]
}
