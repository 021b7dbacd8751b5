package proof

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// far is a window that is days away.
func far() string {
	return "  window: {zone: UTC, days: [" + strings.ToLower(time.Now().UTC().Add(72*time.Hour).Format("Mon")) + "], from: \"02:00\", to: \"04:00\"}\n"
}

// waitsFor waits until status, asked elsewhere and without the journal, says
// that a run waits at a step, and returns what it says.
func (w *world) waitsFor(l *live, plan, step string) map[string]any {
	w.t.Helper()
	var s map[string]any
	dir := w.dir
	w.elsewhere()
	defer func() { w.dir = dir }()
	w.wait("a run that waits at "+step, func() bool {
		select {
		case <-l.done:
			w.t.Fatalf("it ended before it waited at %s\n%s", step, l.ran)
		default:
		}
		s = w.status()
		at, _ := s["step"].(map[string]any)
		return at["plan"] == plan && at["id"] == step
	})
	return s
}

// TestRun: the whole way without anybody, with the window and the approval that
// it waits for, interrupted, killed, and run again.
func TestRun(t *testing.T) {
	approve := filepath.Join(t.TempDir(), "approved")
	w := newWorld(t, setting{pooled: true})
	w.runbookLine("approve: auto", "approve: prompt")
	w.errs(2, "run")
	w.wantPhase("new", "old")
	w.runbookLine("approve: prompt", fmt.Sprintf("approve: %q", "file:"+approve))
	w.runbookLine("cutover:\n", "cutover:\n"+far())
	w.Must(os.WriteFile(approve, nil, 0o600)) // before the command: it does not count
	writer := w.Write(w.pool.Conninfo("shop"), lab.WriterOptions{Writers: 2, Pause: 5 * time.Millisecond})

	l := w.follow(w.exe, "", nil, "run")
	s := w.waitsFor(l, "run", "window")
	if s["phase"] != "ready" || s["writable"] != "old" || s["next"] != nil || !strings.Contains(fmt.Sprint(s["notes"]), "T02:00:00Z") {
		t.Errorf("while it waits for the window: %v", s)
	}
	if eta, _ := s["step"].(map[string]any)["eta_seconds"].(float64); eta < 40*3600 || eta > 80*3600 {
		t.Errorf("the window opens in %v s", eta)
	}
	w.errs(8, "prepare")
	w.Must(l.cmd.Process.Signal(syscall.SIGINT))
	w.failed(130, l.end())
	if s := w.status(); s["phase"] != "ready" || s["step"] != nil || s["next"] != "crossfade cutover" {
		t.Errorf("after an interrupt: %v", s)
	}
	if got := w.Value(w.old, "shop", "SELECT count(*) || ' ' || coalesce(max(memory->>'waiting'), 'nothing') FROM crossfade.upgrade"); got != "1 nothing" {
		t.Errorf("it has left behind: %s", got)
	}

	began := time.Now()
	l = w.follow(w.exe, "", nil, "run")
	w.waitsFor(l, "run", "window")
	ready := time.Since(began)
	kill(l.cmd.Process)
	wantExit(t, l.end(), -1)
	w.elsewhere()
	w.wait("the killed run's lock to end", func() bool { return w.status()["step"] == nil })
	if s := w.status(); s["next"] != "crossfade cutover" || strings.Contains(fmt.Sprint(s["notes"]), "waits") {
		t.Errorf("what a run waited for that was killed: %v", s)
	}

	// The next window opens at a whole minute, when the run has come to wait for it.
	opens := time.Now().UTC().Add(2*ready + 4*time.Second).Truncate(time.Minute).Add(time.Minute)
	w.runbookLine(far(), fmt.Sprintf("  window: {zone: UTC, from: %q, to: \"24:00\"}\n", opens.Format("15:04")))
	l = w.follow(w.exe, "", nil, "run")
	w.waitsFor(l, "run", "window")
	w.Exec(w.old, "shop", "CREATE TABLE meanwhile (k int PRIMARY KEY)", "INSERT INTO meanwhile SELECT generate_series(1, 100)")
	s = w.waitsFor(l, "run", "approval")
	if now := time.Now(); now.Before(opens) {
		t.Errorf("at %s, before the window, it waits for the approval", now)
	}
	if s["next"] != "touch "+approve {
		t.Errorf("while it waits for the approval: next is %v, %v", s["next"], s["notes"])
	}
	w.Must(os.WriteFile(approve, nil, 0o600))
	r := l.end()
	wantExit(t, r, 0)
	if !strings.Contains(r.stderr, "is older than this run") {
		t.Errorf("it does not say that an older approval does not count\n%s", r.stderr)
	}
	if _, err := os.Stat(approve + ".used"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(approve); err == nil {
		t.Error("the approval is there still")
	}
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	if !strings.HasPrefix(lines[len(lines)-1], `{"type":"cutover"`) {
		t.Errorf("the last line is no cutover: %s", lines[len(lines)-1])
	}
	var steps []string
	for _, e := range r.lines("event") {
		if e["kind"] == "begin" && (e["plan"] == "run" || e["step"] == "open") {
			steps = append(steps, fmt.Sprint(e["step"]))
		}
	}
	if fmt.Sprint(steps) != "[window approval open]" {
		t.Errorf("it waited and opened: %v", steps)
	}
	w.wantPhase("open", "new")
	w.do(0, "run")
	if got := w.Value(w.new, "shop", "SELECT count(*) FROM meanwhile"); got != "100" {
		t.Errorf("a table that was made meanwhile has %s rows on new", got)
	}
	report := writer.Stop()
	if len(report.Failures) > 0 {
		t.Errorf("clients saw errors: %v", report.Failures)
	}
	w.Judge(w.new.Conninfo("shop"), w.old.Conninfo("shop"), report)
	w.do(0, "finish", "--yes")
	w.do(0, "run")
}

// TestRunEnds: what ends an unattended run, and what it goes on with.
func TestRunEnds(t *testing.T) {
	long(t)
	w := newWorld(t, setting{sql: killTables, oldSet: map[string]string{"max_prepared_transactions": "5"}})
	w.Exec(w.old, "shop", "CREATE TABLE nameless (k int)")
	if r := w.errs(3, "run"); len(r.lines("finding")) == 0 {
		t.Errorf("no finding\n%s", r)
	}
	w.Exec(w.old, "shop", "DROP TABLE nameless")
	w.failed(130, w.interrupted("copy/shop", "run"))
	w.wantPhase("preparing", "old")

	// A gate that is closed until patience ends, seen from elsewhere meanwhile.
	w.runbookLine("patience: 60s", "patience: 12s")
	tx := w.session(w.old, "shop")
	l, wake := w.stopped("gate", "run")
	w.Must(run(t.Context(), tx, "BEGIN; INSERT INTO public.log (line) VALUES ('open'); PREPARE TRANSACTION 'open'"))
	wake()
	w.waitsFor(l, "cutover", "gate")
	r := w.failed(4, l.end())
	if !strings.Contains(r.stderr, "prepared transaction") {
		t.Errorf("the gate is not named\n%s", r.stderr)
	}
	w.wantPhase("ready", "old")
	w.Must(run(t.Context(), tx, "ROLLBACK PREPARED 'open'"))
	w.runbookLine("patience: 12s", "patience: 60s")

	// A cutover that failed and was undone: a person is needed.
	w.failed(5, w.inject("CROSSFADE_PANIC=back/prove", "run"))
	w.wantPhase("ready", "old")

	// Old is restarted while it waits for a window that is days away.
	w.runbookLine("cutover:\n", "cutover:\n"+far())
	l = w.follow(w.exe, "", nil, "run")
	w.waitsFor(l, "run", "window")
	w.crash(w.old)
	w.waitsFor(l, "run", "window")
	w.Must(l.cmd.Process.Signal(syscall.SIGTERM))
	if r := w.failed(130, l.end()); !strings.Contains(r.stderr, "taking it again") {
		t.Errorf("it does not say that it had lost the lock\n%s", r.stderr)
	}

	// Killed before close, run again it undoes that at once, and waits.
	w.runbookLine(far(), "")
	w.killed("barrier", "run")
	w.elsewhere()
	w.runbookLine("cutover:\n", "cutover:\n"+far())
	l = w.follow(w.exe, "", nil, "run")
	if s := w.waitsFor(l, "run", "window"); s["phase"] != "ready" || s["writable"] != "old" {
		t.Errorf("while it waits: %v", s)
	}
	w.Must(l.cmd.Process.Signal(syscall.SIGINT))
	w.failed(130, l.end())

	// Killed after close, it does not wait: nobody takes writes.
	w.runbookLine(far(), "")
	w.killed("open", "run")
	w.elsewhere()
	w.runbookLine("cutover:\n", "cutover:\n"+far())
	if s := w.status(); s["writable"] != "none" {
		t.Errorf("killed after close: %v", s)
	}
	w.do(0, "run")
	w.wantPhase("open", "new")
	w.do(0, "rollback", "--now", "--yes")
	w.errs(4, "run")
	w.wantPhase("rolled_back", "old")
}

// TestRunNextWindow: a window that ends, without an approval and then with a
// gate closed, is followed by the next one.
func TestRunNextWindow(t *testing.T) {
	long(t)
	approve := filepath.Join(t.TempDir(), "approved")
	w := newWorld(t, setting{cutover: "  max_blocked: 2s\n", oldSet: map[string]string{"max_prepared_transactions": "5"}})
	w.do(0, "prepare")
	w.runbookLine("approve: auto", fmt.Sprintf("approve: %q", "file:"+approve))
	for _, given := range []bool{false, true} {
		now := time.Now().UTC()
		if left := time.Until(now.Truncate(time.Minute).Add(time.Minute)); left < 25*time.Second {
			time.Sleep(left)
			now = time.Now().UTC()
		}
		to := now.Truncate(time.Minute).Add(time.Minute).Format("15:04")
		if to == "00:00" {
			to = "24:00"
		}
		window := fmt.Sprintf("  window: {zone: UTC, from: %q, to: %q}\n", now.Format("15:04"), to)
		w.runbookLine("cutover:\n", "cutover:\n"+window)
		l := w.follow(w.exe, "", nil, "run")
		w.waitsFor(l, "run", "approval")
		if given { // and a gate that stays closed
			w.Exec(w.old, "shop", "BEGIN; INSERT INTO public.log (line) VALUES ('open'); PREPARE TRANSACTION 'open'")
			w.Must(os.WriteFile(approve, nil, 0o600))
		}
		s := w.waitsFor(l, "run", "window")
		if eta, _ := s["step"].(map[string]any)["eta_seconds"].(float64); eta < 23*3600 {
			t.Errorf("the next window opens in %v s", eta)
		}
		w.Must(l.cmd.Process.Signal(syscall.SIGINT))
		if r := w.failed(130, l.end()); !strings.Contains(r.stderr, "next one is waited for") {
			t.Errorf("it does not say that the window ended\n%s", r.stderr)
		}
		w.wantPhase("ready", "old")
		w.runbookLine(window, "")
	}
	w.Exec(w.old, "shop", "ROLLBACK PREPARED 'open'")
}
