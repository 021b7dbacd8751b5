package cutover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// fence is what closes a side, sees that nothing has passed it, and lowers it where
// the close is undone.
type fence struct {
	*attempt
	barrier   *barrier
	clients   *clients
	sequences *sequences
	leaks     *leaks
	gates     *gates
}

// close raises the fence in the very sessions that hold the locks, executed in
// every database before the first COMMIT, the decision's database last: the
// row says closed only if all are.
func (f *fence) close() flow.Step {
	does := []flow.Effect{}
	for _, db := range f.databases {
		for _, sql := range f.raises(db) {
			does = append(does, f.on(f.Closing, db.Name, sql))
		}
	}
	does = append(does, f.on(f.Closing, f.Home, f.Part.Own(closeDecision)))
	for _, db := range f.databases {
		does = append(does, f.on(f.Closing, db.Name, f.barrier.whileHeard()))
	}
	does = append(does, f.clients.endOthersEffect())
	does = append(does, f.sequences.aheadEffects()...)
	does = append(does, f.leaks.flushEffects()...)
	return f.blockedStep(flow.Step{
		ID: "close", Title: "Close " + f.Closing.Name, Does: does, Serves: true,
		Cost: flow.Cost{Base: 40 * time.Millisecond, Table: 12 * time.Microsecond, Sequence: 5 * time.Microsecond, Trips: 8},
		Do: func(ctx context.Context, t *flow.Turn) error {
			waiting, err := f.raise(ctx)
			if err != nil {
				return err
			}
			return f.afterClose(ctx, t, waiting)
		},
		Undo: func(ctx context.Context, _ *flow.Turn) error { return f.flipBack(ctx) },
	})
}

// raises are the statements that close a database, but for the decision's row: from
// the commit on, the fence stops writes, and sessions that begin are read-only, in
// which nextval is refused.
func (f *fence) raises(db *database) []string {
	// Whatever began by the commit is not read-only, and that comes within max_blocked.
	since := fmt.Sprintf("timestamptz $closing + interval '%d milliseconds'", f.MaxBlocked.Milliseconds())
	if db.Shared {
		since = NobodyEnds
	}
	sql := []string{f.Part.Detain(), f.Part.Raised(f.Upgrade, since)}
	if !db.Shared {
		sql = append(sql, ReadOnly(db.Name))
	}
	return append(sql, db.DisableTriggers...)
}

// raise closes every database, and returns the clients that stood at the barrier.
func (f *fence) raise(ctx context.Context) (waiting []int32, err error) {
	home, err := f.barrier.held(f.Home)
	if err != nil {
		return nil, err
	}
	if f.closing, err = clock(ctx, home, f.Closing); err != nil {
		return nil, err
	}
	err = f.each(ctx, func(ctx context.Context, db *database) error {
		held, err := f.barrier.held(db.Name)
		if err != nil {
			return err
		}
		if len(db.DisableTriggers) > 0 {
			// What is disabled now is part of the fingerprint: nothing may have
			// changed before that, and the one after it is what must stay.
			if err := f.samePrint(ctx, db, held); err != nil {
				return err
			}
		}
		sql := f.on(f.Closing, db.Name, strings.Join(f.raises(db), ";\n")).Fill(map[string]string{"closing": f.closing}).SQL
		if err := pg.Exec(ctx, held, sql); err != nil {
			return &pg.Error{Doing: "raise the fence", On: f.Closing.Server.String() + ", database " + db.Name, Err: err}
		}
		if len(db.DisableTriggers) == 0 {
			return nil
		}
		print, err := f.print(ctx, held)
		f.mu.Lock()
		defer f.mu.Unlock()
		db.print = print
		return err
	})
	if err != nil {
		return nil, err
	}
	vars, err := f.vars(f.memory())
	if err != nil {
		return nil, err
	}
	if err := change(ctx, home, f.on(f.Closing, f.Home, f.Part.Own(closeDecision)).Fill(vars)); err != nil {
		return nil, &pg.Error{Doing: "write the decision closed", On: f.Closing.Server.String(), Err: err}
	}
	// Where a part of a database stays, its clients are not sent to the other side
	// as a whole: they are ended, and connect again.
	if !slices.ContainsFunc(f.databases, func(db *database) bool { return db.Shared }) {
		if waiting, err = f.clients.atBarrier(ctx, home); err != nil {
			return nil, err
		}
	}
	return waiting, f.commit(ctx, home)
}

// commit commits every database, the decision's last. The sessions hold no table
// any more then, but read beside the others, and let wait whom the fence stops:
// until clients find the other side open, or for as long as one hears of the tool.
func (f *fence) commit(ctx context.Context, home *pgx.Conn) error {
	for _, db := range f.databases {
		if db.Name == f.Home {
			continue
		}
		held, err := f.barrier.held(db.Name)
		if err != nil {
			return err
		}
		if err := pg.Exec(ctx, held, "COMMIT"); err != nil {
			return &pg.Error{Doing: "close database " + db.Name, On: f.Closing.Server.String(), Err: err}
		}
	}
	tag, err := execTag(ctx, home, "COMMIT")
	if err == nil && tag.String() != "COMMIT" {
		err = fmt.Errorf("the server answered %s", tag)
	}
	if err != nil {
		return &pg.Error{Doing: "close database " + f.Home, On: f.Closing.Server.String(), Err: err}
	}
	return f.each(ctx, func(ctx context.Context, db *database) error {
		held, err := f.barrier.held(db.Name)
		if err != nil {
			return err
		}
		e := f.on(f.Closing, db.Name, f.barrier.whileHeard()).Fill(map[string]string{"left": ms(f.left())})
		if err := pg.Exec(ctx, held, e.SQL); err != nil {
			return &pg.Error{Doing: "let clients wait at the fence", On: f.Closing.Server.String() + ", database " + db.Name, Err: err}
		}
		return nil
	})
}

// afterClose ends every client session of the closing side that does not wait at
// the fence: it could still use sequences, large objects and what it had read. Then
// it looks once more for everything that may have happened until the end.
func (f *fence) afterClose(ctx context.Context, t *flow.Turn, waiting []int32) error {
	conn, err := f.onClosing(ctx, f.Home)
	if err != nil {
		return err
	}
	if err := conn.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()").Scan(&f.closed); err != nil {
		return &pg.Error{Doing: "read the position of close", On: f.Closing.Server.String(), Err: err}
	}
	if err := f.clients.endOthers(ctx, conn, waiting); err != nil {
		return err
	}
	return f.each(ctx, func(ctx context.Context, db *database) error {
		conn, err := f.onClosing(ctx, db.Name)
		if err != nil {
			return err
		}
		second, err := f.session(ctx, &db.barrier, f.Closing, db.Name)
		if err != nil {
			return err
		}
		if err := f.through(ctx, conn, db); err != nil {
			return err
		}
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return f.unchanged(ctx, db, f.helped(db, second)...) })
		g.Go(func() error {
			moved, err := f.sequences.copyAll(ctx, db)
			if err == nil && moved > 0 {
				t.Note("%d sequences of %s moved while it was being closed", moved, db.Name)
			}
			if err == nil {
				err = f.fenced(ctx, conn, db)
			}
			if err == nil {
				err = f.leaks.wantNone(ctx, conn, db)
			}
			return err
		})
		return g.Wait()
	})
}

// lookAgain sees that the closing side is what it was under the locks, and runs
// the leak detector.
func (f *fence) lookAgain(ctx context.Context, db *database) error {
	conn, err := f.onClosing(ctx, db.Name)
	if err != nil {
		return err
	}
	if err := f.through(ctx, conn, db); err != nil {
		return err
	}
	if err := f.unchanged(ctx, db, conn); err != nil {
		return err
	}
	if err := f.fenced(ctx, conn, db); err != nil {
		return err
	}
	return f.leaks.wantNone(ctx, conn, db)
}

// lookUnderLocks reads the fast gates, and counts the large objects in the
// sessions that hold the locks.
//
// What depends on the catalogs alone, which tables there are and how they look,
// was read just before (recheck), together with their fingerprint. That of close
// must still be the same: nothing of it can have changed in between, and to read
// it here, too, would cost the writers as much again.
func (f *fence) lookUnderLocks(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for _, s := range Look(ctx, f.gates.fast()) {
			if !s.OK {
				return fmt.Errorf("under the locks gate %s was closed: %s", s.ID, s.Says)
			}
		}
		return nil
	})
	g.Go(func() error {
		return f.each(ctx, func(ctx context.Context, db *database) error {
			held, err := f.barrier.held(db.Name)
			if err != nil {
				return err
			}
			larges, err := f.countLarges(ctx, held)
			f.mu.Lock()
			defer f.mu.Unlock()
			db.larges = &larges
			return err
		})
	})
	return g.Wait()
}

// print reads the fingerprint of a database's catalogs, in as many sessions at a
// time as it is given.
func (f *fence) print(ctx context.Context, conns ...*pgx.Conn) (string, error) {
	queries := schema.FingerprintSQL(f.Closing.Version)
	prints := make([]string, len(queries))
	g, ctx := errgroup.WithContext(ctx)
	for n, conn := range conns {
		g.Go(func() error {
			for i := n; i < len(queries); i += len(conns) {
				if err := conn.QueryRow(ctx, queries[i]).Scan(&prints[i]); err != nil {
					return &pg.Error{Doing: "read the fingerprint of the catalogs", On: f.Closing.Server.String(), Err: err}
				}
			}
			return nil
		})
	}
	err := g.Wait()
	return strings.Join(prints, " "), err
}

// countLarges counts the large objects of a database.
func (f *fence) countLarges(ctx context.Context, conn *pgx.Conn) (n int64, err error) {
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM pg_largeobject_metadata").Scan(&n); err != nil {
		return 0, &pg.Error{Doing: "count the large objects", On: f.Closing.Server.String(), Err: err}
	}
	return n, nil
}

// helped are sessions of a database, and the one that was opened to help, if there is one.
func (f *fence) helped(db *database, conns ...*pgx.Conn) []*pgx.Conn {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := db.beside; c != nil && !c.IsClosed() {
		conns = append(conns, c)
	}
	return conns
}

// unchanged compares the closing side with what was read just before it was
// locked, and under the locks, in one session or several at a time.
func (f *fence) unchanged(ctx context.Context, db *database, conns ...*pgx.Conn) error {
	if err := f.samePrint(ctx, db, conns...); err != nil {
		return err
	}
	larges, err := f.countLarges(ctx, conns[0])
	if err != nil {
		return err
	}
	var before int64
	if db.larges != nil {
		before = *db.larges
	}
	if larges != before {
		return fmt.Errorf("large objects of %s on %s changed while it was being closed (%d, now %d)", db.Name, f.Closing.Name, before, larges)
	}
	return nil
}

// fenced sees the fence on every table. The fingerprint leaves the tool's own
// out: a DISABLE TRIGGER that stood at the barrier takes the fence off, where no
// other trigger would report it.
func (f *fence) fenced(ctx context.Context, conn *pgx.Conn, db *database) error {
	open, err := Unarmed(ctx, conn, db.Elsewhere)
	if err != nil {
		return err
	}
	if len(open) > 0 {
		return fmt.Errorf("the fence was taken off %s in %s on %s while it was being closed", strings.Join(open, ", "), db.Name, f.Closing.Name)
	}
	return nil
}

// samePrint wants the catalogs of a database to be what they were when their
// fingerprint was taken last.
func (f *fence) samePrint(ctx context.Context, db *database, conns ...*pgx.Conn) error {
	print, err := f.print(ctx, conns...)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if print != db.print {
		return fmt.Errorf("the catalogs of %s on %s changed while it was being closed", db.Name, f.Closing.Name)
	}
	return nil
}

// through waits until everybody has ended who stood at the locks for what takes
// a table from others, such as DISABLE TRIGGER: a session that is not ended with
// the clients, because it calls itself as ours do, gets its lock when close
// commits, and what it does is seen only when it has committed, too. It is in
// pg_locks from before close until then. Who has come to the fence has done
// nothing: a TRUNCATE waits there with its lock.
func (f *fence) through(ctx context.Context, conn *pgx.Conn, db *database) error {
	err := pg.Poll(ctx, 2*time.Millisecond, "who waits for locks of tables to be through", func(ctx context.Context) (done bool, err error) {
		err = conn.QueryRow(ctx, `
			SELECT NOT EXISTS (
			  SELECT FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
			  WHERE l.locktype = 'relation' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
			    AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') AND l.pid <> pg_backend_pid()
			    AND c.relkind IN ('r', 'p') AND c.oid >= 16384 AND NOT `+f.Part.detained("l.pid")+`)`).Scan(&done)
		return done, err
	})
	if err != nil {
		return &pg.Error{Doing: "wait for who stood at the locks", On: f.Closing.Server.String() + ", database " + db.Name, Err: err}
	}
	return nil
}

// flipBack lowers the fence of the closing side again: the decision's database
// first, together with the row, so that from then on nobody can open the other
// side. A row that says open is not touched: then there is only forward.
func (f *fence) flipBack(ctx context.Context) error {
	if err := f.barrier.end(ctx); err != nil {
		return err
	}
	conn, err := f.onClosing(ctx, f.Home)
	if err != nil {
		return err
	}
	if err := f.barrier.seenGone(ctx, conn); err != nil {
		return err
	}
	vars, err := f.vars(Memory{})
	if err != nil {
		return err
	}
	var state State
	var at string
	err = conn.QueryRow(ctx, f.Part.Own("SELECT state, at::text FROM crossfade.upgrade WHERE attempt = $1"), f.Attempt).Scan(&state, &at)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // never armed: nothing was closed
	}
	if err != nil {
		return &pg.Error{Doing: "read the decision", On: f.Closing.Server.String(), Err: err}
	}
	if state == Open {
		return errors.New("the decision to open has been taken: there is only forward")
	}
	wasClosed, err := f.closedDatabases(ctx)
	if err != nil {
		return err
	}
	lower := func(db *database) string {
		sql := []string{f.Part.Lowered()}
		if wasClosed && !db.Shared {
			sql = append(sql, db.Reopen)
		}
		return strings.Join(append(sql, db.RestoreTriggers...), ";\n")
	}
	home := f.of(f.Home)
	// One transaction: an UPDATE that finds the row open raises, and nothing is lowered.
	sql := f.Part.Own("DO $void$ BEGIN IF (SELECT state FROM crossfade.upgrade WHERE attempt = ") + vars["attempt"] + " FOR UPDATE) = 'open' THEN RAISE 'the decision to open has been taken'; END IF; END $void$;\n" +
		f.on(f.Closing, f.Home, f.Part.Own(voidDecision)).Fill(vars).SQL + ";\n" + lower(home)
	if err := pg.Exec(ctx, conn, sql); err != nil {
		return &pg.Error{Doing: "lower the fence again", On: f.Closing.Server.String() + ", database " + f.Home, Err: err}
	}
	err = f.each(ctx, func(ctx context.Context, db *database) error {
		if db.Name == f.Home {
			return nil
		}
		conn, err := f.onClosing(ctx, db.Name)
		if err != nil {
			return err
		}
		if err := pg.Exec(ctx, conn, lower(db)); err != nil {
			return &pg.Error{Doing: "lower the fence again", On: f.Closing.Server.String() + ", database " + db.Name, Err: err}
		}
		return nil
	})
	if err != nil || !wasClosed {
		return err
	}
	if f.closing == "" { // another run has closed: its row says when
		f.closing = pg.Literal(at)
	}
	return f.clients.endReadOnly(ctx, conn)
}

// closedDatabases reports whether any database of the closing side is closed.
func (f *fence) closedDatabases(ctx context.Context) (bool, error) {
	for _, db := range f.databases {
		conn, err := f.onClosing(ctx, db.Name)
		if err != nil {
			return false, err
		}
		if up, err := f.Part.Up(ctx, conn); err != nil || up {
			return up, err
		}
	}
	return false, nil
}

// lowered sees that the fence of the closing side is down in every database,
// before anything that it hangs on is taken away.
func (f *fence) lowered(ctx context.Context) error {
	for _, db := range f.databases {
		conn, err := f.onClosing(ctx, db.Name)
		if err != nil {
			return err
		}
		up, err := f.Part.Up(ctx, conn)
		if err != nil {
			return err
		}
		if up {
			return f.flipBack(ctx)
		}
	}
	return nil
}
