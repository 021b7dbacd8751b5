package proof

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
	"crossfade/scenarios/lab/labtest"
)

// rowsScript asks psql for how many rows each table has, and for their hash,
// whatever the order of rows and columns: inherited columns come first in what pg_dump makes.
const rowsScript = `SELECT format('SELECT %L, count(*), coalesce(md5(string_agg(x, E''\n'' ORDER BY x COLLATE "C")), '''') FROM (SELECT ROW(%s)::text x FROM ONLY %s) s',
	format('%I.%I', n.nspname, c.relname), (SELECT string_agg(format('%I', attname), ', ' ORDER BY attname) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped), c.oid::regclass)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'crossfade')
ORDER BY n.nspname, c.relname
\gexec
`

// TestRegressionDatabase takes PostgreSQL's own regression database, as its own tests
// leave it, with their own library on either side, from check to finish, and back
// meanwhile, with writes to every table on the side that serves. What is left out, and
// why, is in regression.sql and in docs/regression.md. What new has then is what its own
// pg_dump makes of old.
func TestRegressionDatabase(t *testing.T) {
	long(t)
	const database = "regression"
	from, to := labtest.Regression(t, 15), labtest.Regression(t, 18)
	w := newWorld(t, setting{
		sql:    "SELECT",
		dbs:    "  - name: regression\n    identity: {\"*.*\": full}\n",
		extra:  "accept: [large-objects, \"unlogged:public.*\", \"owner-rights:public.datdba_only\"]\n",
		oldSet: map[string]string{"dynamic_library_path": from.Library + ":$libdir", "max_prepared_transactions": "2"},
		newSet: map[string]string{"dynamic_library_path": to.Library + ":$libdir", "max_prepared_transactions": "2"},
	})
	timed := func(what string, f func()) {
		begin := time.Now()
		f()
		t.Logf("%s: %.1f s", what, time.Since(begin).Seconds())
	}
	timed("PostgreSQL's tests", func() {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
		defer cancel()
		failed, err := from.Run(ctx, w.old, filepath.Join(w.Dir, "regress"))
		w.Must(err)
		t.Logf("tests whose output is not as expected: %v", failed)
	})
	w.psql(w.old, "regression.sql", database)
	t.Log(w.Value(w.old, database, `SELECT string_agg(format('%s of kind %s', n, relkind), ', ' ORDER BY relkind) FROM (
		SELECT relkind, count(*) n FROM pg_class WHERE oid >= 16384 AND relnamespace <> 'pg_toast'::regnamespace GROUP BY 1) k`))
	// Less than it is: then the tests have not been run.
	w.Until(w.old, database, "SELECT count(*) > 600 FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 'p')")
	stood, reference := w.parts(w.old, database), w.remade(database)
	t.Logf("%d different statements in its dump", len(stood))

	serving := w.old
	write := func() { w.psql(serving, "regression_writes.sql", database) }
	step := func(args ...string) { timed(args[0], func() { w.do(0, args...) }) }
	step("check", "--restore")
	step("prepare")
	write()
	step("verify")
	step("cutover", "--yes")
	serving = w.new
	write()
	step("rollback", "--yes")
	serving = w.old
	write()
	step("cutover", "--yes")
	w.sameRows(database)
	step("finish", "--yes")
	w.sameDump("new", w.parts(w.new, database), reference, func(string) bool { return false })
	w.sameDump("old", w.parts(w.old, database), stood, func(string) bool { return false })
}

// remade is what new's pg_dump says of a database that was made there of what it says of
// old's: the same objects in the words of the new major.
func (w *world) remade(database string) map[string]int {
	w.t.Helper()
	dump := filepath.Join(w.Dir, "reference.sql")
	pgDump := filepath.Join(w.new.Bin, "pg_dump")
	_, err := w.Run(w.t.Context(), pgDump, "--schema-only", "--no-publications", "--no-subscriptions", "-f", dump, "-d", w.old.Conninfo(database))
	w.Must(err)
	w.Exec(w.new, "", "CREATE DATABASE reference TEMPLATE template0")
	_, err = w.new.PsqlFile(w.t.Context(), "reference", dump)
	w.Must(err)
	parts := w.parts(w.new, "reference")
	w.Exec(w.new, "", "DROP DATABASE reference")
	return parts
}

// sameRows wants every table to have the same rows on both sides.
func (w *world) sameRows(database string) {
	w.t.Helper()
	var sides [2][]string
	for i, c := range []*lab.Cluster{w.old, w.new} {
		out, err := c.Psql(w.t.Context(), database, rowsScript, "-A", "-t")
		w.Must(err)
		sides[i] = strings.Split(strings.TrimSpace(out), "\n")
	}
	for _, line := range sides[0] {
		if !slices.Contains(sides[1], line) {
			w.t.Errorf("rows on old only, or other ones: %s", line)
		}
	}
	if len(sides[0]) != len(sides[1]) || len(sides[0]) < 500 {
		w.t.Errorf("%d tables on old, %d on new", len(sides[0]), len(sides[1]))
	}
	w.t.Logf("the rows of %d tables are the same", len(sides[0]))
}
