package ageplugin

import (
	"bufio"
	"encoding/base64"
	"errors"
	"io"
	"strings"

	"filippo.io/age"
)

// columns is the length of each full line of a body. A body ends with a shorter line, which may be empty.
const columns = 64

var base = base64.RawStdEncoding.Strict()

func encode(body []byte) string { return base.EncodeToString(body) }

// readStanza reads one stanza. The error does not repeat what was read.
func readStanza(r *bufio.Reader) (*age.Stanza, error) {
	line, err := readLine(r)
	if err != nil {
		return nil, err
	}
	words := strings.Split(line, " ")
	if words[0] != "->" || len(words) < 2 {
		return nil, errProtocol
	}
	for _, word := range words {
		if word == "" || strings.ContainsFunc(word, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return nil, errProtocol
		}
	}
	s := &age.Stanza{Type: words[1], Args: words[2:]}
	for {
		line, err := readLine(r)
		if err != nil {
			return nil, err
		}
		part, err := base.DecodeString(line)
		if err != nil || len(line) > columns || strings.ContainsAny(line, "\r") {
			return nil, errProtocol
		}
		s.Body = append(s.Body, part...)
		if len(line) < columns {
			return s, nil
		}
	}
}

func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = errEnded
		}
		return "", err
	}
	return strings.TrimSuffix(line, "\n"), nil
}
