package transfer

import (
	"context"
	"slices"
	"strings"

	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// takingKey marks, in the ledger of the applying side, a set that is being taken
// along: from before anything of it is made until its link applies.
func takingKey(set string) string { return "taking/" + set }

// Taking is a database with nothing but the sets that no link carries yet. Its
// links are those from the serving side, whichever that is.
func (tf *Transfer) Taking(ctx context.Context, s *survey.Survey, db *survey.Database) (*survey.Database, error) {
	begun := map[string]bool{}
	err := tf.c.Sessions.Do(ctx, s.Applying().Server.With(db.Name), func(conn *pgx.Conn) (err error) {
		begun, err = schema.Marks(ctx, conn, takingKey(""))
		return err
	})
	if err != nil {
		return nil, &pg.Error{Doing: "read which tables are being taken along", On: s.Applying().Server.String() + ", database " + db.Name, Err: err}
	}
	some := *db
	some.Sets, some.Links, some.Way = nil, nil, nil
	links, way := db.Directed(s.Serving().Name)
	for i, set := range db.Sets {
		if db.Published[set.Name] && !begun[takingKey(set.Name)] {
			continue
		}
		some.Sets = append(some.Sets, set)
		some.Links, some.Way = append(some.Links, links[i]), append(some.Way, way[i])
	}
	return &some, nil
}

// Follows reports whether the closed side is kept in step at all: there is
// nothing to take along where there is no way back.
func (tf *Transfer) Follows(ctx context.Context, s *survey.Survey) (bool, error) {
	for _, db := range s.Databases {
		links, _ := db.Directed(s.Serving().Name)
		at, err := s.Positions(ctx, db.Name, links)
		if err != nil {
			return false, err
		}
		for _, p := range at {
			if p.Subscription {
				return true, nil
			}
		}
	}
	return false, nil
}

// Facing is a step of package load whose effects are on the side that it is run
// for: that package calls the side that it fills new.
func Facing(side string, step flow.Step) flow.Step {
	if side == "new" {
		return step
	}
	step.Does = slices.Clone(step.Does)
	for i, e := range step.Does {
		switch e.On {
		case "new":
			step.Does[i].On = "old"
		case "old":
			step.Does[i].On = "new"
		}
	}
	return step
}

// LaterGroundStep makes what the tool needs of its own for sets that are taken
// along, and marks them. The fence stays as it is.
func (tf *Transfer) LaterGroundStep(s *survey.Survey, late *survey.Database) flow.Step {
	side := s.Applying().Name
	does := []flow.Effect{schema.Ledger(side, late.Name)}
	for _, set := range late.Sets {
		does = append(does,
			flow.SQL(side, late.Name, "INSERT INTO crossfade.ledger (key) VALUES ("+pg.Literal(takingKey(set.Name))+") ON CONFLICT DO NOTHING"),
			flow.SQL(side, late.Name, link.CanaryTable(set.Name)), flow.SQL(s.Serving().Name, late.Name, link.CanaryTable(set.Name)))
	}
	return flow.Step{
		ID: "later/" + late.Name, Title: "Make room for what was made in " + late.Name + " of " + s.Serving().Name, Does: does,
		Done: func(ctx context.Context) (bool, error) {
			missing := 0
			err := tf.c.In(ctx, side, late.Name, func(conn *pgx.Conn) error {
				return conn.QueryRow(ctx, "SELECT count(*) FROM (SELECT to_regclass('crossfade.ledger')) l(c) WHERE c IS NULL").Scan(&missing)
			})
			return missing == 0 && len(late.Sets) == 0, err
		},
		Do: tf.c.Exec(does, nil),
	}
}

// LaterDoneStep takes the marks of sets away that are taken along by now.
func (tf *Transfer) LaterDoneStep(s *survey.Survey, late *survey.Database) flow.Step {
	keys := make([]string, len(late.Sets))
	for i, set := range late.Sets {
		keys[i] = pg.Literal(takingKey(set.Name))
	}
	does := []flow.Effect{flow.SQL(s.Applying().Name, late.Name, "DELETE FROM crossfade.ledger WHERE key IN ("+strings.Join(keys, ", ")+")")}
	return flow.Step{
		ID: "later-done/" + late.Name, Title: "Write down that " + late.Name + " of " + s.Applying().Name + " follows again as a whole", Does: does, Done: flow.Never,
		Do: tf.c.Exec(does, nil),
	}
}

// Carried parts the sets of a database into those that a link carries, and the
// tables of the others, which were made since prepare last ran.
func (tf *Transfer) Carried(ctx context.Context, s *survey.Survey, db *survey.Database) (carried *survey.Database, made []schema.Table, err error) {
	links, way := db.Directed(s.Serving().Name)
	at, err := s.Positions(ctx, db.Name, links)
	if err != nil {
		return nil, nil, err
	}
	some := *db
	some.Sets, some.Links, some.Way = nil, nil, nil
	for i, set := range db.Sets {
		if !db.Published[set.Name] && !at[links[i].Name].Subscription {
			made = append(made, set.Tables...)
			continue
		}
		some.Sets = append(some.Sets, set)
		some.Links, some.Way = append(some.Links, links[i]), append(some.Way, way[i])
	}
	return &some, made, nil
}
