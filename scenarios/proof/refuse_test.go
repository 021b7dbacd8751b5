package proof

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// hook writes a traffic hook that fails at the call that the file beside it
// names, and logs its calls.
func (w *world) hook() (run, fails string) {
	w.t.Helper()
	run, fails = filepath.Join(w.dir, "hook"), filepath.Join(w.dir, "fails")
	script := fmt.Sprintf("#!/bin/sh\necho \"$1 $CROSSFADE_TO\" >> %[1]q.log\nif [ \"$(cat %[2]q 2>/dev/null)\" = \"$1\" ]; then echo \"the hook fails at $1\" >&2; exit 1; fi\n", run, fails)
	if err := os.WriteFile(run, []byte(script), 0o755); err != nil {
		w.t.Fatal(err)
	}
	return run, fails
}

// TestTrafficThatFails: a switch that fails at any call leaves old serving, or
// says that only forward is left.
func TestTrafficThatFails(t *testing.T) {
	run := filepath.Join(t.TempDir(), "hook")
	w := newWorld(t, setting{cutover: fmt.Sprintf("  traffic:\n    - hook: {run: [%q], timeout: 10s}\n", run)})
	made, fails := w.hook()
	if err := os.Rename(made, run); err != nil {
		t.Fatal(err)
	}
	w.do(0, "prepare")
	w.runbookLine("patience: 60s", "patience: 20s")
	fail := func(call string) {
		if err := os.WriteFile(fails, []byte(call), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for call, exit := range map[string]int{"check": 4, "pause": 5} {
		fail(call)
		r := w.do(exit, "cutover", "--yes")
		if !strings.Contains(r.stderr, "the hook fails at "+call) {
			t.Errorf("%s: the hook's own words are missing\n%s", call, r)
		}
		if phase, writable := w.truth(); phase != "ready" || writable != "old" {
			t.Fatalf("after a hook that failed at %s: phase %s, writable %s", call, phase, writable)
		}
	}
	for _, call := range []string{"point", "resume"} {
		fail(call)
		r := w.do(6, "cutover", "--yes")
		if _, writable := w.truth(); writable != "new" {
			t.Fatalf("after a hook that failed at %s, writable is %s\n%s", call, writable, r)
		}
		fail("nothing")
		w.do(0, "cutover", "--yes")
		w.wantPhase("open", "new")
		w.do(0, "rollback", "--yes")
		w.wantPhase("rolled_back", "old")
	}
}

// TestNewRefusesTheApplication: a pg_hba.conf on new that does not let the
// application in is said while nothing is paused.
func TestNewRefusesTheApplication(t *testing.T) {
	w := newWorld(t, setting{pooled: true})
	writer := w.Write(w.pool.Conninfo("shop"), lab.WriterOptions{Writers: 1, Pause: 5 * time.Millisecond})
	w.do(0, "prepare")
	w.runbookLine("patience: 60s", "patience: 15s")
	hba := filepath.Join(w.new.DataDir, "pg_hba.conf")
	rules, err := os.ReadFile(hba)
	if err != nil {
		t.Fatal(err)
	}
	// Whoever the tool is logs in from the same address: the application is
	// distinguished by the database that only the pooler asks for as app.
	user := "app"
	w.Exec(w.old, "shop", "GRANT ALL ON ALL TABLES IN SCHEMA public TO app")
	app := w.Write(w.pool.Conninfo("shop", "user="+user), lab.WriterOptions{Writers: 1, Pause: 5 * time.Millisecond, FirstWorker: 100})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := app.Flow(ctx, 20); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hba, append([]byte("host all app 0.0.0.0/0 reject\nlocal all app reject\n"), rules...), 0o600); err != nil {
		t.Fatal(err)
	}
	w.Exec(w.new, "", "SELECT pg_reload_conf()")
	w.wait("new to refuse the application", func() bool {
		return w.Value(w.new, "", "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'reject'") != "0"
	})
	if r := w.do(3, "check"); !strings.Contains(r.stdout, "app") {
		t.Errorf("check does not name the role\n%s", r)
	}
	r := w.do(4, "cutover", "--yes")
	if phase, writable := w.truth(); phase != "ready" || writable != "old" {
		t.Fatalf("phase %s, writable %s\n%s", phase, writable, r)
	}
	for _, wr := range []*lab.Writer{writer, app} {
		if rep := wr.Stop(); len(rep.Failures) > 0 {
			t.Errorf("clients saw errors: %v", rep.Failures)
		}
	}
}

// TestNewGoneForGood: old is opened with what the way back had brought.
func TestNewGoneForGood(t *testing.T) {
	w := newWorld(t, setting{pooled: true})
	w.do(0, "prepare")
	w.do(0, "cutover", "--yes")
	w.Exec(w.new, "shop", "INSERT INTO log (line) VALUES ('written on new')")
	w.wait("the row on old", func() bool {
		return w.Value(w.old, "shop", "SELECT count(*) FROM log WHERE line = 'written on new'") == "1"
	})
	w.do(4, "rollback", "--without-new", "--yes") // new answers
	w.Must(w.new.Kill(t.Context()))
	r := w.do(0, "rollback", "--without-new", "--yes")
	if !strings.Contains(r.stderr, "up to LSN") {
		t.Errorf("it does not say up to where old has its rows\n%s", r)
	}
	if s := w.status(); s["writable"] != "old" || s["phase"] != "rolled_back" {
		t.Errorf("%v", s)
	}
	w.Must(lab.Ledger(t.Context(), w.pool.Conninfo("shop")))
	if got := w.Value(w.old, "shop", "SELECT count(*) FROM log WHERE line = 'written on new'"); got != "1" {
		t.Errorf("the row is there %s times", got)
	}
}

// TestOldGoneAfterOpen: traffic is pointed although old cannot be reached any
// more, and the command ends well.
func TestOldGoneAfterOpen(t *testing.T) {
	w := newWorld(t, setting{pooled: true})
	writer := w.Write(w.pool.Conninfo("shop"), lab.WriterOptions{Writers: 2, Pause: 5 * time.Millisecond})
	w.do(0, "prepare")
	l, wake := w.stopped("traffic/point", "cutover", "--yes")
	w.Must(w.old.Kill(t.Context()))
	wake()
	r := l.end()
	if r.exit != 0 {
		t.Errorf("wanted exit 0\n%s", r)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := writer.Flow(ctx, 100); err != nil {
		t.Fatalf("clients do not go on: %v\n%s", err, r)
	}
	w.Judge(w.new.Conninfo("shop"), "", writer.Stop())
	// Old comes back, and is closed.
	w.Must(w.old.Boot(t.Context()))
	if phase, writable := w.truth(); phase != "open" || writable != "new" {
		t.Errorf("phase %s, writable %s", phase, writable)
	}
	w.do(0, "cutover", "--yes")
	w.do(0, "finish", "--yes")
}

// TestFrozenWhileAnotherAborts: the tool is frozen between close and open,
// another machine aborts, and the tool wakes up: before the abort has taken
// more away than the decision, and after its end. Line: the decision is one
// row; no row returned means stop.
func TestFrozenWhileAnotherAborts(t *testing.T) {
	w := newWorld(t, setting{})
	w.do(0, "prepare")
	for _, cut := range []string{"CROSSFADE_KILL=forward/drop", ""} {
		l, wake := w.stopped("open", "cutover", "--yes")
		if s := w.status(); s["phase"] != "cutover" || s["writable"] != "none" {
			t.Errorf("between close and open: %v", s)
		}
		w.elsewhere()
		var abort ran
		w.wait("the frozen run's lock to end", func() bool {
			abort = w.inject(cut, "abort", "--yes")
			return abort.exit != 8
		})
		wantExit(t, abort, 0, -1)
		if !w.takes(w.old) {
			t.Fatalf("old does not serve after abort\n%s", abort)
		}
		wake()
		r := l.end()
		if r.exit == 0 || r.exit == 6 {
			t.Errorf("the woken run says that it opened new\n%s", r)
		}
		if _, writable := w.truth(); writable != "old" {
			t.Errorf("writable %s\n%s", writable, r)
		}
	}
}

// TestClosedStaysClosed: old crashes right after the decision, with
// synchronous_commit=off in its configuration, and comes back. No standby and
// no walwriter has seen to it that the close is on disk. Line: every session of
// the tool pins synchronous_commit to local.
func TestClosedStaysClosed(t *testing.T) {
	w := newWorld(t, setting{oldSet: map[string]string{"synchronous_commit": "off", "checkpoint_timeout": "1h", "bgwriter_lru_maxpages": "0"}})
	w.do(0, "prepare")
	walwriter, err := strconv.Atoi(w.Value(w.old, "", "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'"))
	w.Must(err)
	w.Must(syscall.Kill(walwriter, syscall.SIGSTOP))
	l, wake := w.stopped("traffic/point", "cutover", "--yes")
	w.Must(w.old.Kill(t.Context()))
	w.Must(w.old.Boot(t.Context()))
	for db, sql := range map[string]string{"shop": "INSERT INTO public.log (line) VALUES ('late')", "side": "DELETE FROM public.kept"} {
		w.fails(w.old, db, refused, "BEGIN READ WRITE; "+sql+"; COMMIT")
	}
	wake()
	wantExit(t, l.end(), 0)
	w.wantPhase("open", "new")
}

// TestClosedStandbyPromoted: a standby of old does not have the close when the
// tool comes to the decision; promoted, it would take writes. Line: close/kept
// waits for every standby that could be promoted. One that is promoted right
// after open refuses writes.
func TestClosedStandbyPromoted(t *testing.T) {
	var metal *lab.Cluster
	w := newWorld(t, setting{
		cutover: "  max_blocked: 5s\n",
		wire:    func(w *world, s *setting) { metal = w.oldStandby(s, "metal", lab.StandbyOptions{}) },
	})
	w.do(0, "prepare")
	l, wake := w.stopped("close", "cutover", "--yes")
	w.Must(metal.Freeze(t.Context()))
	wake()
	r := l.end()
	w.Must(metal.Thaw(t.Context()))
	if wantExit(t, r, 5); !strings.Contains(r.stderr, "metal") {
		t.Errorf("the standby that does not have the close is not named\n%s", r)
	}
	if phase, writable := w.truth(); phase != "ready" || writable != "old" {
		t.Errorf("phase %s, writable %s", phase, writable)
	}
	l, wake = w.stopped("traffic/point", "cutover", "--yes")
	w.Must(w.old.Kill(t.Context()))
	w.Must(metal.Promote(t.Context()))
	for _, sql := range []string{"INSERT INTO log (line) VALUES ('late')", "TRUNCATE log", "COPY log (line) FROM PROGRAM 'echo late'"} {
		w.fails(metal, "shop", refused, "BEGIN READ WRITE; "+sql+"; COMMIT")
	}
	w.fails(metal, "side", refused, "BEGIN READ WRITE; DELETE FROM kept; COMMIT")
	wake()
	wantExit(t, l.end(), 0)
}

// TestNewStandbyPromoted: the first failover of new, right after the cutover.
func TestNewStandbyPromoted(t *testing.T) {
	long(t)
	w := newWorld(t, setting{})
	place := w.Reserve("metal", 18)
	settings := ""
	for k, v := range place.Settings() {
		if k == "cluster_name" {
			continue // its name says it
		}
		settings += fmt.Sprintf("%s: %q, ", k, v)
	}
	w.runbookLine("databases:\n", fmt.Sprintf("    standbys:\n      - {name: metal, conninfo: %q, host: \"local:\", bin: %q, data: %q, settings: {%s}}\ndatabases:\n",
		place.Conninfo("postgres"), place.Bin, place.DataDir, strings.TrimSuffix(settings, ", ")))
	w.do(0, "prepare")
	w.do(0, "prepare")
	w.do(0, "cutover", "--yes")
	w.Must(w.new.Kill(t.Context()))
	w.Must(place.Promote(t.Context()))
	if _, err := place.Query(t.Context(), "shop", "INSERT INTO log (line) VALUES ('after the failover')"); err != nil {
		t.Errorf("the promoted standby of new refuses a write: %v", err)
	}
}
