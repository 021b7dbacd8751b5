package upgrade

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"crossfade/cutover"
	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/load"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/verify"

	"github.com/jackc/pgx/v5"
)

// globalsStep makes on new the roles, memberships, settings and databases that
// it lacks. What it is about to make is remembered first: abort drops nothing
// else.
func (u *Upgrade) globalsStep(ctx context.Context, s *survey) (flow.Step, error) {
	names := make([]string, len(s.databases))
	for i, db := range s.databases {
		names[i] = db.name
	}
	read := func(ctx context.Context) ([]schema.Global, error) {
		var all []schema.Global
		err := u.sessions.Do(ctx, u.old, func(old *pgx.Conn) error {
			return u.sessions.Do(ctx, u.new, func(fresh *pgx.Conn) error {
				var err error
				all, _, err = schema.Globals(ctx, old, fresh, names)
				return err
			})
		})
		return all, err
	}
	all, err := read(ctx)
	if err != nil {
		return flow.Step{}, err
	}
	does := []flow.Effect{effect("old", s.home, u.part.Own(keepMemory))}
	for _, g := range all {
		does = append(does, g.Effect)
	}
	return flow.Step{
		ID: "globals", Title: "Make roles, settings and databases on new", Does: does,
		Done: func(ctx context.Context) (bool, error) { return len(all) == 0, nil },
		Do: func(ctx context.Context, _ *flow.Turn) error {
			err := u.remember(ctx, s, func(m *cutover.Memory) {
				for _, g := range all {
					if g.Creates && !slices.Contains(m.Made, g.Key) {
						m.Made = append(m.Made, g.Key)
					}
					if !g.Creates && g.Undo.SQL != "" && len(g.UndoVars) == 0 && !slices.Contains(m.Undo, g.Undo.SQL) {
						m.Undo = append(m.Undo, g.Undo.SQL)
					}
				}
			})
			if err != nil {
				return err
			}
			for _, g := range all {
				if err := u.fleet().Do(ctx, g.Effect.Fill(g.Vars)); err != nil {
					return err
				}
			}
			return nil
		},
	}, nil
}

// stages are the steps that bring one database's schema and rows over.
type stages struct {
	before, copy, after flow.Step
}

// schemaStages dumps the schema of a database as it is now and plans what is
// restored when: what rows need before them, indexes as soon as their table is
// loaded, the rest behind all rows and before anything is applied, because a
// foreign key can be validated only over one consistent state.
func (u *Upgrade) schemaStages(ctx context.Context, s *survey, db *database) (stages, error) {
	var st stages
	program, err := u.program("pg_dump", s.new.Identity.Major())
	if err != nil {
		return st, err
	}
	entries, commands, err := schema.Dump(ctx, u.old.With(db.name), program, db.apart)
	if err != nil {
		return st, fmt.Errorf("dump the schema of database %s: %w", db.name, err)
	}
	entries = db.withoutAttached(entries)
	before := schema.Entries(entries, schema.Before)
	after := schema.Entries(entries, schema.Identify, schema.Index, schema.Foreign, schema.Late)
	st.before = u.restoreStep("schema/"+db.name, "Make the schema of "+db.name+" on new", db, before, commands)
	o := load.Options{
		Old: u.old, New: u.new, Database: db.name, Version: s.old.Version, Encoding: db.encoding, Sets: db.sets,
		Jobs: u.rb.Copy.Jobs, IndexJobs: u.rb.Copy.IndexJobs, Chunk: u.rb.Copy.Chunk, Pace: u.pace,
		Snapshot:    func(ctx context.Context, sets []string) (*load.Snapshot, error) { return u.snapshot(ctx, s, db, sets) },
		SlotEffects: append(link.SlotEffects(db.links), markEffects(db.name, db.links)...),
		Slot:        func(ctx context.Context, set string) (pg.LSN, bool, error) { return u.slot(ctx, s, db, set) },
	}
	o.Assign(entries)
	st.copy = load.Step(o)
	st.after = u.restoreStep("constraints/"+db.name, "Make constraints, triggers and the rest of "+db.name+" on new", db, after, nil)
	return st, nil
}

// withoutAttached leaves out the indexes that a partition made since prepare
// gets by being attached to its table, which has them on new already.
func (db *database) withoutAttached(entries []schema.Entry) []schema.Entry {
	later := map[string]bool{}
	for _, set := range db.sets {
		for _, t := range set.Tables {
			later[t.SQL()] = t.Partition && strings.HasPrefix(set.Name, laterSet)
		}
	}
	attached := map[string]bool{}
	gets := func(e schema.Entry) bool {
		if !later[e.Table] || e.Stage != schema.Identify && e.Stage != schema.Index {
			return false
		}
		for _, a := range entries {
			if a.Type == "INDEX ATTACH" && a.Schema == e.Schema && (e.Name == a.Name || strings.HasSuffix(e.Name, " "+a.Name)) {
				attached[a.Key()] = true
				return true
			}
		}
		return false
	}
	kept := slices.DeleteFunc(slices.Clone(entries), gets)
	return slices.DeleteFunc(kept, func(e schema.Entry) bool { return e.Type == "INDEX ATTACH" && attached[e.Key()] })
}

func (u *Upgrade) restoreStep(id, title string, db *database, entries []schema.Entry, commands []flow.Effect) flow.Step {
	return flow.Step{
		ID: id, Title: title, Does: append(slices.Clone(commands), schema.RestoreEffects(entries, "new", db.name)...),
		Done: func(ctx context.Context) (bool, error) {
			done := false
			err := u.sessions.Do(ctx, u.new.With(db.name), func(conn *pgx.Conn) error {
				marks, err := schema.Marks(ctx, conn, "toc ")
				done = err == nil
				for _, e := range entries {
					done = done && marks[e.Key()]
				}
				return err
			})
			if pg.SQLState(err) == "3D000" {
				return false, nil
			}
			return done, err
		},
		Do: func(ctx context.Context, t *flow.Turn) error {
			// What validates a foreign key sorts and hashes with it.
			conn, err := schema.Session(ctx, u.new.With(db.name), map[string]string{"maintenance_work_mem": "256MB"})
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

func (db *database) linksOf(sets []string) []link.Link {
	var some []link.Link
	for _, l := range db.links {
		if slices.Contains(sets, l.Set) {
			some = append(some, l)
		}
	}
	return some
}

// snapshot makes the slots of sets anew and exports their snapshot. Their
// subscriptions, of a copy that was begun before, are taken away first.
func (u *Upgrade) snapshot(ctx context.Context, s *survey, db *database, sets []string) (*load.Snapshot, error) {
	links := db.linksOf(sets)
	var snap *link.Snapshot
	var marks map[string]linkMark
	err := u.sessions.Do(ctx, u.new.With(db.name), func(to *pgx.Conn) error {
		return cutover.DropLinks(ctx, nil, to, links)
	})
	if err == nil {
		err = u.sessions.Do(ctx, u.old.With(db.name), func(conn *pgx.Conn) error {
			var err error
			if marks, err = readPublished(ctx, conn, links); err != nil {
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
	if err := u.markLinks(ctx, db, links, marks, snap.Point); err != nil {
		return nil, errors.Join(err, snap.Release(context.WithoutCancel(ctx)))
	}
	return &load.Snapshot{Name: snap.Name, Point: points, Release: snap.Release}, nil
}

// slot tells the slot of a set as it stands.
func (u *Upgrade) slot(ctx context.Context, s *survey, db *database, set string) (pg.LSN, bool, error) {
	links := db.linksOf([]string{set})
	at, err := u.positions(ctx, s, db.name, links)
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
func (u *Upgrade) statisticsSteps(s *survey, db *database) []flow.Step {
	// ANALYZE of a partitioned table reaches its partitions.
	tables := slices.DeleteFunc(slices.Clone(db.inventory.Tables), func(t schema.Table) bool { return t.Partition })
	steps := []flow.Step{load.Analyze(load.Options{New: u.new, Database: db.name, Jobs: u.rb.Copy.Jobs}, tables)}
	if refresh, ok := u.refreshStep(db); ok {
		steps = append(steps, refresh)
	}
	return steps
}

// verifyStep compares every row of a database while both sides move.
func (u *Upgrade) verifyStep(s *survey, db *database) flow.Step {
	return flow.Step{
		ID: "verify/" + db.name, Title: "Compare the rows of " + db.name, Done: u.wasVerified(s),
		Do: func(ctx context.Context, t *flow.Turn) error {
			results, err := u.compareRows(ctx, s, db, nil, t)
			if err != nil {
				return err
			}
			return differing(results)
		},
	}
}

// wasVerified: an upgrade that is ready was compared.
func (u *Upgrade) wasVerified(s *survey) func(context.Context) (bool, error) {
	return func(context.Context) (bool, error) { return s.ready(), nil }
}

func differing(results []verify.Result) error {
	var bad []string
	for _, r := range results {
		if !r.Equal {
			bad = append(bad, r.Table)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return &ExitError{
		Code: ExitDifferences, Says: fmt.Sprintf("old and new differ in %d tables: %v", len(bad), bad),
		Hint: "crossfade verify names the rows; abort and prepare again, or find out who wrote on new",
	}
}

func (u *Upgrade) compareRows(ctx context.Context, s *survey, db *database, each func(verify.Result), t *flow.Turn) ([]verify.Result, error) {
	links := db.links
	if s.serving().Name == "new" {
		links = db.way
	}
	o := verify.Options{
		Old: u.old.With(db.name), New: u.new.With(db.name), Database: db.name, Jobs: u.rb.Copy.Jobs, Mode: verify.Mode(u.rb.Verify.Mode),
		Pass:    func(ctx context.Context) (pg.LSN, error) { return u.pass(ctx, db, links) },
		Observe: each,
	}
	if s.serving().Name == "new" {
		o.Back = true
	}
	for _, set := range db.sets {
		o.Tables = append(o.Tables, set.Tables...)
	}
	if t != nil {
		o.Progress = func(done, total int64, again int) {
			says := db.name
			if again > 0 {
				says = fmt.Sprintf("%s: looking again at %d tables that move", db.name, again)
			}
			t.Progress(done, total, "bytes", says)
		}
	}
	return verify.Run(ctx, o)
}
