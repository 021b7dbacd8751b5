package proof

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// isolationBudget is max_blocked of the world whose lines are cut.
const isolationBudget = 8 * time.Second

// isolated is a world where every line can be cut: the tool reaches old and new,
// and each of them the other, through a proxy that swallows every byte. Clients
// reach both directly.
type isolated struct {
	*world
	lines map[string][]*lab.Proxy
}

// cuts are the lines between the tool, old and new, in every combination.
var cuts = []string{"tool-old", "tool-new", "old-new", "tool-both", "all"}

func newIsolated(t *testing.T) *isolated {
	w := &isolated{}
	var toOld, toNew *lab.Proxy
	w.world = newWorld(t, setting{
		cutover: fmt.Sprintf("  max_blocked: %s\n", isolationBudget),
		extra:   "verify: {mode: counts}\n",
		wire: func(v *world, s *setting) {
			toOld, toNew = v.Proxy(v.old), v.Proxy(v.new)
			fromNew, fromOld := v.Proxy(v.old), v.Proxy(v.new)
			s.newLines += fmt.Sprintf("    from_new: %q\n    from_old: %q\n", v.old.Conninfo("postgres", fromNew.Words()), v.new.Conninfo("postgres", fromOld.Words()))
			between := []*lab.Proxy{fromNew, fromOld}
			w.lines = map[string][]*lab.Proxy{
				"tool-old": {toOld}, "tool-new": {toNew}, "old-new": between,
				"tool-both": {toOld, toNew}, "all": append(slices.Clone(between), toOld, toNew),
			}
		},
	})
	w.runbookLine(fmt.Sprintf("primary: %q", w.old.Conninfo("postgres")), fmt.Sprintf("primary: %q", w.old.Conninfo("postgres", toOld.Words())))
	w.runbookLine(fmt.Sprintf("primary: %q", w.new.Conninfo("postgres")), fmt.Sprintf("primary: %q", w.new.Conninfo("postgres", toNew.Words())))
	return w
}

func (w *isolated) cut(line string) {
	for _, p := range w.lines[line] {
		p.Cut()
	}
}

func (w *isolated) heal(line string) {
	for _, p := range w.lines[line] {
		p.Heal()
	}
}

// TestIsolation: the network between the tool, old and new is cut, in every
// combination, at every step of the cutover. Never do both sides take writes;
// old serves on within the budget where it was not closed yet; and when the line
// is whole again one side takes writes, or one command makes it so. Nothing that
// was acknowledged to a client is lost.
func TestIsolation(t *testing.T) {
	w := newIsolated(t)
	w.do(0, "prepare")
	type cell struct{ step, line string }
	cells := []cell{{"close", "tool-new"}, {"drain", "old-new"}}
	if all() {
		cells = nil
		for _, e := range w.planned("--only", "cutover") {
			for _, line := range cuts {
				if c := (cell{e.Step, line}); !slices.Contains(cells, c) {
					cells = append(cells, c)
				}
			}
		}
		t.Logf("%d cells", len(cells))
	}
	for _, c := range cells {
		w.part(c.step+" "+c.line, func(t *testing.T) { w.cell(t, c.step, c.line) })
	}
}

// closedSteps are those at whose beginning old may be closed already.
var closedSteps = []string{"close/kept", "open", "traffic/point", "traffic/resume", "read-only", "forward/drop", "leaks", "disarm", "refresh/again", "done"}

func (w *isolated) cell(t *testing.T, step, line string) {
	what := "cut " + line + " at " + step
	clients := w.load()
	clients.start()
	clients.flow(10)
	run, wake := w.stopped(step, "cutover", "--yes")
	began := time.Now()
	w.cut(line)
	wake()
	select {
	case <-run.done:
	case <-time.After(isolationBudget + 4*time.Second): // the line may come back while the tool still tries
	}
	ended := "it had ended"
	select {
	case <-run.done:
	default:
		ended = "it was still trying"
	}
	old, fresh := w.takes(w.old), w.takes(w.new)
	if t.Logf("%s: %s after %s; old takes writes: %t, new: %t", what, ended, time.Since(began).Round(100*time.Millisecond), old, fresh); old && fresh {
		t.Fatalf("%s: both take writes", what)
	}
	if !fresh && !slices.Contains(closedSteps, step) {
		clients.flow(20)
		if gap := clients.writers[1].GapSince(began).Length; gap > 2*isolationBudget {
			t.Errorf("%s: clients of old stood still for %s, with a budget of %s", what, gap, isolationBudget)
		}
	}
	w.heal(line)
	r := run.end()
	t.Logf("%s: exit %d after %s: %s", what, r.exit, time.Since(began).Round(100*time.Millisecond), lastLine(r.stderr))
	_, writable := w.truth()
	if writable == "none" {
		again := w.try("cutover", "--yes")
		if _, writable = w.truth(); writable == "none" {
			t.Fatalf("%s: one command does not make one side take writes\n%s", what, again)
		}
		t.Logf("%s: none took writes; cutover again: exit %d, writable %s", what, again.exit, writable)
	}
	if want := map[int]string{0: "new", 5: "old", 6: "new"}[r.exit]; want != "" && want != writable {
		t.Errorf("%s: exit %d, and writable is %s\n%s", what, r.exit, writable, r)
	}
	w.do(0, "cutover", "--yes") // resumes links that the undo could not reach new for
	w.wantPhase("open", "new")
	clients.judge(what, w.new, w.old)
	w.do(0, "rollback", "--yes")
	w.wantPhase("rolled_back", "old")
	w.Exec(w.old, "shop", "TRUNCATE ledger, ledger_log")
}

// TestIsolationMidway: the same while new catches up: prepare is run again.
func TestIsolationMidway(t *testing.T) {
	long(t)
	w := newIsolated(t)
	clients := w.load()
	clients.start()
	for _, line := range cuts {
		w.part(line, func(t *testing.T) {
			run, wake := w.stopped("analyze/shop", "prepare")
			w.cut(line)
			wake()
			time.Sleep(2 * time.Second) // somebody else's network: it comes back when it does
			if r := w.try("status", "--exit-code"); line != "old-new" && r.exit != 1 {
				t.Errorf("status --exit-code while it is cut: %s", r)
			}
			if !w.takes(w.old) || w.takes(w.new) {
				t.Error("while new fills, old alone takes writes")
			}
			w.heal(line)
			r := run.end()
			t.Logf("%s: prepare ended with exit %d: %s", line, r.exit, lastLine(r.stderr))
			wantExit(t, r, 0, 1)
			clients.flow(20)
			w.do(0, "abort", "--yes")
		})
	}
	w.do(0, "prepare")
	w.do(0, "cutover", "--yes")
	clients.judge("cut while it catches up", w.new, w.old)
}
