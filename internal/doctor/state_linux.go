package doctor

import "syscall"

// The kinds of file system that matter here, by their magic numbers.
const (
	tmpfs   = 0x01021994
	ramfs   = 0x858458f6
	overlay = 0x794c7630
	btrfs   = 0x9123683e
	zfs     = 0x2fc12fc1
)

// diskOf asks the system about a directory, and writes nothing.
func diskOf(dir string) disk {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return disk{}
	}
	const writable, searchable = 2, 1
	d := disk{known: true, free: s.Bavail * uint64(s.Bsize), writable: syscall.Access(dir, writable|searchable) == nil}
	switch uint32(s.Type) {
	case tmpfs, ramfs:
		d.volatile = "a file system in memory"
	case overlay:
		d.volatile = "the container's own layer"
	case btrfs:
		d.copies = "btrfs"
	case zfs:
		d.copies = "ZFS"
	}
	return d
}
