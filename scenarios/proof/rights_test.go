package proof

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"crossfade/scenarios/lab"

	"github.com/jackc/pgx/v5"
)

// payload is what an ordinary role puts into its functions: it leaves whatever
// role it is called as, makes itself a superuser by every way that there is, and
// writes into the server's log with whose rights it ran.
const payload = `
CREATE FUNCTION payload(tag text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE sql text;
BEGIN
  FOREACH sql IN ARRAY ARRAY['RESET SESSION AUTHORIZATION', 'RESET ROLE', 'SET ROLE NONE',
    format('DECLARE %I CURSOR WITH HOLD FOR SELECT public.held(%L)', 'held_' || tag, tag), 'ALTER ROLE mallory SUPERUSER',
    format('CREATE ROLE %I SUPERUSER', 'evil_' || tag), 'GRANT pg_read_server_files TO mallory'] LOOP
    BEGIN
      EXECUTE sql;
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
  END LOOP;
  RAISE LOG 'payload [%] as [%] of [%] super [%]', tag, current_user, session_user, current_setting('is_superuser');
END $$;
CREATE FUNCTION held(tag text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$ BEGIN EXECUTE format('CREATE ROLE %I SUPERUSER', 'evil_held_' || tag); EXCEPTION WHEN OTHERS THEN NULL; END $$;
CREATE FUNCTION f(tag text, v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM public.payload(tag); RETURN v; END $$;
CREATE FUNCTION ok(tag text, v int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM public.payload(tag); RETURN true; END $$;
CREATE FUNCTION fires() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.payload('trigger'); RETURN NEW; END $$;
`

// vectors are ways by which a server calls a role's function without being asked,
// each in a table of the tag's name.
const vectors = `
CREATE TABLE v_check (a int PRIMARY KEY, CHECK (ok('check', a)));
CREATE TABLE v_apart (a int PRIMARY KEY);
CREATE FUNCTION whole(v v_apart) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM public.payload('apart'); RETURN true; END $$;
ALTER TABLE v_apart ADD CONSTRAINT whole CHECK (whole(v_apart));
CREATE FUNCTION same(int, int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM public.payload('operator'); RETURN true; END $$;
CREATE OPERATOR === (FUNCTION = same, LEFTARG = int, RIGHTARG = int);
CREATE TABLE v_operator (a int PRIMARY KEY, CHECK (a === 1));
CREATE DOMAIN d_plain AS int CONSTRAINT plain CHECK (ok('domain', VALUE));
COMMENT ON CONSTRAINT plain ON DOMAIN d_plain IS 'looked at';
CREATE DOMAIN d_over AS d_plain;
CREATE TABLE v_domain (a int PRIMARY KEY, p d_plain, o d_over);
CREATE FUNCTION inside(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM public.payload('inside'); RETURN true; END $$;
CREATE DOMAIN d_inside AS int CHECK (inside(VALUE));
CREATE TYPE d_row AS (x d_inside, y int);
CREATE TABLE v_inside (a int PRIMARY KEY, l d_inside[], r d_row);
CREATE TABLE v_generated (a int PRIMARY KEY, g int GENERATED ALWAYS AS (f('generated', a)) STORED);
CREATE TABLE v_part (a int NOT NULL) PARTITION BY RANGE (f('partition', a));
CREATE TABLE v_part_1 PARTITION OF v_part (PRIMARY KEY (a)) FOR VALUES FROM (0) TO (1000000);
CREATE TABLE v_bound (a d_plain PRIMARY KEY) PARTITION BY RANGE (a);
CREATE TABLE v_bound_1 PARTITION OF v_bound FOR VALUES FROM (0) TO (1000000);
CREATE TABLE v_index (a int PRIMARY KEY, b int);
CREATE INDEX ON v_index (f('index', a));
CREATE INDEX ON v_index (b) WHERE ok('predicate', b);
ALTER TABLE v_index ADD EXCLUDE USING btree (f('exclusion', a) WITH =);
CREATE TABLE v_fold (a int PRIMARY KEY, b int);
CREATE INDEX ON v_fold ((f('fold', 1) + a));
CREATE FUNCTION inlined(int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT public.f('inlined', 1) + $1 $$;
CREATE INDEX ON v_fold (inlined(b));
CREATE STATISTICS v_stat ON (f('statistics', 1) + a), b FROM v_fold;
CREATE TABLE v_default (a int PRIMARY KEY, b int DEFAULT f('default', 1));
CREATE TABLE v_trigger (a int PRIMARY KEY);
CREATE TRIGGER fires BEFORE INSERT OR UPDATE ON v_trigger FOR EACH ROW EXECUTE FUNCTION fires();
ALTER TABLE v_trigger ENABLE ALWAYS TRIGGER fires;
CREATE TABLE v_rule (a int PRIMARY KEY);
CREATE RULE also AS ON INSERT TO v_rule DO ALSO SELECT public.payload('rule');
ALTER TABLE v_rule ENABLE ALWAYS RULE also;
CREATE TABLE v_policy (a int PRIMARY KEY);
ALTER TABLE v_policy ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON v_policy USING (ok('policy', a));
CREATE TYPE e_cast AS ENUM ('1', '2');
CREATE FUNCTION number(e_cast) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM public.payload('cast'); RETURN enum_out($1)::text::int; END $$;
CREATE CAST (e_cast AS int) WITH FUNCTION number(e_cast) AS IMPLICIT;
CREATE FUNCTION worded(e_cast) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM public.payload('words'); RETURN enum_out($1)::text; END $$;
CREATE CAST (e_cast AS text) WITH FUNCTION worded(e_cast) AS IMPLICIT;
CREATE TABLE v_key (a int PRIMARY KEY);
CREATE TABLE v_cast (a int PRIMARY KEY, e e_cast, FOREIGN KEY (e) REFERENCES v_key);
CREATE TABLE v_foreign (a int PRIMARY KEY, f int REFERENCES v_fold);
CREATE VIEW v_view AS SELECT '{1}'::d_plain[] AS l, f('view', a) FROM v_check;
CREATE MATERIALIZED VIEW v_matview AS SELECT f('matview', a) AS a FROM v_key;
CREATE FUNCTION starts_with(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM public.payload('path'); RETURN true; END $$;
CREATE FUNCTION hashtextextended(text, bigint) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN PERFORM public.payload('path'); RETURN 1; END $$;
`

// vectorTables are those that rows are written into.
var vectorTables = []string{"check", "apart", "operator", "domain", "inside", "generated", "part", "index", "fold", "default", "trigger", "rule", "policy", "key", "cast", "foreign"}

// fill writes a row into each of them on the side that serves, as an application
// that is a superuser's would: their functions run with the rights of mallory.
func (w *world) fill(c *lab.Cluster, row int) {
	w.t.Helper()
	var sql []string
	for _, name := range vectorTables {
		columns, values := "a", fmt.Sprint(row)
		switch name {
		case "domain":
			columns, values = "a, p, o", fmt.Sprintf("%d, 1, 2", row)
		case "inside":
			columns, values = "a, l, r", fmt.Sprintf("%d, '{1}', '(1,2)'", row)
		case "index", "fold":
			columns, values = "a, b", fmt.Sprintf("%d, %d", row, row)
		case "cast":
			columns, values = "a, e", fmt.Sprintf("%d, '1'", row)
		case "foreign":
			columns, values = "a, f", fmt.Sprintf("%d, %d", row, row)
		}
		sql = append(sql, fmt.Sprintf("INSERT INTO public.v_%s (%s) VALUES (%s)", name, columns, values))
	}
	w.asMallory(c, sql...)
}

// asMallory executes statements one by one in a session that mallory has logged in to.
func (w *world) asMallory(c *lab.Cluster, sql ...string) {
	w.t.Helper()
	conf, err := pgx.ParseConfig(c.Conninfo("shop", "user=mallory"))
	w.Must(err)
	conn, err := pgx.ConnectConfig(w.t.Context(), conf)
	w.Must(err)
	defer func() { w.Must(conn.Close(w.t.Context())) }()
	for _, q := range sql {
		if _, err := conn.PgConn().Exec(w.t.Context(), q).ReadAll(); err != nil {
			w.t.Fatalf("%s: %v", q, err)
		}
	}
}

// plant makes everything as mallory, and fills it.
func (w *world) plant() {
	w.t.Helper()
	w.Exec(w.old, "shop", "CREATE ROLE mallory LOGIN", "GRANT CREATE ON SCHEMA public TO mallory", "ALTER SYSTEM SET log_min_messages = 'log'", "SELECT pg_reload_conf()")
	w.Exec(w.new, "", "ALTER SYSTEM SET log_min_messages = 'log'", "SELECT pg_reload_conf()")
	w.asMallory(w.old, payload, vectors)
	w.fill(w.old, 1)
	w.fill(w.old, 2)
}

// roles are the roles of a server and what they may.
func (w *world) roles(c *lab.Cluster) string {
	w.t.Helper()
	return w.Value(c, "", `SELECT string_agg(r, ' ' ORDER BY r) FROM (
		SELECT rolname || CASE WHEN rolsuper THEN '*' ELSE '' END || coalesce((SELECT '(' || string_agg(roleid::regrole::text, ',' ORDER BY roleid) || ')' FROM pg_auth_members WHERE member = a.oid), '') AS r
		FROM pg_authid a WHERE oid >= 16384) x`)
}

// ran are the tags of the payloads that a server has run, each with the roles as
// which it did; a superuser's is a failure.
func (w *world) ranAs(c *lab.Cluster) map[string][]string {
	w.t.Helper()
	out := map[string][]string{}
	for line := range strings.Lines(c.Log()) {
		_, said, ok := strings.Cut(line, "payload [")
		if !ok {
			continue
		}
		tag, rest, _ := strings.Cut(said, "] as [")
		user, rest, ok := strings.Cut(rest, "] of [")
		if !ok {
			continue // the statement that made it
		}
		session, super, _ := strings.Cut(rest, "] super [")
		if strings.HasPrefix(super, "on") && user != "mallory" || strings.HasPrefix(user, "postgres") {
			w.t.Errorf("%s ran as %s of %s, superuser %s", tag, user, session, strings.TrimSpace(super))
		}
		if !slices.Contains(out[tag], user) {
			out[tag] = append(out[tag], user)
		}
	}
	return out
}

// innocent wants the roles of both sides as they were.
func (w *world) innocent(when, old string) {
	w.t.Helper()
	if got := w.roles(w.old); got != old {
		w.t.Fatalf("%s, roles on old: %s; they were: %s", when, got, old)
	}
	want := old
	if got := w.roles(w.new); got != want && got != "" {
		w.t.Fatalf("%s, roles on new: %s; on old: %s", when, got, want)
	}
}

const rightsDBs = "  - {name: shop}\n"

// TestFunctionRights: an ordinary role plants its function wherever a server calls
// one by itself. In the whole upgrade, and back, none of them runs with more rights
// than its owner has; that they did run, each server's log says.
func TestFunctionRights(t *testing.T) {
	w := newWorld(t, setting{old: 17, new: 18, sql: "SELECT 1", dbs: rightsDBs})
	w.plant()
	before := w.roles(w.old)
	step := func(args ...string) {
		t.Helper()
		w.do(0, args...)
		w.innocent(strings.Join(args, " "), before)
	}
	// Where PostgreSQL reads a literal of such a domain while it makes an object, no
	// other rights than the tool's can be had: check names it, and nothing ran.
	r := w.do(3, "check")
	for _, object := range []string{"partition key of table public.v_bound", "rule _RETURN on view public.v_view"} {
		if !strings.Contains(r.stdout, object) {
			t.Errorf("%s is not named\n%s", object, r)
		}
	}
	w.innocent("check", before)
	w.asMallory(w.old, "DROP TABLE v_bound", "DROP VIEW v_view", "CREATE VIEW v_view AS SELECT f('view', a) FROM v_check")
	step("check", "--restore")
	step("plan", "--sample", "1s")
	step("prepare")
	step("prepare")
	w.fill(w.old, 3)
	step("verify")
	step("cutover", "--yes")
	w.fill(w.new, 4)
	step("verify")
	step("rollback", "--yes")
	w.fill(w.old, 5)
	step("verify")
	step("cutover", "--yes")
	step("finish", "--yes")
	if got := w.Value(w.new, "shop", "SELECT count(*) || ' ' || (SELECT count(*) FROM v_domain) || ' ' || (SELECT count(*) FROM v_part) FROM v_check"); got != "5 5 5" {
		t.Errorf("rows on new: %s", got)
	}
	w.ranAs(w.old)
	ran := w.ranAs(w.new)
	for _, tag := range []string{"check", "apart", "operator", "domain", "inside", "generated", "partition", "index", "predicate", "exclusion", "fold", "inlined", "statistics", "cast", "matview"} {
		if len(ran[tag]) == 0 {
			t.Errorf("the function of %s did not run on new: nothing is proven about it (%v)", tag, ran)
		}
	}
}
