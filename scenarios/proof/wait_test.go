package proof

import (
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// TestLongReadInThePool: PAUSE waits for every transaction under way, and holds
// all other clients back meanwhile. A read that is longer than that may take
// costs nobody anything where it is seen before, and one PAUSE where it is not.
// Lines: no transaction through the pool older than the pause timeout; each
// PAUSE under a timeout.
func TestLongReadInThePool(t *testing.T) {
	w := newWorld(t, setting{pooled: true, cutover: "  max_blocked: 20s\n"}) // a PAUSE waits 2 s
	w.do(0, "prepare")
	writer := w.Write(w.pool.Conninfo("shop"), lab.WriterOptions{Writers: 3, Pause: 5 * time.Millisecond})
	read := func(seconds string) <-chan error {
		conn := w.connect(w.pool.Conninfo("shop"))
		done := w.in(conn, "SELECT pg_sleep("+seconds+")")
		w.Until(w.old, "shop", "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active')")
		return done
	}
	for _, one := range []struct {
		name   string
		older  time.Duration // how old the read is when the tool comes to PAUSE
		pauses int           // while the read goes on
	}{
		{"seen before", 2500 * time.Millisecond, 0},
		{"not seen before", 0, 1},
	} {
		l, wake := w.stopped("traffic/pause", "cutover", "--yes")
		said := len(w.pool.Log())
		done := read("9")
		time.Sleep(one.older)
		wake()
		var longest time.Duration
		w.wait("the read to end", func() bool {
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("%s: the read: %v", one.name, err)
				}
				return true
			case <-l.done:
				t.Fatalf("%s: it did not wait for the read\n%s", one.name, l.ran)
			default:
				longest = max(longest, writer.GapSince(time.Now()).Length)
			}
			return false
		})
		commands := map[string]int{}
		for _, m := range commanded.FindAllStringSubmatch(w.pool.Log()[said:], -1) {
			commands[m[1]]++
		}
		t.Logf("%s: the longest wait of others was %s, %v", one.name, longest.Round(time.Millisecond), commands)
		// A RESUME too many is harmless.
		if commands["PAUSE"] != one.pauses || commands["RESUME"] < one.pauses {
			t.Errorf("%s: while a read went on, the others were held back and let go on this often: %v; wanted %d", one.name, commands, one.pauses)
		}
		wantExit(t, l.end(), 0)
		w.do(0, "rollback", "--yes")
	}
	report := writer.Stop()
	if len(report.Failures) > 0 {
		t.Errorf("clients saw errors: %v", report.Failures)
	}
	w.Judge(w.old.Conninfo("shop"), w.new.Conninfo("shop"), report)
}

// TestCloseWaitsForNoStandby: the synchronous standby of old is lost when close
// commits, and the tool dies. A COMMIT that waited for the standby would go on
// waiting with nobody at its other end, all locks held, whatever limits the
// session was given. Line: every session of the tool pins synchronous_commit to
// local.
func TestCloseWaitsForNoStandby(t *testing.T) {
	var metal *lab.Cluster
	w := newWorld(t, setting{
		sql: killTables, extra: "verify: {mode: counts}\n", cutover: "  max_blocked: 5s\n",
		wire: func(w *world, s *setting) { metal = w.oldStandby(s, "metal", lab.StandbyOptions{}) },
	})
	w.Exec(w.old, "", "ALTER SYSTEM SET synchronous_standby_names = 'metal'", "SELECT pg_reload_conf()")
	w.Until(w.old, "", "SELECT sync_state = 'sync' FROM pg_stat_replication WHERE application_name = 'metal'")
	w.do(0, "prepare")
	l, wake := w.stopped("close", "cutover", "--yes")
	w.Must(metal.Freeze(t.Context()))
	t.Cleanup(func() { _ = metal.Thaw(t.Context()) }) // one that ended needs none
	wake()
	w.wait("close to be committed, or to wait", func() bool {
		rows, err := w.old.Query(t.Context(), "shop", `SELECT FROM crossfade.upgrade WHERE state = 'closed'
			UNION ALL SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name LIKE 'crossfade%'`)
		return err == nil && len(rows) > 0 // this session is ended as others are
	})
	kill(l.cmd.Process)
	l.end()
	// Who does not wait for the standby itself is refused at once, or served.
	for db, sql := range map[string]string{"shop": "INSERT INTO log (line) VALUES ('local')", "side": "UPDATE kept SET v = 'local' WHERE k = 3"} {
		conn := w.session(w.old, db)
		w.Must(run(t.Context(), conn, "SET synchronous_commit = local"))
		select {
		case err := <-w.in(conn, sql):
			if got := state(err); got != refused {
				t.Errorf("%s in %s: %v", sql, db, err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s in %s still waits, four times longer than max_blocked after the tool was killed", sql, db)
		}
	}
	w.elsewhere()
	if phase, writable := w.truth(); phase != "cutover" || writable != "none" {
		t.Errorf("closed and not open: phase %s, writable %s", phase, writable)
	}
	w.do(0, "abort", "--yes")
	if !w.takes(w.old) {
		t.Error("old does not serve after abort")
	}
	w.Must(metal.Thaw(t.Context()))
	w.Exec(w.old, "shop", "INSERT INTO log (line) VALUES ('metal is back')")
}
