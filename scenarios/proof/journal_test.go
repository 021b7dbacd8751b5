package proof

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestJournalDeleted: every plan is stopped after each of its steps and goes on
// in another folder, where there is the runbook and no journal: prepare, abort,
// cutover, rollback, finish. Nothing is lost on the way, and what each leaves is
// what it leaves undisturbed.
func TestJournalDeleted(t *testing.T) {
	long(t)
	w := newWorld(t, setting{sql: killTables + "CREATE MATERIALIZED VIEW one AS SELECT 1 AS n; CREATE UNIQUE INDEX ON one (n);", pooled: true, cutover: "  max_blocked: 5s\n"})
	before := [2]string{w.footprint(w.old), w.footprint(w.new)}
	clients := w.load()
	clients.start()
	w.walk("prepare")
	w.wantPhase("ready", "old")
	w.walk("abort", "--yes")
	for i, c := range []*cluster{w.old, w.new} {
		if d := diff(before[i], w.footprint(c)); d != "" {
			t.Errorf("aborted: %s, - before, + after:\n%s", c.Name, d)
		}
	}
	w.do(0, "prepare")
	for _, one := range []struct {
		plan, phase  string
		final, other *cluster
	}{
		{"cutover", "open", w.new, w.old},
		{"rollback", "rolled_back", w.old, w.new},
	} {
		clients.flow(20)
		w.walk(one.plan, "--yes")
		clients.flow(20)
		clients.judge(one.plan, one.final, one.other)
		w.equal()
		if phase, _ := w.truth(); phase != one.phase {
			t.Fatalf("after %s the phase is %s", one.plan, phase)
		}
		clients.start()
	}
	w.do(0, "cutover", "--yes")
	w.walk("finish", "--yes")
	clients.flow(20)
	clients.judge("finish", w.new, w.old)
	w.onlyFence()
}

// walk runs a plan to its end, killed at the beginning of each step, which is
// after the one before it, and each time goes on elsewhere. A crossing that is
// killed before close begins anew every time.
func (w *world) walk(plan string, args ...string) {
	w.t.Helper()
	began := time.Now()
	args = append([]string{plan}, args...)
	var steps []string
	for {
		r := w.inject("CROSSFADE_KILL=!"+strings.Join(steps, ","), args...)
		wantExit(w.t, r, -1, 0)
		w.elsewhere()
		if r.exit == 0 {
			break
		}
		_, step, ok := strings.Cut(lastLine(r.stderr), "killed at ")
		if !ok || slices.Contains(steps, step) {
			w.t.Fatalf("killed at %q, having been at %v\n%s", step, steps, r)
		}
		steps = append(steps, step)
	}
	w.t.Logf("%s: killed at %d steps (%s) in %s", plan, len(steps), strings.Join(steps, " "), time.Since(began).Round(time.Second))
	if len(steps) < 9 {
		w.t.Errorf("%s has more steps than these", plan)
	}
}
