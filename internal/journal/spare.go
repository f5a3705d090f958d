package journal

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"
)

// spare is a file descriptor that is kept for the moment in which the process, or the system,
// has no other: an answer that has arrived must be sealed then too. The zero value has none.
type spare struct {
	mu   sync.Mutex
	file *os.File
}

// keep takes one, if there is one.
func (s *spare) keep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.take()
}

func (s *spare) take() {
	if s.file == nil {
		s.file, _ = os.Open(os.DevNull) // without it the journal works as long as there are others
	}
}

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

// How often and after what pause it is tried again, because others take descriptors too.
const (
	spareTries = 50
	sparePause = 2 * time.Millisecond
)

// use does something that needs a descriptor, if need be with the one that was kept.
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
