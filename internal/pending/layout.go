package pending

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"time"

	"rotatord/internal/rotation"
)

// The file of a sealed secret has three regions. Each region has pages of its own, so a torn write of
// one region cannot damage another:
//
//	0     head  which rotation it belongs to; Reserve writes it once
//	4096  mark  "reserved"; "sealed" as soon as the body is durable
//	8192  body  the time of the seal, and the age ciphertext
//
// A region begins with a frame: a line with its kind, length and checksum. The rest of the region is
// random, because some file systems do not really store zeros.
//
// Reserve makes the whole file durable. Seal overwrites the body, waits until it is durable, and then
// overwrites the mark. So there are three cases. If the body is whole, the answer is sealed, whatever
// the mark says. If the body is not whole and the mark says "reserved", nothing was sealed. In all
// other cases the body was durable once and was damaged later.
//
// One case looks like a seal that never happened: the disk confirmed both writes and lost both, or
// brought back an older state of the whole file. Then the step in the ledger contradicts the file.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

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

// maxAnswer is the largest answer that the reserved space is sure to hold. Real answers have a quarter
// of that.
const maxAnswer = 2048

// bodySpace returns the size of the body that is reserved for an answer with n recipients.
func bodySpace(n int) int {
	const perRecipient, overhead = 128, 512
	size := frameSize + maxAnswer + overhead + n*perRecipient
	return (size + blockSize - 1) / blockSize * blockSize
}

// head says which rotation an answer belongs to. Nothing in it is secret.
type head struct {
	Format     int    `json:"format"`
	RotationID string `json:"rotation_id"`
	Token      string `json:"token"`
	TokenID    string `json:"token_id"`
}

// frame returns a payload with its frame.
func frame(kind string, payload []byte) []byte {
	return append(frameOf(kind, payload), payload...)
}

// frameOf returns the frame of a payload.
func frameOf(kind string, payload []byte) []byte {
	return fmt.Appendf(nil, frameFormat, kind, len(payload), crc32.Checksum(payload, castagnoli))
}

// unframe returns the payload of a region, and whether the region is whole.
func unframe(kind string, region []byte) (payload []byte, whole bool) {
	if len(region) < frameSize {
		return nil, false
	}
	// A frame ends with two numbers of eight hexadecimal digits, before each of which is a space. Reading the length is enough,
	// since the whole frame is compared below.
	length, err := strconv.ParseUint(string(region[frameSize-18:frameSize-10]), 16, 32)
	if err != nil || length > uint64(len(region)-frameSize) {
		return nil, false
	}
	payload = region[frameSize:][:length]
	// The frame has no checksum of its own, so it must be exactly what we would write.
	return payload, bytes.Equal(frameOf(kind, payload), region[:frameSize])
}

func bodyOf(at time.Time, ciphertext []byte) []byte {
	return frame("body", append(fmt.Appendf(nil, "%s\n", at.UTC().Format(time.RFC3339Nano)), ciphertext...))
}

func markOf(at time.Time) []byte {
	return frame("mark", []byte(sealedPrefix+at.UTC().Format(time.RFC3339Nano)))
}

// layOut returns the content of a whole file. Without a body it is a reservation of that size.
func layOut(key rotation.PendingKey, size int, mark, body []byte) ([]byte, error) {
	description, err := json.Marshal(head{pendingFormat, key.RotationID, key.Token, key.TokenID})
	if err != nil {
		return nil, err
	}
	top := frame("head", description)
	if len(top) > blockSize {
		return nil, fmt.Errorf("the name of %s is too long to be sealed", key.Token)
	}
	file := make([]byte, bodyAt+max(size, len(body)))
	if _, err := rand.Read(file); err != nil {
		return nil, err
	}
	copy(file, top)
	copy(file[markAt:], mark)
	copy(file[bodyAt:], body)
	return file, nil
}

// state is the state of a file.
type state int

const (
	stateReserved state = iota
	stateCutShort       // the body is whole, but the mark does not say so yet
	stateSealed
	stateDamaged
)

// parsed is the content of a file.
type parsed struct {
	key        rotation.PendingKey // without names if the head is damaged
	state      state
	at         time.Time // when it was sealed; zero if that cannot be read
	ciphertext []byte
}

// parse returns the content of a file. It returns an error if this version must not decide about the
// file; damage is a state and not an error.
func parse(rotationID string, b []byte) (p parsed, err error) {
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

// errDamaged says that an answer was sealed, but its file was damaged later.
var errDamaged = errors.New("its file has been damaged since it was sealed: restore that file from a backup; " +
	"without one the secret is lost, and rotatord recover --drop removes what is left of it")
