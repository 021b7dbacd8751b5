package standby

import (
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
	"syscall"
	"testing"
	"time"

	"crossfade/scenarios/lab"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
)

// wrapped is a folder of the node's programs in which pg_basebackup is script;
// $REAL in it is the program itself.
func wrapped(t *testing.T, bin, script string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "crossfade-bin-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	programs, err := os.ReadDir(bin)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range programs {
		if p.Name() != "pg_basebackup" {
			if err := os.Symlink(filepath.Join(bin, p.Name()), filepath.Join(dir, p.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
	script = "#!/bin/sh\nREAL=" + filepath.Join(bin, "pg_basebackup") + "\n" + script + "\n"
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "pg_basebackup"), []byte(script), 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestInterrupted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 17, nil)
	w.Exec(w.primary, "", "INSERT INTO public.t SELECT generate_series(1, 200000)")
	metal, mn := w.place("metal")
	w.o.Nodes = []Node{*mn}

	// The tool is stopped while it copies.
	w.o.Nodes[0].Bin = wrapped(t, mn.Bin, `[ "$1" = --version ] || set -- -r 2M "$@"; exec "$REAL" "$@"`)
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		_ = pg.Poll(ctx, 20*time.Millisecond, "half a copy", func(context.Context) (bool, error) {
			_, err := os.Stat(filepath.Join(metal.DataDir, "base"))
			return err == nil, nil
		})
		cancel(errors.New("the operator has had enough"))
	}()
	err := flow.Run(ctx, flow.Plan{Name: "prepare", Steps: Steps(w.o)}, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "had enough") {
		t.Fatal(err)
	}
	if m, err := w.o.builders()[0].marked(t.Context()); m.Phase != copying || err != nil {
		t.Errorf("the mark says %+v %v", m, err)
	}

	// The tool is killed, and its pg_basebackup goes on.
	w.o.Nodes[0].Bin = wrapped(t, mn.Bin, `[ "$1" = --version ] && exec "$REAL" "$@"; setsid "$REAL" -r 2M "$@" >/dev/null 2>&1 & sleep 1; exit 9`)
	if _, err := w.run(Steps(w.o)); err == nil {
		t.Fatal("a base backup that failed was taken for a whole one")
	}
	expect(t, "orphans", w.Value(w.primary, "", "SELECT (count(*) > 0)::text FROM pg_stat_replication"), "true")

	w.o.Nodes[0].Bin = mn.Bin
	did := strings.Join(w.must(Steps(w.o)), " ")
	if !strings.Contains(did, "clear") || strings.Contains(did, "aside") {
		t.Errorf("it did %s", did)
	}
	w.nothing(Steps(w.o))
	if left, _ := filepath.Glob(metal.DataDir + ".before*"); len(left) > 0 {
		t.Errorf("half a copy was moved aside: %v", left)
	}

	// Killed after each step that is left: what runs again goes on from there.
	w.must(Remove(w.o))
	steps := Steps(w.o)
	for n := 1; n < len(steps); n += 2 {
		if _, err := w.run(steps[:n]); err != nil {
			t.Fatal(err)
		}
	}
	w.must(steps)
	w.nothing(steps)
}

func TestInTheWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 17, nil)
	other := w.Primary("other", 15)
	_, mn := w.place("metal")
	refused := func(what string, n Node, words ...string) {
		t.Helper()
		w.o.Nodes = []Node{n}
		before := w.Value(w.primary, "", "SELECT count(*) FROM pg_replication_slots")
		_, err := w.run(Steps(w.o))
		if err == nil {
			t.Errorf("%s: not refused", what)
			return
		}
		for _, word := range append(words, n.Name) {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %q is not in: %v", what, word, err)
			}
		}
		t.Logf("%s: %v", what, err)
		if errs := Refusals(t.Context(), w.o); len(errs) == 0 {
			t.Errorf("%s: not found beforehand", what)
		}
		expect(t, what+": slots", w.Value(w.primary, "", "SELECT count(*) FROM pg_replication_slots"), before)
	}
	n := *mn
	n.Server = server(t, "metal", other.Conninfo("postgres"))
	refused("a server of another cluster at its address", n, "PostgreSQL 15", "another cluster")
	n.Server = w.o.Primary
	refused("the primary at its address", n, "a primary of the new cluster")
	n = *mn
	n.DataDir = other.DataDir
	refused("a server in its data directory", n, "runs in "+other.DataDir)
	if !other.Running() {
		t.Error("the other server was stopped")
	}
	w.Standby(w.primary, "power", lab.StandbyOptions{})
	n = *mn
	n.Server = server(t, "metal", w.Clusters()[len(w.Clusters())-1].Conninfo("postgres"))
	refused("another standby at its address", n, "another standby of the new cluster")
	n.DataDir = w.Clusters()[len(w.Clusters())-1].DataDir
	refused("a standby that is not as the runbook wants it", n, "has not built")

	n = *mn
	w.Exec(w.primary, "", "SELECT pg_create_logical_replication_slot('metal', 'pgoutput')")
	w.o.Nodes = []Node{n}
	if _, err := w.run(Steps(w.o)); err == nil || !strings.Contains(err.Error(), "logical") {
		t.Errorf("a logical slot of its name: %v", err)
	}
	w.Exec(w.primary, "", "SELECT pg_drop_replication_slot('metal')")

	if os.Geteuid() == 0 {
		dir, err := os.MkdirTemp("/tmp", "crossfade-root-")
		w.Must(err)
		defer func() { _ = os.RemoveAll(dir) }()
		n.DataDir = filepath.Join(dir, "data")
		refused("a folder of root", n, "belongs to root")
	}

	w.movesAside(*mn, other)
}

// movesAside builds the node where a stopped server of somebody else is, and
// demands more of it than it can give.
func (w *world) movesAside(n Node, other *lab.Cluster) {
	t := w.t
	// What is in the way and belongs to nobody is moved aside.
	w.Must(other.Stop(t.Context(), lab.Fast))
	n.DataDir = other.DataDir
	w.o.Nodes = []Node{n}
	w.must(Steps(w.o))
	w.nothing(Steps(w.o))
	aside, _ := filepath.Glob(other.DataDir + ".before-up-*")
	if len(aside) != 1 {
		t.Fatalf("moved aside: %v", aside)
	}
	if v, err := os.ReadFile(filepath.Join(aside[0], "PG_VERSION")); strings.TrimSpace(string(v)) != "15" {
		t.Errorf("what was moved aside is of %q (%v)", v, err)
	}

	names := "FIRST 2 (metal, rock)"
	w.o.SynchronousStandbyNames = &names
	if _, err := w.run(Steps(w.o)); err == nil || !strings.Contains(err.Error(), "1 more") {
		t.Errorf("commits would hang: %v", err)
	}
	names = "*"
	w.Exec(w.primary, "", "SELECT pg_create_logical_replication_slot('l', 'pgoutput')")
	w.must(Steps(w.o))
	w.Exec(w.primary, "", "INSERT INTO public.t VALUES (1)")
	w.must(Remove(w.o))
}

// TestOutside has the configuration outside of the data directory, and starts
// and stops by commands.
func TestOutside(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 18, nil)
	metal, mn := w.place("metal")
	etc, err := metal.ConfigOutside(map[string]string{"wal_level": "logical", "max_wal_senders": "20", "max_worker_processes": "20", "max_replication_slots": "20"})
	w.Must(err)
	mn.Config = etc
	power, pn := w.place("power")
	etc, err = power.ConfigOutside(map[string]string{"wal_level": "logical", "max_wal_senders": "20", "max_worker_processes": "20", "max_replication_slots": "20"})
	w.Must(err)
	pn.Config, pn.Start, pn.Stop, pn.Upstream = etc, power.StartCommand(), power.StopCommand(), mn
	w.Exec(w.primary, "", fmt.Sprintf("ALTER SYSTEM SET port = %d", w.primary.Port)) // must not come along
	w.o.Nodes = []Node{*mn, *pn}
	w.must(Steps(w.o))
	w.nothing(Steps(w.o))
	expect(t, "config_file", w.Value(metal, "", "SHOW config_file"), filepath.Join(mn.Config, "postgresql.conf"))
	expect(t, "config_file", w.Value(power, "", "SHOW config_file"), filepath.Join(etc, "postgresql.conf"))
	w.o.Nodes[0].Settings = []Setting{{"max_connections", "150"}}
	w.o.Nodes[1].Settings = []Setting{{"max_connections", "160"}}
	w.must(Steps(w.o))
	expect(t, "max_connections", w.Value(power, "", "SHOW max_connections"), "160")
	w.must(Remove(w.o))
	if metal.Running() || power.Running() {
		t.Error("a standby still runs")
	}
}

// TestUnprivileged plays the tree as a user that is not root.
func TestUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("every test is without root's rights here")
	}
	t.Parallel()
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	dir, err := os.MkdirTemp("/tmp", "crossfade-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	from, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	to, err := os.OpenFile(filepath.Join(dir, "test"), os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(to, from)
	if err := errors.Join(err, from.Close(), to.Close(), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), to.Name(), "-test.run", "TestRemove", "-test.short")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+os.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
