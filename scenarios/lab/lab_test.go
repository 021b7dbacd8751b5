package lab_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"crossfade/scenarios/lab"
	"crossfade/scenarios/lab/labtest"
)

// TestMain lets this binary play a process that starts a lab and is killed, or leaves it running.
func TestMain(m *testing.M) {
	if role := os.Getenv("LAB_TEST_ROLE"); role != "" {
		if err := play(role); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// play starts a lab with one server and prints its folder and the server's process; then it leaves, or hangs.
func play(role string) error {
	ctx := context.Background()
	l, err := lab.New(ctx, lab.Config{Keep: role == "keep"})
	if err != nil {
		return err
	}
	c, err := l.Start(ctx, lab.Options{Name: "wacken", Major: 15})
	if err != nil {
		return err
	}
	fmt.Println(l.Dir, c.Pid())
	if role == "hang" {
		_, err = os.Stdin.Read(make([]byte, 1))
	}
	return err
}

func limit(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for a condition.
func eventually(t *testing.T, within time.Duration, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(within); !f(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

func TestServers(t *testing.T) {
	for _, major := range []int{15, 17, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			l, ctx := labtest.T(t), limit(t, time.Minute)
			wacken := l.Start(lab.Options{Name: "wacken", Major: major, Settings: map[string]string{"work_mem": "5MB"}})
			metal := l.Standby(wacken, "metal", lab.StandbyOptions{Settings: map[string]string{"wal_retrieve_retry_interval": "100ms"}})
			power := l.Standby(metal, "power", lab.StandbyOptions{ApplicationName: "rock", Settings: map[string]string{"work_mem": "6MB"}})

			l.Exec(wacken, "", "CREATE TABLE band (name text)", "INSERT INTO band VALUES ('motörhead')")
			l.Must(wacken.CaughtUp(ctx, power))
			for c, want := range map[*lab.Cluster]string{wacken: "5MB", metal: "5MB", power: "6MB"} {
				if got := l.Value(c, "", "SELECT name FROM band"); got != "motörhead" {
					t.Errorf("%s has %q", c.Name, got)
				}
				if got := l.Value(c, "", "SHOW work_mem"); got != want {
					t.Errorf("work_mem of %s is %s, not %s", c.Name, got, want)
				}
			}
			if got := l.Value(metal, "", "SELECT application_name FROM pg_stat_replication"); got != "rock" {
				t.Errorf("power calls itself %q", got)
			}
			if got := l.Value(wacken, "", "SELECT slot_name || ' ' || active FROM pg_replication_slots"); got != "metal true" {
				t.Errorf("slot on wacken: %q", got)
			}

			l.Must(wacken.Kill(ctx))
			if wacken.Running() || !metal.Running() {
				t.Fatal("wacken runs, or metal does not")
			}
			l.Must(wacken.Boot(ctx))
			l.Exec(wacken, "", "INSERT INTO band VALUES ('saxon')")
			l.Must(wacken.CaughtUp(ctx, power))
			l.Must(wacken.Stop(ctx, lab.Fast))
			l.Must(metal.Promote(ctx))
			l.Exec(metal, "", "INSERT INTO band VALUES ('accept')")
			l.Must(metal.CaughtUp(ctx, power))
			if !strings.Contains(wacken.Log(), "automatic recovery in progress") {
				t.Error("the log does not tell of the crash")
			}
		})
	}
}

func TestStandbyNames(t *testing.T) {
	l, ctx := labtest.T(t), limit(t, time.Minute)
	wacken := l.Primary("wacken", 17)
	l.Standby(wacken, "metal-2", lab.StandbyOptions{NoSlot: true, NoApplicationName: true, Delay: time.Hour})
	if got := l.Value(wacken, "", "SELECT application_name FROM pg_stat_replication"); got != "metal-2" {
		t.Errorf("without application_name it is %q, not cluster_name", got)
	}
	other := l.Primary("other", 17)
	ids := map[string]bool{}
	for _, c := range []*lab.Cluster{wacken, other} {
		ids[l.Value(c, "", "SELECT system_identifier FROM pg_control_system()")] = true
	}
	if len(ids) != 2 {
		t.Error("two clusters have one system identifier")
	}
	l.Must(wacken.Set(ctx, "synchronous_standby_names", `ANY 1 ("metal-2", rock)`, "work_mem", "7MB"))
	if got := l.Value(wacken, "", "SHOW synchronous_standby_names"); got != `ANY 1 ("metal-2", rock)` {
		t.Errorf("synchronous_standby_names is %s", got)
	}
	if err := wacken.Set(ctx, "max_connections", "50"); err == nil || !strings.Contains(err.Error(), "max_connections") {
		t.Errorf("a setting that needs a restart: %v", err)
	}
	if _, err := l.Lab.Start(ctx, lab.Options{Name: "wacken", Major: 17}); err == nil {
		t.Error("a second wacken")
	}
	full := t.TempDir()
	l.Must(os.WriteFile(filepath.Join(full, "mine"), nil, 0o644))
	if _, err := l.Lab.Start(ctx, lab.Options{Name: "full", Major: 17, Dir: full}); err == nil {
		t.Error("a cluster in a folder with something in it")
	}
	if _, err := lab.New(ctx, lab.Config{Dir: full}); err == nil {
		t.Error("a lab in a folder with something in it")
	}
	if _, err := l.Lab.Start(ctx, lab.Options{Name: "broken", Major: 17, Settings: map[string]string{"work_mem": "much"}}); err == nil || !strings.Contains(err.Error(), "work_mem") {
		t.Errorf("a server that cannot start: %v", err)
	}
}

// TestReserve builds a server in a reserved place as crossfade will, configured inside and outside its data directory.
func TestReserve(t *testing.T) {
	l, ctx := labtest.T(t), limit(t, time.Minute)
	wacken := l.Primary("wacken", 17)
	for _, outside := range []bool{false, true} {
		c := l.Reserve(fmt.Sprintf("metal-%v", outside), 17)
		if _, err := os.Stat(c.DataDir); err == nil {
			t.Fatal("there is something in the reserved place")
		}
		run(t, l, filepath.Join(wacken.Bin, "pg_basebackup"), "-D", c.DataDir, "-d", wacken.Conninfo(""), "-R", "--no-sync", "-c", "fast")
		if outside {
			if _, err := c.ConfigOutside(map[string]string{"work_mem": "9MB"}); err != nil {
				t.Fatal(err)
			}
		} else {
			var s strings.Builder
			for name, value := range c.Settings() {
				fmt.Fprintf(&s, "%s = '%s'\n", name, value)
			}
			f, err := os.OpenFile(filepath.Join(c.DataDir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
			l.Must(err)
			_, err = f.WriteString(s.String())
			l.Must(err)
			l.Must(f.Close())
		}
		argv := c.StartCommand()
		run(t, l, argv[0], argv[1:]...)
		if !c.Running() || l.Value(c, "", "SELECT pg_is_in_recovery()") != "t" {
			t.Fatal("it does not stand by")
		}
		l.Must(c.Kill(ctx))
		l.Must(c.Boot(ctx))
		if want := map[bool]string{true: "9MB", false: "4MB"}[outside]; l.Value(c, "", "SHOW work_mem") != want {
			t.Error("booted with another configuration")
		}
		argv = c.StopCommand()
		run(t, l, argv[0], argv[1:]...)
		argv = c.StartCommand()
		run(t, l, argv[0], argv[1:]...) // left to Down
	}
}

func TestFreeze(t *testing.T) {
	l, ctx := labtest.T(t), limit(t, time.Minute)
	wacken := l.Primary("wacken", 18)
	l.Ledger(wacken.Conninfo(""))
	w := l.Write(wacken.Conninfo(""), lab.WriterOptions{Writers: 2})
	l.Must(w.Flow(ctx, 50))
	l.Must(wacken.Freeze(ctx))
	at, acked := time.Now(), w.Acked()
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if err := w.Flow(short, 10); err == nil {
		t.Errorf("a frozen server took rows: %d then, %d now", acked, w.Acked())
	}
	l.Must(wacken.Thaw(ctx))
	l.Must(w.Flow(ctx, 50))
	if gap := w.GapSince(at); gap.Length < 300*time.Millisecond {
		t.Errorf("frozen for 300 ms, the gap is %v", gap)
	}
	report := w.Stop()
	if len(report.Failures) > 0 {
		t.Errorf("errors: %v", report.Failures)
	}
	l.Judge(wacken.Conninfo(""), "", report)
	l.Must(wacken.Freeze(ctx)) // Down must cope
}

// run runs a program as the servers' user.
func run(t *testing.T, l *labtest.Lab, program string, args ...string) {
	t.Helper()
	if _, err := l.Run(limit(t, time.Minute), program, args...); err != nil {
		t.Fatal(err)
	}
}

// child plays a role in another process and returns what it printed: the lab's folder and the server's process.
func child(t *testing.T, role string) (cmd *exec.Cmd, dir string, pid int) {
	t.Helper()
	labtest.Need(t, 15)
	cmd = exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "LAB_TEST_ROLE="+role)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close() })
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	scan := bufio.NewScanner(out)
	if !scan.Scan() {
		t.Fatal("the child says nothing")
	}
	if _, err := fmt.Sscan(scan.Text(), &dir, &pid); err != nil {
		t.Fatalf("the child says %q", scan.Text())
	}
	return cmd, dir, pid
}

func gone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}

// TestKilled kills a process that has a lab: its servers end and its folder goes.
func TestKilled(t *testing.T) {
	for _, frozen := range []bool{false, true} {
		cmd, dir, pid := child(t, "hang")
		if frozen {
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
		eventually(t, 10*time.Second, "the server is gone", func() bool { return gone(pid) })
		eventually(t, 10*time.Second, "the folder is gone", func() bool { _, err := os.Stat(dir); return err != nil })
	}
}

// TestKept leaves servers running after a process that has ended, and takes them down from another.
func TestKept(t *testing.T) {
	ctx := limit(t, time.Minute)
	cmd, dir, pid := child(t, "keep")
	t.Cleanup(func() {
		if err := lab.Down(context.WithoutCancel(ctx), dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	l, err := lab.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := l.Clusters()
	if len(all) != 1 || all[0].Pid() != pid {
		t.Fatalf("the lab's clusters are %+v", all)
	}
	if _, err := all[0].Value(ctx, "", "SELECT 1"); err != nil {
		t.Error(err)
	}
	if err := all[0].Restart(ctx); err != nil { // by another process than the one that made it
		t.Error(err)
	}
	pid = all[0].Pid()
	if err := lab.Down(ctx, dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); err == nil || !gone(pid) {
		t.Error("still there")
	}
}
