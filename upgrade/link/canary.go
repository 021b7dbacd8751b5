package link

import (
	"context"
	"fmt"
	"strings"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// CanaryEffect is the write of the canaries of links, all of one database and
// direction: one round trip, one transaction. $canary is the token.
func CanaryEffect(links []Link) flow.Effect {
	updates := make([]string, len(links))
	for i, l := range links {
		updates[i] = "UPDATE " + Canary(l.Set) + " SET n = $canary, at = clock_timestamp()"
	}
	return links[0].From.effect(strings.Join(updates, "; "))
}

// Token is a number that no earlier canary had.
func Token() int64 { return time.Now().UnixMicro() }

// WriteCanary writes token through every link and returns an LSN at or after
// its commit. The commit is flushed on the sending server (synchronous_commit
// is local in every session of the tool), so that walsenders can send it.
func WriteCanary(ctx context.Context, from *pgx.Conn, links []Link, token int64) (pg.LSN, error) {
	e := CanaryEffect(links).Fill(map[string]string{"canary": fmt.Sprint(token)})
	if err := pg.Exec(ctx, from, e.SQL); err != nil {
		return 0, &pg.Error{Doing: "write the canary", On: links[0].From.Server.String() + ", database " + links[0].Database, Err: err}
	}
	var at pg.LSN
	if err := from.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()").Scan(&at); err != nil {
		return 0, &pg.Error{Doing: "read the position of the canary", On: links[0].From.Server.String(), Err: err}
	}
	return at, nil
}

// SeeCanary waits until the other side shows token in every set.
func SeeCanary(ctx context.Context, to *pgx.Conn, links []Link, token int64) error {
	looks := make([]string, len(links))
	for i, l := range links {
		looks[i] = fmt.Sprintf("SELECT %s AS name, n FROM %s", pg.Literal(l.Set), Canary(l.Set))
	}
	look := "SELECT coalesce(string_agg(name, ', '), '') FROM (" + strings.Join(looks, " UNION ALL ") + ") c WHERE n <> $1"
	missing := ""
	err := pg.Poll(ctx, 500*time.Microsecond, "the canary on "+links[0].To.Side, func(ctx context.Context) (bool, error) {
		if err := to.QueryRow(ctx, look, token).Scan(&missing); err != nil {
			return false, &pg.Error{Doing: "look for the canary", On: links[0].To.Server.String() + ", database " + links[0].Database, Err: err}
		}
		return missing == "", nil
	})
	if err != nil && missing != "" {
		return fmt.Errorf("%w; not seen in set %s of %s", err, missing, links[0].Database)
	}
	return err
}

// Pass writes a canary through every link, all of one database, and waits
// until the other side shows it: everything committed before is there.
func Pass(ctx context.Context, from, to *pgx.Conn, links []Link) (pg.LSN, error) {
	token := Token()
	at, err := WriteCanary(ctx, from, links, token)
	if err != nil {
		return 0, err
	}
	return at, SeeCanary(ctx, to, links, token)
}

// Drain proves that everything up to fence is applied and durable on the other
// side: the canary written before is seen, the origin's progress is read with
// its flush forced, a second canary wakes the worker so that it reports the
// flush, and then each slot's confirmed_flush_lsn is at or after fence and
// not ahead of what the sender has written. Waiting for the report alone takes
// two wal_writer_delays of the other side.
//
// It returns the origin's progress per link, for the decision to look at again.
func Drain(ctx context.Context, from, to *pgx.Conn, links []Link, token int64, fence pg.LSN) (map[string]pg.LSN, error) {
	if err := SeeCanary(ctx, to, links, token); err != nil {
		return nil, err
	}
	if _, err := originProgress(ctx, to, links); err != nil {
		return nil, err
	}
	if _, err := Pass(ctx, from, to, links); err != nil {
		return nil, err
	}
	var progress map[string]pg.LSN
	var behind string
	woken := time.Now()
	err := pg.Poll(ctx, time.Millisecond, "the slots to confirm the fence LSN "+fence.String(), func(ctx context.Context) (bool, error) {
		var err error
		// Forcing the flush again: the second canary may not be flushed yet.
		if progress, err = originProgress(ctx, to, links); err != nil {
			return false, err
		}
		behind, err = notConfirmed(ctx, from, links, fence)
		if err == nil && behind != "" && time.Since(woken) > wakeEvery {
			// The fence may be after the first canary, where others wrote WAL in
			// between; and what the second one reported was flushed only since.
			_, err = Pass(ctx, from, to, links)
			woken = time.Now()
		}
		return behind == "", err
	})
	if err != nil && behind != "" {
		err = fmt.Errorf("%w; not confirmed: %s", err, behind)
	}
	return progress, err
}

// wakeEvery is how long a report is waited for before a worker is woken again:
// some times what it takes, and far less than the wal_writer_delay that it would
// sleep through.
const wakeEvery = 10 * time.Millisecond

// originProgress reads, and by reading flushes, how far each link is applied.
func originProgress(ctx context.Context, to *pgx.Conn, links []Link) (map[string]pg.LSN, error) {
	names := make([]string, len(links))
	for i, l := range links {
		names[i] = l.Name
	}
	rows, err := to.Query(ctx, `SELECT subname::text, coalesce(pg_replication_origin_progress('pg_' || oid, true), '0/0'::pg_lsn)
		FROM pg_subscription WHERE subname = ANY ($1)`, names)
	if err != nil {
		return nil, &pg.Error{Doing: "read the origins' progress", On: links[0].To.Server.String(), Err: err}
	}
	defer rows.Close()
	progress := map[string]pg.LSN{}
	for rows.Next() {
		var name string
		var at pg.LSN
		if err := rows.Scan(&name, &at); err != nil {
			return nil, err
		}
		progress[name] = at
	}
	if err := rows.Err(); err != nil {
		return nil, &pg.Error{Doing: "read the origins' progress", On: links[0].To.Server.String(), Err: err}
	}
	return progress, nil
}

// notConfirmed names the links whose slot has not confirmed fence. A slot that
// is ahead of its own server followed an origin that was wrong: an error.
func notConfirmed(ctx context.Context, from *pgx.Conn, links []Link, fence pg.LSN) (string, error) {
	at, err := Positions(ctx, from, nil, links)
	if err != nil {
		return "", err
	}
	var behind []string
	for _, l := range links {
		p := at[l.Name]
		switch {
		case !p.Slot || p.Lost || p.Confirmed == nil:
			return "", fmt.Errorf("slot %s on %s is %s: what it had to send is not proven to have arrived; run prepare again for its set", l.Name, l.From.Server, p.State())
		case *p.Confirmed > p.Insert:
			return "", fmt.Errorf("slot %s on %s confirms %s, ahead of what the server has written (%s): the subscription followed another server", l.Name, l.From.Server, *p.Confirmed, p.Insert)
		case *p.Confirmed < fence:
			behind = append(behind, fmt.Sprintf("%s at %s", l.Name, *p.Confirmed))
		}
	}
	return strings.Join(behind, ", "), nil
}

// NotDrained tells, for the running-again of a cutover, which links have not
// confirmed fence; "" when all have.
func NotDrained(ctx context.Context, from *pgx.Conn, links []Link, fence pg.LSN) (string, error) {
	return notConfirmed(ctx, from, links, fence)
}
