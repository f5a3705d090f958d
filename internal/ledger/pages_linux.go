package ledger

import "syscall"

// dropPages gives back the memory of a part of a file that is mapped and was not written to. It changes nothing that can be
// read there. An error only means that the memory is kept.
func dropPages(address, size uintptr) {
	_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, address, size, syscall.MADV_DONTNEED)
}
