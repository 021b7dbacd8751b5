package cutover

import (
	"context"
	"fmt"
	"strings"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// noLeaks runs the leak detector.
func (x *crossing) noLeaks(ctx context.Context, conn *pgx.Conn, db *database) error {
	leaks, err := x.leaked(ctx, conn, db, db.Links)
	if err != nil {
		return err
	}
	if len(leaks) > 0 {
		return fmt.Errorf("transactions were committed on %s after the fence LSN %s of %s: %s", x.Closing.Name, db.fence, db.Name, strings.Join(leaks, ", "))
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
	for _, db := range x.databases {
		does = append(does, x.flushEffect(db.Name))
	}
	return does
}

// leaked looks for leaks in slots of links of a database, in everything that was
// committed by now.
func (x *crossing) leaked(ctx context.Context, conn *pgx.Conn, db *database, links []link.Link) ([]string, error) {
	if len(links) == 0 {
		return nil, nil
	}
	if err := pg.Exec(ctx, conn, x.flushEffect(db.Name).SQL); err != nil {
		return nil, &pg.Error{Doing: "flush before the look for leaks", On: x.Closing.Server.String() + ", database " + db.Name, Err: err}
	}
	return leaks(ctx, conn, links, db.fence)
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

func (x *crossing) lastLeaks(ctx context.Context, t *flow.Turn, db *database) error {
	from, err := x.onClosing(ctx, db.Name)
	if err != nil {
		return err
	}
	at, err := link.Positions(ctx, from, nil, db.Links)
	if err != nil {
		return err
	}
	var there []link.Link
	for _, l := range db.Links {
		if at[l.Name].Slot {
			there = append(there, l)
		}
	}
	found, err := x.leaked(ctx, from, db, there)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		t.Note("LEAK: %s was written after the fence LSN %s in %s: %s. These rows are not on %s; copy them by hand", x.Closing.Name, db.fence, db.Name, strings.Join(found, ", "), x.Opening.Name)
	}
	return nil
}
