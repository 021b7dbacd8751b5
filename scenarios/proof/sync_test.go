package proof

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// TestSynchronousStandbyKilled: every commit of old's clients waits for its
// standby metal, which is killed in each step of the cutover and comes back
// between. The tool never hangs, and leaves no session that waits for a standby
// after: old serves, or the crossing finishes. No acknowledged row is lost.
// Line: every session of the tool pins synchronous_commit = local.
func TestSynchronousStandbyKilled(t *testing.T) {
	long(t)
	w, metal := syncWorld(t)
	clients := w.load()
	back := func(step string) {
		w.noneWaits(step)
		w.Must(metal.Boot(t.Context()))
		w.Until(w.old, "", syncMetal)
	}
	for _, step := range some(crossingSteps, "barrier", "close", "traffic/point") {
		clients.start()
		clients.flow(5)
		l, wake := w.stopped(step, "cutover", "--yes")
		w.Must(metal.Kill(t.Context()))
		began := time.Now()
		wake()
		r := l.end()
		spent := time.Since(began)
		phase, writable := w.syncTruth()
		t.Logf("metal killed at %s: exit %d after %s, phase %s, writable %s", step, r.exit, spent.Round(100*time.Millisecond), phase, writable)
		if spent > 40*time.Second {
			t.Errorf("metal killed at %s: it took %s to end", step, spent)
		}
		back(step)
		clients.flow(20)
		switch r.exit {
		case 0:
			if phase != "open" || writable != "new" {
				t.Errorf("the crossing finished\n%s", r)
			}
			clients.judge("metal killed at "+step, w.new, w.old)
			w.do(0, "rollback", "--yes")
			w.equal()
		case 4, 5:
			if phase != "ready" && phase != "rolled_back" || writable != "old" {
				t.Errorf("undone\n%s", r)
			}
			clients.judge("metal killed at "+step, w.old, nil)
		default:
			t.Fatalf("metal killed at %s\n%s", step, r)
		}
	}
	clients.start()
	w.syncBothDie(metal)
	back("close, and the tool after it")
	w.syncPromoted(metal)
	clients.flow(20)
	clients.judge("the cutover with metal promoted", w.new, w.old)
}

const syncMetal = "SELECT count(*) > 0 FROM pg_stat_replication WHERE application_name = 'metal' AND sync_state = 'sync'"

// syncBothDie kills the standby before the close is committed, and the tool
// after it: the close is there, nobody waits with it for a standby, and who
// runs the command elsewhere takes it back.
func (w *world) syncBothDie(metal *lab.Cluster) {
	w.t.Helper()
	l, wake := w.stoppedAnd("close", func(p *os.Process, e event) {
		if e.Kind == "begin" && e.Step == "close/kept" {
			kill(p)
		}
	}, "cutover", "--yes")
	w.Must(metal.Kill(w.t.Context()))
	wake()
	if r := l.end(); r.exit != -1 {
		w.t.Fatalf("not killed at close/kept\n%s", r)
	}
	w.elsewhere()
	w.noneWaits("close, and the tool after it")
	if phase, writable := w.syncTruth(); phase != "cutover" || writable != "none" {
		w.t.Errorf("closed, and cut off: phase %s, writable %s", phase, writable)
	}
	r := w.do(5, "cutover", "--yes")
	if _, writable := w.syncTruth(); writable != "old" {
		w.t.Errorf("taken back, writable is %s\n%s", writable, r)
	}
}

// syncWorld is prepared, and old has a synchronous standby.
func syncWorld(t *testing.T) (*world, *lab.Cluster) {
	var metal *lab.Cluster
	w := newWorld(t, setting{
		pooled: true, cutover: "  max_blocked: 3s\n",
		wire: func(w *world, s *setting) {
			metal = w.oldStandby(s, "metal", lab.StandbyOptions{Settings: map[string]string{"wal_retrieve_retry_interval": "100ms"}})
			// What new does without standbys is the runbook's to say.
			s.newLines += "    synchronous_standby_names: \"\"\n"
		},
	})
	w.Exec(w.old, "", "ALTER SYSTEM SET synchronous_standby_names = 'metal'", "SELECT pg_reload_conf()")
	w.Until(w.old, "", syncMetal)
	w.do(0, "prepare")
	w.runbookLine("patience: 60s", "patience: 5s")
	return w, metal
}

// syncTruth is truth where a client's commit would wait for ever: a client
// whose write is not refused is one that is served.
func (w *world) syncTruth() (phase, writable string) {
	w.t.Helper()
	s := w.status()
	is := "none"
	for side, c := range map[string]*lab.Cluster{"old": w.old, "new": w.new} {
		// Nothing is written that a commit would have to wait with.
		_, err := c.Query(w.t.Context(), "shop", "BEGIN; INSERT INTO public.log (line) VALUES ('probe'); ROLLBACK")
		switch {
		case err == nil && is == "none":
			is = side
		case err == nil:
			is = "both"
		case state(err) != refused:
			w.t.Errorf("a client's write on %s: %v", side, err)
		}
	}
	if s["writable"] != is {
		w.t.Errorf("status says writable %v, the servers say %s", s["writable"], is)
	}
	return fmt.Sprint(s["phase"]), is
}

// noneWaits wants no session of the tool on old any more, of whatever it was
// killed or gave up in.
func (w *world) noneWaits(step string) {
	w.t.Helper()
	zombies := ""
	w.wait("the sessions of the tool on old to end", func() bool {
		zombies = w.Value(w.old, "", "SELECT coalesce(string_agg(format('pid %s, %s: %s', pid, wait_event, query), '; '), '') FROM pg_stat_activity WHERE application_name LIKE 'crossfade%'")
		return zombies == "" || strings.Contains(zombies, "SyncRep")
	})
	if zombies != "" {
		w.t.Errorf("metal killed at %s: a session of the tool waits for it: %s", step, zombies)
	}
}

// syncPromoted promotes the standby right after open, with old alive: it knows
// that it is closed.
func (w *world) syncPromoted(metal *lab.Cluster) {
	w.t.Helper()
	l, wake := w.stopped("traffic/point", "cutover", "--yes")
	w.Must(metal.Promote(w.t.Context()))
	for _, sql := range []string{"INSERT INTO public.log (line) VALUES ('late')", "TRUNCATE public.log", "CREATE TABLE public.late AS SELECT 1"} {
		w.fails(metal, "shop", refused, "BEGIN READ WRITE; "+sql)
	}
	w.fails(metal, "side", refused, "BEGIN READ WRITE; DELETE FROM public.kept")
	wake()
	wantExit(w.t, l.end(), 0)
	w.noneWaits("open")
}
