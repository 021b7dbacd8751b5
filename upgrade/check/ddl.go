package check

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

var ddlChecks = []Check{
	{ID: "ddl-activity", Title: "Nobody changes the schema these days", Levels: warnNote, Acceptable: true, Judge: judgeDDL},
}

// DDL is what can be seen of the DDL and the TRUNCATEs of a database.
type DDL struct {
	// Committed: the server keeps times of commits (track_commit_timestamp).
	// Count transactions of the last seven days left something in the catalogs,
	// Last is the last of them and Example what it made or changed.
	Committed bool
	Count     int64
	Last      time.Time
	Example   string
	// Counted: pg_stat_statements counts utility statements here, DDL and
	// TRUNCATE among them.
	Counted           bool
	Calls, Truncates  int64
	Call, TruncateOne string
}

// ddlPattern is DDL of permanent objects, after a comment or not.
const ddlPattern = `^\s*(/\*.*?\*/\s*)?(CREATE|ALTER|DROP)\s+(OR\s+REPLACE\s+)?(UNLOGGED\s+|UNIQUE\s+|MATERIALIZED\s+|CONSTRAINT\s+|FOREIGN\s+)?(TABLE|INDEX|SCHEMA|VIEW|SEQUENCE|TYPE|DOMAIN|FUNCTION|PROCEDURE|TRIGGER|POLICY|RULE|EXTENSION)\M`

// readDDL reads what can be seen of DDL in a database of old.
func (g *gathering) readDDL(ctx context.Context, conn *pgx.Conn, d *DatabaseFacts) error {
	if g.Old.setting("track_commit_timestamp") == "on" {
		var last *time.Time
		if err := conn.QueryRow(ctx, query("committed", g.Old.Version)).Scan(&d.DDL.Count, &last, &d.DDL.Example); err != nil {
			return err
		}
		d.DDL.Committed = true
		if last != nil {
			d.DDL.Last = *last
		}
	}
	extensions := pick(d.Things, "extension")
	i := slices.IndexFunc(extensions, func(t Thing) bool { return t.Name == "pg_stat_statements" })
	if i < 0 || g.Old.setting("pg_stat_statements.track_utility") != "on" {
		return nil // not there, not loaded, or it looks away
	}
	sql := strings.Replace(query("statements", g.Old.Version), "SCHEMA.", extensions[i].More+".", 1)
	err := conn.QueryRow(ctx, sql, ddlPattern).Scan(&d.DDL.Calls, &d.DDL.Call, &d.DDL.Truncates, &d.DDL.TruncateOne)
	d.DDL.Counted = err == nil
	return err
}

// migrating are tables that tools which change schemas with each release keep.
var migrating = map[string]string{
	"flyway_schema_history": "Flyway", "schema_version": "Flyway", "databasechangelog": "Liquibase", "alembic_version": "Alembic", "django_migrations": "Django",
	"ar_internal_metadata": "Rails", "__EFMigrationsHistory": "Entity Framework", "goose_db_version": "goose",
	"_prisma_migrations": "Prisma", "SequelizeMeta": "Sequelize", "knex_migrations": "Knex", "atlas_schema_revisions": "Atlas", "phinxlog": "Phinx",
	"gorp_migrations": "sql-migrate", "doctrine_migration_versions": "Doctrine", "typeorm_metadata": "TypeORM",
}

// migrates names the tool that keeps a table; "" is none. Several keep one that is
// called schema_migrations: its columns tell which, and of Rails the table beside it.
func migrates(t schema.Table, inv *schema.Inventory) string {
	if t.Name != "schema_migrations" {
		return migrating[t.Name]
	}
	has := func(name string) bool {
		return slices.ContainsFunc(t.Columns, func(c schema.Column) bool { return c.Name == name })
	}
	switch {
	case has("inserted_at"):
		return "Ecto"
	case has("dirty"):
		return "golang-migrate"
	case inv.Find(t.Schema, "ar_internal_metadata") != nil:
		return "Rails"
	}
	return "a migration tool"
}

// judgeDDL: a column that is added on old stops its set, and a table that is
// made there is in none.
func judgeDDL(f *Facts) []Finding {
	const would = "a column that is added on old stops its set, and a table that is made there is in none, until prepare is run again, and the cutover waits for equal schemas"
	const fix = "let no deployment or job run DDL between prepare and the cutover; what must be done, do on old, and run crossfade prepare right after it, which takes it along"
	var out []Finding
	for _, d := range f.Databases {
		found := func(level Level, object, says string) {
			out = append(out, Finding{Level: level, On: OnOld, Database: d.Name, Object: object, Says: says + ": " + would, Fix: fix})
		}
		x := d.DDL
		if x.Committed && x.Count > 0 {
			found(Warn, "commits", fmt.Sprintf("%s of the last seven days changed the schema, the last one at %s (%s)", count(x.Count, "transaction"), x.Last.UTC().Format("2006-01-02 15:04 UTC"), x.Example))
		}
		if x.Counted && x.Calls > 0 {
			found(Warn, "pg_stat_statements", fmt.Sprintf("pg_stat_statements has counted %s of DDL here (%s)", count(x.Calls, "statement"), pg.Brief(x.Call)))
		}
		if x.Committed || x.Counted || d.Inventory == nil {
			continue
		}
		var tools, names []string
		for _, t := range d.Inventory.Tables {
			tool := migrates(t, d.Inventory)
			if tool == "" {
				continue
			}
			names = append(names, t.String())
			if !slices.Contains(tools, tool) {
				tools = append(tools, tool)
			}
		}
		if len(names) == 0 {
			continue
		}
		who := strings.Join(tools, " and ")
		verb := "shows"
		if len(names) > 1 {
			verb = "show"
		}
		found(Note, names[0], fmt.Sprintf("%s %s that %s changes this schema; when it last did cannot be seen (track_commit_timestamp is off, and pg_stat_statements does not count)", some(names, "table", "tables"), verb, who))
		out[len(out)-1] = out[len(out)-1].among("%s of tools that change schemas; when they last did cannot be seen (track_commit_timestamp is off, and pg_stat_statements does not count): "+would, "table", []string{"tool"}, who)
	}
	return out
}
