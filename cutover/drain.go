package cutover

import (
	"context"
	"fmt"
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
	for _, db := range x.databases {
		if len(db.Links) > 0 {
			does = append(does, link.CanaryEffect(db.Links))
		}
	}
	return x.blockedStep(flow.Step{
		ID: "canary", Title: "Look again under the locks, and write the canaries", Does: does,
		Cost: flow.Cost{Base: 8 * time.Millisecond, Table: 15 * time.Microsecond, Trips: 5},
		Do: func(ctx context.Context, t *flow.Turn) error {
			if err := x.lookUnderLocks(ctx); err != nil {
				return err
			}
			return x.each(ctx, func(ctx context.Context, db *database) error {
				conn, err := x.onClosing(ctx, db.Name)
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
				db.token, db.fence = token, at
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
// was read just before (recheck), together with their fingerprint. That of close
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
		return x.each(ctx, func(ctx context.Context, db *database) error {
			held, err := x.held(db.Name)
			if err != nil {
				return err
			}
			larges, err := x.countLarges(ctx, held)
			x.mu.Lock()
			defer x.mu.Unlock()
			db.larges = &larges
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
	for _, db := range x.databases {
		if len(db.Links) > 0 {
			does = append(does, link.CanaryEffect(db.Links))
		}
	}
	return x.blockedStep(flow.Step{
		ID: "drain", Title: "Wait until " + x.Opening.Name + " has everything", Does: does,
		Cost: flow.Cost{Base: 6 * time.Millisecond, Set: time.Millisecond, Trips: 6},
		Do: func(ctx context.Context, _ *flow.Turn) error {
			return x.each(ctx, func(ctx context.Context, db *database) error {
				from, to, err := x.ends(ctx, db)
				if err != nil {
					return err
				}
				progress, err := link.Drain(ctx, from, to, db.Links, db.token, db.fence)
				x.mu.Lock()
				defer x.mu.Unlock()
				for name, at := range progress {
					x.link(name).origin = at
				}
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
	for _, db := range x.databases {
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
	for _, db := range x.databases {
		for _, l := range db.Links {
			stop = append(stop, l.Disable())
		}
		if len(db.Links) > 0 {
			stop = append(stop, link.EndWorkers(db.Links))
		}
	}
	return x.blockedStep(flow.Step{
		ID: "forward/stop", Title: "Stop applying on " + x.Opening.Name, Does: stop, Undoes: start,
		Cost: flow.Cost{Base: 10 * time.Millisecond, Set: 2 * time.Millisecond, Trips: 4},
		Do: func(ctx context.Context, _ *flow.Turn) error {
			x.stopped = true
			if err := x.run(ctx, stop, nil); err != nil {
				return err
			}
			return x.each(ctx, func(ctx context.Context, db *database) error {
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
		Cost: flow.Cost{Base: 2 * time.Millisecond, Trips: 2},
		Do: func(ctx context.Context, _ *flow.Turn) error {
			conn, err := x.onOpening(ctx, x.Home)
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
