package journal

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"rotatord/internal/rotation"
)

// A sealed secret's file has three regions, each in pages of its own, so that writing one
// cannot tear another:
//
//	0     head  whose it is: written once, by Reserve
//	4096  mark  "reserved", and "sealed" once the body is durable
//	8192  body  when it was sealed, and the age ciphertext
//
// A region begins with a frame: a line with its kind, length and checksum. The rest of it is
// random, since zeros are what some file systems do not really store.
//
// Reserve makes the whole file durable under its name. Seal overwrites the body, waits until
// that is durable, and then overwrites the mark. So a body that is whole is a sealed answer
// whatever the mark says; one that is not was never sealed if the mark says "reserved"; and
// if the mark says anything else, the body was durable once and has been damaged since.
// What cannot be told from a seal that never came is a disk that lost both writes after
// confirming them, or brought back an older state of the whole file; the ledger's step then
// contradicts it.
const (
	blockSize = 4096
	markAt    = blockSize
	bodyAt    = 2 * blockSize

	pendingFormat = 2
	reserved      = "reserved"
	sealedPrefix  = "sealed "
	frameFormat   = "rotatord %s %08x %08x\n"
	frameSize     = len("rotatord head 00000000 00000000\n")
)

// maxAnswer is how large an answer may be that is sure to have room. Real ones are a
// quarter of that.
const maxAnswer = 2048

// bodyRoom is how much room an answer gets that is sealed to n recipients.
func bodyRoom(n int) int {
	const perRecipient, overhead = 128, 512
	size := frameSize + maxAnswer + overhead + n*perRecipient
	return (size + blockSize - 1) / blockSize * blockSize
}

// head says whose answer it is. None of it is secret.
type head struct {
	Format     int    `json:"format"`
	RotationID string `json:"rotation_id"`
	Token      string `json:"token"`
	TokenID    string `json:"token_id"`
}

func frame(kind string, payload []byte) []byte {
	return append(fmt.Appendf(nil, frameFormat, kind, len(payload), crc32.Checksum(payload, castagnoli)), payload...)
}

// unframe returns what stands in a region that is whole.
func unframe(kind string, region []byte) (payload []byte, whole bool) {
	if len(region) < frameSize {
		return nil, false
	}
	var length, sum uint32
	if _, err := fmt.Sscanf(string(region[:frameSize]), "rotatord "+kind+" %08x %08x\n", &length, &sum); err != nil ||
		uint64(length) > uint64(len(region)-frameSize) {
		return nil, false
	}
	payload = region[frameSize:][:length]
	// The frame has no checksum of its own, so it must be just what we would write.
	return payload, bytes.Equal(frame(kind, payload)[:frameSize], region[:frameSize])
}

func bodyOf(at time.Time, ciphertext []byte) []byte {
	return frame("body", append(fmt.Appendf(nil, "%s\n", at.UTC().Format(time.RFC3339Nano)), ciphertext...))
}

func markOf(at time.Time) []byte {
	return frame("mark", []byte(sealedPrefix+at.UTC().Format(time.RFC3339Nano)))
}

// layOut returns a whole file. Without a body it is a reservation.
func layOut(key rotation.PendingKey, room int, mark, body []byte) ([]byte, error) {
	description, err := json.Marshal(head{pendingFormat, key.RotationID, key.Token, key.TokenID})
	if err != nil {
		return nil, err
	}
	top := frame("head", description)
	if len(top) > blockSize {
		return nil, fmt.Errorf("the name of %s is too long to be sealed", key.Token)
	}
	file := make([]byte, bodyAt+max(room, len(body)))
	if _, err := rand.Read(file); err != nil {
		return nil, err
	}
	copy(file, top)
	copy(file[markAt:], mark)
	copy(file[bodyAt:], body)
	return file, nil
}

// state is how far a pending file has come.
type state int

const (
	stateReserved state = iota
	stateCutShort       // the body is whole and the mark does not say so yet
	stateSealed
	stateDamaged
)

// pendingFile is what a file says.
type pendingFile struct {
	key        rotation.PendingKey // without names if the head is damaged
	state      state
	at         time.Time // of the seal; zero if that cannot be read
	ciphertext []byte
}

// parse reads a file. An error is one that says that the file is not for us to judge.
func parse(rotationID string, b []byte) (p pendingFile, err error) {
	p.key.RotationID = rotationID
	region := func(from, to int) []byte { return b[min(from, len(b)):min(to, len(b))] }
	if top, whole := unframe("head", region(0, markAt)); whole {
		var h head
		if err := json.Unmarshal(top, &h); err != nil {
			return p, fmt.Errorf("the head of the sealed secret of rotation %s cannot be read: %w", rotationID, err)
		}
		if h.Format > pendingFormat {
			return p, fmt.Errorf("the sealed secret of rotation %s has format version %d and this rotatord reads up to %d: "+
				"use the version that wrote it", rotationID, h.Format, pendingFormat)
		}
		if h.RotationID != rotationID {
			return p, fmt.Errorf("the sealed secret of rotation %s is in a file named %s: give it its name back", h.RotationID, rotationID)
		}
		p.key.Token, p.key.TokenID = h.Token, h.TokenID
	}
	mark, _ := unframe("mark", region(markAt, bodyAt))
	if at, ok := bytes.CutPrefix(mark, []byte(sealedPrefix)); ok {
		p.at, _ = time.Parse(time.RFC3339Nano, string(at))
	}
	body, whole := unframe("body", region(bodyAt, len(b)))
	switch line, ciphertext, ok := bytes.Cut(body, []byte("\n")); {
	case whole && ok:
		p.state, p.ciphertext = stateSealed, ciphertext
		if p.at.IsZero() {
			p.state = stateCutShort
			p.at, _ = time.Parse(time.RFC3339Nano, string(line))
		}
	case string(mark) == reserved:
		p.state = stateReserved
	default:
		p.state = stateDamaged
	}
	return p, nil
}

// errRotten says that an answer was sealed and cannot be read any more.
var errRotten = errors.New("its file has been damaged since it was sealed: restore that file from a backup; " +
	"without one the secret is lost, and rotatord recover --drop removes what is left of it")
