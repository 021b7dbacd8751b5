package trust

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"crossfade/cutover"
	"crossfade/schema"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/ground"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// Step takes away what cannot be trusted, so that the copy makes it anew,
// lets the rest follow old to where it is now, and remembers what both sides
// are. ok: there is something to do.
func (tr *Trust) Step(ctx context.Context, s *survey.Survey) (step flow.Step, ok bool, err error) {
	d, err := tr.doubt(ctx, s)
	if err != nil {
		return step, false, err
	}
	if d.stranger != "" {
		return step, false, exit.Errorf(exit.Findings, "crossfade abort, with the runbook of that cluster, undoes what was made there", "%s", d.stranger)
	}
	z := s.Zero()
	unknown := z != nil && z.Closing.System == ""
	if d.says() == "" && !unknown || z == nil {
		return step, false, nil
	}
	const again = "UPDATE crossfade.upgrade SET state = 'preparing' WHERE attempt = 0"
	var does []flow.Effect
	distrust := len(d.links)+len(d.verify)+len(d.moved) > 0
	if distrust {
		does = append(does, flow.SQL("new", s.Home, again), flow.SQL("old", s.Home, again))
		s.Distrusted = true
	}
	type part struct {
		db      *survey.Database
		drop    []link.Link
		effects []flow.Effect
	}
	var parts []part
	for _, db := range s.Databases {
		p := part{db: db}
		mend, err := tr.follow(ctx, s, db, d)
		if err != nil {
			return step, false, err
		}
		for _, l := range db.Links {
			if d.links[l.Name] != "" {
				p.drop = append(p.drop, l)
				does = append(does, append(l.DropSubscription(), l.DropSlot())...)
			}
		}
		p.effects = mend
		does = append(does, mend...)
		parts = append(parts, p)
	}
	does = append(does, flow.SQL("old", s.Home, ground.KeepMemory))
	title := "Drop what cannot be trusted: " + d.says()
	if d.says() == "" {
		title = "Write down which servers old and new are"
	}
	return flow.Step{
		ID: "trust", Title: title, Does: does, Done: flow.Never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			if d.says() != "" {
				t.Note("%s", d.says())
			}
			for _, p := range parts {
				if err := tr.mayCopy(ctx, s, p.db, p.drop); err != nil {
					return err
				}
			}
			if distrust {
				for _, e := range does[:2] {
					if err := tr.c.Do(ctx, e); err != nil && !pg.Missing(err) {
						return err
					}
				}
			}
			for _, p := range parts {
				if err := tr.distrust(ctx, p.db, p.drop); err != nil {
					return err
				}
				for _, e := range p.effects {
					if err := tr.c.Do(ctx, e); err != nil {
						return err
					}
				}
			}
			return tr.ground.Remember(ctx, s, func(m *cutover.Memory) { m.Closing, m.Opening = cutover.WhomOf(s.Old), cutover.WhomOf(s.New) })
		},
	}, true, nil
}

// follow are the effects that let links that go on ask where old is now, and
// subscribe to what is published.
func (tr *Trust) follow(ctx context.Context, s *survey.Survey, db *survey.Database, d doubts) ([]flow.Effect, error) {
	at, err := s.Positions(ctx, db.Name, db.Links)
	if pg.SQLState(err) == "3D000" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	made, err := tr.readLinks(ctx, db)
	if err != nil {
		return nil, err
	}
	var does []flow.Effect
	for _, l := range db.Links {
		p := at[l.Name]
		if d.links[l.Name] != "" || !p.Subscription {
			continue
		}
		if !l.Reaches(made[l.Name].conninfo) {
			does = append(does, l.Reconnect())
		}
		lost, err := tr.lost(ctx, db, l)
		if err != nil {
			return nil, err
		}
		if p.Published != p.Subscribed && p.Slot && len(lost) == 0 { // else the comparison of the catalogs says what to do
			if !p.Enabled {
				does = append(does, l.Enable())
			}
			does = append(does, l.Refresh())
		}
	}
	return does, nil
}

// distrust drops the subscriptions and slots of links: without them their sets
// are copied again.
func (tr *Trust) distrust(ctx context.Context, db *survey.Database, links []link.Link) error {
	if len(links) == 0 {
		return nil
	}
	err := tr.c.In(ctx, "new", db.Name, func(conn *pgx.Conn) error { return cutover.DropLinks(ctx, nil, conn, links) })
	if err != nil {
		return err
	}
	return tr.c.In(ctx, "old", db.Name, func(conn *pgx.Conn) error { return cutover.DropLinks(ctx, conn, nil, links) })
}

// mayCopy refuses to end links of which it is known that their tables could not
// be copied again: they have other columns on new than on old.
func (tr *Trust) mayCopy(ctx context.Context, s *survey.Survey, db *survey.Database, drop []link.Link) error {
	if len(drop) == 0 {
		return nil
	}
	diff, err := survey.Differences(ctx, tr.c, db)
	if err != nil {
		return err
	}
	var bad []string
	for _, l := range drop {
		for _, t := range l.Tables {
			missing := slices.ContainsFunc(diff, func(d schema.Difference) bool { return d.Kind == "table" && d.Property == "" && d.Object == t.String() })
			for _, d := range schema.Unexpected(diff) {
				if !missing && d.Kind == "column" && strings.HasPrefix(d.Object, t.String()+".") {
					bad = append(bad, d.Says)
				}
			}
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return &exit.Error{
		Code: exit.Failed, On: "new", Says: fmt.Sprintf("tables of %s must be copied again, and are not alike on both sides: %s", db.Name, report.Some(bad)),
		Hint: "nothing was changed; make the same change on both sides (" + s.ByHand() + "), then run crossfade prepare again",
	}
}
