package load

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
	"crossfade/schema"
	"crossfade/upgrade/pg"
)

// underLoad is pgbench's tables in two sets, published, being written to.
func underLoad(t *testing.T, scale int) (*world, []schema.Set) {
	t.Helper()
	w := newWorld(t, 15, 18, lab.Options{})
	w.pgbenchInit(scale)
	w.restore()
	stop := w.bench("-c", "4", "-R", "300")
	w.lab.Until(w.old, db, "SELECT count(*) > 20 FROM pgbench_history")
	sets := w.pgbenchSets()
	w.publish(sets...)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(strings.Join(w.notes, "\n"))
		}
	})
	_ = stop
	return w, sets
}

// prove follows old for a moment and compares every row.
func (w *world) prove(sets ...schema.Set) {
	w.tb.Helper()
	w.subscribe(sets...)
	w.caughtUp(sets...)
	// Stop the writers by what they write to, so that both sides stand still.
	w.lab.Exec(w.old, "", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgbench'")
	w.caughtUp(sets...)
	w.same(w.tables(nil))
	w.silent()
}

// begun waits, while the step runs, until new has so many marks of chunks.
func (w *world) begun(chunks int) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := w.new.Until(ctx, db, fmt.Sprintf("SELECT count(*) >= %d FROM crossfade.ledger WHERE starts_with(key, 'chunk/')", chunks+1)); err != nil {
		w.tb.Error(err)
	}
}

func TestCancelled(t *testing.T) {
	w, sets := underLoad(t, 2)
	o := w.options(sets...)
	// A lock on new holds one table up, so that one set is whole and the other
	// is not when the plug is pulled.
	lock, err := w.new.Connect(t.Context(), db)
	w.lab.Must(err)
	w.lab.Must(pg.Exec(t.Context(), lock, "BEGIN; LOCK TABLE pgbench_accounts"))
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		w.lab.Until(w.new, db, "SELECT count(*) = 2 FROM crossfade.ledger WHERE starts_with(key, 'loaded/rest/')")
		cancel(fmt.Errorf("somebody pulled the plug"))
	}()
	_, err = w.run(ctx, o)
	if err == nil || !strings.Contains(err.Error(), "pulled the plug") {
		t.Fatalf("error %v", err)
	}
	w.silent() // also the one that waited for the lock
	w.lab.Must(pg.Exec(t.Context(), lock, "COMMIT"))
	w.lab.Must(lock.Close(t.Context()))

	before := w.lab.Value(w.old, db, "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '"+slotOf("rest")+"'")
	o.Chunk = 1 << 20
	w.must(o)
	if after := w.lab.Value(w.old, db, "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '"+slotOf("rest")+"'"); after != before || w.made != 2 {
		t.Errorf("the whole set was copied again: its slot was at %s and is at %s, %d snapshots", before, after, w.made)
	}
	w.prove(sets...)
}

func TestWorkersKilled(t *testing.T) {
	w, sets := underLoad(t, 2)
	o := w.options(sets...)
	o.Chunk = 1 << 20
	killed := make(chan int)
	go func() {
		n := 0
		for i := range 3 {
			w.begun(1 + 3*i)
			for _, c := range []*lab.Cluster{w.old, w.new} {
				rows, err := c.Query(context.Background(), db, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'crossfade' AND query LIKE 'COPY%'")
				if err != nil {
					t.Error(err)
				}
				n += len(rows)
			}
		}
		killed <- n
	}()
	w.must(o)
	if n := <-killed; n < 3 {
		t.Errorf("only %d workers were killed", n)
	}
	w.prove(sets...)
	if w.made != 1 {
		t.Errorf("%d snapshots", w.made)
	}
}

// TestNewKilled: new forgets commits that did not wait for their flush. Rows
// and marks are forgotten together, and the same run makes up for it.
func TestNewKilled(t *testing.T) {
	w, sets := underLoad(t, 2)
	o := w.options(sets...)
	o.Chunk = 1 << 20
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 2 {
			w.begun(2 + 5*i)
			w.lab.Must(w.new.Kill(context.Background()))
			w.lab.Must(w.new.Boot(context.Background()))
		}
	}()
	defer func() { <-done }()
	w.must(o)
	<-done
	t.Log(strings.Join(w.notes, "\n"))
	w.prove(sets...)
	if w.made != 1 {
		t.Errorf("%d snapshots", w.made)
	}
}

func TestOldKilled(t *testing.T) {
	w, sets := underLoad(t, 2)
	o := w.options(sets...)
	o.Chunk = 1 << 20
	booted := make(chan struct{})
	go func() {
		defer close(booted)
		w.begun(3)
		w.lab.Must(w.old.Kill(context.Background()))
		w.lab.Must(w.old.Boot(context.Background()))
	}()
	_, err := w.run(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "run again") || !strings.Contains(err.Error(), "copy shop.public.pgbench_") {
		t.Fatalf("error %v", err)
	}
	t.Log(err)
	<-booted
	w.bench("-c", "2", "-R", "300")
	w.must(o)
	w.prove(sets...)
}

// TestRewritten: VACUUM FULL moves rows to other pages between two chunks.
func TestRewritten(t *testing.T) {
	w, sets := underLoad(t, 2)
	w.lab.Exec(w.old, db, "UPDATE pgbench_accounts SET filler = filler WHERE aid % 3 = 0")
	o := w.options(sets...)
	o.Chunk, o.Jobs = 1<<20, 1
	go func() {
		w.begun(3)
		w.lab.Exec(w.old, db, "VACUUM FULL pgbench_accounts")
	}()
	w.must(o)
	if !strings.Contains(strings.Join(w.notes, "\n"), "public.pgbench_accounts was rewritten on old") {
		t.Errorf("notes: %q", w.notes)
	}
	w.prove(sets...)
}

// TestAgainAfterForeignKeys: a slot is lost when all is done; its set starts
// again although its tables cannot be truncated any more.
func TestAgainAfterForeignKeys(t *testing.T) {
	w := newWorld(t, 15, 17, lab.Options{}, "CREATE TABLE a (id int PRIMARY KEY, a int REFERENCES a); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a); INSERT INTO a VALUES (1, 1); INSERT INTO b VALUES (1, 1)",
		"INSERT INTO a SELECT g, 1 FROM generate_series(2, 5000) g")
	w.restore()
	one := func(name string) schema.Set {
		return schema.Set{Name: name, Tables: w.tables(func(t schema.Table) bool { return t.Name == name })}
	}
	sets := []schema.Set{one("a"), one("b")}
	w.publish(sets...)
	o := w.options(sets...)
	w.must(o)
	conn, err := schema.Session(t.Context(), w.server(w.new), nil)
	w.lab.Must(err)
	w.lab.Must(schema.Restore(t.Context(), conn, w.entries, nil))
	pg.Leave(conn)
	w.lab.Exec(w.old, db, "SELECT pg_drop_replication_slot('"+slotOf("a")+"')", "UPDATE a SET a = 2 WHERE id = 3", "INSERT INTO b VALUES (2, 2)")
	for _, chunk := range []int64{0, 64 << 10} {
		o.Chunk = chunk
		w.must(o)
		w.lab.Exec(w.old, db, "SELECT pg_drop_replication_slot('"+slotOf("a")+"')")
		w.same(sets[0].Tables)
	}
	if n := w.lab.Value(w.new, db, "SELECT count(*) FROM b"); n != "1" || w.made != 3 {
		t.Errorf("b has %s rows on new, and its set was to stay; %d snapshots", n, w.made)
	}
}

// TestForeignKeys: those between copied tables are there after the copy, and
// valid; one that rows break is named, and the next run copies what was fixed.
func TestForeignKeys(t *testing.T) {
	w := newWorld(t, 15, 18, lab.Options{},
		"CREATE TABLE a (id int PRIMARY KEY, up int REFERENCES a); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a, b int REFERENCES b); CREATE TABLE c (b int PRIMARY KEY REFERENCES b, a int REFERENCES a)",
		"CREATE TABLE p (id int PRIMARY KEY) PARTITION BY LIST (id); CREATE TABLE p1 PARTITION OF p DEFAULT; CREATE TABLE q (p int REFERENCES p)",
		"INSERT INTO a SELECT g, 1 FROM generate_series(1, 1000) g; INSERT INTO b SELECT g, g, 1 FROM generate_series(1, 500) g; INSERT INTO c VALUES (1, 1)",
		"SET session_replication_role = replica; INSERT INTO c VALUES (2, 9999)")
	w.restore()
	sets := []schema.Set{{Name: "main", Tables: w.tables(nil)}}
	w.publish(sets...)
	o := w.options(sets...)
	_, err := w.run(t.Context(), o)
	if pg.SQLState(err) != foreignViolation || !strings.Contains(fmt.Sprint(err), "c_a_fkey") || !strings.Contains(fmt.Sprint(err), "fix the rows on old") {
		t.Fatalf("error %v", err)
	}
	w.lab.Exec(w.old, db, "DELETE FROM c WHERE a = 9999")
	w.must(o)
	valid := w.lab.Value(w.new, db, "SELECT string_agg(conname, ' ' ORDER BY conname) FROM pg_constraint WHERE contype = 'f' AND convalidated")
	if want := "a_up_fkey b_a_fkey b_b_fkey c_a_fkey c_b_fkey"; valid != want {
		t.Errorf("foreign keys %s, want %s", valid, want)
	}
	w.same(sets[0].Tables)
}

func TestSnapshotGone(t *testing.T) {
	w, sets := underLoad(t, 2)
	o := w.options(sets...)
	o.Chunk = 1 << 20
	go func() {
		w.begun(1)
		w.lab.Exec(w.old, "", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'crossfade' AND query LIKE 'SELECT pg_export_snapshot%'")
	}()
	_, err := w.run(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "run again") {
		t.Fatalf("error %v", err)
	}
	t.Log(err)
	w.must(o)
	w.prove(sets...)
}

// TestRefused: an error of PostgreSQL names the table, the side and its code.
func TestRefused(t *testing.T) {
	w := newWorld(t, 15, 17, lab.Options{}, "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1), (2)")
	w.restore()
	sets := []schema.Set{{Name: "main", Tables: w.tables(nil)}}
	w.publish(sets...)
	w.lab.Exec(w.new, db, "ALTER TABLE a ADD CHECK (id < 2)")
	_, err := w.run(t.Context(), w.options(sets...))
	if pg.SQLState(err) != "23514" || !strings.Contains(err.Error(), "copy shop.public.a on new (") {
		t.Errorf("error %v", err)
	}
	w.lab.Exec(w.new, db, "ALTER TABLE a DROP CONSTRAINT a_id_check", "CREATE TABLE a_pkey ()")
	_, err = w.run(t.Context(), w.options(sets...))
	if pg.SQLState(err) != "42P07" || !strings.Contains(err.Error(), "build constraint public.a a_pkey on new (") {
		t.Errorf("error %v", err)
	}
	w.silent()
	w.lab.Exec(w.new, db, "DROP TABLE a_pkey")
	w.must(w.options(sets...))
	w.same(sets[0].Tables)
}
