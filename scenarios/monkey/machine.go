package monkey

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// command is one that somebody typed on a machine.
type command struct {
	life
	machine string
	proc    *os.Process
	done    chan struct{}
	base    string // its output is base.jsonl and base.log

	// When it has ended:
	exit int // -1: by a signal
	says string

	mu    sync.Mutex
	begun map[string]bool
	watch []watcher
}

// watcher is what waits for a step to begin.
type watcher struct {
	step string
	do   func(reached bool)
}

var confirmed = []string{"cutover", "rollback", "rehearse", "finish", "abort"}

// typed starts a command on a machine. The watchers are called when their step
// begins, while the command waits; or when it has ended without it.
func (r *run) typed(machine, words string, watch ...watcher) (*command, error) {
	r.mu.Lock()
	r.typedCount++
	base := filepath.Join(r.dir, fmt.Sprintf("%03d-%s-%s", r.typedCount, machine, words))
	r.mu.Unlock()
	c := &command{life: life{command: words}, machine: machine, done: make(chan struct{}), base: base, begun: map[string]bool{}, watch: watch}
	stderr, err := os.Create(base + ".log")
	if err != nil {
		return nil, err
	}
	defer func() { _ = stderr.Close() }() // the process has its own
	results, err := os.Create(base + ".jsonl")
	if err != nil {
		return nil, err
	}
	// A pipe of our own: Wait does not wait for children that hold it.
	from, to, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, results.Close())
	}
	args := []string{words, "-f", r.stage.runbook(machine), "--json"}
	if slices.Contains(confirmed, words) {
		args = append(args, "--yes")
	}
	cmd := exec.Command(r.stage.exe, args...) //nolint:noctx // ended by the run, when its limit is over
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Dir = r.stage.dirs[machine]
	cmd.Stdout, cmd.Stderr = to, stderr
	if words == "abort" { // prepare may follow
		r.load.prepared.Store(false)
	}
	c.start = r.now()
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, results.Close(), from.Close(), to.Close())
	}
	_ = to.Close() // the process has its own
	c.proc = cmd.Process
	r.book.note("typed", "on", machine, "command", words, "pid", fmt.Sprint(c.proc.Pid), "output", filepath.Base(base))
	read := make(chan struct{})
	go func() {
		defer close(read)
		scan := bufio.NewScanner(from)
		scan.Buffer(nil, 64<<20)
		for scan.Scan() {
			_, _ = results.Write(append(scan.Bytes(), '\n')) // evidence; the disk is not under test
			c.line(scan.Bytes())
		}
		_, _ = from.Close(), results.Close()
	}()
	go func() {
		_ = cmd.Wait() // its exit code says it all
		select {
		case <-read:
		case <-time.After(500 * time.Millisecond): // a child that guards the poolers holds the pipe
		}
		c.mu.Lock()
		c.end = r.now()
		c.exit = cmd.ProcessState.ExitCode()
		watch := c.watch
		c.watch = nil
		if c.says == "" {
			c.says = lastLine(base + ".log")
		}
		c.mu.Unlock()
		for _, w := range watch {
			w.do(false)
		}
		r.book.note("ended", "on", machine, "command", words, "exit", fmt.Sprint(c.exit), "says", c.says)
		if c.exit == 0 && words != "abort" && words != "status" && words != "verify" {
			r.load.prepared.Store(true)
		}
		r.count("exit "+fmt.Sprint(c.exit), 1)
		close(c.done)
	}()
	return c, nil
}

// line takes a line of a command's results.
func (c *command) line(b []byte) {
	var l struct {
		Type, Kind, Step string
		Says             json.RawMessage
	}
	if json.Unmarshal(b, &l) != nil {
		return
	}
	c.mu.Lock()
	if l.Type == "error" {
		c.says = string(l.Says)
	}
	var due []watcher
	if l.Type == "event" && l.Kind == "begin" && !c.begun[l.Step] {
		c.begun[l.Step] = true
		c.watch = slices.DeleteFunc(c.watch, func(w watcher) bool {
			if w.step == l.Step {
				due = append(due, w)
			}
			return w.step == l.Step
		})
	}
	c.mu.Unlock()
	for _, w := range due {
		w.do(true)
	}
}

func (c *command) signal(s syscall.Signal) {
	select {
	case <-c.done:
	default:
		_ = c.proc.Signal(s) // one that has ended just now needs none
	}
}

func lastLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

// status is what crossfade says to type next, and the phase; "" is nothing, or no answer.
func (r *run) status(machine string) (next, phase string) {
	c, err := r.typed(machine, "status")
	if err != nil {
		return "", ""
	}
	r.wait(c, r.limit)
	b, err := os.ReadFile(c.base + ".jsonl")
	if err != nil {
		return "", ""
	}
	for line := range strings.Lines(string(b)) {
		var s struct {
			Type, Phase string
			Next        *string
		}
		if json.Unmarshal([]byte(line), &s) != nil || s.Type != "status" {
			continue
		}
		if s.Next != nil {
			if words := strings.Fields(*s.Next); len(words) >= 2 && words[0] == "crossfade" {
				next = words[1]
			}
		}
		return next, s.Phase
	}
	return "", ""
}

// wait waits for a command to end by itself; one that does not within the limit
// is interrupted, then killed.
func (r *run) wait(c *command, limit time.Duration) bool {
	select {
	case <-c.done:
		return true
	case <-time.After(limit):
	}
	c.signal(syscall.SIGCONT)
	c.signal(syscall.SIGINT)
	select {
	case <-c.done:
	case <-time.After(20 * time.Second):
		c.signal(syscall.SIGKILL)
		<-c.done
	}
	return false
}
