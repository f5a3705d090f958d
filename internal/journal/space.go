package journal

import (
	"fmt"
	"syscall"
)

// How much room, in bytes, is too little on the disk of the state directory. With less than a tenth of
// the disk, but between minLow and maxLow, room should be made; of a very small disk with less than half.
// With less than noSpace no answer has room for long.
const (
	noSpace = 4 << 20
	minLow  = 8 << 20
	maxLow  = 100 << 20
)

// SpaceError says that the disk of the state directory has little room.
type SpaceError struct {
	Dir  string
	Free uint64 // bytes
	// Files is how many more files fit, if that is what is short; -1 otherwise.
	Files int64
}

// Error implements error.
func (e *SpaceError) Error() string {
	if e.Files >= 0 {
		return fmt.Sprintf("only %d more files fit on the disk of %s: remove files there that are not needed", e.Files, e.Dir)
	}
	if e.Free < 1<<20 {
		return fmt.Sprintf("%d KiB are free on the disk of %s: make room", e.Free>>10, e.Dir)
	}
	return fmt.Sprintf("%d MiB are free on the disk of %s: make room", e.Free>>20, e.Dir)
}

// Cause implements rotation.Cause.
func (e *SpaceError) Cause() string {
	if e.Files >= 0 || e.Free < noSpace {
		return "no_space"
	}
	return "low_space"
}

// fewFiles is too few for the files that rotations make and remove.
const fewFiles = 64

// Space returns a [*SpaceError] if the disk of a directory has little room left for this process. It
// writes nothing. Where the system does not say, it returns nil.
func Space(dir string) error {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return nil
	}
	block := uint64(s.Bsize)
	free, all := uint64(s.Bavail)*block, uint64(s.Blocks)*block
	low := min(max(all/10, minLow), maxLow, all/2)
	switch {
	case free < low:
		return &SpaceError{Dir: dir, Free: free, Files: -1}
	case s.Files > 0 && s.Ffree < fewFiles: // file systems without a limit say 0
		return &SpaceError{Dir: dir, Free: free, Files: int64(s.Ffree)}
	}
	return nil
}
