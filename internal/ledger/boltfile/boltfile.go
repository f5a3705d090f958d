// Package boltfile proves that a bbolt file can be read, before bbolt maps it into memory.
//
// bbolt trusts its file: numbers in it become addresses and loop bounds. In a file that was truncated, or
// whose bits have flipped, that leads to a bus error, to an endless loop, or to an older state of the file
// that is silently taken for the present one. No recover can stop a bus error, because it strikes in
// whichever goroutine reads.
//
// Guarantee: on a file that [Check] accepts, bbolt reads only what exists, and its reads end; no page is
// in use twice, or in use and listed as free; and both copies of the root are whole and of consecutive transactions, so no
// transaction was lost. Keys and values are not checked: they need a checksum of their own.
//
// It knows version 2 of bbolt's file format, which is the only one, and refuses others.
package boltfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
)

// Info is what a good file says about itself.
type Info struct {
	// Transactions is how many transactions were committed since the file was created.
	Transactions uint64
}

// The parts of the format, as bbolt's internal/common lays them out.
const (
	magic         = 0xED0CDAED
	version       = 2
	minPageSize   = 1024
	maxPageSize   = 64 << 10
	headerSize    = 16 // of a page: id 8, flags 2, count 2, overflow 4
	elementSize   = 16 // of an entry in a branch or a leaf
	bucketSize    = 16 // in front of a bucket: root 8, sequence 8
	metaSize      = 64
	branchFlag    = 0x01
	leafFlag      = 0x02
	freelistFlag  = 0x10
	bucketElement = 0x01
	noFreelist    = ^uint64(0)
	longFreelist  = 0xFFFF
	maxDepth      = 64 // more levels than any tree that fits on a disk
)

var order = binary.NativeEndian // bbolt writes the byte order of the machine

// Check proves that b, the content of a whole file, can be read.
func Check(b []byte) (Info, error) {
	f, err := readMetas(b)
	if err != nil {
		return Info{}, err
	}
	if err := f.tree(f.meta.root, nil, nil, 0); err != nil {
		return Info{}, err
	}
	if err := f.freelist(); err != nil {
		return Info{}, err
	}
	return Info{Transactions: f.meta.txid - 1}, nil // creating the file counts as one
}

// meta is one of the two copies of the root.
type meta struct {
	pageSize                   uint32
	root, freelist, high, txid uint64 // high: pages from here on were never used
}

// file is a file whose two metas are good.
type file struct {
	b    []byte
	meta meta
	size uint64 // of a page
	used []bool // by page
}

func readMetas(b []byte) (*file, error) {
	first, err := readMeta(b, 0)
	if err != nil {
		return nil, err
	}
	second, err := readMeta(b, int(first.pageSize))
	if err != nil {
		return nil, err
	}
	latest, other := first, second
	if second.txid > first.txid {
		latest, other = second, first
	}
	if latest.txid != other.txid+1 || first.pageSize != second.pageSize {
		return nil, errors.New("its two roots do not belong together: the last change may be missing")
	}
	f := &file{b: b, meta: latest, size: uint64(latest.pageSize)}
	if there := uint64(len(b)) / f.size; latest.high > there {
		return nil, fmt.Errorf("it is truncated: %d bytes of %d are there", len(b), latest.high*f.size)
	}
	if latest.high < 2 {
		return nil, errors.New("its root cannot be right")
	}
	f.used = make([]bool, latest.high)
	f.used[0], f.used[1] = true, true
	return f, nil
}

func readMeta(b []byte, at int) (m meta, err error) {
	if len(b) < at+headerSize+metaSize {
		return m, fmt.Errorf("it is truncated: %d bytes are there", len(b))
	}
	raw := b[at+headerSize:][:metaSize]
	if order.Uint32(raw) != magic {
		return m, fmt.Errorf("it has no root at byte %d: it is damaged or no bbolt file", at)
	}
	if v := order.Uint32(raw[4:]); v != version {
		return m, fmt.Errorf("it is of version %d of bbolt's format, and this program reads %d", v, version)
	}
	sum := fnv.New64a()
	_, _ = sum.Write(raw[:56])
	if sum.Sum64() != order.Uint64(raw[56:]) {
		return m, fmt.Errorf("its root at byte %d has a wrong checksum: the last change may be missing", at)
	}
	m = meta{
		pageSize: order.Uint32(raw[8:]), root: order.Uint64(raw[16:]),
		freelist: order.Uint64(raw[32:]), high: order.Uint64(raw[40:]), txid: order.Uint64(raw[48:]),
	}
	if m.pageSize < minPageSize || m.pageSize > maxPageSize || m.pageSize&(m.pageSize-1) != 0 {
		return m, fmt.Errorf("its page size cannot be %d", m.pageSize)
	}
	return m, nil
}

// page is one page, with the pages that it overflows into.
type page struct {
	flags, count uint16
	content      []byte // header included
}

// take returns a page and notes that it is in use.
func (f *file) take(id uint64) (p page, err error) {
	if id < 2 || id >= f.meta.high {
		return p, fmt.Errorf("page %d does not exist", id)
	}
	header := f.b[id*f.size:][:headerSize]
	if order.Uint64(header) != id {
		return p, fmt.Errorf("page %d contains another page", id)
	}
	pages := uint64(order.Uint32(header[12:])) + 1
	if pages > f.meta.high-id {
		return p, fmt.Errorf("page %d overflows the file", id)
	}
	for i := id; i < id+pages; i++ {
		if f.used[i] {
			return p, fmt.Errorf("page %d is used twice", i)
		}
		f.used[i] = true
	}
	p = page{flags: order.Uint16(header[8:]), count: order.Uint16(header[10:]), content: f.b[id*f.size:][:pages*f.size]}
	return p, nil
}

// tree checks the tree below a page. Its keys are at least least, and less than end if that is not nil.
func (f *file) tree(id uint64, least, end []byte, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("page %d is too deep in its tree", id)
	}
	p, err := f.take(id)
	if err != nil {
		return err
	}
	switch p.flags {
	case leafFlag:
		err = p.leaf(least, end, func(value []byte) error { return f.bucket(value, depth) })
	case branchFlag:
		err = p.branch(least, end, func(child uint64, least, end []byte) error { return f.tree(child, least, end, depth+1) })
	default:
		err = fmt.Errorf("it is neither branch nor leaf (%#x)", p.flags)
	}
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

// leaf checks the entries of a leaf, and calls bucket for each entry that is one.
func (p page) leaf(least, end []byte, bucket func([]byte) error) error {
	for i := range int(p.count) {
		at := headerSize + i*elementSize
		if at+elementSize > len(p.content) {
			return fmt.Errorf("%d entries do not fit into it", p.count)
		}
		element := p.content[at:]
		key, value, err := keyAndValue(element, order.Uint32(element[4:]), order.Uint32(element[8:]), order.Uint32(element[12:]))
		if err == nil {
			err = inOrder(key, least, end, i == 0)
		}
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		least = key
		switch order.Uint32(element) {
		case 0:
		case bucketElement:
			if err := bucket(value); err != nil {
				return fmt.Errorf("entry %d: %w", i, err)
			}
		default:
			return fmt.Errorf("entry %d is neither value nor bucket", i)
		}
	}
	return nil
}

// branch checks the entries of a branch, and calls child for the page below each.
func (p page) branch(least, end []byte, child func(id uint64, least, end []byte) error) error {
	if p.count == 0 || headerSize+int(p.count)*elementSize > len(p.content) {
		return fmt.Errorf("it cannot have %d entries", p.count)
	}
	keys, children := make([][]byte, p.count), make([]uint64, p.count)
	for i := range keys {
		element := p.content[headerSize+i*elementSize:]
		key, _, err := keyAndValue(element, order.Uint32(element), order.Uint32(element[4:]), 0)
		if err == nil {
			err = inOrder(key, least, end, i == 0)
		}
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		keys[i], children[i], least = key, order.Uint64(element[8:]), key
	}
	for i, id := range children {
		next := end
		if i+1 < len(keys) {
			next = keys[i+1]
		}
		if err := child(id, keys[i], next); err != nil {
			return err
		}
	}
	return nil
}

// keyAndValue returns the key and the value of an entry. Their positions are relative to the entry.
func keyAndValue(element []byte, pos, keySize, valueSize uint32) (key, value []byte, err error) {
	start, middle := uint64(pos), uint64(pos)+uint64(keySize)
	end := middle + uint64(valueSize)
	if start < elementSize || end > uint64(len(element)) || keySize == 0 {
		return nil, nil, errors.New("it points to where nothing can be")
	}
	return element[start:middle], element[middle:end], nil
}

// inOrder reports a key that is out of order. The first key of a page may equal the key that leads to the
// page.
func inOrder(key, least, end []byte, first bool) error {
	c := bytes.Compare(key, least)
	if least != nil && (c < 0 || c == 0 && !first) || end != nil && bytes.Compare(key, end) >= 0 {
		return errors.New("its key is out of order")
	}
	return nil
}

// bucket checks a bucket: a tree of its own, or one leaf inside the value.
func (f *file) bucket(value []byte, depth int) error {
	if len(value) < bucketSize {
		return errors.New("it is too short for a bucket")
	}
	if root := order.Uint64(value); root != 0 {
		return f.tree(root, nil, nil, depth+1)
	}
	inline := value[bucketSize:]
	if len(inline) < headerSize {
		return errors.New("it is too short for a bucket")
	}
	p := page{flags: order.Uint16(inline[8:]), count: order.Uint16(inline[10:]), content: inline}
	if p.flags != leafFlag {
		return errors.New("the bucket in it is not a leaf")
	}
	return p.leaf(nil, nil, func([]byte) error { return errors.New("a bucket cannot stand here") })
}

// freelist checks that the free pages are exactly those that no tree uses.
func (f *file) freelist() error {
	if f.meta.freelist == noFreelist {
		return nil // bbolt searches for the free pages itself
	}
	p, err := f.take(f.meta.freelist)
	if err != nil {
		return fmt.Errorf("the list of free pages: %w", err)
	}
	if p.flags != freelistFlag {
		return errors.New("the list of free pages is none")
	}
	ids, count := p.content[headerSize:], uint64(p.count)
	if count == longFreelist {
		count, ids = order.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids)/8) {
		return fmt.Errorf("the list of free pages cannot have %d entries", count)
	}
	last := uint64(1)
	for i := range count {
		id := order.Uint64(ids[8*i:])
		if id <= last || id >= f.meta.high || f.used[id] {
			return fmt.Errorf("page %d cannot be free", id)
		}
		f.used[id], last = true, id
	}
	for id, used := range f.used {
		if !used {
			return fmt.Errorf("page %d is neither in use nor free", id)
		}
	}
	return nil
}
