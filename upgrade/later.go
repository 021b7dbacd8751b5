package upgrade

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"crossfade/cutover"
	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/load"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/runbook"

	"github.com/jackc/pgx/v5"
)

// What clients make after prepare, they make on the side that serves: old up to
// the cutover, new in phase open, old again in phase rolled_back. prepare takes
// it along to the side that applies: in phase ready by the plan that has made
// everything (preparePlan), later by laterPlan, which touches nothing of the
// fence and of the links that run.

// applying is the side that rows are applied on: the one that does not serve.
func (s *survey) applying() cutover.Side {
	if s.serving().Name == "new" {
		return s.old
	}
	return s.new
}

// directed are the links of a database from the serving side, and those back.
func (db *database) directed(serving string) (links, way []link.Link) {
	if serving == "new" {
		return db.way, db.links
	}
	return db.links, db.way
}

// takingKey marks, in the ledger of the applying side, a set that is being taken
// along: from before anything of it is made until its link applies.
func takingKey(set string) string { return "taking/" + set }

// taking is a database with nothing but the sets that no link carries yet. Its
// links are those from the serving side, whichever that is.
func (u *Upgrade) taking(ctx context.Context, s *survey, db *database) (*database, error) {
	begun := map[string]bool{}
	err := u.sessions.Do(ctx, s.applying().Server.With(db.name), func(conn *pgx.Conn) (err error) {
		begun, err = schema.Marks(ctx, conn, takingKey(""))
		return err
	})
	if err != nil {
		return nil, &pg.Error{Doing: "read which tables are being taken along", On: s.applying().Server.String() + ", database " + db.name, Err: err}
	}
	some := *db
	some.sets, some.links, some.way = nil, nil, nil
	links, way := db.directed(s.serving().Name)
	for i, set := range db.sets {
		if db.published[set.Name] && !begun[takingKey(set.Name)] {
			continue
		}
		some.sets = append(some.sets, set)
		some.links, some.way = append(some.links, links[i]), append(some.way, way[i])
	}
	return &some, nil
}

// follows reports whether the closed side is kept in step at all: there is
// nothing to take along where there is no way back.
func (u *Upgrade) follows(ctx context.Context, s *survey) (bool, error) {
	for _, db := range s.databases {
		links, _ := db.directed(s.serving().Name)
		at, err := u.positions(ctx, s, db.name, links)
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
func (u *Upgrade) laterPlan(ctx context.Context, s *survey) (flow.Plan, error) {
	p := flow.Plan{Name: "prepare", Cluster: string(u.part), Steps: []flow.Step{u.functionsStep(s)}}
	add := func(steps ...flow.Step) { p.Steps = append(p.Steps, steps...) }
	side := s.applying().Name
	some := make([]*database, len(s.databases))
	for i, db := range s.databases {
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
	for i, db := range s.databases {
		late := some[i]
		stages, err := u.laterStages(ctx, s, db, late)
		if err != nil {
			return p, err
		}
		add(stages.changes, stages.before)
		if identity, ok := u.identityStep(s, s.serving().Name, late.only()); ok {
			add(identity)
		}
		add(u.publicationsStep(late, late.links))
		if len(late.sets) > 0 {
			add(stages.copy)
		}
		add(stages.after)
		add(stages.validate...)
		if identity, ok := u.identityStep(s, side, late.only()); ok {
			add(identity)
		}
		add(u.fenceStep(s, side, db, false), u.publicationsStep(late, late.way), u.compareStep(s, db))
		if len(late.sets) > 0 {
			add(u.linkSettingsStep(s, side, db))
			add(u.subscribeStep(s, late), u.catchupStep(s, late), u.laterDoneStep(s, late))
			analyze := load.Analyze(load.Options{New: s.applying().Server, Database: db.name, Jobs: u.rb.Copy.Jobs}, late.tables())
			add(facing(side, analyze))
			if u.rb.Verify.Mode != runbook.VerifyOff {
				add(u.laterVerifyStep(s, late))
			}
		}
	}
	add(kept)
	return p, nil
}

// only is a database whose inventory has the tables of its sets and no others.
func (db *database) only() *database {
	some := *db
	inv := *db.inventory
	inv.Tables = db.tables()
	some.inventory = &inv
	return &some
}

// tables are those of the sets of a database.
func (db *database) tables() []schema.Table {
	var all []schema.Table
	for _, set := range db.sets {
		all = append(all, set.Tables...)
	}
	slices.SortFunc(all, func(a, b schema.Table) int { return strings.Compare(a.SQL(), b.SQL()) })
	return all
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
func (u *Upgrade) laterGroundStep(s *survey, late *database) flow.Step {
	side := s.applying().Name
	does := []flow.Effect{schema.Ledger(side, late.name)}
	for _, set := range late.sets {
		does = append(does,
			effect(side, late.name, "INSERT INTO crossfade.ledger (key) VALUES ("+pg.Literal(takingKey(set.Name))+") ON CONFLICT DO NOTHING"),
			effect(side, late.name, link.CanaryTable(set.Name)), effect(s.serving().Name, late.name, link.CanaryTable(set.Name)))
	}
	return flow.Step{
		ID: "later/" + late.name, Title: "Make room for what was made in " + late.name + " of " + s.serving().Name, Does: does,
		Done: func(ctx context.Context) (bool, error) {
			missing := 0
			err := u.sessions.Do(ctx, u.side(side).With(late.name), func(conn *pgx.Conn) error {
				return conn.QueryRow(ctx, "SELECT count(*) FROM (SELECT to_regclass('crossfade.ledger')) l(c) WHERE c IS NULL").Scan(&missing)
			})
			return missing == 0 && len(late.sets) == 0, err
		},
		Do: u.exec(does, nil),
	}
}

// laterDoneStep takes the marks of sets away that are taken along by now.
func (u *Upgrade) laterDoneStep(s *survey, late *database) flow.Step {
	keys := make([]string, len(late.sets))
	for i, set := range late.sets {
		keys[i] = pg.Literal(takingKey(set.Name))
	}
	does := []flow.Effect{effect(s.applying().Name, late.name, "DELETE FROM crossfade.ledger WHERE key IN ("+strings.Join(keys, ", ")+")")}
	return flow.Step{
		ID: "later-done/" + late.name, Title: "Write down that " + late.name + " of " + s.applying().Name + " follows again as a whole", Does: does, Done: never,
		Do: u.exec(does, nil),
	}
}

// laterVerifyStep compares the rows of what was taken along.
func (u *Upgrade) laterVerifyStep(s *survey, late *database) flow.Step {
	return flow.Step{
		ID: "verify/" + late.name, Title: "Compare the rows of what was taken along in " + late.name, Done: never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			results, err := u.compareTables(ctx, s, late, late.links, nil, t)
			if err != nil {
				return err
			}
			return differing(s, results)
		},
	}
}

// laterStages are schemaStages for what was made since a crossing: rows are
// copied for the sets that are taken along alone.
func (u *Upgrade) laterStages(ctx context.Context, s *survey, db, late *database) (stages, error) {
	var st stages
	from, to := s.serving(), s.applying()
	entries, commands, err := u.dump(ctx, s, from, db)
	if err != nil {
		return st, err
	}
	entries = db.withoutAttached(entries)
	if st.changes, err = u.changesStep(ctx, s, db, entries); err != nil {
		return st, err
	}
	runs, err := u.runs(ctx, s, db)
	if err != nil {
		return st, err
	}
	there, err := u.runsOn(ctx, to.Server, to.Version, db)
	if err != nil {
		return st, err
	}
	entries, deferred := runs.Making(there).Defer(entries, to.Version/10000, db.partitioned)
	if validate, ok := u.validateStep(to.Name, db, deferred); ok {
		st.validate = append(st.validate, validate)
	}
	st.before = u.restoreStep(to.Name, "schema/"+db.name, "Make what was made in "+db.name+" of "+from.Name+" on "+to.Name, db, schema.Entries(entries, schema.Before), commands)
	st.after = u.restoreStep(to.Name, "constraints/"+db.name, "Make indexes, constraints, triggers and the rest of "+db.name+" on "+to.Name, db,
		schema.Entries(entries, schema.Identify, schema.Index, schema.Foreign, schema.Late), nil)
	if len(late.sets) == 0 {
		return st, nil
	}
	o := load.Options{
		Old: from.Server, New: to.Server, Database: db.name, Version: from.Version, Encoding: db.encoding, Sets: late.sets,
		Jobs: u.rb.Copy.Jobs, IndexJobs: u.rb.Copy.IndexJobs, Chunk: u.rb.Copy.Chunk, Pace: u.pace,
		Snapshot: func(ctx context.Context, sets []string) (*load.Snapshot, error) {
			return u.snapshot(ctx, s, late, sets)
		},
		SlotEffects: link.SlotEffects(late.links),
		Slot:        func(ctx context.Context, set string) (pg.LSN, bool, error) { return u.slot(ctx, s, late, set) },
	}
	o.Assign(entries)
	st.after = o.Validating(st.after)
	for i := range st.validate {
		st.validate[i] = o.Validating(st.validate[i])
	}
	if to.Name == "new" {
		o.SlotEffects = append(o.SlotEffects, markEffects(db.name, late.links)...)
		st.copy = u.ownerFilled(to.Name, runs, o)
		return st, nil
	}
	// link.Effects carry their own side.
	slots := o.SlotEffects
	o.SlotEffects = nil
	st.copy = facing(to.Name, u.ownerFilled(to.Name, runs, o))
	st.copy.Does = append(slots, st.copy.Does...)
	return st, nil
}

// dump reads the schema of a database of one side.
func (u *Upgrade) dump(ctx context.Context, s *survey, from cutover.Side, db *database) ([]schema.Entry, []flow.Effect, error) {
	program, err := u.program("pg_dump", s.new.Identity.Major())
	if err != nil {
		return nil, nil, err
	}
	apart := db.apart
	if from.Name == "new" {
		apart = nil // it has only what goes there
	}
	entries, commands, err := schema.Dump(ctx, from.Server.With(db.name), program, apart)
	if err != nil {
		return nil, nil, fmt.Errorf("dump the schema of database %s of %s: %w", db.name, from.Name, err)
	}
	return entries, commands, nil
}

// changesStep brings the applying side to what has become of what was restored
// there: what was changed is replaced, what is gone is dropped, and what was
// made on both sides is known from then on.
func (u *Upgrade) changesStep(ctx context.Context, s *survey, db *database, now []schema.Entry) (flow.Step, error) {
	to := s.applying()
	does, err := u.changes(ctx, s, db, now)
	if err != nil {
		return flow.Step{}, err
	}
	step := flow.Step{
		ID: "changes/" + db.name, Title: "Take along what was changed or dropped in " + db.name + " of " + s.serving().Name,
		Done: func(ctx context.Context) (done bool, err error) {
			does, err = u.changes(ctx, s, db, now)
			return len(does) == 0, err
		},
		Do: func(ctx context.Context, t *flow.Turn) (err error) {
			conn, err := schema.Session(ctx, to.Server.With(db.name), nil)
			if err != nil {
				return err
			}
			defer pg.Leave(conn)
			l := u.logins()
			defer func() { err = errors.Join(err, l.close(ctx)) }()
			as := func(role string) (*pgx.Conn, error) {
				at, err := u.as(ctx, l.of(to.Name), to.Server, role, db.name)
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
		step.Does = append(step.Does, c.Effects(to.Name, db.name)...)
	}
	return step, nil
}

// changes is what the applying side does not have as it is on the serving side,
// of what has been restored there.
func (u *Upgrade) changes(ctx context.Context, s *survey, db *database, now []schema.Entry) ([]schema.Change, error) {
	to := s.applying()

	marks := map[string]string{}
	for _, side := range []cutover.Side{s.serving(), to} {
		err := u.sessions.Do(ctx, side.Server.With(db.name), func(conn *pgx.Conn) error {
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
			return nil, &pg.Error{Doing: "read what was restored of " + db.name, On: side.Server.String(), Err: err}
		}
	}
	if len(marks) == 0 || settled(now, marks) {
		return nil, nil
	}
	there, _, err := u.dump(ctx, s, to, db)
	if err != nil {
		return nil, err
	}
	shapes := map[string]map[string]*schema.Shape{}
	for _, side := range []cutover.Side{s.serving(), to} {
		err := u.sessions.Do(ctx, side.Server.With(db.name), func(conn *pgx.Conn) (err error) {
			shapes[side.Name], err = schema.ReadShapes(ctx, conn)
			return err
		})
		if err != nil {
			return nil, &pg.Error{Doing: "read what the tables of " + db.name + " are made of", On: side.Server.String(), Err: err}
		}
	}
	diff, err := u.differences(ctx, db)
	if err != nil {
		return nil, err
	}
	runs, err := u.runs(ctx, s, db)
	if err != nil {
		return nil, err
	}
	does := schema.Changes(now, there, marks, schema.ChangeFacts{
		Alter: func(table string) (string, bool) {
			return schema.Alter(table, shapes[s.serving().Name][table], shapes[to.Name][table])
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
func (u *Upgrade) mayTake(ctx context.Context, s *survey) error {
	if err := s.bothAnswer(); err != nil {
		return err
	}
	d := s.last()
	name := crossingName(d.Direction)
	if !u.crossed(ctx, s, *d) {
		return exitf(ExitGate, "crossfade "+name+" goes on with them; then run crossfade prepare", "steps of the %s after open are still to do", name)
	}
	return nil
}

// split parts the sets of a database into those that a link carries, and the
// tables of the others, which were made since prepare last ran.
func (u *Upgrade) split(ctx context.Context, s *survey, db *database) (carried *database, made []schema.Table, err error) {
	links, way := db.directed(s.serving().Name)
	at, err := u.positions(ctx, s, db.name, links)
	if err != nil {
		return nil, nil, err
	}
	some := *db
	some.sets, some.links, some.way = nil, nil, nil
	for i, set := range db.sets {
		if !db.published[set.Name] && !at[links[i].Name].Subscription {
			made = append(made, set.Tables...)
			continue
		}
		some.sets = append(some.sets, set)
		some.links, some.way = append(some.links, links[i]), append(some.way, way[i])
	}
	return &some, made, nil
}
