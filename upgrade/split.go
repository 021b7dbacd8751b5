package upgrade

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"crossfade/cutover"
	"crossfade/upgrade/check"
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

// inherit takes over what another part remembers of old: what that one has
// changed there is not what stood there before the upgrade.
func (u *Upgrade) inherit(ctx context.Context, before map[string]string) error {
	for _, p := range u.c.Siblings() {
		err := u.c.In(ctx, "old", p.Book.Databases[0].Name, func(conn *pgx.Conn) error {
			ds, err := p.Part.ReadDecisions(ctx, conn)
			for _, d := range ds {
				if d.Attempt != 0 {
					continue
				}
				maps.DeleteFunc(before, func(key, _ string) bool {
					return strings.HasPrefix(key, "old/") && !strings.HasPrefix(key, "old/identity/")
				})
				for key, v := range d.Before {
					if strings.HasPrefix(key, "old/") {
						before[key] = v
					}
				}
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

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

// dropGround is the statement that takes the tool's own schema away: all of it,
// or where other parts have theirs in it, this part's.
func (u *Upgrade) dropGround(side string, db *survey.Database, home string) string {
	if u.c.Part == "" || side == "new" {
		return "DROP SCHEMA IF EXISTS crossfade CASCADE"
	}
	var sql []string
	for _, set := range db.Sets {
		sql = append(sql, "DROP TABLE IF EXISTS "+link.Canary(set.Name))
	}
	sql = append(sql, "DROP FUNCTION IF EXISTS crossfade.fence()", "DROP SEQUENCE IF EXISTS crossfade.refused")
	if db.Name == home {
		sql = append(sql, "DROP TABLE IF EXISTS crossfade.upgrade")
	}
	sql = append(sql, "DO $ground$ BEGIN DROP SCHEMA IF EXISTS crossfade; EXCEPTION WHEN dependent_objects_still_exist THEN NULL; END $ground$")
	return u.c.Part.Own(strings.Join(sql, ";\n"))
}

// splitFindings are what keeps the tables of a database from going to several
// clusters, and what goes to none.
func (u *Upgrade) splitFindings(s *survey.Survey) []check.Finding {
	var found []check.Finding
	if u.c.Part == "" || s == nil || s.Serving().Name != "old" {
		return nil
	}
	add := func(f check.Finding) {
		f.On = check.OnOld
		f.Accepted = f.Acceptable && u.rb.Accepts(f.ID, f.Object)
		found = append(found, f)
	}
	for _, db := range s.Databases {
		if db.Apart == nil {
			continue
		}
		for _, c := range db.Apart.Crossings {
			f := check.Finding{
				ID: clusterCrossing, Level: check.Block, Database: db.Name, Object: c.Object,
				Says: fmt.Sprintf("%s goes to cluster %s and needs %s, which goes to another cluster", c.Object, u.c.Part, c.Needs),
				Fix:  "put both into sets that go to the same cluster, or drop it on old",
			}
			if c.ForeignKey {
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
func (u *Upgrade) pooledApart() []string {
	var names []string
	for _, p := range u.c.Siblings() {
		for _, t := range p.Book.Cutover.Traffic {
			if t.PgBouncer != nil {
				names = append(names, t.PgBouncer.Databases...)
			}
		}
	}
	return names
}

// leftOfPart is what is left of this part on old, where others may have theirs.
func (u *Upgrade) leftOfPart(ctx context.Context, s *survey.Survey) ([]string, error) {
	var found []string
	for _, db := range s.Databases {
		var names, tables []string
		for _, set := range db.Book.Sets {
			if set.To != string(u.c.Part) {
				continue
			}
			for _, forward := range []bool{true, false} {
				names = append(names, link.Name(forward, u.rb.Upgrade, s.Tag(db), set.Name))
			}
			tables = append(tables, "canary_"+set.Name)
		}
		end := "_" + string(u.c.Part)
		tables = append(tables, "upgrade"+end, "refused"+end)
		err := u.c.In(ctx, "old", db.Name, func(conn *pgx.Conn) error {
			rows, err := conn.Query(ctx, `
				SELECT format('slot %I', slot_name) FROM pg_replication_slots WHERE slot_name = ANY ($1)
				UNION ALL SELECT format('subscription %I', subname) FROM pg_subscription WHERE subname = ANY ($1)
				UNION ALL SELECT format('publication %I in %I', pubname, current_database()) FROM pg_publication WHERE pubname = ANY ($1)
				UNION ALL SELECT format('%s of schema crossfade in %I', relname, current_database()) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
					WHERE n.nspname = 'crossfade' AND relname = ANY ($2)
				UNION ALL SELECT format('the fence on %s tables of %I', count(*), current_database()) FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
					WHERE tgname = $3 AND p.proname = $4 HAVING count(*) > 0`, names, tables, cutover.Trigger, "fence"+end)
			if err != nil {
				return err
			}
			some, err := pgx.CollectRows(rows, pgx.RowTo[string])
			found = append(found, some...)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}
