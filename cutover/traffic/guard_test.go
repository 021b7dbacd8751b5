package traffic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"crossfade/scenarios/lab"
	"crossfade/upgrade/pg"
)

// The test binary is also the guard, and the tool that starts one.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "guard":
		os.Exit(GuardMain(os.Stdin))
	case os.Getenv("TRAFFIC_TEST_TOOL") != "":
		if err := tool(os.Getenv("TRAFFIC_TEST_TOOL")); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// tool starts a guard, pauses, says the words it is asked for, and waits.
func tool(words string) error {
	var spec GuardSpec
	if err := json.NewDecoder(os.Stdin).Decode(&spec); err != nil {
		return err
	}
	group, err := spec.switches()
	if err != nil {
		return err
	}
	ctx := context.Background()
	g, err := StartGuard(ctx, os.Args[0], spec)
	if err != nil {
		return err
	}
	if err := group.Pause(ctx); err != nil {
		return err
	}
	for word := range strings.FieldsSeq(words) {
		switch word {
		case sayDecided:
			err = g.Decided()
		case sayPointed:
			err = g.Pointed(group[0].Name())
		}
		if err != nil {
			return err
		}
	}
	fmt.Println("paused")
	select {}
}

// starts is a tool in another process that has paused.
func (w *world) starts(words string, deadline time.Duration) *exec.Cmd {
	w.t.Helper()
	spec, err := Group{w.sw}.Spec(deadline)
	w.Must(err)
	b, err := json.Marshal(spec)
	w.Must(err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TRAFFIC_TEST_TOOL="+words+" ")
	cmd.Stdin = strings.NewReader(string(b))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	w.Must(err)
	w.Must(cmd.Start())
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line := make([]byte, 200)
	n, err := out.Read(line)
	if err != nil || strings.TrimSpace(string(line[:n])) != "paused" {
		w.t.Fatalf("the tool said %q (%v)", line[:n], err)
	}
	if !w.paused() {
		w.t.Fatal("not paused")
	}
	return cmd
}

// free waits until the pooler is not paused, and says how long that took.
func (w *world) free(within time.Duration) time.Duration {
	w.t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(w.t.Context(), within)
	defer cancel()
	if err := pg.Poll(ctx, 20*time.Millisecond, "the guard", func(context.Context) (bool, error) { return !w.paused(), nil }); err != nil {
		w.t.Error(err)
	}
	return time.Since(began)
}

func TestGuard(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil, lab.PoolOptions{})
	ctx := t.Context()
	writer := w.Write(w.shop, lab.WriterOptions{Writers: 2})

	// Killed: at once, also with the whole group of the terminal.
	cmd := w.starts("", time.Minute)
	w.Must(syscall.Kill(-cmd.Process.Pid, syscall.SIGINT))
	w.Must(syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL))
	t.Logf("resumed %s after SIGKILL", w.free(3*time.Second))

	// Frozen: at the deadline.
	cmd = w.starts("", time.Second)
	w.Must(cmd.Process.Signal(syscall.SIGSTOP))
	if took := w.free(3 * time.Second); took < 500*time.Millisecond {
		t.Errorf("resumed after %s", took)
	} else {
		t.Logf("resumed %s after SIGSTOP, deadline 1s", took)
	}

	// Decided, then frozen, then killed: never.
	cmd = w.starts("decided", 500*time.Millisecond)
	w.Must(cmd.Process.Signal(syscall.SIGSTOP))
	w.stays(time.Second)
	w.Must(cmd.Process.Kill())
	w.stays(500 * time.Millisecond)
	w.Must(w.sw.Resume(ctx))

	// Decided and pointed, then killed: at once.
	cmd = w.starts("decided pointed", 500*time.Millisecond)
	w.stays(time.Second)
	w.Must(cmd.Process.Kill())
	w.free(3 * time.Second)

	if report := writer.Stop(); len(report.Failures) > 0 {
		t.Errorf("clients saw %v", report.Failures)
	}

	// In one process: stopped without a word, told too late, and a dead pooler.
	spec, err := Group{w.sw}.Spec(200 * time.Millisecond)
	w.Must(err)
	g, err := StartGuard(ctx, os.Args[0], spec)
	w.Must(err)
	w.Must(g.Stop())
	g, err = StartGuard(ctx, os.Args[0], spec)
	w.Must(err)
	w.Must(w.sw.Pause(ctx))
	w.free(3 * time.Second)
	if err := g.Decided(); !errors.Is(err, ErrResumed) || !g.Resumed() {
		t.Errorf("told too late: %v", err)
	}
	w.Must(g.Stop())
	w.Must(w.pool.Kill(ctx))
	if _, err := StartGuard(ctx, os.Args[0], spec); err == nil || !strings.Contains(err.Error(), w.sw.Instances[0].on()) {
		t.Errorf("a guard that reaches no console: %v", err)
	}
	if _, err := StartGuard(ctx, "/bin/false", spec); err == nil {
		t.Error("a guard that ends at once")
	}
}

// stays looks that the pooler is paused the whole time.
func (w *world) stays(d time.Duration) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), d)
	defer cancel()
	err := pg.Poll(ctx, 50*time.Millisecond, "", func(context.Context) (bool, error) { return !w.paused(), nil })
	if err == nil {
		w.t.Error("it was resumed")
	}
}

// TestWatch has every order of words, end and deadline.
func TestWatch(t *testing.T) {
	for _, c := range []struct {
		words   string // in order; "late" waits for the deadline, "end" closes the pipe
		said    string
		resumes int
		exit    int
		fails   bool
	}{
		{"end", "resumed", 1, 0, false},
		{"late end", "resumed", 1, 0, false},
		{"done", "ok", 0, 0, false},
		{"decided end", "ok", 0, 0, false},
		{"decided late end", "ok", 0, 0, false},
		{"late decided end", "resumed ok", 1, 0, false},
		{"decided pointed end", "ok ok resumed", 1, 0, false},
		{"decided pointed late end", "ok ok resumed", 1, 0, false},
		{"late decided pointed end", "resumed ok ok resumed", 2, 0, false},
		{"decided pointed done", "ok ok ok", 0, 0, false},
		{"end", "resumed", 1, 1, true},
		{"late end", "resumed resumed", 2, 1, true},
		{"late done", "resumed ok", 1, 1, true},
	} {
		words := make(chan string)
		deadline := 200 * time.Millisecond
		go func() {
			defer close(words)
			for word := range strings.FieldsSeq(c.words) {
				switch word {
				case "late":
					<-time.After(deadline * 2)
				case "end":
					return
				default:
					words <- word
				}
			}
		}()
		var said []string
		resumes := 0
		exit := watch(deadline, words, func(s string) { said = append(said, s) }, func([]string) bool { resumes++; return !c.fails })
		if got := strings.Join(said, " "); got != c.said || resumes != c.resumes || exit != c.exit {
			t.Errorf("%s (%v): said %q, resumed %d times, exit %d", c.words, c.fails, got, resumes, exit)
		}
	}
	for _, text := range []string{"", "no json\n", `{"units":[{"kind":"pgbouncer","spec":{"consoles":[{"conninfo":"nonsense"}]}}]}` + "\n", `{"units":[{"kind":"nothing"}]}` + "\n"} {
		var out strings.Builder
		exit := guardMain(strings.NewReader(text), &out, io.Discard)
		if text == "" && exit != 0 || text != "" && (exit != 1 || !strings.HasPrefix(out.String(), sayFailed)) {
			t.Errorf("%q: exit %d, %q", text, exit, out.String())
		}
	}
}
