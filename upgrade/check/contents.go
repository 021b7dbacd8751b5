package check

import (
	"fmt"
	"slices"
	"strings"

	"crossfade/schema"
	"crossfade/upgrade/pg"
)

var contentChecks = []Check{
	{ID: "large-objects", Title: "There are no large objects", Acceptable: true, Judge: judgeLargeObjects},
	{ID: "unlogged", Title: "There are no unlogged tables", Acceptable: true, Judge: judgeUnlogged},
	{ID: "foreign-tables", Title: "Foreign servers are reachable from new too", Acceptable: true, Judge: judgeForeignTables},
	{ID: "materialized-views", Title: "Materialized views are filled anew", Acceptable: true, Judge: judgeMatViews},
	{ID: "triggers-on-apply", Title: "No trigger fires while rows are applied", Acceptable: true, Judge: judgeFiring},
	{ID: "event-triggers", Title: "Event triggers do not stand in the way", Acceptable: true, Judge: judgeEventTriggers},
	{ID: "row-security", Title: "Row-level security does not hide rows from the tool", Judge: judgeRowSecurity},
	{ID: "temporary-tables", Title: "No session depends on temporary tables", Acceptable: true, Judge: judgeTemporary},
	{ID: "extension-missing", Title: "Every extension can be had on new", Judge: judgeExtensionMissing},
	{ID: "extension-version", Title: "Extensions keep their version", Acceptable: true, Judge: judgeExtensionVersion},
	{ID: "extension-preload", Title: "New loads the libraries that old loads", Acceptable: true, Judge: judgePreload},
	{ID: "extension-workers", Title: "No extension works on new before the cutover", Acceptable: true, Judge: judgeExtensionWorkers},
	{ID: "extension-tables", Title: "Tables of extensions are the extensions'", Acceptable: true, Judge: judgeExtensionTables},
	{ID: "c-functions", Title: "No function needs a library that no extension brings", Acceptable: true, Judge: judgeCFunctions},
	{ID: "removed-types", Title: "New has every type and operator form in use", Judge: judgeRemovedTypes},
	{ID: "table-oids", Title: "No table has OIDs", Acceptable: true, Judge: judgeTableOIDs},
	{ID: "invalid-index", Title: "Every index is valid", Acceptable: true, Judge: judgeInvalidIndexes},
	{ID: "sequence-exhausted", Title: "No sequence is near its end", Acceptable: true, Judge: judgeSequences},
}

func judgeLargeObjects(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		if d.Inventory == nil || d.Inventory.LargeObjects <= 0 {
			continue
		}
		out = append(out, Finding{
			Level: Block, On: OnOld, Database: d.Name,
			Says: fmt.Sprintf("%d large objects: logical replication does not carry them; the rows with their OIDs arrive on new, the objects do not", d.Inventory.LargeObjects),
			Fix:  "move them into bytea columns, unlink those that nobody refers to (vacuumlo), or accept large-objects and carry them over yourself inside the cutover",
		})
	}
	return out
}

func judgeUnlogged(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		if d.Inventory == nil {
			continue
		}
		for _, t := range d.Inventory.Tables {
			if t.Persistence == 'u' && t.Kind == 'r' && !t.Excluded {
				out = append(out, Finding{
					Level: Block, On: OnOld, Database: d.Name, Object: t.String(),
					Says: fmt.Sprintf("table %s is unlogged: it cannot be published, and is there and empty on new", t),
					Fix: lines("ALTER TABLE "+t.SQL()+" SET LOGGED;",
						fmt.Sprintf("which rewrites it under an exclusive lock; or, where its rows may be lost: accept: [\"unlogged:%s\"]", t)),
				})
			}
		}
	}
	return out
}

func judgeForeignTables(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		servers := map[string][]string{}
		for _, t := range d.things("foreign-table") {
			servers[t.More] = append(servers[t.More], t.Name)
		}
		for server, tables := range servers {
			out = append(out, Finding{
				Level: Note, On: OnOld, Database: d.Name, Object: server,
				Says: fmt.Sprintf("%s on foreign server %s: definitions and user mappings are carried over, rows are not, and the new server must reach it",
					some(tables, "foreign table", "foreign tables"), schema.Name(server)),
				Fix: "look that the new server's host reaches it and may log in there",
			})
		}
	}
	return out
}

func judgeMatViews(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		if d.Inventory == nil || len(d.Inventory.MaterializedViews) == 0 {
			continue
		}
		var names, waits []string
		for _, m := range d.Inventory.MaterializedViews {
			if m.Populated {
				names = append(names, m.String())
			}
			if m.Populated && !m.Unique {
				waits = append(waits, m.SQL())
			}
		}
		if len(names) == 0 {
			continue
		}
		says := fmt.Sprintf("%s: not replicated; prepare fills them on new, and the cutover refreshes them before old is closed and once more behind open", some(names, "materialized view", "materialized views"))
		fix := ""
		if len(waits) > 0 {
			says += ", but not those without a unique index, whose readers would wait: " + strings.Join(waits, ", ")
			fix = "make a unique index on each, or refresh them again on new after the cutover (hooks: after_open)"
		}
		out = append(out, Finding{
			Level: Note, On: OnOld, Database: d.Name,
			Says: says,
			Fix:  fix,
		})
	}
	return out
}

func judgeFiring(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		if d.Inventory == nil {
			continue
		}
		for _, t := range d.Inventory.Triggers {
			if t.Table == "" {
				continue // judgeEventTriggers
			}
			mode := "ALWAYS"
			if t.Mode == 'R' {
				mode = "REPLICA"
			}
			out = append(out, Finding{
				Level: Note, On: OnOld, Database: d.Name, Object: schema.Name(t.Schema, t.Table) + "." + schema.Name(t.Name),
				Says: fmt.Sprintf("%s is enabled %s and would fire again where rows are applied: it is disabled on new until that is opened, and on old while that follows", t, mode),
			})
		}
		for _, r := range d.things("rule") {
			out = append(out, Finding{
				Level: Note, On: OnOld, Database: d.Name, Object: r.More + "." + r.Name,
				Says: fmt.Sprintf("rule %s on %s is enabled ALWAYS or REPLICA: rules do not act on applied rows, but on statements of sessions with session_replication_role = replica", r.Name, r.More),
			})
		}
	}
	return out
}

func judgeEventTriggers(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		for _, e := range d.things("event-trigger") {
			says := fmt.Sprintf("event trigger %s (%s) is carried over with the schema, last", schema.Name(e.Name), e.More)
			switch e.Detail {
			case "D":
				continue
			case "A", "R":
				says += "; it fires in the tool's sessions too, so that it is disabled where rows are applied until clients are let in"
			default:
				says += "; the tool's own DDL does not fire it"
			}
			out = append(out, Finding{Level: Note, On: OnOld, Database: d.Name, Object: e.Name, Says: says})
		}
		for _, e := range pick(d.NewThings, "event-trigger") {
			if e.Detail == "D" || e.Detail == "O" || f.begun() {
				continue
			}
			out = append(out, Finding{
				Level: Warn, On: OnNew, Database: d.Name, Object: e.Name,
				Says: fmt.Sprintf("event trigger %s (%s) of new fires on the DDL by which the schema is restored", schema.Name(e.Name), e.More),
				Fix:  "ALTER EVENT TRIGGER " + pg.Ident(e.Name) + " DISABLE;",
			})
		}
	}
	return out
}

// judgeRowSecurity: with row_security off a role that policies hold back gets
// an error instead of rows, in the copy as on apply.
func judgeRowSecurity(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.sides() {
		if s.Superuser || s.Role.BypassRLS {
			continue
		}
		for _, d := range f.Databases {
			if d.Inventory == nil {
				continue
			}
			var names []string
			for _, t := range d.Inventory.Tables {
				if t.RowSecurity && !t.Excluded {
					names = append(names, t.String())
				}
			}
			if len(names) == 0 {
				continue
			}
			out = append(out, Finding{
				Level: Block, On: s.Side, Database: d.Name, Object: s.Role.Name,
				Says: fmt.Sprintf("role %s is held back by the row-level security of %s: neither the copy nor apply could go on", s.Role.Name, some(names, "table", "tables")),
				Fix:  "ALTER ROLE " + pg.Ident(s.Role.Name) + " BYPASSRLS;",
			})
		}
	}
	return out
}

func judgeTemporary(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		for _, t := range d.things("temporary") {
			out = append(out, Finding{
				Level: Note, On: OnOld, Database: d.Name,
				Says: fmt.Sprintf("%d sessions have temporary tables now: these end with their sessions, which the cutover ends", t.N),
			})
		}
	}
	return out
}

func judgeExtensionMissing(f *Facts) []Finding {
	if !f.New.ok() || f.New.Extensions == nil {
		return nil
	}
	var out []Finding
	for _, d := range f.Databases {
		for _, e := range d.things("extension") {
			if _, ok := f.New.Extensions[e.Name]; ok {
				continue
			}
			out = append(out, Finding{
				Level: Block, On: OnNew, Database: d.Name, Object: e.Name,
				Says: fmt.Sprintf("extension %s (%s) of old is not available on new: neither it nor what needs it could be made", e.Name, e.Detail),
				Fix:  fmt.Sprintf("install its package for PostgreSQL %d on the new server's host (contrib: postgresql-contrib), or drop it on old if nothing needs it: DROP EXTENSION %s", f.New.Major(), pg.Ident(e.Name)),
			})
		}
	}
	return out
}

func judgeExtensionVersion(f *Facts) []Finding {
	if !f.New.ok() || f.New.Extensions == nil {
		return nil
	}
	var out []Finding
	for _, d := range f.Databases {
		for _, e := range d.things("extension") {
			x, ok := f.New.Extensions[e.Name]
			if !ok || x.Default == e.Detail {
				continue
			}
			says := fmt.Sprintf("extension %s is %s on old and becomes %s on new", e.Name, e.Detail, x.Default)
			if !slices.Contains(x.Versions, e.Detail) {
				says += fmt.Sprintf(", which does not have %s: look into its release notes for what was removed between", e.Detail)
			}
			out = append(out, Finding{
				Level: Note, On: OnNew, Database: d.Name, Object: e.Name, Says: says,
				Fix: "if old has a newer version of it installed, update there first: ALTER EXTENSION " + pg.Ident(e.Name) + " UPDATE",
			})
		}
	}
	return out
}

// preloads are the settings that load libraries into the server or its sessions.
var preloads = []string{"shared_preload_libraries", "session_preload_libraries", "local_preload_libraries"}

func judgePreload(f *Facts) []Finding {
	if !f.both() {
		return nil
	}
	var out []Finding
	for _, setting := range preloads {
		have := splitList(f.New.setting(setting))
		var missing []string
		for _, lib := range splitList(f.Old.setting(setting)) {
			if !slices.Contains(have, lib) {
				missing = append(missing, lib)
			}
		}
		if len(missing) == 0 {
			continue
		}
		all := make([]string, 0, len(have)+len(missing))
		for _, lib := range append(have, missing...) {
			all = append(all, pg.Literal(lib))
		}
		then := "SELECT pg_reload_conf();"
		if setting == "shared_preload_libraries" {
			then = "restart the new server: it does not start if a library is not installed"
		}
		out = append(out, Finding{
			Level: Warn, On: OnNew, Object: setting,
			Says: fmt.Sprintf("%s of old loads %s, that of new does not: what these do (statistics, auditing, jobs) is missing on new, and some extensions cannot be made without", setting, strings.Join(missing, ", ")),
			Fix:  lines(fmt.Sprintf("ALTER SYSTEM SET %s = %s;", setting, strings.Join(all, ", ")), then),
		})
	}
	return out
}

// working are extensions that do things by themselves, and what to do.
var working = map[string]string{
	"pg_cron":        "keep its jobs from running on new until it is open: cron.database_name unset there, or cron.launch_active_jobs = off, put back in hooks: after_open; pause on old the jobs that make or drop tables",
	"pg_partman":     "let it make the partitions of the coming days on old now, and keep its maintenance (pg_partman_bgw, cron) from running on either side until the cutover is done",
	"timescaledb":    "its chunks are not ordinary partitions: move such a database by its own means",
	"citus":          "its shards are not in this database: move such a cluster by its own means",
	"pglogical":      "remove its nodes and subscriptions on old first, or it replicates on beside this upgrade",
	"pgagent":        "stop the agent that runs against old at the cutover and start one against new in hooks: after_open",
	"pg_squeeze":     "keep its worker from running on either side until the cutover is done: it swaps tables",
	"pgautofailover": "its monitor is a service of its own: it needs a new one",
}

func judgeExtensionWorkers(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		for _, e := range d.things("extension") {
			if fix, ok := working[e.Name]; ok {
				out = append(out, Finding{
					Level: Warn, On: OnOld, Database: d.Name, Object: e.Name,
					Says: fmt.Sprintf("extension %s works by itself: on new it would write before the cutover, and tables or partitions that it makes on old during the upgrade are not in a set", e.Name),
					Fix:  fix,
				})
			}
		}
	}
	return out
}

func judgeExtensionTables(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		if d.Inventory == nil {
			continue
		}
		moved, left := map[string][]string{}, map[string][]string{}
		for _, t := range d.Inventory.Tables {
			switch {
			case t.Extension == "" || t.Kind != 'r' || t.Excluded:
			case t.ExtConfig && t.ExtCondition == "":
				moved[t.Extension] = append(moved[t.Extension], t.String())
			default:
				left[t.Extension] = append(left[t.Extension], t.String())
			}
		}
		for _, e := range d.things("extension") {
			if names := moved[e.Name]; len(names) > 0 {
				out = append(out, Finding{
					Level: Note, On: OnOld, Database: d.Name, Object: e.Name,
					Says: fmt.Sprintf("%s of extension %s hold the user's rows and are moved like tables of the application", some(names, "table", "tables"), e.Name),
				})
			}
			if names := left[e.Name]; len(names) > 0 {
				out = append(out, Finding{
					Level: Note, On: OnOld, Database: d.Name, Object: e.Name,
					Says: fmt.Sprintf("%s of extension %s: CREATE EXTENSION on new fills them; rows that were added by hand need a look", some(names, "table", "tables"), e.Name),
				})
			}
		}
	}
	return out
}

func judgeCFunctions(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		for _, t := range d.things("c-function") {
			out = append(out, Finding{
				Level: Warn, On: OnOld, Database: d.Name, Object: t.More,
				Says: fmt.Sprintf("%d functions (%s, …) are in library %s, which no extension brings: they cannot be made on new unless it is there, built for PostgreSQL %s", t.N, t.Name, t.More, f.newMajor()),
				Fix:  "install that library on the new server's host, or drop the functions on old if nothing needs them",
			})
		}
	}
	return out
}

func (f *Facts) newMajor() string {
	if f.New.ok() {
		return fmt.Sprint(f.New.Major())
	}
	return "of new"
}

func judgeRemovedTypes(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		for _, t := range d.things("removed-type") {
			out = append(out, Finding{
				Level: Block, On: OnOld, Database: d.Name, Object: t.Name,
				Says: fmt.Sprintf("column %s of %s has type %s, which PostgreSQL 12 removed: its table cannot be made on new", t.Detail, t.Name, t.More),
				Fix:  "ALTER TABLE " + t.Name + " ALTER COLUMN " + t.Detail + " TYPE timestamptz on old, or interval",
			})
		}
		if f.New.ok() && f.New.Major() < 14 {
			continue
		}
		for _, t := range d.things("postfix") {
			out = append(out, Finding{
				Level: Block, On: OnOld, Database: d.Name, Object: t.Name,
				Says: fmt.Sprintf("operator %s is a postfix operator, which PostgreSQL 14 removed: it cannot be made on new", t.Name),
				Fix:  "replace it by a function in what uses it, and drop it on old",
			})
		}
	}
	return out
}

func judgeTableOIDs(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		for _, t := range d.things("oids") {
			out = append(out, Finding{
				Level: Warn, On: OnOld, Database: d.Name, Object: t.Name,
				Says: fmt.Sprintf("table %s was made WITH OIDS, which PostgreSQL 12 removed: column oid is not carried over", t.Name),
				Fix:  "ALTER TABLE " + t.Name + " SET WITHOUT OIDS; once nothing reads that column (it rewrites the table)",
			})
		}
	}
	return out
}

func judgeInvalidIndexes(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		for _, t := range d.things("invalid-index") {
			out = append(out, Finding{
				Level: Warn, On: OnOld, Database: d.Name, Object: t.Name,
				Says: fmt.Sprintf("index %s of %s is not valid (a CREATE INDEX CONCURRENTLY failed or runs now): pg_dump leaves it out, so that it is not on new", t.Name, t.More),
				Fix:  lines("DROP INDEX "+t.Name+";", "or REINDEX INDEX CONCURRENTLY "+t.Name+", if it is wanted"),
			})
		}
	}
	return out
}

// mostUsed is the part of its range from which on a sequence is named.
const mostUsed = 0.8

func judgeSequences(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		if d.Inventory == nil {
			continue
		}
		for _, s := range d.Inventory.Sequences {
			used := s.Used()
			if used < mostUsed {
				continue
			}
			fix := "make its column bigint and its sequence too (ALTER SEQUENCE … AS bigint), or raise MAXVALUE"
			out = append(out, Finding{
				Level: Warn, On: OnOld, Database: d.Name, Object: s.String(),
				Says: fmt.Sprintf("sequence %s has used %.1f %% of its range; the cutover sets it ahead, by no more than half of what is left", s, used*100), Fix: fix,
			})
		}
	}
	return out
}
