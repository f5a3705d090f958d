package journal

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"rotatord/internal/durable"
	"rotatord/internal/rotation"
)

// proofFile is where Prove makes room for an answer and gives it back. Its name is not that of a rotation,
// so that nothing ever takes it for one. What a crash leaves of it is removed at the next start.
const proofFile = durable.Prefix + "proof"

// Prove writes what a rotation writes before its request leaves: a transaction of the ledger, and the room
// for an answer. Nothing of it stays. It returns why a rotation could not begin, and counts as a write:
// see [Journal.LastWrite].
func (j *Journal) Prove(context.Context) error {
	if j.closed.Load() {
		return errClosed
	}
	if err := j.Present(); err != nil {
		return err
	}
	if err := j.wrote(writeRecord, j.db.Update(putFormat)); err != nil {
		return fmt.Errorf("the ledger cannot be written: %w", err)
	}
	room, err := layOut(rotation.PendingKey{}, bodyRoom(len(j.recipients)), frame("mark", []byte(reserved)), nil)
	if err != nil {
		return err
	}
	path := filepath.Join(j.pending, proofFile)
	err = j.wrote(writeAnswer, durable.WriteFile(path, room, 0o600))
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		return fmt.Errorf("there is no room for an answer: %w", err)
	}
	return nil
}
