package e2e

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
	received := make(chan string, 100)
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := socket.Read(buffer)
			if err != nil {
				close(received)
				return
			}
			received <- string(buffer[:n])
		}
	}()
	d := w.run(t, "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=600000")
	time.Sleep(2 * time.Second)
	if code := d.terminate(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	_ = socket.Close()
	var all []string
	beats := 0
	for message := range received {
		if message == "WATCHDOG=1" {
			beats++
			continue
		}
		all = append(all, message)
	}
	if got := strings.Join(all, " "); got != "READY=1 STOPPING=1" {
		t.Errorf("systemd was told %q", got)
	}
	// Two seconds are ten thirds of the interval; a slow machine may miss some.
	if beats < 4 {
		t.Errorf("%d signs of life in two seconds with a watchdog of 600 ms", beats)
	}
}
