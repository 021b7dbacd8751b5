package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// reading are the settings of a session on old. Rows come in the order in which
// they lie there, so that new's pages are as well sorted as old's.
var reading = map[string]string{
	"synchronize_seqscans":            "off",
	"max_parallel_workers_per_gather": "0",
	"jit":                             "off",
}

// both are settings of sessions on either side: text forms that depend on the
// place are pinned, and a peer that is gone is noticed within half a minute.
var both = map[string]string{
	"lc_monetary":             "C",
	"array_nulls":             "on",
	"tcp_keepalives_idle":     "10",
	"tcp_keepalives_interval": "5",
	"tcp_keepalives_count":    "4",
}

func (o Options) openOld(ctx context.Context) (*pgx.Conn, error) {
	settings := maps.Clone(both)
	maps.Copy(settings, reading)
	return o.Old.ConnectCopying(ctx, settings)
}

func (o Options) openNew(ctx context.Context) (*pgx.Conn, error) {
	conn, err := o.New.ConnectWith(ctx, both)
	return o.prepared(ctx, conn, err)
}

// openBuilder opens a session on new that can restore entries.
func (o Options) openBuilder(ctx context.Context) (*pgx.Conn, error) {
	conn, err := schema.Session(ctx, o.New, both)
	return o.prepared(ctx, conn, err)
}

func (o Options) prepared(ctx context.Context, conn *pgx.Conn, err error) (*pgx.Conn, error) {
	if err != nil {
		return nil, err
	}
	// An index build does not read from its client: this way it ends soon
	// after the client is gone. Servers below 14 and some platforms lack it.
	_, err = conn.Exec(ctx, `SELECT set_config(name, '5s', false) FROM pg_settings WHERE name = 'client_connection_check_interval'`)
	if pg.SQLState(err) == "22023" {
		err = nil
	}
	if err == nil {
		err = pg.Exec(ctx, conn, o.settle().SQL)
	}
	if err != nil {
		pg.Leave(conn)
		return nil, fail("prepare a session for loading", o.New, "", err)
	}
	return conn, nil
}

// fail says what was being done to what and where.
func fail(doing string, on *pg.Server, hint string, err error) error {
	return &pg.Error{Doing: doing, On: fmt.Sprintf("%s, database %s", on, on.Database()), Hint: hint, Err: err}
}

// lost says whether err is the end of a connection, of whatever cause, or a
// server that does not take connections just now.
func lost(err error) bool {
	if code := pg.SQLState(err); code != "" {
		return strings.HasPrefix(code, "08") || strings.HasPrefix(code, "57P0") || code == "53300"
	}
	var ne net.Error
	var ce *pgconn.ConnectError
	return pgconn.SafeToRetry(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNREFUSED) ||
		errors.Is(err, syscall.ENOENT) || errors.Is(err, errClosed) || errors.As(err, &ne) || errors.As(err, &ce)
}

// errClosed is a session that died while nothing was asked of it.
var errClosed = errors.New("the connection is closed")

// How often a piece of work is done again after its connection was lost, and
// how long a server that does not answer is waited for each time.
const (
	redoLimit      = 5
	reconnectLimit = time.Minute
	reconnectEvery = 500 * time.Millisecond
)

// again runs f, and runs it again as long as connections are lost and the
// snapshot lives: nothing of a lost piece of work was committed, or its mark
// tells that it was. f opens what sessions it lacks.
func (l *loader) again(ctx context.Context, what string, f func(first bool) error) error {
	for n := 0; ; n++ {
		err := f(n == 0)
		if err == nil || ctx.Err() != nil || !lost(err) || n == redoLimit {
			return err
		}
		if kerr := l.keeper.alive(ctx); kerr != nil {
			return fmt.Errorf("%w; %w", err, kerr)
		}
		l.note("%s: %v; doing it again", what, err)
	}
}

// reopen opens a session, waiting for a server that restarts.
func (l *loader) reopen(ctx context.Context, open func(context.Context) (*pgx.Conn, error)) (conn *pgx.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, reconnectLimit)
	defer cancel()
	var why error
	err = pg.Poll(ctx, reconnectEvery, "the server to take connections", func(ctx context.Context) (bool, error) {
		conn, why = open(ctx)
		if why != nil && lost(why) {
			return false, nil
		}
		return true, why
	})
	if err != nil && why != nil && !errors.Is(err, why) {
		err = fmt.Errorf("%w: %w", err, why)
	}
	return conn, err
}

// keeper is the session on old that keeps the snapshot: losing the session
// that made it costs nothing, losing this one costs the sets being copied.
type keeper struct {
	mu       sync.Mutex
	conn     *pgx.Conn
	snapshot string
	on       *pg.Server
}

// keep imports s, exports it again and releases the session that made it.
func (o Options) keep(ctx context.Context, s *Snapshot) (k *keeper, err error) {
	defer func() {
		if s.Release != nil {
			if rerr := s.Release(context.WithoutCancel(ctx)); err == nil && rerr != nil {
				err = fmt.Errorf("release the session that exported the snapshot: %w", rerr)
			}
		}
		if err != nil && k != nil {
			k.close()
			k = nil
		}
	}()
	conn, err := o.openOld(ctx)
	if err != nil {
		return nil, err
	}
	k = &keeper{conn: conn, on: o.Old}
	if err := pg.Exec(ctx, conn, begin(s.Name)); err != nil {
		return k, fail("import the snapshot of the slots", o.Old, "", err)
	}
	if err := conn.QueryRow(ctx, "SELECT pg_export_snapshot()").Scan(&k.snapshot); err != nil {
		return k, fail("export the snapshot again", o.Old, "", err)
	}
	return k, nil
}

// begin starts a transaction that sees the snapshot and nothing else.
func begin(snapshot string) string {
	return "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT " + pg.Literal(snapshot)
}

// alive is an error where the snapshot is gone. A nil keeper has none to lose.
func (k *keeper) alive(ctx context.Context) error {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	err := errClosed
	if !k.conn.IsClosed() {
		err = k.conn.Ping(ctx)
	}
	if err != nil {
		return fail("keep the snapshot", k.on, "run again: the sets that are not complete start again with new slots", err)
	}
	return nil
}

func (k *keeper) close() {
	if k != nil {
		pg.Leave(k.conn)
	}
}
