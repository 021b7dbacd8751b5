// Package scratch is the scratch databases on new, in which old's schema is tried
// out: their names, the lock that one run has, what runs that were killed left, and
// their end.
package scratch

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/clusters"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// Scratch is the scratch databases of one upgrade.
type Scratch struct{ c *clusters.Clusters }

// New is those of c.
func New(c *clusters.Clusters) *Scratch { return &Scratch{c} }

// mark is the comment on a scratch database: whoever finds one may drop it.
const mark = "scratch of crossfade check --restore; its next run drops it"

// ScratchEnd is how long dropping a scratch database may take.
const ScratchEnd = 2 * time.Minute

// Prefix begins the names of the scratch databases of this upgrade.
func (sc *Scratch) Prefix() string { return link.ForwardPrefix + sc.c.Book.Upgrade + "_restore_" }

// Lock opens a session on new that no other check --restore of this
// upgrade has beside it. It is not a kept one: the lock ends with it, whatever
// happens.
func (sc *Scratch) Lock(ctx context.Context) (*pgx.Conn, error) {
	lock, err := sc.c.New.ConnectWith(ctx, map[string]string{"application_name": sc.c.App + " check"})
	if err != nil {
		return nil, err
	}
	var got bool
	if err = lock.QueryRow(ctx, `SELECT pg_try_advisory_lock(hashtext('crossfade check --restore'), hashtext($1))`, sc.c.Book.Upgrade).Scan(&got); err != nil {
		err = &pg.Error{Doing: "take the lock of check --restore", On: sc.c.New.String(), Err: err}
	} else if !got {
		err = &exit.Error{Code: exit.Held, Says: "another check --restore of this upgrade runs", Hint: "wait for it, or end it"}
	}
	if err != nil {
		pg.Leave(lock)
		return nil, err
	}
	return lock, nil
}

// Left are the scratch databases that earlier runs left. A database
// without the mark is one that was killed between making and marking it, and is
// empty; else it is somebody's: strange has an error for each.
func (sc *Scratch) Left(ctx context.Context, conn *pgx.Conn) (left []string, strange []error, err error) {
	rows, err := conn.Query(ctx, `SELECT datname::text, coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE starts_with(datname, $1) ORDER BY 1`, sc.Prefix())
	var name, comment string
	comments := map[string]string{}
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&name, &comment}, func() error { comments[name] = comment; return nil })
	}
	if err != nil {
		return nil, nil, &pg.Error{Doing: "look for scratch databases of earlier runs", On: sc.c.New.String(), Err: err}
	}
	for _, name := range slices.Sorted(maps.Keys(comments)) {
		if comments[name] != mark {
			holds, err := sc.strangeIn(ctx, name)
			if err != nil {
				return nil, nil, err
			}
			if len(holds) > 0 {
				strange = append(strange, &exit.Error{
					Code: exit.Failed, On: sc.c.New.String(), Object: name, Hint: "drop or rename it",
					Says: fmt.Sprintf("database %s on new has the name of a scratch database, and holds %s", name, strings.Join(holds, ", ")),
				})
				continue
			}
		}
		left = append(left, name)
	}
	return left, strange, nil
}

// Steps drop what a killed check --restore has left on new; none where
// it left nothing. What is somebody's stays.
func (sc *Scratch) Steps(ctx context.Context, s *survey.Survey) ([]flow.Step, error) {
	if s.NewErr != nil {
		return nil, nil
	}
	var left []string
	err := sc.c.On(ctx, "new", func(conn *pgx.Conn) (err error) {
		left, _, err = sc.Left(ctx, conn)
		return err
	})
	if err != nil || len(left) == 0 {
		return nil, err
	}
	st := flow.Step{ID: "unmake/scratch", Title: "Drop on new what a check --restore that was killed has left", Done: flow.Never}
	for _, name := range left {
		st.Does = append(st.Does, flow.SQL("new", "", DropSQL(name)))
	}
	st.Do = func(ctx context.Context, _ *flow.Turn) error {
		lock, err := sc.Lock(ctx)
		if err != nil {
			return err
		}
		defer pg.Leave(lock)
		for _, name := range left {
			if err := sc.Drop(ctx, lock, name); err != nil {
				return err
			}
		}
		return nil
	}
	return []flow.Step{st}, nil
}

func (sc *Scratch) strangeIn(ctx context.Context, database string) ([]string, error) {
	conn, err := sc.c.New.With(database).Connect(ctx)
	if err != nil {
		return nil, err
	}
	defer pg.Leave(conn)
	return schema.Strange(ctx, conn)
}

// DropSQL is the statement that drops a scratch database.
func DropSQL(name string) string {
	return "DROP DATABASE IF EXISTS " + pg.Ident(name) + " WITH (FORCE)"
}

// Drop drops a scratch database, in the session of Lock.
func (sc *Scratch) Drop(ctx context.Context, conn *pgx.Conn, name string) error {
	if err := pg.Exec(ctx, conn, DropSQL(name)); err != nil {
		return &pg.Error{Doing: "drop the scratch database " + name, On: sc.c.New.String(), Object: name, Hint: "drop it by hand, or run crossfade check --restore again", Err: err}
	}
	return nil
}

// Needs is what makes a scratch database name like old's, and the roles
// that new lacks.
func (sc *Scratch) Needs(ctx context.Context, lock *pgx.Conn, database, name string) (create string, roles schema.Lacks, err error) {
	err = sc.c.On(ctx, "old", func(old *pgx.Conn) error {
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

// MarkSQL is the statement that marks a database as a scratch one.
func MarkSQL(name string) string {
	return "COMMENT ON DATABASE " + pg.Ident(name) + " IS " + pg.Literal(mark)
}
