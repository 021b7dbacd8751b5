package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// owner is the user that servers run as and that owns their files. PostgreSQL and PgBouncer refuse to run as root, so
// root hands everything to an unprivileged user; anybody else is their own owner.
type owner struct {
	Name     string
	uid, gid int
	drop     bool // root must drop to it
}

// serverOwner finds the owner for this process: itself, or for root the user postgres, or else nobody.
func serverOwner() (owner, error) {
	if uid := os.Geteuid(); uid != 0 {
		o := owner{Name: strconv.Itoa(uid), uid: uid, gid: os.Getegid()}
		if u, err := user.Current(); err == nil {
			o.Name = u.Username
		}
		return o, nil
	}
	var errs []error
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		uid, err := strconv.Atoi(u.Uid)
		if err != nil {
			return owner{}, fmt.Errorf("user %s: %w", name, err)
		}
		gid, err := strconv.Atoi(u.Gid)
		if err != nil {
			return owner{}, fmt.Errorf("user %s: %w", name, err)
		}
		return owner{Name: name, uid: uid, gid: gid, drop: true}, nil
	}
	return owner{}, fmt.Errorf("root cannot run PostgreSQL, and there is no user to drop to: %w", errors.Join(errs...))
}

// command is a short-lived program run as the owner, in a process group of its own, without this process's PG*
// variables. Cancelling interrupts it first, which pg_basebackup and psql clean up on, and kills it 5 s later.
func (o owner) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if o.drop {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(o.uid), Gid: uint32(o.gid)}
	}
	cmd.Env = environment()
	cmd.Dir = os.TempDir() // one that the owner may stand in
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// environment is what children see: nothing of libpq's or the locale's, so that a run is the same for everybody.
func environment() []string {
	env := []string{"LC_ALL=C", "TZ=UTC", "PGCONNECT_TIMEOUT=10"}
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case strings.HasPrefix(name, "PG"), strings.HasPrefix(name, "LC_"), name == "LANG", name == "TZ", name == "HOME":
		default:
			env = append(env, kv)
		}
	}
	return append(env, "HOME="+os.TempDir())
}

// run runs cmd and returns its standard output; an error carries the end of what it said.
func run(ctx context.Context, cmd *exec.Cmd) (string, error) {
	var out, said said
	cmd.Stdout = io.MultiWriter(&out, &said)
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return out.String(), fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, tail(said.String(), 2000))
	}
	return out.String(), nil
}

// said collects what a program prints; os/exec writes its two streams from two goroutines.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// tail is the end of s, at most n bytes, from the start of a line where one is near.
func tail(s string, n int) string {
	s = strings.TrimRight(s, "\n")
	if len(s) <= n {
		return s
	}
	s = s[len(s)-n:]
	if _, rest, ok := strings.Cut(s, "\n"); ok && rest != "" {
		s = rest
	}
	return s
}

// mkdir makes a folder of the owner's. An existing one is handed over as it is.
func (o owner) mkdir(path string, mode os.FileMode) error {
	if err := os.MkdirAll(path, mode); err != nil {
		return err
	}
	if err := os.Chmod(path, mode); err != nil {
		return err
	}
	if !o.drop {
		return nil
	}
	return os.Chown(path, o.uid, o.gid)
}

// write writes a file of the owner's.
func (o owner) write(path string, text string, mode os.FileMode) error {
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		return err
	}
	if !o.drop {
		return nil
	}
	return os.Chown(path, o.uid, o.gid)
}

// Poll calls f every so often until it says true or fails, or the context ends; the error then is the context's cause.
func Poll(ctx context.Context, every time.Duration, f func() (bool, error)) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
		}
		done, err := f()
		if err != nil || done {
			return err
		}
		timer.Reset(every)
	}
}
