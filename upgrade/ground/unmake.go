package ground

import (
	"context"
	"slices"
	"strings"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// UnmakeStep takes away on new what this upgrade made there: what it changed of
// roles and settings, its databases, what it put into those that were there before,
// and its roles. Roles that own something of somebody's stay, and are named.
func (gr *Ground) UnmakeStep(ctx context.Context, s *survey.Survey) (flow.Step, error) {
	var does []flow.Effect
	if z := s.Zero(); z != nil {
		for _, sql := range slices.Backward(z.Undo) {
			does = append(does, flow.SQL("new", "", sql))
		}
		made := func(kind string) (names []string) {
			for _, m := range slices.Backward(z.Made) {
				if name, ok := strings.CutPrefix(m, kind+" "); ok {
					names = append(names, name)
				}
			}
			return names
		}
		for _, name := range made("database") {
			// A template cannot be dropped.
			does = append(does, flow.SQL("new", "", "ALTER DATABASE "+pg.Ident(name)+" IS_TEMPLATE false"))
			does = append(does, flow.SQL("new", "", "DROP DATABASE IF EXISTS "+pg.Ident(name)+" WITH (FORCE)"))
		}
		inside, _, err := gr.emptied(ctx, s) // what stays is looked up once more at the end
		if err != nil {
			return flow.Step{}, err
		}
		roles := made("role")
		owned, err := gr.disowned(ctx, s, roles)
		if err != nil {
			return flow.Step{}, err
		}
		does = append(append(does, inside...), owned...)
		for _, name := range roles {
			does = append(does, flow.SQL("new", "", "DROP ROLE IF EXISTS "+pg.Ident(name)))
		}
	}
	return flow.Step{
		ID: "unmake", Title: "Remove on new what this upgrade made there", Does: does, Done: flow.Never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			if s.NewErr != nil {
				t.Note("new does not answer: what was made there stays (%v)", s.NewErr)
				return nil
			}
			// Sessions of the tool in a database would hold its end up.
			if err := gr.c.Sessions.Close(ctx); err != nil {
				return err
			}
			for i, e := range does {
				err := gr.c.Do(ctx, e)
				switch pg.SQLState(err) {
				case "3D000", "42704", "42P01", "42883", "3F000":
					continue // it was not made, or is gone already
				case "2BP01":
					t.Note("%v: it is used by something that this upgrade did not make", err)
					continue
				}
				if err != nil {
					return err
				}
				if len(does) > 100 && i%100 == 0 {
					t.Progress(int64(i), int64(len(does)), "statements", "new")
				}
			}
			return nil
		},
	}, nil
}

// emptied are the effects that take what prepare made out of the databases that
// new had before, and what of that must stay: dropping it would take something
// with it that this upgrade did not make.
func (gr *Ground) emptied(ctx context.Context, s *survey.Survey) (does []flow.Effect, stays []string, err error) {
	if s.Silent("new") != nil || s.Silent("old") != nil {
		return nil, nil, nil
	}
	for _, db := range s.Databases {
		was, had, err := stoodBefore(s, db.Name)
		if err != nil {
			return nil, nil, err
		}
		if !had {
			continue
		}
		now, initial, err := gr.readStood(ctx, gr.c.New.With(db.Name))
		if pg.SQLState(err) == "3D000" {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		going, kept, err := gr.going(ctx, db.Name, was, now)
		if err != nil {
			return nil, nil, err
		}
		for _, o := range going {
			does = append(does, flow.SQL("new", db.Name, dropObject(o)))
		}
		stays = append(stays, kept...)
		if now.Public != was.Public && was.Public != "" {
			if now.Public == "" {
				does = append(does, flow.SQL("new", db.Name, "CREATE SCHEMA public"))
			}
			does = append(does, flow.SQL("new", db.Name, "ALTER SCHEMA public OWNER TO "+pg.Ident(was.Public)))
		}
		sql, err := gr.privilegesBack(ctx, db.Name, was.Privileges, now.Privileges, initial)
		if err != nil {
			return nil, nil, err
		}
		for _, q := range sql {
			does = append(does, flow.SQL("new", db.Name, q))
		}
	}
	return does, stays, nil
}

// going are the objects that prepare made in a database that new had before and
// that may be dropped, in an order for that; kept are those that must stay, each
// with what needs it.
func (gr *Ground) going(ctx context.Context, database string, was, now stood) (going, kept []string, err error) {
	theirs, _, err := gr.readStood(ctx, gr.c.Old.With(database))
	if err != nil {
		return nil, nil, err
	}
	both := map[string]bool{}
	for _, o := range theirs.Objects {
		both[o] = true
	}
	for _, o := range now.Objects {
		if both[o] && dropObject(o) != "" && !slices.Contains(was.Objects, o) {
			going = append(going, o)
		}
	}
	// What stays needs others of them: until there is no more.
	for len(going) > 0 {
		needed, err := gr.leaning(ctx, database, going)
		if err != nil {
			return nil, nil, err
		}
		if len(needed) == 0 {
			break
		}
		going = slices.DeleteFunc(going, func(o string) bool {
			by, stays := needed[o]
			if stays {
				kept = append(kept, "in database "+database+" "+o+" (needed by "+by+")")
			}
			return stays
		})
	}
	return going, kept, nil
}

// leaning are those of the objects whose DROP would take others with it, by name,
// with these others.
func (gr *Ground) leaning(ctx context.Context, database string, objects []string) (map[string]string, error) {
	needed := map[string]string{}
	err := gr.c.In(ctx, "new", database, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, leaning, objects)
		if err != nil {
			return err
		}
		var object, by string
		_, err = pgx.ForEachRow(rows, []any{&object, &by}, func() error { needed[object] = by; return nil })
		return err
	})
	if err != nil {
		return nil, &pg.Error{Doing: "look what depends on what this upgrade made in database " + database, On: gr.c.New.String(), Err: err}
	}
	return needed, nil
}

// privilegesBack are the statements that give what the server brings the
// privileges that it had.
func (gr *Ground) privilegesBack(ctx context.Context, database string, was, now, initial map[string]string) ([]string, error) {
	var all []string
	for object, acl := range now {
		want, changed := was[object]
		if !changed {
			want = initial[object]
		}
		if want != acl {
			all = append(all, object)
		}
	}
	slices.Sort(all)
	var out []string
	err := gr.c.In(ctx, "new", database, func(conn *pgx.Conn) error {
		for _, object := range all {
			want, changed := was[object]
			if !changed {
				want = initial[object]
			}
			before, on, isDefault := strings.Cut(object, "|")
			if !isDefault {
				before, on = "", object
			} else {
				before += " "
			}
			for _, revoke := range []bool{true, false} {
				list := want
				if revoke {
					list = now[object]
				}
				rows, err := conn.Query(ctx, `SELECT CASE grantee WHEN 0 THEN '' ELSE pg_get_userbyid(grantee)::text END, privilege_type, is_grantable FROM aclexplode(nullif($1::text, '{}')::aclitem[]) ORDER BY 1, 2`, list)
				if err != nil {
					return err
				}
				var grantee, privilege string
				var grantable bool
				_, err = pgx.ForEachRow(rows, []any{&grantee, &privilege, &grantable}, func() error {
					who, with := "PUBLIC", ""
					if grantee != "" {
						who = pg.Ident(grantee)
					}
					if grantable {
						with = " WITH GRANT OPTION"
					}
					if revoke {
						out = append(out, before+"REVOKE ALL ON "+on+" FROM "+who+" CASCADE")
					} else {
						out = append(out, before+"GRANT "+privilege+" ON "+on+" TO "+who+with)
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
	return slices.Compact(out), err
}

// disowned are the effects that take away the privileges that roles have which
// this upgrade made on new, so that they can be dropped. What they own and what
// was not made by it is somebody's, and so is then the role.
func (gr *Ground) disowned(ctx context.Context, s *survey.Survey, roles []string) ([]flow.Effect, error) {
	if s.Silent("new") != nil || len(roles) == 0 {
		return nil, nil
	}
	var does []flow.Effect
	places := []string{gr.c.New.Database()}
	for _, db := range s.Databases {
		if _, had := s.Before(stoodKey + db.Name); had && !slices.Contains(places, db.Name) {
			places = append(places, db.Name)
		}
	}
	for _, place := range places {
		goes := []string{}
		was, had, err := stoodBefore(s, place)
		if err != nil {
			return nil, err
		}
		if had {
			now, _, err := gr.readStood(ctx, gr.c.New.With(place))
			if pg.SQLState(err) == "3D000" {
				continue
			}
			if err == nil {
				goes, _, err = gr.going(ctx, place, was, now)
			}
			if err != nil {
				return nil, err
			}
		}
		err = gr.c.In(ctx, "new", place, func(conn *pgx.Conn) error {
			rows, err := conn.Query(ctx, disownable, goes, roles)
			if err != nil {
				return err
			}
			var role string
			_, err = pgx.ForEachRow(rows, []any{&role}, func() error {
				does = append(does, flow.SQL("new", place, "DROP OWNED BY "+pg.Ident(role)))
				return nil
			})
			return err
		})
		if err != nil {
			return nil, &pg.Error{Doing: "look what the roles of this upgrade have on new", On: gr.c.New.String(), Err: err}
		}
	}
	return does, nil
}

// Unmade are the databases and roles of new that this upgrade made and that are
// there yet, and what it left in databases that new had before.
func (gr *Ground) Unmade(ctx context.Context, s *survey.Survey) ([]string, error) {
	z := s.Zero()
	if z == nil || s.Phase == report.PhaseRolledBack {
		return nil, nil
	}
	var left []string
	err := gr.c.On(ctx, "new", func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `
			SELECT m FROM unnest($1::text[]) m
			WHERE m LIKE 'database %' AND EXISTS (SELECT FROM pg_database WHERE datname = substr(m, 10))
			   OR m LIKE 'role %' AND EXISTS (SELECT FROM pg_roles WHERE rolname = substr(m, 6)) ORDER BY 1`, z.Made)
		if err != nil {
			return err
		}
		left, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err != nil {
		return nil, &pg.Error{Doing: "look for what this upgrade made", On: gr.c.New.String(), Err: err}
	}
	still, stays, err := gr.emptied(ctx, s)
	left = append(left, stays...)
	for _, e := range still {
		left = append(left, "in database "+e.Database+" what this would drop: "+pg.Brief(e.SQL))
	}
	return left, err
}
