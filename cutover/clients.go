package cutover

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// clients are the sessions of the databases that are not the tool's own.
type clients struct{ *attempt }

// from are the client backends of the databases, on a side, that were there at
// $clock, the tool's own left out.
func (c *clients) from() string {
	dbs := make([]string, len(c.databases))
	for i, db := range c.databases {
		dbs[i] = pg.Literal(db.Name)
	}
	app := pg.Literal(c.app())
	return "FROM pg_stat_activity a WHERE datname IN (" + strings.Join(dbs, ", ") + ") AND backend_type = 'client backend' AND pid <> pg_backend_pid()" +
		" AND application_name <> " + app + " AND application_name NOT LIKE " + app + " || ' %' AND backend_start <= $clock"
}

// endEffect is the statement that terminates every client.
func (c *clients) endEffect(s Side, db string) flow.Effect {
	return c.on(s, db, "SELECT count(pg_terminate_backend(pid)) "+c.from())
}

// endOthersEffect is endEffect without $spared, who wait at the fence or are on
// their way there.
func (c *clients) endOthersEffect() flow.Effect {
	return c.on(c.Closing, c.Home, "SELECT count(pg_terminate_backend(pid)) "+c.from()+" AND pid <> ALL ($spared)")
}

// end terminates every client and waits until they are gone.
func (c *clients) end(ctx context.Context, conn *pgx.Conn, s Side) error {
	clock, err := clock(ctx, conn, s)
	if err != nil {
		return err
	}
	end := c.endEffect(s, "").Fill(map[string]string{"clock": clock})
	return pg.Poll(ctx, 2*time.Millisecond, "client sessions on "+s.Name+" to end", func(ctx context.Context) (bool, error) {
		left, err := count(ctx, conn, s, end)
		return left == 0, err
	})
}

// arrivalTime is how long those who stood at the barrier may take from its end
// to the fence, a few times what a busy machine needs.
const arrivalTime = 100 * time.Millisecond

// endOthers terminates every client but those of waiting, who stood at the
// barrier, and waits until they are gone. Those it sees wait at the fence, where all
// that is left for them to do is to hear that they must go to the other side: each
// that was terminated would be back at once, and take more from the looks after
// close than to let it wait does.
func (c *clients) endOthers(ctx context.Context, conn *pgx.Conn, waiting []int32) error {
	if err := c.begun(ctx, conn); err != nil {
		return err
	}
	clock, err := clock(ctx, conn, c.Closing)
	if err != nil {
		return err
	}
	until := time.Now().Add(arrivalTime)
	return pg.Poll(ctx, 2*time.Millisecond, "client sessions on "+c.Closing.Name+" to end", func(ctx context.Context) (bool, error) {
		var there, coming []int32
		if len(waiting) > 0 {
			err := conn.QueryRow(ctx, `
				SELECT coalesce(array_agg(pid) FILTER (WHERE there), '{}'), coalesce(array_agg(pid) FILTER (WHERE NOT there), '{}')
				FROM (SELECT a.pid, `+c.Part.detained("a.pid")+` there FROM pg_stat_activity a WHERE a.pid = ANY ($1)) w`, waiting).Scan(&there, &coming)
			if err != nil {
				return false, &pg.Error{Doing: "see who waits at the fence", On: c.Closing.Server.String(), Err: err}
			}
		}
		if time.Now().After(until) {
			coming = nil
		}
		left, err := count(ctx, conn, c.Closing, c.endOthersEffect().Fill(map[string]string{"clock": clock, "spared": pidsLiteral(append(there, coming...))}))
		return left == 0 && len(coming) == 0, err
	})
}

// begun waits until every session has begun that was about to when close or its undo
// committed. Such a one may have read the database's settings from before, and is in
// pg_stat_activity only later; the lock that it holds on the database until then is
// seen all the time.
func (c *clients) begun(ctx context.Context, conn *pgx.Conn) error {
	names := make([]string, len(c.databases))
	for i, db := range c.databases {
		names[i] = db.Name
	}
	beginning := func(ctx context.Context) (pids []int32, err error) {
		err = conn.QueryRow(ctx, `
			SELECT coalesce(array_agg(l.pid), '{}') FROM pg_locks l JOIN pg_database d ON d.oid = l.objid
			WHERE l.locktype = 'object' AND l.classid = 'pg_database'::regclass AND l.mode = 'RowExclusiveLock'
			  AND d.datname = ANY ($1) AND l.pid <> pg_backend_pid()`, names).Scan(&pids)
		if err != nil {
			return nil, &pg.Error{Doing: "look for sessions that are about to begin", On: c.Closing.Server.String(), Err: err}
		}
		return pids, nil
	}
	first, err := beginning(ctx)
	if err != nil || len(first) == 0 {
		return err
	}
	return pg.Poll(ctx, 2*time.Millisecond, "sessions on "+c.Closing.Name+" to begin", func(ctx context.Context) (bool, error) {
		now, err := beginning(ctx)
		return !slices.ContainsFunc(now, func(pid int32) bool { return slices.Contains(first, pid) }), err
	})
}

// atBarrier are the clients that wait to write to a table. Others that wait for
// one want to alter it.
func (c *clients) atBarrier(ctx context.Context, conn *pgx.Conn) (pids []int32, err error) {
	sql := strings.ReplaceAll(c.from(), "$clock", "clock_timestamp()")
	err = conn.QueryRow(ctx, "SELECT coalesce(array_agg(pid), '{}') "+sql+" AND wait_event_type = 'Lock' AND wait_event = 'relation'").Scan(&pids)
	if err == nil && len(pids) > 0 { // with many tables pg_locks is long
		err = conn.QueryRow(ctx, `
			SELECT coalesce(array_agg(DISTINCT pid), '{}') FROM pg_locks
			WHERE pid = ANY ($1) AND locktype = 'relation' AND mode = 'RowExclusiveLock' AND NOT granted`, pids).Scan(&pids)
	}
	if err != nil {
		return nil, &pg.Error{Doing: "see who waits at the barrier", On: c.Closing.Server.String(), Err: err}
	}
	return pids, nil
}

// endReadOnly ends, after close was undone, the sessions that began while new ones
// were read-only: they would stay so for as long as they live.
func (c *clients) endReadOnly(ctx context.Context, conn *pgx.Conn) error {
	if err := c.begun(ctx, conn); err != nil {
		return err
	}
	clock, err := clock(ctx, conn, c.Closing)
	if err != nil {
		return err
	}
	end := c.endReadOnlyEffect().Fill(map[string]string{"clock": clock, "closing": c.closing})
	return pg.Poll(ctx, 2*time.Millisecond, "read-only sessions on "+c.Closing.Name+" to end", func(ctx context.Context) (bool, error) {
		left, err := count(ctx, conn, c.Closing, end)
		return left == 0, err
	})
}

// endReadOnlyEffect is endEffect for those that began at $closing or later.
func (c *clients) endReadOnlyEffect() flow.Effect {
	return c.on(c.Closing, c.Home, "SELECT count(pg_terminate_backend(pid)) "+c.from()+" AND backend_start >= $closing")
}

func pidsLiteral(pids []int32) string {
	text := make([]string, len(pids))
	for i, pid := range pids {
		text[i] = fmt.Sprint(pid)
	}
	return pg.Literal("{" + strings.Join(text, ",") + "}")
}

// clock reads a server's clock, as a literal.
func clock(ctx context.Context, conn *pgx.Conn, s Side) (string, error) {
	var now string
	if err := conn.QueryRow(ctx, "SELECT clock_timestamp()::text").Scan(&now); err != nil {
		return "", &pg.Error{Doing: "read the server's clock", On: s.Server.String(), Err: err}
	}
	return pg.Literal(now), nil
}

// count executes an effect that terminates backends, and returns how many.
func count(ctx context.Context, conn *pgx.Conn, s Side, e flow.Effect) (n int, err error) {
	if err := pg.Simple(ctx, conn, e.SQL, []any{&n}, func() error { return nil }); err != nil {
		return 0, &pg.Error{Doing: "end client sessions", On: s.Server.String(), Err: err}
	}
	return n, nil
}
