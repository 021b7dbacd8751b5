package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is one line of the process table.
type process struct {
	pid, parent int
	state       byte // as ps shows it; 'Z' is dead but not yet waited for
}

// processes reads the process table: /proc where there is one, ps elsewhere.
func processes(ctx context.Context) (map[int]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil || len(entries) == 0 {
		return processesOfPs(ctx)
	}
	table := make(map[int]process, len(entries))
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if p, ok := lookProc(pid); ok {
			table[pid] = p
		}
	}
	return table, nil
}

// lookProc reads /proc/pid/stat. The second field is the command in parentheses and may hold blanks and parentheses.
func lookProc(pid int) (process, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, false
	}
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return process{}, false
	}
	fields := strings.Fields(string(b[end+1:]))
	if len(fields) < 2 {
		return process{}, false
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return process{}, false
	}
	return process{pid: pid, parent: parent, state: fields[0][0]}, true
}

func processesOfPs(ctx context.Context) (map[int]process, error) {
	out, err := exec.CommandContext(ctx, "ps", "-A", "-o", "pid=,ppid=,stat=").Output()
	if err != nil {
		return nil, fmt.Errorf("ps: %w", err)
	}
	table := map[int]process{}
	for line := range strings.Lines(string(out)) {
		var p process
		var state string
		if _, err := fmt.Sscan(line, &p.pid, &p.parent, &state); err == nil && state != "" {
			p.state = state[0]
			table[p.pid] = p
		}
	}
	return table, nil
}

// alive says whether a process runs; one that is dead and waits to be reaped does not.
func alive(pid int) bool {
	if pid <= 0 {
		return false
	}
	if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
		return false
	}
	if p, ok := lookProc(pid); ok {
		return p.state != 'Z'
	}
	return true
}

// family is pid and everything below it, parents first.
func family(ctx context.Context, pid int) ([]int, error) {
	table, err := processes(ctx)
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, p := range table {
		if p.state != 'Z' {
			children[p.parent] = append(children[p.parent], p.pid)
		}
	}
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all, nil
}

// works says whether process pid works in folder dir: what tells a server's process from another one that was given
// the same number later. PostgreSQL stands in its data directory, and the lab starts PgBouncer in its own folder.
func works(ctx context.Context, pid int, dir string) bool {
	if !alive(pid) {
		return false
	}
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err == nil {
		real, err := filepath.EvalSymlinks(dir)
		return err == nil && cwd == real
	}
	out, err := exec.CommandContext(ctx, "ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.Contains(string(out), dir)
}

// signal sends sig, taking a process that is gone for success.
func signal(pid int, sig syscall.Signal) error {
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal %v to process %d: %w", sig, pid, err)
	}
	return nil
}

// freeze stops pid first, so that it can start nothing new, then everything below it until nothing new turns up.
func freeze(ctx context.Context, pid int) ([]int, error) {
	stopped := map[int]bool{}
	for {
		all, err := family(ctx, pid)
		if err != nil {
			return nil, err
		}
		fresh := false
		for _, p := range all {
			if !stopped[p] {
				if err := signal(p, syscall.SIGSTOP); err != nil {
					return nil, err
				}
				stopped[p], fresh = true, true
			}
		}
		if !fresh {
			return all, nil
		}
	}
}

// KillFamily ends a process and everything below it at once, as when its machine
// is lost, and waits until all are gone. A child that has left the family, as
// daemons do, lives on.
func KillFamily(ctx context.Context, pid int) error { return kill(ctx, pid) }

// kill ends pid and everything below it at once, as a power cut would, and waits until all are gone.
func kill(ctx context.Context, pid int) error {
	all, err := freeze(ctx, pid)
	if err != nil {
		return err
	}
	for _, p := range all {
		if err := signal(p, syscall.SIGKILL); err != nil {
			return err
		}
	}
	return gone(ctx, all...)
}

// gone waits until none of the processes runs any more.
func gone(ctx context.Context, pids ...int) error {
	return Poll(ctx, 5*time.Millisecond, func() (bool, error) {
		for _, p := range pids {
			if alive(p) {
				return false, nil
			}
		}
		return true, nil
	})
}
