package outbound

import (
	"context"
	"io"
	"net"
	"sync/atomic"
)

// slack is what the buffers of the system and of the client may take beside what is read.
const slack = 4 << 20

// counted counts what is written to w.
type counted struct {
	w io.Writer
	n *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// smallBuffers keeps the system from taking much of what nobody reads.
func smallBuffers(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(64 << 10) // only a hint
	}
	return conn, err
}
