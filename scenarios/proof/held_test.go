package proof

import (
	"context"
	"fmt"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// TestHeldAtTheFence: clients with direct connections, which stand at the
// barrier, wait behind close until new is open. However long that takes, each of
// them fails as often as its connection is ended, and does not come back again and
// again to be refused. What lets them wait ends with the tool.
func TestHeldAtTheFence(t *testing.T) {
	const writers = 6
	w := newWorld(t, setting{cutover: "  max_blocked: 60s\n"})
	w.do(0, "prepare")
	held := func(n int) string {
		return fmt.Sprintf("SELECT count(*) >= %d FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND wait_event = 'advisory'", n)
	}

	clients := w.Write(w.both(), lab.WriterOptions{Writers: writers, Pause: time.Millisecond})
	w.Must(clients.Flow(t.Context(), 100))
	l, wake := w.stopped("close/kept", "cutover", "--yes")
	w.Until(w.old, "shop", held(writers))
	time.Sleep(time.Second) // so long each of them would come back tens of times
	wake()
	wantExit(t, l.end(), 0)
	w.Must(clients.Flow(t.Context(), 100))
	report := clients.Stop()
	for _, worker := range report.Workers {
		// Its connection is ended at most twice: by close, where it was on the way
		// from one row to the next, and when new is open.
		if n := len(worker.Failed); n < 1 || n > 2 {
			t.Errorf("client %d failed %d times, not once or twice: %v", worker.Worker, n, report.Failures)
		}
	}
	w.Judge(w.new.Conninfo("shop"), w.old.Conninfo("shop"), report)
	w.do(0, "rollback", "--yes")

	// The tool is frozen: old itself ends what they wait for, in max_blocked. Asked
	// to go on, the tool finds its time used up.
	w.runbookLine("  max_blocked: 60s\n", "  max_blocked: 4s\n")
	l, wake = w.stopped("close/kept", "cutover", "--yes")
	waiting := w.session(w.old, "shop")
	sent := time.Now()
	late := w.in(waiting, "INSERT INTO public.log (line) VALUES ('waits')")
	if err := <-late; state(err) != refused {
		t.Errorf("a write behind close, under a tool that is frozen, ended with %v", err)
	} else if took := time.Since(sent); took > 20*time.Second {
		t.Errorf("it was held for %s, and max_blocked is 4 s", took)
	}
	wake()
	wantExit(t, l.end(), 5)
	w.wantPhase("rolled_back", "old")

	// The tool is killed: they hear at once.
	w.runbookLine("  max_blocked: 4s\n", "  max_blocked: 60s\n")
	l, _ = w.stopped("close/kept", "cutover", "--yes")
	late = w.in(w.session(w.old, "shop"), "INSERT INTO public.log (line) VALUES ('waits')")
	w.Until(w.old, "shop", held(1))
	w.Must(l.cmd.Process.Kill())
	if err := <-late; state(err) != refused {
		t.Errorf("a write behind close, whose tool was killed, ended with %v", err)
	}
	l.end()
	wantExit(t, w.try("cutover", "--yes"), 0)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	w.Must(w.new.Exec(ctx, "shop", "INSERT INTO public.log (line) VALUES ('on new')"))
	w.equal()
}
