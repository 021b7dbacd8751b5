// Package owners lets the tool in with the rights of the owners of tables, where
// functions of theirs would run with the tool's own.
package owners

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/check"
	"crossfade/upgrade/clusters"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/load"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/rights"
	"crossfade/upgrade/survey"
	"crossfade/upgrade/verify"

	"github.com/jackc/pgx/v5"
)

// Owners are those of the tables of both clusters.
type Owners struct{ c *clusters.Clusters }

// New are the owners on c.
func New(c *clusters.Clusters) *Owners { return &Owners{c} }

// FunctionsStep looks for functions of ordinary roles that would run with more rights
// than theirs, where what was made since a cutover or a rollback is taken along.
func (ow *Owners) FunctionsStep(s *survey.Survey) flow.Step {
	from, to := s.Serving(), s.Applying()
	look := func(ctx context.Context) (blocking []check.Finding, err error) {
		for _, db := range s.Databases {
			m, err := s.Runs(ctx, db)
			if err != nil {
				return nil, err
			}
			there, err := survey.RunsOn(ctx, ow.c, to.Server, to.Version, db)
			if err != nil {
				return nil, err
			}
			m = m.Beyond(there).Without(func(schema, table string) bool { return slices.Contains(db.Stays(), pg.Ident(schema, table)) })
			r := check.Running{Database: db.Name, Map: m}
			blocking = append(blocking, check.Blocking(r.Taken(from.Name, to.Name, to.Version/10000, ow.c.Book.Accepts))...)
		}
		return blocking, nil
	}
	return flow.Step{
		ID: "check", Title: "Look for functions of ordinary roles that would run with more rights than they have",
		Done: func(ctx context.Context) (bool, error) {
			blocking, err := look(ctx)
			return err == nil && len(blocking) == 0, err
		},
		Do: func(ctx context.Context, _ *flow.Turn) error {
			blocking, err := look(ctx)
			if err == nil && len(blocking) > 0 {
				err = exit.Blocks(blocking)
			}
			return err
		},
	}
}

// Logins let the tool in on each side with the rights of owners of tables.
type Logins struct{ old, new *rights.Logins }

// Logins are new ones; whoever has them closes them.
func (ow *Owners) Logins() Logins {
	return Logins{rights.NewLogins(ow.c.Old, ow.c.App), rights.NewLogins(ow.c.New, ow.c.App)}
}

// Of are those of one side.
func (l Logins) Of(side string) *rights.Logins {
	if side == "old" {
		return l.old
	}
	return l.new
}

// loginsEnd is how long taking the roles away may take.
const loginsEnd = 30 * time.Second

// Close takes the roles away, whatever became of ctx.
func (l Logins) Close(ctx context.Context) error {
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), loginsEnd)
	defer cancel()
	return errors.Join(l.old.Close(end), l.new.Close(end))
}

// As is a database of a side seen with the rights of role. Where the server does
// not let the tool in that way and the runbook accepts that, it is the tool's own.
func (ow *Owners) As(ctx context.Context, l *rights.Logins, side *pg.Server, role, database string) (*pg.Server, error) {
	at, err := l.As(ctx, role, database)
	if err != nil || !ow.c.Book.Accepts(check.OwnerLogin, role) {
		return at, err
	}
	conn, err := at.Connect(ctx)
	switch pg.SQLState(err) {
	case "":
	case "28000", "28P01":
		return side.With(database), nil
	}
	pg.Leave(conn)
	return at, err
}

// Filled lets o fill tables of a side with the rights of their owners, and
// returns the step that does. Its roles are gone when it ends.
func (ow *Owners) Filled(side string, m *rights.Map, o load.Options) flow.Step {
	if len(m.Code) == 0 {
		return load.Step(o)
	}
	var l Logins
	o.Filler = func(t schema.Table, again bool) string {
		if again {
			return m.Refiller(t.SQL())
		}
		return m.Filler(t.SQL())
	}
	o.As = func(ctx context.Context, role string) (*pg.Server, error) {
		return ow.As(ctx, l.Of(side), ow.c.Side(side), role, o.Database)
	}
	st := load.Step(o)
	do := st.Do
	st.Do = func(ctx context.Context, t *flow.Turn) error {
		l = ow.Logins()
		return errors.Join(do(ctx, t), l.Close(ctx))
	}
	return st
}

// ValidateStep validates what was restored NOT VALID because its function would
// have run with the tool's rights. ok: there is something.
func (ow *Owners) ValidateStep(side string, db *survey.Database, deferred []rights.Validation) (step flow.Step, ok bool) {
	var does []flow.Effect
	for _, v := range deferred {
		sql := v.SQL
		if v.Owner != "" {
			sql += " -- with the rights of " + v.Owner
		}
		does = append(does, flow.SQL(side, db.Name, sql))
	}
	return flow.Step{
		ID: "validate/" + db.Name, Title: "Validate, with the rights of their owners, the constraints of " + db.Name + " that call functions of ordinary roles",
		Does: does,
		Done: func(ctx context.Context) (bool, error) {
			left := 0
			err := ow.c.In(ctx, side, db.Name, func(conn *pgx.Conn) error {
				for _, v := range deferred {
					valid, err := v.Valid(ctx, conn)
					if err != nil {
						return err
					}
					if !valid {
						left++
					}
				}
				return nil
			})
			if pg.SQLState(err) == "3D000" {
				return false, nil
			}
			return err == nil && left == 0, err
		},
		Do: func(ctx context.Context, t *flow.Turn) (err error) {
			l := ow.Logins()
			defer func() { err = errors.Join(err, l.Close(ctx)) }()
			for i, v := range deferred {
				t.Progress(int64(i), int64(len(deferred)), "constraints", v.Constraint)
				at := ow.c.Side(side).With(db.Name)
				if v.Owner != "" {
					if at, err = ow.As(ctx, l.Of(side), ow.c.Side(side), v.Owner, db.Name); err != nil {
						return err
					}
				}
				conn, err := at.Connect(ctx)
				if err != nil {
					return err
				}
				err = pg.Exec(ctx, conn, does[i].SQL)
				pg.Leave(conn)
				if err != nil {
					return &pg.Error{
						Doing: pg.Brief(v.SQL), On: fmt.Sprintf("%s, database %s", ow.c.Side(side), db.Name), Object: v.Constraint, Err: err,
						Hint: "its function was called with the rights of " + v.Owner + " and search_path pg_catalog",
					}
				}
			}
			return nil
		},
	}, len(deferred) > 0
}

// Read lets o read tables with the rights of their owners where planning a
// query over them runs functions. done takes the roles away.
func (ow *Owners) Read(m *rights.Map, o *verify.Options) (done func(context.Context) error) {
	if !slices.ContainsFunc(m.Code, func(c rights.Code) bool { return c.Folds && !c.OwnerSuper }) {
		return func(context.Context) error { return nil }
	}
	l := ow.Logins()
	o.Reader = func(t schema.Table) string { return m.Reader(t.SQL()) }
	o.As = func(ctx context.Context, role string) (old, new *pg.Server, err error) {
		if old, err = ow.As(ctx, l.old, ow.c.Old, role, o.Database); err != nil {
			return nil, nil, err
		}
		new, err = ow.As(ctx, l.new, ow.c.New, role, o.Database)
		return old, new, err
	}
	return l.Close
}

// LeftSteps take away the roles for owners that runs which were killed have left;
// none where nothing is left.
func (ow *Owners) LeftSteps(ctx context.Context, s *survey.Survey) ([]flow.Step, error) {
	l := ow.Logins()
	st := flow.Step{ID: "unmake/logins", Title: "Drop the roles that a run which was killed has left", Done: flow.Never}
	left := map[*rights.Logins][]string{}
	for _, side := range []struct {
		name string
		l    *rights.Logins
		err  error
	}{{"old", l.old, s.OldErr}, {"new", l.new, s.NewErr}} {
		if side.err != nil {
			continue
		}
		names, err := side.l.Left(ctx)
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			left[side.l] = append(left[side.l], n)
			st.Does = append(st.Does, flow.SQL(side.name, "", "DROP ROLE "+pg.Ident(n)))
		}
	}
	if len(left) == 0 {
		return nil, nil
	}
	st.Do = func(ctx context.Context, _ *flow.Turn) error {
		var failed []error
		for l, names := range left {
			failed = append(failed, l.Drop(ctx, names))
		}
		return errors.Join(failed...)
	}
	return []flow.Step{st}, nil
}
