package upgrade

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"crossfade/cutover"
	"crossfade/schema"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
	"crossfade/upgrade/rights"
	"crossfade/upgrade/runbook"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// survey is what both servers say, read once.
type survey struct {
	old, new       cutover.Side
	oldErr, newErr error // why a side could not be asked
	databases      []*database
	home           string
	decisions      []cutover.Decision // both sides' rows, one an attempt, oldest first
	rows           map[string]bool    // by side: it answered; whether it has such rows
	phase          report.Phase
	distrusted     bool  // something is copied or compared again: not ready any more
	onlyOld        bool  // new is given up: old's tables are the truth
	fenceOld       *bool // closed, seen in the home database; nil: not known
	fenceNew       *bool
}

// database is one database of the upgrade.
type database struct {
	name      string
	oid       uint32
	encoding  string // of old's database
	book      runbook.Database
	inventory *schema.Inventory // of the side that serves, or of old
	sets      []schema.Set
	excluded  []schema.Table
	links     []link.Link // old → new
	way       []link.Link // new → old
	problems  []runbook.Problem
	published map[string]bool // the sets that the side which serves publishes
	runs      *rights.Map     // nil: not read yet (Upgrade.runs)

	// Of a database whose tables go to several clusters: what goes elsewhere
	// (nil: not known, or nothing), the tables among it, and the views and
	// functions that go nowhere.
	apart       *schema.Apart
	tablesApart []string
	nowhere     []string
}

// side is the survey's Side by name.
func (s *survey) side(name string) cutover.Side {
	if name == "old" {
		return s.old
	}
	return s.new
}

// zero is the row of the upgrade itself, or nil.
func (s *survey) zero() *cutover.Decision {
	for i := range s.decisions {
		if s.decisions[i].Attempt == 0 {
			return &s.decisions[i]
		}
	}
	return nil
}

// ready reports whether a cutover may begin, and all that it stands on was looked at.
func (s *survey) ready() bool {
	z := s.zero()
	return z != nil && z.State == cutover.Ready && !s.distrusted
}

// last is the newest attempt that was not voided, or nil. A rehearsal is none.
func (s *survey) last() *cutover.Decision {
	for _, d := range slices.Backward(s.decisions) {
		if d.Attempt > 0 && d.State != cutover.Void && d.State != cutover.Rehearsing {
			return &d
		}
	}
	return nil
}

// incomplete is the last crossing if it still has steps to do after open, or nil.
// That nothing is left is recorded on the side that it opened; where that side has no
// rows any more, finish has dropped them, and had seen a complete crossing.
func (s *survey) incomplete() *cutover.Decision {
	last := s.last()
	if last == nil || last.State != cutover.Open || last.Done {
		return nil
	}
	opened := "new"
	if last.Direction == cutover.Back {
		opened = "old"
	}
	if there, answered := s.rows[opened]; answered && !there {
		return nil
	}
	return last
}

// stopped reports whether the newest attempt is one of this direction that is
// void and has left links stopped.
func (s *survey) stopped(dir cutover.Direction) bool {
	if len(s.decisions) == 0 {
		return false
	}
	d := s.decisions[len(s.decisions)-1]
	return d.Attempt > 0 && d.State == cutover.Void && d.Direction == dir && d.Stopped
}

// closed reports whether a crossing was cut off between close and open.
func (s *survey) closed() bool {
	d := s.last()
	return s.phase == report.PhaseCutover && d != nil && d.State == cutover.Closed
}

// rehearsing is the rehearsal that is under way or was cut off, or nil.
func (s *survey) rehearsing() *cutover.Decision {
	for _, d := range s.decisions {
		if d.State == cutover.Rehearsing {
			return &d
		}
	}
	return nil
}

// rehearsed are the rehearsals that row 0 remembers, oldest first.
func (s *survey) rehearsed() []cutover.Rehearsal {
	if z := s.zero(); z != nil {
		return z.Rehearsed
	}
	return nil
}

func (s *survey) attempt() int {
	n := 0
	for _, d := range s.decisions {
		n = max(n, d.Attempt)
	}
	return n
}

// before is what stood somewhere before the upgrade changed it.
func (s *survey) before(key string) (string, bool) {
	if z := s.zero(); z != nil {
		v, ok := z.Before[key]
		return v, ok
	}
	return "", false
}

// identify fills a side, or says why it cannot be asked.
func (u *Upgrade) identify(ctx context.Context, name string) (cutover.Side, error) {
	s := cutover.Side{Name: name, Server: u.c.Side(name)}
	err := u.c.Sessions.Do(ctx, s.Server, func(conn *pgx.Conn) error {
		var err error
		s.Identity, err = pg.Identify(ctx, conn)
		s.Version = s.Identity.Version
		return err
	})
	if err != nil {
		return s, &pg.Error{Doing: "ask " + name + " who it is", On: s.Server.String(), Err: err}
	}
	return s, nil
}

// look reads both servers as far as they answer. full reads the inventories too.
func (u *Upgrade) look(ctx context.Context, full bool) (*survey, error) {
	s := &survey{}
	lost := u.c.Locate(ctx)
	var g errgroup.Group
	g.Go(func() error {
		if s.old, s.oldErr = (cutover.Side{Name: "old", Server: u.c.Old}), lost; lost == nil {
			s.old, s.oldErr = u.identify(ctx, "old")
		}
		return nil
	})
	g.Go(func() error { s.new, s.newErr = u.identify(ctx, "new"); return nil })
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if s.oldErr != nil && s.newErr != nil {
		return s, errors.Join(s.oldErr, s.newErr)
	}
	if err := u.lookDatabases(ctx, s); err != nil {
		return s, err
	}
	if err := u.lookDecisions(ctx, s); err != nil {
		return s, err
	}
	s.phase = s.decide()
	if !full {
		return s, nil
	}
	return s, u.lookTables(ctx, s)
}

// lookDatabases lists the databases of the upgrade.
func (u *Upgrade) lookDatabases(ctx context.Context, s *survey) error {
	books := slices.Clone(u.rb.Databases)
	oids, encodings := map[string]uint32{}, map[string]string{}
	from := s.old
	if s.oldErr != nil {
		from = s.new
	}
	err := u.c.Sessions.Do(ctx, from.Server, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `SELECT oid, datname::text, pg_encoding_to_char(encoding)::text, datistemplate, NOT datallowconn OR datconnlimit = -2 FROM pg_database ORDER BY datname`)
		if err != nil {
			return err
		}
		var oid uint32
		var name, encoding string
		var template, shut bool
		_, err = pgx.ForEachRow(rows, []any{&oid, &name, &encoding, &template, &shut}, func() error {
			oids[name], encodings[name] = oid, encoding
			if u.rb.Databases == nil && !template && !shut {
				books = append(books, runbook.DefaultDatabase(name))
			}
			return nil
		})
		return err
	})
	if err != nil {
		return &pg.Error{Doing: "list the databases", On: from.Server.String(), Err: err}
	}
	for _, b := range books {
		if _, there := oids[b.Name]; !there && s.oldErr == nil {
			return &runbook.Error{Problems: []runbook.Problem{u.rb.Problem(b.At, fmt.Sprintf("database %s does not exist on old; name one that does", b.Name))}}
		}
		s.databases = append(s.databases, &database{name: b.Name, oid: oids[b.Name], encoding: encodings[b.Name], book: b})
	}
	if len(s.databases) == 0 {
		return exit.Errorf(exit.Findings, "create one, or correct old.primary", "%s has no database to upgrade", from.Server)
	}
	s.home = s.databases[0].name
	names := make([]string, len(s.databases))
	for i, db := range s.databases {
		names[i] = db.name
	}
	u.c.Knows(names)
	return nil
}

// lookDecisions reads crossfade.upgrade and the fence on both sides.
func (u *Upgrade) lookDecisions(ctx context.Context, s *survey) error {
	all := map[int]cutover.Decision{}
	s.rows = map[string]bool{}
	rank := map[cutover.State]int{cutover.Open: 4, cutover.Void: 3, cutover.Closed: 2, cutover.Armed: 1, cutover.Ready: 1}
	for _, name := range []string{"new", "old"} {
		if name == "old" && s.oldErr != nil || name == "new" && s.newErr != nil {
			continue
		}
		up := false
		err := u.c.In(ctx, name, s.home, func(conn *pgx.Conn) error {
			ds, err := u.c.Part.ReadDecisions(ctx, conn)
			if err != nil {
				return err
			}
			s.rows[name] = len(ds) > 0
			for _, d := range ds {
				had, ok := all[d.Attempt]
				d.Done, had.Done = d.Done || had.Done, d.Done || had.Done // written on the open side alone
				if ok {
					all[d.Attempt] = had
				}
				if !ok || rank[d.State] > rank[had.State] || rank[d.State] == rank[had.State] && name == "old" {
					all[d.Attempt] = d
				}
			}
			if up, err = u.c.Part.Up(ctx, conn); err != nil {
				return err
			}
			return u.only(ctx, conn)
		})
		switch {
		case pg.SQLState(err) == "3D000": // not there yet
		case pg.SQLState(err) == "55000": // the database takes no connections
			err = &pg.Error{Doing: "read the state of the upgrade", On: u.c.Side(name).String() + ", database " + s.home, Err: err, Hint: "let it take connections again: ALTER DATABASE " + pg.Ident(s.home) + " ALLOW_CONNECTIONS true"}
			if name == "old" {
				s.oldErr = err
			} else {
				s.newErr = err
			}
			if s.oldErr != nil && s.newErr != nil {
				return errors.Join(s.oldErr, s.newErr)
			}
		case errors.As(err, new(*exit.Error)):
			return err
		case err != nil:
			return &pg.Error{Doing: "read the state of the upgrade", On: u.c.Side(name).String(), Err: err}
		case name == "old":
			s.fenceOld = &up
		default:
			s.fenceNew = &up
		}
	}
	s.decisions = slices.SortedFunc(maps.Values(all), func(a, b cutover.Decision) int { return cmp.Compare(a.Attempt, b.Attempt) })
	for _, d := range s.decisions {
		if d.Upgrade != u.rb.Upgrade {
			return exit.Errorf(exit.Findings, "finish or abort that one first, with its own runbook", "upgrade %q has begun on this cluster; one upgrade at a time", d.Upgrade)
		}
	}
	return nil
}

// decide tells the phase from what both servers say.
func (s *survey) decide() report.Phase {
	if d := s.last(); d != nil {
		switch {
		case d.State == cutover.Armed || d.State == cutover.Closed:
			return report.PhaseCutover
		case d.Direction == cutover.Back:
			return report.PhaseRolledBack
		default:
			return report.PhaseOpen
		}
	}
	switch z := s.zero(); {
	case z != nil && z.State == cutover.Ready:
		return report.PhaseReady
	case z != nil:
		return report.PhasePreparing
	case s.fenceOld != nil && *s.fenceOld, s.fenceNew != nil && *s.fenceNew:
		// What finish leaves of an upgrade is the fence of the side given up.
		return report.PhaseFinished
	}
	return report.PhaseNew
}

// gaveNewUp reports whether the upgrade was finished after a rollback: old
// serves, and new was left closed.
func (s *survey) gaveNewUp() bool {
	return s.phase == report.PhaseFinished && s.fenceNew != nil && *s.fenceNew
}

// serving is the side whose tables are the truth: the one that was opened
// last. An attempt that was cut off before open has changed nothing of that.
func (s *survey) serving() cutover.Side {
	for _, d := range slices.Backward(s.decisions) {
		if d.Attempt > 0 && d.State == cutover.Open {
			if d.Direction == cutover.Forward && !s.onlyOld {
				return s.new
			}
			return s.old
		}
	}
	return s.old
}

// lookTables reads the inventory of every database on the side that serves,
// assigns tables to sets, and names the links.
func (u *Upgrade) lookTables(ctx context.Context, s *survey) error {
	return u.lookAtTables(ctx, s, schema.Filter{NoObjects: true, NoUncalled: true})
}

// lookAtTables is lookTables for who needs less, or more, of what they hold.
func (u *Upgrade) lookAtTables(ctx context.Context, s *survey, want schema.Filter) error {
	var problems []runbook.Problem
	for _, db := range s.databases {
		err := u.c.Sessions.Do(ctx, s.serving().Server.With(db.name), func(conn *pgx.Conn) error {
			want := want
			want.NoSizes = want.NoSizes && db.book.Split == 0
			inv, err := schema.Read(ctx, conn, want)
			db.inventory = inv
			return err
		})
		if err != nil {
			return &pg.Error{Doing: "read what database " + db.name + " holds", On: s.serving().Server.String(), Err: err}
		}
		db.book.Identity = db.book.Identities(db.inventory.Tables)
		db.assign()
		if u.c.Part == "" || s.serving().Name == "old" { // new has the tables of its own sets alone
			problems = append(problems, db.problems...)
		}
		if err := u.divide(ctx, s, db); err != nil {
			return err
		}
		if err := u.assigned(ctx, s, db); err != nil {
			return err
		}
		u.linkUp(s, db)
	}
	var mistakes []runbook.Problem
	for _, p := range problems {
		if !p.Warning {
			p.File = u.rb.File
			mistakes = append(mistakes, p)
		}
	}
	if len(mistakes) > 0 {
		return &runbook.Error{Problems: mistakes}
	}
	return nil
}

// assign puts every published table into its set. A pattern that names a
// partitioned table takes its whole tree; otherwise leaves are matched by
// their own names. Where the tool is to make the sets, patterns say only what
// is excluded.
func (db *database) assign() {
	var names []runbook.TableName
	leaves := map[runbook.TableName][]runbook.TableName{}
	roots := db.roots()
	for i := range db.inventory.Tables {
		t := &db.inventory.Tables[i]
		root := roots[t.OID]
		for _, p := range db.book.Exclude {
			t.Excluded = t.Excluded || p.Match(t.Schema, t.Name) || p.Match(root.Schema, root.Name)
		}
		if t.Excluded {
			db.excluded = append(db.excluded, *t)
		}
		if t.Kind != 'r' || t.Persistence != 'p' || t.Extension != "" && !t.ExtConfig {
			continue
		}
		name := runbook.TableName{Schema: t.Schema, Name: t.Name}
		if db.named(root) {
			name = root
		}
		if leaves[name] == nil {
			names = append(names, name)
		}
		leaves[name] = append(leaves[name], runbook.TableName{Schema: t.Schema, Name: t.Name})
	}
	a := runbook.Assign(db.book, names)
	db.problems = a.Problems
	for _, set := range a.Sets {
		out := schema.Set{Name: set.Name}
		for _, n := range set.Tables {
			for _, leaf := range leaves[n] {
				if t := db.inventory.Find(leaf.Schema, leaf.Name); t != nil && !t.Excluded {
					out.Tables = append(out.Tables, *t)
				}
			}
		}
		db.sets = append(db.sets, out)
	}
	if db.book.Split > 0 {
		db.sets = db.inventory.Split(db.book.Split)
	}
}

// assigned replaces what the runbook says of sets by what has been published,
// once there are publications: a table stays in the set that it was copied
// with, and tables that were made since are a set of their own, because the
// slots of the others began before they were published.
func (u *Upgrade) assigned(ctx context.Context, s *survey, db *database) error {
	if z := s.zero(); z == nil {
		return nil
	}
	published := map[string][]runbook.TableName{}
	prefix := link.Name(true, u.rb.Upgrade, u.tag(s, db), "")
	side := s.serving()
	if side.Name == "new" {
		prefix = link.Name(false, u.rb.Upgrade, u.tag(s, db), "")
	}
	err := u.c.Sessions.Do(ctx, side.Server.With(db.name), func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `
			SELECT substr(p.pubname, length($1) + 1), n.nspname::text, c.relname::text
			FROM pg_publication p LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid
			LEFT JOIN pg_class c ON c.oid = r.prrelid LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE starts_with(p.pubname, $1) ORDER BY 1, 2, 3`, prefix)
		if err != nil {
			return err
		}
		var set string
		var schema, name *string
		_, err = pgx.ForEachRow(rows, []any{&set, &schema, &name}, func() error {
			published[set] = append(published[set], runbook.TableName{})
			if schema != nil && *schema != "crossfade" {
				published[set] = append(published[set], runbook.TableName{Schema: *schema, Name: *name})
			}
			return nil
		})
		return err
	})
	if err != nil {
		return &pg.Error{Doing: "read what is published of " + db.name, On: side.Server.String(), Err: err}
	}
	db.published = map[string]bool{}
	for set := range published {
		db.published[set] = true
	}
	if taken := u.ofThis(s, db, published); len(published) > 0 {
		db.keep(published, taken)
	}
	return nil
}

// laterSet begins the names of sets of tables that were made since prepare.
const laterSet = "later"

// keep makes the sets what published says; what is in none is a set of its
// own, named later1, later2 …, but none of taken.
func (db *database) keep(published map[string][]runbook.TableName, taken []string) {
	in := map[runbook.TableName]string{}
	for set, tables := range published {
		for _, t := range tables {
			in[t] = set
		}
	}
	var sets []schema.Set
	at := map[string]int{}
	add := func(name string) {
		if _, ok := at[name]; !ok {
			at[name] = len(sets)
			sets = append(sets, schema.Set{Name: name})
		}
	}
	for _, set := range db.sets {
		add(set.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(published)) {
		add(name)
	}
	var fresh []schema.Table
	for _, set := range db.sets {
		for _, t := range set.Tables {
			if name, ok := in[runbook.TableName{Schema: t.Schema, Name: t.Name}]; ok {
				sets[at[name]].Tables = append(sets[at[name]].Tables, t)
				continue
			}
			if _, made := published[set.Name]; !made {
				sets[at[set.Name]].Tables = append(sets[at[set.Name]].Tables, t)
				continue
			}
			fresh = append(fresh, t)
		}
	}
	if len(fresh) > 0 {
		n := 1
		for had := true; had; {
			name := fmt.Sprintf("%s%d", laterSet, n)
			if _, had = at[name]; had || slices.Contains(taken, name) {
				had = true
				n++
			}
		}
		sets = append(sets, schema.Set{Name: fmt.Sprintf("%s%d", laterSet, n), Tables: fresh})
	}
	db.sets = sets
}

// named reports whether a set's pattern, other than the one for everything,
// matches a table.
func (db *database) named(t runbook.TableName) bool {
	for _, set := range db.book.Sets {
		for _, p := range set.Tables {
			if !p.Everything() && p.Match(t.Schema, t.Name) {
				return true
			}
		}
	}
	return false
}

// roots are the topmost partitioned tables above every table, itself where
// there is none.
func (db *database) roots() map[uint32]runbook.TableName {
	roots := make(map[uint32]runbook.TableName, len(db.inventory.Tables))
	by := make(map[uint32]*schema.Table, len(db.inventory.Tables))
	for i := range db.inventory.Tables {
		by[db.inventory.Tables[i].OID] = &db.inventory.Tables[i]
	}
	for oid, t := range by {
		for t.Partition && len(t.Parents) > 0 && by[t.Parents[0]] != nil {
			t = by[t.Parents[0]]
		}
		roots[oid] = runbook.TableName{Schema: t.Schema, Name: t.Name}
	}
	return roots
}

// tag is how a database stands in names. The oid in it is old's, also where
// only new answers.
func (u *Upgrade) tag(s *survey, db *database) string {
	if v, ok := s.before("tag/" + db.name); ok {
		return v
	}
	return link.DatabaseTag(db.name, db.oid)
}

// linkUp names the links of a database in both directions.
func (u *Upgrade) linkUp(s *survey, db *database) {
	tag := u.tag(s, db)
	old := link.End{Side: "old", Server: u.c.Old.With(db.name), Version: s.old.Version}
	fresh := link.End{Side: "new", Server: u.c.New.With(db.name), Version: s.new.Version}
	for _, set := range db.sets {
		l := link.Link{
			Name: link.Name(true, u.rb.Upgrade, tag, set.Name), Database: db.name, Set: set.Name, Forward: true,
			From: old, To: fresh, Conninfo: u.c.OldFromNew.With(db.name).Conninfo(), Secret: u.c.OldFromNew.Secret(), Tables: set.Tables,
		}
		db.links = append(db.links, l)
		l.Name, l.Forward = link.Name(false, u.rb.Upgrade, tag, set.Name), false
		l.From, l.To = fresh, old
		l.Conninfo, l.Secret = u.c.NewFromOld.With(db.name).Conninfo(), u.c.NewFromOld.Secret()
		db.way = append(db.way, l)
	}
}
