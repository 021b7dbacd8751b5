package proof

import (
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// TestTablesMadeSincePrepare: the gate names them, prepare run again takes
// them along, and the cutover then finds them on new.
func TestTablesMadeSincePrepare(t *testing.T) {
	w := newWorld(t, setting{})
	writer := w.Write(w.old.Conninfo("shop"), lab.WriterOptions{Writers: 2, Pause: 2 * time.Millisecond})
	w.do(0, "prepare")
	w.Exec(w.old, "shop", "CREATE TABLE later (k int PRIMARY KEY, v text)", "INSERT INTO later SELECT g, 'v' || g FROM generate_series(1, 1000) g",
		"CREATE TABLE parts_3 PARTITION OF parts FOR VALUES FROM (2000) TO (3000)", "INSERT INTO parts SELECT g, 'part' FROM generate_series(2000, 2999) g")
	w.runbookLine("patience: 60s", "patience: 3s")
	r := w.do(4, "cutover", "--yes")
	if !strings.Contains(r.stderr, "later") || !strings.Contains(r.stderr, "prepare") {
		t.Errorf("the gate does not name the table and what to do\n%s", r)
	}
	w.runbookLine("patience: 3s", "patience: 60s")
	w.do(0, "prepare")
	w.Exec(w.old, "shop", "UPDATE later SET v = 'changed' WHERE k <= 10")
	w.do(0, "cutover", "--yes")
	report := writer.Stop()
	if got := w.Value(w.new, "shop", "SELECT count(*) || ' ' || count(*) FILTER (WHERE v = 'changed') FROM later"); got != "1000 10" {
		t.Errorf("later has %s rows on new", got)
	}
	if got := w.Value(w.new, "shop", "SELECT count(*) FROM parts_3"); got != "1000" {
		t.Errorf("parts_3 has %s rows on new", got)
	}
	w.Judge(w.new.Conninfo("shop"), "", report)
}
