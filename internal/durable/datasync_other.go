//go:build !linux

package durable

import "os"

// SyncData makes the content and the size of a file durable. It is for a file that is overwritten in
// place.
func SyncData(f *os.File) error { return f.Sync() }
