package proof

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// TestTablesMadeSincePrepare: the gate names them, prepare run again takes
// them along, and the cutover then finds them on new. The tool has made the
// sets, and keeps to them.
func TestTablesMadeSincePrepare(t *testing.T) {
	long(t)
	w := newWorld(t, setting{dbs: "  - name: shop\n    sets: 3\n  - {name: side}\n"})
	writer := w.Write(w.old.Conninfo("shop"), lab.WriterOptions{Writers: 2, Pause: 2 * time.Millisecond})
	w.do(0, "prepare")
	const published = `SELECT string_agg(p.pubname || ' ' || r.prrelid::regclass, ', ' ORDER BY 1) FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
		WHERE starts_with(p.pubname, 'cf_up_shop_set') AND r.prrelid::regclass::text !~ 'canary'`
	sets := w.Value(w.old, "shop", published)
	for _, tied := range [][2]string{{"orders", "lines"}, {"parts_1", "parts_2"}} {
		const together = `SELECT count(DISTINCT p.pubname) || ' of ' || count(*) FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
			WHERE starts_with(p.pubname, 'cf_up_shop_set') AND r.prrelid IN ('%s'::regclass, '%s'::regclass)`
		if got := w.Value(w.old, "shop", fmt.Sprintf(together, tied[0], tied[1])); got != "1 of 2" {
			t.Errorf("%s and %s are in %s sets: %s", tied[0], tied[1], got, sets)
		}
	}
	if got := w.Value(w.old, "shop", "SELECT count(*) FROM pg_publication WHERE pubname ~ '^cf_up_shop_set[123]$'"); got != "3" {
		t.Errorf("%s sets: %s", got, sets)
	}
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
	if got := w.Value(w.old, "shop", published); got != sets {
		t.Errorf("the sets were %s, and are %s", sets, got)
	}
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
