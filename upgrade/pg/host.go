package pg

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// Cmd is a program to run on a host: argv, never a shell line.
type Cmd struct {
	Args []string
	// Env is added to the environment there; secrets go here.
	Env []string
	// Owner runs it as the owner of this path there, where the tool itself
	// runs as root; "" runs it as the tool does.
	Owner  string
	Stdin  io.Reader
	Stdout io.Writer // nil discards
	Dir    string
}

// Host is a machine where programs are run.
type Host interface {
	// Run runs c and waits. Its error has the last words of its stderr.
	Run(ctx context.Context, c Cmd) error
	// Name is how plans and errors call the host.
	Name() string
}

// Local is the machine that the tool runs on.
type Local struct{}

// Name is "local".
func (Local) Name() string { return "local" }

// Run runs c on this machine, as the owner of c.Owner when the tool is root.
func (Local) Run(ctx context.Context, c Cmd) error {
	if len(c.Args) == 0 {
		return fmt.Errorf("run on local: no program was given")
	}
	cmd := NewCommand(ctx, c.Args[0], c.Args[1:]...)
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.Stdin, cmd.Stdout, cmd.Dir = c.Stdin, c.Stdout, c.Dir
	if c.Owner != "" && os.Geteuid() == 0 {
		cred, home, err := ownerOf(c.Owner)
		if err != nil {
			return err
		}
		if cred != nil {
			cmd.SysProcAttr.Credential = cred
			cmd.Env = append(cmd.Env, "HOME="+home)
			if cmd.Dir == "" {
				cmd.Dir = "/"
			}
		}
	}
	return Run(ctx, cmd)
}

// ownerOf is the credential of the owner of path; nil where that is root.
func ownerOf(path string) (*syscall.Credential, string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, "", fmt.Errorf("look who owns %s: %w", path, err)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || sys.Uid == 0 {
		return nil, "", nil
	}
	home := "/"
	if u, err := user.LookupId(strconv.Itoa(int(sys.Uid))); err == nil {
		home = u.HomeDir
	}
	return &syscall.Credential{Uid: sys.Uid, Gid: sys.Gid}, home, nil
}
