package upgrade

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
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/ground"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/rights"
	"crossfade/upgrade/scratch"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// schemaDiffers is the finding of an object that is not on new what it is on
// old, although new took every statement.
const schemaDiffers = "schema-differs"

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

// trialStep restores all of a database's schema into a scratch database on new,
// on empty tables, and compares the catalogs: what would fail at the schema,
// indexes, constraints, fence or comparison fails here, before a row is copied and
// before anything that a change on old would have to be brought to.
func (u *Upgrade) trialStep(ctx context.Context, s *survey.Survey, db *survey.Database, entries []schema.Entry) (flow.Step, error) {
	name := u.scratch.Prefix() + s.Tag(db)
	var create string
	err := u.c.On(ctx, "new", func(conn *pgx.Conn) (err error) {
		create, _, err = u.scratch.Needs(ctx, conn, db.Name, name)
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
		ID: "trial/" + db.Name, Title: "Try the schema of " + db.Name + " out on new, without rows", Does: append(does, flow.SQL("new", "", scratch.DropSQL(name)), flow.SQL("old", s.Home, u.c.Part.Own(ground.KeepMemory))),
		Done: func(ctx context.Context) (bool, error) {
			if was, ok := s.Before(triedKey(db)); ok && was == u.triedMark(s, some) {
				return true, nil
			}
			return survey.Restored(ctx, u.c, "new", db, db.WithoutAttached(some))
		},
		Do: func(ctx context.Context, t *flow.Turn) error {
			lock, err := u.scratch.Lock(ctx)
			if err != nil {
				return err
			}
			defer pg.Leave(lock)
			_, strange, err := u.scratch.Left(ctx, lock)
			if err == nil && len(strange) > 0 {
				err = strange[0]
			}
			if err == nil {
				err = u.scratch.Drop(ctx, lock, name)
			}
			if err != nil {
				return err
			}
			found, err := u.tryOut(ctx, lock, s, db, entries, t)
			if err != nil {
				return err
			}
			if len(found) > 0 {
				return exit.Blocks(found)
			}
			return u.ground.Remember(ctx, s, func(m *cutover.Memory) { m.Before[triedKey(db)] = u.triedMark(s, some) })
		},
	}, nil
}

// triedKey is where row 0 remembers the schema that was tried out last.
func triedKey(db *survey.Database) string { return "trial/" + db.Name }

// triedMark is what is remembered of a schema that new took: a prepare that goes on
// does not try the same once more.
func (u *Upgrade) triedMark(s *survey.Survey, some []schema.Entry) string {
	all := []byte(fmt.Sprintln(s.New.Identity, s.New.Version))
	for _, e := range some {
		all = fmt.Appendln(all, e.Key(), e.SQL)
	}
	h := sha256.Sum256(all)
	return hex.EncodeToString(h[:])
}

// tryOut makes a scratch database, restores entries into it, compares it with
// old's, and drops it however that ends. lock is the session of scratchLock.
func (u *Upgrade) tryOut(ctx context.Context, lock *pgx.Conn, s *survey.Survey, db *survey.Database, entries []schema.Entry, t *flow.Turn) (found []check.Finding, err error) {
	name := u.scratch.Prefix() + s.Tag(db)
	major := s.New.Identity.Major()
	create, roles, err := u.scratch.Needs(ctx, lock, db.Name, name)
	if err != nil {
		return nil, err
	}
	// However it ends, the database goes; the session in it before.
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), scratch.ScratchEnd)
		defer cancel()
		err = errors.Join(err, u.scratch.Drop(end, lock, name))
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
			return nil, &pg.Error{Doing: "make the scratch database " + name, On: u.c.New.String(), Err: err}
		}
	}
	conn, err := schema.Session(ctx, u.c.New.With(name), map[string]string{"application_name": u.c.App + " check"})
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
	return u.compareScratch(ctx, conn, db, func(d schema.Difference) bool {
		// Where new lacks roles, everything is the tool's, and nobody has privileges.
		return len(roles) > 0 && ofRoles(d) || left(d)
	})
}

// compareScratch compares a scratch database with old's, apart from differences
// that are left out.
func (u *Upgrade) compareScratch(ctx context.Context, conn *pgx.Conn, db *survey.Database, left func(schema.Difference) bool) ([]check.Finding, error) {
	var want *schema.Inventory
	err := survey.Catalogs(ctx, u.c, "old", db, func(old *pgx.Conn) (err error) {
		want, err = schema.Read(ctx, old, schema.Filter{NoSizes: true, NoUncalled: true})
		return err
	})
	if err != nil {
		return nil, err
	}
	got, err := schema.Read(ctx, conn, schema.Filter{NoSizes: true, NoUncalled: true})
	if err != nil {
		return nil, fmt.Errorf("read the scratch database of %s: %w", db.Name, err)
	}
	want = want.Without(db.Apart)
	diff, err := schema.Compare(ctx, conn, want, got)
	if err != nil {
		return nil, err
	}
	var found []check.Finding
	for _, d := range schema.Unexpected(diff) {
		if d.Kind == "user mapping" && d.Property == "options" || left(d) {
			continue // no secret is in a scratch database
		}
		found = append(found, check.Finding{
			ID: schemaDiffers, Level: check.Block, On: check.OnNew, Database: db.Name, Object: d.Kind + " " + d.Object,
			Says: "what new makes of old's schema is not the same: " + d.Says,
			Fix:  "change or drop it on old so that both majors have the same, then run crossfade again",
		})
	}
	return append(found, withoutFence(db, want, got)...), nil
}

// ofRoles says whether a difference is about who owns or may do something. A policy
// may be for a role.
func ofRoles(d schema.Difference) bool {
	return d.Property == "" && (d.Kind == "policy" || d.Kind == "comment" && strings.HasPrefix(d.Object, "policy ")) ||
		slices.Contains([]string{"owner", "privileges", "roles"}, d.Property) || slices.Contains([]string{"default privileges", "privileges", "user mapping"}, d.Kind)
}

// withoutFence are the tables that new does not make, and that could not be closed.
func withoutFence(db *survey.Database, want, got *schema.Inventory) []check.Finding {
	var found []check.Finding
	for _, t := range want.Tables {
		if got.Find(t.Schema, t.Name) != nil || t.Extension == "" {
			continue
		}
		found = append(found, check.Finding{
			ID: schemaDiffers, Level: check.Block, On: check.OnNew, Database: db.Name, Object: t.String(),
			Says: fmt.Sprintf("table %s belongs to extension %s, which does not make it on new: it, and its rows, would be missing there", t, t.Extension),
			Fix:  fmt.Sprintf("if it is a table of yours: ALTER EXTENSION %s DROP TABLE %s on old; else update the extension there (ALTER EXTENSION %[1]s UPDATE)", pg.Ident(t.Extension), t.SQL()),
		})
	}
	return found
}
