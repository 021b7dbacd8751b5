package verify

import (
	"context"
	"fmt"
	"maps"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// settings of a session that reads rows, beside pg's own: text that depends on
// the place is pinned, and compiling costs more than these queries.
var settings = map[string]string{"lc_monetary": "C", "jit": "off"}

// sessions are a worker's two sessions, kept from look to look.
type sessions struct {
	lead, follow *pg.Server
	a, b         *pgx.Conn
	as           map[string]*sessions // with the rights of other roles
}

func (s *sessions) open(ctx context.Context) (err error) {
	if s.a == nil {
		if s.a, err = s.lead.ConnectWith(ctx, settings); err != nil {
			return err
		}
	}
	if s.b == nil {
		s.b, err = s.follow.ConnectWith(ctx, settings)
	}
	return err
}

func (s *sessions) close() {
	pg.Leave(s.a)
	pg.Leave(s.b)
	s.a, s.b = nil, nil
	for _, as := range s.as {
		as.close()
	}
}

// look is one pair of snapshots.
type look struct {
	lead, follow *pgx.Conn // keep them
	a, b         string    // their names
	lsn          pg.LSN
	// stuck: a commit has waited for a synchronous standby since the look
	// before. Its rows are on the following side already and cannot be seen on
	// the leading one, so this look proves no difference.
	stuck bool
}

func (l *look) close() {
	pg.Leave(l.lead)
	pg.Leave(l.follow)
}

// snapshots takes a pair: the leading side's, then a canary through every set,
// then the following side's.
func (r *run) snapshots(ctx context.Context) (l *look, err error) {
	l = &look{}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.lead, err = r.lead.ConnectWith(ctx, settings); err != nil {
		return l, err
	}
	if l.stuck, err = r.stuck(ctx, l.lead); err != nil {
		return l, err
	}
	if l.a, err = export(ctx, l.lead, r.lead); err != nil {
		return l, err
	}
	if l.lsn, err = r.o.Pass(ctx); err != nil {
		return l, fmt.Errorf("pass a canary from %s to %s: %w", r.lead.Name, r.follow.Name, err)
	}
	if l.follow, err = r.follow.ConnectWith(ctx, settings); err != nil {
		return l, err
	}
	l.b, err = export(ctx, l.follow, r.follow)
	return l, err
}

// stuck asks, before the snapshot is taken, which commits wait for a
// synchronous standby, and says whether one of them did in the last look.
func (r *run) stuck(ctx context.Context, conn *pgx.Conn) (bool, error) {
	rows, err := conn.Query(ctx, "SELECT backend_xid::text FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND backend_xid IS NOT NULL")
	if err != nil {
		return false, failed("look for commits that wait for a standby", r.lead, err)
	}
	waiting, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return false, failed("look for commits that wait for a standby", r.lead, err)
	}
	before := r.stuckBefore
	now, stuck := map[string]bool{}, false
	for _, xid := range waiting {
		now[xid] = true
		stuck = stuck || before[xid]
	}
	r.stuckBefore = maps.Clone(now)
	return stuck, nil
}

const readOnly = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

func export(ctx context.Context, conn *pgx.Conn, on *pg.Server) (name string, err error) {
	if err = pg.Exec(ctx, conn, readOnly); err == nil {
		err = conn.QueryRow(ctx, "SELECT pg_export_snapshot()").Scan(&name)
	}
	if err != nil {
		err = failed("export a snapshot", on, err)
	}
	return name, err
}

// sideError is a query that failed on one side.
type sideError struct {
	on  *pg.Server
	err error
}

func (e *sideError) Error() string { return failed("read it", e.on, e.err).Error() }
func (e *sideError) Unwrap() error { return e.err }

func failed(doing string, on *pg.Server, err error) error {
	return &pg.Error{Doing: doing, On: fmt.Sprintf("%s, database %s", on, on.Database()), Err: err}
}

// both runs a query in the look's snapshots on both sides at once, each in a
// transaction of its own, so that a table is locked no longer than it is read.
func (l *look) both(ctx context.Context, at *sessions, ask func(ctx context.Context, conn *pgx.Conn, leads bool) error) error {
	if err := at.open(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	side := func(conn *pgx.Conn, on *pg.Server, snapshot string, leads bool) func() error {
		return func() error {
			err := pg.Exec(ctx, conn, readOnly+"; SET TRANSACTION SNAPSHOT "+pg.Literal(snapshot))
			if err != nil {
				return &sideError{on, err}
			}
			if err = ask(ctx, conn, leads); err != nil {
				err = &sideError{on, err}
			}
			if conn.IsClosed() {
				return err
			}
			if eerr := pg.Exec(ctx, conn, "ROLLBACK"); err == nil && eerr != nil {
				err = &sideError{on, eerr}
			}
			return err
		}
	}
	g.Go(side(at.a, at.lead, l.a, true))
	g.Go(side(at.b, at.follow, l.b, false))
	err := g.Wait()
	// The group's end cuts the other side off in mid-query.
	for _, c := range []**pgx.Conn{&at.a, &at.b} {
		if (*c).IsClosed() {
			pg.Leave(*c)
			*c = nil
		}
	}
	return err
}
