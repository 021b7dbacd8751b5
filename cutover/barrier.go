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

// barrier is what holds every table of the closing side against writes: one session
// for each database, whose locks go with it.
type barrier struct {
	*attempt
	released []int32 // backends that were hung up, and may still hold their locks
}

// effects are the statements of the barrier of one database. The limits
// are what the server itself does when the tool is gone, stopped or cut off.
func (b *barrier) effects(db *database) []flow.Effect {
	e := []flow.Effect{
		b.on(b.Closing, db.Name, b.whileHeard()+"; SET LOCAL lock_timeout = $lock; SET LOCAL statement_timeout = $statement"),
		b.on(b.Closing, db.Name, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'autovacuum worker'"),
	}
	if len(db.Tables) > 0 {
		e = append(e, b.on(b.Closing, db.Name, "LOCK TABLE "+db.only()+" IN SHARE ROW EXCLUSIVE MODE"))
	}
	return append(e, b.on(b.Closing, db.Name, "SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = $left"))
}

// whileHeard begins a transaction that the server ends by itself, and with it what
// the session holds, when the budget is used up or the tool is not heard of any
// more.
func (b *barrier) whileHeard() string {
	sql := "BEGIN; SET LOCAL idle_in_transaction_session_timeout = $left; SET LOCAL tcp_keepalives_idle = 1; SET LOCAL tcp_keepalives_interval = 1; SET LOCAL tcp_keepalives_count = 3"
	if b.Closing.Version >= 120000 {
		sql += "; SET LOCAL tcp_user_timeout = 3000" // before, keepalives notice it; an idle session is ended at any rate
	}
	return sql
}

// lock makes the barrier: one session for each database holds every table, so
// that nobody can write and everybody can read.
func (b *barrier) lock() flow.Step {
	var does []flow.Effect
	for _, db := range b.databases {
		does = append(does, b.effects(db)...)
	}
	return flow.Step{
		ID: "barrier", Title: "Lock every table of " + b.Closing.Name + " against writes", Does: does, Undoes: []flow.Effect{b.endEffect()}, Done: never, Serves: true,
		Blocks: true, Cost: flow.Cost{Base: 2 * time.Millisecond, Table: 15 * time.Microsecond, Trips: 5, Transactions: true},
		Do: func(ctx context.Context, t *flow.Turn) error {
			b.rehearsal.trying()
			b.begin()
			budget, cancel := b.budget(ctx)
			defer cancel()
			err := b.lockAll(budget)
			if err == nil {
				return nil
			}
			if who := b.blockers(context.WithoutCancel(ctx)); who != "" {
				err = fmt.Errorf("%w; held up by %s", err, who)
			}
			t.Note("could not acquire the locks: %v; writers resumed", err)
			return b.tryAgain(ctx, err)
		},
		Undo: func(ctx context.Context, _ *flow.Turn) error {
			b.endAttempt()
			return b.end(ctx)
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

func (b *barrier) lockAll(ctx context.Context) error {
	return b.each(ctx, func(ctx context.Context, db *database) error {
		conn, err := b.held(db.Name)
		if err != nil {
			return err
		}
		left := b.left()
		vars := map[string]string{"left": ms(left), "lock": ms(b.lockWait), "statement": ms(min(b.LockTimeout, left))}
		for _, e := range b.effects(db) {
			if err := pg.Exec(ctx, conn, e.Fill(vars).SQL); err != nil {
				return &pg.Error{Doing: "lock the tables", On: b.Closing.Server.String() + ", database " + db.Name, Err: err}
			}
		}
		return nil
	})
}

func ms(d time.Duration) string { return fmt.Sprint(max(d.Milliseconds(), 1)) }

// open opens the session that will hold the locks of a database.
func (b *barrier) open(ctx context.Context, db *database) (*pgx.Conn, error) {
	conn, err := b.Closing.Server.With(db.Name).Connect(ctx)
	if err != nil {
		return nil, err
	}
	var deadlock time.Duration
	err = conn.QueryRow(ctx, "SELECT setting::bigint * 1000000 FROM pg_settings WHERE name = 'deadlock_timeout'").Scan(&deadlock)
	b.mu.Lock()
	db.barrier = conn
	// Below deadlock_timeout, so that in a deadlock it is the tool whose
	// wait ends and never the application's.
	b.lockWait = min(b.LockTimeout, deadlock/2)
	b.mu.Unlock()
	if err != nil {
		return nil, &pg.Error{Doing: "read deadlock_timeout", On: b.Closing.Server.String(), Err: err}
	}
	return conn, nil
}

// warm lets the server read into a session of the barrier what the barrier needs
// of its catalogs: that is half of what it costs.
func (b *barrier) warm(ctx context.Context, conn *pgx.Conn, db *database) error {
	e, ok := b.warmEffect(db)
	if !ok {
		return nil
	}
	err := pg.Exec(ctx, conn, e.SQL)
	switch pg.SQLState(err) {
	case "55P03", "42P01", "3F000": // a session has locked a table, or dropped one: the barrier will meet that
		err = pg.Exec(ctx, conn, "ROLLBACK")
	}
	if err != nil {
		return &pg.Error{Doing: "look up the tables", On: b.Closing.Server.String() + ", database " + db.Name, Err: err}
	}
	return nil
}

// warmEffect locks every table as a SELECT does, and lets go at once.
func (b *barrier) warmEffect(db *database) (flow.Effect, bool) {
	if len(db.Tables) == 0 {
		return flow.Effect{}, false
	}
	return b.on(b.Closing, db.Name, "BEGIN; LOCK TABLE "+db.only()+" IN ACCESS SHARE MODE NOWAIT; COMMIT"), true
}

// blockers names who holds a lock on a user table that the barrier wants.
func (b *barrier) blockers(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var all []string
	for _, db := range b.databases {
		conn, err := b.onClosing(ctx, db.Name)
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
			UNION ALL SELECT format('the prepared transaction %L of %s', gid, owner) FROM pg_prepared_xacts WHERE database = current_database()) w`, b.app()).Scan(&who)
		if err == nil && who != nil {
			all = append(all, *who)
		}
	}
	return strings.Join(all, "; ")
}

// release ends the sessions of the barrier; their locks go with them.
func (b *barrier) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, db := range b.databases {
		if db.barrier == nil {
			continue
		}
		b.released = append(b.released, int32(db.barrier.PgConn().PID()))
		hangUp(db.barrier)
		db.barrier = nil
	}
}

// renew makes room for the sessions of another try.
func (b *barrier) renew() {
	b.release()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.released = nil // of earlier attempts: their pids may be others' by now
}

// seenGone sees the backends of the barrier gone that were hung up: one that was
// in the middle of a statement does not notice, and still holds its locks.
func (b *barrier) seenGone(ctx context.Context, conn *pgx.Conn) error {
	b.mu.Lock()
	pids := b.released
	b.released = nil
	b.mu.Unlock()
	if len(pids) == 0 {
		return nil
	}
	return pg.Poll(ctx, 2*time.Millisecond, "the sessions of the barrier to end", func(ctx context.Context) (bool, error) {
		var left int
		err := conn.QueryRow(ctx, `
			SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE pid = ANY ($1::int[]) AND pid <> pg_backend_pid() AND (application_name = $2 OR application_name LIKE $2 || ' %')`, pids, b.app()).Scan(&left)
		if err != nil {
			return false, &pg.Error{Doing: "end the sessions of the barrier", On: b.Closing.Server.String(), Err: err}
		}
		return left == 0, nil
	})
}

// endEffect terminates those sessions of the barrier ($pids) that still live.
func (b *barrier) endEffect() flow.Effect {
	return b.on(b.Closing, b.Home, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid = ANY ($pids) AND (application_name = "+pg.Literal(b.app())+" OR application_name LIKE "+pg.Literal(b.app()+" %")+")")
}

// end ends the sessions of the barrier and sees them gone: one that was cut off
// may still execute what it had been sent, in the way of an undo or after it.
func (b *barrier) end(ctx context.Context) error {
	b.mu.Lock()
	var pids []int32
	for _, db := range b.databases {
		if db.barrier != nil {
			pids = append(pids, int32(db.barrier.PgConn().PID()))
		}
	}
	b.mu.Unlock()
	b.release()
	if len(pids) == 0 {
		return nil
	}
	end := b.endEffect().Fill(map[string]string{"pids": pidsLiteral(pids)}).SQL
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Second, errors.New("5 seconds have passed"))
	defer cancel()
	return pg.Poll(ctx, 5*time.Millisecond, "the sessions of the barrier to end", func(ctx context.Context) (bool, error) {
		conn, err := b.onClosing(ctx, b.Home)
		if err != nil {
			return false, err
		}
		var left int
		if err := pg.Simple(ctx, conn, end, []any{&left}, func() error { return nil }); err != nil {
			return false, &pg.Error{Doing: "end the sessions of the barrier", On: b.Closing.Server.String(), Err: err}
		}
		return left == 0, nil
	})
}

// held returns the session that holds a database's locks. It is never opened
// anew: a session that was lost has let writers in, and nothing that was read
// under its locks is worth anything.
func (b *barrier) held(db string) (*pgx.Conn, error) {
	kept := b.of(db)
	b.mu.Lock()
	defer b.mu.Unlock()
	c := kept.barrier
	if c == nil || c.IsClosed() {
		return nil, fmt.Errorf("the session that held the locks of database %s on %s is gone: writers may have written since", db, b.Closing.Server)
	}
	return c, nil
}
