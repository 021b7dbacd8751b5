package cutover

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// canary reads again, under the locks, what the gate had read, writes the
// tool's own row through every set, and reads the fence LSN of each database.
func (x *crossing) canary() flow.Step {
	var does []flow.Effect
	for _, db := range x.Databases {
		if len(db.Links) > 0 {
			does = append(does, link.CanaryEffect(db.Links))
		}
	}
	return x.blockedStep(flow.Step{
		ID: "canary", Title: "Look again under the locks, and write the canaries", Does: does,
		Do: func(ctx context.Context, t *flow.Turn) error {
			if err := x.lookUnderLocks(ctx); err != nil {
				return err
			}
			return x.each(ctx, func(ctx context.Context, db *Database) error {
				conn, err := x.near(ctx, db.Name)
				if err != nil {
					return err
				}
				token := link.Token()
				at, err := link.WriteCanary(ctx, conn, db.Links, token)
				if err != nil {
					return err
				}
				x.mu.Lock()
				defer x.mu.Unlock()
				x.tokens[db.Name], x.fence[db.Name] = token, at
				x.canaries += len(db.Links)
				return nil
			})
		},
	})
}

// lookUnderLocks reads the fast gates, and counts the large objects in the
// sessions that hold the locks.
//
// What depends on the catalogs alone, which tables there are and how they look,
// was read just before (meet), together with their fingerprint. That of close
// must still be the same: nothing of it can have changed in between, and to read
// it here, too, would cost the writers as much again.
func (x *crossing) lookUnderLocks(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for _, s := range Look(ctx, x.fast()) {
			if !s.OK {
				return fmt.Errorf("under the locks gate %s was closed: %s", s.ID, s.Says)
			}
		}
		return nil
	})
	g.Go(func() error {
		return x.each(ctx, func(ctx context.Context, db *Database) error {
			held, err := x.held(db.Name)
			if err != nil {
				return err
			}
			larges, err := x.countLarges(ctx, held)
			x.mu.Lock()
			defer x.mu.Unlock()
			x.larges[db.Name] = larges
			return err
		})
	})
	return g.Wait()
}

// print reads the fingerprint of a database's catalogs, in as many sessions at a
// time as it is given.
func (x *crossing) print(ctx context.Context, conns ...*pgx.Conn) (string, error) {
	queries := schema.FingerprintSQL(x.Closing.Version)
	prints := make([]string, len(queries))
	g, ctx := errgroup.WithContext(ctx)
	for n, conn := range conns {
		g.Go(func() error {
			for i := n; i < len(queries); i += len(conns) {
				if err := conn.QueryRow(ctx, queries[i]).Scan(&prints[i]); err != nil {
					return &pg.Error{Doing: "read the fingerprint of the catalogs", On: x.Closing.Server.String(), Err: err}
				}
			}
			return nil
		})
	}
	err := g.Wait()
	return strings.Join(prints, " "), err
}

// countLarges counts the large objects of a database.
func (x *crossing) countLarges(ctx context.Context, conn *pgx.Conn) (n int64, err error) {
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM pg_largeobject_metadata").Scan(&n); err != nil {
		return 0, &pg.Error{Doing: "count the large objects", On: x.Closing.Server.String(), Err: err}
	}
	return n, nil
}

// drain waits until the opening side has applied and flushed everything up to
// the fence LSN, in every set.
func (x *crossing) drain() flow.Step {
	var does []flow.Effect
	for _, db := range x.Databases {
		if len(db.Links) > 0 {
			does = append(does, link.CanaryEffect(db.Links))
		}
	}
	return x.blockedStep(flow.Step{
		ID: "drain", Title: "Wait until " + x.Opening.Name + " has everything", Does: does,
		Do: func(ctx context.Context, _ *flow.Turn) error {
			return x.each(ctx, func(ctx context.Context, db *Database) error {
				from, to, err := x.ends(ctx, db)
				if err != nil {
					return err
				}
				progress, err := link.Drain(ctx, from, to, db.Links, x.tokens[db.Name], x.fence[db.Name])
				x.mu.Lock()
				defer x.mu.Unlock()
				for name, at := range progress {
					x.origins[name] = at
				}
				return err
			})
		},
	})
}

// SetSequences is what schema.SetSequences writes; the values are known only
// when they are read on the closing side.
const SetSequences = "SELECT count(setval(v.name::regclass, v.value, v.called)) FROM (VALUES $sequences) v(name, value, called)"

func (x *crossing) aheadEffects() []flow.Effect {
	if x.rehearsal != nil {
		return nil // they are read, and not set
	}
	var does []flow.Effect
	for _, db := range x.Databases {
		if db.Sequences > 0 {
			does = append(does, x.on(x.Opening, db.Name, SetSequences))
		}
	}
	return does
}

// aheadOfTheWindow sets the sequences once before anybody is blocked, so that
// only those that move meanwhile are written inside, and of those that do not
// nothing but the values is read.
func (x *crossing) aheadOfTheWindow(ctx context.Context) error {
	return x.each(ctx, func(ctx context.Context, db *Database) error {
		x.mu.Lock()
		before := x.seqs[db.Name]
		x.mu.Unlock()
		now, err := x.knowSequences(ctx, db)
		if err != nil {
			return err
		}
		if before != nil { // the gate has read them, a while ago
			x.mu.Lock()
			for _, s := range moved(before, now) {
				x.moving[db.Name+"."+s.SQL()] = true
			}
			x.mu.Unlock()
		}
		_, err = x.setSequences(ctx, db, before, now)
		return err
	})
}

// busy are the sequences of a database that moved between the gate and the
// barrier: those that may be expected to have moved since. All are read when the
// last client is gone.
func (x *crossing) busy(db *Database) []schema.Sequence {
	x.mu.Lock()
	defer x.mu.Unlock()
	var some []schema.Sequence
	for _, s := range x.seqs[db.Name] {
		if x.moving[db.Name+"."+s.SQL()] {
			some = append(some, s)
		}
	}
	return some
}

// knowSequences reads all of the sequences of a database, on both sides.
func (x *crossing) knowSequences(ctx context.Context, db *Database) ([]schema.Sequence, error) {
	from, to, err := x.ends(ctx, db)
	if err != nil {
		return nil, err
	}
	now, err := schema.ReadSequences(ctx, from)
	if err != nil {
		return nil, err
	}
	theirs, err := schema.ReadSequences(ctx, to)
	if err != nil {
		return nil, err
	}
	at := make(map[string]schema.Sequence, len(theirs))
	for _, s := range theirs {
		at[s.SQL()] = s
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.theirs[db.Name] = at
	return db.ours(now), nil
}

// copyAllSequences is copySequences for every sequence. There are no others than
// those that are known: from arm on nobody makes any, and the fingerprint would
// tell.
func (x *crossing) copyAllSequences(ctx context.Context, db *Database) (int, error) {
	x.mu.Lock()
	known := x.seqs[db.Name]
	x.mu.Unlock()
	if known != nil {
		return x.copySequences(ctx, db, known)
	}
	now, err := x.knowSequences(ctx, db) // this run has not begun the attempt
	if err != nil {
		return 0, err
	}
	return x.setSequences(ctx, db, nil, now)
}

// copySequences writes those of some sequences that moved since the last time,
// reads them back, and returns how many it wrote.
func (x *crossing) copySequences(ctx context.Context, db *Database, some []schema.Sequence) (int, error) {
	if len(some) == 0 {
		return 0, nil
	}
	from, err := x.near(ctx, db.Name)
	if err != nil {
		return 0, err
	}
	now, err := schema.ReadValues(ctx, from, x.Closing.Version, some)
	if err != nil {
		return 0, err
	}
	return x.setSequences(ctx, db, some, now)
}

// setSequences sets those of now that stood elsewhere before, sees that they
// stand there, and remembers where.
func (x *crossing) setSequences(ctx context.Context, db *Database, before, now []schema.Sequence) (int, error) {
	moved := moved(before, now)
	sql, n := schema.SetSequences(moved, x.Margin)
	if n > 0 {
		to, err := x.away(ctx, db.Name)
		if err != nil {
			return 0, err
		}
		if x.rehearsal == nil {
			if err := pg.Exec(ctx, to, sql); err != nil {
				return 0, &pg.Error{Doing: "set the sequences", On: x.Opening.Server.String() + ", database " + db.Name, Err: err}
			}
		}
		x.mu.Lock()
		theirs := x.theirs[db.Name]
		x.mu.Unlock()
		var there []schema.Sequence
		for _, s := range moved {
			if t, ok := theirs[s.SQL()]; ok {
				there = append(there, t)
			}
		}
		back, err := schema.ReadValues(ctx, to, x.Opening.Version, there)
		if err != nil {
			return 0, err
		}
		if behind := schema.Stale(moved, back, x.Margin); x.rehearsal == nil && len(behind) > 0 {
			return 0, fmt.Errorf("sequences of %s on %s do not stand where they were set: %v", db.Name, x.Opening.Name, behind)
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(now) >= len(x.seqs[db.Name]) {
		x.seqs[db.Name] = now
		return n, nil
	}
	at := make(map[uint32]schema.Sequence, len(now))
	for _, s := range now {
		at[s.OID] = s
	}
	all := slices.Clone(x.seqs[db.Name])
	for i, s := range all {
		if t, ok := at[s.OID]; ok {
			all[i] = t
		}
	}
	x.seqs[db.Name] = all
	return n, nil
}

// ours are the sequences that move with the database's tables.
func (db *Database) ours(all []schema.Sequence) []schema.Sequence {
	if db.Apart == nil {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(s schema.Sequence) bool { return db.Apart(s.SQL()) })
}

// moved are the sequences of now that stood elsewhere before.
func moved(before, now []schema.Sequence) []schema.Sequence {
	type at struct {
		last   int64
		called bool
	}
	stood := make(map[string]at, len(before))
	for _, s := range before {
		if s.Last != nil {
			stood[s.SQL()] = at{*s.Last, s.Called}
		}
	}
	var m []schema.Sequence
	for _, s := range now {
		if b, ok := stood[s.SQL()]; s.Last != nil && (!ok || b != (at{*s.Last, s.Called})) {
			m = append(m, s)
		}
	}
	return m
}

func (x *crossing) sequences() flow.Step {
	return x.blockedStep(flow.Step{
		ID: "sequences", Title: "Set the sequences that move", Does: x.aheadEffects(),
		Do: func(ctx context.Context, _ *flow.Turn) error {
			return x.each(ctx, func(ctx context.Context, db *Database) error {
				_, err := x.copySequences(ctx, db, x.busy(db))
				return err
			})
		},
	})
}

// forwardAgain lets the links go on that an earlier attempt has stopped and
// could not start again: nobody else does, and the gates want them.
func (x *crossing) forwardAgain() flow.Step {
	start := x.starts()
	return flow.Step{
		ID: "forward/again", Title: "Let the links go on that an undone attempt has left stopped", Does: start, Done: never,
		Do: func(ctx context.Context, _ *flow.Turn) error { return x.start(ctx, start) },
	}
}

// starts are the statements that let every link of the crossing apply again.
func (x *crossing) starts() []flow.Effect {
	var start []flow.Effect
	for _, db := range x.Databases {
		for _, l := range db.Links {
			start = append(start, l.Enable())
		}
	}
	return start
}

// start executes starts, and remembers for the attempt's row whether links may
// be stopped still.
func (x *crossing) start(ctx context.Context, starts []flow.Effect) error {
	err := x.run(ctx, starts, nil)
	x.stopped = err != nil
	return err
}

// forwardStop ends applying on the opening side. The slots stay, so that an
// undo loses nothing.
func (x *crossing) forwardStop() flow.Step {
	var stop []flow.Effect
	start := x.starts()
	for _, db := range x.Databases {
		for _, l := range db.Links {
			stop = append(stop, l.Disable())
		}
		if len(db.Links) > 0 {
			stop = append(stop, link.EndWorkers(db.Links))
		}
	}
	return x.blockedStep(flow.Step{
		ID: "forward/stop", Title: "Stop applying on " + x.Opening.Name, Does: stop, Undoes: start,
		Do: func(ctx context.Context, _ *flow.Turn) error {
			x.stopped = true
			if err := x.run(ctx, stop, nil); err != nil {
				return err
			}
			return x.each(ctx, func(ctx context.Context, db *Database) error {
				from, to, err := x.ends(ctx, db)
				if err != nil {
					return err
				}
				return link.WaitStopped(ctx, from, to, db.Links)
			})
		},
		Undo: func(ctx context.Context, _ *flow.Turn) error { return x.start(ctx, start) },
	})
}

// durable waits until the standbys of the opening side have replayed what it
// has, as far as its synchronous setting demands: nothing that clients see
// after open may be lost by the failover that follows.
func (x *crossing) durable() flow.Step {
	return x.blockedStep(flow.Step{
		ID: "durable", Title: "Wait until the standbys of " + x.Opening.Name + " have it too",
		Do: func(ctx context.Context, _ *flow.Turn) error {
			conn, err := x.away(ctx, x.Home)
			if err != nil {
				return err
			}
			return x.synchronous(ctx, conn)
		},
	})
}

// synchronous waits until as many standbys as synchronous_standby_names demands
// have flushed the server's position.
func (x *crossing) synchronous(ctx context.Context, conn *pgx.Conn) error {
	var at pg.LSN
	if err := conn.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()").Scan(&at); err != nil {
		return &pg.Error{Doing: "read the position", On: x.Opening.Server.String(), Err: err}
	}
	return pg.Poll(ctx, 2*time.Millisecond, "the synchronous standbys of "+x.Opening.Name, func(ctx context.Context) (bool, error) {
		var have, want int
		err := conn.QueryRow(ctx, `
			SELECT count(*) FILTER (WHERE r.sync_state IN ('sync', 'quorum') AND r.flush_lsn >= $1),
			       CASE WHEN current_setting('synchronous_standby_names') = '' THEN 0
			            ELSE coalesce(substring(current_setting('synchronous_standby_names') FROM '(?i)^\s*(?:any|first)?\s*(\d+)\s*\(')::int, 1) END
			FROM pg_stat_replication r`, at).Scan(&have, &want)
		if err != nil {
			return false, &pg.Error{Doing: "look at the synchronous standbys", On: x.Opening.Server.String(), Err: err}
		}
		return have >= want, nil
	})
}
