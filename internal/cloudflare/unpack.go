package cloudflare

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

// maxLayers limits how often a body is unpacked. A proxy that compresses a compressed body makes two layers.
const maxLayers = 4

// unpack returns a body as UTF-8 text without a byte order mark and without compression. It looks at the
// bytes and not at Content-Encoding, because proxies get that header wrong: they write x-gzip, name a
// compression that is not there, or compress twice. A body that cannot be unpacked is returned as it is; of
// one that was cut off, everything that arrived. The result has at most limit bytes.
func unpack(body []byte, limit int64) []byte {
	for range maxLayers {
		plain, ok := inflate(body, limit)
		if !ok {
			break
		}
		body = plain
	}
	return toUTF8(body)
}

func inflate(body []byte, limit int64) (plain []byte, ok bool) {
	var open func(io.Reader) (io.Reader, error)
	switch {
	case len(body) < 2:
		return nil, false
	case body[0] == 0x1f && body[1] == 0x8b:
		open = func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }
	case body[0]&0x0f == 8 && (uint16(body[0])<<8|uint16(body[1]))%31 == 0:
		open = func(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) }
	case !utf8.Valid(body) && !bytes.HasPrefix(body, []byte("\xfe\xff")) && !bytes.HasPrefix(body, []byte("\xff\xfe")):
		open = func(r io.Reader) (io.Reader, error) { return flate.NewReader(r), nil } // deflate without its header
	default:
		return nil, false
	}
	r, err := open(bytes.NewReader(body))
	if err != nil {
		return nil, false
	}
	plain, err = io.ReadAll(io.LimitReader(r, limit))
	return plain, len(plain) > 0 && (err == nil || looksLikeText(plain))
}

// looksLikeText prevents noise from a broken stream from being taken for its content.
func looksLikeText(b []byte) bool {
	return bytes.IndexByte(b, '"') >= 0 || bytes.IndexByte(b, '{') >= 0 || len(b) > 1 && b[0] == 0x1f && b[1] == 0x8b
}

// toUTF8 removes a byte order mark, and decodes UTF-16 with or without one.
func toUTF8(b []byte) []byte {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(b, []byte("\xef\xbb\xbf")):
		return b[3:]
	case bytes.HasPrefix(b, []byte("\xfe\xff")):
		order, b = binary.BigEndian, b[2:]
	case bytes.HasPrefix(b, []byte("\xff\xfe")):
		order, b = binary.LittleEndian, b[2:]
	case len(b) > 3 && b[0] == 0 && b[1] != 0 && b[2] == 0:
		order = binary.BigEndian
	case len(b) > 3 && b[0] != 0 && b[1] == 0 && b[3] == 0:
		order = binary.LittleEndian
	default:
		return b
	}
	units := make([]uint16, 0, len(b)/2)
	for ; len(b) > 1; b = b[2:] {
		units = append(units, order.Uint16(b))
	}
	return []byte(string(utf16.Decode(units)))
}
