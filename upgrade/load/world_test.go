package load

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"crossfade/scenarios/lab"
	"crossfade/scenarios/lab/labtest"
	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
)

const db = "shop"

// world is two servers with a database shop, and what the other steps of
// prepare make before the copy begins.
type world struct {
	tb       testing.TB
	lab      *labtest.Lab
	old, new *lab.Cluster
	entries  []schema.Entry
	made     int    // snapshots
	taken    func() // called when the slots are made

	mu    sync.Mutex
	notes []string
}

func newWorld(tb testing.TB, oldMajor, newMajor int, o lab.Options, schemaSQL ...string) *world {
	tb.Helper()
	w := &world{tb: tb, lab: labtest.T(tb)}
	oldo, newo := o, o
	oldo.Name, oldo.Major, newo.Name, newo.Major = "old", oldMajor, "new", newMajor
	w.old, w.new = w.lab.Start(oldo), w.lab.Start(newo)
	for _, c := range []*lab.Cluster{w.old, w.new} {
		w.lab.Exec(c, "", "CREATE DATABASE "+db)
	}
	w.lab.Exec(w.old, db, schemaSQL...)
	return w
}

// restore brings the schema to new, as far as rows need it.
func (w *world) restore() {
	w.tb.Helper()
	ctx := w.tb.Context()
	w.lab.Exec(w.new, db, schema.Ledger("new", db).SQL)
	var err error
	w.entries, _, err = schema.Dump(ctx, w.server(w.old), w.new.Bin+"/pg_dump", nil)
	w.lab.Must(err)
	conn, err := schema.Session(ctx, w.server(w.new), nil)
	w.lab.Must(err)
	defer pg.Leave(conn)
	w.lab.Must(schema.Restore(ctx, conn, schema.Entries(w.entries, schema.Before), nil))
}

func (w *world) server(c *lab.Cluster) *pg.Server {
	w.tb.Helper()
	s, err := pg.Parse(c.Name, c.Conninfo(db), c.Bin)
	w.lab.Must(err)
	return s
}

// tables are the published tables of old that pick wants; nil wants all.
func (w *world) tables(pick func(schema.Table) bool) []schema.Table {
	w.tb.Helper()
	conn, err := w.server(w.old).Connect(w.tb.Context())
	w.lab.Must(err)
	defer pg.Leave(conn)
	inv, err := schema.Read(w.tb.Context(), conn, schema.Filter{NoObjects: true})
	w.lab.Must(err)
	return slices.DeleteFunc(inv.Tables, func(t schema.Table) bool {
		return !t.Published() || t.Schema == schema.Own || pick != nil && !pick(t)
	})
}

func slotOf(set string) string { return "cf_t_" + db + "_" + set }

// options copies the sets with slots made as link makes them.
func (w *world) options(sets ...schema.Set) Options {
	o := Options{
		Old: w.server(w.old), New: w.server(w.new), Database: db, Version: w.old.Major * 10000,
		Sets: sets, Jobs: 2, IndexJobs: 2, Snapshot: w.snapshot, Slot: w.slot,
	}
	o.Assign(w.entries)
	for _, s := range sets {
		o.SlotEffects = append(o.SlotEffects, flow.Effect{On: "old", Database: db, SQL: "CREATE_REPLICATION_SLOT " + slotOf(s.Name)})
	}
	return o
}

func (w *world) publish(sets ...schema.Set) {
	w.tb.Helper()
	for _, s := range sets {
		var names []string
		for _, t := range s.Tables {
			names = append(names, t.SQL())
		}
		w.lab.Exec(w.old, db, "CREATE PUBLICATION "+slotOf(s.Name)+" FOR TABLE ONLY "+strings.Join(names, ", ONLY "))
	}
}

// snapshot makes one slot with its snapshot and copies the others from it.
func (w *world) snapshot(ctx context.Context, sets []string) (*Snapshot, error) {
	w.made++
	conn, err := w.server(w.old).Connect(ctx)
	if err != nil {
		return nil, err
	}
	defer pg.Leave(conn)
	for _, s := range sets {
		if err := pg.Exec(ctx, conn, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = "+pg.Literal(slotOf(s))); err != nil {
			return nil, err
		}
	}
	r, err := w.server(w.old).Replication(ctx, w.old.Major*10000)
	if err != nil {
		return nil, err
	}
	first, err := pglogrepl.CreateReplicationSlot(ctx, r, slotOf(sets[0]), "pgoutput", pglogrepl.CreateReplicationSlotOptions{SnapshotAction: "EXPORT_SNAPSHOT"})
	if err != nil {
		return nil, err
	}
	point, err := pglogrepl.ParseLSN(first.ConsistentPoint)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{Name: first.SnapshotName, Point: map[string]pg.LSN{}, Release: r.Close}
	for i, set := range sets {
		s.Point[set] = point
		if i > 0 {
			if err := pg.Exec(ctx, conn, fmt.Sprintf("SELECT pg_copy_logical_replication_slot(%s, %s)", pg.Literal(slotOf(sets[0])), pg.Literal(slotOf(set)))); err != nil {
				return nil, err
			}
		}
	}
	if w.taken != nil {
		w.taken()
	}
	return s, nil
}

func (w *world) slot(ctx context.Context, set string) (pg.LSN, bool, error) {
	conn, err := w.server(w.old).Connect(ctx)
	if err != nil {
		return 0, false, err
	}
	defer pg.Leave(conn)
	rows, err := conn.Query(ctx, "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = $1 AND wal_status <> 'lost'", slotOf(set))
	if err != nil {
		return 0, false, err
	}
	points, err := pgx.CollectRows(rows, pgx.RowTo[pg.LSN])
	if err != nil || len(points) == 0 {
		return 0, false, err
	}
	return points[0], true, nil
}

// run executes the step as flow does, and returns how it ended: "end" or
// "skip", or the error.
func (w *world) run(ctx context.Context, o Options) (string, error) {
	how := ""
	err := flow.Run(ctx, flow.Plan{Name: "prepare", Steps: []flow.Step{Step(o)}}, nil, func(e flow.Event) {
		switch e.Kind {
		case flow.Note:
			w.mu.Lock()
			w.notes = append(w.notes, e.Says)
			w.mu.Unlock()
		case flow.End, flow.Skip:
			how = string(e.Kind)
		}
	})
	return how, err
}

// must is run that has to succeed, and then to have nothing to do.
func (w *world) must(o Options) {
	w.tb.Helper()
	if how, err := w.run(w.tb.Context(), o); err != nil || how != "end" {
		w.tb.Fatalf("%s: %v", how, err)
	}
	made := w.made
	if how, err := w.run(w.tb.Context(), o); err != nil || how != "skip" || w.made != made {
		w.tb.Fatalf("the second time: %s: %v", how, err)
	}
}

// sums are count and sum of hashes of every table.
func (w *world) sums(c *lab.Cluster, tables []schema.Table) map[string]string {
	w.tb.Helper()
	var parts []string
	for _, t := range tables {
		parts = append(parts, "SELECT "+pg.Literal(t.String())+", count(*) || ' rows, ' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) FROM ONLY "+t.SQL()+" t")
	}
	out := map[string]string{}
	for some := range slices.Chunk(parts, 100) {
		rows, err := c.Query(w.tb.Context(), db, "SET extra_float_digits = 3; "+strings.Join(some, " UNION ALL "))
		w.lab.Must(err)
		for _, r := range rows {
			out[r[0]] = r[1]
		}
	}
	return out
}

// same compares all rows of tables, now.
func (w *world) same(tables []schema.Table) {
	w.tb.Helper()
	a, b := w.sums(w.old, tables), w.sums(w.new, tables)
	for _, t := range tables {
		if n := t.String(); a[n] != b[n] || a[n] == "" {
			w.tb.Errorf("%s: old has %s, new has %s", t, a[n], b[n])
		}
	}
}

// subscribe starts the sets' subscriptions.
func (w *world) subscribe(sets ...schema.Set) {
	w.tb.Helper()
	for _, s := range sets {
		n := slotOf(s.Name)
		w.lab.Exec(w.new, db, fmt.Sprintf("CREATE SUBSCRIPTION %s CONNECTION %s PUBLICATION %s WITH (create_slot=false, copy_data=false, slot_name=%s)",
			n, pg.Literal(w.old.Conninfo(db)), n, n))
	}
}

// caughtUp waits until every set has applied what old has written until now.
func (w *world) caughtUp(sets ...schema.Set) {
	w.tb.Helper()
	w.lab.Exec(w.old, db, "SELECT pg_logical_emit_message(true, 'test', '')")
	lsn := w.lab.Value(w.old, db, "SELECT pg_current_wal_insert_lsn()")
	for _, s := range sets {
		w.lab.Until(w.old, db, fmt.Sprintf("SELECT confirmed_flush_lsn >= '%s' FROM pg_replication_slots WHERE slot_name = '%s'", lsn, slotOf(s.Name)))
	}
}

// bench runs pgbench on old until the returned function is called.
func (w *world) bench(args ...string) (stop func()) {
	w.tb.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.tb.Context()))
	all := append([]string{"-n", "-T", "600", "-h", w.old.Socket, "-p", fmt.Sprint(w.old.Port), "-U", w.old.Superuser}, args...)
	cmd := w.old.Command(ctx, "pgbench", append(all, db)...)
	w.lab.Must(cmd.Start())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // it is killed, or ends with the server
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	w.tb.Cleanup(stop)
	return stop
}

func (w *world) pgbenchInit(scale int) {
	w.tb.Helper()
	out, err := w.old.Command(w.tb.Context(), "pgbench", "-i", "-q", "--foreign-keys", "-s", fmt.Sprint(scale), "-h", w.old.Socket, "-p", fmt.Sprint(w.old.Port), "-U", w.old.Superuser, db).CombinedOutput()
	if err != nil {
		w.tb.Fatalf("pgbench: %v: %s", err, out)
	}
}

// silent wants no session of the tool left on either server.
func (w *world) silent() {
	w.tb.Helper()
	for _, c := range []*lab.Cluster{w.old, w.new} {
		w.lab.Until(c, db, "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'crossfade'")
	}
}
