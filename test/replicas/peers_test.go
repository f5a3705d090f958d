package replicas

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"rotatord/test/realvault"
)

// peers are the ways between the members of a cluster. Each member is reached through a proxy. The proxy finds out which
// member calls by whose socket it is, so that one way can be cut and the others stay.
type peers struct {
	t       *testing.T
	cluster *realvault.Cluster // nil until it is there
	links   [vaults][vaults]link
}

// start makes a cluster whose members reach each other through the proxies.
func (p *peers) start() *realvault.Cluster {
	p.t.Helper()
	c := realvault.StartClusterThrough(p.t, vaults, p.listen)
	p.cluster = c
	return c
}

// listen is the proxy before one member.
func (p *peers) listen(member int, target string) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go p.serve(conn, member, target)
		}
	}()
	return listener.Addr().String()
}

func (p *peers) serve(conn net.Conn, member int, target string) {
	defer conn.Close()
	l := &link{} // while the cluster is made, all is open
	if p.cluster != nil {
		from := p.caller(conn.RemoteAddr().(*net.TCPAddr).Port)
		if from < 0 {
			return // it was killed meanwhile
		}
		l = &p.links[from][member]
	}
	if m, changed := l.state(); m == silent {
		<-changed
		return
	} else if m == refused {
		return
	}
	out, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer out.Close()
	var both sync.WaitGroup
	ended := make(chan struct{})
	both.Go(func() { _, _ = io.Copy(out, conn); _ = out.Close(); _ = conn.Close() })
	both.Go(func() { _, _ = io.Copy(conn, out); _ = out.Close(); _ = conn.Close() })
	go func() { both.Wait(); close(ended) }()
	for {
		m, changed := l.state()
		if m != open { // a connection that is there breaks: with silence Raft would only notice later
			return
		}
		select {
		case <-ended:
			return
		case <-changed:
		}
	}
}

// caller returns the member that has the socket with that local port; -1 if none.
func (p *peers) caller(port int) int {
	inode := inodeOf(port)
	if inode == "" {
		return -1
	}
	for n, v := range p.cluster.Members {
		all, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", v.PID()))
		for _, fd := range all {
			if to, err := os.Readlink(fd); err == nil && to == "socket:["+inode+"]" {
				return n
			}
		}
	}
	return -1
}

// inodeOf finds a loopback socket by its local port.
func inodeOf(port int) string {
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return ""
	}
	defer f.Close()
	want := fmt.Sprintf("0100007F:%04X", port)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 9 && fields[1] == want {
			return fields[9]
		}
	}
	return ""
}

// separate cuts a member off from the others, or ends that.
func (p *peers) separate(member int, m mode) {
	for other := range vaults {
		if other != member {
			p.links[member][other].set(m)
			p.links[other][member].set(m)
		}
	}
}
