package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// A Daemon is a program of the lab that runs beside the servers and says on its standard output what it does.
type Daemon struct {
	Name string
	Home string // its own folder, which the servers' user may write

	lab   *Lab
	thing thing
	args  []string // the program first
	env   []string
}

// daemon finds a place for a program that is to run in the background, as the servers' owner; it does not run yet.
func (l *Lab) daemon(name string) (*Daemon, error) {
	home := filepath.Join(l.Dir, name)
	d := &Daemon{
		Name: name, Home: home, lab: l,
		thing: thing{Kind: kindDaemon, Name: name, Home: home, Works: home, PidFile: filepath.Join(home, "pid")},
	}
	if err := l.add(d.thing); err != nil {
		return nil, err
	}
	return d, l.owner.mkdir(home, 0o755)
}

// Boot starts it where it does not run. It outlives ctx.
func (d *Daemon) Boot(ctx context.Context) error {
	if d.Running() {
		return nil
	}
	logfile, err := os.OpenFile(filepath.Join(d.Home, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = logfile.Close() }()
	cmd := d.lab.owner.command(context.WithoutCancel(ctx), d.args[0], d.args[1:]...)
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Setsid = false, true
	cmd.Env = append(cmd.Env, d.env...)
	cmd.Dir = d.Home
	cmd.Stdout, cmd.Stderr = logfile, logfile
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", d.Name, err)
	}
	if err := d.lab.owner.write(d.thing.PidFile, fmt.Sprintln(cmd.Process.Pid), 0o644); err != nil {
		return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	go func() { _ = cmd.Wait() }() // reaps it, whenever it ends
	return nil
}

// Running says whether it runs.
func (d *Daemon) Running() bool { return d.thing.pid(context.Background()) != 0 }

// Kill ends it at once and waits until it is gone. What it has started runs on where it left it behind.
func (d *Daemon) Kill(ctx context.Context) error {
	pid := d.thing.pid(ctx)
	if pid == 0 {
		return nil
	}
	if err := signal(pid, syscall.SIGKILL); err != nil {
		return err
	}
	return gone(ctx, pid)
}

// Log is what it has said.
func (d *Daemon) Log() string {
	b, err := os.ReadFile(filepath.Join(d.Home, "log"))
	if err != nil {
		return ""
	}
	return string(b)
}

// kindDaemon is the kind of a thing that must be ended before the servers: it would start them again.
const kindDaemon = "daemon"

// command is a program with the environment of the daemon's own, to be waited for.
func (d *Daemon) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := d.lab.owner.command(ctx, args[0], args[1:]...)
	cmd.Env = append(cmd.Env, d.env...)
	return cmd
}

// A Manager is what decides which node of a cluster is its primary: repmgr or Patroni, and the third vote beside its two
// nodes.
type Manager struct {
	Kind string // repmgr, patroni
	// API are the addresses of Patroni's REST API; none of repmgr's.
	API []string
	// Ask is the argv of the manager's own program that says how its nodes are.
	Ask []string

	nodes   []*Daemon // by the node's place: the primary's first, the third vote's last
	names   []string
	cluster []*Cluster // the servers that it manages, in the same order
	held    func(ctx context.Context) (bool, error)
}

// Node is the manager's process on one node, or the third vote's.
func (m *Manager) Node(name string) *Daemon {
	for i, n := range m.names {
		if n == name {
			return m.nodes[i]
		}
	}
	return nil
}

// Paused says whether the manager itself says that none of its nodes would act.
func (m *Manager) Paused(ctx context.Context) (bool, error) { return m.held(ctx) }

// Until waits until the manager is paused, or is not.
func (m *Manager) Until(ctx context.Context, paused bool) error {
	err := Poll(ctx, pollAgain, func() (bool, error) {
		is, err := m.held(ctx)
		return is == paused, err
	})
	if err != nil {
		return fmt.Errorf("wait until %s paused is %t: %w", m.Kind, paused, err)
	}
	return nil
}

// Restart ends every process of the manager at once, and starts them again; the servers run on.
func (m *Manager) Restart(ctx context.Context) error {
	for _, d := range m.nodes {
		if err := d.Kill(ctx); err != nil {
			return err
		}
	}
	for _, d := range m.nodes {
		if err := d.Boot(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Lose ends a node at once, the manager's process first, as when its machine fails.
func (m *Manager) Lose(ctx context.Context, c *Cluster) error {
	if d := m.Node(c.Name); d != nil {
		if err := d.Kill(ctx); err != nil {
			return err
		}
	}
	return c.Kill(ctx)
}

// Log is the end of what every process of the manager has said.
func (m *Manager) Log() string {
	var b strings.Builder
	for _, d := range m.nodes {
		fmt.Fprintf(&b, "--- %s\n%s\n", d.Name, tail(d.Log(), 3000))
	}
	return b.String()
}
