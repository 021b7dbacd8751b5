package cutover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// armLock is how long one CREATE TRIGGER may stand in a table's lock queue.
const armLock = "SET lock_timeout = '50ms'"

// arm puts the open fence on every table of the closing side, refuses DDL, and
// waits for every transaction that was open before: from then on every
// statement that takes a lock on a user table sees the fence.
func (x *crossing) arm() flow.Step {
	row := x.on(x.Closing, x.Home, x.rowBegins())
	does := []flow.Effect{row}
	var undoes []flow.Effect
	for _, db := range x.databases {
		does = append(does, x.on(x.Closing, db.Name, x.Part.Lowered()))
		for _, t := range db.Tables {
			does = append(does, x.on(x.Closing, db.Name, x.Part.TriggerOn(t.SQL())))
		}
		for _, sql := range append(x.guards(db), db.DisableEvents...) {
			does = append(does, x.on(x.Closing, db.Name, sql))
		}
		for _, sql := range append(db.restoreEvents(), x.Part.Unguard()...) {
			undoes = append(undoes, x.on(x.Closing, db.Name, sql))
		}
		for _, t := range db.Tables {
			undoes = append(undoes, x.on(x.Closing, db.Name, TriggerOff(t.SQL())))
		}
	}
	return flow.Step{
		ID: "arm", Title: "Put the open fence on every table of " + x.Closing.Name + " and wait for older transactions", Does: does,
		Cost:   flow.Cost{Base: 30 * time.Millisecond, Table: 80 * time.Microsecond, Trips: 4, Transactions: true},
		Undoes: append(undoes, x.on(x.Closing, x.Home, x.rowEnds())), Done: never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			if x.first.IsZero() {
				x.first = time.Now()
			}
			if err := x.announce(ctx, row); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(ctx, x.remains(), ErrPatience)
			defer cancel()
			err := x.each(ctx, func(ctx context.Context, db *database) error { return x.armDatabase(ctx, t, db) })
			if err == nil || !errors.Is(context.Cause(ctx), ErrPatience) {
				return err
			}
			if who := x.blockers(context.WithoutCancel(ctx)); who != "" {
				err = fmt.Errorf("%w; held up by %s", err, who)
			}
			return err
		},
		Undo: func(ctx context.Context, t *flow.Turn) error {
			if x.rehearsal == nil { // one raises nothing, and must lower nothing
				if err := x.lowered(ctx); err != nil {
					return err
				}
			}
			err := x.each(ctx, func(ctx context.Context, db *database) error {
				conn, err := x.onClosing(ctx, db.Name)
				if err != nil {
					return err
				}
				for _, sql := range db.restoreEvents() {
					if err := pg.Exec(ctx, conn, sql); err != nil {
						return &pg.Error{Doing: pg.Brief(sql), On: x.Closing.Server.String() + ", database " + db.Name, Err: err}
					}
				}
				left, err := x.takeOff(ctx, t, conn, x.Closing, db.Name)
				x.stays(db.Name, left)
				return err
			})
			if err != nil {
				return err
			}
			return x.endRow(ctx)
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

// rowBegins and rowEnds are the statements that write the attempt's row and take
// back what it says.
func (x *crossing) rowBegins() string {
	if x.rehearsal != nil {
		return x.Part.Own(beginRehearsal)
	}
	return x.Part.Own(armDecision)
}

func (x *crossing) rowEnds() string {
	if x.rehearsal != nil {
		return x.Part.Own(endRehearsal + ";\n" + keepRehearsal)
	}
	return x.Part.Own(voidDecision)
}

func (x *crossing) endRow(ctx context.Context) error {
	if x.rehearsal != nil {
		return x.endRehearsal(ctx)
	}
	conn, err := x.onClosing(ctx, x.Home)
	if err != nil {
		return err
	}
	vars, err := x.vars(Memory{})
	if err != nil {
		return err
	}
	return pg.Exec(ctx, conn, x.on(x.Closing, x.Home, x.Part.Own(voidDecision)).Fill(vars).SQL)
}

// guards are the statements that watch DDL. A rehearsal lets it pass, but where
// event triggers that log it are disabled meanwhile: it would go unlogged.
func (x *crossing) guards(db *database) []string {
	if x.rehearsal != nil && len(db.DisableEvents) == 0 {
		return x.Part.lenient()
	}
	return x.Part.Guards(x.Upgrade)
}

// announce opens the sessions of this attempt and writes the row that names them.
func (x *crossing) announce(ctx context.Context, row flow.Effect) error {
	m := Memory{Closing: WhomOf(x.Closing), Opening: WhomOf(x.Opening), RestoreTriggers: x.memory().RestoreTriggers}
	m.WithTraffic = x.rehearsal != nil && x.rehearsal.traffic
	m.Host = Here()
	for _, db := range x.databases {
		for _, s := range []Side{x.Closing, x.Opening} {
			get := x.onClosing
			if s.Name == x.Opening.Name {
				get = x.onOpening
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
	vars, err := x.vars(m)
	if err != nil {
		return err
	}
	conn, err := x.onClosing(ctx, x.Home)
	if err != nil {
		return err
	}
	if err := pg.Exec(ctx, conn, row.Fill(vars).SQL); err != nil {
		if pg.SQLState(err) == "23505" {
			return fmt.Errorf("attempt %d was begun by another run: %w", x.Attempt, err)
		}
		return &pg.Error{Doing: "write the attempt's row in crossfade.upgrade", On: x.Closing.Server.String(), Err: err}
	}
	x.announced = true
	return nil
}

// Here is the machine that the tool runs on, and its pid; "" is not known.
func Here() string {
	h, err := os.Hostname()
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%s, pid %d", h, os.Getpid())
}

// WhomOf is what identifies a side now.
func WhomOf(s Side) Whom { return Whom{System: s.Identity.SystemID, Timeline: s.Identity.Timeline} }

func (x *crossing) armDatabase(ctx context.Context, t *flow.Turn, db *database) error {
	conn, err := x.onClosing(ctx, db.Name)
	if err != nil {
		return err
	}
	if err := pg.Exec(ctx, conn, x.Part.Lowered()); err != nil {
		return &pg.Error{Doing: "make the fence's function", On: x.Closing.Server.String() + ", database " + db.Name, Err: err}
	}
	if err := x.armTables(ctx, t, conn, db); err != nil {
		return err
	}
	for _, sql := range append(x.Part.Unguard(), x.guards(db)...) {
		if err := pg.Exec(ctx, conn, sql); err != nil {
			if pg.SQLState(err) == "42501" {
				t.Note("event triggers may not be created in %s: DDL is not refused, only noticed", db.Name)
				break
			}
			return &pg.Error{Doing: "refuse DDL", On: x.Closing.Server.String() + ", database " + db.Name, Err: err}
		}
	}
	// Nobody's DDL passes from here on, so that none goes unlogged.
	for _, sql := range db.DisableEvents {
		if err := pg.Exec(ctx, conn, sql); err != nil {
			return &pg.Error{Doing: pg.Brief(sql), On: x.Closing.Server.String() + ", database " + db.Name, Err: err}
		}
	}
	return outlive(ctx, t, conn, db.Name, x.app())
}

// armTables puts the trigger on every table that lacks it, those that were
// made since the plan included.
func (x *crossing) armTables(ctx context.Context, t *flow.Turn, conn *pgx.Conn, db *database) error {
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
			switch err := x.armTable(ctx, conn, table); pg.SQLState(err) {
			case "":
				if err != nil && ctx.Err() != nil {
					err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
				}
				if err != nil {
					return &pg.Error{Doing: "put the fence on " + table, On: x.Closing.Server.String() + ", database " + db.Name, Err: err}
				}
			case "55P03", "40P01":
				busy = append(busy, table)
				if err := sleep(ctx, letPass); err != nil {
					return fmt.Errorf("put the fence on %s: %w", strings.Join(busy, ", "), err)
				}
			case "42P01", "3F000": // dropped since
			default:
				return &pg.Error{Doing: "put the fence on " + table, On: x.Closing.Server.String() + ", database " + db.Name, Err: err}
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
func (x *crossing) armTable(ctx context.Context, conn *pgx.Conn, table string) error {
	err := pg.Exec(ctx, conn, x.Part.TriggerOn(table))
	if pg.SQLState(err) == "42710" {
		return pg.Exec(ctx, conn, "ALTER TABLE "+table+" ENABLE TRIGGER "+Trigger)
	}
	return err
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
