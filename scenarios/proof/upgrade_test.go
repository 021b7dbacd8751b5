package proof

import (
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// TestThereAndBack is the main job under load, twice and back, with the proof
// after each crossing.
func TestThereAndBack(t *testing.T) {
	w := newWorld(t, setting{pooled: true})
	writer := w.Write(w.pool.Conninfo("shop"), lab.WriterOptions{Writers: 4, Pause: time.Millisecond})
	w.do(0, "prepare")
	w.wantPhase("ready", "old")
	w.do(0, "prepare")
	t.Log(w.do(0, "cutover", "--yes"))
	w.wantPhase("open", "new")
	if err := writer.Flow(t.Context(), 200); err != nil {
		t.Fatal(err)
	}
	t.Log(w.do(0, "rollback", "--yes"))
	w.wantPhase("rolled_back", "old")
	if err := writer.Flow(t.Context(), 200); err != nil {
		t.Fatal(err)
	}
	t.Log(w.do(0, "cutover", "--yes"))
	if err := writer.Flow(t.Context(), 200); err != nil {
		t.Fatal(err)
	}
	r := writer.Stop()
	if len(r.Failures) > 0 {
		t.Errorf("clients saw errors: %v", r.Failures)
	}
	t.Logf("%d rows, outage %s", r.Acked, r.Longest)
	w.Judge(w.new.Conninfo("shop"), w.old.Conninfo("shop"), r)
	w.do(0, "finish", "--yes")
	w.wantPhase("finished", "new")
}
