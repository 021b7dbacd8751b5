package monkey

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"crossfade/scenarios/lab"
)

// errNotHere is for a fault that this machine cannot make: it is left out, and
// counted so.
var errNotHere = errors.New("it cannot be made here")

// inflict breaks something and returns what puts it back, nil for nothing.
func (r *run) inflict(ctx context.Context, f Fault, c *command) (mend func(context.Context) error, err error) {
	switch f.Target {
	case "tool":
		return r.inflictTool(ctx, f, c)
	case "old", "new", "metal":
		return r.inflictServer(ctx, f, r.stage.cluster(f.Target))
	case "pool1", "pool2":
		return inflictPool(ctx, f, r.stage.pool(f.Target))
	case "journal":
		return r.inflictJournal(f, c.machine)
	}
	for _, p := range r.stage.lines[f.Target] {
		p.Cut()
	}
	return func(context.Context) error {
		for _, p := range r.stage.lines[f.Target] {
			p.Heal()
		}
		return nil
	}, nil
}

func (r *run) inflictTool(ctx context.Context, f Fault, c *command) (func(context.Context) error, error) {
	switch f.Kind {
	case "killed":
		c.signal(syscall.SIGKILL)
	case "interrupted":
		c.signal(syscall.SIGINT)
	case "lost": // the machine, with the child that guards the poolers
		return nil, lab.KillFamily(ctx, c.proc.Pid)
	case "frozen":
		c.signal(syscall.SIGSTOP)
		return func(context.Context) error {
			c.signal(syscall.SIGCONT)
			return nil
		}, nil
	}
	return nil, nil
}

func (r *run) inflictServer(ctx context.Context, f Fault, c *lab.Cluster) (func(context.Context) error, error) {
	if c.Pid() == 0 {
		return nil, fmt.Errorf("%s does not run: %w", c.Name, errNotHere)
	}
	if f.Target != "metal" && f.Kind != "frozen" && f.Kind != "restarted" {
		from := r.now()
		defer func() { r.crashed(crash{f.Target, from, r.now()}) }()
	}
	switch f.Kind {
	case "crashed":
		return c.Boot, c.Stop(ctx, lab.Immediate)
	case "stopped":
		return c.Boot, c.Stop(ctx, lab.Fast)
	case "killed":
		return c.Boot, c.Kill(ctx)
	case "frozen":
		return c.Thaw, c.Freeze(ctx)
	case "restarted":
		return nil, c.Restart(ctx)
	case "headless": // the postmaster alone; its children notice, each in its time
		return func(ctx context.Context) error {
			return lab.Poll(ctx, 100*time.Millisecond, func() (bool, error) { return c.Boot(ctx) == nil, nil })
		}, syscall.Kill(c.Pid(), syscall.SIGKILL)
	case "bereft": // of one backend, which makes all others start anew
		pid, err := c.Value(ctx, "", "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY application_name ~ '^crossfade' DESC, random() LIMIT 1")
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errNotHere, err)
		}
		n, err := strconv.Atoi(pid)
		if err != nil {
			return nil, err
		}
		return nil, syscall.Kill(n, syscall.SIGKILL)
	}
	return nil, errNotHere
}

func inflictPool(ctx context.Context, f Fault, p *lab.Pool) (func(context.Context) error, error) {
	if !p.Running() {
		return nil, fmt.Errorf("%s does not run: %w", p.Name, errNotHere)
	}
	switch f.Kind {
	case "killed":
		return p.Boot, p.Kill(ctx)
	case "frozen":
		return p.Thaw, p.Freeze(ctx)
	case "restarted":
		return nil, errors.Join(p.Stop(ctx), p.Boot(ctx))
	}
	return nil, errNotHere
}

// inflictJournal fills the file system that the machine's journal is on, or
// makes it read-only.
func (r *run) inflictJournal(f Fault, machine string) (func(context.Context) error, error) {
	dir := r.stage.dirs[machine]
	if !r.stage.small[machine] {
		return nil, fmt.Errorf("no file system of its own: %w", errNotHere)
	}
	if f.Kind == "unwritable" {
		if err := readOnlySmall(dir, true); err != nil { // a file is open there
			return nil, fmt.Errorf("%w: %w", errNotHere, err)
		}
		return func(context.Context) error { return readOnlySmall(dir, false) }, nil
	}
	path := filepath.Join(dir, "filler")
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotHere, err)
	}
	_, err = io.Copy(file, zeros{})
	if !errors.Is(err, syscall.ENOSPC) {
		return nil, errors.Join(err, file.Close())
	}
	return func(context.Context) error { return os.Remove(path) }, file.Close()
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
