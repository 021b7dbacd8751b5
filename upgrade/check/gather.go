package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/rights"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// Limits of gathering: a check that a lock or a broken server holds up is a
// check that could not answer, not one that is waited for.
const (
	statementTimeout = 30 * time.Second
	lockTimeout      = 2 * time.Second
	atATime          = 4 // databases read at the same time on one server
)

// Gather reads the facts. A server that does not answer, is a standby, or is
// the other side is a fact; the error is that of a ctx that ended.
func Gather(ctx context.Context, o Options) (*Facts, error) {
	g := &gathering{Facts: &Facts{Want: o, At: time.Now(), Incomplete: slices.Clone(o.Incomplete)}}
	var wg sync.WaitGroup
	wg.Go(func() { g.Old = g.readServer(ctx, OnOld, o.Old) })
	wg.Go(func() { g.New = g.readServer(ctx, OnNew, o.New) })
	wg.Go(func() { g.readStandbys(ctx) })
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	g.chooseDatabases()
	wg.Go(func() { g.readDatabases(ctx) })
	wg.Go(func() { g.readPrograms(ctx) })
	wg.Go(func() { g.tryReach(ctx) })
	wg.Go(func() { g.OldMachine = g.readMachine(ctx, g.Old, g.Want.OldHost) })
	wg.Go(func() { g.NewMachine = g.readMachine(ctx, g.New, g.Want.NewHost) })
	wg.Go(func() { g.readPoolers(ctx) })
	wg.Go(func() { g.readTemplate(ctx) })
	wg.Wait()
	g.readLost(ctx)
	g.readAdded(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	g.assignSets()
	slices.SortFunc(g.Facts.Incomplete, func(a, b Incomplete) int {
		return strings.Compare(a.On+"\x00"+a.Database+"\x00"+a.What, b.On+"\x00"+b.Database+"\x00"+b.What)
	})
	return g.Facts, nil
}

// gathering is Facts while they are being read.
type gathering struct {
	mu sync.Mutex
	*Facts
}

// missing notes what could not be read.
func (g *gathering) missing(on, database, what string, err error, serious bool) {
	g.lacks(Incomplete{On: on, Database: database, What: what, Err: err, Serious: serious})
}

func (g *gathering) lacks(i Incomplete) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.Facts.Incomplete = append(g.Facts.Incomplete, i)
}

// session opens a session for reading facts. The planner takes queries over
// big catalogs for expensive, and compiling them costs more than running them.
func session(ctx context.Context, s *pg.Server) (*pgx.Conn, error) {
	return s.ConnectWith(ctx, map[string]string{
		"statement_timeout": fmt.Sprint(statementTimeout.Milliseconds()),
		"lock_timeout":      fmt.Sprint(lockTimeout.Milliseconds()),
		"jit":               "off",
	})
}

// closing ends a session that was only read from: an error has nothing to say.
func closing(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// chooseDatabases settles which databases are moved, and finds them on both sides.
func (g *gathering) chooseDatabases() {
	wanted := slices.Clone(g.Want.Databases)
	if g.Want.AllDatabases && g.Old.ok() {
		for _, c := range g.Old.Databases {
			named := slices.ContainsFunc(wanted, func(d Database) bool { return d.Name == c.Name })
			if c.connects() && !c.Template && !named {
				wanted = append(wanted, Database{Name: c.Name})
			}
		}
	}
	slices.SortFunc(wanted, func(a, b Database) int { return strings.Compare(a.Name, b.Name) })
	for _, w := range wanted {
		g.Facts.Databases = append(g.Facts.Databases, DatabaseFacts{Name: w.Name, Want: w, Old: g.Old.catalog(w.Name), New: g.New.catalog(w.Name)})
	}
}

func (s *Server) catalog(name string) *Catalog {
	if !s.ok() {
		return nil
	}
	i := slices.IndexFunc(s.Databases, func(c Catalog) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return &s.Databases[i]
}

func (g *gathering) readDatabases(ctx context.Context) {
	var eg errgroup.Group
	eg.SetLimit(atATime)
	for i := range g.Facts.Databases {
		d := &g.Facts.Databases[i]
		if d.Old != nil && d.Old.connects() {
			eg.Go(func() error {
				if err := g.readOldDatabase(ctx, d); err != nil {
					d.Err = err
				}
				return nil
			})
		}
		if d.New != nil && d.New.connects() {
			eg.Go(func() error {
				if err := g.readNewDatabase(ctx, d); err != nil {
					g.missing(OnNew, d.Name, "the database's contents", err, true)
				}
				return nil
			})
		}
	}
	_ = eg.Wait() // the functions return no error
	for i := range g.Facts.Databases {
		if d := &g.Facts.Databases[i]; d.oldLocale != "" {
			d.Old.Locale = d.oldLocale
		}
	}
}

func (g *gathering) readOldDatabase(ctx context.Context, d *DatabaseFacts) error {
	conn, err := session(ctx, g.Want.Old.With(d.Name))
	if err != nil {
		return err
	}
	defer closing(conn)
	inv, err := g.inventory(ctx, conn, d.Name)
	if err != nil {
		return err
	}
	if x := d.Want.Exclude; x != nil {
		for i := range inv.Tables {
			t := &inv.Tables[i]
			t.Excluded = t.Excluded || x(t.Schema, t.Name)
		}
	}
	if g.Want.NewHost != nil {
		if err := d.readBytes(ctx, conn, inv); err != nil {
			g.missing(OnOld, d.Name, "its size", err, false)
		}
	}
	for _, part := range []string{"things", "partitions", "functions"} {
		things, err := rows[Thing](ctx, conn, query(part, g.Old.Version))
		if err != nil {
			return fmt.Errorf("read the objects of database %s: %w", d.Name, err)
		}
		d.Things = append(d.Things, things...)
	}
	if d.Upgrades, err = g.readUpgrades(ctx, conn, d.Things); err != nil {
		g.missing(OnOld, d.Name, "crossfade.upgrade", err, false)
	}
	if err := d.readIdentities(ctx, conn, g.Old.Version, inv); err != nil {
		g.lacks(Incomplete{
			On: OnOld, Database: d.Name, What: "indexes of tables without a replica identity", Err: err, Serious: true,
			Grants: []string{"GRANT SELECT ON pg_catalog.pg_statistic TO $role;"},
		})
	}
	if err := g.readTrees(ctx, conn, d); err != nil {
		g.missing(OnOld, d.Name, "functions and operators that expressions use", err, false)
	}
	if d.Rights, err = rights.Read(ctx, conn, g.Old.Version); err != nil {
		g.missing(OnOld, d.Name, "functions that tables call by themselves", err, true)
	}
	if err := g.readDDL(ctx, conn, d); err != nil {
		g.missing(OnOld, d.Name, "recent DDL", err, false)
	}
	d.Inventory = inv
	return nil
}

// readTemplate reads what the user has put into template1 of old: databases
// that are made later have it, and those of new will not.
func (g *gathering) readTemplate(ctx context.Context) {
	c := g.Old.catalog("template1")
	if c == nil || !c.connects() {
		return
	}
	conn, err := session(ctx, g.Want.Old.With("template1"))
	if err == nil {
		defer closing(conn)
		g.Template, err = rows[Thing](ctx, conn, query("newthings", g.Old.Version))
	}
	if err != nil {
		g.missing(OnOld, "template1", "what it holds", err, false)
	}
}

// inventory is what a database of old holds; its tables are the caller's to
// change.
func (g *gathering) inventory(ctx context.Context, conn *pgx.Conn, database string) (*schema.Inventory, error) {
	if have := g.Want.Inventories[database]; have != nil {
		inv := *have
		inv.Tables = slices.Clone(have.Tables)
		return &inv, nil
	}
	return schema.Read(ctx, conn, schema.Filter{NoObjects: true, NoSizes: true, NoUncalled: true})
}

func (g *gathering) readNewDatabase(ctx context.Context, d *DatabaseFacts) error {
	conn, err := session(ctx, g.Want.New.With(d.Name))
	if err != nil {
		return err
	}
	defer closing(conn)
	if d.NewThings, err = rows[Thing](ctx, conn, query("newthings", g.New.Version)); err != nil {
		return fmt.Errorf("read the objects of database %s: %w", d.Name, err)
	}
	if d.Old != nil && d.Old.Provider == "i" && d.New.Provider == "i" && d.Old.Locale != d.New.Locale {
		// 16 and later keep it in another spelling than CREATE DATABASE was given.
		if d.oldLocale, err = schema.Locale(ctx, conn, d.Old.Locale); err != nil {
			return err
		}
	}
	if d.NewUpgrades, err = g.readUpgrades(ctx, conn, d.NewThings); err != nil {
		g.missing(OnNew, d.Name, "crossfade.upgrade", err, false)
	}
	return nil
}

// readUpgrades reads the names of upgrades in crossfade.upgrade, where it is, and
// in those of an upgrade to several clusters; those of this one's siblings are
// none of its own.
func (g *gathering) readUpgrades(ctx context.Context, conn *pgx.Conn, things []Thing) ([]string, error) {
	if !slices.ContainsFunc(things, func(t Thing) bool { return t.Kind == "schema" && t.Detail == "true" }) {
		return nil, nil
	}
	const where = `SELECT relname::text FROM pg_class WHERE relnamespace = 'crossfade'::regnamespace AND relkind = 'r'
		AND (relname = 'upgrade' OR relname LIKE 'upgrade\_%') AND relname <> ALL ($1::text[])`
	siblings := make([]string, len(g.Want.Siblings))
	for i, s := range g.Want.Siblings {
		siblings[i] = "upgrade_" + s
	}
	r, err := conn.Query(ctx, where, siblings)
	if err != nil {
		return nil, err
	}
	tables, err := pgx.CollectRows(r, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	var all []string
	for _, t := range tables {
		r, err := conn.Query(ctx, "SELECT DISTINCT u.upgrade FROM "+pg.Ident(schema.Own, t)+" u")
		if err != nil {
			return nil, err
		}
		some, err := pgx.CollectRows(r, pgx.RowTo[string])
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// readIdentities reads what is to be known of the tables that orders name, that
// have no replica identity, or that have FULL: their indexes, and of the latter
// the column that tells their rows apart best.
func (d *DatabaseFacts) readIdentities(ctx context.Context, conn *pgx.Conn, version int, inv *schema.Inventory) error {
	names := map[uint32]string{}
	var oids []uint32
	for _, t := range inv.Tables {
		if t.Published() && (d.Want.order(t) != "" || !t.Identity.Usable || t.Identity.Kind == 'f') {
			names[t.OID] = t.String()
			oids = append(oids, t.OID)
		}
	}
	if len(oids) == 0 {
		return nil
	}
	r, err := conn.Query(ctx, query("indexes", version), oids)
	if err != nil {
		return err
	}
	var oid uint32
	var x Index
	d.Indexes = map[string][]Index{}
	_, err = pgx.ForEachRow(r, []any{&oid, &x.Name, &x.Unique, &x.Why, &x.Method, &x.Distinct, &x.Columns}, func() error {
		one := x
		one.Columns = slices.Clone(x.Columns)
		d.Indexes[names[oid]] = append(d.Indexes[names[oid]], one)
		return nil
	})
	if err != nil {
		return err
	}
	if r, err = conn.Query(ctx, query("narrowed", version), oids); err != nil {
		return err
	}
	var n Narrowed
	d.Narrowed = map[string][]Narrowed{}
	_, err = pgx.ForEachRow(r, []any{&oid, &n.Publication, &n.Columns, &n.Filter}, func() error {
		d.Narrowed[names[oid]] = append(d.Narrowed[names[oid]], Narrowed{n.Publication, slices.Clone(n.Columns), slices.Clone(n.Filter)})
		return nil
	})
	if err != nil {
		return err
	}
	if r, err = conn.Query(ctx, query("telling", version), oids); err != nil {
		return err
	}
	d.Telling = map[string]string{}
	var column string
	if _, err = pgx.ForEachRow(r, []any{&oid, &column}, func() error { d.Telling[names[oid]] = column; return nil }); err != nil {
		return err
	}
	return d.readStatsSince(ctx, conn)
}

// readStatsSince reads since when updates and deletes are counted: where the
// statistics were never reset, since the database was made, if its files may be
// looked at.
func (d *DatabaseFacts) readStatsSince(ctx context.Context, conn *pgx.Conn) error {
	const reset = `
		SELECT s.stats_reset, has_function_privilege('pg_stat_file(text, boolean)', 'EXECUTE')
		FROM pg_stat_database s WHERE s.datname = current_database()`
	const made = `
		SELECT (pg_stat_file('base/' || s.datid || '/PG_VERSION', true)).modification
		FROM pg_stat_database s WHERE s.datname = current_database()`
	var at, file *time.Time
	var may bool
	if err := conn.QueryRow(ctx, reset).Scan(&at, &may); err != nil {
		return err
	}
	if may {
		if err := conn.QueryRow(ctx, made).Scan(&file); err != nil {
			return err
		}
	}
	for _, t := range []*time.Time{at, file} {
		if t != nil && t.After(d.StatsSince) {
			d.StatsSince = *t
		}
	}
	return nil
}

// assignSets puts the tables into sets.
func (g *gathering) assignSets() {
	for i := range g.Facts.Databases {
		d := &g.Facts.Databases[i]
		switch {
		case d.Inventory == nil: // how many sets it is to have is not known
			d.Sets = []schema.Set{{Name: "main"}}
		case d.Want.Sets != nil:
			d.Sets = d.Want.Sets(d.Inventory)
		default:
			main := schema.Set{Name: "main"}
			for _, t := range d.Inventory.Tables {
				if t.Published() {
					main.Tables = append(main.Tables, t)
				}
			}
			d.Sets = []schema.Set{main}
		}
	}
}

// readPrograms looks for the client programs that prepare runs.
func (g *gathering) readPrograms(ctx context.Context) {
	if !g.New.ok() {
		return
	}
	for _, name := range []string{"pg_dump", "pg_restore"} {
		p := Program{Name: name}
		if p.Path, p.Err = pg.Program(g.Want.New.Bin, name, g.New.Major()); p.Err == nil {
			p.Version, p.Err = pg.ProgramVersion(ctx, p.Path)
		}
		g.Programs = append(g.Programs, p)
	}
}

// readStandbys reads the standbys of the runbook that answer.
func (g *gathering) readStandbys(ctx context.Context) {
	type one struct {
		side string
		Standby
	}
	var all []one
	for _, s := range g.Want.OldStandbys {
		all = append(all, one{OnOld, s})
	}
	for _, s := range g.Want.NewStandbys {
		all = append(all, one{OnNew, s})
	}
	facts := make([]StandbyFacts, len(all))
	var eg errgroup.Group
	eg.SetLimit(2 * atATime)
	for i, s := range all {
		eg.Go(func() error {
			facts[i] = StandbyFacts{Standby: s.Standby, Side: s.side}
			g.readStandby(ctx, &facts[i])
			return nil
		})
	}
	_ = eg.Wait() // the functions return no error
	g.Standbys = facts
}

func (g *gathering) readStandby(ctx context.Context, s *StandbyFacts) {
	facts := &Server{Side: s.Name, Name: s.Server.String()}
	s.Facts = facts
	conn, err := session(ctx, s.Server)
	if err != nil {
		facts.Err = err
		return
	}
	defer closing(conn)
	if facts.Identity, err = pg.Identify(ctx, conn); err != nil {
		facts.Err = err
		return
	}
	facts.Settings, err = readSettings(ctx, conn, facts.Version)
	if err == nil {
		err = facts.readClock(ctx, conn)
	}
	if err == nil {
		facts.Senders, err = rows[Sender](ctx, conn, query("senders", facts.Version))
	}
	if err == nil {
		facts.Slots, err = rows[Slot](ctx, conn, query("slots", facts.Version))
	}
	if err != nil {
		g.missing(s.Name, "", "settings, clock and replication", err, false)
	}
	if err := s.readReceiver(ctx, conn); err != nil {
		g.missing(s.Name, "", "what it calls itself (pg_stat_wal_receiver)", err, false)
	}
}

// readReceiver reads what a standby's walreceiver calls itself (the
// application_name of primary_conninfo, else cluster_name, else walreceiver),
// and from where it receives.
func (s *StandbyFacts) readReceiver(ctx context.Context, conn *pgx.Conn) error {
	var conninfo, cluster string
	err := conn.QueryRow(ctx, `SELECT conninfo, current_setting('cluster_name'), coalesce(sender_port, 0) FROM pg_stat_wal_receiver WHERE conninfo IS NOT NULL`).Scan(&conninfo, &cluster, &s.From)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err == nil {
		s.AppName = receiverName(conninfo, cluster)
	}
	return err
}
