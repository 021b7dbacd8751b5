package cutover

import (
	"context"
	"fmt"
	"strings"
	"time"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// The fence is a statement trigger on every user table, calling one function
// in each database. The function does nothing while the fence is open and
// raises 25006 when it is closed: replacing it flips every table at once, in
// sessions with prepared statements too. Triggers fire for origin sessions
// only, so that apply workers pass.
const (
	// Trigger is the name of the fence's trigger on user tables.
	Trigger = "crossfade_fence"
	// Guards are the event triggers that refuse DDL while a crossing is armed.
	ddlGuard, dropGuard, startGuard = "crossfade_ddl", "crossfade_ddl_drop", "crossfade_ddl_start"
)

// Part tells the tool's own objects of one new cluster from those of another,
// where the tables of old are split: it is the cluster's name, and ends the names
// of the fence's functions, of its sequence and of crossfade.upgrade. "" is for
// an upgrade to one new cluster.
type Part string

// Own is a statement about the tool's objects with the names of this part.
func (p Part) Own(sql string) string {
	if p == "" {
		return sql
	}
	end := "_" + string(p)
	var pairs []string
	for _, name := range []string{
		"crossfade.upgrade", "crossfade.fence", "'fence'", "crossfade.refused", "crossfade.refuse_ddl", "crossfade.refuse_drop", "crossfade.refuse_start", dropGuard, startGuard, ddlGuard,
	} {
		with := name + end
		if quoted, ok := strings.CutSuffix(name, "'"); ok {
			with = quoted + end + "'"
		}
		pairs = append(pairs, name, with)
	}
	return strings.NewReplacer(pairs...).Replace(sql)
}

func (p Part) owns(sql []string) []string {
	out := make([]string, len(sql))
	for i, q := range sql {
		out[i] = p.Own(q)
	}
	return out
}

// Lowered is the statement that makes or opens the fence's function.
func (p Part) Lowered() string { return p.Own(lowered) }

const lowered = `CREATE OR REPLACE FUNCTION crossfade.fence() RETURNS trigger LANGUAGE plpgsql AS $fence$
BEGIN
  RETURN NULL;
END $fence$`

// NobodyEnds, as the time that Raised takes, ends no session.
const NobodyEnds = "timestamptz '-infinity'"

// Raised is the statement that closes the fence. A client that it stops waits first
// until the session ends that executed Detain: one that was refused at once would
// come back at once, and many of them would take the processors from what they wait
// for. Then a session that began before closing, an expression for a time, ends: it
// is not read-only as those are that begin later, and could use sequences as long as
// it lives. Any other is refused with 25006. The sequence counts what was refused: it
// keeps its value although the statement fails. It is SECURITY DEFINER because
// applications have no right in schema crossfade.
func (p Part) Raised(upgrade, closing string) string {
	return p.Own(`CREATE OR REPLACE FUNCTION crossfade.fence() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $fence$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(hashtext('crossfade.fence'), 0);
  PERFORM nextval('crossfade.refused');
  IF current_setting('default_transaction_read_only') = 'off'
     AND (SELECT backend_start FROM pg_stat_get_activity(pg_backend_pid())) < ` + closing + ` THEN
    PERFORM pg_terminate_backend(pg_backend_pid());
  END IF;
  RAISE EXCEPTION USING ERRCODE = '25006',
    MESSAGE = format('cannot write to %I.%I: this cluster is closed by the upgrade ` + upgrade + `', TG_TABLE_SCHEMA, TG_TABLE_NAME),
    HINT = 'Writes go to the other primary. See: crossfade status';
END $fence$`)
}

// Detain is the statement with which a session lets everybody wait whom the raised
// fence stops in its database, from then until it ends. It takes nothing where
// another session has, and waits for nobody.
func (p Part) Detain() string {
	return p.Own("SELECT pg_try_advisory_lock(hashtext('crossfade.fence'), 0)")
}

// detained is the condition that the backend pid waits there.
func (p Part) detained(pid string) string {
	return p.Own("EXISTS (SELECT FROM pg_locks f WHERE f.pid = " + pid + " AND f.locktype = 'advisory' AND NOT f.granted" +
		" AND f.classid = (hashtext('crossfade.fence')::bigint & 4294967295)::oid AND f.objid = 0)")
}

// Ground are the statements that make what the fence needs in one database.
// raised: the database is closed from its first day.
func (p Part) Ground(upgrade string, raised bool) []string {
	fence := p.Lowered()
	if raised {
		fence = p.Raised(upgrade, NobodyEnds)
	}
	return []string{p.Own("CREATE SEQUENCE IF NOT EXISTS crossfade.refused"), fence}
}

// TriggerOn is the statement that puts the fence on a table.
func (p Part) TriggerOn(table string) string {
	return "CREATE TRIGGER " + Trigger + " BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON " + table + p.Own(" FOR EACH STATEMENT EXECUTE FUNCTION crossfade.fence()")
}

// TriggerOff is the statement that takes the fence off a table.
func TriggerOff(table string) string { return "DROP TRIGGER IF EXISTS " + Trigger + " ON " + table }

// lenient are the statements that watch DDL as Guards do and let it pass: a
// rehearsal refuses nothing.
func (p Part) lenient() []string {
	let := ` RETURNS event_trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $guard$
BEGIN
  NULL;
END $guard$`
	return p.owns(append([]string{
		"CREATE OR REPLACE FUNCTION crossfade.refuse_ddl()" + let, "CREATE OR REPLACE FUNCTION crossfade.refuse_drop()" + let,
		"CREATE OR REPLACE FUNCTION crossfade.refuse_start()" + let,
	}, guarding...))
}

// guarding are the event triggers of the guards.
var guarding = []string{
	"CREATE EVENT TRIGGER " + ddlGuard + " ON ddl_command_end EXECUTE FUNCTION crossfade.refuse_ddl()",
	"CREATE EVENT TRIGGER " + dropGuard + " ON sql_drop EXECUTE FUNCTION crossfade.refuse_drop()",
	"CREATE EVENT TRIGGER " + startGuard + " ON ddl_command_start EXECUTE FUNCTION crossfade.refuse_start()",
}

// Guards are the statements that refuse DDL of everybody else from arm to the
// end of a crossing, and after it where the fence is closed. What happens in a
// session's own temporary schema passes, which is seen when a command has been
// executed. One that commits on its way is refused before it begins, also there:
// otherwise CREATE INDEX CONCURRENTLY would leave an index that is not valid, and DROP
// INDEX CONCURRENTLY would make one so. It is known by its word in the client's
// statement, because no such command runs in a block or a function. A client that may
// try again soon gets 55006; one that must go to the other side 25006, as by the
// fence. What is refused is counted, as the fence does.
func (p Part) Guards(upgrade string) []string {
	raise := `PERFORM nextval('crossfade.refused');
    IF EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
      WHERE n.nspname = 'crossfade' AND p.proname = 'fence' AND p.prosrc LIKE '%RAISE EXCEPTION%') THEN
      RAISE EXCEPTION USING ERRCODE = '25006', MESSAGE = format('cannot execute %s: this cluster is closed by the upgrade ` + upgrade + `', tg_tag),
        HINT = 'Writes go to the other primary. See: crossfade status';
    END IF;
    RAISE EXCEPTION USING ERRCODE = '55006', MESSAGE = format('%s is refused while the upgrade ` + upgrade + ` moves this cluster', tg_tag),
      HINT = 'Try again when the cutover is over. See: crossfade status';`
	return p.owns(append([]string{
		`CREATE OR REPLACE FUNCTION crossfade.refuse_ddl() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $guard$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_event_trigger_ddl_commands() c WHERE c.schema_name IS DISTINCT FROM 'pg_temp') THEN
    ` + raise + `
  END IF;
END $guard$`,
		`CREATE OR REPLACE FUNCTION crossfade.refuse_drop() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $guard$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_event_trigger_dropped_objects() o WHERE o.original AND NOT o.is_temporary) THEN
    ` + raise + `
  END IF;
END $guard$`,
		`CREATE OR REPLACE FUNCTION crossfade.refuse_start() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $guard$
BEGIN
  IF tg_tag = 'REINDEX' OR tg_tag IN ('CREATE INDEX', 'DROP INDEX', 'ALTER TABLE') AND current_query() ILIKE '%concurrently%' THEN
    ` + raise + `
  END IF;
END $guard$`,
	}, guarding...))
}

// Guarded reports whether the guards of a database are there.
func (p Part) Guarded(ctx context.Context, conn *pgx.Conn) (bool, error) {
	there := 0
	err := conn.QueryRow(ctx, p.Own("SELECT count(*) FROM pg_event_trigger WHERE evtname IN ('"+ddlGuard+"', '"+dropGuard+"', '"+startGuard+"')")).Scan(&there)
	if err != nil {
		return false, fmt.Errorf("look whether DDL is refused: %w", err)
	}
	return there == 3, nil
}

// Unguard are the statements that let DDL pass again.
func (p Part) Unguard() []string {
	return p.owns([]string{
		"DROP EVENT TRIGGER IF EXISTS " + ddlGuard, "DROP EVENT TRIGGER IF EXISTS " + dropGuard, "DROP EVENT TRIGGER IF EXISTS " + startGuard,
		"DROP FUNCTION IF EXISTS crossfade.refuse_ddl(); DROP FUNCTION IF EXISTS crossfade.refuse_drop(); DROP FUNCTION IF EXISTS crossfade.refuse_start()",
	})
}

// Unarmed names the user tables of a database without the fence's trigger, or
// whose trigger somebody disabled. Tables of elsewhere, quoted names, are not
// asked for.
func Unarmed(ctx context.Context, conn *pgx.Conn, elsewhere []string) ([]string, error) {
	rows, err := conn.Query(ctx, userTables+` AND `+hashed("t.tgenabled = 'O'")+` IS NOT TRUE ORDER BY 1`, elsewhere)
	if err != nil {
		return nil, fmt.Errorf("look which tables the fence is on: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// armed names the user tables that carry the fence's trigger, those of elsewhere
// left out.
func armed(ctx context.Context, conn *pgx.Conn, elsewhere []string) ([]string, error) {
	rows, err := conn.Query(ctx, userTables+` AND `+hashed("true")+` IS TRUE ORDER BY 1`, elsewhere)
	if err != nil {
		return nil, fmt.Errorf("look which tables the fence is on: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// hashed asks whether a table of userTables has the fence's trigger. Behind IS
// TRUE it stays a subquery that is hashed once. As a join it would go by what is
// known of pg_trigger, where just now nothing was: each table against each.
func hashed(which string) string {
	return `(c.oid IN (SELECT t.tgrelid FROM pg_trigger t WHERE t.tgname = '` + Trigger + `' AND ` + which + `))`
}

// userTables selects the names of every table that clients can write to but
// those of $1, quoted always, as pg.Ident does.
const userTables = `
	SELECT ` + quotedName + `
	FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND (` + quotedName + ` IN (SELECT unnest($1::text[]))) IS NOT TRUE
	  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'crossfade') AND n.nspname !~ '^pg_(toast|temp)'`

const quotedName = `'"' || replace(n.nspname, '"', '""') || '"."' || replace(c.relname, '"', '""') || '"'`

// Up reports whether the fence of a database is closed, by its function.
func (p Part) Up(ctx context.Context, conn *pgx.Conn) (bool, error) {
	var up bool
	err := conn.QueryRow(ctx, p.Own(`SELECT coalesce((SELECT p.prosrc LIKE '%RAISE EXCEPTION%' FROM pg_proc p
		JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'crossfade' AND p.proname = 'fence'), false)`)).Scan(&up)
	if err != nil {
		return false, fmt.Errorf("look whether the fence is up: %w", err)
	}
	return up, nil
}

// Refused counts the writes that the fence of a database has refused.
func (p Part) Refused(ctx context.Context, conn *pgx.Conn) (int64, error) {
	var n int64
	err := conn.QueryRow(ctx, p.Own(`SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM crossfade.refused`)).Scan(&n)
	if pg.Missing(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("count the refused writes: %w", err)
	}
	return n, nil
}

// letPass is how long others are let alone behind a lock that could not be acquired: a
// query on many partitions would else meet the tool's wait at each of them.
const letPass = 100 * time.Millisecond

// DisarmTables drops the fence's trigger from every table of a database, one
// transaction a table, each waiting 50 ms for its lock, tried again for at
// most limit; not from those of elsewhere. It returns the tables where it stays: harmless while the fence
// is open, and taken by the next command.
func DisarmTables(ctx context.Context, conn *pgx.Conn, elsewhere []string, limit time.Duration) ([]string, error) {
	until := time.Now().Add(limit)
	for {
		tables, err := armed(ctx, conn, elsewhere)
		if err != nil || len(tables) == 0 {
			return nil, err
		}
		var left []string
		for i, t := range tables {
			if len(left) > 0 && time.Now().After(until) {
				left = append(left, tables[i:]...)
				break
			}
			err := pg.Exec(ctx, conn, "SET lock_timeout = '50ms'; "+TriggerOff(t))
			switch {
			case err == nil, pg.Missing(err): // dropped since
			case pg.SQLState(err) == "55P03" || pg.SQLState(err) == "40P01":
				left = append(left, t)
				if err := sleep(ctx, letPass); err != nil {
					return nil, err
				}
			default:
				return nil, &pg.Error{Doing: "take the fence off " + t, Err: err}
			}
		}
		if err := pg.Exec(ctx, conn, "SET lock_timeout = 0"); err != nil {
			return left, err
		}
		if len(left) == 0 || time.Now().After(until) {
			return left, nil
		}
	}
}
