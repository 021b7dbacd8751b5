package proof

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// seenLimit is how long status may take to see what was done by hand.
const seenLimit = 10 * time.Second

const anyExit = -100

// handmade is something that somebody does by hand while the upgrade is ready.
type handmade struct {
	name string
	old  []string // in database shop of old
	new  []string // in database shop of new, each in a transaction of its own
	// seen are words of what status says of it, in one gate, link or note.
	seen []string
	// open: no gate is closed by it, because nothing is missing.
	open bool
	// cutover is its exit code meanwhile; 0: 4, a gate is closed.
	cutover int
	// exit of prepare run right away; 0: it puts things right. anyExit: it may
	// meet a worker that fails in a moment when it lives.
	exit int
	// mendOld and mendNew fix it before prepare is run again, where that exits with
	// another code; where it exits with 0, they alone open the gate.
	mendOld, mendNew []string
	quick            bool // one of the few that make test does
}

// handmades are in an order in which each leaves the world as it found it.
var handmades = []handmade{
	{
		name: "a column is added on old", old: []string{"ALTER TABLE log ADD COLUMN x int"}, seen: []string{"schema", "public.log.x is on old only", "crossfade prepare"}, quick: true,
	},
	{
		name: "a column is dropped on new", new: []string{"ALTER TABLE log DROP COLUMN x"}, seen: []string{"schema", "public.log.x is on old only"}, exit: 1,
		mendOld: []string{"ALTER TABLE log DROP COLUMN x"},
	},
	{name: "an index is made on old", old: []string{"CREATE INDEX byline ON log (line)"}, seen: []string{"schema", "public.byline is on old only"}},
	{name: "an index is dropped on old", old: []string{"DROP INDEX byline"}, seen: []string{"schema", "public.byline is on new only", "crossfade prepare"}},
	{
		name: "a replica identity is changed", old: []string{"ALTER TABLE orders REPLICA IDENTITY NOTHING"}, seen: []string{"schema", "public.orders: replica identity"}, exit: 3,
		mendOld: []string{"ALTER TABLE orders REPLICA IDENTITY DEFAULT"},
	},
	{
		name: "a type is changed", old: []string{"ALTER TABLE log ALTER line TYPE varchar(500)"}, seen: []string{"schema", "public.log.line", "crossfade prepare"}, exit: 1,
		mendNew: []string{"ALTER TABLE log ALTER line TYPE varchar(500)"},
	},
	{
		name: "a column is computed row by row", old: []string{"ALTER TABLE orders ADD COLUMN r double precision DEFAULT random()"}, seen: []string{"schema", "public.orders.r is on old only"}, exit: 1,
		mendNew: []string{"ALTER TABLE orders ADD COLUMN r double precision DEFAULT random()"}, mendOld: []string{"UPDATE orders SET r = r"},
	},
	{name: "a type is made", old: []string{"CREATE TYPE mood AS ENUM ('good')"}, seen: []string{"schema", "public.mood", "crossfade prepare"}},
	{
		name: "a value is added to a type", old: []string{"ALTER TYPE mood ADD VALUE 'bad'"}, seen: []string{"schema", "public.mood"}, exit: 1,
		mendNew: []string{"ALTER TYPE mood ADD VALUE 'bad'"},
	},
	{
		name: "a sequence is changed", old: []string{"ALTER SEQUENCE free_numbers INCREMENT 2"}, seen: []string{"schema", "public.free_numbers"}, exit: 1,
		mendNew: []string{"ALTER SEQUENCE free_numbers INCREMENT 2"},
	},
	{name: "a role is made", old: []string{"CREATE ROLE late LOGIN"}, seen: []string{"schema", "role late", "crossfade prepare"}},
	{name: "a right is granted", old: []string{"GRANT SELECT ON log TO late"}, seen: []string{"schema", "public.log: privileges", "crossfade prepare"}},
	{name: "a table is made", old: []string{"CREATE TABLE later (k int PRIMARY KEY)", "INSERT INTO later VALUES (1)"}, seen: []string{"links", "public.later", "crossfade prepare"}},
	{name: "a partition is made", old: []string{"CREATE TABLE parts_3 PARTITION OF parts FOR VALUES FROM (2000) TO (3000)", "INSERT INTO parts VALUES (2001, 'x')"}, seen: []string{"links", "public.parts_3", "crossfade prepare"}},
	{
		name: "a transaction is prepared", old: []string{"BEGIN; INSERT INTO log (line) VALUES ('prepared'); PREPARE TRANSACTION 'theirs'"}, seen: []string{"closing", "theirs"},
		cutover: 5, exit: 3, // it holds a lock that the fence waits for, and keeps slots from being made
		mendOld: []string{"COMMIT PREPARED 'theirs'"},
	},
	{
		name: "a subscription of somebody else applies on old", old: []string{"CREATE SUBSCRIPTION theirs CONNECTION 'host=127.0.0.1 port=1 dbname=theirs' PUBLICATION theirs WITH (connect = false, slot_name = 'theirs')", "ALTER SUBSCRIPTION theirs ENABLE"},
		seen: []string{"closing", "theirs"}, mendOld: []string{"ALTER SUBSCRIPTION theirs DISABLE", "ALTER SUBSCRIPTION theirs SET (slot_name = NONE)", "DROP SUBSCRIPTION theirs"},
	},
	{name: "a table is truncated on old", old: []string{"TRUNCATE later"}, open: true},
	{name: "a table is dropped on old", old: []string{"DROP TABLE later"}, seen: []string{"trust", "public.later was dropped on old", "on new, too"}, exit: 1, mendNew: []string{"DROP TABLE later"}},
	{
		name: "a table is dropped on new", new: []string{"DROP TABLE parts_3"}, seen: []string{"trust", "public.parts_3 is not on new any more"}, exit: 1,
		mendOld: []string{"DROP TABLE parts_3"},
	},
	{name: "a client writes on new", new: []string{"!INSERT INTO log (line) VALUES ('on new')", "!TRUNCATE log"}, seen: []string{"notes", "new has refused 2 writes"}, open: true, quick: true},
	{name: "the fence is taken off a table of new", new: []string{"ALTER TABLE log DISABLE TRIGGER ALL"}, seen: []string{"trust", "the fence is off", "log", "crossfade prepare"}},
	{
		name: "rows come past the fence of new", new: []string{"ALTER TABLE log DISABLE TRIGGER ALL", "INSERT INTO log (line) VALUES ('strange')"}, seen: []string{"trust", "the fence is off", "log"}, exit: 7,
		mendNew: []string{"SET LOCAL session_replication_role = replica; DELETE FROM log WHERE line = 'strange'"},
	},
	{
		name: "a row of new blocks the link", new: []string{"SET LOCAL session_replication_role = replica; INSERT INTO orders (id, what) OVERRIDING SYSTEM VALUE SELECT max(id) + 1, 'on new' FROM orders"},
		old: []string{"INSERT INTO orders (what) VALUES ('collides')"}, seen: []string{"links", "cf_up_shop_orders does not apply", "the log of new", "pg_drop_replication_slot"}, exit: anyExit,
		mendNew: []string{"SET LOCAL session_replication_role = replica; DELETE FROM orders WHERE what = 'on new'"},
	},
	{name: "a subscription is disabled", new: []string{"ALTER SUBSCRIPTION cf_up_shop_orders DISABLE"}, seen: []string{"links", "cf_up_shop_orders is stopped", `ALTER SUBSCRIPTION "cf_up_shop_orders" ENABLE on new`}},
	{
		name: "a subscription is dropped", new: []string{"ALTER SUBSCRIPTION cf_up_shop_orders DISABLE", "ALTER SUBSCRIPTION cf_up_shop_orders SET (slot_name = NONE)", "DROP SUBSCRIPTION cf_up_shop_orders"},
		seen: []string{"links", "cf_up_shop_orders has no subscription", "copies its tables again"},
	},
	{
		name: "a slot is dropped", new: []string{"ALTER SUBSCRIPTION cf_up_shop_rest DISABLE"}, old: []string{"~SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'cf_up_shop_rest'", "SELECT pg_drop_replication_slot('cf_up_shop_rest')", "INSERT INTO log (line) VALUES ('nobody sent me')"},
		seen: []string{"links", "cf_up_shop_rest is slot missing", "copies its tables again"}, quick: true,
	},
	{name: "a publication is dropped", old: []string{"DROP PUBLICATION cf_up_shop_orders", "INSERT INTO orders (what) VALUES ('unpublished')"}, seen: []string{"trust", "cf_up_shop_orders: its publication was dropped", "crossfade prepare"}},
	{
		name: "a publication is dropped and made again", old: []string{"DROP PUBLICATION cf_up_shop_orders", "INSERT INTO orders (what) VALUES ('unpublished')", "CREATE PUBLICATION cf_up_shop_orders FOR TABLE ONLY orders, ONLY lines, ONLY crossfade.canary_orders"},
		seen: []string{"trust", "cf_up_shop_orders: its publication was dropped and made again", "crossfade prepare"},
	},
	{
		name: "a table leaves its publication for a moment", old: []string{"ALTER PUBLICATION cf_up_shop_rest DROP TABLE ONLY log", "INSERT INTO log (line) VALUES ('unpublished')", "ALTER PUBLICATION cf_up_shop_rest ADD TABLE ONLY log"},
		seen: []string{"trust", "tables were put into its publication by hand", "crossfade prepare"},
	},
	{name: "a table leaves its publication", old: []string{"ALTER PUBLICATION cf_up_shop_rest DROP TABLE ONLY log", "INSERT INTO log (line) VALUES ('unpublished')"}, seen: []string{"links", "public.log", "crossfade prepare"}},
	{
		name: "a truncate cascades over sets", old: []string{"TRUNCATE orders CASCADE", "INSERT INTO orders (what) VALUES ('behind')"}, seen: []string{"links", "cf_up_shop_orders does not apply", "pg_drop_replication_slot"}, exit: anyExit,
		mendNew: []string{"ALTER SUBSCRIPTION cf_up_shop_orders DISABLE"}, mendOld: []string{"~SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'cf_up_shop_orders'", "SELECT pg_drop_replication_slot('cf_up_shop_orders')"},
	},
}

// TestHumanError: what somebody does by hand between prepare and the cutover is
// seen within 10 s, named with what to do, and closes the gate; what is done
// then brings everything along, and nothing is missing.
func TestHumanError(t *testing.T) {
	w := newWorld(t, setting{sql: shopTables + "CREATE TABLE notes (k int PRIMARY KEY, orders_id bigint REFERENCES orders);", oldSet: map[string]string{"max_prepared_transactions": "5"}})
	w.do(0, "prepare")
	const patience = "patience: 8s" // the lag must have been low for a while, also on a busy machine
	w.runbookLine("patience: 60s", patience)
	for _, h := range handmades {
		if !h.quick && !all() {
			continue
		}
		w.part(h.name, func(t *testing.T) { w.handmade(t, h) })
	}
	if all() {
		w.part("a tablespace is used", w.tablespaceUsed)
		w.part("a table is in no set", w.tableInNoSet)
	}
	w.runbookLine(patience, "patience: 60s")
	w.do(0, "cutover", "--yes")
	w.equal()
}

// tablespaceUsed: a table that is made in a tablespace which new lacks closes the
// gate, prepare names the tablespace, and takes the table along when new has it.
func (w *world) tablespaceUsed(t *testing.T) {
	makes := func(c *lab.Cluster) {
		w.Exec(c, "", "ALTER SYSTEM SET allow_in_place_tablespaces = on", "SELECT pg_reload_conf()")
		w.Until(c, "", "SELECT current_setting('allow_in_place_tablespaces')::boolean")
		w.Exec(c, "", "CREATE TABLESPACE fast LOCATION ''")
	}
	makes(w.old)
	w.Exec(w.old, "shop", "CREATE TABLE far (k int PRIMARY KEY) TABLESPACE fast", "INSERT INTO far VALUES (1)")
	if said := w.said(); !says(said, []string{"links", "public.far", "crossfade prepare"}) {
		t.Errorf("status does not name the table:\n%s", said)
	}
	if r := w.try("prepare"); r.exit == 0 || !strings.Contains(r.stdout+r.stderr, "fast") {
		t.Errorf("prepare does not name the tablespace\n%s", r)
	}
	makes(w.new)
	w.do(0, "prepare")
	if got := w.Value(w.new, "shop", "SELECT (SELECT count(*) FROM far) || spcname FROM pg_class c JOIN pg_tablespace s ON s.oid = c.reltablespace WHERE relname = 'far'"); got != "1fast" {
		t.Errorf("far on new: %s", got)
	}
	w.equal()
}

// tableInNoSet: where the runbook lists the tables of every set, one that is made
// since is in none, and no command begins until the runbook says where it goes.
func (w *world) tableInNoSet(t *testing.T) {
	listed := w.Value(w.old, "shop", `SELECT string_agg('"' || c.oid::regclass || '"', ', ') FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition AND relname NOT IN ('orders', 'lines')`)
	w.runbookLine(`["*"]`, "["+listed+"]")
	w.do(0, "check")
	w.Exec(w.old, "shop", "CREATE TABLE homeless (k int PRIMARY KEY)")
	for _, command := range [][]string{{"check"}, {"prepare"}, {"cutover", "--yes"}} {
		if r := w.do(2, command...); !strings.Contains(r.stderr, "in no set of shop: public.homeless") {
			t.Errorf("%s does not name the table\n%s", command, r)
		}
	}
	w.wantPhase("ready", "old")
	w.runbookLine("["+listed+"]", `["*"]`)
	w.do(0, "prepare")
	w.equal()
}

func (w *world) handmade(t *testing.T, h handmade) {
	if h.new != nil && h.old != nil {
		w.byHand(w.new, h.new)
		w.byHand(w.old, h.old)
	} else {
		w.byHand(w.old, h.old)
		w.byHand(w.new, h.new)
	}
	began := time.Now()
	if len(h.seen) > 0 {
		var said string
		w.wait("status to say "+strings.Join(h.seen, ", "), func() bool {
			said = w.said()
			return says(said, h.seen) || time.Since(began) > seenLimit
		})
		if !says(said, h.seen) {
			t.Fatalf("status does not say %q within %s:\n%s", h.seen, seenLimit, said)
		}
		t.Logf("seen after %s", time.Since(began).Round(10*time.Millisecond))
	}
	if h.open {
		if closed := w.said("notes"); closed != "" {
			t.Errorf("nothing is missing, and it says\n%s", closed)
		}
		return
	}
	r := w.do(cmp.Or(h.cutover, 4), "cutover", "--yes")
	if !says(r.stderr, h.seen[1:2]) {
		t.Errorf("cutover does not say %q\n%s", h.seen[1], r)
	}
	if _, writable := w.truth(); writable != "old" {
		t.Fatalf("writable %s\n%s", writable, r)
	}
	r = w.try("prepare")
	if r.exit != h.exit && (h.exit != anyExit || r.exit > 1) {
		t.Fatalf("wanted exit %d\n%s", h.exit, r)
	}
	w.byHand(w.new, h.mendNew)
	w.byHand(w.old, h.mendOld)
	if h.exit != 0 {
		t.Logf("prepare said: %s", lastLine(r.stderr))
		w.do(0, "prepare")
	}
	w.wantPhase("ready", "old")
	w.wait("every gate to open", func() bool { return w.said("notes") == "" })
	w.equal()
}

// byHand executes statements in database shop; those of new may write although
// the database is read-only. One that begins with ! is refused, one with ~ is
// waited for.
func (w *world) byHand(c *cluster, statements []string) {
	w.t.Helper()
	for _, sql := range statements {
		begin := ""
		if c == w.new {
			begin = "BEGIN READ WRITE; "
		}
		switch sql[0] {
		case '!':
			w.fails(c, "shop", refused, begin+sql[1:])
		case '~':
			w.Until(c, "shop", sql[1:])
		default:
			if begin != "" {
				sql = begin + sql + "; COMMIT"
			}
			w.Exec(c, "shop", sql)
		}
	}
}

// said is what status says of closed gates, of links and in notes; without
// leaves some of it out.
func (w *world) said(without ...string) string {
	w.t.Helper()
	s := w.status()
	var b strings.Builder
	list := func(kind string, f func(m map[string]any)) {
		if len(without) > 0 && without[0] == kind {
			return
		}
		some, _ := s[kind].([]any)
		for _, one := range some {
			if m, ok := one.(map[string]any); ok {
				f(m)
			} else {
				fmt.Fprintf(&b, "%s: %v\n", kind, one)
			}
		}
	}
	list("gates", func(m map[string]any) {
		if m["ok"] != true {
			fmt.Fprintf(&b, "gate %v: %v\n", m["id"], m["says"])
		}
	})
	list("links", func(m map[string]any) {
		if m["error"] != nil {
			fmt.Fprintf(&b, "link %v: %v\n", m["set"], m["error"])
		}
	})
	list("notes", nil)
	list("silent", func(m map[string]any) { fmt.Fprintf(&b, "silent %v: %v\n", m["on"], m["says"]) })
	return b.String()
}

// says reports whether one line of text has every word.
func says(text string, words []string) bool {
	for line := range strings.Lines(text) {
		all := true
		for _, word := range words {
			all = all && strings.Contains(line, word)
		}
		if all {
			return true
		}
	}
	return false
}
