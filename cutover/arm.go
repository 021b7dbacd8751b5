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

// armLock is how long one CREATE TRIGGER may stand in a table's lock queue.
const armLock = "SET lock_timeout = '50ms'"

// openFence is the fence while it refuses nothing: it is put on a side before its
// close, and taken off the side that serves.
type openFence struct {
	*attempt
	barrier    *barrier
	fence      *fence
	rehearsing *rehearsing
}

// arm puts the open fence on every table of the closing side, refuses DDL, and
// waits for every transaction that was open before: from then on every
// statement that takes a lock on a user table sees the fence.
func (r *openFence) arm() flow.Step {
	row := r.on(r.Closing, r.Home, r.rowBegins())
	does := []flow.Effect{row}
	var undoes []flow.Effect
	for _, db := range r.databases {
		does = append(does, r.on(r.Closing, db.Name, r.Part.Lowered()))
		for _, t := range db.Tables {
			does = append(does, r.on(r.Closing, db.Name, r.Part.TriggerOn(t.SQL())))
		}
		for _, sql := range append(r.guards(db), db.DisableEvents...) {
			does = append(does, r.on(r.Closing, db.Name, sql))
		}
		for _, sql := range append(db.restoreEvents(), r.Part.Unguard()...) {
			undoes = append(undoes, r.on(r.Closing, db.Name, sql))
		}
		for _, t := range db.Tables {
			undoes = append(undoes, r.on(r.Closing, db.Name, TriggerOff(t.SQL())))
		}
	}
	return flow.Step{
		ID: "arm", Title: "Put the open fence on every table of " + r.Closing.Name + " and wait for older transactions", Does: does,
		Cost:   flow.Cost{Base: 30 * time.Millisecond, Table: 80 * time.Microsecond, Trips: 4, Transactions: true},
		Undoes: append(undoes, r.on(r.Closing, r.Home, r.rowEnds())), Done: never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			if r.first.IsZero() {
				r.first = time.Now()
			}
			if err := r.announce(ctx, row); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(ctx, r.remains(), ErrPatience)
			defer cancel()
			err := r.each(ctx, func(ctx context.Context, db *database) error { return r.armDatabase(ctx, t, db) })
			if err == nil || !errors.Is(context.Cause(ctx), ErrPatience) {
				return err
			}
			if who := r.barrier.blockers(context.WithoutCancel(ctx)); who != "" {
				err = fmt.Errorf("%w; held up by %s", err, who)
			}
			return err
		},
		Undo: func(ctx context.Context, t *flow.Turn) error {
			if r.rehearsal == nil { // one raises nothing, and must lower nothing
				if err := r.fence.lowered(ctx); err != nil {
					return err
				}
			}
			err := r.each(ctx, func(ctx context.Context, db *database) error {
				conn, err := r.onClosing(ctx, db.Name)
				if err != nil {
					return err
				}
				for _, sql := range db.restoreEvents() {
					if err := pg.Exec(ctx, conn, sql); err != nil {
						return &pg.Error{Doing: pg.Brief(sql), On: r.Closing.Server.String() + ", database " + db.Name, Err: err}
					}
				}
				left, err := r.takeOff(ctx, t, conn, r.Closing, db.Name)
				r.rehearsing.stays(db.Name, left)
				return err
			})
			if err != nil {
				return err
			}
			return r.endRow(ctx)
		},
	}
}

// restoreEvents are the statements that put back what DisableEvents has disabled; the triggers
// of tables are disabled by close, which undoes that itself.
func (db *Database) restoreEvents() []string {
	var sql []string
	for _, s := range db.RestoreTriggers {
		if strings.HasPrefix(s, "ALTER EVENT TRIGGER") {
			sql = append(sql, s)
		}
	}
	return sql
}

func (r *openFence) endRow(ctx context.Context) error {
	if r.rehearsal != nil {
		return r.rehearsing.end(ctx)
	}
	conn, err := r.onClosing(ctx, r.Home)
	if err != nil {
		return err
	}
	vars, err := r.vars(Memory{})
	if err != nil {
		return err
	}
	return pg.Exec(ctx, conn, r.on(r.Closing, r.Home, r.Part.Own(voidDecision)).Fill(vars).SQL)
}

// guards are the statements that watch DDL. A rehearsal lets it pass, but where
// event triggers that log it are disabled meanwhile: it would go unlogged.
func (r *openFence) guards(db *database) []string {
	if r.rehearsal != nil && len(db.DisableEvents) == 0 {
		return r.Part.lenient()
	}
	return r.Part.Guards(r.Upgrade)
}

// announce opens the sessions of this attempt and writes the row that names them.
func (r *openFence) announce(ctx context.Context, row flow.Effect) error {
	m := Memory{Closing: WhomOf(r.Closing), Opening: WhomOf(r.Opening), RestoreTriggers: r.memory().RestoreTriggers}
	m.WithTraffic = r.rehearsal != nil && r.rehearsal.traffic
	m.Host = Here()
	for _, db := range r.databases {
		for _, s := range []Side{r.Closing, r.Opening} {
			get := r.onClosing
			if s.Name == r.Opening.Name {
				get = r.onOpening
			}
			conn, err := get(ctx, db.Name)
			if err != nil {
				return err
			}
			one := Session{Side: s.Name}
			if err := conn.QueryRow(ctx, `SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()`).Scan(&one.PID, &one.Started); err != nil {
				return &pg.Error{Doing: "read the session's own start", On: s.Server.String(), Err: err}
			}
			m.Sessions = append(m.Sessions, one)
		}
	}
	vars, err := r.vars(m)
	if err != nil {
		return err
	}
	conn, err := r.onClosing(ctx, r.Home)
	if err != nil {
		return err
	}
	if err := pg.Exec(ctx, conn, row.Fill(vars).SQL); err != nil {
		if pg.SQLState(err) == "23505" {
			return fmt.Errorf("attempt %d was begun by another run: %w", r.Attempt, err)
		}
		return &pg.Error{Doing: "write the attempt's row in crossfade.upgrade", On: r.Closing.Server.String(), Err: err}
	}
	r.announced = true
	return nil
}

func (r *openFence) armDatabase(ctx context.Context, t *flow.Turn, db *database) error {
	conn, err := r.onClosing(ctx, db.Name)
	if err != nil {
		return err
	}
	if err := pg.Exec(ctx, conn, r.Part.Lowered()); err != nil {
		return &pg.Error{Doing: "make the fence's function", On: r.Closing.Server.String() + ", database " + db.Name, Err: err}
	}
	if err := r.armTables(ctx, t, conn, db); err != nil {
		return err
	}
	for _, sql := range append(r.Part.Unguard(), r.guards(db)...) {
		if err := pg.Exec(ctx, conn, sql); err != nil {
			if pg.SQLState(err) == "42501" {
				t.Note("event triggers may not be created in %s: DDL is not refused, only noticed", db.Name)
				break
			}
			return &pg.Error{Doing: "refuse DDL", On: r.Closing.Server.String() + ", database " + db.Name, Err: err}
		}
	}
	// Nobody's DDL passes from here on, so that none goes unlogged.
	for _, sql := range db.DisableEvents {
		if err := pg.Exec(ctx, conn, sql); err != nil {
			return &pg.Error{Doing: pg.Brief(sql), On: r.Closing.Server.String() + ", database " + db.Name, Err: err}
		}
	}
	return outlive(ctx, t, conn, db.Name, r.app())
}

// armTables puts the trigger on every table that lacks it, those that were
// made since the plan included.
func (r *openFence) armTables(ctx context.Context, t *flow.Turn, conn *pgx.Conn, db *database) error {
	if err := pg.Exec(ctx, conn, armLock); err != nil {
		return err
	}
	for try := 0; ; try++ {
		tables, err := Unarmed(ctx, conn, db.Elsewhere)
		if err != nil {
			return err
		}
		var busy []string
		for i, table := range tables {
			switch err := r.armTable(ctx, conn, table); pg.SQLState(err) {
			case "":
				if err != nil && ctx.Err() != nil {
					err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
				}
				if err != nil {
					return &pg.Error{Doing: "put the fence on " + table, On: r.Closing.Server.String() + ", database " + db.Name, Err: err}
				}
			case "55P03", "40P01":
				busy = append(busy, table)
				if err := sleep(ctx, letPass); err != nil {
					return fmt.Errorf("put the fence on %s: %w", strings.Join(busy, ", "), err)
				}
			case "42P01", "3F000": // dropped since
			default:
				return &pg.Error{Doing: "put the fence on " + table, On: r.Closing.Server.String() + ", database " + db.Name, Err: err}
			}
			if len(tables) > 100 && i%100 == 0 {
				t.Progress(int64(i), int64(len(tables)), "tables", db.Name)
			}
		}
		if len(busy) == 0 {
			return pg.Exec(ctx, conn, "SET lock_timeout = 0")
		}
		if try%20 == 19 {
			t.Note("the fence waits for a lock on %s of %s", strings.Join(busy, ", "), db.Name)
		}
	}
}

// armTable replaces a trigger that somebody disabled, too.
func (r *openFence) armTable(ctx context.Context, conn *pgx.Conn, table string) error {
	err := pg.Exec(ctx, conn, r.Part.TriggerOn(table))
	if pg.SQLState(err) == "42710" {
		return pg.Exec(ctx, conn, "ALTER TABLE "+table+" ENABLE TRIGGER "+Trigger)
	}
	return err
}

// disarm takes the triggers and guards off the side that has been opened. It
// costs the application up to 12 % of tiny statements while they are there.
func (r *openFence) disarm() flow.Step {
	var does []flow.Effect
	for _, db := range r.databases {
		for _, sql := range r.Part.Unguard() {
			does = append(does, r.on(r.Opening, db.Name, sql))
		}
		for _, t := range db.Tables {
			does = append(does, r.on(r.Opening, db.Name, TriggerOff(t.SQL())))
		}
	}
	return flow.Step{
		ID: "disarm", Title: "Take the open fence off the tables of " + r.Opening.Name, Does: does, Late: true, Done: never,
		Cost: flow.Cost{Base: 30 * time.Millisecond, Table: 90 * time.Microsecond, Trips: 4},
		Do: func(ctx context.Context, t *flow.Turn) error {
			return r.each(ctx, func(ctx context.Context, db *database) error {
				conn, err := r.onOpening(ctx, db.Name)
				if err != nil {
					return err
				}
				_, err = r.takeOff(ctx, t, conn, r.Opening, db.Name)
				return err
			})
		},
	}
}

// takeOff drops guards and triggers; what stays is reported, not an error.
func (r *openFence) takeOff(ctx context.Context, t *flow.Turn, conn *pgx.Conn, s Side, db string) (left []string, err error) {
	for _, sql := range r.Part.Unguard() {
		if err := pg.Exec(ctx, conn, sql); err != nil {
			return nil, &pg.Error{Doing: "let DDL pass again", On: s.Server.String() + ", database " + db, Err: err}
		}
	}
	left, err = DisarmTables(ctx, conn, r.of(db).Elsewhere, 3*time.Second)
	if len(left) > 0 {
		t.Note("the open fence stays on %s of %s, which are busy; the next command takes it off", strings.Join(left, ", "), db)
	}
	return left, err
}

// outlive waits until every transaction that is open now, prepared ones
// included, has ended: each may have looked at a table before the fence was on
// it, or may have made a table that nobody else can see yet.
func outlive(ctx context.Context, t *flow.Turn, conn *pgx.Conn, db, app string) error {
	var older []string
	err := conn.QueryRow(ctx, `
		SELECT coalesce(array_agg(l.virtualtransaction), '{}') FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
		WHERE l.locktype = 'virtualxid' AND l.granted AND a.datname = current_database() AND a.pid <> pg_backend_pid()
		  AND a.backend_type NOT IN ('autovacuum worker', 'walsender') AND a.application_name <> $1 AND a.application_name NOT LIKE $1 || ' %'`, app).Scan(&older)
	if err != nil {
		return fmt.Errorf("look for open transactions in %s: %w", db, err)
	}
	told := time.Now()
	var who *string
	err = pg.Poll(ctx, 20*time.Millisecond, "transactions that were open before the fence in "+db, func(ctx context.Context) (bool, error) {
		err := conn.QueryRow(ctx, `
			SELECT string_agg(w, '; ') FROM (
			  SELECT format('pid %s of %s (%s), open since %s', a.pid, a.usename, coalesce(nullif(a.application_name, ''), '?'), date_trunc('second', a.xact_start)) w
			  FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
			  WHERE l.locktype = 'virtualxid' AND l.granted AND l.virtualtransaction = ANY ($1)
			  UNION ALL
			  SELECT format('the prepared transaction %L of %s', gid, owner) FROM pg_prepared_xacts WHERE database = current_database()) b`, older).Scan(&who)
		if err == nil && who != nil && time.Since(told) > 5*time.Second {
			told = time.Now()
			t.Note("waiting for older transactions in %s: %s", db, *who)
		}
		return who == nil, err
	})
	if err != nil && who != nil {
		return fmt.Errorf("%w: %s; end it, or try again later", err, *who)
	}
	return err
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
