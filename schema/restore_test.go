package schema_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

var majors = []struct{ old, new int }{{15, 18}, {13, 18}, {15, 17}, {17, 18}}

func TestRestoreOfAHardSchema(t *testing.T) {
	for _, m := range majors {
		t.Run(fmt.Sprintf("%d to %d", m.old, m.new), func(t *testing.T) {
			old, to := hard(t, m.old), fresh(t, m.new)
			roles(t, m.new)
			// A root that fires everywhere, with leaves that think otherwise.
			exec(t, connect(t, old), `
				ALTER TABLE shop.events ENABLE ALWAYS TRIGGER on_events;
				ALTER TABLE ONLY shop.events_default ENABLE REPLICA TRIGGER on_events;
				ALTER TABLE ONLY shop.events_2024 DISABLE TRIGGER on_events;
				ALTER TABLE ONLY shop.events_2025_rest ENABLE TRIGGER on_events;
				ALTER EVENT TRIGGER hard_ddl ENABLE ALWAYS`)
			carry(t, old, to, m.new)
			noDifference(t, old, to)
			firing, err := schema.FiringTriggers(t.Context(), connect(t, old))
			must(t, err)
			if now, err := schema.FiringTriggers(t.Context(), connect(t, to)); err != nil || len(now) != 0 {
				t.Errorf("triggers fire on new: %v %v", now, err)
			}
			conn := session(t, to)
			for _, f := range firing {
				exec(t, conn, f.Restore())
			}
			sameOracle(t, old, to, m.new)
			for _, d := range compare(t, old, to) {
				if d.Property == "enabled" {
					t.Errorf("put back, but %s", d.Says)
				}
			}
			sequencesGoOn(t, old, to)

			// Again, in a session that could not write if it wanted to.
			exec(t, conn, "SET default_transaction_read_only = on")
			must(t, schema.Restore(t.Context(), conn, dump(t, old, m.new), nil))
		})
	}
}

// copyAll copies the rows of every table that has its own, in one go, as
// loading does.
func copyAll(t testing.TB, old, to *pg.Server) []schema.Table {
	t.Helper()
	from, conn := connect(t, old), connect(t, to)
	inv := read(t, old)
	for _, table := range inv.Tables {
		if table.Kind != 'r' {
			continue
		}
		var columns []string
		for _, c := range table.Columns {
			if c.Generated == 0 {
				columns = append(columns, pg.Ident(c.Name))
			}
		}
		list, form := "", "text"
		if len(columns) > 0 {
			list = "(" + strings.Join(columns, ", ") + ")"
		}
		if table.Binary() {
			form = "binary"
		}
		r, w := io.Pipe()
		go func() {
			_, err := from.PgConn().CopyTo(t.Context(), w, "COPY "+table.SQL()+" "+list+" TO STDOUT (FORMAT "+form+")")
			_ = w.CloseWithError(err)
		}()
		_, err := conn.PgConn().CopyFrom(t.Context(), r, "COPY "+table.SQL()+" "+list+" FROM STDIN (FORMAT "+form+")")
		if err != nil {
			t.Fatalf("copy %s: %v", table, err)
		}
	}
	return inv.Tables
}

func TestRestoreInStagesAroundTheRows(t *testing.T) {
	old, to := hard(t, 15), fresh(t, 18)
	roles(t, 18)
	conn := session(t, to)
	exec(t, conn, schema.Ledger("new", to.Database()).SQL)
	entries := dump(t, old, 18)
	step := func(part []schema.Entry) {
		t.Helper()
		must(t, schema.Restore(t.Context(), conn, part, nil))
	}
	step(schema.Entries(entries, schema.Before))
	tables := copyAll(t, old, to)
	step(schema.Entries(entries, schema.Identify))
	// Each table by itself, backwards: their order must not matter.
	slices.Reverse(tables)
	for _, table := range tables {
		step(schema.EntriesFor(entries, schema.Index, table.SQL()))
	}
	step(schema.EntriesFor(entries, schema.Index, ""))
	for _, e := range schema.Entries(entries, schema.Index) {
		if e.Table != "" && !slices.ContainsFunc(tables, func(t schema.Table) bool { return t.SQL() == e.Table }) {
			t.Errorf("%s belongs to %s, which is no table", e.Object(), e.Table)
		}
	}
	step(schema.Entries(entries, schema.Foreign))
	step(schema.Entries(entries, schema.Late))
	step(schema.Entries(entries, schema.Refresh))
	noDifference(t, old, to)
	for _, view := range []string{"shop.totals", "shop.a_top", "audit.above_key"} {
		q := "SELECT md5(string_agg(v::text, ';' ORDER BY v::text)) FROM " + view + " v"
		want, err := cluster(t, 15).Value(t.Context(), old.Database(), q)
		must(t, err)
		got, err := cluster(t, 18).Value(t.Context(), to.Database(), q)
		if err != nil || got != want || want == "" {
			t.Errorf("%s: %q on old and %q on new, %v", view, want, got, err)
		}
	}
}

func TestRestoreNamesWhatIsRefused(t *testing.T) {
	old, to := fresh(t, 15), fresh(t, 18)
	exec(t, connect(t, old), `
		CREATE SCHEMA s; CREATE TABLE s.a (id int PRIMARY KEY);
		CREATE VIEW s.stats AS SELECT checkpoints_timed FROM pg_stat_bgwriter; -- 17 has it elsewhere
		CREATE TABLE s.b (id int)`)
	conn := session(t, to)
	exec(t, conn, schema.Ledger("new", to.Database()).SQL)
	entries := dump(t, old, 18)
	err := schema.Restore(t.Context(), conn, entries, nil)
	var e *pg.Error
	if !errors.As(err, &e) || e.Object != "view s.stats" || pg.SQLState(err) != "42703" || e.Hint == "" {
		t.Fatalf("%v", err)
	}
	t.Log(err)
	// Mended on old, it goes on from there.
	exec(t, connect(t, old), `CREATE OR REPLACE VIEW s.stats AS SELECT 1::bigint AS checkpoints_timed`)
	must(t, schema.Restore(t.Context(), conn, dump(t, old, 18), nil))
	noDifference(t, old, to)
	// What blocks the upgrade is named too, and nothing of it is touched.
	other := fresh(t, 18)
	conn = session(t, other)
	exec(t, conn, schema.Ledger("new", other.Database()).SQL+"; CREATE SCHEMA s; CREATE TABLE s.a (mine text)")
	err = schema.Restore(t.Context(), conn, entries, nil)
	if !errors.As(err, &e) || e.Object != "schema s" || e.Hint == "" {
		t.Fatalf("%v", err)
	}
}

// A session that is killed between any two statements, or in the middle of
// one, leaves a database that the next run completes.
func TestRestoreGoesOnAfterACrash(t *testing.T) {
	old, to := hard(t, 15), fresh(t, 18)
	roles(t, 18)
	entries := dump(t, old, 18)
	exec(t, connect(t, to), schema.Ledger("new", to.Database()).SQL)
	killer := connect(t, to)
	done := 0
	for kill := 3; ; kill += 37 {
		conn, err := schema.Session(t.Context(), to, nil)
		must(t, err)
		pid := conn.PgConn().PID()
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		err = schema.Restore(ctx, conn, entries, func(schema.Entry) {
			if n++; n == kill {
				exec(t, killer, fmt.Sprintf("SELECT pg_terminate_backend(%d)", pid))
			}
		})
		cancel()
		_ = conn.Close(context.Background())
		if err == nil {
			break
		}
		if errors.As(err, new(*pgconn.PgError)) && pg.SQLState(err) != "57P01" {
			t.Fatal(err)
		}
		if done++; done > 100 {
			t.Fatal("it never ends")
		}
	}
	if done < 3 {
		t.Errorf("killed %d times only", done)
	}
	noDifference(t, old, to)
}

func TestRestoreIsNotDoneTwiceAtOnce(t *testing.T) {
	old, to := fresh(t, 15), fresh(t, 18)
	exec(t, connect(t, old), `CREATE SCHEMA s; CREATE TABLE s.a (id int)`)
	entries := schema.Entries(dump(t, old, 18), schema.Before)
	exec(t, connect(t, to), schema.Ledger("new", to.Database()).SQL)
	one, other := session(t, to), session(t, to)
	exec(t, one, "BEGIN")
	exec(t, one, entries[0].Effect("new", "").SQL)
	failed := make(chan error, 1)
	go func() { failed <- schema.Restore(t.Context(), other, entries, nil) }()
	exec(t, one, "COMMIT")
	if err := <-failed; err != nil && pg.SQLState(err) != "23505" {
		t.Fatal(err)
	}
	must(t, schema.Restore(t.Context(), one, entries, nil))
	noDifference(t, old, to)
}

func TestDumpLeavesOurOwnOut(t *testing.T) {
	old, to := fresh(t, 15), fresh(t, 18)
	conn := connect(t, old)
	exec(t, conn, `
		CREATE TABLE public.mine (id int PRIMARY KEY);
		CREATE SCHEMA crossfade; CREATE TABLE crossfade.ledger (key text);
		CREATE FUNCTION crossfade.fence() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
		CREATE FUNCTION crossfade.ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
		CREATE TRIGGER crossfade_fence BEFORE INSERT ON public.mine EXECUTE FUNCTION crossfade.fence();
		CREATE TRIGGER crossfade_fence_2 BEFORE INSERT ON public.mine EXECUTE FUNCTION crossfade.fence();
		CREATE EVENT TRIGGER crossfade_ddl ON ddl_command_start EXECUTE FUNCTION crossfade.ddl();
		COMMENT ON EVENT TRIGGER crossfade_ddl IS 'ours'; COMMENT ON TRIGGER crossfade_fence ON public.mine IS 'ours';
		COMMENT ON SCHEMA crossfade IS 'ours'; GRANT USAGE ON SCHEMA crossfade TO PUBLIC;
		CREATE PUBLICATION p FOR ALL TABLES;
		SET session_replication_role = replica`)
	for _, e := range dump(t, old, 18) {
		if strings.Contains(e.SQL, "crossfade") || e.Type == "PUBLICATION" {
			t.Errorf("%s: %s", e.Object(), e.SQL)
		}
	}
	carry(t, old, to, 18)
	noDifference(t, old, to)
	inv := read(t, old)
	if len(inv.Tables) != 1 || !inv.Tables[0].Fenced || inv.Tables[0].Triggers != 0 {
		t.Errorf("%+v", inv.Tables)
	}
}

func TestDumpOfADatabaseWithoutPublic(t *testing.T) {
	old, to := fresh(t, 15), fresh(t, 18)
	exec(t, connect(t, old), `DROP SCHEMA public; CREATE SCHEMA s; CREATE TABLE s.a (id int)`)
	carry(t, old, to, 18)
	noDifference(t, old, to)
}

func TestEffectsAreWhatIsSent(t *testing.T) {
	old, to := fresh(t, 15), fresh(t, 18)
	exec(t, connect(t, old), `CREATE TABLE public.a (id int PRIMARY KEY, b text DEFAULT '$name'); CREATE INDEX ON public.a (b)`)
	carry(t, old, to, 18)
	for _, e := range schema.RestoreEffects(dump(t, old, 18), "new", to.Database()) {
		first, _, _ := strings.Cut(e.SQL, "\n")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Second, errors.New("it did not come"))
		must(t, pg.Poll(ctx, 20*time.Millisecond, first+" in the server's log", func(context.Context) (bool, error) {
			return strings.Contains(cluster(t, 18).Log(), "statement: "+first), nil
		}))
		cancel()
		if e.On != "new" || e.Database != to.Database() {
			t.Errorf("%+v", e)
		}
	}
}

// A plan shows no password of a user mapping, and new has it all the same.
func TestUserMappingsKeepTheirSecrets(t *testing.T) {
	old, to := fresh(t, 15), fresh(t, 18)
	exec(t, connect(t, old), `CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;
		CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS ("user" 'joe', password 'top''secret $crossfade_password_a', "odd key" E'back\\slash')`)
	for _, e := range schema.RestoreEffects(dump(t, old, 18), "new", to.Database()) {
		if strings.Contains(e.SQL, "secret $") || strings.Contains(e.SQL, "slash") {
			t.Errorf("the plan shows %s", e.SQL)
		}
	}
	carry(t, old, to, 18)
	noDifference(t, old, to)
	exec(t, connect(t, to), `ALTER USER MAPPING FOR PUBLIC SERVER s OPTIONS (SET password 'other')`)
	if d := compare(t, old, to); len(d) != 1 || d[0].Want != "set" {
		t.Errorf("%v", d)
	}
}

// Each entry may run in a session of its own: the tablespace that is in force
// for it goes with it.
func TestRestoreKeepsTablespaces(t *testing.T) {
	old, to := fresh(t, 15), fresh(t, 18)
	for _, major := range []int{15, 18} {
		conn := connect(t, home(t, major))
		exec(t, conn, "SET allow_in_place_tablespaces = on")
		exec(t, conn, `CREATE TABLESPACE "odd;space" LOCATION ''`)
	}
	exec(t, connect(t, old), `
		CREATE TABLE public.a (id int) TABLESPACE "odd;space"; CREATE TABLE public.b (id int PRIMARY KEY, c int);
		CREATE INDEX b_there ON public.b (c) TABLESPACE "odd;space"; CREATE INDEX b_here ON public.b (c);
		CREATE MATERIALIZED VIEW public.m TABLESPACE "odd;space" AS SELECT 1 AS one; CREATE INDEX m_here ON public.m (one);
		ALTER TABLE public.a ADD UNIQUE (id) USING INDEX TABLESPACE "odd;space"`)
	conn := connect(t, to)
	exec(t, conn, schema.Ledger("new", to.Database()).SQL)
	for _, e := range dump(t, old, 18) {
		must(t, schema.Restore(t.Context(), session(t, to), []schema.Entry{e}, nil))
	}
	noDifference(t, old, to)
}

// Sessions that restore have what pg_dump writes at the head of its output,
// whatever the role or the database says.
func TestSessionIsPinned(t *testing.T) {
	to := fresh(t, 18)
	exec(t, connect(t, to), fmt.Sprintf("ALTER DATABASE %s SET check_function_bodies = on; ALTER DATABASE %[1]s SET default_tablespace = 'nowhere'", to.Database()))
	conn := session(t, to)
	for name, want := range map[string]string{
		"check_function_bodies": "off", "default_tablespace": "", "search_path": "", "xmloption": "content", "row_security": "off",
		"standard_conforming_strings": "on", "session_replication_role": "replica", "transaction_timeout": "0", "statement_timeout": "0",
	} {
		var got string
		must(t, conn.QueryRow(t.Context(), "SELECT current_setting($1)", pgx.QueryExecModeSimpleProtocol, name).Scan(&got))
		if got != want && got != `""` {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}
