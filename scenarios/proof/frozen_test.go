package proof

import (
	"testing"
)

// TestFrozenWhileAnotherCrosses: a run is frozen before it closes old, another
// machine takes over and moves the writes to new, and the run wakes up. What it
// undoes then would open old beside new.
func TestFrozenWhileAnotherCrosses(t *testing.T) {
	w := newWorld(t, setting{})
	w.do(0, "prepare")
	l, wake := w.stopped("barrier", "cutover", "--yes")
	w.elsewhere()
	var r ran
	w.wait("the frozen run's lock to end", func() bool {
		r = w.try("cutover", "--yes")
		return r.exit != 8
	})
	wantExit(t, r, 0)
	wake()
	r = l.end()
	wantExit(t, r, 1, 5)
	w.refuses("public.log (line) VALUES (1)")
	w.wantPhase("open", "new")
	w.equal()
	if w.takes(w.old) || !w.takes(w.new) {
		t.Errorf("old takes writes: %t, new: %t\n%s", w.takes(w.old), w.takes(w.new), r)
	}
}
