package upgrade

import (
	"context"
	"fmt"

	"crossfade/cutover"
	"crossfade/upgrade/check"
	"crossfade/upgrade/clusters"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// Kinds of findings that only an upgrade to several new clusters has.
const (
	clusterForeignKey = "cluster-foreign-key"
	clusterCrossing   = "cluster-crossing"
	clusterLeftOut    = "cluster-left-out"
)

// apartFrom fills in what a crossing must leave alone in a database, because it
// goes to another cluster.
func (u *Upgrade) apartFrom(ctx context.Context, s *survey.Survey, db *survey.Database, d *cutover.Database) error {
	if u.c.Part == "" || s.OldErr != nil {
		return nil
	}
	d.Elsewhere = db.Elsewhere()
	if db.Apart != nil {
		d.Apart = db.Apart.Has
	}
	return u.c.In(ctx, "old", db.Name, func(conn *pgx.Conn) error {
		const ours = `SELECT coalesce(array_agg(subname::text), '{}') FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
			WHERE d.datname = current_database() AND starts_with(subname, $1)`
		if err := conn.QueryRow(ctx, ours, link.BackPrefix+u.rb.Upgrade+"_").Scan(&d.Others); err != nil {
			return &pg.Error{Doing: "look for the links of other clusters", On: u.c.Old.String(), Err: err}
		}
		for _, p := range u.c.Siblings() {
			if !db.Book.Goes(string(p.Part)) {
				continue
			}
			up, err := p.Part.Up(ctx, conn)
			if err != nil {
				return err
			}
			d.Shared = d.Shared || !up
		}
		return nil
	})
}

// splitFindings are what keeps the tables of a database from going to several
// clusters, and what goes to none.
func splitFindings(c *clusters.Clusters, s *survey.Survey) []check.Finding {
	var found []check.Finding
	if c.Part == "" || s == nil || s.Serving().Name != "old" {
		return nil
	}
	add := func(f check.Finding) {
		f.On = check.OnOld
		f.Accepted = f.Acceptable && c.Book.Accepts(f.ID, f.Object)
		found = append(found, f)
	}
	for _, db := range s.Databases {
		if db.Apart == nil {
			continue
		}
		for _, x := range db.Apart.Crossings {
			f := check.Finding{
				ID: clusterCrossing, Level: check.Block, Database: db.Name, Object: x.Object,
				Says: fmt.Sprintf("%s goes to cluster %s and needs %s, which goes to another cluster", x.Object, c.Part, x.Needs),
				Fix:  "put both into sets that go to the same cluster, or drop it on old",
			}
			if x.ForeignKey {
				f.ID, f.Fix = clusterForeignKey, "put both tables into sets that go to the same cluster, or drop the foreign key on old"
			}
			add(f)
		}
		for _, n := range db.Nowhere {
			add(check.Finding{
				ID: clusterLeftOut, Level: check.Warn, Database: db.Name, Object: n, Acceptable: true,
				Says: n + " needs tables of several clusters: it is made on none of them",
				Fix:  "accept it, and see to it that the application does without it",
			})
		}
		shared := len(db.Elsewhere()) > 0
		for _, t := range db.Inventory.Triggers {
			if t.Table == "" && shared {
				add(check.Finding{
					ID: clusterCrossing, Level: check.Block, Database: db.Name, Object: t.String(),
					Says: t.String() + " fires on apply: it would be disabled in the whole database when the first of its clusters is cut over",
					Fix:  "ALTER EVENT TRIGGER " + pg.Ident(t.Name) + " ENABLE;",
				})
			}
		}
	}
	return found
}

// pooledApart are the names in poolers that other clusters' clients use.
func pooledApart(c *clusters.Clusters) []string {
	var names []string
	for _, p := range c.Siblings() {
		for _, t := range p.Book.Cutover.Traffic {
			names = append(names, t.Entry.Names()...)
		}
	}
	return names
}
