package cfsim

import (
	crand "crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"

	"rotatord/internal/secret"
)

// SeedTokenID returns the ID of the i-th seeded token, counted from 1: the prefix
// 5eed0000-0000-4000-8000- followed by i as twelve decimal digits. It is a valid UUID
// (version 4), so that a configuration can be written before the simulator runs:
//
//	seeded-0001 is 5eed0000-0000-4000-8000-000000000001
//	seeded-0042 is 5eed0000-0000-4000-8000-000000000042
func SeedTokenID(i int) string { return fmt.Sprintf("5eed0000-0000-4000-8000-%012d", i) }

// seedClientID depends only on the ID, so a client ID stays the same across restarts of the simulator.
func seedClientID(i int) string {
	sum := sha256.Sum256([]byte("client of " + SeedTokenID(i)))
	return hex.EncodeToString(sum[:16]) + ".access"
}

// random creates IDs and secrets. It is not safe for concurrent use.
type random struct {
	source io.Reader
	seeded *rand.ChaCha8 // the source, if a seed was given
}

func newRandom(seed uint64) *random {
	if seed == 0 {
		return &random{source: crand.Reader}
	}
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	seeded := rand.NewChaCha8(key)
	return &random{source: seeded, seeded: seeded}
}

// position returns how far a seeded source has been read; nil without a seed.
func (r *random) position() []byte {
	if r.seeded == nil {
		return nil
	}
	b, _ := r.seeded.MarshalBinary() // it cannot fail
	return b
}

// moveTo moves a seeded source to a position, and reports whether that position exists.
func (r *random) moveTo(position []byte) bool {
	if r.seeded == nil {
		return len(position) == 0
	}
	return r.seeded.UnmarshalBinary(position) == nil
}

func (r *random) read(b []byte) {
	// Neither source fails: crypto/rand ends the program itself, and ChaCha8 cannot fail.
	_, _ = io.ReadFull(r.source, b)
}

func (r *random) uuid() string {
	var b [16]byte
	r.read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (r *random) clientID() string {
	var b [16]byte
	r.read(b[:])
	return hex.EncodeToString(b[:]) + ".access"
}

const alphanumerics = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// clientSecret has the form of the newer format. The checksum is the CRC-32 (IEEE) of the 40 characters in
// hex, which is this package's own choice.
func (r *random) clientSecret() secret.Value {
	var chars [40]byte
	for i := range chars {
		chars[i] = alphanumerics[r.below(len(alphanumerics))]
	}
	return secret.New(fmt.Sprintf("cfast_%s%08x", chars[:], crc32.ChecksumIEEE(chars[:])))
}

// below returns a random number from 0 to n-1, for n up to 256, all equally likely.
func (r *random) below(n int) int {
	limit := 256 - 256%n
	var b [1]byte
	for {
		r.read(b[:])
		if int(b[0]) < limit {
			return int(b[0]) % n
		}
	}
}
