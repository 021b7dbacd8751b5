package proof

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// abortSteps are the steps of abort where new has no standbys.
var abortSteps = []string{"forward/drop", "back/drop", "settings/back/old", "settings/back/new", "identity/back", "unmake", "unfence/new", "unfence/old", "ground/drop/new", "ground/drop/old"}

// standing is what a database that new has, too, holds on old: something of every
// kind that cannot go with its database, and privileges on what the server brings.
const standing = `
CREATE SCHEMA own AUTHORIZATION app; ALTER SCHEMA public OWNER TO app;
CREATE TYPE own.mood AS ENUM ('fine', 'bad'); CREATE DOMAIN own.few AS int CHECK (VALUE < 10); CREATE TYPE own.pair AS (a int, b own.few); CREATE TYPE own.span AS RANGE (subtype = int);
CREATE TABLE own."Odd one" (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, m own.mood, f own.few, "Json" text); INSERT INTO own."Odd one" (m, f) VALUES ('fine', 1);
CREATE TABLE own.parts (k int PRIMARY KEY) PARTITION BY RANGE (k); CREATE TABLE own.parts_1 PARTITION OF own.parts FOR VALUES FROM (0) TO (9);
CREATE VIEW own.seen AS SELECT id FROM own."Odd one"; CREATE MATERIALIZED VIEW own.kept AS SELECT id FROM own."Odd one"; CREATE SEQUENCE own.numbers;
CREATE FUNCTION own.minus(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 - $2'; CREATE PROCEDURE own.does() LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE own.total(int) (sfunc = int4pl, stype = int); CREATE OPERATOR own.<-> (leftarg = int, rightarg = int, function = own.minus);
CREATE FUNCTION own.pair_text(own.pair) RETURNS text LANGUAGE sql AS $$SELECT 'pair'$$; CREATE CAST (own.pair AS text) WITH FUNCTION own.pair_text(own.pair);
CREATE OPERATOR FAMILY own.orders USING btree; CREATE OPERATOR CLASS own.ints FOR TYPE int USING btree FAMILY own.orders AS OPERATOR 1 <, OPERATOR 3 =, FUNCTION 1 btint4cmp(int, int);
CREATE COLLATION own.plain FROM "C"; CREATE TEXT SEARCH CONFIGURATION own.words (COPY = simple); CREATE TEXT SEARCH DICTIONARY own.dict (TEMPLATE = simple);
CREATE CONVERSION own.latin FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE FUNCTION own.ran() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER ran ON ddl_command_end EXECUTE FUNCTION own.ran();
ALTER EVENT TRIGGER ran DISABLE; CREATE PUBLICATION theirs FOR TABLE own."Odd one";
CREATE EXTENSION hstore SCHEMA own; CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw; CREATE USER MAPPING FOR app SERVER far;
GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO app; GRANT SELECT ON own."Odd one" TO twin; ALTER DEFAULT PRIVILEGES FOR ROLE twin IN SCHEMA own GRANT SELECT ON TABLES TO app;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO twin;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_reload_conf() TO app WITH GRANT OPTION; REVOKE EXECUTE ON FUNCTION pg_catalog.pg_sleep(double precision) FROM PUBLIC;
GRANT SELECT ON pg_catalog.pg_authid TO twin; REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC; GRANT USAGE ON LANGUAGE plpgsql TO app; REVOKE CREATE ON SCHEMA public FROM app;
`

// aboutRoles is what old has outside of databases; twin is on new, too, with less.
var aboutRoles = []string{
	"CREATE ROLE twin LOGIN CREATEDB CONNECTION LIMIT 7 VALID UNTIL '2030-01-01'", "GRANT pg_monitor TO twin WITH ADMIN OPTION", "COMMENT ON ROLE twin IS 'of old'", "ALTER ROLE twin SET work_mem = '5MB'",
	"CREATE ROLE group_of", "GRANT group_of TO app, twin", "GRANT SET ON PARAMETER log_duration TO app", "GRANT ALTER SYSTEM ON PARAMETER work_mem TO twin", "ALTER ROLE ALL SET lock_timeout = '9s'",
	"ALTER ROLE app IN DATABASE postgres SET DateStyle = 'German'", "ALTER DATABASE postgres SET work_mem = '6MB'", "COMMENT ON DATABASE postgres IS 'of old'",
	"REVOKE TEMPORARY ON DATABASE postgres FROM PUBLIC", "GRANT CREATE ON DATABASE postgres TO twin", "ALTER DATABASE postgres CONNECTION LIMIT 77",
}

// TestAbort: whatever prepare could make by the moment at which it ends, abort
// takes away again, from elsewhere, killed in its own middle too: old and new are
// what they were, with databases and roles that new had before, and where the
// language of the fence is not there.
func TestAbort(t *testing.T) {
	long(t)
	w := newWorld(t, setting{
		sql: killTables + `
			CREATE SCHEMA api; CREATE SCHEMA cache;
			DO $$ BEGIN FOR i IN 1..12 LOOP EXECUTE format('CREATE TABLE api.t%s (a int); CREATE UNLOGGED TABLE cache.c%s (k int PRIMARY KEY)', i, i); END LOOP; END $$;
			CREATE TABLE api.keyed (k int PRIMARY KEY); CREATE TABLE api.indexed (k int NOT NULL, l int); CREATE UNIQUE INDEX by_k ON api.indexed (k);
			ALTER TABLE api.indexed REPLICA IDENTITY USING INDEX by_k; INSERT INTO api.t1 VALUES (1);
			GRANT EXECUTE ON FUNCTION pg_catalog.pg_reload_conf() TO app`,
		dbs:   "  - name: shop\n    sets: 2\n  - {name: side}\n  - {name: bare}\n  - {name: postgres}\n",
		extra: "accept: [function-rights]\n",
	})
	w.Exec(w.old, "", aboutRoles...)
	w.Exec(w.new, "", "CREATE ROLE twin CONNECTION LIMIT 3 VALID UNTIL '2029-01-01'", "COMMENT ON ROLE twin IS 'of new'", "ALTER ROLE twin SET work_mem = '4MB'")
	w.Exec(w.old, "", "CREATE DATABASE bare")
	w.Exec(w.old, "bare", "CREATE TABLE kept (k int PRIMARY KEY)", "DROP EXTENSION plpgsql")
	w.Exec(w.old, "postgres", standing)
	w.Exec(w.old, "side", "CREATE EXTENSION hstore", "CREATE TABLE mine (k int PRIMARY KEY)", "ALTER EXTENSION hstore ADD TABLE mine")
	sides := []*cluster{w.old, w.new}
	var stood []string
	stands := func() {
		stood = []string{w.footprint(w.old), w.footprint(w.new)}
	}
	asBefore := func(when string) {
		w.t.Helper()
		for i, c := range sides {
			if d := diff(stood[i], w.footprint(c)); d != "" {
				w.t.Errorf("%s: %s, - before, + after:\n%s", when, []string{"old", "new"}[i], d)
			}
		}
	}
	stands()

	w.part("found before anything is made", func(t *testing.T) {
		r := w.do(3, "check", "--json")
		grouped := func(id, objects string, n int) {
			t.Helper()
			var of []map[string]any
			for _, f := range r.lines("finding") {
				if f["id"] == id && f["on"] == "old" && f["database"] == "shop" {
					of = append(of, f)
				}
			}
			if len(of) != 1 || of[0]["level"] != "block" || len(listed(of[0])) != n || !strings.HasPrefix(listed(of[0])[0], objects) {
				t.Errorf("%s: wanted one finding of %d objects: %v", id, n, of)
			}
		}
		grouped("replica-identity", "api.t", 12)
		grouped("unlogged", "cache.c", 12)
		for id, object := range map[string]string{"plpgsql-missing": "plpgsql", "extension-members": "public.mine"} {
			if f := r.finding(id, "old", object); f == nil || f["level"] != "block" || f["acceptable"] != false {
				t.Errorf("%s: %v", id, f)
			}
		}
		w.do(3, "prepare")
		w.do(0, "abort", "--yes")
		asBefore("prepare was refused")
		// What it prints fixes it, and patterns in the runbook stand for all of them.
		for id, object := range map[string]string{"plpgsql-missing": "plpgsql", "extension-members": "public.mine"} {
			f := r.finding(id, "old", object)
			for line := range strings.Lines(fmt.Sprint(f["fix"])) {
				if line = strings.TrimSpace(line); strings.HasSuffix(line, ";") {
					w.Exec(w.old, fmt.Sprint(f["database"]), line)
				}
			}
		}
		w.runbookLine("    sets: 2\n", "    sets: 2\n    identity: {\"api.*\": full}\n")
		w.runbookLine("accept: [", "accept: [\"unlogged:cache.*\", ")
		r = w.do(0, "check", "--json")
		for _, f := range r.lines("finding") {
			switch f["id"] {
			case "replica-identity":
				t.Errorf("ordered by a pattern: %v", f)
			case "unlogged":
				if f["accepted"] != true || len(listed(f)) != 12 {
					t.Errorf("accepted by a pattern: %v", f)
				}
			}
		}
		stands()
	})

	steps, home := w.steps("prepare"), w.dir
	begun, cut := map[string]bool{}, map[string]bool{}
	w.part("killed at each step", func(t *testing.T) {
		for i, step := range some(steps, "copy/shop", "fence/postgres") {
			if step == "check" || !slices.Contains(steps, step) {
				continue
			}
			kill := "CROSSFADE_KILL=" + step
			if step == "globals" || strings.HasPrefix(step, "schema/") || strings.HasPrefix(step, "copy/") {
				kill += fmt.Sprintf("+%s", time.Duration(20+i)*time.Millisecond)
			}
			r := w.inject(kill, "prepare")
			wantExit(t, r, -1, 0)
			begun[step] = r.exit == -1
			w.elsewhere()
			at := abortSteps[i%len(abortSteps)]
			// Where prepare has made nothing of the kind, abort has no such step.
			r = w.inject("CROSSFADE_KILL="+at, "abort", "--yes")
			wantExit(t, r, -1, 0)
			cut[at] = cut[at] || r.exit == -1
			if r.exit == 0 {
				asBefore("killed at " + step)
				w.elsewhere()
				continue
			}
			w.elsewhere()
			if !w.takes(w.old) {
				t.Errorf("abort killed at %s: old takes no writes", at)
			}
			said := w.do(0, "abort", "--yes")
			asBefore("killed at " + step + ", abort at " + at)
			if !strings.Contains(said.stdout, "new: nothing of this upgrade is left") {
				t.Errorf("killed at %s: abort says\n%s", step, said)
			}
			w.elsewhere()
		}
		if len(begun) < 2 || !cut["unmake"] {
			t.Errorf("killed at %v alone, abort at %v", begun, cut)
		}
	})

	w.dir = home // the other machines are gone with their part

	w.part("from ready", func(t *testing.T) {
		w.do(0, "prepare")
		if got := w.Value(w.old, "shop", "SELECT string_agg(relreplident::text, '' ORDER BY relname) FROM pg_class WHERE relnamespace = 'api'::regnamespace AND relkind = 'r'"); got != "id"+strings.Repeat("f", 12) {
			t.Errorf("replica identities: %s", got)
		}
		w.Exec(w.old, "shop", "CREATE TABLE api.late (a int)")
		w.Exec(w.old, "", "ALTER ROLE twin SET work_mem = '7MB'", "CREATE ROLE late_one", "GRANT late_one TO twin")
		w.do(0, "prepare")
		// The language of the fence goes, and with it what is written in it.
		w.Exec(w.old, "bare", "DROP EXTENSION plpgsql CASCADE")
		w.Exec(w.new, "bare", "BEGIN READ WRITE; DROP EXTENSION plpgsql CASCADE; COMMIT")
		// Something that nobody made through the upgrade needs a role that it made.
		w.Exec(w.new, "template1", "CREATE TABLE theirs (k int)", "ALTER TABLE theirs OWNER TO app")
		said := w.do(0, "abort", "--yes")
		if !strings.Contains(said.stdout, "still there") || !strings.Contains(said.stdout, "role app") || strings.Contains(said.stdout, "new: nothing of this upgrade is left") {
			t.Errorf("a role that owns something of somebody's: abort says\n%s", said)
		}
		w.idle("abort", "--yes")
		w.Exec(w.new, "template1", "DROP TABLE theirs")
		w.Exec(w.new, "", "DROP ROLE app")
		w.Exec(w.old, "shop", "DROP TABLE api.late")
		w.Exec(w.old, "", "ALTER ROLE twin SET work_mem = '5MB'", "DROP ROLE late_one")
		w.Exec(w.old, "bare", "CREATE EXTENSION plpgsql")
		asBefore("from ready")
	})

	w.part("what somebody made since stays, and what it needs", func(t *testing.T) {
		w.do(0, "prepare")
		w.Exec(w.new, "postgres", `BEGIN READ WRITE; CREATE TABLE public.theirs (f own.few); CREATE VIEW public.seen AS SELECT id FROM own."Odd one"; CREATE ROLE theirs; CREATE TABLE public.of_app (k int); ALTER TABLE public.of_app OWNER TO app; COMMIT`)
		said := w.do(0, "abort", "--yes")
		for _, stays := range []string{`table own."Odd one" (needed by view public.seen)`, "type own.few (needed by table public.theirs)", "schema own (needed by ", "role app"} {
			if !strings.Contains(said.stdout, stays) {
				t.Errorf("%s is not said to be there yet\n%s", stays, said)
			}
		}
		for _, goes := range []string{"sequence own.numbers", "view own.seen", "table own.parts"} {
			if strings.Contains(said.stdout, goes) {
				t.Errorf("%s is said to be there yet\n%s", goes, said)
			}
		}
		if got := w.Value(w.new, "postgres", `SELECT (SELECT count(*) FROM public.seen) || ' ' || (SELECT count(*) FROM public.theirs) || ' ' || (SELECT count(*) FROM public.of_app) || ' ' || (SELECT count(*) FROM pg_class WHERE relname IN ('parts', 'kept', 'numbers'))`); got != "1 0 0 0" {
			t.Errorf("what is there: %s", got)
		}
		w.Exec(w.new, "postgres", "DROP VIEW public.seen; DROP TABLE public.theirs, public.of_app; DROP SCHEMA own CASCADE; DROP OWNED BY app CASCADE; DROP ROLE app; DROP ROLE theirs")
		asBefore("what stayed is dropped")
	})
}
