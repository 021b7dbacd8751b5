package proof

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// splitTables are two applications in one database: sales and stock, which
// share a type, an extension, a function and a sequence.
const splitTables = `
CREATE EXTENSION pg_trgm;
CREATE TYPE mood AS ENUM ('slow', 'heavy');
CREATE SEQUENCE numbers;
CREATE FUNCTION shout(t text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper(t)';
CREATE SCHEMA sales;
CREATE TABLE sales.orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text NOT NULL, how mood DEFAULT 'heavy');
CREATE TABLE sales.lines (orders_id bigint REFERENCES sales.orders, n int DEFAULT nextval('numbers'), PRIMARY KEY (orders_id, n));
CREATE INDEX orders_trgm ON sales.orders USING gin (what gin_trgm_ops);
CREATE VIEW sales.totals AS SELECT orders_id, count(*) FROM sales.lines GROUP BY 1;
CREATE MATERIALIZED VIEW sales.best AS SELECT max(id) FROM sales.orders;
CREATE FUNCTION sales.open() RETURNS SETOF sales.orders LANGUAGE sql AS 'SELECT * FROM sales.orders';
COMMENT ON TABLE sales.orders IS 'what was sold';
COMMENT ON COLUMN sales.orders.what IS 'and what it is';
CREATE SCHEMA stock;
CREATE TABLE stock.parts (k serial, v text, how mood, PRIMARY KEY (k)) PARTITION BY RANGE (k);
CREATE TABLE stock.parts_1 PARTITION OF stock.parts FOR VALUES FROM (0) TO (1000);
CREATE TABLE stock.parts_2 PARTITION OF stock.parts FOR VALUES FROM (1000) TO (20000);
CREATE TABLE stock.log (line text);
ALTER TABLE stock.log REPLICA IDENTITY FULL;
CREATE STATISTICS stock.some ON k, v FROM stock.parts;
CREATE VIEW stock.everything AS SELECT k FROM stock.parts UNION ALL SELECT n FROM sales.lines;
INSERT INTO sales.orders (what) SELECT 'order ' || g FROM generate_series(1, 1000) g;
INSERT INTO sales.lines (orders_id) SELECT id FROM sales.orders;
INSERT INTO stock.parts (v) SELECT 'part ' || g FROM generate_series(1, 1500) g;
INSERT INTO stock.log SELECT 'line ' || g FROM generate_series(1, 300) g;
REFRESH MATERIALIZED VIEW sales.best;
`

const splitSets = `  - name: shop
    sets:
      - {name: orders, tables: [sales.orders, sales.lines], to: fresh}
      - {name: sold, tables: ["sales.ledger*"], to: fresh}
      - {name: rest, tables: ["*"], to: second}
  - name: side
    sets: [{name: main, tables: ["*"], to: second}]
`

// newSplit is a world whose old is split: sales go to fresh (w.new), everything
// else to a second cluster, which it returns.
func newSplit(t testing.TB, s setting) (*world, *lab.Cluster) {
	var second *lab.Cluster
	wire := s.wire
	s.dbs, s.sql = splitSets, splitTables
	s.wire = func(w *world, s *setting) {
		second = w.Start(lab.Options{Name: "second", Major: 17, Settings: map[string]string{"wal_level": "logical", "max_replication_slots": "20", "max_wal_senders": "20", "max_worker_processes": "20", "max_logical_replication_workers": "12"}})
		s.newLines += fmt.Sprintf("  - cluster: second\n    primary: %q\n    bin: %q\n", second.Conninfo("postgres"), second.Bin)
		if wire != nil {
			wire(w, s)
		}
	}
	w := newWorld(t, s)
	for _, schema := range []string{"sales", "stock"} {
		w.Must(lab.LedgerIn(t.Context(), w.old.Conninfo("shop"), schema))
	}
	w.Exec(w.old, "shop", "DROP TABLE public.ledger, public.ledger_log")
	return w, second
}

// clusterOf is what status says of one new cluster.
func (w *world) clusterOf(name string) map[string]any {
	w.t.Helper()
	all, _ := w.status()["clusters"].([]any)
	for _, c := range all {
		if m := c.(map[string]any); m["cluster"] == name {
			return m
		}
	}
	w.t.Fatalf("status has no cluster %s: %v", name, all)
	return nil
}

func (w *world) wantCluster(name, phase, writable string) {
	w.t.Helper()
	if c := w.clusterOf(name); c["phase"] != phase || c["writable"] != writable {
		w.t.Fatalf("cluster %s: phase %v, writable %v; wanted %s and %s\n%v", name, c["phase"], c["writable"], phase, writable, c)
	}
}

// rowsOf is a digest of one schema's tables, with rows in an order of their own.
func (w *world) rowsOf(c *lab.Cluster, schema string) string {
	w.t.Helper()
	return w.Value(c, "shop", fmt.Sprintf(`SELECT string_agg(t || ': ' || (xpath('/row/c/text()', query_to_xml(format('SELECT count(*) || '' '' || coalesce(md5(string_agg(x::text, '','' ORDER BY x::text COLLATE "C")), '''') AS c FROM %%s x', t), true, true, '')))[1]::text, E'\n' ORDER BY t)
		FROM (SELECT format('%%I.%%I', schemaname, tablename) AS t FROM pg_tables WHERE schemaname = '%s') q`, schema))
}

// splitWriters write to the tables of each cluster, on old.
func (w *world) splitWriters(on *lab.Cluster, schema string) *lab.Writer {
	w.t.Helper()
	return w.Write(on.Conninfo("shop"), lab.WriterOptions{Writers: 2, Pause: 4 * time.Millisecond, Schema: schema})
}

// TestSplit: the tables of one database go to two clusters, each cut over by
// itself, with a writer on the tables of each all the time. A foreign key that
// would cross is found before.
func TestSplit(t *testing.T) {
	w, second := newSplit(t, setting{})
	w.Exec(w.old, "shop", "ALTER TABLE stock.log ADD order_id bigint REFERENCES sales.orders")
	if r := w.do(3, "check"); !strings.Contains(r.stdout, "cluster-foreign-key") || !strings.Contains(r.stdout, "log_order_id_fkey") {
		t.Errorf("the foreign key that crosses is not named\n%s", r)
	}
	w.do(3, "prepare")
	if got := w.Value(w.old, "shop", "SELECT count(*) FROM pg_namespace WHERE nspname = 'crossfade'"); got != "0" {
		t.Error("prepare has touched old, although a finding blocks")
	}
	w.Exec(w.old, "shop", "ALTER TABLE stock.log DROP order_id")
	sales, stock := w.splitWriters(w.old, "sales"), w.splitWriters(w.old, "stock")
	w.do(0, "prepare")
	w.wantPhase("ready", "old")
	w.onlyTheirs(second)

	w.do(0, "cutover", "--yes", "--cluster", "fresh")
	w.wantCluster("fresh", "open", "new")
	w.wantCluster("second", "ready", "old")
	w.wantPhase("ready", "split")
	w.closedFor(w.old, "shop", "INSERT INTO sales.orders (what) VALUES ('late')")
	if got := w.Value(w.old, "shop", "SHOW default_transaction_read_only"); got != "off" {
		t.Errorf("default_transaction_read_only is %s on old, where tables are still written", got)
	}
	w.Must(stock.Flow(t.Context(), 20))
	first := sales.Stop()
	w.Judge(w.new.Conninfo("shop"), w.old.Conninfo("shop"), first)
	sales = w.splitWriters(w.new, "sales")

	r := w.do(0, "cutover", "--yes", "--json")
	if lines := r.lines("cutover"); len(lines) != 1 || lines[0]["cluster"] != "second" {
		t.Errorf("what is open already was crossed again: %v", lines)
	}
	w.wantPhase("open", "new")
	w.Judge(w.new.Conninfo("shop"), w.old.Conninfo("shop"), first, sales.Stop())
	w.Judge(second.Conninfo("shop"), w.old.Conninfo("shop"), stock.Stop())
	w.same(w.new, "sales")
	w.same(second, "stock")
	w.closedFor(w.old, "shop", "INSERT INTO stock.log VALUES ('late')")
	if got := w.Value(w.old, "shop", "SHOW default_transaction_read_only"); got != "on" {
		t.Errorf("default_transaction_read_only is %s on old", got)
	}
}

// TestSplitHeld: after close of a part, who writes to a table that leaves waits
// until its cluster is open and is refused then; who writes to one that stays does
// not wait.
func TestSplitHeld(t *testing.T) {
	w, _ := newSplit(t, setting{cutover: "  max_blocked: 60s\n"})
	w.do(0, "prepare")
	l, wake := w.stopped("close/kept", "cutover", "--yes", "--cluster", "fresh")
	late := w.in(w.session(w.old, "shop"), "INSERT INTO sales.orders (what) VALUES ('waits')")
	w.Until(w.old, "shop", "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND wait_event = 'advisory'")
	w.Must(run(t.Context(), w.session(w.old, "shop"), "INSERT INTO stock.log VALUES ('does not wait')"))
	wake()
	wantExit(t, l.end(), 0)
	if err := <-late; state(err) != refused {
		t.Errorf("a write to a table that has left ended with %v", err)
	}
	w.wantCluster("fresh", "open", "new")
	w.wantCluster("second", "ready", "old")
}

// TestSplitAndBack: one cluster is rolled back and cut over again while the
// other stays; finish leaves old closed, and nothing on the new ones.
func TestSplitAndBack(t *testing.T) {
	long(t)
	w, second := newSplit(t, setting{})
	stock := w.splitWriters(w.old, "stock")
	w.do(0, "plan", "--html", w.dir+"/plan.html", "--md", w.dir+"/plan.md")
	w.do(0, "prepare")
	w.do(0, "verify")
	w.do(0, "rehearse", "--yes")
	w.wantPhase("ready", "old")
	w.do(0, "cutover", "--yes")
	w.wantPhase("open", "new")
	first := stock.Stop()
	w.Judge(second.Conninfo("shop"), w.old.Conninfo("shop"), first)
	stock = w.splitWriters(second, "stock")
	w.Must(stock.Flow(t.Context(), 50))
	w.do(0, "rollback", "--yes", "--cluster", "second")
	w.wantCluster("fresh", "open", "new")
	w.wantCluster("second", "rolled_back", "old")
	w.closedFor(second, "shop", "INSERT INTO stock.log VALUES ('late')")
	reports := []lab.Report{first, stock.Stop()}
	w.Judge(w.old.Conninfo("shop"), second.Conninfo("shop"), reports...)
	stock = w.splitWriters(w.old, "stock")
	w.Exec(w.new, "shop", "INSERT INTO sales.orders (what) VALUES ('on new')")
	w.closedFor(w.old, "shop", "INSERT INTO sales.orders (what) VALUES ('late')")
	w.do(4, "abort", "--yes")
	w.do(0, "cutover", "--yes", "--cluster", "second")
	w.wantPhase("open", "new")
	w.Judge(second.Conninfo("shop"), w.old.Conninfo("shop"), append(reports, stock.Stop())...)
	w.same(w.new, "sales")
	w.same(second, "stock")
	r := w.do(0, "finish", "--yes")
	for _, lift := range []string{"\\c shop", "\\c side", "DROP SCHEMA crossfade CASCADE"} {
		if !strings.Contains(r.stdout, lift) {
			t.Errorf("finish does not tell %q\n%s", lift, r)
		}
	}
	w.wantPhase("finished", "new")
	for c, name := range map[*lab.Cluster]string{w.new: "fresh", second: "second"} {
		if got := w.Value(c, "shop", "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname = 'crossfade') + (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_publication)"); got != "0" {
			t.Errorf("%s things are left on %s", got, name)
		}
	}
	w.closedFor(w.old, "shop", "INSERT INTO stock.log VALUES ('late')")
	w.closedFor(w.old, "shop", "INSERT INTO sales.orders (what) VALUES ('late')")
}

// TestSplitAborted: abort leaves nothing, also where one of the cutovers was
// killed before it was open.
func TestSplitAborted(t *testing.T) {
	long(t)
	w, second := newSplit(t, setting{})
	before := map[*lab.Cluster]string{}
	for _, c := range []*lab.Cluster{w.old, w.new, second} {
		before[c] = w.footprint(c)
	}
	w.do(0, "prepare")
	w.killed("close/kept", "cutover", "--yes")
	w.elsewhere()
	w.wantCluster("fresh", "cutover", "none")
	w.wantCluster("second", "ready", "old")
	w.Exec(w.old, "shop", "INSERT INTO stock.log VALUES ('still here')")
	w.do(0, "abort", "--yes")
	w.wantPhase("aborted", "old")
	for c, was := range before {
		if d := diff(was, w.footprint(c)); d != "" {
			t.Errorf("abort has left on %s:\n%s", c.Name, d)
		}
	}
	w.Exec(w.old, "shop", "INSERT INTO sales.orders (what) VALUES ('again')", "CREATE TABLE sales.more (k int PRIMARY KEY)", "DROP TABLE sales.more")
	w.do(0, "run")
	w.wantPhase("open", "new")
	w.same(w.new, "sales")
	w.same(second, "stock")
}

// TestSplitKilled: the cutover of one cluster is killed at the beginning of a
// step, and somebody elsewhere, without the journal, runs it again. The tables of
// the other are written on old all the time, and acknowledged rows are where
// they must be.
func TestSplitKilled(t *testing.T) {
	long(t)
	w, second := newSplit(t, setting{cutover: "  max_blocked: 3s\n"})
	w.do(0, "prepare")
	stock := w.splitWriters(w.old, "stock")
	var written []lab.Report
	for _, step := range []string{"barrier", "back/prove", "close", "close/kept", "open", "traffic/resume", "forward/drop"} {
		sales := w.splitWriters(w.old, "sales")
		w.Must(sales.Flow(t.Context(), 20))
		w.killed(step, "cutover", "--yes", "--cluster", "fresh")
		w.elsewhere()
		w.wantCluster("second", "ready", "old")
		w.Must(stock.Flow(t.Context(), 20))
		w.do(0, "cutover", "--yes", "--cluster", "fresh")
		w.wantCluster("fresh", "open", "new")
		written = append(written, sales.Stop())
		w.Judge(w.new.Conninfo("shop"), w.old.Conninfo("shop"), written...)
		sales = w.splitWriters(w.new, "sales")
		w.Must(sales.Flow(t.Context(), 20))
		w.do(0, "rollback", "--yes", "--cluster", "fresh")
		written = append(written, sales.Stop())
		w.Judge(w.old.Conninfo("shop"), w.new.Conninfo("shop"), written...)
	}
	w.do(0, "cutover", "--yes")
	w.wantPhase("open", "new")
	w.Judge(second.Conninfo("shop"), w.old.Conninfo("shop"), stock.Stop())
	w.same(w.new, "sales")
	w.same(second, "stock")
}

// onlyTheirs wants each cluster to have its tables, what they need, and nothing
// that needs the others.
func (w *world) onlyTheirs(second *lab.Cluster) {
	w.t.Helper()
	const all = `SELECT string_agg(x, ' ' ORDER BY x) FROM (
		SELECT c.oid::regclass::text x FROM pg_class c WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S') AND c.relnamespace IN ('sales'::regnamespace, 'stock'::regnamespace, 'public'::regnamespace)
		UNION SELECT typname FROM pg_type WHERE typname = 'mood' UNION SELECT extname FROM pg_extension WHERE extname = 'pg_trgm'
		UNION SELECT stxname FROM pg_statistic_ext UNION SELECT proname || '()' FROM pg_proc WHERE proname IN ('shout', 'open')) q`
	for c, want := range map[*lab.Cluster]string{
		w.new:  "mood numbers open() pg_trgm sales.best sales.ledger sales.ledger_log sales.lines sales.orders sales.orders_id_seq sales.totals shout()",
		second: "mood numbers pg_trgm shout() some stock.ledger stock.ledger_log stock.log stock.parts stock.parts_1 stock.parts_2 stock.parts_k_seq",
	} {
		if got := w.Value(c, "shop", all); got != want {
			w.t.Errorf("a cluster has %s, wanted %s", got, want)
		}
	}
	if got := w.Value(w.new, "", "SELECT count(*) FROM pg_database WHERE datname = 'side'"); got != "0" {
		w.t.Error("database side was made where none of its sets goes")
	}
}

// closedFor wants a write to be refused by the fence.
func (w *world) closedFor(c *lab.Cluster, db, sql string) {
	w.t.Helper()
	_, err := c.Query(w.t.Context(), db, "SET default_transaction_read_only = off; "+sql)
	if err == nil || !strings.Contains(err.Error(), "25006") && !strings.Contains(err.Error(), "is closed by the upgrade") {
		w.t.Errorf("%s: %v; wanted it to be refused", sql, err)
	}
}

// same wants a schema's tables to hold the same rows on old and on a new cluster.
func (w *world) same(c *lab.Cluster, schema string) {
	w.t.Helper()
	var a, b string
	for range 50 { // the way back is on its way
		if a, b = w.rowsOf(w.old, schema), w.rowsOf(c, schema); a == b {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.t.Errorf("schema %s differs: old\n%s\nnew\n%s", schema, a, b)
}
