package verify

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
	"crossfade/upgrade/pg"
)

// bench runs pgbench on old until the returned function is called.
func (w *world) bench(clients int, args ...string) (stop func()) {
	w.tb.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.tb.Context()))
	all := append([]string{"-n", "-c", fmt.Sprint(clients), "-T", "600", "-h", w.old.Socket, "-p", fmt.Sprint(w.old.Port), "-U", w.old.Superuser}, args...)
	cmd := w.old.Command(ctx, "pgbench", append(all, db)...)
	if err := cmd.Start(); err != nil {
		w.tb.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // it is killed, or ends with the server
	}()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			<-done
		}
	}
	w.tb.Cleanup(stop)
	return stop
}

func (w *world) pgbenchTables(scale int) {
	w.tb.Helper()
	for _, step := range []string{"-Idtp", fmt.Sprintf("-Ig -s%d", scale)} {
		for _, c := range []struct {
			socket string
			port   int
		}{{w.old.Socket, w.old.Port}, {w.new.Socket, w.new.Port}} {
			if strings.HasPrefix(step, "-Ig") && c.port == w.new.Port {
				continue
			}
			args := append(strings.Fields(step), "-i", "-q", "-h", c.socket, "-p", fmt.Sprint(c.port), "-U", w.old.Superuser, db)
			if out, err := w.old.Command(w.tb.Context(), "pgbench", args...).CombinedOutput(); err != nil {
				w.tb.Fatalf("pgbench %v: %v: %s", args, err, out)
			}
		}
	}
}

func TestHotTables(t *testing.T) {
	w := newWorld(t, 15, 18, "CREATE TABLE lock (id int PRIMARY KEY, n int); CREATE TABLE flip (id int PRIMARY KEY, on_ bool); CREATE TABLE log (a text); ALTER TABLE log REPLICA IDENTITY FULL")
	w.pgbenchTables(2)
	w.lab.Exec(w.old, db, "INSERT INTO flip SELECT g, true FROM generate_series(1, 3) g", "INSERT INTO log SELECT 'x' || g FROM generate_series(1, 1000) g")
	w.follow()
	stop := w.bench(4, "-R", "400")
	defer stop()
	// Rows that toggle between two states and rows that come and go are what
	// a comparison by luck would call different.
	script := w.old.Home + "/toggle.sql"
	w.lab.Must(os.WriteFile(script, []byte(`UPDATE flip SET on_ = NOT on_ WHERE id = 1 + :client_id;
INSERT INTO lock VALUES (:client_id, 1);
DELETE FROM lock WHERE id = :client_id;
UPDATE log SET a = 'y' || a WHERE a = (SELECT a FROM log ORDER BY random() LIMIT 1) AND length(a) < 50;
`), 0o644))
	stop2 := w.bench(3, "-R", "300", "-f", script)
	defer stop2()

	for round := range 2 {
		results := w.verify(w.options())
		for table, r := range results {
			if !r.Equal || len(r.Differing) > 0 {
				t.Errorf("round %d: a false alarm in %s: %+v", round, table, r)
			}
			if r.Skipped != "" {
				t.Logf("round %d: %s: %s", round, table, r.Skipped)
			}
		}
	}

	w.lab.Exec(w.new, db, "DELETE FROM pgbench_accounts WHERE aid = 77", "UPDATE pgbench_accounts SET filler = 'z' WHERE aid = 78",
		"DELETE FROM pgbench_branches WHERE bid = 2", "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 1, 1, 1, '2020-01-01')",
		"INSERT INTO flip VALUES (9, true)")
	began := time.Now()
	results := w.verify(w.options())
	t.Logf("found in %v, %d looks", time.Since(began), w.passes.Load())
	want := map[string][]string{
		"public.pgbench_accounts": {"aid = 77: is missing on new", "aid = 78: differs in filler"},
		"public.pgbench_branches": {"bid = 2: is missing on new"},
		"public.pgbench_history":  {"(1,1,1,1,\"2020-01-01 00:00:00\",): 0 on old, 1 on new"},
		"public.flip":             {"id = 9: is on new only"},
	}
	for table, r := range results {
		if !slices.Equal(r.Differing, want[table]) {
			t.Errorf("%s: differing %q, want %q (%+v)", table, r.Differing, want[table], r)
		}
	}
}

// TestWrongSnapshot is the negative control: rows copied in a snapshot that is
// not the slot's. No error is raised anywhere, and rows are doubled.
func TestWrongSnapshot(t *testing.T) {
	w := newWorld(t, 15, 17, "SELECT 1")
	w.pgbenchTables(1)
	defer w.bench(2, "-R", "500")()
	w.lab.Exec(w.old, db, "INSERT INTO crossfade.canary_main VALUES (1, 0)", "CREATE PUBLICATION p FOR ALL TABLES",
		"SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
	// Transactions that are in the snapshot and in the slot.
	w.lab.Until(w.old, db, "SELECT count(*) > 100 FROM pgbench_history")
	dump := w.old.Command(t.Context(), "pg_dump", "--data-only", "-d", w.old.Conninfo(db))
	load := w.new.Command(t.Context(), "psql", "-Xqd", w.new.Conninfo(db))
	pipe, err := dump.StdoutPipe()
	w.lab.Must(err)
	load.Stdin = pipe
	w.lab.Must(dump.Start())
	w.lab.Must(load.Run())
	w.lab.Must(dump.Wait())
	w.lab.Exec(w.new, db, "CREATE SUBSCRIPTION s CONNECTION '"+w.old.Conninfo(db)+"' PUBLICATION p WITH (create_slot=false, copy_data=false)")
	r := w.verify(w.options())["public.pgbench_history"]
	if r.Equal || len(r.Differing) == 0 || !strings.Contains(r.Differing[0], "1 on old, 2 on new") {
		t.Errorf("doubled rows were not found: %+v", r)
	}
	t.Log(len(r.Differing), r.Differing[0], r.Differing[len(r.Differing)-1], r.Skipped)
}

// TestCommitThatWaits: a commit that waits for a synchronous standby is applied
// on new and cannot be seen on old. That is no difference.
func TestCommitThatWaits(t *testing.T) {
	w := newWorld(t, 17, 18, "CREATE TABLE a (id int PRIMARY KEY, n int)")
	w.lab.Exec(w.old, db, "INSERT INTO a SELECT g, g FROM generate_series(1, 10) g")
	w.follow()
	w.lab.Must(w.old.Set(t.Context(), "synchronous_standby_names", "nobody"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.old.Exec(ctx, db, "UPDATE a SET n = 0 WHERE id = 3; INSERT INTO a VALUES (11, 11)") // hangs, as it should
	}()
	w.lab.Until(w.new, db, "SELECT count(*) = 11 FROM a")
	r := w.verify(w.options())["public.a"]
	if !r.Equal || len(r.Differing) > 0 || r.Moving != 2 {
		t.Errorf("%+v", r)
	}
	w.lab.Must(w.old.Set(t.Context(), "synchronous_standby_names", ""))
	<-done
	cancel()
	if r := w.verify(w.options())["public.a"]; !r.Equal || r.Skipped != "" {
		t.Errorf("%+v", r)
	}
}

func TestCountsBackAndCancel(t *testing.T) {
	w := newWorld(t, 13, 17, "CREATE TABLE a (id int PRIMARY KEY, n int); CREATE TABLE b (id int PRIMARY KEY, n int); CREATE TABLE growing (id serial PRIMARY KEY)")
	w.lab.Exec(w.old, db, "INSERT INTO a SELECT g, g FROM generate_series(1, 10) g", "INSERT INTO b SELECT g, g FROM generate_series(1, 10) g")
	w.follow()
	w.lab.Exec(w.new, db, "DELETE FROM a WHERE id = 5", "UPDATE b SET n = 0 WHERE id = 5")
	script := w.old.Home + "/grow.sql"
	w.lab.Must(os.WriteFile(script, []byte("INSERT INTO growing DEFAULT VALUES;"), 0o644))
	defer w.bench(1, "-R", "2000", "-f", script)()

	o := w.options()
	o.Mode = Counts
	var seen int64
	looksAgain := 0
	o.Progress = func(done, total int64, again int) { seen, looksAgain = done, max(looksAgain, again) }
	var told []string
	o.Observe = func(r Result) { told = append(told, r.Table) }
	results := w.verify(o)
	if r := results["public.a"]; r.Equal || !slices.Equal(r.Differing, []string{"10 rows on old, 9 on new"}) {
		t.Errorf("%+v", r)
	}
	if r := results["public.b"]; !r.Equal || r.Rows != 10 {
		t.Errorf("%+v", r)
	}
	if r := results["public.growing"]; !r.Equal {
		t.Errorf("%+v", r)
	}
	if looksAgain == 0 {
		t.Error("nothing says that tables are looked at again")
	}
	if seen == 0 || len(told) != len(results) {
		t.Errorf("progress %d, told of %v", seen, told)
	}

	// The other way round: new leads and old follows.
	back := w.options()
	back.Old, back.New, back.Back = back.New, back.Old, true
	if r := w.verify(back)["public.b"]; !slices.Equal(r.Differing, []string{"id = 5: differs in n"}) {
		t.Errorf("%+v", r)
	}

	// Cut off in the middle: the cause is reported and no session stays.
	ctx, cancel := context.WithCancelCause(t.Context())
	o = w.options()
	pass := o.Pass
	o.Pass = func(c context.Context) (pg.LSN, error) {
		if w.passes.Load() > 20 {
			cancel(fmt.Errorf("somebody pulled the plug"))
		}
		return pass(c)
	}
	w.passes.Store(20)
	results2, err := Run(ctx, o)
	if err == nil || !strings.Contains(err.Error(), "pulled the plug") {
		t.Errorf("error %v", err)
	}
	for _, r := range results2 {
		if r.Equal || r.Skipped == "" {
			t.Errorf("not settled, but %+v", r)
		}
	}
	for _, c := range []*lab.Cluster{w.old, w.new} {
		w.lab.Until(c, db, "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'crossfade'")
	}
	if r, err := Run(t.Context(), Options{Mode: Off}); r != nil || err != nil {
		t.Errorf("off: %v, %v", r, err)
	}
}
