package proof

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"crossfade/scenarios/lab"

	"github.com/jackc/pgx/v5"
)

// Each test of this file is a sequence of events that loses or doubles rows, or
// stops clients for good, where the line of design.md is left out that its
// comment names.

// naiveTables are shopTables with triggers that fire on apply and log DDL,
// unless somebody sees to it.
const naiveTables = shopTables + `
CREATE TABLE audit (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text);
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.audit (what) VALUES (NEW.what); RETURN NULL; END $$;
CREATE TRIGGER noted AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION noted();
ALTER TABLE orders ENABLE ALWAYS TRIGGER noted;
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER plain AFTER DELETE ON log FOR EACH STATEMENT EXECUTE FUNCTION nothing();
CREATE TABLE ddl_log (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tag text, name text);
CREATE FUNCTION log_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.ddl_log (tag, name) VALUES (tg_tag, tg_event); END $$;
CREATE EVENT TRIGGER log_ddl ON ddl_command_end EXECUTE FUNCTION log_ddl();
CREATE EVENT TRIGGER log_all ON ddl_command_start EXECUTE FUNCTION log_ddl();
ALTER EVENT TRIGGER log_all ENABLE ALWAYS;
`

// TestNaiveBarrier: what clients do between arm and close that they should not,
// on one pair of clusters, one crossing after the other. Each begins and ends
// with old serving.
func TestNaiveBarrier(t *testing.T) {
	long(t)
	naive(t, []sequence{
		{"open before arm", naiveOpenBefore},
		{"prepared after the gate", naivePrepared},
		{"barrier killed", naiveBarrierKilled},
		{"trigger disabled", naiveTriggerDisabled},
		{"deadlock", naiveDeadlock},
	})
}

// TestNaiveWay: what the way there and the way back do to each other, to
// sequences and to triggers; in the end new is gone.
func TestNaiveWay(t *testing.T) {
	long(t)
	naive(t, []sequence{
		{"sequences", naiveSequences},
		{"a slot of an earlier attempt", naiveSlotLeft},
		{"forward after back", naiveForwardAgain},
		{"new is gone", naiveNewGone},
	})
}

// sequence is one of events; its test begins with old serving.
type sequence struct {
	name string
	test func(t *testing.T, w *world)
}

func naive(t *testing.T, all []sequence) {
	w := newWorld(t, setting{
		sql: naiveTables, extra: "verify: {mode: counts}\n", cutover: "  max_blocked: 30s\n  sequences: {margin: 0}\n",
		oldSet: map[string]string{"max_prepared_transactions": "10"},
		newSet: map[string]string{"max_prepared_transactions": "10"},
	})
	w.do(0, "prepare")
	for _, one := range all {
		w.part(one.name, func(t *testing.T) { one.test(t, w) })
	}
}

// shortly runs f with a patience of 3 s.
func (w *world) shortly(f func()) {
	w.t.Helper()
	w.runbookLine("patience: 60s", "patience: 3s")
	f()
	w.runbookLine("patience: 3s", "patience: 60s")
}

// naiveOpenBefore: a transaction that was open before arm has made and filled
// a table that nobody sees. Line: arm (c), every transaction that was open is
// waited out; and the count of tables of the gate.
func naiveOpenBefore(t *testing.T, w *world) {
	w.Exec(w.old, "shop", "ALTER EVENT TRIGGER log_all DISABLE", "ALTER EVENT TRIGGER log_ddl DISABLE") // they would hold a lock
	tx := w.session(w.old, "shop")
	w.Must(run(t.Context(), tx, "BEGIN; CREATE TABLE public.mine (k int PRIMARY KEY, v text); INSERT INTO public.mine SELECT g, 'v' FROM generate_series(1, 100) g"))
	w.shortly(func() {
		ended := false
		var mu sync.Mutex
		l := w.follow(w.exe, "", func(_ *os.Process, e event) {
			mu.Lock()
			defer mu.Unlock()
			ended = ended || e.Step == "arm" && e.Kind == "end"
		}, "cutover", "--yes")
		for _, db := range []string{"shop", "side"} {
			w.Until(w.old, db, "SELECT count(*) = 2 FROM pg_event_trigger WHERE evtname LIKE 'crossfade%'")
		}
		time.Sleep(time.Second) // all that is left of arm is to wait
		mu.Lock()
		if ended {
			t.Error("arm did not wait for a transaction that was open before")
		}
		mu.Unlock()
		w.Must(run(t.Context(), tx, "COMMIT"))
		if r := l.end(); r.exit != 4 || !strings.Contains(r.stderr, "mine") {
			t.Errorf("a table that was made in a transaction open before arm\n%s", r)
		}
	})
	w.wantPhase("ready", "old")
	w.Exec(w.old, "shop", "ALTER EVENT TRIGGER log_all ENABLE ALWAYS", "ALTER EVENT TRIGGER log_ddl ENABLE")
	w.do(0, "prepare")
	w.Until(w.new, "shop", "SELECT count(*) = 100 FROM mine")
}

// naivePrepared: PREPARE TRANSACTION after the gate, with and without locks
// that the barrier meets. Lines: prepared transactions are read again before
// each attempt, so that writers do not wait for one without success, and under the locks.
func naivePrepared(t *testing.T, w *world) {
	for i, one := range []struct {
		step, sql string
		exit      int
		barriers  int // attempts at the locks
	}{
		{"traffic/pause", "INSERT INTO log (line) VALUES ('prepared 0')", 4, 0},
		{"barrier", "INSERT INTO log (line) VALUES ('prepared 1')", 4, 1},
		{"canary", "INSERT INTO log (line) VALUES ('prepared 2')", 0, 1}, // it stands at the barrier
		{"barrier", "SELECT FROM orders WHERE id = 1 FOR UPDATE", 5, 1},
	} {
		w.shortly(func() {
			tx := w.session(w.old, "shop")
			l, wake := w.stopped(one.step, "cutover", "--yes")
			done := w.in(tx, fmt.Sprintf("BEGIN; %s; PREPARE TRANSACTION 'p%d'", one.sql, i))
			if one.exit != 0 {
				w.Must(<-done)
			}
			wake()
			r := l.end()
			wantExit(t, r, one.exit)
			barriers := 0
			for _, e := range r.lines("event") {
				if e["kind"] == "begin" && e["step"] == "barrier" {
					barriers++
				}
			}
			if barriers != one.barriers {
				t.Errorf("prepared at %s: the locks were tried %d times, wanted %d", one.step, barriers, one.barriers)
			}
			if one.exit == 0 {
				if s := state(<-done); s != refused && s != terminated {
					t.Errorf("a write that waited at the barrier: %s", s)
				}
				w.do(0, "rollback", "--yes")
				return
			}
			if w.status()["writable"] != "old" {
				t.Errorf("old does not serve after %s\n%s", one.step, r)
			}
			w.Exec(w.old, "shop", fmt.Sprintf("COMMIT PREPARED 'p%d'", i))
		})
	}
	w.do(0, "cutover", "--yes")
	if got := w.Value(w.new, "shop", "SELECT count(*) FROM log WHERE line LIKE 'prepared %'"); got != "2" {
		t.Errorf("%s of 2 rows that were prepared are on new", got)
	}
	w.do(0, "rollback", "--yes")
}

// naiveBarrierKilled: the session that holds the locks of one database is ended
// before close, and clients write. Line: close, on the very backends that hold
// the locks; one lost session voids the fence LSN of all databases.
func naiveBarrierKilled(t *testing.T, w *world) {
	client := w.Write(w.old.Conninfo("shop"), lab.WriterOptions{Writers: 2, Pause: 5 * time.Millisecond})
	for _, db := range []string{"shop", "side"} {
		l, wake := w.stopped("close", "cutover", "--yes")
		w.Until(w.old, db, `SELECT count(pg_terminate_backend(pid)) > 0 FROM (SELECT DISTINCT pid FROM pg_locks
			WHERE mode = 'ShareRowExclusiveLock' AND granted AND locktype = 'relation' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) k`)
		w.Exec(w.old, db, map[string]string{"shop": "INSERT INTO log (line) VALUES ('slipped in')", "side": "INSERT INTO kept VALUES (1000, 'slipped in')"}[db])
		wake()
		wantExit(t, l.end(), 5)
		if phase, writable := w.truth(); writable != "old" {
			t.Errorf("phase %s, writable %s", phase, writable)
		}
	}
	// Nobody was even closed: what follows close would undo it, too.
	if r := client.Stop(); len(r.Failures) > 0 {
		t.Errorf("clients saw errors: %v", r.Failures)
	}
	w.do(0, "cutover", "--yes")
	if w.Value(w.new, "shop", "SELECT count(*) FROM log WHERE line = 'slipped in'") != "1" || w.Value(w.new, "side", "SELECT count(*) FROM kept WHERE v = 'slipped in'") != "1" {
		t.Error("a row that was acknowledged is not on new")
	}
	w.do(0, "rollback", "--yes")
}

// naiveTriggerDisabled: ALTER TABLE … DISABLE TRIGGER stands at the barrier,
// also in a session where the guard against DDL does not fire, and in one that
// is not ended at close, as a background worker would not be. Lines: the event
// trigger that refuses DDL; every session is ended; the fingerprint is read once
// more after close.
func naiveTriggerDisabled(t *testing.T, w *world) {
	fence, own := [2]string{"side", "ALTER TABLE public.kept DISABLE TRIGGER ALL"}, [2]string{"shop", "ALTER TABLE public.log DISABLE TRIGGER plain"}
	for _, one := range []struct {
		role, name string
		ddl        [2]string // database, statement
		exits      []int
		states     []string // of the statement
	}{
		{"origin", "somebody", fence, []int{0}, []string{refused, terminated}},
		{"replica", "somebody", fence, []int{0, 5}, []string{terminated, done}}, // whichever comes first
		{"origin", "crossfade up worker", fence, []int{0}, []string{refused}},
		{"replica", "crossfade up worker", fence, []int{5}, []string{done}},
		{"replica", "crossfade up worker", own, []int{5}, []string{done}},
	} {
		db, sql := one.ddl[0], one.ddl[1]
		what := fmt.Sprintf("%s as %s in %s", one.name, one.role, db)
		for range 20 {
			w.session(w.old, db) // to be ended, which takes a moment
		}
		tx := w.session(w.old, db)
		w.Must(run(t.Context(), tx, fmt.Sprintf("SET session_replication_role = %s; SET application_name = '%s'", one.role, one.name)))
		l, wake := w.stopped("close", "cutover", "--yes")
		result := w.in(tx, sql)
		w.Until(w.old, db, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted")
		wake()
		r := l.end()
		err := <-result
		t.Logf("%s: exit %d, the ALTER TABLE: %v", what, r.exit, err)
		if wantExit(t, r, one.exits...); !slices.Contains(one.states, state(err)) {
			t.Errorf("%s: the ALTER TABLE: %v", what, err)
		}
		if r.exit == 5 {
			if phase, writable := w.truth(); writable != "old" {
				t.Errorf("%s: phase %s, writable %s", what, phase, writable)
			}
			w.Exec(w.old, "shop", "ALTER TABLE public.log ENABLE TRIGGER plain")
			continue
		}
		if err == nil {
			t.Errorf("%s: open, and the ALTER TABLE succeeded", what)
		}
		w.fails(w.old, "side", refused, "BEGIN READ WRITE; UPDATE public.kept SET v = 'x'")
		w.do(0, "rollback", "--yes")
	}
}

// naiveDeadlock: a client holds a table that the barrier comes to late, and
// then wants one that the barrier has. PostgreSQL looks for a deadlock once in
// each wait, after deadlock_timeout: where the barrier has been waiting for
// longer than that, it is the client who finds it, and loses. Line: lock_timeout
// is at most half of deadlock_timeout.
func naiveDeadlock(t *testing.T, w *world) {
	w.runbookLine("  max_blocked: 30s\n", "  max_blocked: 30s\n  lock_timeout: 10s\n")
	defer w.runbookLine("  lock_timeout: 10s\n", "")
	l, wake := w.stopped("barrier", "cutover", "--yes")
	begin := func(i int) *pgx.Conn {
		tx := w.session(w.old, "shop")
		w.Must(run(t.Context(), tx, fmt.Sprintf("BEGIN; UPDATE public.parts_2 SET v = v WHERE k = %d", 1000+i)))
		return tx
	}
	tx, met := begin(0), 0
	wake()
	for i := 0; (met < 2 || i < 4) && i < 12; i++ {
		w.wait("the barrier to come to the table that a client holds", func() bool {
			return w.Value(w.old, "shop", "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.application_name LIKE 'crossfade%')") == "t"
		})
		if i%2 == 1 {
			time.Sleep(1500 * time.Millisecond) // deadlock_timeout is 1 s
		}
		began := time.Now()
		if err := run(t.Context(), tx, "UPDATE public.lines SET price = price WHERE orders_id = 1"); err != nil {
			t.Fatalf("try %d: the client lost: %v", i, err)
		}
		if time.Since(began) > 10*time.Millisecond {
			met++
		}
		next := begin(i + 1)
		w.Must(run(t.Context(), tx, fmt.Sprintf("INSERT INTO public.log (line) VALUES ('client %d'); COMMIT", i)))
		w.Must(tx.Close(t.Context()))
		tx = next
	}
	w.Must(run(t.Context(), tx, "COMMIT"))
	wantExit(t, l.end(), 0)
	t.Logf("the client stood behind the barrier's locks %d times", met)
	w.do(0, "rollback", "--yes")
}

// naiveSequences: nextval in loops from before to after the crossing; no value
// is handed out twice. Line: sequences are read again and written after close,
// when every session has ended.
func naiveSequences(t *testing.T, w *world) {
	var mu sync.Mutex
	seen := map[string]int{}
	take := func(v string) {
		mu.Lock()
		defer mu.Unlock()
		seen[v]++
	}
	var loops sync.WaitGroup
	for range 3 {
		conn := w.session(w.old, "shop")
		loops.Go(func() {
			for {
				res, err := conn.PgConn().Exec(t.Context(), "SELECT nextval('public.free_numbers')").ReadAll()
				if err != nil {
					return
				}
				take(string(res[0].Rows[0][0]))
			}
		})
	}
	w.do(0, "cutover", "--yes")
	loops.Wait()
	t.Logf("%d values on old", len(seen))
	for _, row := range w.query(w.new, "shop", "SELECT nextval('public.free_numbers') FROM generate_series(1, 2000)") {
		take(row[0])
	}
	for v, n := range seen {
		if n > 1 {
			t.Errorf("%s was handed out %d times", v, n)
		}
	}
	w.do(0, "rollback", "--yes")
}

// naiveSlotLeft: an earlier attempt has left a slot and a subscription of the
// way back, and rows came to new since. Line: a back slot or subscription of an
// earlier attempt is always dropped and made again.
func naiveSlotLeft(t *testing.T, w *world) {
	for _, set := range []string{"orders", "rest"} {
		w.Exec(w.new, "shop", "SELECT pg_create_logical_replication_slot('cb_up_shop_"+set+"', 'pgoutput')")
	}
	w.Exec(w.old, "shop", "CREATE SUBSCRIPTION cb_up_shop_orders CONNECTION 'dbname=nowhere' PUBLICATION gone WITH (connect = false, slot_name = NONE)")
	w.Exec(w.old, "shop", "INSERT INTO log (line) VALUES ('there')", "INSERT INTO orders (what) VALUES ('there')")
	w.Until(w.new, "shop", "SELECT EXISTS (SELECT FROM log WHERE line = 'there') AND EXISTS (SELECT FROM orders WHERE what = 'there')")
	w.do(0, "cutover", "--yes")
	w.Exec(w.new, "shop", "INSERT INTO log (line) VALUES ('once')", "INSERT INTO orders (what) VALUES ('on new, noted once')")
	w.Until(w.old, "shop", "SELECT EXISTS (SELECT FROM log WHERE line = 'once')")
	w.equal()
	w.do(0, "rollback", "--yes")
}

// naiveForwardAgain: cut off after open, before the links to new were dropped;
// then rows travel back, and a rollback comes. Line: once a back link has
// carried a row the forward subscriptions and slots are only ever dropped.
func naiveForwardAgain(t *testing.T, w *world) {
	w.Exec(w.old, "shop", "INSERT INTO orders (what) VALUES ('before')", "INSERT INTO log (line) VALUES ('before')")
	w.killed("forward/drop", "cutover", "--yes")
	w.Exec(w.new, "shop", "INSERT INTO orders (what) VALUES ('back')", "INSERT INTO log (line) VALUES ('back')", "DELETE FROM lines WHERE orders_id = 5")
	w.Until(w.old, "shop", "SELECT EXISTS (SELECT FROM log WHERE line = 'back')")
	w.do(0, "rollback", "--yes")
	w.wantPhase("rolled_back", "old")
	w.Exec(w.old, "shop", "INSERT INTO log (line) VALUES ('forward')", "INSERT INTO orders (what) VALUES ('forward')", "INSERT INTO lines VALUES (5, 1, 1)")
	w.Until(w.new, "shop", "SELECT EXISTS (SELECT FROM log WHERE line = 'forward')")
	w.equal() // audit and ddl_log too: ALWAYS triggers fire on one side only
	if got := w.Value(w.old, "shop", "SELECT count(*) FROM audit WHERE what IN ('before', 'back', 'forward')"); got != "3" {
		t.Errorf("3 orders were noted %s times", got)
	}
}

// naiveNewGone: new is gone for good after open. Line: rollback --without-new.
func naiveNewGone(t *testing.T, w *world) {
	w.do(0, "cutover", "--yes")
	w.Exec(w.new, "shop", "INSERT INTO orders (what) VALUES ('arrived')", "INSERT INTO log (line) VALUES ('arrived')")
	w.Until(w.old, "shop", "SELECT EXISTS (SELECT FROM log WHERE line = 'arrived') AND EXISTS (SELECT FROM orders WHERE what = 'arrived')")
	if r := w.try("rollback", "--without-new", "--yes"); r.exit != 4 {
		t.Errorf("--without-new while new answers\n%s", r)
	}
	w.Must(w.new.Kill(t.Context()))
	if r := w.try("rollback", "--yes"); r.exit == 0 {
		t.Errorf("rollback without new\n%s", r)
	}
	w.fails(w.old, "shop", refused, "BEGIN READ WRITE; INSERT INTO public.log (line) VALUES ('x')")
	r := w.do(0, "rollback", "--without-new", "--yes")
	if !strings.Contains(r.stderr, "LSN") {
		t.Errorf("it does not say up to which LSN old has the rows\n%s", r)
	}
	w.Exec(w.old, "shop", "INSERT INTO orders (what) VALUES ('alone')", "CREATE TABLE alone AS SELECT 1", "TRUNCATE lines")
	w.Exec(w.old, "side", "UPDATE kept SET v = 'alone'")
	if got := w.Value(w.old, "shop", "SELECT count(*) FROM audit WHERE what = 'alone'"); got != "1" {
		t.Errorf("the ALWAYS trigger noted %s orders of 1", got)
	}
	if got := w.Value(w.old, "shop", "SELECT count(*) FROM ddl_log WHERE tag = 'CREATE TABLE AS'"); got != "2" {
		t.Errorf("the event triggers noted %s of 2", got)
	}
	if s := w.status(); s["phase"] != "rolled_back" || s["writable"] != "old" {
		t.Errorf("status: %v", s)
	}
	w.do(0, "rollback", "--without-new", "--yes")
}

func (w *world) query(c *lab.Cluster, db, sql string) [][]string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	rows, err := c.Query(ctx, db, sql)
	w.Must(err)
	return rows
}
