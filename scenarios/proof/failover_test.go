package proof

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// failover is an old cluster whose standby metal is promoted.
type failover struct {
	*world
	wacken, metal *lab.Cluster
	conninfo      string // of old.primary: both hosts
}

// newFailover boots old with its standby metal. Both are hosts of old.primary,
// unless the runbook is to be edited by hand.
func newFailover(t *testing.T, s setting, edited bool) *failover {
	f := &failover{}
	major := s.old
	s.wire = func(w *world, s *setting) {
		more := map[string]string{"wal_retrieve_retry_interval": "100ms", "hot_standby_feedback": "on"}
		if major >= 17 {
			more["sync_replication_slots"] = "on"
		}
		f.metal = w.oldStandby(s, "metal", lab.StandbyOptions{Settings: more})
	}
	f.world = newWorld(t, s)
	f.wacken = f.old
	f.conninfo = fmt.Sprintf("host=127.0.0.1,127.0.0.1 port=%d,%d user=postgres dbname=postgres sslmode=disable target_session_attrs=read-write", f.old.Port, f.metal.Port)
	if major >= 17 {
		// The worker that synchronizes slots logs in to a database.
		info := f.Value(f.metal, "", "SELECT setting FROM pg_settings WHERE name = 'primary_conninfo'")
		f.Must(f.metal.Set(t.Context(), "primary_conninfo", strings.Replace(info, "user=", "dbname=postgres user=", 1)))
	}
	if !edited {
		f.edit()
	}
	return f
}

// edit lets old.primary name both hosts.
func (f *failover) edit() {
	f.runbookLine(fmt.Sprintf("primary: %q", f.wacken.Conninfo("postgres")), fmt.Sprintf("primary: %q", f.conninfo))
}

// slots waits until metal has the slots of the links, which somebody must write
// for: a slot is kept from the moment that the one on wacken has moved beyond it.
func (f *failover) slots() {
	f.t.Helper()
	if f.wacken.Major < 17 {
		return
	}
	f.t.Log(f.Value(f.wacken, "", "SELECT string_agg(concat_ws(' ', slot_name, failover, plugin, restart_lsn, catalog_xmin), ', ') FROM pg_replication_slots"))
	last := ""
	f.wait("metal to have the slots", func() bool {
		f.Exec(f.wacken, "side", "UPDATE kept SET v = v WHERE k = 1", "SELECT pg_log_standby_snapshot()")
		if now := f.Value(f.metal, "", "SELECT string_agg(concat_ws(' ', slot_name, synced, temporary, restart_lsn, invalidation_reason), ', ' ORDER BY 1) FROM pg_replication_slots"); now != last {
			last = now
			f.t.Log(now)
		}
		return f.Value(f.metal, "", "SELECT count(*) = 3 FROM pg_replication_slots WHERE synced AND NOT temporary AND invalidation_reason IS NULL") == "t"
	})
}

// promote kills wacken and promotes metal, which is old from then on.
func (f *failover) promote() time.Time {
	f.t.Helper()
	f.Must(f.wacken.Kill(f.t.Context()))
	if !f.metal.Running() {
		f.Must(f.metal.Boot(f.t.Context()))
	}
	f.Must(f.metal.Promote(f.t.Context()))
	f.old = f.metal
	return time.Now()
}

// sees waits until status says words, for at most 10 s since a moment.
func (f *failover) sees(since time.Time, words ...string) {
	f.t.Helper()
	said := ""
	for !says(said, words) {
		if time.Since(since) > seenLimit {
			f.t.Fatalf("status does not say %q within %s:\n%s", words, seenLimit, said)
		}
		said = f.said()
	}
	f.t.Logf("seen %s after the failover: %s", time.Since(since).Round(10*time.Millisecond), said)
}

// copied are the points at which the copies of the sets of shop began.
func (f *failover) copied() string {
	f.t.Helper()
	return f.Value(f.new, "shop", "SELECT string_agg(key || ' ' || (value->>'point'), ', ' ORDER BY key) FROM crossfade.ledger WHERE key LIKE 'link/%'")
}

// writes lets clients of old write.
func (f *failover) writes(first int) *lab.Writer {
	return f.Write(f.old.Conninfo("shop"), lab.WriterOptions{Writers: 2, Pause: 2 * time.Millisecond, FirstWorker: first})
}

// TestFailoverMidway: metal is promoted while links run. It is seen within 10 s;
// no link is trusted that may have a gap, and those that have none go on.
func TestFailoverMidway(t *testing.T) {
	for _, one := range []struct {
		name     string
		old, new int
		tail     bool // new has rows that metal lacks
		edited   bool // the runbook is edited by hand
		early    bool // during prepare
		quick    bool
		says     string
		again    bool // everything is copied again
	}{
		{name: "15 to 17, slots lost", old: 15, new: 17, says: "its slot did not survive the failover of old", again: true},
		{name: "15 to 17, while it catches up", old: 15, new: 17, early: true, again: true},
		{name: "17 to 18, slots kept", old: 17, new: 18, says: "still asks another server", quick: true},
		{name: "17 to 18, new is ahead", old: 17, new: 18, tail: true, says: "old's new primary lacks everything", again: true},
		{name: "17 to 18, the runbook is edited", old: 17, new: 18, edited: true, says: "still asks another server"},
	} {
		t.Run(one.name, func(t *testing.T) {
			if !one.quick {
				long(t)
			}
			f := newFailover(t, setting{old: one.old, new: one.new}, one.edited)
			before := f.writes(1)
			f.Must(before.Flow(t.Context(), 50))
			if one.early {
				l, wake := f.stopped("analyze/shop", "prepare")
				first := before.Stop()
				f.Must(f.wacken.CaughtUp(t.Context(), f.metal))
				f.promote()
				wake()
				if r := l.end(); r.exit != 1 {
					t.Errorf("wanted exit 1\n%s", r)
				}
				f.goOn(first, "", one.again)
				return
			}
			f.do(0, "prepare")
			f.Must(before.Flow(t.Context(), 50))
			f.slots()
			first := before.Stop()
			f.Until(f.new, "shop", fmt.Sprintf("SELECT count(*) >= %d FROM ledger", first.Acked))
			f.Must(f.wacken.CaughtUp(t.Context(), f.metal))
			points := f.copied()
			if one.tail {
				f.Must(f.metal.Stop(t.Context(), lab.Fast))
				f.Exec(f.wacken, "shop", "INSERT INTO orders (what) VALUES ('the tail')", "INSERT INTO log (line) VALUES ('the tail')")
				f.Exec(f.wacken, "side", "INSERT INTO kept VALUES (1000, 'the tail')")
				f.Until(f.new, "shop", "SELECT EXISTS (SELECT FROM log WHERE line = 'the tail') AND EXISTS (SELECT FROM orders WHERE what = 'the tail')")
				f.Until(f.new, "side", "SELECT EXISTS (SELECT FROM kept WHERE k = 1000)")
			}
			at := f.promote()
			if one.edited {
				f.sees(at, "standby metal of old has been promoted", "old.primary")
				f.edit()
			}
			f.sees(at, "old has failed over", "timeline 2", one.says, "crossfade prepare")
			f.runbookLine("patience: 60s", "patience: 5s")
			if r := f.do(4, "cutover", "--yes"); !strings.Contains(r.stderr, "failed over") {
				t.Errorf("cutover does not say why\n%s", r)
			}
			f.runbookLine("patience: 5s", "patience: 60s")
			f.goOn(first, points, one.again)
		})
	}
}

// goOn lets clients write to metal, prepares again and cuts over. points are
// those of the copies before.
func (f *failover) goOn(first lab.Report, points string, again bool) {
	f.t.Helper()
	after := f.writes(100)
	f.Must(after.Flow(f.t.Context(), 50))
	r := f.do(0, "prepare")
	f.t.Logf("prepare:\n%s", linesWith(r.stderr, "trust"))
	f.wantPhase("ready", "old")
	if now := f.copied(); points != "" && (now != points) != again {
		f.t.Errorf("copied at %s, now at %s; wanted a copy: %t", points, now, again)
	}
	f.do(0, "prepare")
	f.do(0, "cutover", "--yes")
	v := f.Judge(f.new.Conninfo("shop"), f.old.Conninfo("shop"), first, after.Stop())
	f.t.Log(v)
	if got := f.Value(f.new, "shop", "SELECT count(*) FROM log WHERE line = 'the tail'"); got != "0" {
		f.t.Errorf("new has %s rows that old's new primary never had", got)
	}
	f.equal()
}

// linesWith are the lines of a text that have a word.
func linesWith(text, word string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// TestFailoverInCutover: old's primary dies in the cutover, and metal is
// promoted: before the close, between close and open, and after open. One
// command makes one side take writes, nothing that was acknowledged is lost, and
// the way back is not taken where it may have a gap.
func TestFailoverInCutover(t *testing.T) {
	long(t)
	for _, one := range []struct {
		step  string
		exits []int // of the cutover that is run again
	}{
		{"drain", []int{4}}, {"close", []int{4}}, {"open", []int{5}}, {"traffic/point", []int{0}},
	} {
		t.Run(one.step, func(t *testing.T) {
			f := newFailover(t, setting{old: 15, new: 17, cutover: "  max_blocked: 30s\n"}, false)
			f.do(0, "prepare")
			f.do(0, "prepare")
			w := f.writes(1)
			f.Must(w.Flow(t.Context(), 50))
			// What metal lacks is lost with wacken, and not the upgrade's.
			f.Exec(f.wacken, "", "ALTER SYSTEM SET synchronous_standby_names = 'metal'", "SELECT pg_reload_conf()")
			f.Until(f.wacken, "", "SELECT sync_state = 'sync' FROM pg_stat_replication WHERE application_name = 'metal'")
			f.Must(w.Flow(t.Context(), 50))
			l, wake := f.stopped(one.step, "cutover", "--yes")
			f.runbookLine("patience: 60s", "patience: 5s")
			f.promote()
			f.Exec(f.metal, "", "ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()")
			wake()
			r := l.end()
			t.Logf("exit %d: %s", r.exit, lastLine(r.stderr))
			phase, writable := f.truth()
			t.Logf("then phase %s, writable %s", phase, writable)
			r = f.try("cutover", "--yes")
			t.Logf("run again: exit %d: %s", r.exit, lastLine(r.stderr))
			wantExit(t, r, one.exits...)
			if one.step == "traffic/point" {
				f.wantPhase("open", "new")
				if r := f.do(4, "rollback", "--yes"); !strings.Contains(r.stderr, "failed over") {
					t.Errorf("the way back is closed for another reason\n%s", r)
				}
				f.Judge(f.new.Conninfo("shop"), "", w.Stop())
				return
			}
			f.wantPhase("ready", "old")
			f.runbookLine("patience: 5s", "patience: 60s")
			f.goOn(w.Stop(), "", true)
		})
	}
}
