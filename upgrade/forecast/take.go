package forecast

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// Limits of the sampling.
const (
	// DefaultLimit is what Options.Limit 0 stands for; the sampling then ends as
	// soon as there is nothing more to measure.
	DefaultLimit = 5 * time.Second
	// leastWindow is for how long old is watched at least where there is time.
	leastWindow = time.Second
)

// Options is what is measured.
type Options struct {
	// Old and New are seen through any database.
	Old, New *pg.Server
	Version  int // of old
	// Limit bounds all of Take. 0 is DefaultLimit.
	Limit time.Duration
	// Brief measures only what a cutover's forecast takes: no table is read.
	Brief bool
	// Databases are those that are moved. Of Set only tables that are published.
	Databases []Database
	// Since is what old had counted earlier; its window is part of the watch.
	Since *Mark
}

// Database is one database that is measured.
type Database struct {
	Name      string
	Encoding  string // of the server; "" is UTF8
	Inventory *schema.Inventory
	Sets      []schema.Set
	// Full are the tables, by OID, whose identity is every column while the
	// upgrade runs, because the runbook says so.
	Full map[uint32]bool
	// Skip says which tables may not be read by a query. Nil: none.
	Skip func(schema.Table) bool
}

// Mark is what old's counters said at a moment.
type Mark struct {
	at      time.Time
	lsn     pg.LSN
	changed map[string]int64 // by database
}

// Watch reads old's counters.
func Watch(ctx context.Context, conn *pgx.Conn) (*Mark, error) {
	m := &Mark{changed: map[string]int64{}}
	var lsn string
	if err := conn.QueryRow(ctx, `SELECT pg_current_wal_insert_lsn()::text`).Scan(&lsn); err != nil {
		return nil, fmt.Errorf("read the position of the WAL: %w", err)
	}
	m.at = time.Now()
	if err := m.lsn.Scan(lsn); err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, `SELECT datname::text, tup_inserted + tup_updated + tup_deleted FROM pg_stat_database WHERE datname IS NOT NULL`)
	if err != nil {
		return nil, fmt.Errorf("read pg_stat_database: %w", err)
	}
	var name string
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&name, &n}, func() error { m.changed[name] = n; return nil })
	return m, err
}

// Take measures. What could not be measured is reported in Facts.Missing; the error
// is that of a ctx that ended. The parts of Facts that the runbook has are the
// caller's to fill in.
func Take(ctx context.Context, o Options) (Facts, error) {
	t := &taking{o: o, end: time.Now().Add(o.limit())}
	t.facts.At, t.facts.Limit = time.Now(), o.limit()
	t.describe()
	limited, cancel := context.WithDeadlineCause(ctx, t.end.Add(2*time.Second), errors.New("the limit of the sampling"))
	defer cancel()
	t.ask(limited)
	t.watch(limited)
	if ctx.Err() != nil {
		return t.facts, context.Cause(ctx)
	}
	if together(o.Old) && together(o.New) {
		t.facts.Cores = runtime.GOMAXPROCS(0)
	}
	return t.facts, nil
}

func (o Options) limit() time.Duration {
	if o.Limit <= 0 {
		return DefaultLimit
	}
	return o.Limit
}

// taking is one run of Take.
type taking struct {
	o     Options
	end   time.Time
	facts Facts
	conn  *pgx.Conn // the one session on old, in database at
	at    string
	begin *Mark
}

func (t *taking) missing(what string, err error) {
	if says := what + ": " + strings.Join(strings.Fields(err.Error()), " "); !slices.Contains(t.facts.Missing, says) {
		t.facts.Missing = append(t.facts.Missing, says)
	}
}

// describe takes what the catalogs say.
func (t *taking) describe() {
	for _, db := range t.o.Databases {
		d := DatabaseFacts{Name: db.Name, Tables: len(db.Inventory.Tables), Sequences: len(db.Inventory.Sequences)}
		for _, s := range db.Sets {
			set := SetFacts{Name: s.Name}
			for _, table := range s.Tables {
				d.Columns += len(table.Columns)
				set.Tables = append(set.Tables, TableFacts{
					Name: table.String(), Bytes: table.Bytes, Pages: table.Pages, IndexBytes: table.IndexBytes, Rows: table.Rows,
					Inserts: table.Inserts, Updates: table.Updates, Deletes: table.Deletes,
					Scanned: (table.Identity.Kind == 'f' || db.Full[table.OID]) && table.Identity.Candidate == "",
				})
			}
			d.Sets = append(d.Sets, set)
		}
		t.facts.Databases = append(t.facts.Databases, d)
	}
}

// reading are the settings of every session that samples: read only, no
// temporary file, nothing that waits for long.
func (t *taking) reading(ctx context.Context, s *pg.Server) (*pgx.Conn, error) {
	settings := map[string]string{
		"default_transaction_read_only": "on", "synchronize_seqscans": "off", "max_parallel_workers_per_gather": "0",
		"lock_timeout": "100ms", "work_mem": fmt.Sprintf("%dkB", 2*sortMemory>>10),
		"enable_indexscan": "off", "enable_indexonlyscan": "off", "enable_bitmapscan": "off",
		"statement_timeout": fmt.Sprint(max(time.Until(t.end)+time.Second, time.Second).Milliseconds()),
	}
	conn, err := s.ConnectCopying(ctx, settings)
	if err != nil {
		return nil, err
	}
	// A superuser's guard: rather an error than a file.
	_, err = conn.Exec(ctx, `SELECT set_config('temp_file_limit', '0', false) WHERE current_setting('is_superuser') = 'on'`)
	if err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	return conn, nil
}

func (t *taking) hangUp() {
	if t.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = t.conn.Close(ctx) // it was only read from
	t.conn = nil
}

// session is the one session on old, moved to a database.
func (t *taking) session(ctx context.Context, database string) (*pgx.Conn, error) {
	if t.conn != nil && t.at == database && !t.conn.IsClosed() {
		return t.conn, nil
	}
	t.hangUp()
	s := t.o.Old
	if database != "" {
		s = s.With(database)
	}
	conn, err := t.reading(ctx, s)
	if err != nil {
		return nil, err
	}
	t.conn, t.at = conn, database
	return conn, nil
}

// ask times questions and the probe on new, in a session that is closed again.
func (t *taking) ask(ctx context.Context) {
	began := time.Now()
	conn, err := t.reading(ctx, t.o.New)
	if err != nil {
		t.missing("new", err)
		return
	}
	t.facts.Connect = time.Since(began)
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // it was only read from
	if t.facts.TripNew, err = trip(ctx, conn); err == nil {
		t.facts.ProbeNew, err = t.probe(ctx, conn)
	}
	if err != nil {
		t.missing("new", err)
	}
}

// trips is how many questions are timed; half of them took longer than told.
const trips = 11

func trip(ctx context.Context, conn *pgx.Conn) (time.Duration, error) {
	var took []time.Duration
	for range trips {
		began := time.Now()
		if err := pg.Exec(ctx, conn, "SELECT 1"); err != nil {
			return 0, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// probes is how often the probe is tried: the quickest counts, because what
// else a machine does for a moment says nothing of it. It is tried once where that
// takes a tenth of the limit.
const probes = 5

// probe is a fixed piece of work.
func (t *taking) probe(ctx context.Context, conn *pgx.Conn) (time.Duration, error) {
	var best time.Duration
	until := time.Now().Add(t.o.limit() / 10)
	for range probes {
		began := time.Now()
		if best > 0 && began.After(until) {
			break
		}
		var n int64
		const work = `SELECT count(*) FROM (SELECT hashint8(g) AS h FROM generate_series(1, 100000) g ORDER BY 1 OFFSET 0) s`
		if err := conn.QueryRow(ctx, work).Scan(&n); err != nil {
			return 0, err
		}
		if took := time.Since(began); best == 0 || took < best {
			best = took
		}
	}
	return best, nil
}

// watch is everything on old, from one look at its counters to another.
func (t *taking) watch(ctx context.Context) {
	defer t.hangUp()
	conn, err := t.session(ctx, "")
	if err == nil {
		if t.facts.TripOld, err = trip(ctx, conn); err == nil {
			t.facts.ProbeOld, err = t.probe(ctx, conn)
		}
	}
	if err == nil {
		t.begin = t.o.Since
		if t.begin == nil {
			t.begin, err = Watch(ctx, conn)
		}
	}
	if err != nil {
		t.missing("old", err)
		return
	}
	t.writers(ctx)
	if !t.o.Brief {
		t.sample(ctx)
	}
	t.wait(ctx)
	if conn, err = t.session(ctx, t.at); err != nil {
		t.missing("old", err)
		return
	}
	now, err := Watch(ctx, conn)
	if err != nil {
		t.missing("old", err)
		return
	}
	t.facts.Window, t.facts.WAL = now.at.Sub(t.begin.at), int64(now.lsn-t.begin.lsn)
	for i := range t.facts.Databases {
		db := &t.facts.Databases[i]
		db.Changed = max(now.changed[db.Name]-t.begin.changed[db.Name], 0)
	}
}

// wait watches on: until the limit where one was given, otherwise for as long
// as says anything.
func (t *taking) wait(ctx context.Context) {
	until := t.begin.at.Add(leastWindow)
	switch {
	case t.o.Limit > 0 && !t.o.Brief:
		until = t.end
	case t.o.Brief:
		return
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for time.Now().Before(until) && time.Now().Before(t.end) {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			t.writers(ctx)
		}
	}
}

// writers looks at the transactions that write.
func (t *taking) writers(ctx context.Context) {
	conn, err := t.session(ctx, t.at)
	if err != nil {
		t.missing("open transactions", err)
		return
	}
	var n int
	var age float64
	err = conn.QueryRow(ctx, `
		SELECT count(*), coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8 FROM pg_stat_activity
		WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() AND backend_type = 'client backend'`).Scan(&n, &age)
	if err != nil {
		t.missing("open transactions", err)
		return
	}
	t.facts.Writers, t.facts.Oldest = max(t.facts.Writers, n), max(t.facts.Oldest, duration(age))
}

// together says whether a server runs on this machine.
func together(s *pg.Server) bool {
	host, _ := s.Host()
	if host == "" || strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
