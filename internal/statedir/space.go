package statedir

import (
	"fmt"
	"syscall"
)

// How little free space, in bytes, is a problem on the disk of the state directory. Below a tenth of the
// disk, but at least minLow and at most maxLow, an operator should free space; on a very small disk,
// below half of it. Below noSpace, answers will soon not fit.
const (
	noSpace = 4 << 20
	minLow  = 8 << 20
	maxLow  = 100 << 20
)

// SpaceError says that the disk of the state directory has little free space.
type SpaceError struct {
	Dir  string
	Free uint64 // bytes
	// Files is how many more files fit, if files are what is short; -1 otherwise.
	Files int64
}

// Error implements error.
func (e *SpaceError) Error() string {
	if e.Files >= 0 {
		return fmt.Sprintf("only %d more files fit on the disk of %s: remove files there that are not needed", e.Files, e.Dir)
	}
	if e.Free < 1<<20 {
		return fmt.Sprintf("%d KiB are free on the disk of %s: free some space", e.Free>>10, e.Dir)
	}
	return fmt.Sprintf("%d MiB are free on the disk of %s: free some space", e.Free>>20, e.Dir)
}

// Cause implements rotation.Cause.
func (e *SpaceError) Cause() string {
	if e.Files >= 0 || e.Free < noSpace {
		return "no_space"
	}
	return "low_space"
}

// fewFiles is too few for the files that rotations create and remove.
const fewFiles = 64

// Space returns a [*SpaceError] if the disk of a directory has little free space for this process. It
// writes nothing. If the system does not say how much is free, it returns nil.
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
