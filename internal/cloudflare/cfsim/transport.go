package cfsim

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
)

// RoundTripper returns a transport that reaches the simulator without a network, whatever host a request
// names. To a client, broken connections look as they do over a real connection, and a delay ends with the
// request's context. No socket is involved, so it works inside a testing/synctest bubble.
func (s *Simulator) RoundTripper() http.RoundTripper { return roundTripper{s} }

type roundTripper struct{ handler http.Handler }

// RoundTrip implements http.RoundTripper.
func (rt roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	if err := ctx.Err(); err != nil {
		closeBody(req)
		return nil, err
	}
	in := req.Clone(ctx)
	if in.Body == nil {
		in.Body = http.NoBody
	}
	in.RequestURI = in.URL.RequestURI()
	if in.Host == "" {
		in.Host = in.URL.Host
	}
	out := &recorder{header: http.Header{}}
	aborted := serveRecorded(rt.handler, out, in)
	closeBody(req)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if aborted && out.status == 0 {
		return nil, fmt.Errorf("%s %s: connection broken: %w", req.Method, req.URL.Path, io.EOF)
	}
	return out.response(req, aborted), nil
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close() // it has been read or is not needed
	}
}

// serveRecorded reports whether the handler broke the connection.
func serveRecorded(h http.Handler, w *recorder, r *http.Request) (aborted bool) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			aborted = true
		default:
			panic(p)
		}
	}()
	h.ServeHTTP(w, r)
	return false
}

// recorder is an http.ResponseWriter and http.Flusher that keeps the answer.
type recorder struct {
	header http.Header
	sent   http.Header
	status int // 0 until the header is written
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header { return r.header }
func (r *recorder) Flush()              {}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status, r.sent = status, r.header.Clone()
	}
}

func (r *recorder) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(b)
}

func (r *recorder) response(req *http.Request, cut bool) *http.Response {
	r.WriteHeader(http.StatusOK)
	var body io.Reader = &r.body
	length := int64(r.body.Len())
	if cut {
		body, length = io.MultiReader(body, brokenOff{}), -1
	}
	return &http.Response{
		Status:        fmt.Sprintf("%d %s", r.status, http.StatusText(r.status)),
		StatusCode:    r.status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        r.sent,
		Body:          io.NopCloser(body),
		ContentLength: length,
		Request:       req,
	}
}

// brokenOff is the rest of a body after its connection broke.
type brokenOff struct{}

func (brokenOff) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
