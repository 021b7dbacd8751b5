package proof

import (
	"fmt"
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
	w := newWorld(t, setting{})
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
	w.do(0, "prepare")
	w.do(0, "prepare")
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
