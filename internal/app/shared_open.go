package app

import (
	"errors"

	"rotatord/internal/config"
)

// open connects the parts of a replica.
func (s *sharing) open(*config.Shared) error {
	_ = s.livingChanged
	return errors.New("a ledger that several replicas share is not supported yet: remove it")
}
