package upgrade

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/check"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// schemaRejected is the finding of a statement of old's schema that new refuses.
const schemaRejected = "schema-rejected"

// scratchMark is the comment on a scratch database: whoever finds one may drop it.
const scratchMark = "scratch of crossfade check --restore; its next run drops it"

// scratchEnd is how long dropping a scratch database may take.
const scratchEnd = 2 * time.Minute

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
	lock, err := u.scratchLock(ctx)
	if err != nil {
		return nil, err
	}
	defer pg.Leave(lock)
	left, strange, err := u.scratchLeft(ctx, lock)
	if err == nil && len(strange) > 0 {
		err = strange[0]
	}
	for _, name := range left {
		if err == nil {
			err = u.dropDatabase(ctx, lock, name)
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

// scratchPrefix begins the names of the scratch databases of this upgrade.
func (u *Upgrade) scratchPrefix() string { return link.ForwardPrefix + u.rb.Upgrade + "_restore_" }

// scratchLock opens a session on new that no other check --restore of this
// upgrade has beside it. It is not a kept one: the lock ends with it, whatever
// happens.
func (u *Upgrade) scratchLock(ctx context.Context) (*pgx.Conn, error) {
	lock, err := u.c.New.ConnectWith(ctx, map[string]string{"application_name": u.c.App + " check"})
	if err != nil {
		return nil, err
	}
	var got bool
	if err = lock.QueryRow(ctx, `SELECT pg_try_advisory_lock(hashtext('crossfade check --restore'), hashtext($1))`, u.rb.Upgrade).Scan(&got); err != nil {
		err = &pg.Error{Doing: "take the lock of check --restore", On: u.c.New.String(), Err: err}
	} else if !got {
		err = &exit.Error{Code: exit.Held, Says: "another check --restore of this upgrade runs", Hint: "wait for it, or end it"}
	}
	if err != nil {
		pg.Leave(lock)
		return nil, err
	}
	return lock, nil
}

// scratchLeft are the scratch databases that earlier runs left. A database
// without the mark is one that was killed between making and marking it, and is
// empty; else it is somebody's: strange has an error for each.
func (u *Upgrade) scratchLeft(ctx context.Context, conn *pgx.Conn) (left []string, strange []error, err error) {
	rows, err := conn.Query(ctx, `SELECT datname::text, coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE starts_with(datname, $1) ORDER BY 1`, u.scratchPrefix())
	var name, comment string
	comments := map[string]string{}
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&name, &comment}, func() error { comments[name] = comment; return nil })
	}
	if err != nil {
		return nil, nil, &pg.Error{Doing: "look for scratch databases of earlier runs", On: u.c.New.String(), Err: err}
	}
	for _, name := range slices.Sorted(maps.Keys(comments)) {
		if comments[name] != scratchMark {
			holds, err := u.strangeIn(ctx, name)
			if err != nil {
				return nil, nil, err
			}
			if len(holds) > 0 {
				strange = append(strange, &exit.Error{
					Code: exit.Failed, On: u.c.New.String(), Object: name, Hint: "drop or rename it",
					Says: fmt.Sprintf("database %s on new has the name of a scratch database, and holds %s", name, strings.Join(holds, ", ")),
				})
				continue
			}
		}
		left = append(left, name)
	}
	return left, strange, nil
}

// scratchSteps drop what a killed check --restore has left on new; none where
// it left nothing. What is somebody's stays.
func (u *Upgrade) scratchSteps(ctx context.Context, s *survey.Survey) ([]flow.Step, error) {
	if s.NewErr != nil {
		return nil, nil
	}
	var left []string
	err := u.c.On(ctx, "new", func(conn *pgx.Conn) (err error) {
		left, _, err = u.scratchLeft(ctx, conn)
		return err
	})
	if err != nil || len(left) == 0 {
		return nil, err
	}
	st := flow.Step{ID: "unmake/scratch", Title: "Drop on new what a check --restore that was killed has left", Done: flow.Never}
	for _, name := range left {
		st.Does = append(st.Does, flow.SQL("new", "", dropScratch(name)))
	}
	st.Do = func(ctx context.Context, _ *flow.Turn) error {
		lock, err := u.scratchLock(ctx)
		if err != nil {
			return err
		}
		defer pg.Leave(lock)
		for _, name := range left {
			if err := u.dropDatabase(ctx, lock, name); err != nil {
				return err
			}
		}
		return nil
	}
	return []flow.Step{st}, nil
}

func (u *Upgrade) strangeIn(ctx context.Context, database string) ([]string, error) {
	conn, err := u.c.New.With(database).Connect(ctx)
	if err != nil {
		return nil, err
	}
	defer pg.Leave(conn)
	return schema.Strange(ctx, conn)
}

func dropScratch(name string) string {
	return "DROP DATABASE IF EXISTS " + pg.Ident(name) + " WITH (FORCE)"
}

func (u *Upgrade) dropDatabase(ctx context.Context, conn *pgx.Conn, name string) error {
	if err := pg.Exec(ctx, conn, dropScratch(name)); err != nil {
		return &pg.Error{Doing: "drop the scratch database " + name, On: u.c.New.String(), Object: name, Hint: "drop it by hand, or run crossfade check --restore again", Err: err}
	}
	return nil
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

// scratchNeeds is what makes a scratch database name like old's, and the roles
// that new lacks.
func (u *Upgrade) scratchNeeds(ctx context.Context, lock *pgx.Conn, database, name string) (create string, roles schema.Lacks, err error) {
	err = u.c.On(ctx, "old", func(old *pgx.Conn) error {
		from, err := schema.ReadShared(ctx, old, []string{database})
		if err != nil {
			return err
		}
		to, err := schema.ReadShared(ctx, lock, nil)
		if err != nil {
			return err
		}
		if create, err = schema.CreateScratch(from, to, database, name); err != nil {
			return err
		}
		roles, err = schema.LackingRoles(ctx, old, lock)
		return err
	})
	return create, roles, err
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
