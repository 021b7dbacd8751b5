package proof

import (
	"fmt"
	"maps"
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
// each in a table of the tag's name. What an ordinary role has no way to: types with
// input and output functions, shell types and so ranges with a canonical function,
// operator classes and with them the operators of exclusion constraints, event
// triggers, and whatever takes or returns an internal or cstring (subscripting,
// estimators, conversions, transforms); collations and text search run no function.
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
CREATE TABLE v_full (a int, b int);
ALTER TABLE v_full REPLICA IDENTITY FULL;
CREATE INDEX ON v_full (b, (f('full', 1) + a));
CREATE FUNCTION apart(int, int) RETURNS float8 LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM public.payload('range'); RETURN $1 - $2; END $$;
CREATE TYPE d_range AS RANGE (subtype = int, subtype_diff = apart);
CREATE TABLE v_range (a int PRIMARY KEY, r d_range);
CREATE INDEX ON v_range USING gist (r);
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
CREATE TABLE v_parted (a int PRIMARY KEY, e e_cast, FOREIGN KEY (e) REFERENCES v_key) PARTITION BY RANGE (a);
CREATE TABLE v_parted_1 PARTITION OF v_parted FOR VALUES FROM (0) TO (1000000);
CREATE VIEW v_view AS SELECT '{1}'::d_plain[] AS l, f('view', a) FROM v_check;
CREATE MATERIALIZED VIEW v_matview AS SELECT f('matview', a) AS a FROM v_key;
CREATE INDEX ON v_matview ((f('matindex', 1) + a));
CREATE FUNCTION starts_with(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM public.payload('path'); RETURN true; END $$;
CREATE FUNCTION hashtextextended(text, bigint) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN PERFORM public.payload('path'); RETURN 1; END $$;
`

// expressions are those that only 14 and later have.
const expressions = `CREATE STATISTICS v_stat ON (f('statistics', 1) + a), b FROM v_fold`

// lent is what mallory makes for others to use, and does no harm yet.
const lent = `
CREATE FUNCTION g(tag text, v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN v; END $$;
CREATE FUNCTION gok(tag text, v int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN true; END $$;
CREATE FUNCTION gfires() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE DOMAIN d_lent AS int CHECK (gok('lent', VALUE));
CREATE TABLE v_lent (a int PRIMARY KEY);
CREATE INDEX ON v_lent ((g('lentfold', 1) + a));
CREATE VIEW v_lentview AS SELECT g('lentview', a) AS a FROM v_lent;
INSERT INTO v_lent VALUES (1);
`

// supers is what a superuser makes of it.
const supers = `
CREATE TABLE s_check (a int PRIMARY KEY, CHECK (gok('s_check', a)));
CREATE TABLE s_default (a int PRIMARY KEY, b int DEFAULT g('s_default', 1));
CREATE TABLE s_generated (a int PRIMARY KEY, g int GENERATED ALWAYS AS (g('s_generated', a)) STORED);
CREATE TABLE s_index (a int PRIMARY KEY, b int);
CREATE INDEX ON s_index (g('s_index', a));
CREATE TABLE s_predicate (a int PRIMARY KEY, b int);
CREATE INDEX ON s_predicate (b) WHERE gok('s_predicate', b);
CREATE TABLE s_exclusion (a int PRIMARY KEY, EXCLUDE USING btree (g('s_exclusion', a) WITH =));
CREATE TABLE s_part (a int NOT NULL) PARTITION BY RANGE (g('s_part', a));
CREATE TABLE s_part_1 PARTITION OF s_part (PRIMARY KEY (a)) FOR VALUES FROM (0) TO (1000000);
CREATE TABLE s_trigger (a int PRIMARY KEY);
CREATE TRIGGER fires BEFORE INSERT ON s_trigger FOR EACH ROW EXECUTE FUNCTION gfires();
ALTER TABLE s_trigger ENABLE ALWAYS TRIGGER fires;
CREATE TABLE s_lent (a int PRIMARY KEY, d d_lent);
CREATE DOMAIN s_domain AS int CONSTRAINT s_domain CHECK (gok('s_domain', VALUE));
CREATE TABLE s_foreign (a int PRIMARY KEY REFERENCES v_lent);
INSERT INTO s_check VALUES (1); INSERT INTO s_default VALUES (1); INSERT INTO s_generated VALUES (1); INSERT INTO s_index VALUES (1, 1);
INSERT INTO s_predicate VALUES (1, 1); INSERT INTO s_exclusion VALUES (1); INSERT INTO s_part VALUES (1); INSERT INTO s_trigger VALUES (1);
INSERT INTO s_lent VALUES (1, 1); INSERT INTO s_foreign VALUES (1);
CREATE MATERIALIZED VIEW s_query AS SELECT g('s_query', a) AS a FROM v_lent;
CREATE MATERIALIZED VIEW s_view AS SELECT * FROM v_lentview;
CREATE MATERIALIZED VIEW s_plans AS SELECT a FROM v_lent;
CREATE MATERIALIZED VIEW s_indexed AS SELECT 1 AS a;
CREATE INDEX ON s_indexed (g('s_indexed', a));
`

// lentBack is made by mallory of what the superuser has made.
const lentBack = `CREATE TABLE v_back (a int PRIMARY KEY, d s_domain); INSERT INTO v_back VALUES (1, 1);`

// superStatistics is as expressions.
const superStatistics = `CREATE TABLE s_statistics (a int PRIMARY KEY, b int); CREATE STATISTICS s_statistics ON (g('s_statistics', 1) + a), b FROM s_statistics`

// harm is what mallory makes of lent afterwards.
const harm = `
CREATE OR REPLACE FUNCTION g(tag text, v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM public.payload(tag); RETURN v; END $$;
CREATE OR REPLACE FUNCTION gok(tag text, v int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM public.payload(tag); RETURN true; END $$;
CREATE OR REPLACE FUNCTION gfires() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.payload('s_trigger'); RETURN NEW; END $$;
`

// superObjects are all of them by the kind of what is dropped.
var superObjects = map[string][]string{
	"TABLE":             {"s_check", "s_default", "s_generated", "s_index", "s_predicate", "s_exclusion", "s_part", "s_trigger", "s_lent", "s_foreign"},
	"MATERIALIZED VIEW": {"s_query", "s_view", "s_plans", "s_indexed"},
	"DOMAIN":            {"s_domain"},
}

// vectorTables are those that rows are written into.
var vectorTables = []string{"check", "apart", "operator", "domain", "inside", "generated", "part", "index", "fold", "full", "range", "default", "trigger", "rule", "policy", "key", "cast", "foreign", "parted"}

// applied are those whose functions run where a row is applied, by the tags of the
// functions.
var applied = []string{"check", "apart", "operator", "domain", "inside", "generated", "part", "index", "fold", "full", "range", "default", "trigger"}

// rightsWorld is a world with vectors, less those that were dropped.
type rightsWorld struct {
	*world
	old, new int
	tables   []string
	roles    string // of old, as they were
}

// fill writes a row into each table on the side that serves, as an application
// that is a superuser's would: their functions run with the rights of mallory.
func (w *rightsWorld) fill(c *lab.Cluster, row int) {
	w.t.Helper()
	var sql []string
	for _, name := range w.tables {
		columns, values := "a", fmt.Sprint(row)
		switch name {
		case "domain":
			columns, values = "a, p, o", fmt.Sprintf("%d, 1, 2", row)
		case "inside":
			columns, values = "a, l, r", fmt.Sprintf("%d, '{1}', '(1,2)'", row)
		case "index", "fold", "full":
			columns, values = "a, b", fmt.Sprintf("%d, %d", row, row)
		case "range":
			columns, values = "a, r", fmt.Sprintf("%d, '[1,5)'", row)
		case "cast", "parted":
			columns, values = "a, e", fmt.Sprintf("%d, '1'", row)
		case "foreign":
			columns, values = "a, f", fmt.Sprintf("%d, %d", row, row)
		}
		sql = append(sql, fmt.Sprintf("INSERT INTO public.v_%s (%s) VALUES (%s)", name, columns, values), fmt.Sprintf("UPDATE public.v_%s SET a = a WHERE a = %d", name, row))
	}
	w.asMallory(c, "shop", sql...)
}

// drop takes vectors away, with what needs them.
func (w *rightsWorld) drop(names ...string) {
	w.t.Helper()
	for _, name := range names {
		w.Exec(w.world.old, "shop", "DROP TABLE v_"+name+" CASCADE")
	}
	w.tables = slices.DeleteFunc(w.tables, func(name string) bool { return slices.Contains(names, name) })
}

// step runs a command and wants roles as they were.
func (w *rightsWorld) step(exit int, args ...string) ran {
	w.t.Helper()
	r := w.do(exit, args...)
	w.innocent(strings.Join(args, " "), w.roles)
	return r
}

// asMallory executes statements one by one in a session that mallory has logged in to.
func (w *world) asMallory(c *lab.Cluster, database string, sql ...string) {
	w.t.Helper()
	for _, q := range sql {
		if err := w.tryMallory(c, database, q); err != nil {
			w.t.Fatalf("%s: %v", q, err)
		}
	}
}

func (w *world) tryMallory(c *lab.Cluster, database, sql string) error {
	w.t.Helper()
	conf, err := pgx.ParseConfig(c.Conninfo(database, "user=mallory"))
	w.Must(err)
	conn, err := pgx.ConnectConfig(w.t.Context(), conf)
	w.Must(err)
	defer func() { w.Must(conn.Close(w.t.Context())) }()
	_, err = conn.PgConn().Exec(w.t.Context(), sql).ReadAll()
	return err
}

// plant makes everything as mallory, and fills it. In database trusted nothing does
// harm.
func (w *rightsWorld) plant() {
	w.t.Helper()
	old := w.world.old
	w.Exec(old, "", "CREATE ROLE mallory LOGIN", "CREATE DATABASE trusted", "ALTER SYSTEM SET log_min_messages = 'log'", "SELECT pg_reload_conf()")
	w.Exec(w.world.new, "", "ALTER SYSTEM SET log_min_messages = 'log'", "SELECT pg_reload_conf()")
	for _, database := range []string{"shop", "trusted"} {
		w.Exec(old, database, "GRANT CREATE ON SCHEMA public TO mallory")
		w.asMallory(old, database, lent)
		w.Exec(old, database, supers, "CREATE TABLE s_later (a int PRIMARY KEY)", "INSERT INTO s_later VALUES (1)")
		if w.old >= 14 {
			w.Exec(old, database, superStatistics)
		}
		w.asMallory(old, database, lentBack)
	}
	w.asMallory(old, "shop", payload, vectors)
	if w.old >= 14 {
		w.asMallory(old, "shop", expressions)
	}
	w.asMallory(old, "shop", harm)
	w.fill(old, 1)
	w.fill(old, 2)
	w.roles = w.world.roles(old)
}

// calls are the tables and the objects that findings about functions name on a side.
func (r ran) calls(on string) map[string]bool {
	all := map[string]bool{}
	for _, f := range r.lines("finding") {
		table, _ := f["table"].(map[string]any)
		rows, _ := table["rows"].([]any)
		for _, row := range rows {
			if cells, ok := row.([]any); ok && f["id"] == "function-rights" && f["on"] == on && f["database"] == "shop" {
				all[fmt.Sprint(cells[2])], all[fmt.Sprint(cells[3])] = true, true
			}
		}
	}
	return all
}

// names wants check to name objects on a side.
func (r ran) names(t *testing.T, on string, objects ...string) {
	t.Helper()
	calls := r.calls(on)
	for _, o := range objects {
		if !calls[o] {
			t.Errorf("%s is not named on %s: %v", o, on, slices.Sorted(maps.Keys(calls)))
		}
	}
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

// TestFunctionRights: an ordinary role plants its function wherever a server calls
// one by itself. In the whole upgrade, and back, none of them runs with more rights
// than its owner has; that they did run, each server's log says. Where PostgreSQL
// gives them more, check names them before anything is touched.
func TestFunctionRights(t *testing.T) {
	for _, pair := range [][2]int{{17, 18}, {13, 15}, {13, 18}, {15, 18}, {15, 17}} {
		t.Run(fmt.Sprintf("%d to %d", pair[0], pair[1]), func(t *testing.T) {
			if pair != [2]int{17, 18} && pair != [2]int{13, 15} {
				long(t)
			}
			functionRights(t, pair[0], pair[1])
		})
	}
}

func functionRights(t *testing.T, old, new int) {
	w := &rightsWorld{old: old, new: new, tables: slices.Clone(vectorTables)}
	s := setting{old: old, new: new, sql: "SELECT 1", dbs: "  - {name: shop}\n"}
	if new == 18 && old == 17 { // what is accepted goes its way
		s.dbs, s.extra = s.dbs+"  - {name: trusted}\n", "accept: [\"function-rights:trusted\"]\n"
	}
	w.world = newWorld(t, s)
	w.plant()
	w.refused()
	back := old > 15 || new <= 15
	if !back {
		w.runbookLine("cutover:\n", "cutover:\n  back: false\n")
	}
	w.step(0, "check", "--restore")
	w.step(0, "plan", "--sample", "1s")
	w.step(0, "prepare")
	w.step(0, "prepare")
	w.beside()
	w.fill(w.world.old, 3)
	w.step(0, "verify")
	w.later(w.world.old)
	w.step(0, "cutover", "--yes")
	w.fill(w.world.new, 4)
	rows := 4
	if back {
		rows = 5
		w.step(0, "verify")
		w.later(w.world.new)
		w.step(0, "rollback", "--yes")
		w.fill(w.world.old, 5)
		w.step(0, "verify")
		w.step(0, "cutover", "--yes")
	}
	w.step(0, "finish", "--yes")
	w.ranAs(w.world.old)
	ran := w.ranAs(w.world.new)
	// Only now: these queries run functions themselves.
	for _, name := range w.tables {
		if got := w.Value(w.world.new, "shop", "SELECT count(*) FROM v_"+name); got != fmt.Sprint(rows) {
			t.Errorf("rows of v_%s on new: %s", name, got)
		}
	}
	tags := []string{"matview", "cast"}
	if new > 15 {
		tags = append(tags, "check", "apart", "operator", "domain", "inside", "generated", "partition", "index", "predicate", "exclusion", "fold", "inlined", "matindex", "later")
		if old >= 14 {
			tags = append(tags, "statistics")
		}
	}
	for _, tag := range tags {
		if len(ran[tag]) == 0 {
			t.Errorf("the function of %s did not run on new: nothing is proven about it (%v)", tag, ran)
		}
	}
}

// refused wants check to name what PostgreSQL would run with more rights, and
// nothing to run then; it takes away what is named.
func (w *rightsWorld) refused() {
	t := w.t.(*testing.T)
	t.Helper()
	r := w.step(3, "check", "--json")
	// Where PostgreSQL reads a literal of such a domain while it makes an object, no
	// other rights than the tool's can be had.
	r.names(t, "old", "partition key of table public.v_bound", "rule _RETURN on view public.v_view")
	for _, names := range superObjects {
		for _, name := range names {
			r.names(t, "old", "public."+name)
		}
	}
	if w.old >= 14 {
		r.names(t, "old", "public.s_statistics")
	}
	var drop []string
	for on, major := range map[string]int{"old": w.old, "new": w.new} {
		switch {
		case major <= 15:
			for _, name := range applied {
				r.names(t, on, "public.v_"+name)
			}
			if on == "new" {
				drop = append(drop, "foreign")
				drop = append(drop, applied...)
			}
		case major <= 17:
			r.names(t, on, "public.v_full")
			drop = append(drop, "full")
		case r.calls(on)["public.v_full"]:
			t.Errorf("v_full is named on %s", on)
		}
	}
	if w.new < 18 {
		r.names(t, "old", "public.v_parted")
		drop = append(drop, "parted")
	}
	w.step(3, "prepare")
	w.step(3, "check", "--restore")
	if ran := w.ranAs(w.world.new); len(ran) > 0 {
		t.Errorf("these ran on new: %v", ran)
	}
	w.asMallory(w.world.old, "shop", "DROP TABLE v_bound", "DROP VIEW v_view", "CREATE VIEW v_view AS SELECT f('view', a) FROM v_key")
	for _, kind := range []string{"MATERIALIZED VIEW", "TABLE", "DOMAIN"} {
		w.Exec(w.world.old, "shop", "DROP "+kind+" "+strings.Join(superObjects[kind], ", ")+" CASCADE")
	}
	w.Exec(w.world.old, "shop", "DROP TABLE v_back", "DROP TABLE IF EXISTS s_statistics")
	if w.new <= 15 {
		w.Exec(w.world.old, "shop", "DROP TABLE v_lent CASCADE")
	}
	slices.Sort(drop)
	w.drop(slices.Compact(drop)...)
}

// beside has mallory put an index on a table of new, which old does not have. What
// reads the table runs it with mallory's rights; where what applies rows would not,
// it is refused.
func (w *rightsWorld) beside() {
	w.t.Helper()
	create := "BEGIN READ WRITE; CREATE INDEX beside ON v_key ((f('beside', 1) + a)); COMMIT"
	if w.new <= 15 {
		if err := w.tryMallory(w.world.new, "shop", create); state(err) != refused {
			w.t.Errorf("%s on new: %v", create, err)
		}
		return
	}
	w.asMallory(w.world.new, "shop", create)
	w.step(0, "verify")
	w.asMallory(w.world.new, "shop", "BEGIN READ WRITE; DROP INDEX beside; COMMIT")
}

// later has a superuser and mallory change their tables on the side that serves.
func (w *rightsWorld) later(serving *lab.Cluster) {
	w.t.Helper()
	const harmless = "CREATE OR REPLACE FUNCTION h(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN v; END $$"
	does, undoes := "ADD COLUMN b int DEFAULT h(1)", "DROP COLUMN b"
	if serving == w.world.new {
		does, undoes = "ADD CONSTRAINT s_later_check CHECK (h(a) > 0)", "DROP CONSTRAINT s_later_check"
	}
	w.asMallory(serving, "shop", harmless)
	w.Exec(serving, "shop", "ALTER TABLE s_later "+does)
	w.asMallory(serving, "shop", strings.Replace(harmless, "BEGIN", "BEGIN PERFORM public.payload('s_later');", 1))
	w.step(3, "prepare")
	w.Exec(serving, "shop", "ALTER TABLE s_later "+undoes)
	if w.new > 15 && serving == w.world.old {
		w.asMallory(serving, "shop", "ALTER TABLE v_key ADD COLUMN later int DEFAULT f('later', 1)")
	}
	w.step(0, "prepare")
	w.step(0, "verify")
}
