package proof

import "testing"

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
