// Package load copies the rows of one database from one exported snapshot and
// builds the indexes of each table as soon as it is loaded.
//
// Rows are piped from COPY … TO STDOUT on old into COPY … FROM STDIN on new
// and are never decoded here. What is complete is known from marks in
// crossfade.ledger on new, each written in the transaction of what it tells
// of, so that nothing is copied twice or believed that was lost.
//
// A snapshot does not outlive the process. A set whose every table is marked
// with the consistent point of its slot stays; any other set starts again,
// with a new slot, a new snapshot and emptied tables. Indexes that were built
// by then stay and make the second copy of their table slower. Sets whose rows
// break what is made on them start again too: only then do the rows of the next
// run hold what was fixed on old.
package load

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
)

// Options is one database to copy.
type Options struct {
	Old, New *pg.Server // seen through any database
	Database string
	// Version is old's server_version_num. Below 140000, and where it is 0, no
	// table is split: a range of ctid would read the whole table each time.
	Version int
	// Encoding is the server_encoding of the database, on both sides; "" is
	// UTF8. In any other one rows travel as text in that encoding, unconverted.
	Encoding string
	// Sets are the published tables, plain and leaves, by set.
	Sets []schema.Set
	// Indexes are the entries that are built when a table is loaded: those of
	// its identity first. Nil builds nothing.
	Indexes func(schema.Table) []schema.Entry
	// Tail are entries that must wait for all tables, in order: indexes of
	// partitioned tables and what attaches the leaves' indexes to them.
	Tail []schema.Entry
	// Foreign are the foreign keys between tables of Sets. Each is made when
	// nobody builds on its tables any more, beside what is built on others: to
	// validate it is a query of one process.
	Foreign []schema.Entry
	// Referenced says whether a foreign key of another table points to a table
	// on new already (ReadReferenced): it cannot be truncated and is emptied
	// row by row if its set starts again. Nil: none, as in a first run.
	Referenced func(schema.Table) bool
	// Jobs is how many tables are copied at once, IndexJobs how many indexes
	// are built beside them; 0 is 4 and 2. There are never more sessions than
	// Jobs on old, and one that keeps the snapshot, and Jobs + IndexJobs on new.
	Jobs, IndexJobs int
	// Chunk is the size in bytes, toast included, above which a table is
	// split; 0 is 1 GB.
	Chunk int64
	// Pace holds the rows off old to a rate: that of all steps which share it.
	// Nil: as fast as they come.
	Pace *Pace
	// Settings are added to those of the sessions on new, and win; nil is
	// enough. They last as long as the sessions.
	Settings map[string]string
	// Snapshot makes the slots of the named sets anew, all at one point, and
	// exports the snapshot of that point. What is left of earlier slots and
	// subscriptions of these sets it takes away first.
	Snapshot func(ctx context.Context, sets []string) (*Snapshot, error)
	// SlotEffects are what Snapshot does, for the plan.
	SlotEffects []flow.Effect
	known       indexes // what the run has read on old
	// Filler is the role with whose rights a table is filled, because what the table
	// calls would run with those of the session; "" is the tool's own. again: what is
	// made after the rows may be there already. Nil: the tool's own for all of them.
	Filler func(t schema.Table, again bool) string
	// As is new, seen through Database with the rights of a role that Filler names.
	As    func(ctx context.Context, role string) (*pg.Server, error)
	again bool
	// Slot tells the slot of a set as it stands. valid: it exists, its WAL is
	// there, and nothing has consumed it but the set's own subscription. point
	// is where it began; 0 where that can no longer be seen, because the
	// subscription has moved it.
	Slot func(ctx context.Context, set string) (point pg.LSN, valid bool, err error)
}

// Snapshot is an exported snapshot and the slots that begin where it ends.
type Snapshot struct {
	Name  string            // for SET TRANSACTION SNAPSHOT
	Point map[string]pg.LSN // the consistent point of each set's slot
	// Release lets the exporting session go. It is called as soon as another
	// session has imported the snapshot, and also when that fails. Nil: nothing.
	Release func(ctx context.Context) error
}

// holes are the names that stand in a table's effects for what only the run
// knows: the consistent point of its slot, the first row of a chunk as
// '(page,0)', and the first row after it.
type holes struct{ point, from, to string }

// newHoles takes names that occur nowhere in text: "$" is a letter in names of
// tables and columns.
func newHoles(text string) holes {
	free := func(name string) string {
		for strings.Contains(text, "$"+name) {
			name += "_"
		}
		return name
	}
	return holes{point: free("slot_point"), from: free("from_ctid"), to: free("to_ctid")}
}

// session are the settings of every session on new beside pg's own. Nothing
// that is loaded is lost by synchronous_commit=off: a crash of new takes marks
// and rows alike, and the step ends with a commit that waits for its flush.
var session = map[string]string{
	"synchronous_commit": "off",
	buildMemory:          "256MB",
}

// tuned is the effect that fits a session to the next build: $workers, the processors that
// nobody else uses, and $memory are known when it begins. While others copy and build there
// are no workers, because a build with workers takes more of the processors in all. What
// Settings have is left out; the effect is empty where they have both.
func (o Options) tuned() flow.Effect {
	var sql []string
	for _, s := range [][2]string{{"max_parallel_maintenance_workers", "$workers"}, {buildMemory, "$memory"}} {
		if o.Settings[s[0]] == "" {
			sql = append(sql, "SET "+s[0]+" = "+s[1])
		}
	}
	return o.onNew(strings.Join(sql, "; "))
}

const buildMemory = "maintenance_work_mem"

// settle is the effect that gives a session on new its settings.
func (o Options) settle() flow.Effect {
	settings := maps.Clone(session)
	maps.Copy(settings, o.Settings)
	var sql []string
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		sql = append(sql, "SET "+pg.Ident(name)+" = "+pg.Literal(settings[name]))
	}
	return o.onNew(strings.Join(sql, "; "))
}

func (o Options) onNew(sql string) flow.Effect {
	return flow.Effect{On: "new", Database: o.Database, SQL: sql}
}

func (o Options) onOld(sql string) flow.Effect {
	return flow.Effect{On: "old", Database: o.Database, SQL: sql}
}

// ready fills in the defaults.
func (o Options) ready() Options {
	o.Old, o.New = o.Old.With(o.Database), o.New.With(o.Database)
	if o.Jobs <= 0 {
		o.Jobs = 4
	}
	if o.IndexJobs <= 0 {
		o.IndexJobs = 2
	}
	if o.Chunk <= 0 {
		o.Chunk = 1 << 30
	}
	if o.Encoding == "" {
		o.Encoding = "UTF8"
	}
	if o.Indexes == nil {
		o.Indexes = func(schema.Table) []schema.Entry { return nil }
	}
	if o.Filler == nil {
		o.Filler = func(schema.Table, bool) string { return "" }
	}
	if o.Referenced == nil {
		o.Referenced = func(schema.Table) bool { return false }
	}
	return o
}

// Step is "copy/<database>": slots, rows, indexes. It is done when every set
// is complete by the ledger, for a slot that is still valid, and every entry
// is marked. Running it again after a crash keeps complete sets and starts the
// others again.
func Step(o Options) flow.Step {
	o = o.ready()
	work := o.work()
	return flow.Step{
		ID: "copy/" + o.Database,
		Title: fmt.Sprintf("Copy the %d tables of %s from one snapshot and build their indexes (after a crash a set that is not complete starts again)",
			len(work), o.Database),
		Does: o.does(work),
		Done: o.done,
		Do: func(ctx context.Context, t *flow.Turn) error {
			l := newLoader(o, work, t)
			return o.orAgain(ctx, l.do(ctx))
		},
	}
}

// does is every effect of the step, in the order of a single worker.
func (o Options) does(work []*table) []flow.Effect {
	effects := []flow.Effect{o.settle()}
	for _, s := range o.Sets {
		effects = append(effects, o.forget(s.Name))
	}
	effects = append(effects, o.SlotEffects...)
	if e := o.tuned(); o.builds() && e.SQL != "" {
		effects = append(effects, e)
	}
	for _, t := range work {
		effects = append(effects, t.effects()...)
		for _, e := range o.Indexes(t.Table) {
			effects = append(effects, o.entry(e))
		}
	}
	for _, e := range slices.Concat(o.Foreign, o.Tail) {
		effects = append(effects, o.entry(e))
	}
	return append(effects, o.flush())
}
