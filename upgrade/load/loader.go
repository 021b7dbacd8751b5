package load

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// loader is one execution of the step.
type loader struct {
	o      Options
	work   []*table
	keeper *keeper
	points map[string]pg.LSN // of the sets being copied

	voice sync.Mutex // flow.Turn speaks to one listener at a time
	turn  *flow.Turn

	sizes                map[string]int64 // of the tables in bytes, by quoted name
	total                int64
	bytes, tables, built atomic.Int64
	copying              atomic.Int64          // copiers that have not ended
	current              atomic.Pointer[table] // the table last begun
	entries              int64
}

func newLoader(o Options, work []*table, t *flow.Turn) *loader {
	l := &loader{o: o, work: work, turn: t, sizes: map[string]int64{}}
	for _, w := range work {
		l.total += w.Bytes
		l.sizes[w.SQL()] = w.Bytes
	}
	return l
}

func (l *loader) note(format string, args ...any) {
	l.voice.Lock()
	defer l.voice.Unlock()
	l.turn.Note(format, args...)
}

// rounds is how often new may crash under the load before the step gives up.
const rounds = 3

func (l *loader) do(ctx context.Context) (err error) {
	if err := l.look(ctx); err != nil {
		return err
	}
	defer func() { l.keeper.close() }()
	for n := 1; ; n++ {
		m, err := l.marks(ctx)
		if err != nil {
			return err
		}
		if n > 1 { // foreign keys that were made by now are in the way of TRUNCATE
			l.o.again = true
			if err := l.referencedNow(ctx); err != nil {
				return err
			}
		}
		if err := l.run(ctx, m); err != nil {
			return err
		}
		whole, err := l.finish(ctx)
		if err != nil || whole {
			return err
		}
		if n == rounds {
			return fmt.Errorf("copy %s: new lost what it had committed %d times; does its disk keep what it flushes?", l.o.Database, n)
		}
		l.note("new has lost commits in a crash; copying those tables again from the same snapshot")
	}
}

// look finds out which sets start again, and makes their slots and snapshot.
func (l *loader) look(ctx context.Context) error {
	if err := l.encodings(ctx); err != nil {
		return err
	}
	conn, err := l.o.New.Connect(ctx)
	if err != nil {
		return err
	}
	defer pg.Leave(conn)
	m, err := readMarks(ctx, conn)
	if err != nil {
		return err
	}
	standing, err := l.o.standing(ctx, m)
	if err != nil {
		return err
	}
	var names []string
	for _, s := range l.o.Sets {
		if standing[s.Name] {
			continue
		}
		names = append(names, s.Name)
		e := l.o.forget(s.Name)
		if err := pg.Exec(ctx, conn, e.SQL); err != nil {
			return fail("forget the marks of set "+s.Name, l.o.New, "", err)
		}
	}
	_, ended := m[copiedKey]
	l.o.again = ended || slices.ContainsFunc(l.work, func(t *table) bool { return slices.ContainsFunc(l.o.Indexes(t.Table), m.has) })
	if err := l.weigh(ctx); err != nil {
		return err
	}
	if len(names) == 0 {
		return nil
	}
	if err := l.referenced(ctx, conn); err != nil {
		return err
	}
	s, err := l.o.Snapshot(ctx, names)
	if err != nil {
		return fmt.Errorf("make the slots and the snapshot of %s (%s): %w", l.o.Database, strings.Join(names, ", "), err)
	}
	l.points = s.Point
	if l.keeper, err = l.o.keep(ctx, s); err != nil {
		return err
	}
	for _, name := range names {
		if s.Point[name] == 0 {
			return fmt.Errorf("the slot of set %s has no consistent point", name)
		}
	}
	return nil
}

// referenced looks which tables foreign keys point to by now: a plan that was
// made before them would truncate these without success.
func (l *loader) referenced(ctx context.Context, conn *pgx.Conn) error {
	is, err := ReadReferenced(ctx, conn)
	if err != nil {
		return err
	}
	planned := l.o.Referenced
	l.o.Referenced = func(t schema.Table) bool { return planned(t) || is(t) }
	l.work = l.o.work()
	return nil
}

// referencedNow is referenced in a session of its own.
func (l *loader) referencedNow(ctx context.Context) error {
	conn, err := l.reopen(ctx, l.o.New.Connect)
	if err != nil {
		return err
	}
	defer pg.Leave(conn)
	return l.referenced(ctx, conn)
}

// weigh reads what the indexes are that are to be built, so that those which
// take longest are not begun last.
func (l *loader) weigh(ctx context.Context) error {
	conn, err := l.o.Old.Connect(ctx)
	if err != nil {
		return err
	}
	defer pg.Leave(conn)
	if l.o.known, err = readIndexes(ctx, conn); err != nil {
		return fail("read the sizes of the indexes", l.o.Old, "", err)
	}
	l.work = l.o.work()
	return nil
}

// encodings makes sure that rows mean the same on both sides.
func (l *loader) encodings(ctx context.Context) error {
	for _, s := range []*pg.Server{l.o.Old, l.o.New} {
		conn, err := s.Connect(ctx)
		if err != nil {
			return err
		}
		var encoding string
		err = conn.QueryRow(ctx, "SHOW server_encoding").Scan(&encoding)
		pg.Leave(conn)
		if err != nil {
			return fail("read the encoding", s, "", err)
		}
		if encoding != l.o.Encoding {
			return fail("compare the encodings", s, "", fmt.Errorf("the database is in %s, the plan was made for %s", encoding, l.o.Encoding))
		}
	}
	return nil
}

func (l *loader) marks(ctx context.Context) (m marks, err error) {
	conn, err := l.reopen(ctx, l.o.New.Connect)
	if err != nil {
		return nil, err
	}
	defer pg.Leave(conn)
	return readMarks(ctx, conn)
}

// finish waits until new has everything on its disk, and looks whether
// everything that was loaded and built is still there.
func (l *loader) finish(ctx context.Context) (whole bool, err error) {
	err = l.again(ctx, "end the copy", func(bool) error {
		conn, err := l.reopen(ctx, l.o.New.Connect)
		if err != nil {
			return err
		}
		defer pg.Leave(conn)
		e := l.o.flush()
		if err := pg.Exec(ctx, conn, e.SQL); err != nil {
			return fail("end the copy", l.o.New, "", err)
		}
		m, err := readMarks(ctx, conn)
		if err != nil {
			return err
		}
		whole = l.o.built(m)
		for _, s := range l.o.Sets {
			whole = whole && m.whole(s, l.points[s.Name])
		}
		return nil
	})
	return whole, err
}

// run copies every table that m does not have, and builds what it lacks.
func (l *loader) run(ctx context.Context, m marks) error {
	queue, yard := l.plan(m)
	g, gctx := errgroup.WithContext(ctx)
	l.copying.Store(int64(l.o.Jobs))
	for range l.o.Jobs {
		g.Go(func() error {
			defer l.copying.Add(-1)
			return l.copier(gctx, queue, yard)
		})
	}
	for range l.o.IndexJobs {
		g.Go(func() error { return l.builder(gctx, yard) })
	}
	stop := l.watch()
	err := g.Wait()
	stop()
	if err != nil {
		return err
	}
	return l.tail(ctx, m)
}

// tellEvery is how often the step says how far it is.
const tellEvery = time.Second

// watch tells the progress until the returned function is called.
func (l *loader) watch() (stop func()) {
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(tellEvery)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				l.tell()
			case <-quit:
				l.tell()
				return
			}
		}
	})
	return func() { close(quit); wg.Wait() }
}

func (l *loader) tell() {
	says := fmt.Sprintf("%d/%d tables, %d/%d indexes and constraints", l.tables.Load(), len(l.work), l.built.Load(), l.entries)
	if t := l.current.Load(); t != nil {
		says += ", " + t.String()
	}
	l.voice.Lock()
	defer l.voice.Unlock()
	l.turn.Progress(min(l.bytes.Load(), l.total), l.total, "bytes", says)
}

// pair is a worker's two sessions.
type pair struct {
	old, new *pgx.Conn
	as       *pgx.Conn // on new, with the rights of role; nil: none yet
	role     string
}

func (p *pair) close() {
	pg.Leave(p.old)
	pg.Leave(p.new)
	pg.Leave(p.as)
	p.old, p.new, p.as = nil, nil, nil
}

// openAs opens the session with the rights of role. What was begun in one of an
// earlier attempt ends with it.
func (l *loader) openAs(ctx context.Context, p *pair, role string) error {
	if p.as != nil && !p.as.IsClosed() && p.role == role && p.as.PgConn().TxStatus() == 'I' {
		return nil
	}
	pg.Leave(p.as)
	p.as = nil
	at, err := l.o.As(ctx, role)
	if err != nil {
		return err
	}
	p.role = role
	p.as, err = l.reopen(ctx, func(ctx context.Context) (*pgx.Conn, error) {
		conn, err := at.ConnectWith(ctx, both)
		return l.o.prepared(ctx, conn, err)
	})
	return err
}

// open opens what is missing, and ends what an earlier attempt left open.
func (l *loader) open(ctx context.Context, p *pair) (err error) {
	for _, conn := range []*pgx.Conn{p.old, p.new} {
		if conn != nil && !conn.IsClosed() && conn.PgConn().TxStatus() != 'I' {
			if err := pg.Exec(ctx, conn, "ROLLBACK"); err != nil {
				return err
			}
		}
	}
	if p.old == nil || p.old.IsClosed() {
		pg.Leave(p.old)
		if p.old, err = l.reopen(ctx, l.o.openOld); err != nil {
			return err
		}
	}
	if p.new == nil || p.new.IsClosed() {
		pg.Leave(p.new)
		if p.new, err = l.reopen(ctx, l.o.openNew); err != nil {
			return err
		}
	}
	return nil
}
