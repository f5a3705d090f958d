package cfsim

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
)

// This file has answers that are not as documented. The request was carried out, and its result is in the
// answer, but the shape around it is odd. Servers and proxies were seen to send most of them.

// wire is an answer as it is sent over the network.
type wire struct {
	status   int
	encoding string // Content-Encoding
	media    string // Content-Type; empty for JSON
	body     []byte
	cut      bool // the connection breaks after the body
	chunked  bool // without Content-Length
	longer   int  // Content-Length is so many bytes too large
}

// good is the correct answer, in the parts that shapes are built from.
type good struct {
	status int
	body   string
	result string // of the envelope
	info   string // result_info of a listing; empty for other operations
	secret string // the client secret, if there is one
}

type shape func(g good) wire

func enveloped(fields, result string) string { return "{" + fields + `"result":` + result + "}" }

// text returns a shape that is JSON with an oddity, or not quite JSON.
func text(make func(g good) string) shape {
	return func(g good) wire { return wire{status: g.status, body: []byte(make(g))} }
}

// field returns a shape that replaces one field of the envelope before its result.
func field(fields string) shape {
	return text(func(g good) string { return enveloped(fields, g.result) })
}

// status returns a shape with another status.
func status(n int) shape {
	return func(g good) wire { return wire{status: n, body: []byte(g.body)} }
}

// edited returns a shape that replaces what matches in the body, once.
func edited(pattern, with string) shape {
	re := regexp.MustCompile(pattern)
	return text(func(g good) string {
		at := re.FindStringSubmatchIndex(g.body)
		if at == nil {
			return g.body
		}
		return g.body[:at[0]] + string(re.ExpandString(nil, with, g.body, at)) + g.body[at[1]:]
	})
}

func packed(encoding string, layers ...func(io.Writer) io.WriteCloser) shape {
	return func(g good) wire {
		body := []byte(g.body)
		for _, layer := range layers {
			var b bytes.Buffer
			w := layer(&b)
			_, _ = w.Write(body) // a buffer accepts everything
			_ = w.Close()
			body = b.Bytes()
		}
		return wire{status: g.status, encoding: encoding, body: body}
	}
}

func zipped(w io.Writer) io.WriteCloser     { return gzip.NewWriter(w) }
func zlibbed(w io.Writer) io.WriteCloser    { return zlib.NewWriter(w) }
func rawDeflate(w io.Writer) io.WriteCloser { f, _ := flate.NewWriter(w, 5); return f }

func utf16Text(order binary.AppendByteOrder, mark bool) shape {
	return func(g good) wire {
		var b []byte
		if mark {
			b = order.AppendUint16(b, 0xfeff)
		}
		for _, u := range utf16.Encode([]rune(g.body)) {
			b = order.AppendUint16(b, u)
		}
		return wire{status: g.status, body: b}
	}
}

// upTo returns a shape that cuts the answer off so many bytes after the secret.
func upTo(behind int, chunked bool) shape {
	return func(g good) wire {
		end := len(g.body) / 2
		if i := strings.Index(g.body, g.secret); g.secret != "" && i >= 0 {
			end = i + len(g.secret) + behind
		}
		return wire{status: g.status, body: []byte(g.body[:end]), cut: true, chunked: chunked, longer: len(g.body) - end}
	}
}

func entries(change func(all []json.RawMessage) []json.RawMessage) shape {
	return text(func(g good) string {
		var all []json.RawMessage
		if json.Unmarshal([]byte(g.result), &all) != nil {
			return g.body
		}
		info := ""
		if g.info != "" {
			info = `"result_info":` + g.info + ","
		}
		return enveloped(`"success":true,"errors":[],"messages":[],`+info, string(encode(change(all))))
	})
}

const fine = `"success":true,"errors":[],"messages":[],`

// shapes are all shapes by name.
var shapes = map[string]shape{
	"errors-object":   field(`"success":true,"errors":{},"messages":{},`),
	"errors-strings":  field(`"success":true,"errors":["none"],"messages":["ok"],`),
	"errors-text":     field(`"success":true,"errors":"","messages":"",`),
	"errors-null":     field(`"success":true,"errors":null,"messages":null,`),
	"errors-only":     field(`"errors":[{"code":1001,"message":"a warning"}],`),
	"success-missing": field(`"errors":[],"messages":[],`),
	"success-null":    field(`"success":null,"errors":[],`),
	"success-text":    field(`"success":"true","errors":[],`),
	"success-number":  field(`"success":1,"errors":[],`),
	"success-false":   field(`"success":false,"errors":[{"code":1001,"message":"failed"}],`),

	"result-list":    text(func(g good) string { return enveloped(fine, "["+g.result+"]") }),
	"result-deeper":  text(func(g good) string { return enveloped(fine, `{"result":`+g.result+"}") }),
	"result-deepest": text(func(g good) string { return enveloped(fine, `{"data":[{"service_token":`+g.result+"}]}") }),
	"result-text":    text(func(g good) string { return enveloped(fine, strconv.Quote(g.result)) }),
	"result-bare":    text(func(g good) string { return g.result }),
	"result-null":    text(func(good) string { return enveloped(fine, "null") }),
	"result-missing": text(func(good) string { return `{"success":true,"errors":[],"messages":[]}` }),
	"result-object":  text(func(good) string { return enveloped(fine, "{}") }),
	"empty":          text(func(good) string { return "" }),
	"foreign":        text(func(good) string { return "{}" }),

	"bom":            text(func(g good) string { return "\xef\xbb\xbf" + g.body }),
	"utf16":          utf16Text(binary.LittleEndian, true),
	"utf16-unmarked": utf16Text(binary.BigEndian, false),
	"text-before":    text(func(g good) string { return ")]}',\n" + g.body }),
	"quote-before":   text(func(g good) string { return `the "answer: ` + g.body }),
	"text-after":     text(func(g good) string { return g.body + "\n<!-- served in 12 ms -->\n" }),
	"brace-after":    text(func(g good) string { return g.body + "}" }),
	"two-documents":  text(func(g good) string { return `{"success":true,"result":null}` + "\n" + g.body }),
	"twice":          text(func(g good) string { return g.body + "\n" + g.body }),
	"trailing-comma": text(func(g good) string { return strings.TrimSuffix(g.body, "}") + ",}" }),
	"html":           text(func(g good) string { return `<html><body class="x"><pre>` + g.body + "</pre></body></html>" }),
	"html-escaped":   text(func(g good) string { return "<html><pre>" + html.EscapeString(g.body) + "</pre></html>" }),
	"escaped":        edited(`"client_secret":"c`, `"cl\u0069ent_secret":"\u0063`),
	"other-case":     edited(`"client_secret"`, `"Client-Secret"`),
	"camel-case":     edited(`"client_secret"`, `"clientSecret"`),
	"odd-fields":     edited(`"name":"[^"]*"`, `"name":7,"expires_at":{},"duration":[]`),
	"no-client-id":   edited(`"client_id":"[^"]*",`, ``),
	"no-id":          edited(`"id":"[^"]*",`, ``),
	"no-ids":         edited(`"id":"[^"]*","client_id":"[^"]*",`, ``),
	"no-ids-odd":     text(func(g good) string { return `{"data":{"client_secret":"` + g.secret + `"}}` }),
	"secret-in-text": text(func(g good) string { return "your new client secret is " + g.secret + " (shown once)\n" }),
	"second-secret":  edited(`"client_secret":`, `"client_secret":"cfast_`+strings.Repeat("0", 48)+`","client_secret":`),
	"other-first": text(func(g good) string {
		return enveloped(fine, `[{"id":"00000000-0000-4000-8000-000000000bad","client_id":"bad.access","client_secret":"cfast_`+strings.Repeat("0", 48)+`"},`+g.result+"]")
	}),

	"x-gzip":        packed("x-gzip", zipped),
	"gzip":          packed("gzip", zipped),
	"gzip-unnamed":  packed("", zipped),
	"gzip-twice":    packed("gzip", zipped, zipped),
	"gzip-in-name":  packed("gzip"),
	"deflate":       packed("deflate", zlibbed),
	"deflate-raw":   packed("deflate", rawDeflate),
	"gzip-as-other": packed("br", zipped),

	"cut-after-secret": upTo(1, false),
	"cut-at-secret":    upTo(0, false),
	"cut-chunked":      upTo(3, true),
	"length-too-long":  func(g good) wire { return wire{status: g.status, body: []byte(g.body), cut: true, longer: 500} },
	"status-202":       status(http.StatusAccepted),
	"status-206":       status(http.StatusPartialContent),
	"status-302":       status(http.StatusFound),
	"status-403":       status(http.StatusForbidden),
	"status-404":       status(http.StatusNotFound),
	"status-429":       status(http.StatusTooManyRequests),
	"status-500":       status(http.StatusInternalServerError),
	"status-520":       status(520),
	"media-type":       func(g good) wire { return wire{status: g.status, media: "text/html", body: []byte(g.body)} },
	"entry-null": entries(func(all []json.RawMessage) []json.RawMessage {
		return append(all[:len(all):len(all)], json.RawMessage("null"))
	}),
	"entry-replaced":    entries(func(all []json.RawMessage) []json.RawMessage { return replaceLast(all, "null") }),
	"entry-text":        entries(func(all []json.RawMessage) []json.RawMessage { return replaceLast(all, `"a service token"`) }),
	"entry-lost":        entries(func(all []json.RawMessage) []json.RawMessage { return all[:max(len(all)-1, 0)] }),
	"entries-lost":      entries(func([]json.RawMessage) []json.RawMessage { return []json.RawMessage{} }),
	"entry-no-name":     edited(`(?s)"name":"[^"]*"(.*)$`, `"name":null$1`),
	"entry-odd-time":    edited(`(?s)"updated_at":"[^"]*"(.*)$`, `"updated_at":1764302400$1`),
	"total-missing":     edited(`"total_count":\d+,?`, ``),
	"total-text":        edited(`"total_count":(\d+)`, `"total_count":"$1"`),
	"total-negative":    edited(`"total_count":\d+`, `"total_count":-1`),
	"result-info-gone":  edited(`,?"result_info":\{[^}]*\}`, ``),
	"other-result":      edited(`"id":"[^"]*"`, `"id":"00000000-0000-4000-8000-000000000bad"`),
	"secret-half":       edited(`"client_secret":"([^"]{20})[^"]*"`, `"client_secret":"$1"`),
	"secret-other-kind": edited(`"client_secret":"[^"]*"`, `"client_secret":"cfnew-0123456789"`),
}

func replaceLast(all []json.RawMessage, with string) []json.RawMessage {
	if len(all) == 0 {
		return all
	}
	return append(slices.Clone(all[:len(all)-1]), json.RawMessage(with))
}

// Shapes returns the names of all shapes that an answer can get by a fault of KindShape, in order.
func Shapes() []string {
	var all []string
	for name := range shapes {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// shaped returns the answer in that shape.
func (r reply) shaped(name string) wire {
	g := good{status: r.status, body: string(r.body()), result: string(encode(r.result))}
	if r.info != nil {
		g.info = string(encode(r.info))
	}
	if t, ok := r.result.(tokenResult); ok {
		g.secret = t.ClientSecret
	}
	return shapes[name](g)
}

// write sends the answer. If the connection is to break, it does not return.
func (a wire) write(w http.ResponseWriter) {
	h := w.Header()
	if a.media != "" {
		h.Set("Content-Type", a.media)
	}
	if a.encoding != "" {
		h.Set("Content-Encoding", a.encoding)
	}
	if !a.chunked {
		h.Set("Content-Length", strconv.Itoa(len(a.body)+a.longer))
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // the client may have disconnected, and there is nothing to do about it
	if a.chunked || a.cut {
		_ = http.NewResponseController(w).Flush() // if it cannot flush, nothing arrives, which is a cut as well
	}
	if a.cut {
		panic(http.ErrAbortHandler)
	}
}
