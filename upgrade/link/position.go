package link

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// Position is how far one link is, as both servers say it.
type Position struct {
	Name string

	// The sending side.
	Slot      bool // the slot exists
	Active    bool // a walsender streams from it
	Lost      bool // the server no longer has the WAL it needs: only a new copy helps
	Insert    pg.LSN
	Sent      *pg.LSN
	Confirmed *pg.LSN // applied and flushed on the other side
	Restart   *pg.LSN
	KeptBytes int64 // WAL that the server keeps for the slot
	ActivePID *int32
	SafeBytes *int64    // how much more WAL may be written before the slot is lost; nil: no limit
	Receiver  *Receiver // what pg_stat_replication says of who streams; nil: nobody does

	// The applying side.
	Subscription bool
	Enabled      bool
	SubID        uint32
	Worker       *int32  // pid of the apply worker
	Origin       *pg.LSN // commit end LSN, on the sender, of the last applied transaction
	Errors       int64   // apply errors counted since the server's statistics began
	Published    int     // tables of the publication
	Subscribed   int     // tables of the subscription, and how many of them are ready
	Ready        int
}

// Receiver is one row of pg_stat_replication. What the server does not tell is nil.
type Receiver struct {
	State, SyncState              string
	SyncPriority                  int
	Write, Flush, Replay          *pg.LSN
	WriteLag, FlushLag, ReplayLag *time.Duration
}

// LagBytes is the WAL that was written and not yet confirmed; nil: not known.
func (p Position) LagBytes() *int64 {
	if p.Confirmed == nil {
		return nil
	}
	n := int64(p.Insert - *p.Confirmed)
	return &n
}

// State is one word for a person: streaming, stopped, waiting, lost, missing.
func (p Position) State() string {
	switch {
	case !p.Slot && !p.Subscription:
		return "missing"
	case p.Lost:
		return "lost"
	case !p.Slot:
		return "slot missing"
	case !p.Subscription:
		return "copying"
	case !p.Enabled:
		return "stopped"
	case p.Worker == nil || !p.Active:
		return "waiting"
	}
	return "streaming"
}

//go:embed sql/sender.sql
var senderSQL string

//go:embed sql/applier.sql
var applierSQL string

// Positions reads the positions of links, all of one database and direction,
// in one query on each side. A nil conn leaves that side's part empty.
func Positions(ctx context.Context, from, to *pgx.Conn, links []Link) (map[string]*Position, error) {
	names := make([]string, len(links))
	all := make(map[string]*Position, len(links))
	for i, l := range links {
		names[i] = l.Name
		all[l.Name] = &Position{Name: l.Name}
	}
	if len(links) == 0 {
		return all, nil
	}
	if from != nil {
		if err := readSender(ctx, from, names, all); err != nil {
			return nil, &pg.Error{Doing: "read the slots", On: links[0].From.Server.String(), Err: err}
		}
	}
	if to != nil {
		if err := readApplier(ctx, to, names, all); err != nil {
			return nil, &pg.Error{Doing: "read the subscriptions", On: links[0].To.Server.String(), Err: err}
		}
	}
	return all, nil
}

func readSender(ctx context.Context, conn *pgx.Conn, names []string, all map[string]*Position) error {
	rows, err := conn.Query(ctx, senderSQL, names)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var p Position
		var r Receiver
		var state, sync *string
		var priority *int
		if err := rows.Scan(&name, &p.Slot, &p.Active, &p.Lost, &p.Insert, &p.Sent, &p.Confirmed, &p.Restart,
			&p.KeptBytes, &p.ActivePID, &p.SafeBytes, &p.Published,
			&state, &sync, &priority, &r.Write, &r.Flush, &r.Replay, &r.WriteLag, &r.FlushLag, &r.ReplayLag); err != nil {
			return err
		}
		q := all[name]
		if state != nil && sync != nil && priority != nil {
			r.State, r.SyncState, r.SyncPriority = *state, *sync, *priority
			q.Receiver = &r
		}
		q.Slot, q.Active, q.Lost, q.Insert, q.Sent, q.Confirmed, q.Restart = p.Slot, p.Active, p.Lost, p.Insert, p.Sent, p.Confirmed, p.Restart
		q.KeptBytes, q.ActivePID, q.SafeBytes, q.Published = p.KeptBytes, p.ActivePID, p.SafeBytes, p.Published
	}
	return rows.Err()
}

func readApplier(ctx context.Context, conn *pgx.Conn, names []string, all map[string]*Position) error {
	errors := "0::bigint"
	if pg.Major(conn) >= 15 { // of the session: that of the other end is asked for what a crossing has left
		errors = "coalesce((SELECT st.apply_error_count FROM pg_stat_subscription_stats st WHERE st.subid = s.oid), 0)"
	}
	rows, err := conn.Query(ctx, fmt.Sprintf(applierSQL, errors), names)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var p Position
		if err := rows.Scan(&name, &p.Subscription, &p.Enabled, &p.SubID, &p.Worker, &p.Origin, &p.Errors, &p.Subscribed, &p.Ready); err != nil {
			return err
		}
		q := all[name]
		q.Subscription, q.Enabled, q.SubID, q.Worker, q.Origin = p.Subscription, p.Enabled, p.SubID, p.Worker, p.Origin
		q.Errors, q.Subscribed, q.Ready = p.Errors, p.Subscribed, p.Ready
	}
	return rows.Err()
}

// WaitStopped waits until no worker applies links and no walsender holds their
// slots. A nil conn is not looked at.
func WaitStopped(ctx context.Context, from, to *pgx.Conn, links []Link) error {
	return pg.Poll(ctx, 2*time.Millisecond, "the apply workers to stop", func(ctx context.Context) (bool, error) {
		at, err := Positions(ctx, from, to, links)
		if err != nil {
			return false, err
		}
		for _, p := range at {
			if p.Worker != nil || p.Active {
				return false, nil
			}
		}
		return true, nil
	})
}
