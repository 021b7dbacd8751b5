package cutover

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// receivers is how far each physical receiver of a cluster has flushed what
// its primary has written; nil where its upstream does not say. A standby that
// follows the primary is called by its application_name, one following a standby
// of the runbook with that standby's name added.
type receivers map[string]*pg.LSN

// missing are the receivers wanted that are not there, or have less than at.
func (r receivers) missing(wanted map[string]bool, at pg.LSN) []string {
	var behind []string
	for name := range wanted {
		if flush := r[name]; flush == nil || *flush < at {
			behind = append(behind, name)
		}
	}
	slices.Sort(behind)
	return behind
}

// standbys are those that must have the close before the other side opens.
type standbys struct{ *attempt }

// askLimit is how long a standby is waited for that does not answer.
const askLimit = 3 * time.Second

// receiving asks the primary of the closing side, and each standby of the
// runbook that answers, who receives from it; a standby that no upstream calls
// by its name is asked for its own position. absent are the standbys of the
// runbook that nothing is known of.
func (k *standbys) receiving(ctx context.Context) (all receivers, absent []string, err error) {
	conn, err := k.onClosing(ctx, k.Home)
	if err != nil {
		return nil, nil, err
	}
	if all, err = readReceivers(ctx, conn, ""); err != nil {
		return nil, nil, &pg.Error{Doing: "read pg_stat_replication", On: k.Closing.Server.String(), Err: err}
	}
	var mu sync.Mutex
	own := receivers{}
	g, ctx := errgroup.WithContext(ctx)
	for _, sb := range k.Closing.Standbys {
		g.Go(func() error {
			behind, at := k.ask(ctx, sb)
			mu.Lock()
			defer mu.Unlock()
			for name, flush := range behind {
				all[name] = flush
			}
			if at != nil {
				own[sb.Name] = at
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	for _, sb := range k.Closing.Standbys {
		if all.knows(sb.Name) {
			continue
		}
		if at := own[sb.Name]; at != nil {
			all[sb.Name] = at
			continue
		}
		absent = append(absent, sb.Name)
	}
	return all, absent, nil
}

// knows reports whether somebody is called name, wherever in the cascade.
func (r receivers) knows(name string) bool {
	for n := range r {
		if n == name || strings.HasPrefix(n, name+" following ") {
			return true
		}
	}
	return false
}

// ask asks a standby who follows it, and what it has itself: at is nil
// where it cannot be asked, belongs to another cluster, or does not stream. One
// that was promoted and is the closing side itself has all of it.
// One that cannot be asked is known by its upstream's word alone.
func (k *standbys) ask(ctx context.Context, sb Standby) (behind receivers, at *pg.LSN) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	k.mu.Lock()
	conn := k.streams.asked[sb.Name]
	k.mu.Unlock()
	if conn == nil || conn.IsClosed() {
		var err error
		if conn, err = sb.Server.Connect(ctx); err != nil {
			return nil, nil
		}
		k.mu.Lock()
		k.streams.asked[sb.Name] = conn
		k.mu.Unlock()
	}
	var ours bool
	err := conn.QueryRow(ctx, `
		SELECT c.system_identifier::text = $1 AND (pg_is_in_recovery() OR pg_postmaster_start_time() = $2),
		       CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn()
		            WHEN EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') THEN pg_last_wal_receive_lsn() END
		FROM pg_control_system() c`, k.Closing.Identity.SystemID, k.Closing.Identity.Started).Scan(&ours, &at)
	if err != nil || !ours {
		return nil, nil
	}
	if behind, err = readReceivers(ctx, conn, " following "+sb.Name); err != nil {
		return nil, at
	}
	return behind, at
}

// readReceivers reads the physical receivers of one server, each name with
// suffix. Of several that call themselves the same the slowest counts. Logical
// receivers hold a logical slot; one that writes but never replays is no
// standby but pg_receivewal, which flushes a segment at a time.
func readReceivers(ctx context.Context, conn *pgx.Conn, suffix string) (receivers, error) {
	rows, err := conn.Query(ctx, `
		SELECT r.application_name, CASE WHEN bool_and(r.flush_lsn IS NOT NULL) THEN (array_agg(r.flush_lsn ORDER BY r.flush_lsn))[1] END
		FROM pg_stat_replication r
		WHERE r.state = 'streaming' AND (r.write_lsn IS NULL OR r.replay_lsn IS NOT NULL) AND NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')
		GROUP BY 1`)
	if err != nil {
		return nil, err
	}
	all := receivers{}
	var name string
	var flush *pg.LSN
	_, err = pgx.ForEachRow(rows, []any{&name, &flush}, func() error {
		at := flush
		all[name+suffix], flush = at, nil
		return nil
	})
	return all, err
}

// gate wants the standbys of the closing side that the runbook names to
// stream: each must have the close before the other side opens.
func (k *standbys) gate(ctx context.Context) (bool, string, error) {
	at, absent, err := k.receiving(ctx)
	if err != nil {
		return false, "", err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.streams.streamed = map[string]bool{}
	for name := range at {
		k.streams.streamed[name] = true
	}
	if len(absent) > 0 {
		return false, fmt.Sprintf("standby %s of %s does not stream: promoted later, it would not know that it is closed. Start it, or accept %s:<name>",
			strings.Join(absent, ", "), k.Closing.Name, StandbyMissing), nil
	}
	return true, fmt.Sprintf("%d standbys stream", len(at)), nil
}

// StandbyMissing is the id of the finding that a standby of the closing side
// does not stream.
const StandbyMissing = "standby-missing"

// step waits until every standby that could be promoted has the close:
// one without it would take writes again.
func (k *standbys) step() flow.Step {
	return k.blockedStep(flow.Step{
		ID: "close/kept", Title: "Wait until the standbys of " + k.Closing.Name + " know that it is closed",
		Cost: flow.Cost{Base: time.Millisecond, Trips: 2},
		Do: func(ctx context.Context, _ *flow.Turn) error {
			var behind []string
			err := pg.Poll(ctx, 2*time.Millisecond, "the standbys of "+k.Closing.Name, func(ctx context.Context) (bool, error) {
				at, _, err := k.receiving(ctx)
				if err != nil {
					return false, err
				}
				behind = at.missing(k.streams.streamed, k.closed)
				return len(behind) == 0, nil
			})
			if err != nil && len(behind) > 0 {
				return fmt.Errorf("%w; without the close: %s", err, strings.Join(behind, ", "))
			}
			if err != nil {
				return err
			}
			conn, err := k.onClosing(ctx, k.Home)
			if err != nil {
				return err
			}
			return k.same(ctx, conn, k.Closing)
		},
	})
}
