package ledger

import "go.etcd.io/bbolt"

// This file keeps the pages of the ledger file out of the memory of the process. bbolt maps the file, so each page that was
// ever read stays, and a ledger of 100,000 tokens has ninety megabytes of them. Nearly all are read at the start, and then not
// for days. A page that is given back is read again when it is needed, mostly from the cache of the kernel. On a disk that hangs that
// read hangs too, as bbolt's first read of a page always could.

// pagesAfter is how many values are read or written before the pages are given back.
const pagesAfter = 1000

// touched notes how many values were read or written, and gives the pages back from time to time.
func (l *Local) touched(values int) {
	if l.values.Add(int64(values)) < pagesAfter {
		return
	}
	l.values.Store(0)
	l.dropped.Add(1)
	_ = l.db.View(func(tx *bbolt.Tx) error { // while it is open, the file is mapped where it is
		dropPages(l.db.Info().Data, uintptr(tx.Size()))
		return nil
	}) // a file that is closed has no pages
}
