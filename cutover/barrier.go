package cutover

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
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
	from := "traffic/pause"
	if x.rehearsal != nil && !x.rehearsal.traffic {
		from = quietStep
	}
	return &flow.Again{From: from, Wait: x.backoff, Err: err}
}

// mayBegin waits, with nobody blocked, until no write transaction is older
// than half of max_blocked, and none through a pooler older than its PAUSE
// waits: such a one would only use the budget up. It ends those older than
// kill_after.
func (x *crossing) mayBegin(ctx context.Context, t *flow.Turn) error {
	ctx, cancel := context.WithTimeoutCause(ctx, x.remains(), ErrPatience)
	defer cancel()
	told := time.Time{}
	gate, says := "", ""
	err := pg.Poll(ctx, 100*time.Millisecond, "old transactions to end", func(ctx context.Context) (bool, error) {
		gate, says = "", ""
		for _, db := range x.Databases {
			if err := x.kill(ctx, t, db.Name); err != nil {
				return false, err
			}
			said, err := x.closingGate(ctx, x.by[db.Name])
			if err != nil {
				return false, err
			}
			if said != "" {
				gate, says = "closing", said
			}
		}
		if says == "" {
			ok, said, err := x.poolGate(ctx)
			if err != nil {
				return false, err
			}
			if !ok {
				gate, says = "pool", said
			}
		}
		if says != "" && time.Since(told) > 5*time.Second {
			told = time.Now()
			t.Note("not begun yet: %s", says)
		}
		return says == "", nil
	})
	if errors.Is(err, ErrPatience) && says != "" {
		return &ErrGate{[]GateState{{ID: gate, Says: says}}}
	}
	return err
}

// kill ends transactions that write and are older than kill_after.
func (x *crossing) kill(ctx context.Context, t *flow.Turn, db string) error {
	if x.KillAfter <= 0 {
		return nil
	}
	conn, err := x.onClosing(ctx, db)
	if err != nil {
		return err
	}
	var ended *string
	err = conn.QueryRow(ctx, `
		SELECT string_agg(format('pid %s of %s', pid, usename), ', ') FROM (
		  SELECT a.pid, a.usename, pg_terminate_backend(a.pid) FROM pg_stat_activity a
		  WHERE a.datname = current_database() AND a.backend_xid IS NOT NULL AND a.pid <> pg_backend_pid()
		    AND a.backend_type = 'client backend' AND a.application_name <> $2 AND a.application_name NOT LIKE $2 || ' %'
		    AND a.xact_start < now() - make_interval(secs => $1::double precision)) k`, x.KillAfter.Seconds(), x.app()).Scan(&ended)
	if err != nil {
		return &pg.Error{Doing: "end transactions older than kill_after", On: x.Closing.Server.String(), Err: err}
	}
	if ended != nil {
		t.Note("ended transactions older than kill_after (%s) in %s: %s", x.KillAfter, db, *ended)
	}
	return nil
}

// lockEffects are the statements of the barrier of one database. The limits
// are what the server itself does when the tool is gone, stopped or cut off.
func (x *crossing) lockEffects(db *Database) []flow.Effect {
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
	for i := range x.Databases {
		does = append(does, x.lockEffects(&x.Databases[i])...)
	}
	return flow.Step{
		ID: "barrier", Title: "Lock every table of " + x.Closing.Name + " against writes", Does: does, Undoes: []flow.Effect{x.endBarrier()}, Done: never, Serves: true,
		Do: func(ctx context.Context, t *flow.Turn) error {
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

// manyTables is from how many tables of a database on another session is worth it that
// helps after close.
const manyTables = 1000

// meet opens the sessions of the barrier while nobody is blocked yet, takes the
// fingerprint of the catalogs, looks after it at what depends on them alone, and
// sets the sequences once more: what is true then needs not be asked under the
// locks, as long as the fingerprint stays.
func (x *crossing) meet(ctx context.Context, t *flow.Turn) error {
	x.release()
	x.mu.Lock()
	x.released = nil // of earlier attempts: their pids may be others' by now
	x.mu.Unlock()
	err := x.each(ctx, func(ctx context.Context, db *Database) error {
		conn, err := x.Closing.Server.With(db.Name).Connect(ctx)
		if err != nil {
			return err
		}
		var deadlock time.Duration
		err = conn.QueryRow(ctx, "SELECT setting::bigint * 1000000 FROM pg_settings WHERE name = 'deadlock_timeout'").Scan(&deadlock)
		x.mu.Lock()
		x.barrier[db.Name] = conn
		// Below deadlock_timeout, so that in a deadlock it is the tool whose
		// wait ends and never the application's.
		x.lockWait = min(x.LockTimeout, deadlock/2)
		x.mu.Unlock()
		if err != nil {
			return &pg.Error{Doing: "read deadlock_timeout", On: x.Closing.Server.String(), Err: err}
		}
		conns := []*pgx.Conn{conn}
		if len(db.Tables) >= manyTables {
			// Where there is no room for it, one does it all, as of a small database.
			if beside, err := x.conn(ctx, x.beside, x.Closing, db.Name); err == nil {
				conns = append(conns, beside)
			}
		}
		print, err := x.print(ctx, conns...)
		if err != nil {
			return err
		}
		x.mu.Lock()
		x.prints[db.Name] = print
		x.mu.Unlock()
		return x.warm(ctx, conn, db)
	})
	if err != nil {
		return err
	}
	for _, s := range Look(ctx, x.cataloged()) {
		if !s.OK {
			return &ErrGate{[]GateState{s}}
		}
	}
	if err := x.freshen(ctx, t); err != nil {
		return err
	}
	return x.aheadOfTheWindow(ctx)
}

// freshTime is how long slots may take to begin where the server is.
const freshTime = 2 * time.Second

// follows is how often slots are let follow. Where one begins lies before what the
// server wrote down last when the oldest open transaction began: the first time that
// is somewhere before, the second time it is the first time's.
const follows = 2

// freshen lets the slots begin where the server is now, so that there is little
// to be decoded when close looks for leaks. Where that does not come in time, close
// takes longer; where it would take longer than max_blocked, it is undone.
func (x *crossing) freshen(ctx context.Context, t *flow.Turn) error {
	end, ok := x.sender()
	if !ok {
		return nil
	}
	conn, err := x.onClosing(ctx, end.Server.Database())
	if err != nil {
		return err
	}
	late := fmt.Errorf("a canary was not confirmed within %s", freshTime)
	bounded, cancel := context.WithTimeoutCause(ctx, freshTime, late)
	defer cancel()
	for range follows {
		refused, err := end.Follow(ctx, conn)
		if err != nil {
			return err
		}
		if refused != nil {
			t.Note("the slots of %s do not follow at once, so that the look for leaks takes longer: %v", x.Closing.Name, refused)
			return nil
		}
		err = x.confirm(bounded)
		if errors.Is(context.Cause(bounded), late) {
			t.Note("the slots of %s do not follow at once, so that the look for leaks takes longer: %v", x.Closing.Name, late)
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// confirm waits until each link has told the closing side that it has everything
// up to now: that a canary was seen is not enough, because a worker tells so only
// every wal_receiver_status_interval.
func (x *crossing) confirm(ctx context.Context) error {
	return x.each(ctx, func(ctx context.Context, db *Database) error {
		if len(db.Links) == 0 {
			return nil
		}
		from, to, err := x.ends(ctx, db)
		if err != nil {
			return err
		}
		token := link.Token()
		at, err := link.WriteCanary(ctx, from, db.Links, token)
		if err != nil {
			return err
		}
		_, err = link.Drain(ctx, from, to, db.Links, token, at)
		return err
	})
}

// sender is the closing side as a link knows it; false where nothing is sent.
func (x *crossing) sender() (link.End, bool) {
	for _, db := range x.Databases {
		if len(db.Links) > 0 {
			return db.Links[0].From, true
		}
	}
	return link.End{}, false
}

// warm lets the server read into a session of the barrier what the barrier needs
// of its catalogs: that is half of what it costs.
func (x *crossing) warm(ctx context.Context, conn *pgx.Conn, db *Database) error {
	e, ok := x.warmEffect(db)
	if !ok {
		return nil
	}
	err := pg.Exec(ctx, conn, e.SQL)
	switch pg.SQLState(err) {
	case "55P03", "42P01", "3F000": // a session has locked a table, or dropped one: the barrier will meet that
		err = pg.Exec(ctx, conn, "ROLLBACK")
	}
	if err != nil {
		return &pg.Error{Doing: "look up the tables", On: x.Closing.Server.String() + ", database " + db.Name, Err: err}
	}
	return nil
}

// warmEffect locks every table as a SELECT does, and lets go at once.
func (x *crossing) warmEffect(db *Database) (flow.Effect, bool) {
	if len(db.Tables) == 0 {
		return flow.Effect{}, false
	}
	return x.on(x.Closing, db.Name, "BEGIN; LOCK TABLE "+db.only()+" IN ACCESS SHARE MODE NOWAIT; COMMIT"), true
}

// only are all tables, each without its children, as LOCK TABLE takes them.
func (db *Database) only() string {
	tables := make([]string, len(db.Tables))
	for i, t := range db.Tables {
		tables[i] = t.SQL()
	}
	return "ONLY " + strings.Join(tables, ", ONLY ")
}

// meetEffects are what meet changes or locks.
func (x *crossing) meetEffects() []flow.Effect {
	var does []flow.Effect
	for i := range x.Databases {
		if e, ok := x.warmEffect(&x.Databases[i]); ok {
			does = append(does, e)
		}
	}
	if end, ok := x.sender(); ok {
		for range follows {
			does = append(does, end.FollowEffects()...)
			for _, db := range x.Databases {
				if len(db.Links) > 0 {
					does = append(does, link.CanaryEffect(db.Links))
				}
			}
		}
	}
	return append(does, x.aheadEffects()...)
}

func (x *crossing) lockAll(ctx context.Context) error {
	return x.each(ctx, func(ctx context.Context, db *Database) error {
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
	for _, db := range x.Databases {
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
	for db, c := range x.barrier {
		x.released = append(x.released, int32(c.PgConn().PID()))
		hangUp(c)
		delete(x.barrier, db)
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
	for _, c := range x.barrier {
		pids = append(pids, int32(c.PgConn().PID()))
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
	x.mu.Lock()
	defer x.mu.Unlock()
	c := x.barrier[db]
	if c == nil || c.IsClosed() {
		return nil, fmt.Errorf("the session that held the locks of database %s on %s is gone: writers may have written since", db, x.Closing.Server)
	}
	return c, nil
}
