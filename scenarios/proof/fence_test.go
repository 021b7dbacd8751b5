package proof

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	refused    = "25006" // read_only_sql_transaction
	terminated = "57P01" // admin_shutdown
	noDatabase = "3D000" // invalid_catalog_name: abort has dropped what prepare made
	done       = "00000" // no error
	gone       = ""      // the connection had ended before
)

// state is the SQLSTATE of an error, "" without one, and "?" where no server
// answered.
func state(err error) string {
	var e *pgconn.PgError
	switch {
	case err == nil:
		return done
	case errors.As(err, &e):
		return e.Code
	}
	return gone
}

// session is a client's session that outlives a statement.
func (w *world) session(c *lab.Cluster, db string) *pgx.Conn {
	w.t.Helper()
	return w.connect(c.Conninfo(db))
}

// connect is such a session, wherever it leads.
func (w *world) connect(conninfo string) *pgx.Conn {
	w.t.Helper()
	conn, err := pgx.Connect(w.t.Context(), conninfo)
	w.Must(err)
	w.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// run sends statements in a session, in the simple protocol.
func run(ctx context.Context, conn *pgx.Conn, sql string) error {
	_, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// fails wants a statement of a new session to fail with a state.
func (w *world) fails(c *lab.Cluster, db, want, sql string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	if _, err := c.Query(ctx, db, sql); state(err) != want {
		w.t.Errorf("%s on %s: wanted %s, got %v", sql, c.Name, want, err)
	}
}

// oldStandby gives old a standby that the runbook knows.
func (w *world) oldStandby(s *setting, name string, o lab.StandbyOptions) *lab.Cluster {
	w.t.Helper()
	sb := w.Lab.Standby(w.old, name, o)
	s.oldLines += fmt.Sprintf("  standbys:\n    - {name: %s, conninfo: %q}\n", name, sb.Conninfo(""))
	return sb
}

// TestFence: what the fence stops on the closed old, and what it lets through.
func TestFence(t *testing.T) {
	var metal *lab.Cluster
	w := newWorld(t, setting{
		sql: shopTables + "CREATE TABLE fed (k int PRIMARY KEY); CREATE INDEX by_time ON log (at);", cutover: "  max_blocked: 60s\n", extra: "verify: {mode: counts}\naccept: [\"logical-slots:other\"]\n",
		wire: func(w *world, s *setting) {
			metal = w.oldStandby(s, "metal", lab.StandbyOptions{})
			s.newLines += w.standbyLines("rock", w.new.Bin)
		},
	})
	w.Exec(w.old, "side", "CREATE TABLE public.fed (k int PRIMARY KEY)")
	w.do(0, "prepare")
	rock := w.standbys[0]

	// Somebody else's subscription on old: its worker passes every trigger, so
	// that it is a gate, and cannot be enabled once the fence is armed.
	w.Exec(w.old, "side", "CREATE PUBLICATION other FOR TABLE ONLY public.fed", "SELECT pg_create_logical_replication_slot('other', 'pgoutput')")
	w.Exec(w.old, "shop", "CREATE SUBSCRIPTION other CONNECTION '"+w.old.Conninfo("side")+"' PUBLICATION other WITH (create_slot = false, slot_name = other, copy_data = false)")
	if r := w.do(3, "check"); !strings.Contains(r.stdout, "subscriptions-on-old") {
		t.Errorf("check does not name the subscription that is not ours\n%s", r)
	}
	w.runbookLine("patience: 60s", "patience: 8s")
	if r := w.do(4, "cutover", "--yes"); !strings.Contains(r.stderr, "subscription other") {
		t.Errorf("the gate does not name the subscription that is not ours\n%s", r)
	}
	w.runbookLine("patience: 8s", "patience: 60s")
	w.Exec(w.old, "shop", "ALTER SUBSCRIPTION other DISABLE")

	// PostgreSQL lets nobody watch lo_create: it is noticed, and undoes the crossing.
	l, wake := w.stopped("close", "cutover", "--yes")
	lob := w.Value(w.old, "shop", "SELECT lo_create(0)")
	wake()
	if r := l.end(); r.exit != 5 || !strings.Contains(r.stderr, "large objects") {
		t.Errorf("a lo_create in the middle of the crossing\n%s", r)
	}
	w.wantPhase("ready", "old")
	w.Exec(w.old, "shop", "SELECT lo_unlink("+lob+")")
	w.Exec(w.old, "shop", "INSERT INTO log (line) VALUES ('old serves')", "CREATE TEMP TABLE k AS SELECT 1")
	before := w.session(w.old, "shop")
	w.Must(run(t.Context(), before, "SELECT 1"))
	copied := w.session(w.old, "shop")
	prepared := w.session(w.old, "shop")
	w.Must(run(t.Context(), prepared, "PREPARE p AS INSERT INTO public.log (line) VALUES ('prepared')"))
	w.Must(run(t.Context(), prepared, "EXECUTE p"))
	rows := w.Value(w.old, "shop", "SELECT count(*) FROM log")

	l, wake = w.stopped("close", "cutover", "--yes")
	names := []string{"a prepared statement", "a COPY", "a TRUNCATE", "an INSERT"}
	waits := []<-chan error{
		w.in(prepared, "EXECUTE p"),
		func() <-chan error {
			done := make(chan error, 1)
			go func() {
				_, err := copied.PgConn().CopyFrom(t.Context(), strings.NewReader("copied\n"), "COPY public.log (line) FROM STDIN")
				done <- err
			}()
			return done
		}(),
		w.in(w.session(w.old, "shop"), "TRUNCATE public.lines"),
		w.in(w.session(w.old, "shop"), "INSERT INTO public.orders (what) VALUES ('waiting')"),
	}
	w.Until(w.old, "shop", fmt.Sprintf("SELECT count(DISTINCT pid) >= %d FROM pg_locks WHERE NOT granted", len(waits)))
	wake()
	wantExit(t, l.end(), 0)
	for i, done := range waits {
		// Its session is ended with all others: which of both comes first is a matter of luck.
		if got := state(<-done); got != refused && got != terminated {
			t.Errorf("%s that waited at the barrier: %q", names[i], got)
		} else {
			t.Logf("%s that waited at the barrier: %s", names[i], got)
		}
	}
	if err := run(t.Context(), before, "CREATE TABLE public.mine AS SELECT 1"); !slices.Contains([]string{terminated, gone}, state(err)) {
		t.Errorf("CREATE TABLE AS in a session that was open before: %v", err)
	}
	if got := w.Value(w.old, "shop", "SELECT count(*) FROM log"); got != rows {
		t.Errorf("log has %s rows on old, not %s", got, rows)
	}
	if got := w.Value(w.old, "shop", "SELECT count(*) FROM lines"); got != "6000" {
		t.Errorf("lines has %s rows on old", got)
	}

	for _, sql := range []string{
		"INSERT INTO public.log (line) VALUES ('x')",
		"UPDATE public.orders SET what = 'x' WHERE id = 1",
		"DELETE FROM public.lines WHERE n = 1",
		"UPDATE public.orders SET what = 'x' WHERE false",
		"INSERT INTO public.parts VALUES (1, 'x')",
		"INSERT INTO public.parts_1 VALUES (1, 'x')",
		"MERGE INTO public.orders o USING (VALUES (1)) v(k) ON o.id = v.k WHEN MATCHED THEN DELETE",
		"WITH d AS (DELETE FROM public.lines RETURNING *) SELECT count(*) FROM d",
		"TRUNCATE public.lines",
		"PREPARE p AS INSERT INTO public.log (line) VALUES ('x'); EXECUTE p",
		"COPY public.log (line) FROM PROGRAM 'echo x'",
		"DO $$ BEGIN INSERT INTO public.log (line) VALUES ('x'); END $$",
		"CREATE TABLE public.mine AS SELECT 1",
		"CREATE TABLE public.mine (k int)",
	} {
		w.fails(w.old, "shop", refused, sql)
		w.fails(w.old, "shop", refused, "BEGIN READ WRITE; "+sql)
	}
	w.fails(w.old, "shop", refused, "BEGIN READ WRITE; ALTER SUBSCRIPTION other ENABLE")
	w.fails(w.old, "side", refused, "BEGIN READ WRITE; UPDATE public.kept SET v = 'x'")
	w.Exec(w.old, "side", "BEGIN READ WRITE; CREATE TEMP TABLE mine AS SELECT 1; COMMIT") // reading with all means goes on

	// What commits on its way has changed nothing when it is refused.
	const indexes = "SELECT string_agg(format('%s %s %s', indexrelid::regclass, indisvalid, indislive), ', ' ORDER BY 1) FROM pg_index WHERE indrelid >= 16384"
	were := w.Value(w.old, "shop", indexes)
	for _, sql := range []string{"CREATE INDEX CONCURRENTLY ON public.log (line)", "DROP INDEX CONCURRENTLY public.by_time"} {
		conn := w.session(w.old, "shop")
		w.Must(run(t.Context(), conn, "SET default_transaction_read_only = off"))
		if err := run(t.Context(), conn, sql); state(err) != refused {
			t.Errorf("%s on old: wanted %s, got %v", sql, refused, err)
		}
	}
	if are := w.Value(w.old, "shop", indexes); are != were {
		t.Errorf("indexes of old were %s, are %s", were, are)
	}

	// The way back passes.
	w.Exec(w.new, "shop", "INSERT INTO log (line) VALUES ('on new')", "INSERT INTO parts VALUES (999, 'new') ON CONFLICT (k) DO UPDATE SET v = 'new'")
	w.Exec(w.new, "side", "UPDATE kept SET v = 'new' WHERE k = 7")
	w.Until(w.old, "shop", "SELECT (SELECT count(*) FROM log WHERE line = 'on new') = 1 AND (SELECT v FROM parts WHERE k = 999) = 'new'")
	w.Until(w.old, "side", "SELECT v = 'new' FROM kept WHERE k = 7")

	// libpq finds new by itself.
	both, err := pgconn.Connect(t.Context(), fmt.Sprintf("host=%s,%s port=%d,%d dbname=shop user=postgres target_session_attrs=read-write sslmode=disable", w.old.Address(), w.new.Address(), w.old.Port, w.new.Port))
	w.Must(err)
	defer func() { _ = both.Close(context.Background()) }() // its row is what counts
	port, err := both.Exec(t.Context(), "SHOW port").ReadAll()
	w.Must(err)
	if got := string(port[0].Rows[0][0]); got != fmt.Sprint(w.new.Port) {
		t.Errorf("target_session_attrs=read-write leads to port %s", got)
	}

	// Old's standby knows that it is closed; the new standby that it is open.
	w.Must(metal.Promote(t.Context()))
	w.fails(metal, "shop", refused, "INSERT INTO public.log (line) VALUES ('x')")
	w.fails(metal, "shop", refused, "BEGIN READ WRITE; INSERT INTO public.log (line) VALUES ('x')")
	w.fails(metal, "side", refused, "BEGIN READ WRITE; DELETE FROM public.kept")
	w.Must(w.new.CaughtUp(t.Context(), rock))
	w.Must(w.new.Kill(t.Context()))
	w.Must(rock.Promote(t.Context()))
	w.Exec(rock, "shop", "INSERT INTO log (line) VALUES ('on rock')", "CREATE TABLE mine AS SELECT 1", "TRUNCATE lines", "SELECT lo_create(0)")
	w.Exec(rock, "side", "UPDATE kept SET v = 'rock'")
}

// in starts statements in a session; the channel has their error.
func (w *world) in(conn *pgx.Conn, sql string) <-chan error {
	done := make(chan error, 1)
	go func() { done <- run(w.t.Context(), conn, sql) }()
	return done
}
