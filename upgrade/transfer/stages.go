// Package transfer brings what the side that serves holds to the other one: schema
// and rows, what was made, changed, renamed or dropped since, roles and settings,
// and what no link carries. Its steps are those of prepare; what it compares and
// refreshes is asked by verify and by a crossing as well.
package transfer

import (
	"context"
	"errors"
	"slices"
	"time"

	"crossfade/cutover"
	"crossfade/schema"
	"crossfade/upgrade/clusters"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/ground"
	"crossfade/upgrade/link"
	"crossfade/upgrade/load"
	"crossfade/upgrade/owners"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/survey"
	"crossfade/upgrade/trial"
	"crossfade/upgrade/trust"

	"github.com/jackc/pgx/v5"
)

// Transfer is that of one upgrade.
type Transfer struct {
	c      *clusters.Clusters
	ground *ground.Ground
	trust  *trust.Trust
	trial  *trial.Trial
	owners *owners.Owners
	pace   *load.Pace // of every copy
}

// New is the transfer between c.
func New(c *clusters.Clusters, g *ground.Ground, t *trust.Trust, tr *trial.Trial, o *owners.Owners) *Transfer {
	return &Transfer{c, g, t, tr, o, load.NewPace(c.Book.Copy.Limit)}
}

// Stages are the steps that bring one database's schema and rows over.
type Stages struct {
	Trial, Changes, Before, Copy, After flow.Step
	Validate                            []flow.Step
}

// Stages dumps the schema of a database as it is now and plans what is restored
// when: what rows need before them, indexes as soon as their table is loaded, the
// rest after all rows and before anything is applied, because a foreign key can be
// validated only over one consistent state.
//
// late is nil up to the first cutover: everything goes from old to new. Later it is
// the database with the sets that are taken along to the side that applies: rows
// are copied for these alone.
func (tf *Transfer) Stages(ctx context.Context, s *survey.Survey, db, late *survey.Database) (Stages, error) {
	var st Stages
	first := late == nil
	from, to := s.Serving(), s.Applying()
	if first {
		from, to, late = s.Old, s.New, db
	}
	entries, commands, err := s.Dump(ctx, from, db)
	if err != nil {
		return st, err
	}
	if first {
		if st.Trial, err = tf.trial.Step(ctx, s, db, entries); err != nil {
			return st, err
		}
	}
	entries = db.WithoutAttached(entries)
	if st.Changes, err = tf.changesStep(ctx, s, db, entries); err != nil {
		return st, err
	}
	runs, err := s.Runs(ctx, db)
	if err != nil {
		return st, err
	}
	making := runs
	if !first {
		there, err := survey.RunsOn(ctx, tf.c, to.Server, to.Version, db)
		if err != nil {
			return st, err
		}
		making = runs.Making(there)
	}
	entries, deferred := making.Defer(entries, to.Version/10000, db.Partitioned)
	if validate, ok := tf.owners.ValidateStep(to.Name, db, deferred); ok {
		st.Validate = append(st.Validate, validate)
	}
	before, after := "Make the schema of "+db.Name+" on new", "Make constraints, triggers and the rest of "+db.Name+" on new"
	if !first {
		before = "Make what was made in " + db.Name + " of " + from.Name + " on " + to.Name
		after = "Make indexes, constraints, triggers and the rest of " + db.Name + " on " + to.Name
	}
	st.Before = tf.restoreStep(to.Name, "schema/"+db.Name, before, db, schema.Entries(entries, schema.Before), commands)
	st.After = tf.restoreStep(to.Name, "constraints/"+db.Name, after, db, schema.Entries(entries, schema.Identify, schema.Index, schema.Foreign, schema.Late), nil)
	if !first && len(late.Sets) == 0 {
		return st, nil
	}
	o := load.Options{
		Old: from.Server, New: to.Server, Database: db.Name, Version: from.Version, Encoding: db.Encoding, Sets: late.Sets,
		Jobs: tf.c.Book.Copy.Jobs, IndexJobs: tf.c.Book.Copy.IndexJobs, Chunk: tf.c.Book.Copy.Chunk, Pace: tf.pace,
		Snapshot: func(ctx context.Context, sets []string) (*load.Snapshot, error) {
			return tf.snapshot(ctx, s, late, sets)
		},
		Slot: func(ctx context.Context, set string) (pg.LSN, bool, error) { return tf.slot(ctx, s, late, set) },
	}
	o.Assign(entries)
	st.After = o.Validating(st.After)
	for i := range st.Validate {
		st.Validate[i] = o.Validating(st.Validate[i])
	}
	slots := link.SlotEffects(late.Links)
	if to.Name == "new" {
		o.SlotEffects = append(slots, trust.MarkEffects(db.Name, late.Links)...)
		st.Copy = tf.owners.Filled(to.Name, runs, o)
		return st, nil
	}
	// Effects of links carry their own side.
	st.Copy = Facing(to.Name, tf.owners.Filled(to.Name, runs, o))
	st.Copy.Does = append(slots, st.Copy.Does...)
	return st, nil
}

func (tf *Transfer) restoreStep(side, id, title string, db *survey.Database, entries []schema.Entry, commands []flow.Effect) flow.Step {
	return flow.Step{
		ID: id, Title: title, Does: append(slices.Clone(commands), schema.RestoreEffects(entries, side, db.Name)...),
		Done: func(ctx context.Context) (bool, error) { return survey.Restored(ctx, tf.c, side, db, entries) },
		Do: func(ctx context.Context, t *flow.Turn) error {
			// What validates a foreign key sorts and hashes with it.
			conn, err := schema.Session(ctx, tf.c.Side(side).With(db.Name), map[string]string{"maintenance_work_mem": "256MB"})
			if err != nil {
				return err
			}
			defer pg.Leave(conn)
			n := int64(0)
			return schema.Restore(ctx, conn, entries, func(e schema.Entry) {
				n++
				t.Progress(n, int64(len(entries)), "objects", e.Object())
			})
		},
	}
}

// snapshot makes the slots of sets anew and exports their snapshot. Their
// subscriptions, of a copy that was begun before, are taken away first.
func (tf *Transfer) snapshot(ctx context.Context, s *survey.Survey, db *survey.Database, sets []string) (*load.Snapshot, error) {
	links := db.LinksOf(sets)
	var snap *link.Snapshot
	var marks map[string]trust.LinkMark
	err := tf.c.Sessions.Do(ctx, links[0].To.Server, func(to *pgx.Conn) error {
		return cutover.DropLinks(ctx, nil, to, links)
	})
	if err == nil {
		err = tf.c.Sessions.Do(ctx, links[0].From.Server, func(conn *pgx.Conn) error {
			var err error
			if marks, err = trust.ReadPublished(ctx, conn, links); err != nil {
				return err
			}
			snap, err = link.CreateSlots(ctx, conn, links, time.Minute)
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	points := map[string]pg.LSN{}
	for _, l := range links {
		points[l.Set] = snap.Point
	}
	if !links[0].Forward { // what doubts ask is asked before the cutover alone
		return &load.Snapshot{Name: snap.Name, Point: points, Release: snap.Release}, nil
	}
	if err := tf.trust.MarkLinks(ctx, db, links, marks, snap.Point); err != nil {
		return nil, errors.Join(err, snap.Release(context.WithoutCancel(ctx)))
	}
	return &load.Snapshot{Name: snap.Name, Point: points, Release: snap.Release}, nil
}

// slot tells the slot of a set as it stands.
func (tf *Transfer) slot(ctx context.Context, s *survey.Survey, db *survey.Database, set string) (pg.LSN, bool, error) {
	links := db.LinksOf([]string{set})
	at, err := s.Positions(ctx, db.Name, links)
	if err != nil {
		return 0, false, err
	}
	for _, p := range at {
		if !p.Slot || p.Lost {
			return 0, false, nil
		}
		if p.Subscription {
			return 0, true, nil
		}
		if p.Confirmed != nil {
			return *p.Confirmed, true, nil
		}
	}
	return 0, false, nil
}

// StatisticsSteps gather statistics and fill materialized views, when rows are
// there and are kept in step.
func (tf *Transfer) StatisticsSteps(s *survey.Survey, db *survey.Database) []flow.Step {
	// ANALYZE of a partitioned table reaches its partitions.
	tables := slices.DeleteFunc(slices.Clone(db.Inventory.Tables), func(t schema.Table) bool { return t.Partition })
	steps := []flow.Step{load.Analyze(load.Options{New: tf.c.New, Database: db.Name, Jobs: tf.c.Book.Copy.Jobs}, tables)}
	if refresh, ok := tf.refreshStep(db); ok {
		steps = append(steps, refresh)
	}
	return steps
}
