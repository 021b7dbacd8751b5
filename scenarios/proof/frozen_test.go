package proof

import (
	"fmt"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// TestFrozenWhileAnotherCrosses: a run is frozen before it closes old, another
// machine takes over and moves the writes to new, and the run wakes up. What it
// undoes then would open old beside new.
func TestFrozenWhileAnotherCrosses(t *testing.T) {
	long(t)
	for _, command := range []string{"cutover", "rehearse"} {
		w := newWorld(t, setting{})
		w.do(0, "prepare")
		l, wake := w.stopped("barrier", command, "--yes")
		w.elsewhere()
		var r ran
		w.wait("the frozen run's lock to end", func() bool {
			r = w.try("cutover", "--yes")
			return r.exit != 8
		})
		wantExit(t, r, 0)
		wake()
		wantExit(t, l.end(), 1)
		if _, writable := w.truth(); writable != "new" {
			t.Errorf("a %s that was frozen woke up: writable %s", command, writable)
		}
		w.refuses("public.log (line) VALUES ('late')")
		w.equal()
	}
}

// TestLineCut: the line to old is cut while a rehearsal holds the locks, and is
// whole again later. Old itself lets the writers go on within the budget; what
// was left is undone by the same run, whose lock's session lingers on old, or
// by the next.
func TestLineCut(t *testing.T) {
	long(t)
	w := newWorld(t, setting{cutover: "  max_blocked: 3s\n"})
	w.runbookLine("  - cluster: fresh\n", fmt.Sprintf("  - cluster: fresh\n    from_new: %q\n", w.old.Conninfo("postgres")))
	line := w.Proxy(w.old)
	w.runbookLine(fmt.Sprintf("port=%d", w.old.Port), fmt.Sprintf("port=%d", line.Port))
	w.do(0, "prepare")
	before := w.standing()
	writer := w.Write(w.old.Conninfo("shop"), lab.WriterOptions{Writers: 2, Pause: 5 * time.Millisecond})
	for _, after := range []time.Duration{4 * time.Second, 8 * time.Second, 14 * time.Second} {
		began := time.Now()
		l, wake := w.stopped("drain", "rehearse", "--yes")
		line.Cut()
		wake()
		time.Sleep(after)
		line.Heal()
		r := l.end()
		wantExit(t, r, 1, 5)
		gap := writer.GapSince(began).Length
		t.Logf("cut for %s: exit %d, longest gap %s", after, r.exit, gap)
		if gap > 5*time.Second {
			t.Errorf("writers stood still for %s\n%s", gap, r)
		}
		if r.exit == 5 {
			w.asBefore("a rehearsal whose line was cut", before)
		}
		w.wantPhase("ready", "old")
		w.do(0, "rehearse", "--yes")
		w.asBefore("the rehearsal after it", before)
	}
	report := writer.Stop()
	if len(report.Failures) > 0 {
		t.Errorf("clients saw errors: %v", report.Failures)
	}
}
