package check

import (
	"fmt"
	"slices"
	"strings"

	"crossfade/schema"
	"crossfade/upgrade/pg"
)

var databaseChecks = []Check{
	{ID: "database-missing", Title: "Every database of the runbook is on old", Levels: onlyBlock, Judge: judgeDatabaseMissing},
	{ID: "database-closed", Title: "Every database of the runbook allows connections", Levels: onlyBlock, Judge: judgeDatabaseClosed},
	{ID: "database-invalid", Title: "No database is half dropped", Levels: blockWarn, Judge: judgeInvalid},
	{ID: "database-left", Title: "Every database of old is moved", Levels: warnNote, Acceptable: true, Judge: judgeDatabaseLeft},
	{ID: "database-template", Title: "No template is moved that databases are made from meanwhile", Levels: blockWarn, Judge: judgeTemplates},
	{ID: "plpgsql-missing", Title: "Every database has PL/pgSQL", Levels: onlyBlock, Judge: judgePLpgSQL},
	{ID: "new-not-empty", Title: "New has nothing in the databases that are moved", Levels: onlyBlock, Judge: judgeNotEmpty},
	{ID: "encoding", Title: "Databases that exist on new have old's encoding and locale", Levels: onlyBlock, Judge: judgeEncoding},
	{ID: "locale-missing", Title: "New knows the locales of old's databases", Levels: onlyBlock, Acceptable: true, Judge: judgeLocale},
	{ID: "collation-missing", Title: "New knows the collations of old's columns", Levels: onlyBlock, Judge: judgeCollations},
	{ID: "collation-version", Title: "Text sorts alike on both sides", Levels: warnNote, Acceptable: true, Judge: judgeCollationVersion},
	{ID: "tablespace-missing", Title: "New has old's tablespaces", Levels: onlyBlock, Judge: judgeTablespaces},
	{ID: "connection-limit", Title: "Connection limits leave room for the upgrade", Levels: blockNote, Acceptable: true, Judge: judgeConnectionLimits},
}

func judgeDatabaseMissing(f *Facts) []Finding {
	if !f.Old.ok() {
		return nil
	}
	var out []Finding
	for _, d := range f.Databases {
		if d.Old == nil {
			out = append(out, Finding{
				Level: Block, On: OnOld, Database: d.Name, Object: d.Name,
				Says: fmt.Sprintf("the runbook moves database %s, and old has no database of that name", schema.Name(d.Name)),
				Fix:  "correct its name in the runbook: upper and lower case count",
			})
		}
	}
	if len(f.Databases) == 0 {
		out = append(out, Finding{Level: Block, On: OnOld, Says: "there is no database to move: no database of old but templates allows connections"})
	}
	return out
}

func judgeDatabaseClosed(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		for _, side := range []struct {
			on string
			c  *Catalog
		}{{OnOld, d.Old}, {OnNew, d.New}} {
			if side.c != nil && !side.c.AllowsConnections {
				out = append(out, Finding{
					Level: Block, On: side.on, Database: d.Name, Object: d.Name,
					Says: fmt.Sprintf("database %s allows no connections (datallowconn), not even the tool's", schema.Name(d.Name)),
					Fix:  "ALTER DATABASE " + pg.Ident(d.Name) + " ALLOW_CONNECTIONS true;",
				})
			}
		}
	}
	return out
}

// judgeInvalid: from the minors of August 2023 on a DROP DATABASE that is cut
// off leaves a database that nobody can connect to.
func judgeInvalid(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.sides() {
		for _, c := range s.Databases {
			if !c.halfDropped() {
				continue
			}
			level, what := Warn, "it is not moved"
			if f.moved(c.Name) {
				level, what = Block, "the runbook moves it"
			}
			out = append(out, Finding{
				Level: level, On: s.Side, Object: c.Name,
				Says: fmt.Sprintf("database %s is what a DROP DATABASE that was cut off has left: nobody can connect to it, and %s", schema.Name(c.Name), what),
				Fix:  "DROP DATABASE " + pg.Ident(c.Name) + ";",
			})
		}
	}
	return out
}

// judgeDatabaseLeft: the cutover closes the databases that are moved. Others
// stay on old, and open. That a template, or a database that lets nobody in, is
// one of them is worth more than a note: nobody said so in the runbook.
func judgeDatabaseLeft(f *Facts) []Finding {
	if !f.Old.ok() {
		return nil
	}
	var out []Finding
	for _, c := range f.Old.Databases {
		if c.initdb() || c.halfDropped() || f.moved(c.Name) {
			continue
		}
		left := Finding{Level: Warn, On: OnOld, Database: c.Name, Object: c.Name}
		named := fmt.Sprintf("to move it, name it in the runbook under databases:, with every other database that is moved: {name: %s}", schema.Name(c.Name))
		switch {
		case c.Template:
			left.Says = fmt.Sprintf("database %s is a template (IS_TEMPLATE), and templates are moved only where the runbook names them: it stays on old, and new will not have it", schema.Name(c.Name))
			left.Fix = lines("if it is meant to be an ordinary database:", "ALTER DATABASE "+pg.Ident(c.Name)+" IS_TEMPLATE false;", named)
			if !c.AllowsConnections {
				left.Fix = lines("ALTER DATABASE "+pg.Ident(c.Name)+" ALLOW_CONNECTIONS true;", left.Fix)
			}
		case !c.AllowsConnections:
			left.Says = fmt.Sprintf("database %s allows no connections (datallowconn), not even the tool's: it stays on old, and new will not have it", schema.Name(c.Name))
			left.Fix = lines("if it is to be moved:", "ALTER DATABASE "+pg.Ident(c.Name)+" ALLOW_CONNECTIONS true;", "if nobody needs it: drop it, or accept database-left:"+c.Name)
		case f.Want.AllDatabases || c.Name == "postgres":
			continue
		default:
			left.Level = Note
			left.Says = fmt.Sprintf("database %s is not in the runbook: it stays on old and takes writes there", schema.Name(c.Name))
		}
		out = append(out, left.among(leftSays(left.Level, c), "database", nil))
	}
	return out
}

func leftSays(level Level, c Catalog) string {
	switch {
	case c.Template:
		return "%s marked IS_TEMPLATE: templates are moved only where the runbook names them; these stay on old, and new will not have them"
	case level == Warn:
		return "%s without connections (datallowconn), not even the tool's: they stay on old, and new will not have them"
	}
	return "%s not in the runbook: they stay on old and take writes there"
}

// judgeTemplates: what the links connect to cannot be copied from.
func judgeTemplates(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		switch {
		case d.Old == nil || !d.Old.Template:
		case d.Old.initdb():
			out = append(out, Finding{
				Level: Block, On: OnOld, Database: d.Name, Object: d.Name,
				Says: fmt.Sprintf("the runbook moves %s, which every CREATE DATABASE copies: it would fail on both sides while the links are connected to it", schema.Name(d.Name)),
				Fix:  "take it out of databases: in the runbook, and make in template1 of new by hand what later databases need",
			})
		default:
			out = append(out, Finding{
				Level: Warn, On: OnOld, Database: d.Name, Object: d.Name,
				Says: fmt.Sprintf("database %s is a template: from prepare to finish the links are connected to it, so that CREATE DATABASE … TEMPLATE %s fails on both sides (SQLSTATE 55006)", schema.Name(d.Name), schema.Name(d.Name)),
				Fix:  "let nobody make databases from it until the upgrade is finished",
			})
		}
	}
	return out
}

// judgePLpgSQL: the fence is written in it, on both sides.
func judgePLpgSQL(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		for _, side := range []struct {
			on     string
			things []Thing
		}{{OnOld, d.Things}, {OnNew, d.NewThings}} {
			if len(pick(side.things, "no-plpgsql")) > 0 {
				out = append(out, Finding{
					Level: Block, On: side.on, Database: d.Name, Object: "plpgsql",
					Says: fmt.Sprintf("database %s does not have the language plpgsql, in which the fence is written: it could not be made there", schema.Name(d.Name)),
					Fix:  lines("CREATE EXTENSION plpgsql;", "it is a part of the server; it may be dropped again after finish"),
				})
			}
		}
	}
	return out
}

func judgeNotEmpty(f *Facts) []Finding {
	if f.begun() {
		return nil
	}
	var out []Finding
	for _, d := range f.Databases {
		var has []string
		rows := false
		for _, t := range d.NewThings {
			kind, user := strings.CutPrefix(t.Kind, "user-")
			if !user {
				continue
			}
			if t.N == 1 {
				has = append(has, fmt.Sprintf("%s %s", kind, t.Name))
			} else {
				has = append(has, fmt.Sprintf("%d of kind %s (%s, …)", t.N, kind, t.Name))
			}
			rows = rows || t.More == "rows"
		}
		if len(has) == 0 {
			continue
		}
		says := fmt.Sprintf("database %s exists on new and is not empty: it has %s. The copy would collide with it", schema.Name(d.Name), strings.Join(has, ", "))
		if rows {
			says += "; there are rows in it, which nobody will ask for again"
		}
		out = append(out, Finding{
			Level: Block, On: OnNew, Database: d.Name, Object: d.Name, Says: says,
			Fix: "if nothing in it is needed: DROP DATABASE " + pg.Ident(d.Name) + " on new, from another database; prepare makes it anew",
		})
	}
	return out
}

func locale(c *Catalog) string {
	s := fmt.Sprintf("%s, provider %s, collate %s, ctype %s", c.Encoding, provider(c.Provider), c.Collate, c.Ctype)
	if c.Locale != "" {
		s += ", locale " + c.Locale
	}
	if c.Rules != "" {
		s += ", rules " + c.Rules
	}
	return s
}

func provider(letter string) string {
	switch letter {
	case "i":
		return "icu"
	case "b":
		return "builtin"
	}
	return "libc"
}

func judgeEncoding(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		// One that is empty and not closed off can be dropped; so say both.
		if d.Old == nil || d.New == nil || sameLocale(locale(d.Old), locale(d.New)) {
			continue
		}
		out = append(out, Finding{
			Level: Block, On: OnNew, Database: d.Name, Object: d.Name,
			Says: fmt.Sprintf("database %s is (%s) on old and (%s) on new: text could not be stored or would sort otherwise", schema.Name(d.Name), locale(d.Old), locale(d.New)),
			Fix:  "if nothing in it is needed: DROP DATABASE " + pg.Ident(d.Name) + " on new, from another database; prepare makes it anew, as on old",
		})
	}
	return out
}

// sameLocale takes the spellings of one locale for the same: en_US.UTF-8, en_US.utf8.
func sameLocale(a, b string) bool { return plainLocale(a) == plainLocale(b) }

func plainLocale(s string) string {
	return strings.ReplaceAll(strings.ToLower(s), "utf-8", "utf8")
}

// judgeLocale: CREATE DATABASE refuses a locale that the operating system of
// new does not have. pg_collation has those that it had when initdb ran.
func judgeLocale(f *Facts) []Finding {
	if !f.New.ok() || len(f.New.Collations) == 0 {
		return nil
	}
	libc := f.New.libc()
	icu := slices.ContainsFunc(f.New.Collations, func(c Collation) bool { return c.Provider == "i" })
	var out []Finding
	for _, d := range f.Databases {
		if d.Old == nil || d.New != nil {
			continue
		}
		for _, l := range slices.Compact([]string{d.Old.Collate, d.Old.Ctype}) {
			if !libc[plainLocale(l)] {
				out = append(out, Finding{
					Level: Block, On: OnNew, Database: d.Name, Object: l,
					Says: fmt.Sprintf("database %s has locale %s, which new's pg_collation does not list: CREATE DATABASE would fail, unless it was installed there since initdb", schema.Name(d.Name), l),
					Fix:  lines("generate that locale on the new server's host (Debian: dpkg-reconfigure locales) and restart the new server", "SELECT pg_import_system_collations('pg_catalog');", "or, where that is done: accept locale-missing:"+l),
				})
			}
		}
		if d.Old.Provider == "i" && !icu {
			out = append(out, Finding{
				Level: Block, On: OnNew, Database: d.Name, Object: d.Old.Locale,
				Says: fmt.Sprintf("database %s uses ICU, which the new server seems to be built without", schema.Name(d.Name)), Fix: "install a server that is built with ICU",
			})
		}
	}
	return out
}

// libc are the locales of the operating system that the server knows of.
func (s *Server) libc() map[string]bool {
	known := map[string]bool{"c": true, "posix": true}
	for _, c := range s.Collations {
		if c.Provider == "c" {
			known[plainLocale(c.Collate)] = true
		}
	}
	for _, c := range s.Databases {
		known[plainLocale(c.Collate)], known[plainLocale(c.Ctype)] = true, true
	}
	return known
}

func judgeCollations(f *Facts) []Finding {
	if !f.New.ok() || len(f.New.Collations) == 0 {
		return nil
	}
	have := map[string]bool{}
	for _, c := range f.New.Collations {
		have[c.Name] = true
	}
	libc := f.New.libc()
	var out []Finding
	for _, d := range f.Databases {
		for _, t := range d.things("collation") {
			if !have[t.Name] {
				out = append(out, Finding{
					Level: Block, On: OnNew, Database: d.Name, Object: t.Name,
					Says: fmt.Sprintf("new does not have collation %s (%s), which serves %s of old: what they belong to cannot be made", schema.Name(t.Name), provider(t.Detail), count(t.N, "column")),
					Fix:  haveLocale,
				})
			}
		}
		for _, t := range d.things("user-collation") {
			if t.Detail == "c" && !libc[plainLocale(t.More)] {
				out = append(out, Finding{
					Level: Block, On: OnNew, Database: d.Name, Object: t.Name,
					Says: fmt.Sprintf("collation %s has locale %s, which new's pg_collation does not list: it cannot be made there", t.Name, t.More),
					Fix:  haveLocale,
				})
			}
		}
	}
	return out
}

// haveLocale: databases are made from template0, which has the collations that
// the operating system knew when initdb ran.
const haveLocale = "generate that locale on the new server's host, then make the new cluster anew with initdb, which takes it up; or use another collation on old"

func judgeCollationVersion(f *Facts) []Finding {
	if !f.both() {
		return nil
	}
	var out []Finding
	for _, d := range f.Databases {
		if d.Old == nil {
			continue
		}
		if d.Old.CollationVersion != "" && d.Old.CollationVersion != d.Old.ActualVersion && d.Old.ActualVersion != "" {
			out = append(out, Finding{
				Level: Warn, On: OnOld, Database: d.Name, Object: d.Name,
				Says: fmt.Sprintf("the library that sorts text changed under database %s (%s when it was made, %s now): its indexes may be wrong, and its unique keys may hold duplicates that new's index build will find", schema.Name(d.Name), d.Old.CollationVersion, d.Old.ActualVersion),
				Fix:  lines("REINDEX DATABASE CONCURRENTLY "+pg.Ident(d.Name)+" on old, which finds the duplicates now", "ALTER DATABASE "+pg.Ident(d.Name)+" REFRESH COLLATION VERSION;"),
			})
		}
		for _, t := range d.things("collation-changed") {
			out = append(out, Finding{
				Level: Warn, On: OnOld, Database: d.Name, Object: t.Name,
				Says: fmt.Sprintf("the library of collation %s changed (%s when it was made, %s now): indexes over columns with it may be wrong, and unique ones may hold duplicates that new's index build will find", t.Name, t.Detail, t.More),
				Fix:  lines("REINDEX the indexes over columns with that collation, which finds the duplicates now", "ALTER COLLATION "+t.Name+" REFRESH VERSION;"),
			})
		}
		there := d.New
		if there == nil {
			there = f.New.alike(d.Old)
		}
		if there == nil || d.Old.ActualVersion == "" || there.ActualVersion == "" || d.Old.ActualVersion == there.ActualVersion {
			continue
		}
		for _, t := range d.things("text-range") {
			if t.More == "default" || !strings.HasSuffix(t.More, "-x-icu") {
				out = append(out, Finding{
					Level: Warn, On: OnNew, Database: d.Name, Object: t.Name,
					Says: fmt.Sprintf("table %s is partitioned by ranges of text (%s, collation %s), which sorts by version %s on old and %s on new: a row may belong to another partition there, and the one that it is in on old would refuse it",
						t.Name, t.Detail, t.More, d.Old.ActualVersion, there.ActualVersion),
					Fix: "look at the rows near its bounds; a partition key COLLATE \"C\" sorts alike everywhere",
				})
			}
		}
		out = append(out, Finding{
			Level: Note, On: OnNew, Database: d.Name, Object: d.Name,
			Says: fmt.Sprintf("text in database %s sorts by %s version %s on old and %s on new: the order of some strings changes with the cutover. Indexes are built anew on new; look at range partitions and CHECKs over text",
				schema.Name(d.Name), provider(d.Old.Provider), d.Old.ActualVersion, there.ActualVersion),
		})
	}
	return out
}

// alike is a database with the same provider and locale, which tells its version.
func (s *Server) alike(c *Catalog) *Catalog {
	for i := range s.Databases {
		x := &s.Databases[i]
		if x.Provider == c.Provider && sameLocale(x.Collate, c.Collate) && x.Locale == c.Locale {
			return x
		}
	}
	return nil
}

func judgeTablespaces(f *Facts) []Finding {
	if !f.both() {
		return nil
	}
	have := map[string]bool{"pg_default": true, "pg_global": true}
	for _, t := range f.New.Tablespaces {
		have[t.Name] = true
	}
	needed := map[string][]string{}
	for _, d := range f.Databases {
		if d.Old != nil && !have[d.Old.Tablespace] {
			needed[d.Old.Tablespace] = append(needed[d.Old.Tablespace], d.Name)
		}
		for _, t := range d.things("tablespace") {
			if !have[t.Name] {
				needed[t.Name] = append(needed[t.Name], d.Name)
			}
		}
	}
	var out []Finding
	for name, databases := range needed {
		at := ""
		for _, t := range f.Old.Tablespaces {
			if t.Name == name {
				at = t.Location
			}
		}
		slices.Sort(databases)
		out = append(out, Finding{
			Level: Block, On: OnNew, Object: name,
			Says: fmt.Sprintf("tablespace %s (%s on old) is used by %s, and new has none of that name: what is in it cannot be made", schema.Name(name), at, some(slices.Compact(databases), "database", "databases")),
			Fix: fmt.Sprintf("make an empty folder for it on the new server's host (not %s if old runs there too), owned by postgres, then on new: CREATE TABLESPACE %s LOCATION '…'",
				at, pg.Ident(name)),
		})
	}
	return out
}

func judgeConnectionLimits(f *Facts) []Finding {
	if !f.Old.ok() {
		return nil
	}
	var out []Finding
	for _, d := range f.Databases {
		if d.Old != nil && d.Old.ConnLimit == 0 {
			out = append(out, Finding{
				Level: Note, On: OnOld, Database: d.Name, Object: d.Name,
				Says: fmt.Sprintf("database %s has CONNECTION LIMIT 0: only superusers get in; the limit is carried over", schema.Name(d.Name)),
				Fix:  "ALTER DATABASE " + pg.Ident(d.Name) + " CONNECTION LIMIT -1; if that is not meant",
			})
		}
	}
	for _, s := range f.sides() {
		jobs, index := f.Want.jobs()
		if s.Role.ConnLimit >= 0 && !s.Superuser && int(s.Role.ConnLimit) < jobs+index+len(f.Databases)+4 {
			out = append(out, Finding{
				Level: Block, On: s.Side, Object: s.Role.Name,
				Says: fmt.Sprintf("role %s may open %d connections, fewer than the copy needs", s.Role.Name, s.Role.ConnLimit),
				Fix:  "ALTER ROLE " + pg.Ident(s.Role.Name) + " CONNECTION LIMIT -1;",
			})
		}
	}
	return out
}
