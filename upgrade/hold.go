package upgrade

import (
	"context"
	"errors"
	"fmt"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// hold is the right to change anything about an upgrade: a transaction-level
// advisory lock on the serving primary, kept by a session of its own. The
// server ends that session when nobody has spoken in it for holdIdle, so that
// a tool that is frozen or cut off holds nobody up; who loses it is told by
// the end of his context.
type hold struct {
	conn   *pgx.Conn
	cancel context.CancelCauseFunc
	done   chan struct{}
}

const (
	holdIdle = 10 * time.Second
	holdPing = time.Second
	// holdWait is how long a session of a run that was killed may take to end.
	holdWait = 3 * time.Second
)

// errHoldLost is the cause of a context whose hold was lost.
var errHoldLost = errors.New("the lock on this upgrade was lost: its session ended")

// take takes the hold on server and returns a context that ends when it is
// lost. The error wraps flow.ErrHeld where another run has it.
func take(ctx context.Context, s *pg.Server) (context.Context, *hold, error) {
	conn, err := s.ConnectWith(ctx, map[string]string{
		"idle_in_transaction_session_timeout": fmt.Sprint(holdIdle.Milliseconds()),
		"tcp_keepalives_idle":                 "1", "tcp_keepalives_interval": "1", "tcp_keepalives_count": "3",
		"application_name": s.App + " lock",
	})
	if err != nil {
		return nil, nil, err
	}
	waiting, stop := context.WithTimeout(ctx, holdWait)
	defer stop()
	err = pg.Exec(ctx, conn, "BEGIN")
	if err == nil {
		err = pg.Poll(waiting, 100*time.Millisecond, "the lock of another run", func(ctx context.Context) (bool, error) {
			var got bool
			return got, conn.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock(hashtext('crossfade'), 0)`).Scan(&got)
		})
	}
	if err != nil {
		if ctx.Err() == nil && waiting.Err() != nil {
			err = fmt.Errorf("%w: %s", flow.ErrHeld, holder(ctx, conn))
		}
		return nil, nil, errors.Join(fmt.Errorf("lock the upgrade on %s: %w", s, err), conn.Close(ctx))
	}
	held, cancel := context.WithCancelCause(ctx)
	h := &hold{conn: conn, cancel: cancel, done: make(chan struct{})}
	go h.keep(held)
	return held, h, nil
}

// holder names who has the lock.
func holder(ctx context.Context, conn *pgx.Conn) string {
	var who *string
	err := conn.QueryRow(ctx, `
		SELECT string_agg(format('pid %s (%s) from %s since %s', a.pid, a.application_name, coalesce(a.client_addr::text, 'a local socket'), date_trunc('second', a.xact_start)), '; ')
		FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
		WHERE l.locktype = 'advisory' AND l.granted AND l.classid = (hashtext('crossfade')::bigint & 4294967295)::oid AND l.objid = 0`).Scan(&who)
	if err != nil || who == nil {
		return "another run holds it"
	}
	return "held by " + *who
}

func (h *hold) keep(ctx context.Context) {
	defer close(h.done)
	t := time.NewTicker(holdPing)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if _, err := h.conn.Exec(ctx, "SELECT 1"); err != nil {
			if ctx.Err() == nil {
				h.cancel(fmt.Errorf("%w: %w", errHoldLost, err))
			}
			return
		}
	}
}

// release gives the hold back.
func (h *hold) release() error {
	h.cancel(nil)
	<-h.done
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return h.conn.Close(ctx)
}
