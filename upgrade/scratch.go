package upgrade

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"crossfade/schema"
	"crossfade/upgrade/check"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// schemaRejected is the finding of a statement of old's schema that new refuses.
const schemaRejected = "schema-rejected"

// CheckRestore is Check, and restores old's schema into a scratch database on
// new, as prepare will restore it, which is dropped again however it ends. What
// an earlier run left behind that was killed is dropped first.
func (u *Upgrade) CheckRestore(ctx context.Context, observe func(flow.Event)) ([]check.Finding, error) {
	if u.parts != nil {
		return u.parts.check(ctx, func(p *Upgrade) ([]check.Finding, error) {
			found, err := p.CheckRestore(ctx, p.Telling(observe))
			return p.named(found), err
		})
	}
	o, s, err := u.checkOptions(ctx, false)
	if err != nil {
		return nil, err
	}
	found, err := u.judged(ctx, o, s)
	if err != nil {
		return nil, err
	}
	if s == nil {
		s, err = survey.Take(ctx, u.c, false)
	}
	if err == nil {
		err = s.BothAnswer()
	}
	var rejected []check.Finding
	if err == nil {
		rejected, err = u.restoreScratch(ctx, s, check.Blocking(found), observe)
	}
	if err != nil && ctx.Err() == nil && len(check.Blocking(found)) > 0 {
		// What blocks checking blocks the restore.
		return append(found, check.Finding{
			ID: schemaRejected, Level: check.Warn, On: check.OnNew,
			Says: "the schema could not be restored to its end: " + err.Error(), Fix: "fix what blocks, and run crossfade check --restore again",
		}), nil
	}
	return append(rejected, found...), err
}

// restoreScratch restores every database of the upgrade, one after the other, apart
// from those in which the restore may run functions with the tool's rights, by what
// blocks.
func (u *Upgrade) restoreScratch(ctx context.Context, s *survey.Survey, blocking []check.Finding, observe func(flow.Event)) (found []check.Finding, err error) {
	lock, err := u.scratch.Lock(ctx)
	if err != nil {
		return nil, err
	}
	defer pg.Leave(lock)
	left, strange, err := u.scratch.Left(ctx, lock)
	if err == nil && len(strange) > 0 {
		err = strange[0]
	}
	for _, name := range left {
		if err == nil {
			err = u.scratch.Drop(ctx, lock, name)
		}
	}
	if err != nil {
		return nil, err
	}
	for _, db := range s.Databases {
		if slices.ContainsFunc(blocking, func(f check.Finding) bool { return f.ID == check.FunctionRights && f.Database == db.Name }) {
			found = append(found, check.Finding{
				ID: schemaRejected, Level: check.Warn, On: check.OnNew, Database: db.Name, Object: "database " + db.Name,
				Says: "the schema was not restored: that may run functions of ordinary roles with the rights of the tool, as " + check.FunctionRights + " says",
				Fix:  "fix or accept " + check.FunctionRights + ", and run crossfade check --restore again",
			})
			continue
		}
		some, err := u.restoreOne(ctx, lock, s, db, observe)
		found = append(found, some...)
		if err != nil {
			return found, err
		}
	}
	return found, nil
}

// restoreOne dumps one database's schema and tries it out.
func (u *Upgrade) restoreOne(ctx context.Context, lock *pgx.Conn, s *survey.Survey, db *survey.Database, observe func(flow.Event)) ([]check.Finding, error) {
	program, err := u.c.Program("pg_dump", s.New.Identity.Major())
	if err != nil {
		return nil, err
	}
	t := flow.NewTurn("check", "restore/"+db.Name, nil, observe)
	t.Progress(0, 0, "objects", "reading the schema of "+db.Name)
	entries, _, err := schema.Dump(ctx, u.c.Old.With(db.Name), program, db.Apart)
	if err != nil {
		return nil, fmt.Errorf("dump the schema of database %s: %w", db.Name, err)
	}
	return u.tryOut(ctx, lock, s, db, entries, t)
}

// notFound are the states of a function, table or type that is not there.
var notFound = []string{"42883", "42P01", "42704"}

// rejection is the finding of a refused statement.
func rejection(database, object, sql string, major int, err error, because *schema.Rejected, undo string) check.Finding {
	f := check.Finding{ID: schemaRejected, Level: check.Block, On: check.OnNew, Database: database, Object: object}
	said := pg.Said(err)
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Where != "" {
		said += ", in " + pg.Brief(e.Where)
	}
	f.Says = fmt.Sprintf("PostgreSQL %d refuses %s of old: %s; the statement: %s", major, object, said, pg.Brief(sql))
	state := pg.SQLState(err)
	switch {
	case undo != "":
		f.Fix = "new has no function of that name, or several; on old, in database " + database + ": " + undo
	case because != nil:
		f.Fix = "fix " + because.Entry.Object() + " first, which this one needs"
	case strings.HasPrefix(state, "58"), strings.HasPrefix(object, "extension "):
		f.Fix = "install the package of this extension on new, or drop the extension on old"
	case state == "42501":
		f.Fix = "let crossfade log in to new as a superuser"
	case slices.Contains(notFound, state):
		f.Fix = "where a function that it calls names others without a schema, which search_path does not find here: " +
			"ALTER FUNCTION … SET search_path = … on old, as the finding unqualified-names prints it; " +
			fmt.Sprintf("else change or drop it on old so that PostgreSQL %d takes it. Then run the same command again", major)
	default:
		f.Fix = fmt.Sprintf("change or drop it on old so that PostgreSQL %d takes it, then run the same command again", major)
	}
	return f
}
