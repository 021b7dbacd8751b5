package proof

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
)

// TestLivingAreNotEnded: a command ends sessions of runs that are gone, and no
// others. A comparison keeps those that change something out and goes on; one that
// only reads is never ended; a run that stands still is ended when its lock is
// gone, and not before; and who changes new keeps out who would change old.
func TestLivingAreNotEnded(t *testing.T) {
	w := newWorld(t, setting{sql: killTables, extra: "verify: {mode: counts}\nhooks:\n  after_open: {run: [sh, -c, 'while test -e " + hookFile(t) + "; do sleep 0.1; done'], timeout: 300s}\n"})
	hook := hookFile(t)
	w.do(0, "prepare")

	// A verify that stands at a table (somebody holds a lock on it) keeps prepare
	// and cutover out, and ends with 0 all the same.
	holder := w.session(w.new, "shop")
	w.Must(run(t.Context(), holder, "BEGIN READ WRITE; LOCK TABLE public.big IN ACCESS EXCLUSIVE MODE"))
	verify := w.follow(w.exe, "", nil, "verify")
	w.Until(w.new, "", "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'crossfade up' AND wait_event_type = 'Lock')")
	second := w.follow(w.exe, "", nil, "verify")
	for _, args := range [][]string{{"prepare"}, {"cutover", "--yes"}} {
		r := w.do(8, args...)
		if !strings.Contains(r.stderr, "crossfade up lock verify") {
			t.Errorf("%v does not say who holds the upgrade\n%s", args, r)
		}
	}
	w.Must(run(t.Context(), holder, "ROLLBACK"))
	wantExit(t, verify.end(), 0)
	wantExit(t, second.end(), 0) // two of them do not exclude each other

	// status --watch goes on through a cutover. The cutover is run on two machines:
	// the second finds the first, which waits for its hook after open.
	w.Must(os.WriteFile(hook, nil, 0o600))
	watching := w.follow(w.exe, "", nil, "status", "--watch")
	var atHook atomic.Bool
	first := w.follow(w.exe, "", func(_ *os.Process, e event) {
		if e.Step == "hook/after" && e.Kind == "begin" {
			atHook.Store(true)
		}
	}, "cutover", "--yes")
	w.wait("the hook", func() bool { return atHook.Load() || ended(first) })
	if ended(first) {
		t.Fatalf("the cutover did not wait for its hook\n%s", first.end())
	}
	mine := w.dir
	w.elsewhere()
	r := w.do(8, "cutover", "--yes")
	if !strings.Contains(r.stderr, "crossfade up lock ") {
		t.Errorf("the second cutover does not say who holds the upgrade\n%s", r)
	}
	w.do(8, "finish", "--yes")
	w.do(8, "verify")
	w.dir = mine
	w.Must(os.Remove(hook))
	wantExit(t, first.end(), 0)
	if ended(watching) {
		t.Errorf("status --watch was ended by a cutover\n%s", watching.end())
	}
	_ = watching.cmd.Process.Signal(os.Interrupt)
	if r := watching.end(); len(r.lines("status")) < 2 || strings.Contains(r.stdout, "57P01") {
		t.Errorf("status --watch saw %d looks\n%s", len(r.lines("status")), r)
	}

	// A rollback that is frozen: while its lock lives nobody takes it over; then
	// another one does, and ends what is left of it.
	l, wake := w.stopped("gate", "rollback", "--yes")
	w.elsewhere()
	left := fmt.Sprintf("SELECT count(*) FROM pg_stat_activity WHERE application_name = '%s'", w.Value(w.new, "", "SELECT min(application_name) FROM pg_stat_activity WHERE application_name LIKE 'crossfade up #%'"))
	if w.Value(w.new, "", left) == "0" {
		t.Error("a run that is frozen has no sessions: the test proves nothing")
	}
	w.wait("the frozen run's lock to end", func() bool {
		r = w.try("rollback", "--yes")
		return r.exit != 8
	})
	wantExit(t, r, 0)
	for _, c := range []*cluster{w.old, w.new} {
		if got := w.Value(c, "", left); got != "0" {
			t.Errorf("%s sessions of the frozen run are left", got)
		}
	}
	wake()
	wantExit(t, l.end(), 1)
	w.wantPhase("rolled_back", "old")
	w.equal()

	// A session that somebody ends by hand is reported as that.
	holder = w.session(w.new, "shop") // the cutover has ended the one before
	w.Must(run(t.Context(), holder, "BEGIN READ WRITE; LOCK TABLE public.big IN ACCESS EXCLUSIVE MODE"))
	verify = w.follow(w.exe, "", nil, "verify")
	w.Until(w.new, "", "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'crossfade up' AND wait_event_type = 'Lock')")
	w.Exec(w.new, "", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'crossfade up' AND wait_event_type = 'Lock'")
	r = verify.end()
	wantExit(t, r, 1)
	if errs := r.lines("error"); len(errs) != 1 || errs[0]["sqlstate"] != "57P01" || !strings.Contains(fmt.Sprint(errs[0]["hint"]), "an administrator ended this session") {
		t.Errorf("a session that was ended by hand is reported as %v", errs)
	}
	w.Must(run(t.Context(), holder, "ROLLBACK"))
}

// hookFile is there as long as the hook of this test is to wait.
func hookFile(t *testing.T) string { return os.TempDir() + "/" + t.Name() + ".waits" }

func ended(l *live) bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}
