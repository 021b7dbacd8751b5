package upgrade

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"crossfade/cutover"
	"crossfade/schema"
	"crossfade/upgrade/check"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/runbook"

	"github.com/jackc/pgx/v5"
)

// Kinds of findings that only an upgrade to several new clusters has.
const (
	clusterForeignKey = "cluster-foreign-key"
	clusterCrossing   = "cluster-crossing"
	clusterLeftOut    = "cluster-left-out"
)

// elsewhere are the tables of old's database, quoted, that are no part of this.
func (db *database) elsewhere() []string { return db.tablesApart }

// divide leaves in a database what goes to the part's cluster. What goes
// elsewhere is read from old, whichever side serves: new has only its own.
func (u *Upgrade) divide(ctx context.Context, s *survey, db *database) error {
	if u.part == "" {
		return nil
	}
	db.sets = slices.DeleteFunc(db.sets, func(set schema.Set) bool {
		to, known := db.book.To(set.Name)
		return known && to != string(u.part)
	})
	if s.oldErr != nil {
		return nil
	}
	return u.sessions.Do(ctx, u.old.With(db.name), func(conn *pgx.Conn) error {
		whole := &database{name: db.name, book: db.book, inventory: db.inventory}
		if s.serving().Name != "old" {
			inv, err := schema.Read(ctx, conn, schema.Filter{NoObjects: true, NoSizes: true, NoUncalled: true})
			if err != nil {
				return &pg.Error{Doing: "read what database " + db.name + " holds", On: u.old.String(), Err: err}
			}
			whole.inventory = inv
		}
		whole.assign()
		var mine, others []uint32
		to := whole.clusters()
		for _, t := range whole.inventory.Tables {
			if to[t.OID] == string(u.part) {
				mine = append(mine, t.OID)
				continue
			}
			others = append(others, t.OID)
			db.tablesApart = append(db.tablesApart, t.SQL())
		}
		var err error
		if db.apart, err = schema.ReadApart(ctx, conn, others); err != nil {
			return &pg.Error{Doing: "divide database " + db.name, On: u.old.String(), Err: err}
		}
		with, err := schema.ReadApart(ctx, conn, mine)
		if err != nil {
			return &pg.Error{Doing: "divide database " + db.name, On: u.old.String(), Err: err}
		}
		for _, n := range db.apart.Needs {
			if slices.Contains(with.Needs, n) {
				db.nowhere = append(db.nowhere, n)
			}
		}
		if s.serving().Name == "old" {
			db.inventory = db.inventory.Without(db.apart)
			db.excluded = slices.DeleteFunc(db.excluded, func(t schema.Table) bool { return db.apart.Has(t.SQL()) })
		}
		return nil
	})
}

// clusters is the cluster of every table, by OID: that of its set. A partitioned
// table goes with its partitions; what is in no set goes with the last one.
func (db *database) clusters() map[uint32]string {
	to := map[uint32]string{}
	for _, set := range db.sets {
		cluster, _ := db.book.To(set.Name)
		for _, t := range set.Tables {
			to[t.OID] = cluster
		}
	}
	// From the leaves up: the parents of a leaf may have parents themselves.
	for again := true; again; {
		again = false
		for _, t := range db.inventory.Tables {
			for _, p := range t.Parents {
				if to[t.OID] != "" && to[p] == "" {
					to[p], again = to[t.OID], true
				}
			}
		}
	}
	last := db.book.Sets[len(db.book.Sets)-1].To
	for _, t := range db.inventory.Tables {
		if to[t.OID] == "" {
			to[t.OID] = last
		}
	}
	return to
}

// ofThis leaves of what has been published what this part has published, and
// returns the names of all sets, which no other may take.
func (u *Upgrade) ofThis(db *database, published map[string][]runbook.TableName) (taken []string) {
	taken = slices.Sorted(maps.Keys(published))
	if u.part == "" {
		return taken
	}
	maps.DeleteFunc(published, func(set string, tables []runbook.TableName) bool {
		if to, known := db.book.To(set); known {
			return to != string(u.part)
		}
		return !slices.ContainsFunc(tables, func(t runbook.TableName) bool { return db.inventory.Find(t.Schema, t.Name) != nil })
	})
	return taken
}

// siblings are the other parts of an upgrade to several new clusters.
func (u *Upgrade) siblings() []*Upgrade {
	if u.whole == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(u.whole.parts), func(p *Upgrade) bool { return p.part == u.part })
}

// inherit takes over what another part remembers of old: what that one has
// changed there is not what stood there before the upgrade.
func (u *Upgrade) inherit(ctx context.Context, before map[string]string) error {
	for _, p := range u.siblings() {
		err := u.sessions.Do(ctx, u.old.With(p.rb.Databases[0].Name), func(conn *pgx.Conn) error {
			ds, err := p.part.ReadDecisions(ctx, conn)
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
func (u *Upgrade) apartFrom(ctx context.Context, s *survey, db *database, d *cutover.Database) error {
	if u.part == "" || s.oldErr != nil {
		return nil
	}
	d.Elsewhere = db.elsewhere()
	if db.apart != nil {
		d.Apart = db.apart.Has
	}
	return u.sessions.Do(ctx, u.old.With(db.name), func(conn *pgx.Conn) error {
		const ours = `SELECT coalesce(array_agg(subname::text), '{}') FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
			WHERE d.datname = current_database() AND starts_with(subname, $1)`
		if err := conn.QueryRow(ctx, ours, link.BackPrefix+u.rb.Upgrade+"_").Scan(&d.Others); err != nil {
			return &pg.Error{Doing: "look for the links of other clusters", On: u.old.String(), Err: err}
		}
		for _, p := range u.siblings() {
			if !db.book.Goes(string(p.part)) {
				continue
			}
			up, err := p.part.Up(ctx, conn)
			if err != nil {
				return err
			}
			d.Shared = d.Shared || !up
		}
		return nil
	})
}

// only refuses to go on where the upgrade of this name has begun with one new
// cluster, and the runbook has several by now, or the other way round.
func (u *Upgrade) only(ctx context.Context, conn *pgx.Conn) error {
	const others = `SELECT coalesce(string_agg(relname, ', ' ORDER BY relname), '') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = 'crossfade' AND c.relkind = 'r' AND (c.relname = 'upgrade' OR c.relname LIKE 'upgrade\_%') AND c.relname <> ALL ($1::text[])`
	mine := []string{"upgrade"}
	if u.whole != nil {
		mine = nil
		for _, p := range u.whole.parts {
			mine = append(mine, "upgrade_"+string(p.part))
		}
	}
	var found string
	if err := conn.QueryRow(ctx, others, mine).Scan(&found); err != nil {
		return err
	}
	if found != "" {
		return exitf(ExitFindings, "finish or abort it first, with the runbook that it was begun with", "an upgrade to other new clusters than those of the runbook has begun (crossfade.%s)", found)
	}
	return nil
}

// dropGround is the statement that takes the tool's own schema away: all of it,
// or where other parts have theirs in it, this part's.
func (u *Upgrade) dropGround(side string, db *database, home string) string {
	if u.part == "" || side == "new" {
		return "DROP SCHEMA IF EXISTS crossfade CASCADE"
	}
	var sql []string
	for _, set := range db.sets {
		sql = append(sql, "DROP TABLE IF EXISTS "+link.Canary(set.Name))
	}
	sql = append(sql, "DROP FUNCTION IF EXISTS crossfade.fence()", "DROP SEQUENCE IF EXISTS crossfade.refused")
	if db.name == home {
		sql = append(sql, "DROP TABLE IF EXISTS crossfade.upgrade")
	}
	sql = append(sql, "DO $ground$ BEGIN DROP SCHEMA IF EXISTS crossfade; EXCEPTION WHEN dependent_objects_still_exist THEN NULL; END $ground$")
	return u.part.Own(strings.Join(sql, ";\n"))
}

// splitFindings are what keeps the tables of a database from going to several
// clusters, and what goes to none.
func (u *Upgrade) splitFindings(s *survey) []check.Finding {
	var found []check.Finding
	if u.part == "" || s == nil || s.serving().Name != "old" {
		return nil
	}
	add := func(f check.Finding) {
		f.On = check.OnOld
		f.Accepted = f.Acceptable && u.accepted(f.ID, f.Object)
		found = append(found, f)
	}
	for _, db := range s.databases {
		if db.apart == nil {
			continue
		}
		for _, c := range db.apart.Crossings {
			f := check.Finding{
				ID: clusterCrossing, Level: check.Block, Database: db.name, Object: c.Object,
				Says: fmt.Sprintf("%s goes to cluster %s and needs %s, which goes to another cluster", c.Object, u.part, c.Needs),
				Fix:  "put both into sets that go to the same cluster, or drop it on old",
			}
			if c.ForeignKey {
				f.ID, f.Fix = clusterForeignKey, "put both tables into sets that go to the same cluster, or drop the foreign key on old"
			}
			add(f)
		}
		for _, n := range db.nowhere {
			add(check.Finding{
				ID: clusterLeftOut, Level: check.Warn, Database: db.name, Object: n, Acceptable: true,
				Says: n + " needs tables of several clusters: it is made on none of them",
				Fix:  "accept it, and see to it that the application does without it",
			})
		}
		shared := len(db.elsewhere()) > 0
		for _, t := range db.inventory.Triggers {
			if t.Table == "" && shared {
				add(check.Finding{
					ID: clusterCrossing, Level: check.Block, Database: db.name, Object: t.String(),
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
	for _, p := range u.siblings() {
		for _, t := range p.rb.Cutover.Traffic {
			names = append(names, t.Entry.Names()...)
		}
	}
	return names
}

// leftOfPart is what is left of this part on old, where others may have theirs.
func (u *Upgrade) leftOfPart(ctx context.Context, s *survey) ([]string, error) {
	var found []string
	for _, db := range s.databases {
		var names, tables []string
		for _, set := range db.book.Sets {
			if set.To != string(u.part) {
				continue
			}
			for _, forward := range []bool{true, false} {
				names = append(names, link.Name(forward, u.rb.Upgrade, u.tag(s, db), set.Name))
			}
			tables = append(tables, "canary_"+set.Name)
		}
		end := "_" + string(u.part)
		tables = append(tables, "upgrade"+end, "refused"+end)
		err := u.sessions.Do(ctx, u.old.With(db.name), func(conn *pgx.Conn) error {
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
