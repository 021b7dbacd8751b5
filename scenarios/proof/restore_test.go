package proof

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// removedSince13 is what 13 takes and later majors refuse, each by its object
// and the SQLSTATE that 18 answers with.
var removedSince13 = []struct{ sql, drop, object, state, names string }{
	{
		"CREATE AGGREGATE gathered(anyelement) (SFUNC = array_append, STYPE = anyarray, INITCOND = '{}')", "DROP AGGREGATE gathered(anyelement)",
		"aggregate public.gathered(anyelement)", "42883", "array_append",
	},
	{
		"CREATE FUNCTION doubled(bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1'; CREATE OPERATOR !# (LEFTARG = bigint, FUNCTION = doubled)",
		"DROP OPERATOR !# (bigint, NONE)", "operator public.!#", "42P13", "CREATE OPERATOR",
	},
	{
		"CREATE TABLE spans (id int PRIMARY KEY, span interval); CREATE INDEX spans_text ON spans ((span::text))", "DROP INDEX spans_text",
		"index public.spans_text", "42P17", "CREATE INDEX",
	},
	{"CREATE VIEW written AS SELECT buffers_backend FROM pg_stat_bgwriter", "DROP VIEW written CASCADE", "view public.written", "42703", "buffers_backend"},
	{"CREATE VIEW on_written AS SELECT * FROM written", "", "view public.on_written", "42P01", "on_written"}, // for want of the one before
}

// strangers are roles that new does not have, in every place where a dump names one.
const strangers = `
CREATE ROLE landlord; CREATE ROLE reader; CREATE ROLE chief SUPERUSER;
ALTER TABLE orders OWNER TO landlord;
GRANT SELECT ON lines TO reader WITH GRANT OPTION; SET ROLE reader; GRANT SELECT ON lines TO landlord; RESET ROLE;
ALTER DEFAULT PRIVILEGES FOR ROLE landlord IN SCHEMA public GRANT SELECT ON TABLES TO reader;
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON orders TO reader USING (true); COMMENT ON POLICY mine ON orders IS 'of the reader';
CREATE SCHEMA flat AUTHORIZATION landlord; CREATE TYPE flat.mood AS ENUM ('sad'); ALTER TYPE flat.mood OWNER TO landlord;
CREATE FUNCTION flat.noted() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; ALTER FUNCTION flat.noted() OWNER TO reader;
CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE FUNCTION flat.noted(); ALTER EVENT TRIGGER noted OWNER TO chief;
CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw; ALTER SERVER far OWNER TO landlord;
CREATE USER MAPPING FOR reader SERVER far OPTIONS (user 'x', password 'not for anybody'); CREATE USER MAPPING FOR landlord SERVER far;
`

// TestCheckRestore: what 18 does not take any more of a 13 is a finding each,
// by its object, its statement and its SQLSTATE, and nothing else is; roles
// that new lacks are none. Nothing is left on new, also not after Ctrl-C, and
// what a killed run has left goes with the next.
func TestCheckRestore(t *testing.T) {
	w := newWorld(t, setting{old: 13, new: 18})
	w.Exec(w.old, "shop", strangers)
	stood := w.onNew()
	for _, r := range removedSince13 {
		w.Exec(w.old, "shop", r.sql)
	}
	if r := w.do(3, "check", "--json"); strings.Contains(r.stdout, "schema-rejected") {
		t.Errorf("check without --restore restores\n%s", r)
	}
	r := w.do(3, "check", "--restore", "--json")
	found := map[string]map[string]any{}
	for _, f := range r.lines("finding") {
		if f["id"] == "schema-rejected" {
			found[fmt.Sprint(f["object"])] = f
		}
	}
	for _, want := range removedSince13 {
		f := found[want.object]
		says := fmt.Sprint(f["says"])
		if f == nil || f["level"] != "block" || f["acceptable"] != false || f["database"] != "shop" || f["fix"] == nil ||
			!strings.Contains(says, "SQLSTATE "+want.state) || !strings.Contains(says, want.names) || !strings.Contains(says, "the statement: CREATE ") {
			t.Errorf("%s: %v", want.object, f)
		}
		if follows := strings.HasPrefix(fmt.Sprint(f["fix"]), "fix view public.written first"); follows != (want.drop == "") {
			t.Errorf("%s: follows from another one: %t: %v", want.object, follows, f)
		}
		delete(found, want.object)
	}
	for _, f := range found {
		t.Errorf("a false finding: %v", f)
	}
	if got := w.onNew(); !slices.Equal(got, stood) {
		t.Errorf("new had %q and has %q", stood, got)
	}
	for _, r := range slices.Backward(removedSince13) {
		if r.drop != "" {
			w.Exec(w.old, "shop", r.drop)
		}
	}
	w.do(0, "check", "--restore")
	w.interruptedRestore(stood)
}

// onNew are the databases and roles of new.
func (w *world) onNew() []string {
	w.t.Helper()
	rows, err := w.new.Query(w.t.Context(), "", "SELECT 'database ' || datname FROM pg_database UNION ALL SELECT 'role ' || rolname FROM pg_roles ORDER BY 1")
	w.Must(err)
	var all []string
	for _, r := range rows {
		all = append(all, r[0])
	}
	return all
}

// held starts a restore that waits for a role that somebody else is making.
func (w *world) held() (l *live, letGo func()) {
	w.t.Helper()
	conn, err := w.new.Connect(w.t.Context(), "")
	w.Must(err)
	w.Must(pgx.BeginFunc(w.t.Context(), conn, func(pgx.Tx) error { return nil }))
	_, err = conn.Exec(w.t.Context(), "BEGIN; CREATE ROLE landlord")
	w.Must(err)
	l = w.follow(w.exe, "", nil, "check", "--restore")
	w.Until(w.new, "", "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'crossfade up check' AND wait_event_type = 'Lock')")
	return l, func() { w.Must(conn.Close(w.t.Context())) }
}

// interruptedRestore ends a restore in its middle, politely and not.
func (w *world) interruptedRestore(stood []string) {
	t := w.t
	t.Helper()
	l, letGo := w.held()
	if got := w.onNew(); !slices.Contains(got, "database cf_up_restore_shop") {
		t.Errorf("there is no scratch database: %q", got)
	}
	w.do(8, "check", "--restore")
	w.Must(l.cmd.Process.Signal(syscall.SIGINT))
	if r := l.end(); r.exit != 130 {
		t.Errorf("interrupted: %s", r)
	}
	letGo()
	if got := w.onNew(); !slices.Equal(got, stood) {
		t.Errorf("after Ctrl-C new had %q and has %q", stood, got)
	}
	l, letGo = w.held()
	w.Must(l.cmd.Process.Kill())
	l.end()
	letGo()
	if got := w.onNew(); !slices.Contains(got, "database cf_up_restore_shop") {
		t.Errorf("a killed run left nothing, so that nothing is tested: %q", got)
	}
	w.do(0, "check", "--restore")
	if got := w.onNew(); !slices.Equal(got, stood) {
		t.Errorf("after a killed run and another new had %q and has %q", stood, got)
	}
	// Abort leaves nothing of one either.
	l, letGo = w.held()
	w.Must(l.cmd.Process.Kill())
	l.end()
	letGo()
	w.do(0, "prepare", "--until", "globals")
	conn, err := pgx.Connect(t.Context(), w.new.Conninfo("postgres"))
	w.Must(err)
	_, err = conn.Exec(t.Context(), `SELECT pg_advisory_lock(hashtext('crossfade check --restore'), hashtext('up'))`)
	w.Must(err)
	if r := w.do(8, "abort", "--yes"); !strings.Contains(r.stderr, "another check --restore") {
		t.Errorf("abort beside a check --restore: %s", r)
	}
	w.Must(conn.Close(t.Context()))
	if r := w.do(0, "plan", "--only", "abort"); !strings.Contains(r.stdout, `DROP DATABASE IF EXISTS "cf_up_restore_shop" WITH (FORCE)`) {
		t.Errorf("the plan of abort does not show the scratch database: %s", r)
	}
	w.do(0, "abort", "--yes")
	if got := w.onNew(); !slices.Equal(got, stood) {
		t.Errorf("after a killed run and an abort new had %q and has %q", stood, got)
	}
	// A database of that name that is somebody's is not dropped.
	w.Exec(w.new, "", "CREATE DATABASE cf_up_restore_shop")
	w.Exec(w.new, "cf_up_restore_shop", "CREATE TABLE precious (a int)")
	if r := w.do(1, "check", "--restore"); !strings.Contains(r.stderr, "precious") {
		t.Errorf("it does not say what is in the way\n%s", r)
	}
	w.Value(w.new, "cf_up_restore_shop", "SELECT count(*) FROM precious")
}
