package transfer

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"crossfade/cutover"
	"crossfade/schema"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// What check refuses, or names, before anything is copied may also come after
// it: a large object, an unlogged table, a consumer of changes, a database. The
// gate "contents" looks for it on the side that closes, in both directions.

// besideKey marks, in what prepare remembers of a cluster, what it left beside
// the upgrade when it first ran: databases that the runbook does not name, and
// slots of others.
func besideKey(id, name string) string { return beside + id + " " + name }

const beside = "beside "

const (
	largeObjects = "large-objects" // ids of package check
	unlogged     = "unlogged"
	databaseLeft = "database-left"
	logicalSlots = "logical-slots"
)

// beside reads the databases and logical slots of a cluster that are not the
// upgrade's, by id and name.
func (tf *Transfer) beside(ctx context.Context, conn *pgx.Conn, s *survey.Survey) (all [][2]string, err error) {
	var names []string
	for _, db := range s.Databases {
		names = append(names, db.Name)
	}
	for _, p := range tf.c.Siblings() {
		for _, db := range p.Book.Databases {
			names = append(names, db.Name)
		}
	}
	rows, err := conn.Query(ctx, `
		SELECT $3, datname::text FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1') AND datconnlimit <> -2 AND NOT datname = ANY ($1::text[])
		UNION ALL
		SELECT $4, slot_name::text FROM pg_replication_slots
		WHERE slot_type = 'logical' AND NOT temporary AND database = ANY ($1::text[]) AND NOT EXISTS (SELECT FROM unnest($2::text[]) p(prefix) WHERE starts_with(slot_name, p.prefix))
		ORDER BY 1, 2`, names, []string{link.ForwardPrefix + tf.c.Book.Upgrade + "_", link.BackPrefix + tf.c.Book.Upgrade + "_"}, databaseLeft, logicalSlots)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (one [2]string, err error) {
		err = row.Scan(&one[0], &one[1])
		return one, err
	})
}

// ContentsGate wants nothing on the closing side that the other side cannot have,
// apart from what the runbook accepts and what was left beside the upgrade when
// prepare first ran.
func (tf *Transfer) ContentsGate(ctx context.Context, s *survey.Survey) (bool, string, error) {
	from, to := s.Serving(), s.Applying()
	var says []string
	shut := false // what opens it is DDL or prepare, which an armed fence keeps out
	for _, db := range s.Databases {
		err := tf.c.Sessions.Do(ctx, from.Server.With(db.Name), func(conn *pgx.Conn) error {
			some, tables, err := tf.uncarried(ctx, conn, db, to.Name)
			says, shut = append(append(says, some...), tables...), shut || len(tables) > 0
			return err
		})
		if err != nil {
			return false, "", &pg.Error{Doing: "look for what is not carried to " + to.Name, On: from.Server.String() + ", database " + db.Name, Err: err}
		}
	}
	z := s.Zero()
	err := tf.c.Sessions.Do(ctx, from.Server, func(conn *pgx.Conn) error {
		if z == nil || z.Shared[from.Name] == nil {
			return nil // not known: an earlier version has prepared
		}
		all, err := tf.beside(ctx, conn, s)
		for _, one := range all {
			id, name := one[0], one[1]
			if _, known := z.Shared[from.Name][besideKey(id, name)]; known || tf.c.Book.Accepts(id, name) {
				continue
			}
			if id == databaseLeft {
				shut = true
				says = append(says, fmt.Sprintf(`database %s was made on %s since prepare: name it under databases: and run crossfade prepare, or leave it there with accept: ["%s:%s"]`, name, from.Name, id, name))
				continue
			}
			says = append(says, fmt.Sprintf(`logical slot %s was made on %s since prepare: who reads from it would see nothing of what is written on %s; point it there, and then accept: ["%s:%s"]`, name, from.Name, to.Name, id, name))
		}
		return err
	})
	if err != nil {
		return false, "", &pg.Error{Doing: "look for databases and slots", On: from.Server.String(), Err: err}
	}
	switch {
	case shut:
		return false, "", &cutover.ErrShut{Says: strings.Join(says, "; "), Do: "crossfade prepare"}
	case len(says) > 0: // the session that made it may drop it at any time
		return false, strings.Join(says, "; "), nil
	}
	return true, "nothing blocks it", nil
}

// uncarried is what one database holds that does not travel, the tables apart.
func (tf *Transfer) uncarried(ctx context.Context, conn *pgx.Conn, db *survey.Database, to string) (says, tables []string, err error) {
	if !tf.c.Book.Accepts(largeObjects, "") {
		var some bool
		if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_largeobject_metadata)").Scan(&some); err != nil {
			return nil, nil, err
		}
		if some {
			says = append(says, fmt.Sprintf("database %s has large objects, which do not travel to %s: move them into bytea columns, or unlink them (vacuumlo); or carry them over yourself inside the cutover, with accept: [%s]", db.Name, to, largeObjects))
		}
	}
	rows, err := conn.Query(ctx, `
		SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'r' AND c.relpersistence = 'u' AND n.nspname <> 'crossfade' ORDER BY 1, 2`)
	if err != nil {
		return nil, nil, err
	}
	var namespace, name string
	_, err = pgx.ForEachRow(rows, []any{&namespace, &name}, func() error {
		label := schema.Name(namespace, name)
		left := slices.ContainsFunc(db.Excluded, func(t schema.Table) bool { return t.Schema == namespace && t.Name == name })
		if !left && !tf.c.Book.Accepts(unlogged, label) && !slices.Contains(db.TablesApart, pg.Ident(namespace, name)) {
			tables = append(tables, fmt.Sprintf(`table %s is unlogged, so that its rows do not travel to %s: ALTER TABLE %s SET LOGGED and run crossfade prepare, or accept: ["%s:%s"]`, label, to, pg.Ident(namespace, name), unlogged, label))
		}
		return nil
	})
	return says, tables, err
}
