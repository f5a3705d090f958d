package e2e

import (
	"math"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rotatord/test/program"
)

// TestNotifiesSystemd speaks systemd's side of sd_notify.
func TestNotifiesSystemd(t *testing.T) {
	t.Parallel() // it mostly waits
	w := newWorld(t, options{tokens: 1, schedule: "@every 1h", grace: time.Second})
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	const over = "OVER"
	var shortest atomic.Int64 // time between two signs of life
	shortest.Store(math.MaxInt64)
	received := make(chan string, 100)
	go func() {
		buffer := make([]byte, 4096)
		var last time.Time
		for {
			n, err := socket.Read(buffer)
			message := string(buffer[:n])
			if err != nil || message == over {
				close(received)
				return
			}
			if message != "WATCHDOG=1" {
				received <- message
				continue
			}
			now := time.Now()
			if !last.IsZero() {
				shortest.Store(min(shortest.Load(), int64(now.Sub(last))))
			}
			last = now
		}
	}()
	d := w.run(t, "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=600000")
	// The watchdog's time is 600 ms, and systemd asks for a sign in each half of it. A slow machine may miss some.
	program.Eventually(t, 2*time.Second, "two signs of life within 300 ms", func() bool { return shortest.Load() <= int64(300*time.Millisecond) })
	if code := d.terminate(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	// What it has said is in the socket, and read before this.
	end, err := net.Dial("unixgram", path)
	if err == nil {
		_, err = end.Write([]byte(over))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	var all []string
	for message := range received {
		all = append(all, message)
	}
	if got := strings.Join(all, " "); got != "READY=1 STOPPING=1" {
		t.Errorf("systemd was told %q", got)
	}
}
