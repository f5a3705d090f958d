//go:build !linux

package ledger

// dropPages does nothing here: the kernel takes pages back by itself when memory is short.
func dropPages(_, _ uintptr) {}
