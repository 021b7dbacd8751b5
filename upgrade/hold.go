package upgrade

import (
	"context"
	"errors"
	"fmt"
	"sync"
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
	server *pg.Server
	cancel context.CancelCauseFunc
	stop   chan struct{}
	done   chan struct{}

	mu    sync.Mutex
	conn  *pgx.Conn
	since time.Time // when its backend began: with the pid, no other
}

const (
	holdIdle = 10 * time.Second
	holdPing = time.Second
	// holdWait is how long a session of a run that was killed may take to end.
	holdWait = 3 * time.Second
)

// errHoldLost is the cause of a context whose hold was lost.
var errHoldLost = errors.New("the lock on this upgrade was lost: its session ended")

// lockSQL takes the lock until the end of the transaction, or says that it is had.
const lockSQL = "SELECT pg_try_advisory_xact_lock(hashtext('crossfade'), 0)"

// take takes the hold on server and returns a context that ends when it is
// lost. The error wraps flow.ErrHeld where another run has it.
func take(ctx context.Context, s *pg.Server) (context.Context, *hold, error) {
	held, cancel := context.WithCancelCause(ctx)
	h := &hold{server: s, cancel: cancel, stop: make(chan struct{}), done: make(chan struct{})}
	if err := h.lock(ctx); err != nil {
		cancel(nil)
		return nil, nil, err
	}
	go h.keep(context.WithoutCancel(ctx))
	return held, h, nil
}

// lock opens a session and takes the lock in it. Another run's is waited for as
// long as one that was killed may take to end; one of this hold's own, which the
// server does not know to be gone, is ended.
func (h *hold) lock(ctx context.Context) error {
	s := h.server
	conn, err := s.ConnectWith(ctx, map[string]string{
		"idle_in_transaction_session_timeout": fmt.Sprint(holdIdle.Milliseconds()),
		"tcp_keepalives_idle":                 "1", "tcp_keepalives_interval": "1", "tcp_keepalives_count": "3",
		"application_name": s.App + " lock",
	})
	if err != nil {
		return err
	}
	if h.conn != nil {
		_, err = conn.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2", h.conn.PgConn().PID(), h.since)
	}
	waiting, stop := context.WithTimeout(ctx, holdWait)
	defer stop()
	if err == nil {
		err = pg.Exec(ctx, conn, "BEGIN")
	}
	var since time.Time
	if err == nil {
		err = conn.QueryRow(ctx, "SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()").Scan(&since)
	}
	if err == nil {
		err = pg.Poll(waiting, 100*time.Millisecond, "the lock of another run", func(ctx context.Context) (bool, error) {
			var got bool
			return got, conn.QueryRow(ctx, lockSQL).Scan(&got)
		})
	}
	if err != nil {
		if ctx.Err() == nil && waiting.Err() != nil {
			err = fmt.Errorf("%w: %s", flow.ErrHeld, holder(ctx, conn))
		}
		return errors.Join(fmt.Errorf("lock the upgrade on %s: %w", s, err), conn.Close(ctx))
	}
	h.conn, h.since = conn, since
	return nil
}

// holder names who has the lock.
func holder(ctx context.Context, conn *pgx.Conn) string {
	who, _, err := heldBy(ctx, conn)
	if err != nil || who == "" {
		return "another run holds it"
	}
	return "held by " + who
}

// heldBy is who has the lock, and the pid of that backend; "" is nobody.
func heldBy(ctx context.Context, conn *pgx.Conn) (who string, session int32, err error) {
	err = conn.QueryRow(ctx, `
		SELECT coalesce(string_agg(format('pid %s (%s) from %s since %s', a.pid, a.application_name, coalesce(a.client_addr::text, 'a local socket'), date_trunc('second', a.xact_start)), '; '), ''),
		       coalesce(max(a.pid), 0)
		FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
		WHERE l.locktype = 'advisory' AND l.granted AND l.classid = (hashtext('crossfade')::bigint & 4294967295)::oid AND l.objid = 0`).Scan(&who, &session)
	if err != nil {
		return "", 0, fmt.Errorf("look who holds the upgrade: %w", err)
	}
	return who, session, nil
}

// keep speaks in the session, so that the server does not end it.
func (h *hold) keep(ctx context.Context) {
	defer close(h.done)
	t := time.NewTicker(holdPing)
	defer t.Stop()
	for {
		select {
		case <-h.stop:
			return
		case <-t.C:
		}
		h.mu.Lock()
		if !h.conn.IsClosed() {
			if err := h.ping(ctx); err != nil {
				h.cancel(fmt.Errorf("%w: %w", errHoldLost, err))
			}
		}
		h.mu.Unlock()
	}
}

func (h *hold) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, holdIdle/2, errors.New("the server does not answer"))
	defer cancel()
	_, err := h.conn.Exec(ctx, "SELECT 1")
	return err
}

// still reports that the hold is had, now, by asking. One that was lost
// meanwhile is taken anew, for what has to be undone: unless another run has
// it, which has undone by then what this one left.
func (h *hold) still(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.conn.IsClosed() {
		err := h.ping(ctx)
		if err == nil {
			return nil
		}
		h.cancel(fmt.Errorf("%w: %w", errHoldLost, err))
	}
	return h.lock(ctx)
}

// session is the pid of the backend that has the lock.
func (h *hold) session() int32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return int32(h.conn.PgConn().PID())
}

// release gives the hold back.
func (h *hold) release() error {
	h.cancel(nil)
	close(h.stop)
	<-h.done
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return h.conn.Close(ctx)
}
