package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

var memberChecks = []Check{
	{ID: "extension-members", Title: "What belongs to an extension on old belongs to it on new", Levels: blockWarn, Judge: judgeMembers},
}

// Member is an object of an extension. Name is without the extension's schema.
type Member struct{ Extension, Kind, Name, Identity string }

// key is what a member is called wherever its extension lies.
func (m Member) key() string { return m.Extension + " " + m.Kind + " " + m.Name }

// errTried ends a transaction that was only a trial.
var errTried = errors.New("tried")

// readAdded finds the members of extensions of old that CREATE EXTENSION does not
// make on new: pg_dump leaves them out, so that new would not have them. It is
// tried, in a transaction that is rolled back, for the extensions whose members were
// not all made at once.
func (g *gathering) readAdded(ctx context.Context) {
	if !g.both() || g.New.Extensions == nil {
		return
	}
	made := map[string]map[string]bool{} // extension → its members on new; nil: it could not be tried
	for i := range g.Facts.Databases {
		d := &g.Facts.Databases[i]
		if d.Inventory == nil {
			continue
		}
		conn, err := session(ctx, g.Want.Old.With(d.Name))
		if err == nil {
			var all []Member
			all, err = rows[Member](ctx, conn, query("members", g.Old.Version), nil)
			closing(conn)
			for _, m := range all {
				there, tried := made[m.Extension]
				if !tried {
					there = g.tryExtension(ctx, m.Extension)
					made[m.Extension] = there
				}
				if there != nil && !there[m.key()] {
					d.Added = append(d.Added, m)
				}
			}
		}
		if err != nil {
			g.missing(OnOld, d.Name, "members of extensions", err, false)
		}
	}
}

// tryExtension are the members that an extension has on new, nil where that cannot
// be tried: it is not there, or does more than to make objects.
func (g *gathering) tryExtension(ctx context.Context, name string) map[string]bool {
	if _, there := g.New.Extensions[name]; !there || working[name] != "" || slices.Contains(preloaded, name) {
		return nil
	}
	conn, err := session(ctx, g.Want.New)
	if err != nil {
		return nil
	}
	defer closing(conn)
	var all []Member
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL search_path = public; CREATE EXTENSION IF NOT EXISTS "+pg.Ident(name)+" CASCADE; SET LOCAL search_path = pg_catalog"); err != nil {
			return err
		}
		r, err := tx.Query(ctx, query("members", g.New.Version), name)
		if err != nil {
			return err
		}
		if all, err = pgx.CollectRows(r, pgx.RowToStructByPos[Member]); err != nil {
			return err
		}
		return errTried
	})
	if !errors.Is(err, errTried) {
		return nil
	}
	there := map[string]bool{}
	for _, m := range all {
		there[m.key()] = true
	}
	return there
}

// judgeMembers: pg_dump takes an extension for what its script makes.
func judgeMembers(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		for _, m := range d.Added {
			level, what := Warn, "new will not have it"
			if strings.HasSuffix(m.Kind, "table") || m.Kind == "sequence" {
				level, what = Block, "new will have neither it nor its rows, and prepare would fail"
			}
			out = append(out, Finding{
				Level: level, On: OnOld, Database: d.Name, Object: m.Identity,
				Says: fmt.Sprintf("%s %s belongs to extension %s of old, and is not made by CREATE EXTENSION on new (ALTER EXTENSION … ADD, or an older version of it): it is not dumped, so that %s", m.Kind, m.Identity, m.Extension, what),
				Fix:  lines(fmt.Sprintf("ALTER EXTENSION %s DROP %s %s;", pg.Ident(m.Extension), strings.ToUpper(m.Kind), m.Identity), "which makes it the user's own; or drop it, if nothing needs it"),
			}.among("%s of extensions of old that CREATE EXTENSION does not make on new: they are not dumped, so that new has them no more", "object", []string{"kind", "extension"}, m.Kind, m.Extension))
		}
	}
	return out
}

// added says whether a table is of an extension of old alone.
func (d DatabaseFacts) added(table string) bool {
	return slices.ContainsFunc(d.Added, func(m Member) bool { return m.Kind == "table" && m.Identity == table })
}
