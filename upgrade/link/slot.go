package link

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Snapshot is the exported state of one database at which slots begin: it
// holds exactly the transactions that the slots will not send.
type Snapshot struct {
	Name  string // for SET TRANSACTION SNAPSHOT, while the snapshot is held
	Point pg.LSN // confirmed_flush_lsn of every slot
	conn  *pgconn.PgConn
}

// Release ends the exporting session. Whoever has imported the snapshot keeps it.
func (s *Snapshot) Release(ctx context.Context) error { return s.conn.Close(ctx) }

// SlotEffects is what CreateSlots does for links of one database.
func SlotEffects(links []Link) []flow.Effect {
	if len(links) == 0 {
		return nil
	}
	first := links[0]
	effects := []flow.Effect{first.From.effect(fmt.Sprintf("CREATE_REPLICATION_SLOT %s LOGICAL pgoutput EXPORT_SNAPSHOT", pg.Ident(first.Name)))}
	for _, l := range links[1:] {
		effects = append(effects, l.CopySlot(first))
	}
	return effects
}

// CopySlot is the effect that makes the slot at the same point as that of from,
// a link of the same database that nothing has consumed yet (12+). It waits
// for nobody, as creating one does.
func (l Link) CopySlot(from Link) flow.Effect {
	return l.From.effect(fmt.Sprintf("SELECT pg_copy_logical_replication_slot(%s, %s)", pg.Literal(from.Name), pg.Literal(l.Name)))
}

// CreateSlots makes the slots of links, all of one database, at one point: the
// first over the replication protocol with its snapshot exported, the others
// as copies of it before anything consumes it (12+). Slots of these names that
// exist are dropped first. Publications must have been committed before.
//
// Creating a slot waits for every transaction with an xid in the cluster;
// limit (0: a minute) bounds that wait, and the error names who held it up.
func CreateSlots(ctx context.Context, conn *pgx.Conn, links []Link, limit time.Duration) (*Snapshot, error) {
	if limit == 0 {
		limit = time.Minute
	}
	first := links[0]
	for _, l := range links {
		if err := pg.Exec(ctx, conn, l.DropSlot().SQL); err != nil {
			return nil, &pg.Error{Doing: "drop the earlier slot " + l.Name, On: l.From.Server.String(), Err: err}
		}
	}
	rep, err := first.From.Server.Replication(ctx, first.From.Version)
	if err != nil {
		return nil, err
	}
	s, err := exportSlot(ctx, conn, rep, first, limit)
	if err != nil {
		return nil, errors.Join(err, rep.Close(context.WithoutCancel(ctx)))
	}
	for _, l := range links[1:] {
		if err := pg.Exec(ctx, conn, l.CopySlot(first).SQL); err != nil {
			err = &pg.Error{Doing: "copy the slot " + first.Name + " as " + l.Name, On: l.From.Server.String(), Err: err}
			return nil, errors.Join(err, rep.Close(context.WithoutCancel(ctx)))
		}
	}
	return s, nil
}

func exportSlot(ctx context.Context, conn *pgx.Conn, rep *pgconn.PgConn, l Link, limit time.Duration) (*Snapshot, error) {
	bounded, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("older transactions did not end within %s", limit))
	defer cancel()
	res, err := pglogrepl.CreateReplicationSlot(bounded, rep, pg.Ident(l.Name), "pgoutput",
		pglogrepl.CreateReplicationSlotOptions{SnapshotAction: "EXPORT_SNAPSHOT", Mode: pglogrepl.LogicalReplication})
	if err != nil {
		if bounded.Err() != nil {
			err = fmt.Errorf("%w (%w)", context.Cause(bounded), err)
		}
		return nil, &pg.Error{
			Doing: "create the slot " + l.Name, On: l.From.Server.String(), Err: err,
			Hint: "it waits for " + olderTransactions(context.WithoutCancel(ctx), conn),
		}
	}
	point, err := pglogrepl.ParseLSN(res.ConsistentPoint)
	if err != nil {
		return nil, fmt.Errorf("create the slot %s: consistent point %q: %w", l.Name, res.ConsistentPoint, err)
	}
	return &Snapshot{Name: res.SnapshotName, Point: point, conn: rep}, nil
}

// olderTransactions names who holds a slot's creation up, for a message.
func olderTransactions(ctx context.Context, conn *pgx.Conn) string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var who *string
	err := conn.QueryRow(ctx, `
		SELECT string_agg(w, '; ') FROM (
		  (SELECT format('pid %s (%s, %s) in a transaction for %s', pid, usename, datname, date_trunc('second', now() - xact_start)) w
		     FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() ORDER BY xact_start LIMIT 3)
		  UNION ALL
		  (SELECT format('the prepared transaction %L of %s', gid, owner) FROM pg_prepared_xacts ORDER BY prepared LIMIT 3)) b`).Scan(&who)
	if err != nil || who == nil {
		return "older transactions that write"
	}
	return *who
}

const queryCanceled = "57014"

// followTime is how long the transactions of the moment are waited for before 16.
const followTime = "500ms"

// FollowEffects let the restart_lsn of a server's slots follow: it does so where
// the server writes down which transactions run, by itself every 15 seconds.
// From 16 on a function does it (pg_log_standby_snapshot); before, the making of a
// slot does, which then waits for those transactions and is given up.
func (e End) FollowEffects() []flow.Effect {
	if e.Version >= 160000 {
		return []flow.Effect{e.effect("SELECT pg_log_standby_snapshot()")}
	}
	return []flow.Effect{
		e.effect("SET statement_timeout = '" + followTime + "'"),
		e.effect("SELECT pg_drop_replication_slot(slot_name) FROM pg_create_logical_replication_slot('crossfade_follow', 'pgoutput', true)"),
		e.effect("RESET statement_timeout"),
	}
}

// Follow executes FollowEffects. Whoever looks into a slot
// (pg_logical_slot_peek_binary_changes) has all decoded from its restart_lsn on:
// up to 15 seconds of WAL, while no side takes writes. refused is why the server
// would not: then only the look takes longer.
func (e End) Follow(ctx context.Context, conn *pgx.Conn) (refused, err error) {
	for _, f := range e.FollowEffects() {
		err := pg.Exec(ctx, conn, f.SQL)
		if err == nil || pg.SQLState(err) == queryCanceled { // by then it has been written down
			continue
		}
		err = &pg.Error{Doing: pg.Brief(f.SQL), On: e.Server.String() + ", database " + e.Server.Database(), Err: err}
		if pg.SQLState(err) == "" || conn.IsClosed() {
			return refused, err
		}
		refused = cmp.Or(refused, err)
	}
	return refused, nil
}
