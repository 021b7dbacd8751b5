package upgrade

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"crossfade/cutover"
	"crossfade/schema"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/load"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/runbook"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// takingKey marks, in the ledger of the applying side, a set that is being taken
// along: from before anything of it is made until its link applies.
func takingKey(set string) string { return "taking/" + set }

// taking is a database with nothing but the sets that no link carries yet. Its
// links are those from the serving side, whichever that is.
func (u *Upgrade) taking(ctx context.Context, s *survey.Survey, db *survey.Database) (*survey.Database, error) {
	begun := map[string]bool{}
	err := u.c.Sessions.Do(ctx, s.Applying().Server.With(db.Name), func(conn *pgx.Conn) (err error) {
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

// follows reports whether the closed side is kept in step at all: there is
// nothing to take along where there is no way back.
func (u *Upgrade) follows(ctx context.Context, s *survey.Survey) (bool, error) {
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

// laterPlan takes along what was made on the serving side since a cutover or a
// rollback.
func (u *Upgrade) laterPlan(ctx context.Context, s *survey.Survey) (flow.Plan, error) {
	p := flow.Plan{Name: "prepare", Cluster: string(u.c.Part), Steps: []flow.Step{u.owners.FunctionsStep(s)}}
	add := func(steps ...flow.Step) { p.Steps = append(p.Steps, steps...) }
	side := s.Applying().Name
	some := make([]*survey.Database, len(s.Databases))
	for i, db := range s.Databases {
		var err error
		if some[i], err = u.taking(ctx, s, db); err != nil {
			return p, err
		}
		add(u.laterGroundStep(s, some[i]))
	}
	globals, kept, err := u.globalsStep(ctx, s)
	if err != nil {
		return p, err
	}
	add(globals)
	for i, db := range s.Databases {
		late := some[i]
		stages, err := u.stagesOf(ctx, s, db, late)
		if err != nil {
			return p, err
		}
		add(stages.changes, stages.before)
		if identity, ok := u.ground.IdentityStep(s, s.Serving().Name, late.Only()); ok {
			add(identity)
		}
		add(u.publicationsStep(late, late.Links))
		if len(late.Sets) > 0 {
			add(stages.copy)
		}
		add(stages.after)
		add(stages.validate...)
		if identity, ok := u.ground.IdentityStep(s, side, late.Only()); ok {
			add(identity)
		}
		add(u.ground.FenceStep(side, db, false), u.publicationsStep(late, late.Way), u.compareStep(s, db))
		if len(late.Sets) > 0 {
			add(u.ground.LinkSettingsStep(s, side, db))
			add(u.subscribeStep(s, late), u.catchupStep(s, late), u.laterDoneStep(s, late))
			analyze := load.Analyze(load.Options{New: s.Applying().Server, Database: db.Name, Jobs: u.rb.Copy.Jobs}, late.Tables())
			add(facing(side, analyze))
			if u.rb.Verify.Mode != runbook.VerifyOff {
				add(u.laterVerifyStep(s, late))
			}
		}
	}
	add(kept)
	return p, nil
}

// facing is a step of package load whose effects are on the side that it is run
// for: that package calls the side that it fills new.
func facing(side string, step flow.Step) flow.Step {
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

// laterGroundStep makes what the tool needs of its own for sets that are taken
// along, and marks them. The fence stays as it is.
func (u *Upgrade) laterGroundStep(s *survey.Survey, late *survey.Database) flow.Step {
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
			err := u.c.In(ctx, side, late.Name, func(conn *pgx.Conn) error {
				return conn.QueryRow(ctx, "SELECT count(*) FROM (SELECT to_regclass('crossfade.ledger')) l(c) WHERE c IS NULL").Scan(&missing)
			})
			return missing == 0 && len(late.Sets) == 0, err
		},
		Do: u.c.Exec(does, nil),
	}
}

// laterDoneStep takes the marks of sets away that are taken along by now.
func (u *Upgrade) laterDoneStep(s *survey.Survey, late *survey.Database) flow.Step {
	keys := make([]string, len(late.Sets))
	for i, set := range late.Sets {
		keys[i] = pg.Literal(takingKey(set.Name))
	}
	does := []flow.Effect{flow.SQL(s.Applying().Name, late.Name, "DELETE FROM crossfade.ledger WHERE key IN ("+strings.Join(keys, ", ")+")")}
	return flow.Step{
		ID: "later-done/" + late.Name, Title: "Write down that " + late.Name + " of " + s.Applying().Name + " follows again as a whole", Does: does, Done: flow.Never,
		Do: u.c.Exec(does, nil),
	}
}

// laterVerifyStep compares the rows of what was taken along.
func (u *Upgrade) laterVerifyStep(s *survey.Survey, late *survey.Database) flow.Step {
	return flow.Step{
		ID: "verify/" + late.Name, Title: "Compare the rows of what was taken along in " + late.Name, Done: flow.Never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			results, err := u.compareTables(ctx, s, late, late.Links, nil, t)
			if err != nil {
				return err
			}
			return differing(s, results)
		},
	}
}

// changesStep brings the applying side to what has become of what was restored
// there: what was changed is replaced, what is gone is dropped, and what was
// made on both sides is known from then on.
func (u *Upgrade) changesStep(ctx context.Context, s *survey.Survey, db *survey.Database, now []schema.Entry) (flow.Step, error) {
	to := s.Applying()
	does, err := u.changes(ctx, s, db, now)
	if err != nil {
		return flow.Step{}, err
	}
	step := flow.Step{
		ID: "changes/" + db.Name, Title: "Take along what was changed or dropped in " + db.Name + " of " + s.Serving().Name,
		Done: func(ctx context.Context) (done bool, err error) {
			does, err = u.changes(ctx, s, db, now)
			return len(does) == 0, err
		},
		Do: func(ctx context.Context, t *flow.Turn) (err error) {
			conn, err := schema.Session(ctx, to.Server.With(db.Name), nil)
			if err != nil {
				return err
			}
			defer pg.Leave(conn)
			l := u.owners.Logins()
			defer func() { err = errors.Join(err, l.Close(ctx)) }()
			as := func(role string) (*pgx.Conn, error) {
				at, err := u.owners.As(ctx, l.Of(to.Name), to.Server, role, db.Name)
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
func (u *Upgrade) changes(ctx context.Context, s *survey.Survey, db *survey.Database, now []schema.Entry) ([]schema.Change, error) {
	to := s.Applying()

	marks := map[string]string{}
	for _, side := range []cutover.Side{s.Serving(), to} {
		err := u.c.Sessions.Do(ctx, side.Server.With(db.Name), func(conn *pgx.Conn) error {
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
		err := u.c.Sessions.Do(ctx, side.Server.With(db.Name), func(conn *pgx.Conn) (err error) {
			shapes[side.Name], err = schema.ReadShapes(ctx, conn)
			return err
		})
		if err != nil {
			return nil, &pg.Error{Doing: "read what the tables of " + db.Name + " are made of", On: side.Server.String(), Err: err}
		}
	}
	diff, err := survey.Differences(ctx, u.c, db)
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

// mayTake refuses to take anything along while steps of the crossing are still
// to do: the links are theirs.
func (u *Upgrade) mayTake(ctx context.Context, s *survey.Survey) error {
	if err := s.BothAnswer(); err != nil {
		return err
	}
	d := s.Last()
	name := crossingName(d.Direction)
	if !u.crossed(ctx, s, *d) {
		return exit.Errorf(exit.Gate, "crossfade "+name+" goes on with them; then run crossfade prepare", "steps of the %s after open are still to do", name)
	}
	return nil
}

// split parts the sets of a database into those that a link carries, and the
// tables of the others, which were made since prepare last ran.
func (u *Upgrade) split(ctx context.Context, s *survey.Survey, db *survey.Database) (carried *survey.Database, made []schema.Table, err error) {
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
