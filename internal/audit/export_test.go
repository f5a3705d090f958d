package audit

import (
	"bytes"
	"os"
)

// Rehash returns a line with the hash of its bytes, as a person computes it who changes a line.
func Rehash(body []byte) []byte {
	text := append(bytes.Clone(body[:len(body)-1]), hashKey...)
	return append(append(text, hashOf(body)...), "\"}\n"...)
}

// Rechain changes all lines from an index on, and computes their hashes again so that they are a chain.
func Rechain(all [][]byte, from int, change func([]byte) []byte) [][]byte {
	prev := ""
	for i, line := range all {
		text := bytes.TrimSuffix(line, []byte("\n"))
		if i >= from {
			p, _ := placeOf(text)
			body, _, _ := split(change(text))
			if i > from {
				body = bytes.Replace(body, []byte(p.prev), []byte(prev), 1)
			}
			all[i] = Rehash(body)
			text = bytes.TrimSuffix(all[i], []byte("\n"))
		}
		p, _ := placeOf(text)
		prev = p.hash
	}
	return all
}

// OnSync has do called in the place of each fsync. Call it before the recorder is used.
func (r *Recorder) OnSync(do func(*os.File) error) { r.syncData = do }
