package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"crossfade/scenarios/lab"
)

// place is where a script runs: two clusters, a database and a folder.
type place struct {
	b        *bench
	old, new *lab.Cluster
	db       string
	dir      string
	options  string // words of the runbook, one line each
	env      []string
}

// place makes a folder for one run of a script.
func (b *bench) place(ctx context.Context, db string, old, fresh *lab.Cluster) (*place, error) {
	dir, err := b.lab.Run(ctx, "mktemp", "-d", "-p", b.dir)
	return &place{b: b, old: old, new: fresh, db: db, dir: strings.TrimSpace(dir)}, err
}

func (p *place) remove(ctx context.Context) error {
	_, err := p.b.lab.Run(context.WithoutCancel(ctx), "rm", "-rf", p.dir)
	return err
}

// cost is what a run took.
type cost struct {
	Seconds float64
	// Memory is the resident size in bytes of the largest process that the
	// script waited for; servers are not among them.
	Memory int64
	CPU    float64 // seconds of processor, of both servers and of the script
	Steps  float64 // of crossfade: the seconds of its steps
	Stdout string
}

// run runs a bash script as the servers' owner. It sees OLD and NEW, the
// connection strings of the database, DB, DIR, JOBS, and in PATH the programs
// of the new cluster's major, crossfade and pgcopydb.
func (p *place) run(ctx context.Context, script string) (cost, error) {
	cmd := p.b.lab.Command(ctx, "bash", "-c", "set -euo pipefail\n"+script)
	cmd.Dir = p.dir
	path := []string{p.new.Bin, filepath.Dir(p.b.Binary), filepath.Dir(p.b.pgcopydb), os.Getenv("PATH")}
	cmd.Env = append(cmd.Env,
		"PATH="+strings.Join(path, ":"), "OLD="+p.old.Conninfo(p.db), "NEW="+p.new.Conninfo(p.db), "DB="+p.db, "DIR="+p.dir,
		fmt.Sprintf("JOBS=%d", p.b.Jobs), "CROSSFADE_RUNBOOK="+filepath.Join(p.dir, "crossfade.yaml"))
	cmd.Env = append(cmd.Env, p.env...)
	var out, said strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &said
	began, before := time.Now(), p.cpu()
	err := cmd.Run()
	if ctx.Err() != nil && cmd.Process != nil {
		// What bash has started may not listen to it. It is gone where that fails.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	c := cost{Seconds: time.Since(began).Seconds(), Stdout: out.String(), CPU: p.cpu() - before}
	if u, ok := rusage(cmd); ok {
		c.Memory = u.Maxrss << 10
		c.CPU += time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
	}
	if err != nil {
		return c, fmt.Errorf("%w\n%s\n%s\n%s", err, script, last(out.String()), last(said.String()))
	}
	return c, nil
}

func rusage(cmd *exec.Cmd) (*syscall.Rusage, bool) {
	if cmd.ProcessState == nil {
		return nil, false
	}
	u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return u, ok
}

func last(s string) string { return s[max(0, len(s)-3000):] }

// runbook writes the runbook that crossfade reads in this place.
func (p *place) runbook(ctx context.Context) error {
	text := fmt.Sprintf(`upgrade: bench
old: {primary: %q, bin: %q}
new:
  - {cluster: fresh, primary: %q, bin: %q}
databases:
  - {name: %s}
%s`, p.old.Conninfo("postgres"), p.old.Bin, p.new.Conninfo("postgres"), p.new.Bin, p.db, p.options)
	_, err := p.b.lab.Run(ctx, "bash", "-c", `printf %s "$1" > "$2"`, "_", text, filepath.Join(p.dir, "crossfade.yaml"))
	return err
}
