package ground

import (
	"context"
	"maps"
	"slices"

	"crossfade/cutover"
	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/runbook"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// IdentityBackStep puts the replica identities back to what they were on old,
// on both sides.
func (gr *Ground) IdentityBackStep(s *survey.Survey) flow.Step {
	var does []flow.Effect
	for _, db := range s.Databases {
		for _, t := range db.Inventory.Tables {
			clause, ok := s.Before("identity/" + db.Name + "/" + t.SQL())
			if s.Zero() == nil { // a plan drawn before prepare: as it will be remembered
				ok = slices.ContainsFunc(db.Book.Identity, func(id runbook.Identity) bool { return id.Table == runbook.TableName{Schema: t.Schema, Name: t.Name} })
				clause = identityClause(t.Identity.Kind, t.Identity.Index)
			}
			if ok {
				sql := "ALTER TABLE " + t.SQL() + " " + clause
				does = append(does, flow.SQL("old", db.Name, sql), flow.SQL("new", db.Name, sql))
			}
		}
	}
	return flow.Step{
		ID: "identity/back", Title: "Put the replica identities back", Does: does, Done: flow.Never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			for _, e := range does {
				if err := s.Silent(e.On); err != nil {
					t.Note("%s does not answer: its replica identities stay (%v)", e.On, err)
					continue
				}
				if err := gr.c.UnderLock(ctx, e); err != nil && !pg.Missing(err) { // not made yet, or dropped since
					return err
				}
			}
			return nil
		},
	}
}

func identityClause(kind byte, index string) string {
	switch kind {
	case 'f':
		return "REPLICA IDENTITY FULL"
	case 'i':
		return "REPLICA IDENTITY USING INDEX " + pg.Ident(index)
	case 'n':
		return "REPLICA IDENTITY NOTHING"
	}
	return "REPLICA IDENTITY DEFAULT"
}

// IdentityStep sets the replica identities that the runbook orders on one
// side: on old before anything is published, on new when its indexes are
// there, so that the way back finds rows the same way.
func (gr *Ground) IdentityStep(s *survey.Survey, side string, db *survey.Database) (flow.Step, bool) {
	var does []flow.Effect
	want := map[string]string{}
	for _, id := range db.Book.Identity {
		t := db.Inventory.Find(id.Table.Schema, id.Table.Name)
		if t == nil {
			continue
		}
		clause := identityClause('f', "")
		if id.Index != "" {
			clause = identityClause('i', id.Index)
		}
		want[t.SQL()] = clause
		does = append(does, flow.SQL(side, db.Name, "ALTER TABLE "+t.SQL()+" "+clause))
	}
	return flow.Step{
		ID: "identity/" + side + "/" + db.Name, Title: "Set the replica identities that the runbook orders in " + db.Name + " of " + side, Does: does,
		Done: func(ctx context.Context) (bool, error) {
			done := false
			err := gr.c.In(ctx, side, db.Name, func(conn *pgx.Conn) error {
				inv, err := schema.Read(ctx, conn, schema.Filter{NoObjects: true, NoSizes: true})
				if err != nil {
					return err
				}
				done = true
				for _, t := range inv.Tables {
					clause, ordered := want[t.SQL()]
					done = done && (!ordered || identityClause(t.Identity.Kind, t.Identity.Index) == clause)
				}
				return nil
			})
			return done, err
		},
		Do: func(ctx context.Context, _ *flow.Turn) error {
			if side == "old" {
				if err := gr.rememberIdentities(ctx, s, db, want); err != nil {
					return err
				}
			}
			for _, e := range does {
				if err := gr.c.UnderLock(ctx, e); err != nil {
					return err
				}
			}
			return nil
		},
	}, len(does) > 0
}

// rememberIdentities adds what tables have that were not there, or not ordered,
// when the upgrade began: finish and abort put it back.
func (gr *Ground) rememberIdentities(ctx context.Context, s *survey.Survey, db *survey.Database, want map[string]string) error {
	m, err := gr.Memory(ctx, s)
	if err != nil {
		return err
	}
	more := map[string]string{}
	for _, t := range db.Inventory.Tables {
		key := "identity/" + db.Name + "/" + t.SQL()
		if _, known := m.Before[key]; !known && want[t.SQL()] != "" {
			more[key] = identityClause(t.Identity.Kind, t.Identity.Index)
		}
	}
	if len(more) == 0 {
		return nil
	}
	return gr.Remember(ctx, s, func(m *cutover.Memory) {
		if m.Before == nil {
			m.Before = map[string]string{}
		}
		maps.Copy(m.Before, more)
	})
}
