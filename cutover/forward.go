package cutover

import (
	"context"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// forward are the links to the opening side: they are drained, proven and stopped.
type forward struct {
	*attempt
	fence *fence
}

// canary reads again, under the locks, what the gate had read, writes the
// tool's own row through every set, and reads the fence LSN of each database.
func (fw *forward) canary() flow.Step {
	var does []flow.Effect
	for _, db := range fw.databases {
		if len(db.Links) > 0 {
			does = append(does, link.CanaryEffect(db.Links))
		}
	}
	return fw.blockedStep(flow.Step{
		ID: "canary", Title: "Look again under the locks, and write the canaries", Does: does,
		Cost: flow.Cost{Base: 8 * time.Millisecond, Table: 15 * time.Microsecond, Trips: 5},
		Do: func(ctx context.Context, t *flow.Turn) error {
			if err := fw.fence.lookUnderLocks(ctx); err != nil {
				return err
			}
			return fw.each(ctx, func(ctx context.Context, db *database) error {
				conn, err := fw.onClosing(ctx, db.Name)
				if err != nil {
					return err
				}
				token := link.Token()
				at, err := link.WriteCanary(ctx, conn, db.Links, token)
				if err != nil {
					return err
				}
				fw.mu.Lock()
				defer fw.mu.Unlock()
				db.token, db.fence = token, at
				fw.canaries += len(db.Links)
				return nil
			})
		},
	})
}

// drain waits until the opening side has applied and flushed everything up to
// the fence LSN, in every set.
func (fw *forward) drain() flow.Step {
	var does []flow.Effect
	for _, db := range fw.databases {
		if len(db.Links) > 0 {
			does = append(does, link.CanaryEffect(db.Links))
		}
	}
	return fw.blockedStep(flow.Step{
		ID: "drain", Title: "Wait until " + fw.Opening.Name + " has everything", Does: does,
		Cost: flow.Cost{Base: 6 * time.Millisecond, Set: time.Millisecond, Trips: 6},
		Do: func(ctx context.Context, _ *flow.Turn) error {
			return fw.each(ctx, func(ctx context.Context, db *database) error {
				from, to, err := fw.ends(ctx, db)
				if err != nil {
					return err
				}
				progress, err := link.Drain(ctx, from, to, db.Links, db.token, db.fence)
				fw.mu.Lock()
				defer fw.mu.Unlock()
				for name, at := range progress {
					fw.link(name).origin = at
				}
				return err
			})
		},
	})
}

// again lets the links go on that an earlier attempt has stopped and
// could not start again: nobody else does, and the gates want them.
func (fw *forward) again() flow.Step {
	start := fw.starts()
	return flow.Step{
		ID: "forward/again", Title: "Let the links go on that an undone attempt has left stopped", Does: start, Done: never,
		Do: func(ctx context.Context, _ *flow.Turn) error { return fw.start(ctx, start) },
	}
}

// starts are the statements that let every link of the crossing apply again.
func (fw *forward) starts() []flow.Effect {
	var start []flow.Effect
	for _, db := range fw.databases {
		for _, l := range db.Links {
			start = append(start, l.Enable())
		}
	}
	return start
}

// start executes starts, and remembers for the attempt's row whether links may
// be stopped still.
func (fw *forward) start(ctx context.Context, starts []flow.Effect) error {
	err := fw.run(ctx, starts, nil)
	fw.stopped = err != nil
	return err
}

// stop ends applying on the opening side. The slots stay, so that an
// undo loses nothing.
func (fw *forward) stop() flow.Step {
	var stop []flow.Effect
	start := fw.starts()
	for _, db := range fw.databases {
		for _, l := range db.Links {
			stop = append(stop, l.Disable())
		}
		if len(db.Links) > 0 {
			stop = append(stop, link.EndWorkers(db.Links))
		}
	}
	return fw.blockedStep(flow.Step{
		ID: "forward/stop", Title: "Stop applying on " + fw.Opening.Name, Does: stop, Undoes: start,
		Cost: flow.Cost{Base: 10 * time.Millisecond, Set: 2 * time.Millisecond, Trips: 4},
		Do: func(ctx context.Context, _ *flow.Turn) error {
			fw.stopped = true
			if err := fw.run(ctx, stop, nil); err != nil {
				return err
			}
			return fw.each(ctx, func(ctx context.Context, db *database) error {
				from, to, err := fw.ends(ctx, db)
				if err != nil {
					return err
				}
				return link.WaitStopped(ctx, from, to, db.Links)
			})
		},
		Undo: func(ctx context.Context, _ *flow.Turn) error { return fw.start(ctx, start) },
	})
}

// durable waits until the standbys of the opening side have replayed what it
// has, as far as its synchronous setting demands: nothing that clients see
// after open may be lost by the failover that follows.
func (fw *forward) durable() flow.Step {
	return fw.blockedStep(flow.Step{
		ID: "durable", Title: "Wait until the standbys of " + fw.Opening.Name + " have it too",
		Cost: flow.Cost{Base: 2 * time.Millisecond, Trips: 2},
		Do: func(ctx context.Context, _ *flow.Turn) error {
			conn, err := fw.onOpening(ctx, fw.Home)
			if err != nil {
				return err
			}
			return fw.synchronous(ctx, conn)
		},
	})
}

// synchronous waits until as many standbys as synchronous_standby_names demands
// have flushed the server's position.
func (fw *forward) synchronous(ctx context.Context, conn *pgx.Conn) error {
	var at pg.LSN
	if err := conn.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()").Scan(&at); err != nil {
		return &pg.Error{Doing: "read the position", On: fw.Opening.Server.String(), Err: err}
	}
	return pg.Poll(ctx, 2*time.Millisecond, "the synchronous standbys of "+fw.Opening.Name, func(ctx context.Context) (bool, error) {
		var have, want int
		err := conn.QueryRow(ctx, `
			SELECT count(*) FILTER (WHERE r.sync_state IN ('sync', 'quorum') AND r.flush_lsn >= $1),
			       CASE WHEN current_setting('synchronous_standby_names') = '' THEN 0
			            ELSE coalesce(substring(current_setting('synchronous_standby_names') FROM '(?i)^\s*(?:any|first)?\s*(\d+)\s*\(')::int, 1) END
			FROM pg_stat_replication r`, at).Scan(&have, &want)
		if err != nil {
			return false, &pg.Error{Doing: "look at the synchronous standbys", On: fw.Opening.Server.String(), Err: err}
		}
		return have >= want, nil
	})
}
