// Package trial tries old's schema out: it restores it into a scratch database of
// new, without rows, and compares the catalogs.
package trial

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"crossfade/cutover"
	"crossfade/schema"
	"crossfade/upgrade/check"
	"crossfade/upgrade/clusters"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/ground"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/rights"
	"crossfade/upgrade/scratch"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// Trial is that of one upgrade.
type Trial struct {
	c       *clusters.Clusters
	ground  *ground.Ground
	scratch *scratch.Scratch
}

// New is the trial of old's schema on new.
func New(c *clusters.Clusters, g *ground.Ground, s *scratch.Scratch) *Trial { return &Trial{c, g, s} }

// SchemaRejected is the finding of a statement of old's schema that new refuses.
const SchemaRejected = "schema-rejected"

// Restore restores every database of the upgrade, one after the other, apart
// from those in which the restore may run functions with the tool's rights, by what
// blocks.
func (tl *Trial) Restore(ctx context.Context, s *survey.Survey, blocking []check.Finding, observe func(flow.Event)) (found []check.Finding, err error) {
	lock, err := tl.scratch.Lock(ctx)
	if err != nil {
		return nil, err
	}
	defer pg.Leave(lock)
	left, strange, err := tl.scratch.Left(ctx, lock)
	if err == nil && len(strange) > 0 {
		err = strange[0]
	}
	for _, name := range left {
		if err == nil {
			err = tl.scratch.Drop(ctx, lock, name)
		}
	}
	if err != nil {
		return nil, err
	}
	for _, db := range s.Databases {
		if slices.ContainsFunc(blocking, func(f check.Finding) bool { return f.ID == check.FunctionRights && f.Database == db.Name }) {
			found = append(found, check.Finding{
				ID: SchemaRejected, Level: check.Warn, On: check.OnNew, Database: db.Name, Object: "database " + db.Name,
				Says: "the schema was not restored: that may run functions of ordinary roles with the rights of the tool, as " + check.FunctionRights + " says",
				Fix:  "fix or accept " + check.FunctionRights + ", and run crossfade check --restore again",
			})
			continue
		}
		some, err := tl.restoreOne(ctx, lock, s, db, observe)
		found = append(found, some...)
		if err != nil {
			return found, err
		}
	}
	return found, nil
}

// restoreOne dumps one database's schema and tries it out.
func (tl *Trial) restoreOne(ctx context.Context, lock *pgx.Conn, s *survey.Survey, db *survey.Database, observe func(flow.Event)) ([]check.Finding, error) {
	program, err := tl.c.Program("pg_dump", s.New.Identity.Major())
	if err != nil {
		return nil, err
	}
	t := flow.NewTurn("check", "restore/"+db.Name, nil, observe)
	t.Progress(0, 0, "objects", "reading the schema of "+db.Name)
	entries, _, err := schema.Dump(ctx, tl.c.Old.With(db.Name), program, db.Apart)
	if err != nil {
		return nil, fmt.Errorf("dump the schema of database %s: %w", db.Name, err)
	}
	return tl.tryOut(ctx, lock, s, db, entries, t)
}

// notFound are the states of a function, table or type that is not there.
var notFound = []string{"42883", "42P01", "42704"}

// SchemaDiffers is the finding of an object that is not on new what it is on
// old, although new took every statement.
const SchemaDiffers = "schema-differs"

// tried are the entries that are tried out, in order: all but what fills
// materialized views, which needs rows, and what would run functions of ordinary
// roles (rights.Map.Trial). left is what is not seen in the scratch database
// because of the latter.
func tried(runs *rights.Map, db *survey.Database, major int, entries []schema.Entry) (some []schema.Entry, left func(schema.Difference) bool) {
	all, deferred := runs.Defer(entries, major, db.Partitioned)
	kept := runs.Trial(entries, major, db.Partitioned)
	has, out := map[string]bool{}, map[string]bool{}
	for _, e := range kept {
		has[e.Key()] = true
	}
	for _, e := range all {
		if has[e.Key()] {
			continue
		}
		name := e.Name
		if e.Type == "CONSTRAINT" { // "table constraint", and its index has the constraint's name
			_, name, _ = strings.Cut(e.Name, " ")
		}
		out[schema.Name(e.Schema, name)], out[schema.Name(name)] = true, true
	}
	return schema.Entries(kept, schema.Before, schema.Identify, schema.Index, schema.Foreign, schema.Late), func(d schema.Difference) bool {
		notValid := d.Property == "validated" || d.Got == d.Want+" NOT VALID"
		name, _, _ := strings.Cut(d.Object, " on ")
		name = name[strings.LastIndexByte(name, ' ')+1:] // a comment is on "index public.i"
		return len(deferred) > 0 && notValid || d.Property == "" && out[name]
	}
}

// Step restores all of a database's schema into a scratch database on new,
// on empty tables, and compares the catalogs: what would fail at the schema,
// indexes, constraints, fence or comparison fails here, before a row is copied and
// before anything that a change on old would have to be brought to.
func (tl *Trial) Step(ctx context.Context, s *survey.Survey, db *survey.Database, entries []schema.Entry) (flow.Step, error) {
	name := tl.scratch.Prefix() + s.Tag(db)
	var create string
	err := tl.c.On(ctx, "new", func(conn *pgx.Conn) (err error) {
		create, _, err = tl.scratch.Needs(ctx, conn, db.Name, name)
		return err
	})
	if err != nil {
		return flow.Step{}, err
	}
	runs, err := s.Runs(ctx, db)
	if err != nil {
		return flow.Step{}, err
	}
	some, _ := tried(runs, db, s.New.Version/10000, entries)
	does := []flow.Effect{
		flow.SQL("new", "", scratch.DropSQL(name)),
		flow.SQL("new", "", create), flow.SQL("new", "", scratch.MarkSQL(name)),
	}
	for _, e := range some {
		does = append(does, flow.Effect{On: "new", Database: name, SQL: e.SQL})
	}
	return flow.Step{
		ID: "trial/" + db.Name, Title: "Try the schema of " + db.Name + " out on new, without rows", Does: append(does, flow.SQL("new", "", scratch.DropSQL(name)), flow.SQL("old", s.Home, tl.c.Part.Own(ground.KeepMemory))),
		Done: func(ctx context.Context) (bool, error) {
			if was, ok := s.Before(triedKey(db)); ok && was == tl.triedMark(s, some) {
				return true, nil
			}
			return survey.Restored(ctx, tl.c, "new", db, db.WithoutAttached(some))
		},
		Do: func(ctx context.Context, t *flow.Turn) error {
			lock, err := tl.scratch.Lock(ctx)
			if err != nil {
				return err
			}
			defer pg.Leave(lock)
			_, strange, err := tl.scratch.Left(ctx, lock)
			if err == nil && len(strange) > 0 {
				err = strange[0]
			}
			if err == nil {
				err = tl.scratch.Drop(ctx, lock, name)
			}
			if err != nil {
				return err
			}
			found, err := tl.tryOut(ctx, lock, s, db, entries, t)
			if err != nil {
				return err
			}
			if len(found) > 0 {
				return exit.Blocks(found)
			}
			return tl.ground.Remember(ctx, s, func(m *cutover.Memory) { m.Before[triedKey(db)] = tl.triedMark(s, some) })
		},
	}, nil
}

// triedKey is where row 0 remembers the schema that was tried out last.
func triedKey(db *survey.Database) string { return "trial/" + db.Name }

// triedMark is what is remembered of a schema that new took: a prepare that goes on
// does not try the same once more.
func (tl *Trial) triedMark(s *survey.Survey, some []schema.Entry) string {
	all := []byte(fmt.Sprintln(s.New.Identity, s.New.Version))
	for _, e := range some {
		all = fmt.Appendln(all, e.Key(), e.SQL)
	}
	h := sha256.Sum256(all)
	return hex.EncodeToString(h[:])
}

// tryOut makes a scratch database, restores entries into it, compares it with
// old's, and drops it however that ends. lock is that of scratch.Scratch.Lock.
func (tl *Trial) tryOut(ctx context.Context, lock *pgx.Conn, s *survey.Survey, db *survey.Database, entries []schema.Entry, t *flow.Turn) (found []check.Finding, err error) {
	name := tl.scratch.Prefix() + s.Tag(db)
	major := s.New.Identity.Major()
	create, roles, err := tl.scratch.Needs(ctx, lock, db.Name, name)
	if err != nil {
		return nil, err
	}
	// However it ends, the database goes; the session in it before.
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), scratch.ScratchEnd)
		defer cancel()
		err = errors.Join(err, tl.scratch.Drop(end, lock, name))
	}()
	for _, sql := range []string{create, scratch.MarkSQL(name)} {
		err := pg.Exec(ctx, lock, sql)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if pg.SQLState(err) != "" {
			return []check.Finding{rejection(db.Name, "database "+db.Name, sql, major, err, nil, "")}, nil
		}
		if err != nil {
			return nil, &pg.Error{Doing: "make the scratch database " + name, On: tl.c.New.String(), Err: err}
		}
	}
	conn, err := schema.Session(ctx, tl.c.New.With(name), map[string]string{"application_name": tl.c.App + " check"})
	if err != nil {
		return nil, err
	}
	defer pg.Leave(conn)
	runs, err := s.Runs(ctx, db)
	if err != nil {
		return nil, err
	}
	some, left := tried(runs, db, major, entries)
	rejected, err := schema.TryOut(ctx, conn, some, roles, func(n int) {
		t.Progress(int64(n), int64(len(some)), "objects", db.Name)
	})
	for _, r := range rejected {
		undo := ""
		if r.Entry.Borrowed != nil {
			undo = r.Entry.Revoked(r.SQL)
		}
		found = append(found, rejection(db.Name, r.Entry.Object(), r.SQL, major, r.Err, r.Because, undo))
	}
	if err != nil {
		return found, fmt.Errorf("restore the schema of %s into the scratch database %s: %w", db.Name, name, err)
	}
	if len(found) > 0 {
		return found, nil // what is missing because of these would be reported, too
	}
	t.Progress(0, 0, "objects", "comparing the catalogs of "+db.Name)
	return tl.compareScratch(ctx, conn, db, func(d schema.Difference) bool {
		// Where new lacks roles, everything is the tool's, and nobody has privileges.
		return len(roles) > 0 && ofRoles(d) || left(d)
	})
}
