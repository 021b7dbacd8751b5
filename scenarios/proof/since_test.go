package proof

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// TestMadeAfterOpen: what clients make on the side that serves, after the
// cutover and after a rollback, closes the gate at once with the command that
// helps, and prepare, killed or not, brings it to the other side. Nothing that
// was acknowledged is missing there afterwards.
func TestMadeAfterOpen(t *testing.T) {
	w := newWorld(t, setting{cutover: "  max_blocked: 30s\n"})
	writer := w.Write(w.both(), lab.WriterOptions{Writers: 2, Pause: 2 * time.Millisecond})
	w.do(0, "prepare")
	w.do(0, "cutover", "--yes")
	made := []string{
		"CREATE ROLE late LOGIN PASSWORD 'late'",
		"CREATE TABLE later (k int PRIMARY KEY, v text, orders_id bigint REFERENCES orders)",
		"INSERT INTO later SELECT g, 'v' || g, g FROM generate_series(1, 1000) g",
		"CREATE TABLE parts_3 PARTITION OF parts FOR VALUES FROM (2000) TO (3000)",
		"INSERT INTO parts SELECT g, 'part' FROM generate_series(2000, 2999) g",
		"CREATE INDEX later_v ON later (v)", "CREATE INDEX log_line ON log (line)",
		"GRANT SELECT ON later, log TO late",
		"CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS 'SELECT 2 * n'",
	}
	w.Exec(w.new, "shop", made...)
	w.takenAlong(t, w.new, w.old, "rollback", "later", "old")
	w.wantPhase("rolled_back", "old")

	// The same from old, which serves again.
	made = []string{
		"CREATE ROLE later_still LOGIN", "CREATE TABLE third (k int PRIMARY KEY, v text)", "INSERT INTO third SELECT g, 'v' || g FROM generate_series(1, 1000) g",
		"CREATE INDEX third_v ON third (v)", "GRANT SELECT ON third TO later_still", "DROP FUNCTION twice(int)",
	}
	w.Exec(w.old, "shop", made...)
	w.takenAlong(t, w.old, w.new, "cutover", "third", "new")
	report := writer.Stop()
	w.Judge(w.new.Conninfo("shop"), w.old.Conninfo("shop"), report)
	w.equal()
	w.do(0, "finish", "--yes")
}

// takenAlong crosses, when the table has been made on from: closed gate,
// prepare, prepare again, and the crossing.
func (w *world) takenAlong(t *testing.T, from, to *lab.Cluster, crossing, table, lacks string) {
	t.Helper()
	r := w.do(0, "verify", "--json")
	if said := tableOf(r, "public."+table); !strings.Contains(fmt.Sprint(said["skipped"]), "crossfade prepare") {
		t.Errorf("verify says of %s, which is on one side only, %v", table, said)
	}
	if said := w.said(); !says(said, []string{"gate links", table, "crossfade prepare"}) {
		t.Errorf("the gate does not name %s and what to do\n%s", table, said)
	}
	// Killed at each step, and gone on with from elsewhere.
	for _, step := range []string{"later/shop", "globals", "changes/shop", "schema/shop", "publications/shop", "copy/shop", "constraints/shop", "fence/shop", "compare/shop", "subscriptions/shop", "catchup/shop", "later-done/shop"} {
		if all() || step == "copy/shop" || step == "subscriptions/shop" || step == "later-done/shop" {
			w.killed(step, "prepare")
			w.elsewhere()
		}
	}
	w.do(0, "prepare")
	w.idle("prepare")
	w.Exec(from, "shop", "UPDATE "+table+" SET v = 'changed' WHERE k <= 10", "INSERT INTO "+table+" VALUES (0, 'last')")
	r = w.do(0, "verify", "--json")
	if said := tableOf(r, "public."+table); said["rows"] != 1001.0 || said["equal"] != true {
		t.Errorf("verify says of %s, which %s has by now, %v", table, lacks, said)
	}
	w.do(0, crossing, "--yes")
	if got := w.Value(to, "shop", "SELECT count(*) || ' ' || count(*) FILTER (WHERE v = 'changed') FROM "+table); got != "1001 10" {
		t.Errorf("%s has %s rows", table, got)
	}
}

// tableOf is what verify said of a table.
func tableOf(r ran, name string) map[string]any {
	for _, m := range r.lines("table") {
		if m["table"] == name {
			return m
		}
	}
	return nil
}

// TestChangedSincePrepare: of what is changed on old between prepare and the
// cutover, what is not carried closes gate contents with what to do, and all else
// closes a gate until prepare has taken it along: afterwards the cutover begins,
// and both sides are equal.
func TestChangedSincePrepare(t *testing.T) {
	w := newWorld(t, setting{extra: "accept: [function-rights]\n", cutover: "  max_blocked: 30s\n", sql: shopTables + `
		CREATE ROLE carl; GRANT pg_read_all_data TO carl; CREATE ROLE bob LOGIN SUPERUSER PASSWORD 'bob'; ALTER ROLE bob SET work_mem = '8MB'; CREATE ROLE gone;
		CREATE FUNCTION answer(n int) RETURNS int LANGUAGE sql AS 'SELECT 1';
		CREATE FUNCTION dropped() RETURNS int LANGUAGE sql AS 'SELECT 1';
		COMMENT ON TABLE orders IS 'before'; CREATE INDEX log_at ON log (at); GRANT SELECT ON log TO carl;
		ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO carl; CREATE VIEW seen AS SELECT 1 AS one;
		CREATE TABLE renamed (k int PRIMARY KEY, v text); INSERT INTO renamed VALUES (1, 'before');
		CREATE TABLE left_one (k int PRIMARY KEY, v text); CREATE TABLE right_one (k int PRIMARY KEY, v text);
		INSERT INTO left_one VALUES (1, 'left'); INSERT INTO right_one VALUES (1, 'right');` + beforePrepare})
	w.do(0, "prepare")

	w.Exec(w.old, "shop", "SELECT lo_from_bytea(4711, 'hello')", "CREATE UNLOGGED TABLE scratch (k int)", "SELECT pg_create_logical_replication_slot('theirs', 'pgoutput')")
	w.Exec(w.old, "", "CREATE DATABASE beside")
	said := w.said()
	for _, words := range [][]string{
		{"gate contents", "large objects", "accept: [large-objects]"},
		{"gate contents", "public.scratch is unlogged", "SET LOGGED"},
		{"gate contents", "slot theirs was made", "logical-slots:theirs"},
		{"gate contents", "database beside was made", "database-left:beside"},
	} {
		if !says(said, words) {
			t.Errorf("status does not say %q:\n%s", words, said)
		}
	}
	w.Exec(w.old, "shop", "SELECT lo_unlink(4711)", "DROP TABLE scratch", "SELECT pg_drop_replication_slot('theirs')")
	w.Exec(w.old, "", "DROP DATABASE beside")

	w.Exec(w.old, "shop",
		"REVOKE pg_read_all_data FROM carl", "ALTER ROLE bob NOSUPERUSER NOLOGIN", "ALTER ROLE bob RESET work_mem", "DROP ROLE gone",
		"CREATE OR REPLACE FUNCTION answer(n int) RETURNS int LANGUAGE sql AS 'SELECT 2'", "DROP FUNCTION dropped()",
		"COMMENT ON TABLE orders IS NULL", "COMMENT ON COLUMN orders.what IS 'since'", "DROP INDEX log_at", "CREATE INDEX log_both ON log (line, at)",
		"REVOKE SELECT ON log FROM carl", "GRANT INSERT ON log TO carl", "ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM carl",
		"CREATE OR REPLACE VIEW seen AS SELECT 2 AS one, 3 AS two", "ALTER TABLE orders ADD CONSTRAINT positive CHECK (id > 0)",
		"ALTER TABLE log ADD COLUMN x int, ADD COLUMN y text DEFAULT 'since' NOT NULL", "ALTER TABLE lines ALTER COLUMN price SET DEFAULT 1",
		"CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'", "CREATE TRIGGER nothing AFTER INSERT ON log FOR EACH ROW EXECUTE FUNCTION nothing()",
		"ALTER TABLE renamed RENAME TO has_another_name", "INSERT INTO has_another_name VALUES (2, 'since')",
		"BEGIN; ALTER TABLE left_one RENAME TO between; ALTER TABLE right_one RENAME TO left_one; ALTER TABLE between RENAME TO right_one; COMMIT",
		"INSERT INTO left_one VALUES (2, 'right')")
	w.Exec(w.old, "shop", sincePrepare...)
	said = w.said()
	for _, words := range [][]string{{"gate trust", "public.renamed was renamed to public.has_another_name", "crossfade prepare"}, {"gate schema", "crossfade prepare"}} {
		if !says(said, words) {
			t.Errorf("status does not say %q:\n%s", words, said)
		}
	}
	w.do(0, "prepare")
	if a, b := w.around(w.old), w.around(w.new); a != b {
		t.Errorf("roles and databases:\nold %s\nnew %s", a, b)
	}
	w.do(0, "cutover", "--yes")
	const thief = "SELECT count(*) FROM pg_namespace WHERE nspname = 'thief'"
	const roles = "SELECT string_agg(rolname || ' ' || rolsuper || ' ' || rolcanlogin, ', ' ORDER BY rolname) FROM pg_roles WHERE rolname IN ('bob', 'carl', 'gone')"
	if got := w.Value(w.new, "", roles); got != "bob false false, carl false false" {
		t.Errorf("roles on new: %s", got)
	}
	if got := w.Value(w.old, "shop", thief) + w.Value(w.new, "shop", thief); got != "00" {
		t.Errorf("a function of mallory ran as superuser: %s", got)
	}
	const kept = "SELECT count(*) FROM pg_auth_members WHERE member = 'carl'::regrole UNION ALL SELECT count(*) FROM pg_db_role_setting WHERE setrole = 'bob'::regrole"
	if got := w.Value(w.new, "", "SELECT sum(count) FROM ("+kept+") k"); got != "0" {
		t.Errorf("%s memberships and settings are left on new", got)
	}
	const rows = "SELECT (SELECT string_agg(v, ' ' ORDER BY k) FROM left_one) || ', ' || (SELECT string_agg(v, ' ' ORDER BY k) FROM right_one) || ', ' || (SELECT string_agg(v, ' ' ORDER BY k) FROM has_another_name)"
	if got := w.Value(w.new, "shop", rows); got != "right right, left, before since" {
		t.Errorf("rows on new: %s", got)
	}
	w.equal()
}

// beforePrepare is what sincePrepare changes, moves and drops: something of every
// kind that is taken along, where there is no table to be copied for it.
const beforePrepare = `
	CREATE ROLE dora PASSWORD 'dora' CONNECTION LIMIT 5; CREATE ROLE ella; GRANT carl TO ella; COMMENT ON ROLE dora IS 'before'; GRANT SET ON PARAMETER log_duration TO ella;
	CREATE SCHEMA there; CREATE TABLE moved (k int PRIMARY KEY, v text); CREATE TABLE moved_too (k int PRIMARY KEY);
	CREATE FUNCTION aging() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
	CREATE PROCEDURE proc() LANGUAGE sql AS 'SELECT 1'; CREATE PROCEDURE proc_gone() LANGUAGE sql AS 'SELECT 1';
	CREATE RULE ruled AS ON UPDATE TO moved DO ALSO NOTHING; CREATE RULE rule_gone AS ON DELETE TO moved DO ALSO NOTHING;
	CREATE POLICY changing ON moved USING (k > 0); CREATE POLICY policy_gone ON moved USING (true);
	CREATE TRIGGER aging BEFORE INSERT ON moved FOR EACH ROW EXECUTE FUNCTION aging(); CREATE TRIGGER aging_gone BEFORE UPDATE ON moved FOR EACH ROW EXECUTE FUNCTION aging();
	CREATE INDEX moved_v ON moved (v); ALTER TABLE moved ADD CONSTRAINT short CHECK (length(v) < 10), ADD COLUMN gone int, ADD COLUMN lax int NOT NULL DEFAULT 1;
	CREATE VIEW view_gone AS SELECT 1 AS one; CREATE MATERIALIZED VIEW mat_gone AS SELECT 1 AS one;
	CREATE AGGREGATE sum_gone(int) (sfunc = int4pl, stype = int); CREATE DOMAIN domain_gone AS int; CREATE COLLATION collation_gone FROM "C";
	CREATE FUNCTION minus(int, int) RETURNS int LANGUAGE sql AS 'SELECT $1 - $2'; CREATE OPERATOR <-> (leftarg = int, rightarg = int, function = minus);
	CREATE TYPE pair AS (a int, b int); CREATE FUNCTION pair_text(pair) RETURNS text LANGUAGE sql AS $$SELECT 'pair'$$; CREATE CAST (pair AS text) WITH FUNCTION pair_text(pair);
	CREATE TEXT SEARCH CONFIGURATION search_gone (COPY = simple); CREATE STATISTICS stats_gone ON k, v FROM moved;
	CREATE FOREIGN DATA WRAPPER wrapper_gone; CREATE SERVER server_gone FOREIGN DATA WRAPPER wrapper_gone; CREATE FOREIGN TABLE foreign_gone (k int) SERVER server_gone;
	CREATE ROLE mallory; CREATE TABLE stolen (k int PRIMARY KEY); INSERT INTO stolen VALUES (1); ALTER TABLE stolen OWNER TO mallory;
	CREATE FUNCTION make_thief() RETURNS int LANGUAGE plpgsql AS $$BEGIN CREATE SCHEMA thief; RETURN 1; EXCEPTION WHEN insufficient_privilege THEN RETURN 1; END$$; ALTER FUNCTION make_thief OWNER TO mallory;
	CREATE FUNCTION steal(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN public.make_thief(); END$$; ALTER FUNCTION steal OWNER TO mallory;
	CREATE DOMAIN loot AS int CHECK (steal(VALUE) > 0); ALTER DOMAIN loot OWNER TO mallory;
	COMMENT ON VIEW view_gone IS 'goes with it'; COMMENT ON FUNCTION aging() IS 'before';
`

var sincePrepare = []string{
	"ALTER ROLE dora PASSWORD 'another' CONNECTION LIMIT 7 VALID UNTIL '2030-01-01 00:00:00+00'", "COMMENT ON ROLE dora IS 'since'", "REVOKE carl FROM ella", "GRANT dora TO ella",
	"REVOKE SET ON PARAMETER log_duration FROM ella", "GRANT SET ON PARAMETER log_statement TO ella", "ALTER ROLE ella IN DATABASE shop SET work_mem = '7MB'", "CREATE ROLE made LOGIN PASSWORD 'made'", "COMMENT ON ROLE made IS 'made'",
	"ALTER DATABASE shop CONNECTION LIMIT 50", "COMMENT ON DATABASE shop IS 'since'", "ALTER DATABASE shop SET statement_timeout = '1h'", "GRANT CREATE ON DATABASE shop TO ella",
	"CREATE SCHEMA made AUTHORIZATION ella", "ALTER TABLE moved SET SCHEMA there", "ALTER TABLE moved_too SET SCHEMA made", "INSERT INTO there.moved (k, v) VALUES (1, 'moved')", "INSERT INTO made.moved_too VALUES (1)",
	"CREATE OR REPLACE PROCEDURE proc() LANGUAGE sql AS 'SELECT 2'", "DROP PROCEDURE proc_gone()", "CREATE OR REPLACE RULE ruled AS ON UPDATE TO there.moved WHERE old.k > 5 DO ALSO NOTHING", "DROP RULE rule_gone ON there.moved",
	"ALTER POLICY changing ON there.moved USING (k > 1)", "DROP POLICY policy_gone ON there.moved", "DROP TRIGGER aging ON there.moved", "CREATE TRIGGER aging AFTER INSERT ON there.moved FOR EACH ROW EXECUTE FUNCTION aging()", "DROP TRIGGER aging_gone ON there.moved",
	"DROP INDEX there.moved_v", "CREATE INDEX moved_v ON there.moved (v DESC)", "ALTER TABLE there.moved DROP CONSTRAINT short, ADD CONSTRAINT short CHECK (length(v) < 20), DROP COLUMN gone, ALTER lax DROP NOT NULL, ALTER lax DROP DEFAULT, ADD COLUMN twice int GENERATED ALWAYS AS (k * 2) STORED",
	"DROP VIEW view_gone", "DROP MATERIALIZED VIEW mat_gone", "DROP AGGREGATE sum_gone(int)", "DROP DOMAIN domain_gone", "DROP COLLATION collation_gone", "DROP OPERATOR <-> (int, int)", "DROP CAST (pair AS text)",
	"DROP TEXT SEARCH CONFIGURATION search_gone", "DROP STATISTICS stats_gone", "DROP FOREIGN TABLE foreign_gone", "DROP SERVER server_gone", "DROP FOREIGN DATA WRAPPER wrapper_gone", "COMMENT ON FUNCTION aging() IS 'since'",
	// What an ordinary role makes does not run with the tool's rights.
	"SET ROLE mallory; ALTER TABLE stolen ADD CHECK (steal(k) > 0), ADD COLUMN gen int GENERATED ALWAYS AS (steal(k)) STORED, ADD COLUMN loot loot; ALTER TABLE stolen ADD COLUMN def int DEFAULT steal(1); RESET ROLE",
	"CREATE TYPE made.mood AS ENUM ('good', 'bad')", "CREATE DOMAIN made.positive AS int CHECK (VALUE > 0)", "CREATE SEQUENCE made.numbers START 7", "CREATE EXTENSION pg_trgm SCHEMA made", "CREATE VIEW made.view AS SELECT 1 AS one",
	"CREATE POLICY made ON log USING (true)", "CREATE RULE made AS ON DELETE TO log DO ALSO NOTHING", "COMMENT ON SCHEMA made IS 'made'", "CREATE PROCEDURE made.proc() LANGUAGE sql AS 'SELECT 1'", "CREATE AGGREGATE made.sums(int) (sfunc = int4pl, stype = int)",
}

// around is what pg_dumpall says of the roles, and of the database shop, of a cluster,
// without the settings of the links, which are the tool's role's.
func (w *world) around(c *lab.Cluster) string {
	w.t.Helper()
	out, err := w.new.Command(w.t.Context(), "pg_dumpall", "--globals-only", "-d", c.Conninfo("postgres")).Output()
	w.Must(err)
	var lines []string
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "--") && !strings.Contains(line, "restrict") && strings.TrimSpace(line) != "" {
			lines = append(lines, grantor.ReplaceAllString(line, ""))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "") + w.Value(c, "shop", `
		SELECT concat_ws(' ', datconnlimit, pg_get_userbyid(datdba), array(SELECT a::text FROM unnest(datacl) a ORDER BY 1)::text, shobj_description(d.oid, 'pg_database'),
		  array(SELECT s FROM pg_db_role_setting r, unnest(setconfig) s WHERE setdatabase = d.oid AND setrole <> 'postgres'::regrole AND s !~ '^default_transaction_read_only' ORDER BY 1)::text)
		FROM pg_database d WHERE datname = 'shop'`)
}

// grantor is what 16 and later say of memberships, and earlier ones do not.
var grantor = regexp.MustCompile(` WITH (ADMIN|INHERIT) [^;]*| GRANTED BY \w+`)
