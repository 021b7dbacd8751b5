package standby

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
)

// mark is what stands beside a data directory that is ours.
type mark struct {
	Upgrade string `json:"upgrade"`
	Node    string `json:"node"`
	System  string `json:"system"`            // the new cluster's system identifier
	Slot    bool   `json:"slot"`              // the slot on the upstream is ours
	Retired bool   `json:"retired,omitempty"` // old's standby has been stopped for it, or is about to be
	Phase   string `json:"phase,omitempty"`   // of the data directory
	Inode   string `json:"inode,omitempty"`   // of the data directory: another one in its place is not ours
}

// The phases of a data directory.
const (
	copying = "copying" // half a base backup, which may be deleted
	copied  = "copied"  // a whole one
)

func (b *builder) markFile() string { return b.DataDir + ".crossfade" }

// managers change the user by themselves, and need to be who the tool is.
var managers = []string{"systemctl", "service", "pg_ctlcluster", "launchctl", "rc-service", "sudo", "doas", "runuser", "su"}

// run runs an effect's program on the node's host as the owner of its data.
func (b *builder) run(ctx context.Context, e flow.Effect, c pg.Cmd) error {
	c.Args = e.Run
	if !slices.Contains(managers, filepath.Base(e.Run[0])) {
		owner, err := b.owner(ctx)
		if err != nil {
			return err
		}
		c.Owner = owner
	}
	err := b.host().Run(ctx, c)
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		// A server that was started may keep the stderr of its starter open.
		return nil
	}
	return b.errorf("on %s: %s: %w", b.host().Name(), strings.Join(e.Run, " "), err)
}

func (b *builder) effect(argv ...string) flow.Effect {
	return flow.Effect{On: b.host().Name(), Run: argv}
}

// owner is the path whose owner everything is done as: the data directory, or
// the nearest folder above that exists. A root that owns it is refused,
// because PostgreSQL does not run as root.
func (b *builder) owner(ctx context.Context) (string, error) {
	p := filepath.Clean(b.DataDir)
	for !b.test(ctx, "-d", p) && p != filepath.Dir(p) {
		p = filepath.Dir(p)
	}
	if _, local := b.host().(pg.Local); !local || os.Geteuid() != 0 {
		return p, nil
	}
	var out bytes.Buffer
	if err := b.host().Run(ctx, pg.Cmd{Args: []string{"ls", "-ldn", p}, Stdout: &out}); err != nil {
		return "", b.errorf("look who owns %s: %w", p, err)
	}
	if f := strings.Fields(out.String()); len(f) > 2 && f[2] == "0" {
		return "", b.errorf("%s belongs to root, and PostgreSQL does not run as root: make the folder for the user that shall run it, as in install -d -o postgres -g postgres -m 700 %s", p, b.DataDir)
	}
	return p, nil
}

// test asks the program test; as the tool itself, so that root sees all.
func (b *builder) test(ctx context.Context, args ...string) bool {
	return b.host().Run(ctx, pg.Cmd{Args: append([]string{"test"}, args...)}) == nil
}

// read is the content of a file; nil where there is none.
func (b *builder) read(ctx context.Context, name string) ([]byte, error) {
	if !b.test(ctx, "-e", name) {
		return nil, ctx.Err()
	}
	var out bytes.Buffer
	if err := b.host().Run(ctx, pg.Cmd{Args: []string{"cat", name}, Stdout: &out}); err != nil {
		return nil, b.errorf("read %s on %s: %w", name, b.host().Name(), err)
	}
	return out.Bytes(), nil
}

// write is the effect that writes a file; its content comes on stdin.
func (b *builder) writes(name string) flow.Effect { return b.effect("tee", name) }

// inode tells one data directory from another in its place.
func (b *builder) inode(ctx context.Context) (string, error) {
	var out bytes.Buffer
	if err := b.host().Run(ctx, pg.Cmd{Args: []string{"ls", "-di", b.DataDir}, Stdout: &out}); err != nil {
		return "", b.errorf("look at %s on %s: %w", b.DataDir, b.host().Name(), err)
	}
	inode, _, _ := strings.Cut(strings.TrimSpace(out.String()), " ")
	return inode, nil
}

// empty is whether the data directory is missing or has nothing in it.
func (b *builder) empty(ctx context.Context) (bool, error) {
	if !b.test(ctx, "-e", b.DataDir) {
		return true, ctx.Err()
	}
	var out bytes.Buffer
	if err := b.host().Run(ctx, pg.Cmd{Args: []string{"ls", "-A", b.DataDir}, Stdout: &out}); err != nil {
		return false, b.errorf("look into %s on %s: %w", b.DataDir, b.host().Name(), err)
	}
	return out.Len() == 0, nil
}

// marked reads the mark; the zero mark where there is none of this upgrade,
// node and cluster. Its phase is dropped where another directory stands in
// the place of the one that it is of.
func (b *builder) marked(ctx context.Context) (mark, error) {
	text, err := b.read(ctx, b.markFile())
	if err != nil || text == nil {
		return mark{}, err
	}
	var m mark
	if json.Unmarshal(text, &m) != nil {
		return mark{}, nil // torn by a crash: nothing was done after it
	}
	id, err := b.identity(ctx)
	if err != nil {
		return mark{}, err
	}
	if m.Upgrade != b.o.Upgrade || m.Node != b.Name || m.System != id.SystemID {
		return mark{}, nil
	}
	if m.Phase != "" {
		if !b.test(ctx, "-d", b.DataDir) {
			m.Phase, m.Inode = "", ""
			return m, ctx.Err()
		}
		inode, err := b.inode(ctx)
		if err != nil {
			return mark{}, err
		}
		if inode != m.Inode {
			m.Phase, m.Inode = "", ""
		}
	}
	return m, nil
}

// marks writes the mark.
func (b *builder) marks(ctx context.Context, m mark) error {
	id, err := b.identity(ctx)
	if err != nil {
		return err
	}
	m.Upgrade, m.Node, m.System = b.o.Upgrade, b.Name, id.SystemID
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("mark %s: %w", b.DataDir, err)
	}
	return b.run(ctx, b.writes(b.markFile()), pg.Cmd{Stdin: bytes.NewReader(append(text, '\n'))})
}

// runs is whether a server runs in the data directory, as pg_ctl sees it.
func (b *builder) runs(ctx context.Context) (bool, error) {
	if !b.test(ctx, "-e", filepath.Join(b.DataDir, "postmaster.pid")) {
		return false, ctx.Err()
	}
	err := b.run(ctx, b.effect(b.program("pg_ctl"), "status", "-D", b.DataDir), pg.Cmd{})
	if err == nil {
		return true, nil
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && (exit.ExitCode() == 3 || exit.ExitCode() == 4) {
		return false, nil
	}
	return false, err
}
