package transfer

import (
	"context"
	"errors"
	"maps"
	"slices"

	"crossfade/cutover"
	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// changesStep brings the applying side to what has become of what was restored
// there: what was changed is replaced, what is gone is dropped, and what was
// made on both sides is known from then on.
func (tf *Transfer) changesStep(ctx context.Context, s *survey.Survey, db *survey.Database, now []schema.Entry) (flow.Step, error) {
	to := s.Applying()
	does, err := tf.changes(ctx, s, db, now)
	if err != nil {
		return flow.Step{}, err
	}
	step := flow.Step{
		ID: "changes/" + db.Name, Title: "Take along what was changed or dropped in " + db.Name + " of " + s.Serving().Name,
		Done: func(ctx context.Context) (done bool, err error) {
			does, err = tf.changes(ctx, s, db, now)
			return len(does) == 0, err
		},
		Do: func(ctx context.Context, t *flow.Turn) (err error) {
			conn, err := schema.Session(ctx, to.Server.With(db.Name), nil)
			if err != nil {
				return err
			}
			defer pg.Leave(conn)
			l := tf.owners.Logins()
			defer func() { err = errors.Join(err, l.Close(ctx)) }()
			as := func(role string) (*pgx.Conn, error) {
				at, err := tf.owners.As(ctx, l.Of(to.Name), to.Server, role, db.Name)
				if err != nil {
					return nil, err
				}
				return schema.Session(ctx, at, nil)
			}
			for _, c := range does {
				if c.Touches() {
					t.Note("%s: taken along to %s", c.What, to.Name)
				}
				if err := c.Apply(ctx, conn, as); err != nil {
					return err
				}
			}
			return nil
		},
	}
	for _, c := range does {
		step.Does = append(step.Does, c.Effects(to.Name, db.Name)...)
	}
	return step, nil
}

// changes is what the applying side does not have as it is on the serving side,
// of what has been restored there.
func (tf *Transfer) changes(ctx context.Context, s *survey.Survey, db *survey.Database, now []schema.Entry) ([]schema.Change, error) {
	to := s.Applying()

	marks := map[string]string{}
	for _, side := range []cutover.Side{s.Serving(), to} {
		err := tf.c.Sessions.Do(ctx, side.Server.With(db.Name), func(conn *pgx.Conn) error {
			some, err := schema.MarkHashes(ctx, conn)
			if side.Name != to.Name {
				for key := range some { // restored the other way: what the text was here is not known
					some[key] = ""
				}
			}
			maps.Copy(marks, some)
			return err
		})
		if pg.SQLState(err) == "3D000" {
			return nil, nil
		}
		if err != nil {
			return nil, &pg.Error{Doing: "read what was restored of " + db.Name, On: side.Server.String(), Err: err}
		}
	}
	if len(marks) == 0 || settled(now, marks) {
		return nil, nil
	}
	there, _, err := s.Dump(ctx, to, db)
	if err != nil {
		return nil, err
	}
	shapes := map[string]map[string]*schema.Shape{}
	for _, side := range []cutover.Side{s.Serving(), to} {
		err := tf.c.Sessions.Do(ctx, side.Server.With(db.Name), func(conn *pgx.Conn) (err error) {
			shapes[side.Name], err = schema.ReadShapes(ctx, conn)
			return err
		})
		if err != nil {
			return nil, &pg.Error{Doing: "read what the tables of " + db.Name + " are made of", On: side.Server.String(), Err: err}
		}
	}
	diff, err := survey.Differences(ctx, tf.c, db)
	if err != nil {
		return nil, err
	}
	runs, err := s.Runs(ctx, db)
	if err != nil {
		return nil, err
	}
	does := schema.Changes(now, there, marks, schema.ChangeFacts{
		Alter: func(table string) (string, bool) {
			return schema.Alter(table, shapes[s.Serving().Name][table], shapes[to.Name][table])
		},
		Differs: func(kind, name string) bool {
			return slices.ContainsFunc(diff, func(d schema.Difference) bool {
				return d.Expected == "" && d.Property != "" && d.Kind == kind && d.Object == name
			})
		},
	})
	for i := range does {
		if runs.Super(does[i].Owner) {
			does[i].Owner = "" // what it calls runs with rights that the tool has, too
		}
	}
	return does, nil
}

// settled: every entry is marked with the text that it has, and nothing that was
// marked is gone.
func settled(now []schema.Entry, marks map[string]string) bool {
	is := map[string]bool{}
	for _, e := range now {
		is[e.Key()] = true
		if e.Stage != schema.Refresh && !e.Is(marks[e.Key()]) {
			return false
		}
	}
	for key := range marks {
		if !is[key] {
			return false
		}
	}
	return true
}
