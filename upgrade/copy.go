package upgrade

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"crossfade/cutover"
	"crossfade/schema"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/load"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
	"crossfade/upgrade/survey"
	"crossfade/upgrade/trust"
	"crossfade/upgrade/verify"

	"github.com/jackc/pgx/v5"
)

// stages are the steps that bring one database's schema and rows over.
type stages struct {
	trial, changes, before, copy, after flow.Step
	validate                            []flow.Step
}

// stagesOf dumps the schema of a database as it is now and plans what is restored
// when: what rows need before them, indexes as soon as their table is loaded, the
// rest after all rows and before anything is applied, because a foreign key can be
// validated only over one consistent state.
//
// late is nil up to the first cutover: everything goes from old to new. Later it is
// the database with the sets that are taken along to the side that applies: rows
// are copied for these alone.
func (u *Upgrade) stagesOf(ctx context.Context, s *survey.Survey, db, late *survey.Database) (stages, error) {
	var st stages
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
		if st.trial, err = u.trial.Step(ctx, s, db, entries); err != nil {
			return st, err
		}
	}
	entries = db.WithoutAttached(entries)
	if st.changes, err = u.changesStep(ctx, s, db, entries); err != nil {
		return st, err
	}
	runs, err := s.Runs(ctx, db)
	if err != nil {
		return st, err
	}
	making := runs
	if !first {
		there, err := survey.RunsOn(ctx, u.c, to.Server, to.Version, db)
		if err != nil {
			return st, err
		}
		making = runs.Making(there)
	}
	entries, deferred := making.Defer(entries, to.Version/10000, db.Partitioned)
	if validate, ok := u.owners.ValidateStep(to.Name, db, deferred); ok {
		st.validate = append(st.validate, validate)
	}
	before, after := "Make the schema of "+db.Name+" on new", "Make constraints, triggers and the rest of "+db.Name+" on new"
	if !first {
		before = "Make what was made in " + db.Name + " of " + from.Name + " on " + to.Name
		after = "Make indexes, constraints, triggers and the rest of " + db.Name + " on " + to.Name
	}
	st.before = u.restoreStep(to.Name, "schema/"+db.Name, before, db, schema.Entries(entries, schema.Before), commands)
	st.after = u.restoreStep(to.Name, "constraints/"+db.Name, after, db, schema.Entries(entries, schema.Identify, schema.Index, schema.Foreign, schema.Late), nil)
	if !first && len(late.Sets) == 0 {
		return st, nil
	}
	o := load.Options{
		Old: from.Server, New: to.Server, Database: db.Name, Version: from.Version, Encoding: db.Encoding, Sets: late.Sets,
		Jobs: u.rb.Copy.Jobs, IndexJobs: u.rb.Copy.IndexJobs, Chunk: u.rb.Copy.Chunk, Pace: u.pace,
		Snapshot: func(ctx context.Context, sets []string) (*load.Snapshot, error) {
			return u.snapshot(ctx, s, late, sets)
		},
		Slot: func(ctx context.Context, set string) (pg.LSN, bool, error) { return u.slot(ctx, s, late, set) },
	}
	o.Assign(entries)
	st.after = o.Validating(st.after)
	for i := range st.validate {
		st.validate[i] = o.Validating(st.validate[i])
	}
	slots := link.SlotEffects(late.Links)
	if to.Name == "new" {
		o.SlotEffects = append(slots, trust.MarkEffects(db.Name, late.Links)...)
		st.copy = u.owners.Filled(to.Name, runs, o)
		return st, nil
	}
	// Effects of links carry their own side.
	st.copy = facing(to.Name, u.owners.Filled(to.Name, runs, o))
	st.copy.Does = append(slots, st.copy.Does...)
	return st, nil
}

func (u *Upgrade) restoreStep(side, id, title string, db *survey.Database, entries []schema.Entry, commands []flow.Effect) flow.Step {
	return flow.Step{
		ID: id, Title: title, Does: append(slices.Clone(commands), schema.RestoreEffects(entries, side, db.Name)...),
		Done: func(ctx context.Context) (bool, error) { return survey.Restored(ctx, u.c, side, db, entries) },
		Do: func(ctx context.Context, t *flow.Turn) error {
			// What validates a foreign key sorts and hashes with it.
			conn, err := schema.Session(ctx, u.c.Side(side).With(db.Name), map[string]string{"maintenance_work_mem": "256MB"})
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
func (u *Upgrade) snapshot(ctx context.Context, s *survey.Survey, db *survey.Database, sets []string) (*load.Snapshot, error) {
	links := db.LinksOf(sets)
	var snap *link.Snapshot
	var marks map[string]trust.LinkMark
	err := u.c.Sessions.Do(ctx, links[0].To.Server, func(to *pgx.Conn) error {
		return cutover.DropLinks(ctx, nil, to, links)
	})
	if err == nil {
		err = u.c.Sessions.Do(ctx, links[0].From.Server, func(conn *pgx.Conn) error {
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
	if err := u.trust.MarkLinks(ctx, db, links, marks, snap.Point); err != nil {
		return nil, errors.Join(err, snap.Release(context.WithoutCancel(ctx)))
	}
	return &load.Snapshot{Name: snap.Name, Point: points, Release: snap.Release}, nil
}

// slot tells the slot of a set as it stands.
func (u *Upgrade) slot(ctx context.Context, s *survey.Survey, db *survey.Database, set string) (pg.LSN, bool, error) {
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

// statisticsSteps gather statistics and fill materialized views, when rows are
// there and are kept in step.
func (u *Upgrade) statisticsSteps(s *survey.Survey, db *survey.Database) []flow.Step {
	// ANALYZE of a partitioned table reaches its partitions.
	tables := slices.DeleteFunc(slices.Clone(db.Inventory.Tables), func(t schema.Table) bool { return t.Partition })
	steps := []flow.Step{load.Analyze(load.Options{New: u.c.New, Database: db.Name, Jobs: u.rb.Copy.Jobs}, tables)}
	if refresh, ok := u.refreshStep(db); ok {
		steps = append(steps, refresh)
	}
	return steps
}

// verifyStep compares every row of a database while both sides move.
func (u *Upgrade) verifyStep(s *survey.Survey, db *survey.Database) flow.Step {
	return flow.Step{
		ID: "verify/" + db.Name, Title: "Compare the rows of " + db.Name, Done: u.wasVerified(s),
		Do: func(ctx context.Context, t *flow.Turn) error {
			results, err := u.compareRows(ctx, s, db, nil, t)
			if err != nil {
				return err
			}
			return differing(s, results)
		},
	}
}

// wasVerified: an upgrade that is ready was compared.
func (u *Upgrade) wasVerified(s *survey.Survey) func(context.Context) (bool, error) {
	return func(context.Context) (bool, error) { return s.Ready(), nil }
}

// differing is the error of a comparison that found differences; nil where it
// found none.
func differing(s *survey.Survey, results []verify.Result) error {
	var bad []string
	for _, r := range results {
		if !r.Equal {
			bad = append(bad, r.Table)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	e := &exit.Error{
		Code: exit.Differences, Says: fmt.Sprintf("old and new differ in %d tables: %v", len(bad), bad),
		Hint: "crossfade verify names the rows; abort and prepare again, or find out who wrote on new",
	}
	if s.Phase == report.PhaseOpen {
		e.Hint = "crossfade verify names the rows; old is closed: what is on old alone was written there by a superuser with session_replication_role = replica, which no fence stops. " +
			"Write it again on new if it is wanted, and delete it on old before a rollback: it would be served again there"
	}
	return e
}

func (u *Upgrade) compareRows(ctx context.Context, s *survey.Survey, db *survey.Database, each func(verify.Result), t *flow.Turn) ([]verify.Result, error) {
	links, _ := db.Directed(s.Serving().Name)
	return u.compareTables(ctx, s, db, links, each, t)
}

// compareTables is compareRows over links of the caller's choice, from the side
// that serves.
func (u *Upgrade) compareTables(ctx context.Context, s *survey.Survey, db *survey.Database, links []link.Link, each func(verify.Result), t *flow.Turn) ([]verify.Result, error) {
	o := verify.Options{
		Old: u.c.Old.With(db.Name), New: u.c.New.With(db.Name), Database: db.Name, Jobs: u.rb.Copy.Jobs, Mode: verify.Mode(u.rb.Verify.Mode),
		Pass:    func(ctx context.Context) (pg.LSN, error) { return u.pass(ctx, db, links) },
		Observe: each,
	}
	if s.Serving().Name == "new" {
		o.Back = true
	}
	for _, set := range db.Sets {
		o.Tables = append(o.Tables, set.Tables...)
	}
	if t != nil {
		o.Progress = func(done, total int64, again int) {
			says := db.Name
			if again > 0 {
				says = fmt.Sprintf("%s: looking again at %d tables that move", db.Name, again)
			}
			t.Progress(done, total, "bytes", says)
		}
	}
	runs, err := s.RunsAnywhere(ctx, db)
	if err != nil {
		return nil, err
	}
	done := u.owners.Read(runs, &o)
	results, err := verify.Run(ctx, o)
	return results, errors.Join(err, done(ctx))
}
