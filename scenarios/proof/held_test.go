package proof

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// TestHeldAtTheFence: clients with direct connections, which stand at the
// barrier, wait after close until new is open. However long that takes, each of
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
	none := "SELECT NOT " + strings.TrimPrefix(held(1), "SELECT ")
	none = strings.Replace(none, "count(*) >= 1 FROM", "EXISTS (SELECT FROM", 1) + ")"
	w.runbookLine("  max_blocked: 60s\n", "  max_blocked: 4s\n")
	clients = w.Write(w.both(), lab.WriterOptions{Writers: 2, Pause: time.Millisecond})
	w.Must(clients.Flow(t.Context(), 20))
	l, wake = w.stopped("close/kept", "cutover", "--yes")
	w.Until(w.old, "shop", none)
	wake()
	wantExit(t, l.end(), 5)
	w.wantPhase("rolled_back", "old")
	w.Must(clients.Flow(t.Context(), 20))
	reports := []lab.Report{report, clients.Stop()}
	w.Judge(w.old.Conninfo("shop"), w.new.Conninfo("shop"), reports...)

	// The tool is killed: they hear at once, and are ended, because their sessions are
	// from before close.
	w.runbookLine("  max_blocked: 4s\n", "  max_blocked: 60s\n")
	clients = w.Write(w.both(), lab.WriterOptions{Writers: 2, Pause: time.Millisecond})
	w.Must(clients.Flow(t.Context(), 20))
	l, _ = w.stopped("close/kept", "cutover", "--yes")
	w.Must(l.cmd.Process.Kill())
	w.Until(w.old, "shop", none)
	l.end()
	wantExit(t, w.try("cutover", "--yes"), 0)
	w.Must(clients.Flow(t.Context(), 20))
	reports = append(reports, clients.Stop())
	w.Judge(w.new.Conninfo("shop"), w.old.Conninfo("shop"), reports...)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	w.Must(w.new.Exec(ctx, "shop", "INSERT INTO public.log (line) VALUES ('on new')"))
	w.equal()
}
