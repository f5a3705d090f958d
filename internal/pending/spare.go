package pending

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"
)

// spare is a file descriptor for the moment when the process or the system has no free one: an answer
// that has arrived must be sealed even then. The zero value has none.
type spare struct {
	mu   sync.Mutex
	file *os.File
}

// fill takes a descriptor, if one is free.
func (s *spare) fill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.take()
}

func (s *spare) take() {
	if s.file == nil {
		s.file, _ = os.Open(os.DevNull) // without it, everything works as long as other descriptors are free
	}
}

// drop gives the descriptor back.
func (s *spare) drop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}

// How often, and after which pause, use tries again: other goroutines take descriptors too.
const (
	spareTries = 50
	sparePause = 2 * time.Millisecond
)

// use calls do, which needs a descriptor. If none is free, it gives back the spare one and calls do
// again.
func (s *spare) use(do func() error) error {
	err := do()
	if !outOfDescriptors(err) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for range spareTries {
		if s.file != nil {
			_ = s.file.Close()
			s.file = nil
		}
		if err = do(); !outOfDescriptors(err) {
			break
		}
		time.Sleep(sparePause)
	}
	s.take()
	return err
}

func outOfDescriptors(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}
