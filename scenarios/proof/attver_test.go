package proof

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// storesAttver is what a server without pg_attver refuses of a dump.
var storesAttver = regexp.MustCompile(`(?m)^ALTER TABLE ONLY .* ALTER COLUMN .* SET \(pg_attver=\d+\);\n|pg_attver=\d+, `)

// TestColumnsOfANewerMinor: servers of the minors of November 2026 store
// pg_attver in the options of every column of every new table, and pg_dump of an
// older build writes it as a statement that no server without it takes. An old
// that is newer than the new it moves to goes there, back, and there for good.
// Line: pitfall 71, exactly these statements are taken out.
func TestColumnsOfANewerMinor(t *testing.T) {
	// Of all majors, it is 17 that the lab fetches in such a minor.
	w := newWorld(t, setting{
		old: 17, new: 18,
		sql: shopTables + "ALTER TABLE orders ALTER COLUMN what SET (n_distinct = -0.5); ALTER TABLE orders ALTER COLUMN what SET STATISTICS 500;",
	})
	columns := w.Value(w.old, "shop", "SELECT count(*) FROM pg_attribute WHERE attoptions::text ~ 'pg_attver'")
	dump, err := w.new.Command(t.Context(), "pg_dump", "-s", "-d", w.old.Conninfo("shop")).Output()
	w.Must(err)
	refused := len(storesAttver.FindAll(dump, -1))
	version := w.Value(w.old, "", "SELECT version()")
	t.Logf("%s: %s columns carry pg_attver, of which new's pg_dump makes %d statements", version, columns, refused)
	if columns == "0" {
		t.Logf("this old carries no pg_attver: what follows is 17 to 18 and no more")
	}
	r := w.do(0, "check")
	if said := strings.Contains(r.stdout, "pg_attver"); said != (refused > 0) {
		t.Errorf("check tells of pg_attver: %t\n%s", said, r.stdout)
	}
	writer := w.Write(w.old.Conninfo("shop"), lab.WriterOptions{Writers: 2, Pause: 2 * time.Millisecond, Retry: 50 * time.Millisecond})
	w.do(0, "prepare")
	w.do(0, "cutover", "--yes")
	w.Judge(w.new.Conninfo("shop"), w.old.Conninfo("shop"), writer.Stop())
	w.Exec(w.new, "shop", "INSERT INTO orders (what) VALUES ('on new')", "TRUNCATE ledger, ledger_log")
	w.do(0, "rollback", "--yes")
	w.Exec(w.old, "shop", "INSERT INTO orders (what) VALUES ('on old again')")
	w.do(0, "cutover", "--yes")
	if got := w.Value(w.new, "shop", "SELECT count(*) FROM orders WHERE what LIKE 'on %'"); got != "2" {
		t.Errorf("%s of 2 orders are on new", got)
	}
	if got := w.Value(w.new, "shop", "SELECT attoptions::text || attstattarget FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = 'what'"); !strings.Contains(got, "n_distinct=-0.5") || !strings.HasSuffix(got, "500") {
		t.Errorf("what else stands in the options of a column is on new: %s", got)
	}
	for _, db := range []string{"shop", "side"} {
		if d := diff(storesAttver.ReplaceAllString(w.dump(w.old, db), ""), w.dump(w.new, db)); d != "" {
			t.Errorf("catalogs of %s, - old, + new:\n%s", db, d)
		}
	}
	w.do(0, "finish", "--yes")
	w.onlyFence()
}
