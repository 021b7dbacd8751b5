package standby

import (
	"context"
	"fmt"
	"time"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// State is one receiver as its upstream sees it in pg_stat_replication. What
// the server does not tell is nil.
type State struct {
	Upstream        string // as given to States
	ApplicationName string
	Slot            string // "" where it uses none
	Logical         bool   // a subscription or another decoder, no standby
	State           string // startup, catchup, streaming, backup, stopping
	SyncState       string // async, potential, sync, quorum
	SyncPriority    int
	Sent            *pg.LSN
	Write           *pg.LSN
	Flush           *pg.LSN
	Replay          *pg.LSN
	WriteLag        *time.Duration
	FlushLag        *time.Duration
	ReplayLag       *time.Duration
	Client          string // its address; "" is a Unix socket
	Since           time.Time
}

const statesSQL = `
	SELECT coalesce(r.application_name, ''), coalesce(s.slot_name, ''), coalesce(s.slot_type = 'logical', false),
	       coalesce(r.state, ''), coalesce(r.sync_state, ''), coalesce(r.sync_priority, 0),
	       r.sent_lsn, r.write_lsn, r.flush_lsn, r.replay_lsn,
	       r.write_lag, r.flush_lag, r.replay_lag, coalesce(host(r.client_addr), ''), r.backend_start
	FROM pg_stat_replication r LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid
	ORDER BY 3, 1, r.pid`

// States reads who receives from the server that conn is connected to,
// standbys first, in one query. The caller needs pg_monitor to see all of it.
func States(ctx context.Context, conn *pgx.Conn, upstream string) ([]State, error) {
	rows, err := conn.Query(ctx, statesSQL)
	if err != nil {
		return nil, fmt.Errorf("read pg_stat_replication of %s: %w", upstream, err)
	}
	states, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (State, error) {
		s := State{Upstream: upstream}
		var since *time.Time
		err := row.Scan(&s.ApplicationName, &s.Slot, &s.Logical, &s.State, &s.SyncState, &s.SyncPriority,
			&s.Sent, &s.Write, &s.Flush, &s.Replay, &s.WriteLag, &s.FlushLag, &s.ReplayLag, &s.Client, &since)
		if since != nil {
			s.Since = *since
		}
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("read pg_stat_replication of %s: %w", upstream, err)
	}
	return states, nil
}
