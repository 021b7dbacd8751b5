package cutover

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// begin starts the clock of max_blocked.
func (x *crossing) begin() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.blocked.IsZero() {
		x.blocked = time.Now()
	}
}

func (x *crossing) endAttempt() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.blocked = time.Time{}
}

// again turns a failure to pause or to lock into another try from pause on,
// until patience ends. What is no waiting for clients stays what it is.
func (x *crossing) again(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	x.endAttempt()
	if x.remains() <= 0 {
		return fmt.Errorf("%w (%s): %w", ErrPatience, time.Since(x.first).Round(time.Second), err)
	}
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		return err
	}
	x.backoff = min(max(2*x.backoff, 200*time.Millisecond), 5*time.Second)
	from := pauseStep
	if x.quietly() {
		from = quietStep
	}
	return &flow.Again{From: from, Wait: x.backoff, Err: err}
}

// lockEffects are the statements of the barrier of one database. The limits
// are what the server itself does when the tool is gone, stopped or cut off.
func (x *crossing) lockEffects(db *database) []flow.Effect {
	e := []flow.Effect{
		x.on(x.Closing, db.Name, x.whileHeard()+"; SET LOCAL lock_timeout = $lock; SET LOCAL statement_timeout = $statement"),
		x.on(x.Closing, db.Name, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'autovacuum worker'"),
	}
	if len(db.Tables) > 0 {
		e = append(e, x.on(x.Closing, db.Name, "LOCK TABLE "+db.only()+" IN SHARE ROW EXCLUSIVE MODE"))
	}
	return append(e, x.on(x.Closing, db.Name, "SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = $left"))
}

// whileHeard begins a transaction that the server ends by itself, and with it what
// the session holds, when the budget is used up or the tool is not heard of any
// more.
func (x *crossing) whileHeard() string {
	sql := "BEGIN; SET LOCAL idle_in_transaction_session_timeout = $left; SET LOCAL tcp_keepalives_idle = 1; SET LOCAL tcp_keepalives_interval = 1; SET LOCAL tcp_keepalives_count = 3"
	if x.Closing.Version >= 120000 {
		sql += "; SET LOCAL tcp_user_timeout = 3000" // before, keepalives notice it; an idle session is ended at any rate
	}
	return sql
}

// lock is the barrier: one session for each database holds every table, so
// that nobody can write and everybody can read.
func (x *crossing) lock() flow.Step {
	var does []flow.Effect
	for _, db := range x.databases {
		does = append(does, x.lockEffects(db)...)
	}
	return flow.Step{
		ID: "barrier", Title: "Lock every table of " + x.Closing.Name + " against writes", Does: does, Undoes: []flow.Effect{x.endBarrier()}, Done: never, Serves: true,
		Blocks: true, Cost: flow.Cost{Base: 2 * time.Millisecond, Table: 15 * time.Microsecond, Trips: 5, Transactions: true},
		Do: func(ctx context.Context, t *flow.Turn) error {
			x.rehearsal.trying()
			x.begin()
			budget, cancel := x.budget(ctx)
			defer cancel()
			err := x.lockAll(budget)
			if err == nil {
				return nil
			}
			if who := x.blockers(context.WithoutCancel(ctx)); who != "" {
				err = fmt.Errorf("%w; held up by %s", err, who)
			}
			t.Note("could not acquire the locks: %v; writers resumed", err)
			return x.again(ctx, err)
		},
		Undo: func(ctx context.Context, _ *flow.Turn) error {
			x.endAttempt()
			return x.end(ctx)
		},
	}
}

// only are all tables, each without its children, as LOCK TABLE takes them.
func (db *Database) only() string {
	tables := make([]string, len(db.Tables))
	for i, t := range db.Tables {
		tables[i] = t.SQL()
	}
	return "ONLY " + strings.Join(tables, ", ONLY ")
}

func (x *crossing) lockAll(ctx context.Context) error {
	return x.each(ctx, func(ctx context.Context, db *database) error {
		conn, err := x.held(db.Name)
		if err != nil {
			return err
		}
		left := x.left()
		vars := map[string]string{"left": ms(left), "lock": ms(x.lockWait), "statement": ms(min(x.LockTimeout, left))}
		for _, e := range x.lockEffects(db) {
			if err := pg.Exec(ctx, conn, e.Fill(vars).SQL); err != nil {
				return &pg.Error{Doing: "lock the tables", On: x.Closing.Server.String() + ", database " + db.Name, Err: err}
			}
		}
		return nil
	})
}

func ms(d time.Duration) string { return fmt.Sprint(max(d.Milliseconds(), 1)) }

// blockers names who holds a lock on a user table that the barrier wants.
func (x *crossing) blockers(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var all []string
	for _, db := range x.databases {
		conn, err := x.onClosing(ctx, db.Name)
		if err != nil {
			continue
		}
		var who *string
		err = conn.QueryRow(ctx, `
			SELECT string_agg(DISTINCT w, '; ') FROM (SELECT w FROM (
			  SELECT format('pid %s of %s, open for %s: %s', a.pid, coalesce(a.usename::text, a.backend_type), coalesce(date_trunc('milliseconds', now() - a.xact_start)::text, '?'), left(a.query, 80)) w
			  FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
			  WHERE l.locktype = 'relation' AND l.granted AND l.relation >= 16384
			    AND l.mode IN ('RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
			    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
			    AND a.application_name <> $1 AND a.application_name NOT LIKE $1 || ' %' ORDER BY a.xact_start LIMIT 5) b
			UNION ALL SELECT format('the prepared transaction %L of %s', gid, owner) FROM pg_prepared_xacts WHERE database = current_database()) w`, x.app()).Scan(&who)
		if err == nil && who != nil {
			all = append(all, *who)
		}
	}
	return strings.Join(all, "; ")
}

// release ends the sessions of the barrier; their locks go with them.
func (x *crossing) release() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, db := range x.databases {
		if db.barrier == nil {
			continue
		}
		x.released = append(x.released, int32(db.barrier.PgConn().PID()))
		hangUp(db.barrier)
		db.barrier = nil
	}
}

// seenGone sees the backends of the barrier gone that were hung up: one that was
// in the middle of a statement does not notice, and still holds its locks.
func (x *crossing) seenGone(ctx context.Context, conn *pgx.Conn) error {
	x.mu.Lock()
	pids := x.released
	x.released = nil
	x.mu.Unlock()
	if len(pids) == 0 {
		return nil
	}
	return pg.Poll(ctx, 2*time.Millisecond, "the sessions of the barrier to end", func(ctx context.Context) (bool, error) {
		var left int
		err := conn.QueryRow(ctx, `
			SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE pid = ANY ($1::int[]) AND pid <> pg_backend_pid() AND (application_name = $2 OR application_name LIKE $2 || ' %')`, pids, x.app()).Scan(&left)
		if err != nil {
			return false, &pg.Error{Doing: "end the sessions of the barrier", On: x.Closing.Server.String(), Err: err}
		}
		return left == 0, nil
	})
}

// endBarrier terminates those sessions of the barrier ($pids) that still live.
func (x *crossing) endBarrier() flow.Effect {
	return x.on(x.Closing, x.Home, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid = ANY ($pids) AND (application_name = "+pg.Literal(x.app())+" OR application_name LIKE "+pg.Literal(x.app()+" %")+")")
}

// end ends the sessions of the barrier and sees them gone: one that was cut off
// may still execute what it had been sent, in the way of an undo or after it.
func (x *crossing) end(ctx context.Context) error {
	x.mu.Lock()
	var pids []int32
	for _, db := range x.databases {
		if db.barrier != nil {
			pids = append(pids, int32(db.barrier.PgConn().PID()))
		}
	}
	x.mu.Unlock()
	x.release()
	if len(pids) == 0 {
		return nil
	}
	end := x.endBarrier().Fill(map[string]string{"pids": pidsLiteral(pids)}).SQL
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Second, errors.New("5 seconds have passed"))
	defer cancel()
	return pg.Poll(ctx, 5*time.Millisecond, "the sessions of the barrier to end", func(ctx context.Context) (bool, error) {
		conn, err := x.onClosing(ctx, x.Home)
		if err != nil {
			return false, err
		}
		var left int
		if err := pg.Simple(ctx, conn, end, []any{&left}, func() error { return nil }); err != nil {
			return false, &pg.Error{Doing: "end the sessions of the barrier", On: x.Closing.Server.String(), Err: err}
		}
		return left == 0, nil
	})
}

// held returns the session that holds a database's locks. It is never opened
// anew: a session that was lost has let writers in, and nothing that was read
// under its locks is worth anything.
func (x *crossing) held(db string) (*pgx.Conn, error) {
	kept := x.of(db)
	x.mu.Lock()
	defer x.mu.Unlock()
	c := kept.barrier
	if c == nil || c.IsClosed() {
		return nil, fmt.Errorf("the session that held the locks of database %s on %s is gone: writers may have written since", db, x.Closing.Server)
	}
	return c, nil
}
