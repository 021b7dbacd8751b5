package check

import (
	"context"

	"crossfade/upgrade/pg"
)

// LostIdentity is a table of new that does not have old's replica identity.
type LostIdentity struct {
	Schema, Name string
	Have         string // relreplident there
	HaveIndex    string // of its replica identity; "" is none
	Indexed      bool   // the index that it is to have is there
}

// readLost reads, once this upgrade has begun, the identity on new of every
// table that has one of its own on old, and keeps those that differ.
func (g *gathering) readLost(ctx context.Context) {
	if !g.both() || !g.begun() {
		return
	}
	for i := range g.Facts.Databases {
		d := &g.Facts.Databases[i]
		if d.Inventory == nil || d.New == nil || !d.New.connects() {
			continue
		}
		var schemas, names, indexes []string
		want := map[[2]string]string{}
		for _, t := range d.Inventory.Tables {
			id := d.ordered(t)
			if !t.Published() || id.Kind == 'd' {
				continue
			}
			schemas, names, indexes = append(schemas, t.Schema), append(names, t.Name), append(indexes, id.Index)
			want[[2]string{t.Schema, t.Name}] = string(id.Kind) + id.Index
		}
		if len(names) == 0 {
			continue
		}
		all, err := g.identitiesOfNew(ctx, d.Name, schemas, names, indexes)
		if err != nil {
			g.missing(OnNew, d.Name, "replica identities", err, false)
			continue
		}
		for _, x := range all {
			if want[[2]string{x.Schema, x.Name}] != x.Have+x.HaveIndex {
				d.Lost = append(d.Lost, x)
			}
		}
	}
}

func (g *gathering) identitiesOfNew(ctx context.Context, database string, schemas, names, indexes []string) ([]LostIdentity, error) {
	conn, err := session(ctx, g.Want.New.With(database))
	if err != nil {
		return nil, err
	}
	defer closing(conn)
	return rows[LostIdentity](ctx, conn, query("lost", g.New.Version), schemas, names, indexes)
}

// judgeLost: where old is FULL or has an index of its own and new has not, the
// application's writes fail on new once the way back is published.
func judgeLost(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		for _, x := range d.Lost {
			t := d.Inventory.Find(x.Schema, x.Name)
			if t == nil {
				continue
			}
			id := d.ordered(*t)
			if id.Kind == 'i' && !x.Indexed {
				continue // prepare has not come to its indexes yet
			}
			fix := "ALTER TABLE ONLY " + t.SQL() + " REPLICA IDENTITY "
			switch id.Kind {
			case 'i':
				fix += "USING INDEX " + pg.Ident(id.Index)
			case 'f':
				fix += "FULL"
			default:
				fix += "NOTHING"
			}
			out = append(out, Finding{
				Level: Warn, On: OnNew, Database: d.Name, Object: t.String(),
				Says: "table " + t.String() + " has another replica identity on new than on old: its rows are found by something else there, and published for the way back by it. The cutover's gate wants them alike; prepare sets them when it has made the indexes",
				Fix:  lines("crossfade prepare; where that is done:", fix+";"),
			})
		}
	}
	return out
}
