package alerts

import (
	"bytes"
	"debug/elf"
	endian "encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// This file gives one daemon a wall clock of its own, which a test can set while the daemon runs. Nobody else sees that.
//
// The daemon is the shipped one. It reads both clocks through a function that the kernel maps into each process, the
// vDSO's clock_gettime. A process may have a private copy of that page, as a debugger makes one for a breakpoint. Before
// the daemon's first instruction the function is replaced there by one that asks the kernel and adds an offset to
// CLOCK_REALTIME alone. A time namespace would not do: it moves the monotonic clock only, and not of a process that runs.

const clockCanBeSet = true

// ownClock is the wall clock of one process.
type ownClock struct {
	pid    int
	offset int64 // where the process has it
}

// clockGettime is clock_gettime(clock, to) as the kernel does it, and if the clock is CLOCK_REALTIME, the seconds that follow
// the code are added.
var clockGettime = []byte{
	0xb8, 0xe4, 0x00, 0x00, 0x00, // mov eax, 228
	0x0f, 0x05, // syscall
	0x85, 0xff, // test edi, edi
	0x75, 0x0a, // jne to the end
	0x48, 0x8b, 0x0d, 0x06, 0x00, 0x00, 0x00, // mov rcx, [rip+6]
	0x48, 0x01, 0x0e, // add [rsi], rcx
	0xc3,       // the end: ret
	0x90, 0x90, // up to a multiple of eight
}

// startWithClock starts a program with a clock of its own.
func startWithClock(cmd *exec.Cmd) (*ownClock, error) {
	runtime.LockOSThread() // the kernel lets one thread trace
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true} // it stops before its first instruction
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	pid := cmd.Process.Pid
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil || !status.Stopped() {
		return nil, fmt.Errorf("the program does not stop at its start: %v, %w", status, err)
	}
	clock, err := replaceClock(pid)
	return clock, errors.Join(err, syscall.PtraceDetach(pid))
}

func replaceClock(pid int) (*ownClock, error) {
	begin, end, err := vdso(pid)
	if err != nil {
		return nil, err
	}
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer memory.Close()
	image := make([]byte, end-begin)
	if _, err := memory.ReadAt(image, begin); err != nil {
		return nil, err
	}
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return nil, fmt.Errorf("the vDSO: %w", err)
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return nil, fmt.Errorf("the vDSO: %w", err)
	}
	n := slices.IndexFunc(symbols, func(s elf.Symbol) bool { return s.Name == "__vdso_clock_gettime" })
	if n < 0 || symbols[n].Size < 64 || symbols[n].Value%8 != 0 {
		return nil, errors.New("the vDSO has no clock_gettime with room for another one")
	}
	at := begin + int64(symbols[n].Value)
	if _, err := memory.WriteAt(slices.Concat(clockGettime, make([]byte, 8)), at); err != nil {
		return nil, err
	}
	return &ownClock{pid: pid, offset: at + int64(len(clockGettime))}, nil
}

// vdso returns where the process has the kernel's functions.
func vdso(pid int) (begin, end int64, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(maps)) {
		if !strings.HasSuffix(strings.TrimSpace(line), "[vdso]") {
			continue
		}
		area, _, _ := strings.Cut(line, " ")
		from, to, _ := strings.Cut(area, "-")
		begin, err1 := strconv.ParseInt(from, 16, 64)
		end, err2 := strconv.ParseInt(to, 16, 64)
		return begin, end, errors.Join(err1, err2)
	}
	return 0, 0, fmt.Errorf("process %d has no vDSO", pid)
}

// set puts the clock ahead of the machine's, or behind it.
func (c *ownClock) set(ahead time.Duration) error {
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", c.pid), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer memory.Close()
	_, err = memory.WriteAt(endian.LittleEndian.AppendUint64(nil, uint64(int64(ahead/time.Second))), c.offset)
	return err
}
