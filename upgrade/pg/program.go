package pg

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// binFolders are where packages put the programs of one major.
func binFolders(major int) []string {
	m := strconv.Itoa(major)
	return []string{
		"/usr/lib/postgresql/" + m + "/bin", // Debian, Ubuntu
		"/usr/pgsql-" + m + "/bin",          // PGDG on Red Hat
		"/opt/homebrew/opt/postgresql@" + m + "/bin",
		"/usr/local/opt/postgresql@" + m + "/bin",
		"/usr/lib/postgresql" + m + "/bin", // SUSE
	}
}

// Program finds a client program of the given major: in bin where that is
// given, else CROSSFADE_PG_<major>, else where packages put it.
func Program(bin, name string, major int) (string, error) {
	var folders []string
	if bin != "" {
		folders = []string{bin}
	} else {
		if env := os.Getenv("CROSSFADE_PG_" + strconv.Itoa(major)); env != "" {
			folders = append(folders, env)
		}
		folders = append(folders, binFolders(major)...)
	}
	for _, d := range folders {
		p := filepath.Join(d, name)
		if st, err := os.Stat(p); err == nil && !st.IsDir() {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s of PostgreSQL %d was not found in %s: install that client package, or give bin: in the runbook", name, major, strings.Join(folders, ", "))
}

var versionNumber = regexp.MustCompile(`(\d+)(?:\.(\d+))?`)

// ProgramVersion asks a program for its version, as server_version_num writes it.
func ProgramVersion(ctx context.Context, path string) (int, error) {
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return 0, fmt.Errorf("ask %s for its version: %w", path, err)
	}
	m := versionNumber.FindStringSubmatch(string(out))
	if m == nil {
		return 0, fmt.Errorf("%s --version answered %q", path, strings.TrimSpace(string(out)))
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	return major*10000 + minor, nil
}

// Command is program with args in a process group of its own: cancelling ctx
// sends SIGINT to it (pg_dump and pg_basebackup clean up on it), and SIGKILL
// 10 s later. The password and the pinned settings are in its environment; a
// caller puts s.Conninfo() into args.
func (s *Server) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := NewCommand(ctx, program, args...)
	cmd.Env = append(os.Environ(), s.Env()...)
	return cmd
}

// Env is what a client program needs in its environment beyond the conninfo.
func (s *Server) Env() []string {
	env := []string{
		"PGAPPNAME=" + s.app(), "PGCONNECT_TIMEOUT=" + strconv.Itoa(int(connectTimeout.Seconds())),
		"PGOPTIONS=" + strings.TrimSpace(os.Getenv("PGOPTIONS")+" -c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 -c synchronous_commit=local -c default_transaction_read_only=off -c jit=off"),
	}
	if s.conf.Password != "" {
		env = append(env, "PGPASSWORD="+s.conf.Password)
	}
	return env
}

// NewCommand is exec.CommandContext in a process group of its own, ended with
// SIGINT and, 10 s later, SIGKILL.
func NewCommand(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// Tail keeps the last part of what a program says on stderr.
type Tail struct{ b bytes.Buffer }

const tailBytes = 4 << 10

func (t *Tail) Write(b []byte) (int, error) {
	t.b.Write(b)
	if extra := t.b.Len() - tailBytes; extra > 0 {
		t.b.Next(extra)
	}
	return len(b), nil
}

func (t *Tail) String() string { return strings.TrimSpace(t.b.String()) }

// Run runs cmd; its error has the last words of its stderr.
func Run(ctx context.Context, cmd *exec.Cmd) error {
	var tail Tail
	if cmd.Stderr == nil {
		cmd.Stderr = &tail
	}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		}
		return &Error{Doing: "run " + filepath.Base(cmd.Path), Err: fmt.Errorf("%w: %s", err, tail.String())}
	}
	return nil
}
