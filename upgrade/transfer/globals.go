package transfer

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"crossfade/cutover"
	"crossfade/schema"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/ground"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// globals are what must be done on the applying side so that it has, outside of
// databases, what the serving side has, and kept is what the two are when that
// is done. What the serving side had when prepare last ran and has not any more
// is taken away. Before the cutover new gets everything that old has; after it,
// old gets what has changed on new since, because each has roles of its own.
func (tf *Transfer) globals(ctx context.Context, s *survey.Survey) (all []schema.Global, kept map[string]map[string]string, err error) {
	var names []string
	for _, db := range s.Databases {
		names = append(names, db.Name)
	}
	from, to := s.Serving(), s.Applying()
	c := schema.Crossed{Side: to.Name, Only: from.Name == "new"}
	if z := s.Zero(); z != nil {
		c.Was = z.Shared[from.Name]
	}
	own := tf.ground.OwnSettings(s, to.Name)
	if from.Name == "new" { // what stood there before the links came is of no change
		maps.Copy(own, tf.ground.OwnSettings(s, from.Name))
	}
	err = tf.c.Pair(ctx, from.Server, to.Server, func(old, fresh *pgx.Conn) error {
		var have schema.Kept
		all, _, have, err = schema.Since(ctx, old, fresh, names, c)
		all = slices.DeleteFunc(all, func(g schema.Global) bool { return own[g.Key] })
		if err != nil || len(all) > 0 {
			return err
		}
		lacks, err := schema.ReadShared(ctx, fresh, names)
		if err != nil {
			return err
		}
		kept = map[string]map[string]string{from.Name: have, to.Name: lacks.Kept()}
		for _, side := range kept {
			maps.DeleteFunc(side, func(key, _ string) bool { return own[key] })
		}
		if err := tf.keepBeside(ctx, old, s, from.Name, kept); err != nil {
			return err
		}
		return tf.keepBeside(ctx, fresh, s, to.Name, kept)
	})
	if err != nil {
		return nil, nil, &pg.Error{Doing: "compare roles and settings", On: to.Server.String(), Err: err}
	}
	return all, kept, nil
}

// GlobalsStep makes on the applying side the roles, memberships, settings and
// databases that it lacks, and takes away what is gone. What it is about to make
// on new is remembered first: abort drops nothing else. late is the step for
// what can be taken away only after the databases' own changes.
func (tf *Transfer) GlobalsStep(ctx context.Context, s *survey.Survey) (step, late flow.Step, err error) {
	all, _, err := tf.globals(ctx, s)
	if err != nil {
		return step, late, err
	}
	side := s.Applying().Name
	does := []flow.Effect{flow.SQL("old", s.Home, tf.c.Part.Own(ground.KeepMemory))}
	var drops []flow.Effect
	for _, g := range all {
		if g.Late {
			drops = append(drops, g.Effect)
			continue
		}
		does = append(does, g.Effect)
	}
	step = flow.Step{
		ID: "globals", Title: "Make roles, settings and databases on " + side, Does: does,
		Done: func(context.Context) (bool, error) { return len(all) == len(drops), nil },
		Do: func(ctx context.Context, _ *flow.Turn) error {
			err := tf.ground.Remember(ctx, s, func(m *cutover.Memory) {
				for _, g := range all {
					switch {
					case side != "new":
					case g.Creates && !slices.Contains(m.Made, g.Key):
						m.Made = append(m.Made, g.Key)
					case !g.Creates && g.Undo.SQL != "" && len(g.Undo.Secrets) == 0 && !slices.Contains(m.Undo, g.Undo.SQL):
						m.Undo = append(m.Undo, g.Undo.SQL)
					}
				}
			})
			if err != nil {
				return err
			}
			for _, g := range all {
				if g.Late {
					continue
				}
				if err := tf.c.Do(ctx, g.Effect); err != nil {
					return err
				}
			}
			return nil
		},
	}
	return step, tf.globalsKeptStep(s, drops), nil
}

// globalsKeptStep drops the roles that are gone, and remembers what both sides
// have outside of databases from then on.
func (tf *Transfer) globalsKeptStep(s *survey.Survey, drops []flow.Effect) flow.Step {
	side := s.Applying().Name
	var kept map[string]map[string]string
	return flow.Step{
		ID: "globals/kept", Title: "Drop the roles that are gone on " + side + ", and remember what both sides have", Does: append(slices.Clone(drops), flow.SQL("old", s.Home, tf.c.Part.Own(ground.KeepMemory))),
		Done: func(ctx context.Context) (bool, error) {
			m, err := tf.ground.Memory(ctx, s)
			if err != nil {
				return false, err
			}
			var all []schema.Global
			all, kept, err = tf.globals(ctx, s)
			return err == nil && len(all) == 0 && sameKept(m.Shared, kept), err
		},
		Do: func(ctx context.Context, _ *flow.Turn) error {
			for _, e := range drops {
				if err := tf.c.Do(ctx, e); err != nil && pg.SQLState(err) != "42704" {
					return &exit.Error{
						Code: exit.Failed, On: side, SQLState: pg.SQLState(err), Says: fmt.Sprintf("%s: %v", e.SQL, err), Err: err,
						Hint: "the role is gone on " + s.Serving().Name + ": drop what it owns on " + side + " (DROP OWNED BY, in each database), then run crossfade prepare again",
					}
				}
			}
			all, kept, err := tf.globals(ctx, s)
			if err != nil {
				return err
			}
			if len(all) > 0 {
				return nil // made meanwhile: the next prepare takes it along
			}
			return tf.ground.Remember(ctx, s, func(m *cutover.Memory) { m.Shared = kept })
		},
	}
}

func sameKept(a, b map[string]map[string]string) bool {
	for _, side := range []string{"old", "new"} {
		if len(a[side]) != len(b[side]) {
			return false
		}
		for k, v := range a[side] {
			if b[side][k] != v {
				return false
			}
		}
	}
	return true
}

// LackedGlobals are the roles, memberships, settings and databases that prepare
// would make or take away on the side that applies.
func (tf *Transfer) LackedGlobals(ctx context.Context, s *survey.Survey) ([]string, error) {
	if s.Phase != report.PhaseReady && s.Phase != report.PhaseOpen && s.Phase != report.PhaseRolledBack {
		return nil, nil
	}
	all, _, err := tf.globals(ctx, s)
	var keys []string
	for _, g := range all {
		if !slices.Contains(keys, g.Key) {
			keys = append(keys, g.Key)
		}
	}
	return keys, err
}

// keepBeside adds to what is remembered of a side what was left beside the
// upgrade: what was remembered first stays.
func (tf *Transfer) keepBeside(ctx context.Context, conn *pgx.Conn, s *survey.Survey, side string, kept map[string]map[string]string) error {
	if z := s.Zero(); z != nil && z.Shared[side] != nil {
		for key, v := range z.Shared[side] {
			if strings.HasPrefix(key, beside) {
				kept[side][key] = v
			}
		}
		return nil
	}
	all, err := tf.beside(ctx, conn, s)
	for _, one := range all {
		kept[side][besideKey(one[0], one[1])] = ""
	}
	return err
}
