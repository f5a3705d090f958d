//go:build !linux

package admin

import (
	"errors"
	"net"
)

// Listen fails, because on this system it is not known which process is at the other end of a connection.
func Listen(string) (net.Listener, error) {
	return nil, errors.New("admin_socket is supported on Linux only: remove it from the configuration")
}

func peerOf(net.Conn) (peer, error) { return peer{}, errors.ErrUnsupported }
