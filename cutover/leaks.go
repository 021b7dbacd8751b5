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

// leaks is the leak detector: it looks for writes that have passed the fence.
type leaks struct{ *attempt }

// wantNone runs the leak detector.
func (k *leaks) wantNone(ctx context.Context, conn *pgx.Conn, db *database) error {
	leaks, err := k.leaked(ctx, conn, db, db.Links)
	if err != nil {
		return err
	}
	if len(leaks) > 0 {
		return fmt.Errorf("transactions were committed on %s after the fence LSN %s of %s: %s", k.Closing.Name, db.fence, db.Name, strings.Join(leaks, ", "))
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
func (k *leaks) flushEffect(db string) flow.Effect {
	return k.on(k.Closing, db, "SELECT pg_logical_emit_message(true, 'crossfade', '')")
}

// flushEffects are those of all databases.
func (k *leaks) flushEffects() []flow.Effect {
	var does []flow.Effect
	for _, db := range k.databases {
		does = append(does, k.flushEffect(db.Name))
	}
	return does
}

// leaked looks for leaks in slots of links of a database, in everything that was
// committed by now.
func (k *leaks) leaked(ctx context.Context, conn *pgx.Conn, db *database, links []link.Link) ([]string, error) {
	if len(links) == 0 {
		return nil, nil
	}
	if err := pg.Exec(ctx, conn, k.flushEffect(db.Name).SQL); err != nil {
		return nil, &pg.Error{Doing: "flush before the look for leaks", On: k.Closing.Server.String() + ", database " + db.Name, Err: err}
	}
	return leaksIn(ctx, conn, links, db.fence)
}

// leaksIn looks into slots of links, which nobody reads from, for transactions
// of somebody else that were committed after fence. The criterion is the LSN of
// a transaction's one commit, because one that leaks may have written its rows
// before. The canaries are the tool's own; transactions that came in
// from another server by a subscription of ours carry an origin message.
func leaksIn(ctx context.Context, conn *pgx.Conn, links []link.Link, fence pg.LSN) ([]string, error) {
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

func (k *leaks) last(ctx context.Context, t *flow.Turn, db *database) error {
	from, err := k.onClosing(ctx, db.Name)
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
	found, err := k.leaked(ctx, from, db, there)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		t.Note("LEAK: %s was written after the fence LSN %s in %s: %s. These rows are not on %s; copy them by hand", k.Closing.Name, db.fence, db.Name, strings.Join(found, ", "), k.Opening.Name)
	}
	return nil
}

// step runs the leak detector once more on the slots that were kept, and then
// takes the links to the opened side away: they are never enabled again.
func (k *leaks) step() flow.Step {
	does := k.flushEffects()
	var ends []string
	for _, db := range k.databases {
		ends = append(ends, names(db.Links)...)
		for _, l := range db.Links {
			does = append(does, l.DropSubscription()...)
			does = append(does, l.DropSlot())
		}
	}
	return flow.Step{
		ID: "forward/drop", Title: "Look for leaks a last time, and drop the links to " + k.Opening.Name, Does: does, Late: true, Done: never,
		Cost: flow.Cost{Base: 200 * time.Millisecond, Set: 15 * time.Millisecond, Trips: 8},
		Do: func(ctx context.Context, t *flow.Turn) error {
			err := k.each(ctx, func(ctx context.Context, db *database) error {
				to, err := k.onOpening(ctx, db.Name)
				if err != nil {
					return err
				}
				return DropLinks(ctx, nil, to, db.Links)
			})
			return errors.Join(err, k.ifThere(ctx, t, "its slots "+strings.Join(ends, ", ")+" stay until it is back: run the same command again", func(ctx context.Context) error {
				return k.each(ctx, func(ctx context.Context, db *database) error {
					if err := k.last(ctx, t, db); err != nil {
						return err
					}
					from, err := k.onClosing(ctx, db.Name)
					if err != nil {
						return err
					}
					return DropLinks(ctx, from, nil, db.Links)
				})
			}))
		},
	}
}
