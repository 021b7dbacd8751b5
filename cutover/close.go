package cutover

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// close raises the fence in the very sessions that hold the locks, executed in
// every database before the first COMMIT, the decision's database last: the
// row says closed only if all are.
func (x *crossing) close() flow.Step {
	does := []flow.Effect{}
	for _, db := range x.Databases {
		for _, sql := range x.raises(&db) {
			does = append(does, x.on(x.Closing, db.Name, sql))
		}
	}
	does = append(does, x.on(x.Closing, x.Home, x.Part.Own(closeDecision)))
	for _, db := range x.Databases {
		does = append(does, x.on(x.Closing, db.Name, x.whileHeard()))
	}
	does = append(does, x.endOthersEffect())
	does = append(does, x.aheadEffects()...)
	does = append(does, x.flushEffects()...)
	return x.blockedStep(flow.Step{
		ID: "close", Title: "Close " + x.Closing.Name, Does: does, Serves: true,
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
func (x *crossing) raises(db *Database) []string {
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
	err = x.each(ctx, func(ctx context.Context, db *Database) error {
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
		x.prints[db.Name] = print
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
	if !slices.ContainsFunc(x.Databases, func(db Database) bool { return db.Shared }) {
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
	for _, db := range x.Databases {
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
	return x.each(ctx, func(ctx context.Context, db *Database) error {
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

func (x *crossing) memory() Memory {
	x.mu.Lock()
	defer x.mu.Unlock()
	restore := map[string][]string{}
	for _, db := range x.Databases {
		if len(db.RestoreOpening) > 0 {
			restore[db.Name] = db.RestoreOpening
		}
	}
	return Memory{
		RestoreTriggers: restore, Fence: x.fence, Origins: x.origins, Subs: x.subs, Prints: x.prints, Larges: x.larges,
		Closing: whom(x.Closing), Opening: whom(x.Opening), Standbys: slices.Sorted(maps.Keys(x.streamed)),
	}
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
	return x.each(ctx, func(ctx context.Context, db *Database) error {
		conn, err := x.onClosing(ctx, db.Name)
		if err != nil {
			return err
		}
		second, err := x.conn(ctx, x.barrier, x.Closing, db.Name)
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
func (x *crossing) lookAgain(ctx context.Context, db *Database) error {
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
func (x *crossing) helped(db *Database, conns ...*pgx.Conn) []*pgx.Conn {
	x.mu.Lock()
	defer x.mu.Unlock()
	if c := x.beside[db.Name]; c != nil && !c.IsClosed() {
		conns = append(conns, c)
	}
	return conns
}

// unchanged compares the closing side with what was read just before it was
// locked, and under the locks, in one session or several at a time.
func (x *crossing) unchanged(ctx context.Context, db *Database, conns ...*pgx.Conn) error {
	if err := x.samePrint(ctx, db, conns...); err != nil {
		return err
	}
	larges, err := x.countLarges(ctx, conns[0])
	if err != nil {
		return err
	}
	if larges != x.larges[db.Name] {
		return fmt.Errorf("large objects of %s on %s changed while it was being closed (%d, now %d)", db.Name, x.Closing.Name, x.larges[db.Name], larges)
	}
	return nil
}

// fenced sees the fence on every table. The fingerprint leaves the tool's own
// out: a DISABLE TRIGGER that stood at the barrier takes the fence off, where no
// other trigger would report it.
func (x *crossing) fenced(ctx context.Context, conn *pgx.Conn, db *Database) error {
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
func (x *crossing) samePrint(ctx context.Context, db *Database, conns ...*pgx.Conn) error {
	print, err := x.print(ctx, conns...)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if print != x.prints[db.Name] {
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
func (x *crossing) through(ctx context.Context, conn *pgx.Conn, db *Database) error {
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

// noLeaks runs the leak detector.
func (x *crossing) noLeaks(ctx context.Context, conn *pgx.Conn, db *Database) error {
	leaks, err := x.leaked(ctx, conn, db, db.Links)
	if err != nil {
		return err
	}
	if len(leaks) > 0 {
		return fmt.Errorf("transactions were committed on %s after the fence LSN %s of %s: %s", x.Closing.Name, x.fence[db.Name], db.Name, strings.Join(leaks, ", "))
	}
	return nil
}

// flushEffect has the closing side write to its disk what it has told of a database so
// far. A slot shows no more than that: not a transaction that was committed with
// synchronous_commit = off just before. And where what is on the disk ends within a
// record, a look into a slot waits for the rest of it, for up to wal_writer_delay.
// The message is that of a transaction, because that one's commit is what flushes; no
// subscription asks for messages. Standbys are not waited for: synchronous_commit is
// pinned to local in every session.
func (x *crossing) flushEffect(db string) flow.Effect {
	return x.on(x.Closing, db, "SELECT pg_logical_emit_message(true, 'crossfade', '')")
}

// flushEffects are those of all databases.
func (x *crossing) flushEffects() []flow.Effect {
	var does []flow.Effect
	for _, db := range x.Databases {
		does = append(does, x.flushEffect(db.Name))
	}
	return does
}

// leaked looks for leaks in slots of links of a database, in everything that was
// committed by now.
func (x *crossing) leaked(ctx context.Context, conn *pgx.Conn, db *Database, links []link.Link) ([]string, error) {
	if len(links) == 0 {
		return nil, nil
	}
	if err := pg.Exec(ctx, conn, x.flushEffect(db.Name).SQL); err != nil {
		return nil, &pg.Error{Doing: "flush before the look for leaks", On: x.Closing.Server.String() + ", database " + db.Name, Err: err}
	}
	return leaks(ctx, conn, links, x.fence[db.Name])
}

// clients are the client backends of the databases, on a side, that were there at
// $clock, the tool's own left out.
func (x *crossing) clients() string {
	dbs := make([]string, len(x.Databases))
	for i, db := range x.Databases {
		dbs[i] = pg.Literal(db.Name)
	}
	app := pg.Literal(x.app())
	return "FROM pg_stat_activity a WHERE datname IN (" + strings.Join(dbs, ", ") + ") AND backend_type = 'client backend' AND pid <> pg_backend_pid()" +
		" AND application_name <> " + app + " AND application_name NOT LIKE " + app + " || ' %' AND backend_start <= $clock"
}

// endEffect is the statement that terminates every client.
func (x *crossing) endEffect(s Side, db string) flow.Effect {
	return x.on(s, db, "SELECT count(pg_terminate_backend(pid)) "+x.clients())
}

// endOthersEffect is endEffect without $spared, who wait at the fence or are on
// their way there.
func (x *crossing) endOthersEffect() flow.Effect {
	return x.on(x.Closing, x.Home, "SELECT count(pg_terminate_backend(pid)) "+x.clients()+" AND pid <> ALL ($spared)")
}

// endClients terminates every client and waits until they are gone.
func (x *crossing) endClients(ctx context.Context, conn *pgx.Conn, s Side) error {
	clock, err := clock(ctx, conn, s)
	if err != nil {
		return err
	}
	end := x.endEffect(s, "").Fill(map[string]string{"clock": clock})
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
func (x *crossing) endOthers(ctx context.Context, conn *pgx.Conn, waiting []int32) error {
	if err := x.begun(ctx, conn); err != nil {
		return err
	}
	clock, err := clock(ctx, conn, x.Closing)
	if err != nil {
		return err
	}
	until := time.Now().Add(arrivalTime)
	return pg.Poll(ctx, 2*time.Millisecond, "client sessions on "+x.Closing.Name+" to end", func(ctx context.Context) (bool, error) {
		var there, coming []int32
		if len(waiting) > 0 {
			err := conn.QueryRow(ctx, `
				SELECT coalesce(array_agg(pid) FILTER (WHERE there), '{}'), coalesce(array_agg(pid) FILTER (WHERE NOT there), '{}')
				FROM (SELECT a.pid, `+x.Part.detained("a.pid")+` there FROM pg_stat_activity a WHERE a.pid = ANY ($1)) w`, waiting).Scan(&there, &coming)
			if err != nil {
				return false, &pg.Error{Doing: "see who waits at the fence", On: x.Closing.Server.String(), Err: err}
			}
		}
		if time.Now().After(until) {
			coming = nil
		}
		left, err := count(ctx, conn, x.Closing, x.endOthersEffect().Fill(map[string]string{"clock": clock, "spared": pidsLiteral(append(there, coming...))}))
		return left == 0 && len(coming) == 0, err
	})
}

// begun waits until every session has begun that was about to when close or its undo
// committed. Such a one may have read the database's settings from before, and is in
// pg_stat_activity only later; the lock that it holds on the database until then is
// seen all the time.
func (x *crossing) begun(ctx context.Context, conn *pgx.Conn) error {
	names := make([]string, len(x.Databases))
	for i, db := range x.Databases {
		names[i] = db.Name
	}
	beginning := func(ctx context.Context) (pids []int32, err error) {
		err = conn.QueryRow(ctx, `
			SELECT coalesce(array_agg(l.pid), '{}') FROM pg_locks l JOIN pg_database d ON d.oid = l.objid
			WHERE l.locktype = 'object' AND l.classid = 'pg_database'::regclass AND l.mode = 'RowExclusiveLock'
			  AND d.datname = ANY ($1) AND l.pid <> pg_backend_pid()`, names).Scan(&pids)
		if err != nil {
			return nil, &pg.Error{Doing: "look for sessions that are about to begin", On: x.Closing.Server.String(), Err: err}
		}
		return pids, nil
	}
	first, err := beginning(ctx)
	if err != nil || len(first) == 0 {
		return err
	}
	return pg.Poll(ctx, 2*time.Millisecond, "sessions on "+x.Closing.Name+" to begin", func(ctx context.Context) (bool, error) {
		now, err := beginning(ctx)
		return !slices.ContainsFunc(now, func(pid int32) bool { return slices.Contains(first, pid) }), err
	})
}

// atBarrier are the clients that wait to write to a table. Others that wait for
// one want to alter it.
func (x *crossing) atBarrier(ctx context.Context, conn *pgx.Conn) (pids []int32, err error) {
	sql := strings.ReplaceAll(x.clients(), "$clock", "clock_timestamp()")
	err = conn.QueryRow(ctx, "SELECT coalesce(array_agg(pid), '{}') "+sql+" AND wait_event_type = 'Lock' AND wait_event = 'relation'").Scan(&pids)
	if err == nil && len(pids) > 0 { // with many tables pg_locks is long
		err = conn.QueryRow(ctx, `
			SELECT coalesce(array_agg(DISTINCT pid), '{}') FROM pg_locks
			WHERE pid = ANY ($1) AND locktype = 'relation' AND mode = 'RowExclusiveLock' AND NOT granted`, pids).Scan(&pids)
	}
	if err != nil {
		return nil, &pg.Error{Doing: "see who waits at the barrier", On: x.Closing.Server.String(), Err: err}
	}
	return pids, nil
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

// leaks looks into slots of links, which nobody reads from, for transactions
// of somebody else that were committed after fence. The criterion is the LSN of
// a transaction's one commit, because one that leaks may have written its rows
// before. The canaries are the tool's own; transactions that came in
// from another server by a subscription of ours carry an origin message.
func leaks(ctx context.Context, conn *pgx.Conn, links []link.Link, fence pg.LSN) ([]string, error) {
	var all []string
	for _, l := range links {
		rows, err := conn.Query(ctx, `
			WITH m AS ( -- used twice, so that it is read once
			  SELECT lsn, xid::text, chr(get_byte(data, 0)) k, data
			  FROM pg_logical_slot_peek_binary_changes($1, NULL, NULL, 'proto_version', '1', 'publication_names', $2)
			), c AS (
			  -- A Relation message of a canary: its id, to leave the tool's own rows out.
			  SELECT DISTINCT substring(data FROM 2 FOR 4) id FROM m WHERE k = 'R' AND position('\x63726f737366616465'::bytea IN data) = 6
			)
			SELECT format('xid %s (%s changes, committed at %s)', xid, count(*) FILTER (WHERE k IN ('I', 'U', 'D', 'T')), (array_agg(lsn) FILTER (WHERE k = 'C'))[1])
			FROM m GROUP BY xid
			HAVING (array_agg(lsn) FILTER (WHERE k = 'C'))[1] > $3 AND NOT bool_or(k = 'O')
			   AND count(*) FILTER (WHERE k IN ('U', 'I', 'D') AND substring(data FROM 2 FOR 4) NOT IN (SELECT id FROM c) OR k = 'T') > 0`,
			l.Name, pg.Ident(l.Name), fence)
		if err != nil {
			return nil, &pg.Error{Doing: "look for leaks in slot " + l.Name, On: l.From.Server.String(), Err: err}
		}
		some, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return nil, &pg.Error{Doing: "look for leaks in slot " + l.Name, On: l.From.Server.String(), Err: err}
		}
		all = append(all, some...)
	}
	return all, nil
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
	lower := func(db *Database) string {
		sql := []string{x.Part.Lowered()}
		if wasClosed && !db.Shared {
			sql = append(sql, db.Reopen)
		}
		return strings.Join(append(sql, db.RestoreTriggers...), ";\n")
	}
	home := x.by[x.Home]
	// One transaction: an UPDATE that finds the row open raises, and nothing is lowered.
	sql := x.Part.Own("DO $void$ BEGIN IF (SELECT state FROM crossfade.upgrade WHERE attempt = ") + vars["attempt"] + " FOR UPDATE) = 'open' THEN RAISE 'the decision to open has been taken'; END IF; END $void$;\n" +
		x.on(x.Closing, x.Home, x.Part.Own(voidDecision)).Fill(vars).SQL + ";\n" + lower(home)
	if err := pg.Exec(ctx, conn, sql); err != nil {
		return &pg.Error{Doing: "lower the fence again", On: x.Closing.Server.String() + ", database " + x.Home, Err: err}
	}
	err = x.each(ctx, func(ctx context.Context, db *Database) error {
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
	for _, db := range x.Databases {
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

// endReadOnly ends, after close was undone, the sessions that began while new ones
// were read-only: they would stay so for as long as they live.
func (x *crossing) endReadOnly(ctx context.Context, conn *pgx.Conn) error {
	if err := x.begun(ctx, conn); err != nil {
		return err
	}
	clock, err := clock(ctx, conn, x.Closing)
	if err != nil {
		return err
	}
	end := x.endReadOnlyEffect().Fill(map[string]string{"clock": clock, "closing": x.closing})
	return pg.Poll(ctx, 2*time.Millisecond, "read-only sessions on "+x.Closing.Name+" to end", func(ctx context.Context) (bool, error) {
		left, err := count(ctx, conn, x.Closing, end)
		return left == 0, err
	})
}

// endReadOnlyEffect is endEffect for those that began at $closing or later.
func (x *crossing) endReadOnlyEffect() flow.Effect {
	return x.on(x.Closing, x.Home, "SELECT count(pg_terminate_backend(pid)) "+x.clients()+" AND backend_start >= $closing")
}

// lowered sees that the fence of the closing side is down in every database,
// before anything that it hangs on is taken away.
func (x *crossing) lowered(ctx context.Context) error {
	for _, db := range x.Databases {
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
