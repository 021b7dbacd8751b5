package clusters

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

// hold is the right to change anything about an upgrade, or the right that
// nobody changes it meanwhile (shared): an advisory lock on the serving primary,
// kept by a session of its own. That session is idle: it holds no snapshot, which
// a CREATE INDEX or REINDEX CONCURRENTLY would wait for, and from 14 on no
// transaction. The server ends it when it has heard nothing for holdIdle, so that
// a tool that is frozen or cut off blocks nobody; a run that loses its hold hears
// of it by the end of its context.
type hold struct {
	server *pg.Server
	name   string // application_name of its session
	shared bool
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

// ErrHoldLost is the cause of a context whose hold was lost.
var ErrHoldLost = errors.New("the lock on this upgrade was lost: its session ended")

// The statements that take the lock until the session ends, or say that it
// cannot be had now.
const (
	lockSQL       = "SELECT pg_try_advisory_lock(hashtext('crossfade'), 0)"
	lockSharedSQL = "SELECT pg_try_advisory_lock_shared(hashtext('crossfade'), 0)"
)

// take takes a hold on server and returns a context that ends when it is lost.
// The error wraps flow.ErrHeld where another run's hold excludes it.
func take(ctx context.Context, s *pg.Server, name string, shared bool) (context.Context, *hold, error) {
	held, cancel := context.WithCancelCause(ctx)
	h := &hold{server: s, name: name, shared: shared, cancel: cancel, stop: make(chan struct{}), done: make(chan struct{})}
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
		"application_name": h.name,
	})
	if err != nil {
		return err
	}
	if h.conn != nil {
		_, err = conn.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2", h.conn.PgConn().PID(), h.since)
	}
	waiting, stop := context.WithTimeout(ctx, holdWait)
	defer stop()
	var since time.Time
	if err == nil {
		err = conn.QueryRow(ctx, "SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()").Scan(&since)
	}
	if err == nil {
		sql := lockSQL
		if h.shared {
			sql = lockSharedSQL
		}
		err = pg.Poll(waiting, 100*time.Millisecond, "the lock of another run", func(ctx context.Context) (bool, error) {
			var got bool
			return got, conn.QueryRow(ctx, sql).Scan(&got)
		})
	}
	if err == nil {
		err = endIdle(ctx, conn)
	}
	if err != nil {
		if ctx.Err() == nil && waiting.Err() != nil {
			err = fmt.Errorf("%w: %s", flow.ErrHeld, whoHolds(ctx, s))
		}
		return errors.Join(fmt.Errorf("lock the upgrade on %s: %w", s, err), conn.Close(ctx))
	}
	h.conn, h.since = conn, since
	return nil
}

// endIdle has the server end a session that has been idle for holdIdle. Before
// 14 it does so in a transaction alone, which BEGIN opens without a snapshot.
func endIdle(ctx context.Context, conn *pgx.Conn) error {
	err := pg.Exec(ctx, conn, fmt.Sprintf("SET idle_session_timeout = %d", holdIdle.Milliseconds()))
	if pg.SQLState(err) == "42704" {
		err = pg.Exec(ctx, conn, "BEGIN")
	}
	return err
}

// whoHolds names who has the lock, asked in a session of its own: the one that
// waited for it may have been cut off.
func whoHolds(ctx context.Context, s *pg.Server) string {
	const unknown = "another run holds it"
	ctx, cancel := context.WithTimeout(ctx, holdWait)
	defer cancel()
	conn, err := s.Connect(ctx)
	if err != nil {
		return unknown
	}
	defer pg.Leave(conn)
	who, _, err := HeldBy(ctx, conn, "%", true)
	if err != nil || who == "" {
		return unknown
	}
	return "held by " + who
}

// HeldBy is who holds the lock, of those whose application_name is LIKE app, and
// the pid of that backend; "" is nobody. shared: also those that only keep others
// from changing the upgrade.
func HeldBy(ctx context.Context, conn *pgx.Conn, app string, shared bool) (who string, session int32, err error) {
	err = conn.QueryRow(ctx, `
		SELECT coalesce(string_agg(format('pid %s (%s) from %s since %s', a.pid, a.application_name, coalesce(a.client_addr::text, 'a local socket'), date_trunc('second', a.backend_start)), '; '), ''),
		       coalesce(max(a.pid), 0)
		FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
		WHERE l.locktype = 'advisory' AND l.granted AND l.classid = (hashtext('crossfade')::bigint & 4294967295)::oid AND l.objid = 0
		  AND a.application_name LIKE $1 AND (l.mode = 'ExclusiveLock' OR $2)`, app, shared).Scan(&who, &session)
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
				h.cancel(fmt.Errorf("%w: %w", ErrHoldLost, err))
			}
		}
		h.mu.Unlock()
	}
}

func (h *hold) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, holdIdle/2, errors.New("the server does not answer"))
	defer cancel()
	return h.conn.Ping(ctx) // an empty query: it takes no snapshot
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
		h.cancel(fmt.Errorf("%w: %w", ErrHoldLost, err))
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
