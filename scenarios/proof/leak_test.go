package proof

import (
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// TestLeak: what was committed after the fence is seen, also where its commit was
// not flushed, and the look for it waits for nobody who flushes by and by.
func TestLeak(t *testing.T) {
	lazy := map[string]string{"wal_writer_delay": "10s"} // 200 ms unless somebody changes it
	w := newWorld(t, setting{oldSet: lazy, newSet: lazy, cutover: "  max_blocked: 4s\n"})
	w.do(0, "prepare")
	clients := w.Write(w.both(), lab.WriterOptions{Writers: 4, Pause: time.Millisecond})
	for _, command := range []string{"cutover", "rollback", "cutover", "rollback"} {
		w.Must(clients.Flow(t.Context(), 500))
		w.do(0, command, "--yes", "--now")
	}
	report := clients.Stop()
	w.Judge(w.old.Conninfo("shop"), w.new.Conninfo("shop"), report)

	l, wake := w.stopped("forward/drop", "cutover", "--yes", "--now")
	past := w.session(w.old, "shop")
	w.Must(run(t.Context(), past, "SET session_replication_role = replica; SET default_transaction_read_only = off; SET synchronous_commit = off"))
	w.Must(run(t.Context(), past, "INSERT INTO public.log (line) VALUES ('past the fence')"))
	wake()
	r := l.end()
	wantExit(t, r, 0)
	if !strings.Contains(r.stdout+r.stderr, "LEAK") {
		t.Errorf("what was written past the fence is not told of\n%s", r)
	}
}
