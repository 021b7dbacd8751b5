package cutover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// close raises the fence in the very sessions that hold the locks, executed in
// every database before the first COMMIT, the decision's database last: the
// row says closed only if all are.
func (x *crossing) close() flow.Step {
	does := []flow.Effect{}
	for _, db := range x.databases {
		for _, sql := range x.raises(db) {
			does = append(does, x.on(x.Closing, db.Name, sql))
		}
	}
	does = append(does, x.on(x.Closing, x.Home, x.Part.Own(closeDecision)))
	for _, db := range x.databases {
		does = append(does, x.on(x.Closing, db.Name, x.whileHeard()))
	}
	does = append(does, x.endOthersEffect())
	does = append(does, x.aheadEffects()...)
	does = append(does, x.flushEffects()...)
	return x.blockedStep(flow.Step{
		ID: "close", Title: "Close " + x.Closing.Name, Does: does, Serves: true,
		Cost: flow.Cost{Base: 40 * time.Millisecond, Table: 12 * time.Microsecond, Sequence: 5 * time.Microsecond, Trips: 8},
		Do: func(ctx context.Context, t *flow.Turn) error {
			waiting, err := x.raise(ctx)
			if err != nil {
				return err
			}
			return x.afterClose(ctx, t, waiting)
		},
		Undo: func(ctx context.Context, _ *flow.Turn) error { return x.flipBack(ctx) },
	})
}

// raises are the statements that close a database, but for the decision's row: from
// the commit on, the fence stops writes, and sessions that begin are read-only, in
// which nextval is refused.
func (x *crossing) raises(db *database) []string {
	// Whatever began by the commit is not read-only, and that comes within max_blocked.
	since := fmt.Sprintf("timestamptz $closing + interval '%d milliseconds'", x.MaxBlocked.Milliseconds())
	if db.Shared {
		since = NobodyEnds
	}
	sql := []string{x.Part.Detain(), x.Part.Raised(x.Upgrade, since)}
	if !db.Shared {
		sql = append(sql, ReadOnly(db.Name))
	}
	return append(sql, db.DisableTriggers...)
}

// raise closes every database, and returns the clients that stood at the barrier.
func (x *crossing) raise(ctx context.Context) (waiting []int32, err error) {
	home, err := x.held(x.Home)
	if err != nil {
		return nil, err
	}
	if x.closing, err = clock(ctx, home, x.Closing); err != nil {
		return nil, err
	}
	err = x.each(ctx, func(ctx context.Context, db *database) error {
		held, err := x.held(db.Name)
		if err != nil {
			return err
		}
		if len(db.DisableTriggers) > 0 {
			// What is disabled now is part of the fingerprint: nothing may have
			// changed before that, and the one after it is what must stay.
			if err := x.samePrint(ctx, db, held); err != nil {
				return err
			}
		}
		sql := x.on(x.Closing, db.Name, strings.Join(x.raises(db), ";\n")).Fill(map[string]string{"closing": x.closing}).SQL
		if err := pg.Exec(ctx, held, sql); err != nil {
			return &pg.Error{Doing: "raise the fence", On: x.Closing.Server.String() + ", database " + db.Name, Err: err}
		}
		if len(db.DisableTriggers) == 0 {
			return nil
		}
		print, err := x.print(ctx, held)
		x.mu.Lock()
		defer x.mu.Unlock()
		db.print = print
		return err
	})
	if err != nil {
		return nil, err
	}
	vars, err := x.vars(x.memory())
	if err != nil {
		return nil, err
	}
	if err := change(ctx, home, x.on(x.Closing, x.Home, x.Part.Own(closeDecision)).Fill(vars)); err != nil {
		return nil, &pg.Error{Doing: "write the decision closed", On: x.Closing.Server.String(), Err: err}
	}
	// Where a part of a database stays, its clients are not sent to the other side
	// as a whole: they are ended, and connect again.
	if !slices.ContainsFunc(x.databases, func(db *database) bool { return db.Shared }) {
		if waiting, err = x.atBarrier(ctx, home); err != nil {
			return nil, err
		}
	}
	return waiting, x.commit(ctx, home)
}

// commit commits every database, the decision's last. The sessions hold no table
// any more then, but read beside the others, and let wait whom the fence stops:
// until clients find the other side open, or for as long as one hears of the tool.
func (x *crossing) commit(ctx context.Context, home *pgx.Conn) error {
	for _, db := range x.databases {
		if db.Name == x.Home {
			continue
		}
		held, err := x.held(db.Name)
		if err != nil {
			return err
		}
		if err := pg.Exec(ctx, held, "COMMIT"); err != nil {
			return &pg.Error{Doing: "close database " + db.Name, On: x.Closing.Server.String(), Err: err}
		}
	}
	tag, err := execTag(ctx, home, "COMMIT")
	if err == nil && tag.String() != "COMMIT" {
		err = fmt.Errorf("the server answered %s", tag)
	}
	if err != nil {
		return &pg.Error{Doing: "close database " + x.Home, On: x.Closing.Server.String(), Err: err}
	}
	return x.each(ctx, func(ctx context.Context, db *database) error {
		held, err := x.held(db.Name)
		if err != nil {
			return err
		}
		e := x.on(x.Closing, db.Name, x.whileHeard()).Fill(map[string]string{"left": ms(x.left())})
		if err := pg.Exec(ctx, held, e.SQL); err != nil {
			return &pg.Error{Doing: "let clients wait at the fence", On: x.Closing.Server.String() + ", database " + db.Name, Err: err}
		}
		return nil
	})
}

// afterClose ends every client session of the closing side that does not wait at
// the fence: it could still use sequences, large objects and what it had read. Then
// it looks once more for everything that may have happened until the end.
func (x *crossing) afterClose(ctx context.Context, t *flow.Turn, waiting []int32) error {
	conn, err := x.onClosing(ctx, x.Home)
	if err != nil {
		return err
	}
	if err := conn.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()").Scan(&x.closed); err != nil {
		return &pg.Error{Doing: "read the position of close", On: x.Closing.Server.String(), Err: err}
	}
	if err := x.endOthers(ctx, conn, waiting); err != nil {
		return err
	}
	return x.each(ctx, func(ctx context.Context, db *database) error {
		conn, err := x.onClosing(ctx, db.Name)
		if err != nil {
			return err
		}
		second, err := x.session(ctx, &db.barrier, x.Closing, db.Name)
		if err != nil {
			return err
		}
		if err := x.through(ctx, conn, db); err != nil {
			return err
		}
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return x.unchanged(ctx, db, x.helped(db, second)...) })
		g.Go(func() error {
			moved, err := x.copyAllSequences(ctx, db)
			if err == nil && moved > 0 {
				t.Note("%d sequences of %s moved while it was being closed", moved, db.Name)
			}
			if err == nil {
				err = x.fenced(ctx, conn, db)
			}
			if err == nil {
				err = x.noLeaks(ctx, conn, db)
			}
			return err
		})
		return g.Wait()
	})
}

// lookAgain sees that the closing side is what it was under the locks, and runs
// the leak detector.
func (x *crossing) lookAgain(ctx context.Context, db *database) error {
	conn, err := x.onClosing(ctx, db.Name)
	if err != nil {
		return err
	}
	if err := x.through(ctx, conn, db); err != nil {
		return err
	}
	if err := x.unchanged(ctx, db, conn); err != nil {
		return err
	}
	if err := x.fenced(ctx, conn, db); err != nil {
		return err
	}
	return x.noLeaks(ctx, conn, db)
}

// helped are sessions of a database, and the one that was opened to help, if there is one.
func (x *crossing) helped(db *database, conns ...*pgx.Conn) []*pgx.Conn {
	x.mu.Lock()
	defer x.mu.Unlock()
	if c := db.beside; c != nil && !c.IsClosed() {
		conns = append(conns, c)
	}
	return conns
}

// unchanged compares the closing side with what was read just before it was
// locked, and under the locks, in one session or several at a time.
func (x *crossing) unchanged(ctx context.Context, db *database, conns ...*pgx.Conn) error {
	if err := x.samePrint(ctx, db, conns...); err != nil {
		return err
	}
	larges, err := x.countLarges(ctx, conns[0])
	if err != nil {
		return err
	}
	var before int64
	if db.larges != nil {
		before = *db.larges
	}
	if larges != before {
		return fmt.Errorf("large objects of %s on %s changed while it was being closed (%d, now %d)", db.Name, x.Closing.Name, before, larges)
	}
	return nil
}

// fenced sees the fence on every table. The fingerprint leaves the tool's own
// out: a DISABLE TRIGGER that stood at the barrier takes the fence off, where no
// other trigger would report it.
func (x *crossing) fenced(ctx context.Context, conn *pgx.Conn, db *database) error {
	open, err := Unarmed(ctx, conn, db.Elsewhere)
	if err != nil {
		return err
	}
	if len(open) > 0 {
		return fmt.Errorf("the fence was taken off %s in %s on %s while it was being closed", strings.Join(open, ", "), db.Name, x.Closing.Name)
	}
	return nil
}

// samePrint wants the catalogs of a database to be what they were when their
// fingerprint was taken last.
func (x *crossing) samePrint(ctx context.Context, db *database, conns ...*pgx.Conn) error {
	print, err := x.print(ctx, conns...)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if print != db.print {
		return fmt.Errorf("the catalogs of %s on %s changed while it was being closed", db.Name, x.Closing.Name)
	}
	return nil
}

// through waits until everybody has ended who stood at the locks for what takes
// a table from others, such as DISABLE TRIGGER: a session that is not ended with
// the clients, because it calls itself as ours do, gets its lock when close
// commits, and what it does is seen only when it has committed, too. It is in
// pg_locks from before close until then. Who has come to the fence has done
// nothing: a TRUNCATE waits there with its lock.
func (x *crossing) through(ctx context.Context, conn *pgx.Conn, db *database) error {
	err := pg.Poll(ctx, 2*time.Millisecond, "who waits for locks of tables to be through", func(ctx context.Context) (done bool, err error) {
		err = conn.QueryRow(ctx, `
			SELECT NOT EXISTS (
			  SELECT FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
			  WHERE l.locktype = 'relation' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
			    AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') AND l.pid <> pg_backend_pid()
			    AND c.relkind IN ('r', 'p') AND c.oid >= 16384 AND NOT `+x.Part.detained("l.pid")+`)`).Scan(&done)
		return done, err
	})
	if err != nil {
		return &pg.Error{Doing: "wait for who stood at the locks", On: x.Closing.Server.String() + ", database " + db.Name, Err: err}
	}
	return nil
}

// flipBack lowers the fence of the closing side again: the decision's database
// first, together with the row, so that from then on nobody can open the other
// side. A row that says open is not touched: then there is only forward.
func (x *crossing) flipBack(ctx context.Context) error {
	if err := x.end(ctx); err != nil {
		return err
	}
	conn, err := x.onClosing(ctx, x.Home)
	if err != nil {
		return err
	}
	if err := x.seenGone(ctx, conn); err != nil {
		return err
	}
	vars, err := x.vars(Memory{})
	if err != nil {
		return err
	}
	var state State
	var at string
	err = conn.QueryRow(ctx, x.Part.Own("SELECT state, at::text FROM crossfade.upgrade WHERE attempt = $1"), x.Attempt).Scan(&state, &at)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // never armed: nothing was closed
	}
	if err != nil {
		return &pg.Error{Doing: "read the decision", On: x.Closing.Server.String(), Err: err}
	}
	if state == Open {
		return errors.New("the decision to open has been taken: there is only forward")
	}
	wasClosed, err := x.closedDatabases(ctx)
	if err != nil {
		return err
	}
	lower := func(db *database) string {
		sql := []string{x.Part.Lowered()}
		if wasClosed && !db.Shared {
			sql = append(sql, db.Reopen)
		}
		return strings.Join(append(sql, db.RestoreTriggers...), ";\n")
	}
	home := x.of(x.Home)
	// One transaction: an UPDATE that finds the row open raises, and nothing is lowered.
	sql := x.Part.Own("DO $void$ BEGIN IF (SELECT state FROM crossfade.upgrade WHERE attempt = ") + vars["attempt"] + " FOR UPDATE) = 'open' THEN RAISE 'the decision to open has been taken'; END IF; END $void$;\n" +
		x.on(x.Closing, x.Home, x.Part.Own(voidDecision)).Fill(vars).SQL + ";\n" + lower(home)
	if err := pg.Exec(ctx, conn, sql); err != nil {
		return &pg.Error{Doing: "lower the fence again", On: x.Closing.Server.String() + ", database " + x.Home, Err: err}
	}
	err = x.each(ctx, func(ctx context.Context, db *database) error {
		if db.Name == x.Home {
			return nil
		}
		conn, err := x.onClosing(ctx, db.Name)
		if err != nil {
			return err
		}
		if err := pg.Exec(ctx, conn, lower(db)); err != nil {
			return &pg.Error{Doing: "lower the fence again", On: x.Closing.Server.String() + ", database " + db.Name, Err: err}
		}
		return nil
	})
	if err != nil || !wasClosed {
		return err
	}
	if x.closing == "" { // another run has closed: its row says when
		x.closing = pg.Literal(at)
	}
	return x.endReadOnly(ctx, conn)
}

// closedDatabases reports whether any database of the closing side is closed.
func (x *crossing) closedDatabases(ctx context.Context) (bool, error) {
	for _, db := range x.databases {
		conn, err := x.onClosing(ctx, db.Name)
		if err != nil {
			return false, err
		}
		if up, err := x.Part.Up(ctx, conn); err != nil || up {
			return up, err
		}
	}
	return false, nil
}

// lowered sees that the fence of the closing side is down in every database,
// before anything that it hangs on is taken away.
func (x *crossing) lowered(ctx context.Context) error {
	for _, db := range x.databases {
		conn, err := x.onClosing(ctx, db.Name)
		if err != nil {
			return err
		}
		up, err := x.Part.Up(ctx, conn)
		if err != nil {
			return err
		}
		if up {
			return x.flipBack(ctx)
		}
	}
	return nil
}

// same wants the server of conn to be the one that the attempt began with.
func (x *crossing) same(ctx context.Context, conn *pgx.Conn, s Side) error {
	id, err := pg.Identify(ctx, conn)
	if err != nil {
		return err
	}
	if id.SystemID != s.Identity.SystemID || id.Timeline != s.Identity.Timeline || id.InRecovery {
		return fmt.Errorf("%s is not the server that this attempt began with: system identifier %s timeline %d, now %s timeline %d (in recovery: %t)",
			s.Server, s.Identity.SystemID, s.Identity.Timeline, id.SystemID, id.Timeline, id.InRecovery)
	}
	return nil
}
