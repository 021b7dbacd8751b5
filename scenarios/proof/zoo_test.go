package proof

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"crossfade/scenarios/lab"
)

// psql loads a script of scenarios into a database of a cluster.
func (w *world) psql(c *lab.Cluster, script, database string) {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join("..", script))
	w.Must(err)
	_, err = c.Psql(w.t.Context(), database, string(b))
	w.Must(err)
}

// reference makes a database of new by the script that made old's, with what old's
// major knows, and without the lines that name others' functions. pg_dump itself fails
// with names that are key words in the new major alone.
func (w *world) reference(script string, major int, others *regexp.Regexp) {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join("..", script))
	w.Must(err)
	var lines strings.Builder
	for line := range strings.Lines(strings.ReplaceAll(string(b), "current_setting('server_version_num')::int", fmt.Sprint(major*10000))) {
		if !others.MatchString(line) {
			lines.WriteString(line)
		}
	}
	w.Exec(w.new, "", "CREATE DATABASE reference TEMPLATE template0")
	_, err = w.new.Psql(w.t.Context(), "reference", lines.String())
	w.Must(err)
}

// parts are what pg_dump of new's major says of a database, but rows and what is
// crossfade's, by how often it says so.
func (w *world) parts(c *lab.Cluster, database string) map[string]int {
	w.t.Helper()
	text, err := w.Run(w.t.Context(), filepath.Join(w.new.Bin, "pg_dump"), "--schema-only", "--no-publications", "--no-subscriptions", "--exclude-schema=crossfade", "-d", c.Conninfo(database))
	w.Must(err)
	parts := map[string]int{}
	for _, p := range strings.Split(named.ReplaceAllString(dumpNoise.ReplaceAllString(text, ""), "NOT NULL"), "\n\n") {
		if p = strings.TrimSpace(p); p != "" && !strings.Contains(p, "crossfade") {
			parts[p]++
		}
	}
	return parts
}

var dumpNoise = regexp.MustCompile(`(?m)^(\\(un)?restrict .*|SET default_tablespace = '';|SET default_table_access_method = heap;|--.*|ALTER .* SET \(pg_attver=\d+\);)\n`)

// sameDump wants two dumps to say the same, but for what other says no.
func (w *world) sameDump(what string, got, want map[string]int, other func(string) bool) {
	w.t.Helper()
	for p, n := range want {
		if got[p] != n && !other(p) {
			w.t.Errorf("%s lacks:\n%s", what, p)
		}
	}
	for p, n := range got {
		if want[p] != n && !other(p) {
			w.t.Errorf("%s has besides:\n%s", what, p)
		}
	}
}

// grown are functions of others whose arguments the new major changed: pg_dump
// gives their privileges to nobody.
var grown = regexp.MustCompile(`\b(pg_stat_statements_reset|pg_create_logical_replication_slot)\(`)

// notUTF8 is a database without an encoding, with bytes in names, comments and rows
// that are not UTF-8.
const notUTF8 = `DO $do$ BEGIN
  EXECUTE format('CREATE TABLE %1$I (id int PRIMARY KEY, %2$I text); COMMENT ON TABLE %1$I IS %3$L; INSERT INTO %1$I VALUES (1, %3$L)', E't\351', E'\340', E'd\351j\340');
END $do$`

// TestZoo takes an object of every kind that PostgreSQL knows, with every optional
// part and without, and named by key words of one major only, from check to finish, and
// back meanwhile where there is time. What new has then is what the script makes there.
func TestZoo(t *testing.T) {
	pairs := [][2]int{{15, 18}}
	if all() {
		pairs = append(pairs, [2]int{13, 18}, [2]int{15, 17}, [2]int{17, 18})
	}
	for _, p := range pairs {
		t.Run(fmt.Sprintf("%d to %d", p[0], p[1]), func(t *testing.T) {
			dbs := "  - name: shop\n    identity: {zoo.identity_nothing: full, zoo.nothing_table: full}\n  - name: bytes\n"
			if p[0] >= 15 {
				dbs += "  - name: german\n"
			}
			w := newWorld(t, setting{
				old: p[0], new: p[1], sql: "SELECT", dbs: dbs, extra: "accept: [large-objects, \"unlogged:zoo.unlogged\"]\n",
				oldSet: map[string]string{"shared_preload_libraries": "pg_stat_statements"},
				newSet: map[string]string{"shared_preload_libraries": "pg_stat_statements"},
			})
			w.psql(w.old, "zoo.sql", "shop")
			w.Exec(w.old, "", "CREATE DATABASE bytes TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'")
			w.Exec(w.old, "bytes", notUTF8)
			if p[0] >= 15 {
				w.Exec(w.old, "", "CREATE DATABASE german TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'de_DE@colNumeric=yes' LOCALE 'C.UTF-8'")
				w.Exec(w.old, "german", "CREATE TABLE words (word text PRIMARY KEY)", "INSERT INTO words VALUES ('a10'), ('a9')")
			}
			stood := w.parts(w.old, "shop")
			w.do(0, "check", "--restore")
			w.do(0, "prepare")
			w.do(0, "cutover", "--yes")
			if all() {
				w.do(0, "rollback", "--yes")
				w.do(0, "prepare")
				w.do(0, "cutover", "--yes")
			}
			w.do(0, "finish", "--yes")
			w.Until(w.new, "bytes", `SELECT obj_description(oid, 'pg_class') = E'd\351j\340' FROM pg_class WHERE relname = E't\351'::name`)
			w.Exec(w.new, "bytes", `DO $do$ DECLARE n int; BEGIN
				EXECUTE format('SELECT count(*) FROM %I WHERE %I = %L', E't\351', E'\340', E'd\351j\340') INTO n;
				ASSERT n = 1;
			END $do$`)
			w.reference("zoo.sql", p[0], grown)
			want, got := w.parts(w.new, "reference"), w.parts(w.new, "shop")
			w.sameDump("new", got, want, func(p string) bool { return grown.MatchString(p) || strings.Contains(p, "public.ledger") })
			w.sameDump("old", w.parts(w.old, "shop"), stood, func(string) bool { return false })
			w.Until(w.new, "shop", `SELECT bool_and(has_function_privilege('zoo_user', oid, 'EXECUTE')) AND count(*) = 2 FROM pg_proc
				WHERE proname IN ('pg_stat_statements_reset', 'pg_create_logical_replication_slot')`)
			w.Until(w.new, "shop", `SELECT count(*) = 1 FROM pg_constraint WHERE conrelid = 'zoo.born_valid'::regclass AND conname = 'unproven' AND convalidated`)
		})
	}
}
