package check

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"crossfade/upgrade/pg"
)

var extensionChecks = []Check{
	{ID: "extension-missing", Title: "Every extension can be had on new", Levels: onlyBlock, Judge: judgeExtensionMissing},
	{ID: "extension-version", Title: "Extensions keep their version", Levels: onlyNote, Acceptable: true, Judge: judgeExtensionVersion},
	{ID: "extension-needs-preload", Title: "New loads the libraries without which extensions cannot be made", Levels: onlyBlock, Judge: judgeNeedsPreload},
	{ID: "extension-preload", Title: "New loads the libraries that old loads", Levels: onlyWarn, Acceptable: true, Judge: judgePreload},
	{ID: "extension-workers", Title: "No extension works on new before the cutover", Levels: onlyWarn, Acceptable: true, Judge: judgeExtensionWorkers},
	{ID: "extension-tables", Title: "Tables of extensions are the extensions'", Levels: onlyNote, Acceptable: true, Judge: judgeExtensionTables},
	{ID: "library-missing", Title: "New has the libraries of functions that no extension brings", Levels: onlyBlock, Judge: judgeLibraries},
	{ID: "c-functions", Title: "No function needs a library that no extension brings", Levels: warnNote, Acceptable: true, Judge: judgeCFunctions},
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
			fix := ""
			if o, known := f.Old.Extensions[e.Name]; known && o.Default != e.Detail {
				fix = fmt.Sprintf("the old server can have %s, nearer to new's: there, before prepare: ALTER EXTENSION %s UPDATE", o.Default, pg.Ident(e.Name))
			}
			out = append(out, Finding{
				Level: Note, On: OnNew, Database: d.Name, Object: e.Name, Says: says, Fix: fix,
			}.among("%s with another version on new: look into the release notes for what was removed between", "extension", []string{"old", "new"}, e.Detail, x.Default))
		}
	}
	return out
}

// preloads are the settings that load libraries into the server or its sessions.
var preloads = []string{"shared_preload_libraries", "session_preload_libraries", "local_preload_libraries"}

// notLoaded are the libraries of a setting that old loads, and others that are
// needed, and new does not, with what fixes it: no statement where a library is
// not installed, because a server does not start with one that is not there.
func (f *Facts) notLoaded(setting string, needed ...string) (missing []string, fix string) {
	have := splitList(f.New.setting(setting))
	var absent []string
	for _, lib := range append(splitList(f.Old.setting(setting)), needed...) {
		if slices.Contains(have, lib) || slices.Contains(missing, lib) {
			continue
		}
		missing = append(missing, lib)
		if f.New.Libraries != nil && !slices.Contains(f.New.Libraries, lib) && !strings.Contains(lib, "/") {
			absent = append(absent, lib)
		}
	}
	if len(absent) > 0 {
		return missing, fmt.Sprintf("install %s for PostgreSQL %d on the new server's host, and check again: the server does not start with a library that is not there", strings.Join(absent, ", "), f.New.Major())
	}
	then := "SELECT pg_reload_conf();"
	if setting == "shared_preload_libraries" {
		then = "restart the new server"
	}
	return missing, lines(fmt.Sprintf("ALTER SYSTEM SET %s = %s;", setting, literals(append(have, missing...))), then)
}

func judgePreload(f *Facts) []Finding {
	if !f.both() {
		return nil
	}
	var out []Finding
	for _, setting := range preloads {
		if missing, fix := f.notLoaded(setting); len(missing) > 0 {
			out = append(out, Finding{
				Level: Warn, On: OnNew, Object: setting,
				Says: fmt.Sprintf("%s of old loads %s, that of new does not: what these do (statistics, auditing, jobs) is missing on new", setting, strings.Join(missing, ", ")), Fix: fix,
			})
		}
	}
	return out
}

func judgeNeedsPreload(f *Facts) []Finding {
	if !f.both() {
		return nil
	}
	loaded := splitList(f.New.setting("shared_preload_libraries"))
	var out []Finding
	for _, d := range f.Databases {
		for _, e := range d.things("extension") {
			if slices.Contains(preloaded, e.Name) && !slices.Contains(loaded, e.Name) {
				_, fix := f.notLoaded("shared_preload_libraries", e.Name)
				out = append(out, Finding{
					Level: Block, On: OnNew, Database: d.Name, Object: e.Name,
					Says: fmt.Sprintf("extension %s can only be made on a server that has it in shared_preload_libraries, and new has not", e.Name), Fix: fix,
				})
			}
		}
	}
	return out
}

// preloaded are extensions that cannot be made unless their library, which has
// the same name, is in shared_preload_libraries.
var preloaded = []string{"pg_cron", "timescaledb", "citus", "pgaudit", "pglogical", "pg_squeeze"}

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
			case t.Extension == "" || t.Kind != 'r' || t.Excluded || d.added(t.String()):
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

// library says whether new has the library of a C function, as CREATE FUNCTION named
// it: with or without the ending of a shared library, in $libdir or wherever
// dynamic_library_path leads, which 18 and later look through for $libdir, too. known
// is false where that cannot be told.
func (f *Facts) library(path string) (there, known bool) {
	if !f.New.ok() || f.New.Libraries == nil {
		return false, false
	}
	const searched = 18
	name, inLibdir := strings.CutPrefix(path, "$libdir/")
	if strings.Contains(name, "/") {
		return false, false // a folder that was not looked into
	}
	if ending := filepath.Ext(name); slices.Contains([]string{".so", ".dylib", ".dll"}, ending) {
		name = strings.TrimSuffix(name, ending)
	}
	dirs := strings.Split(f.New.setting("dynamic_library_path"), ":")
	there = slices.Contains(f.New.Libraries, name) && (inLibdir || slices.Contains(dirs, "$libdir"))
	elsewhere := slices.ContainsFunc(dirs, func(dir string) bool { return dir != "$libdir" })
	return there, there || !elsewhere || inLibdir && f.New.Major() < searched
}

func judgeLibraries(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		for _, t := range d.things("c-function") {
			if there, known := f.library(t.More); there || !known {
				continue
			}
			out = append(out, Finding{
				Level: Block, On: OnNew, Database: d.Name, Object: t.More,
				Says: fmt.Sprintf("library %s, which no extension brings, has %s of old in it (%s), and new has none of that name: what is in it cannot be made there", t.More, count(t.N, "function"), t.Name),
				Fix:  fmt.Sprintf("install that library, built for PostgreSQL %s, on the new server's host, or drop the functions on old if nothing needs them", f.newMajor()),
			})
		}
	}
	return out
}

func judgeCFunctions(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		for _, t := range d.things("c-function") {
			there, known := f.library(t.More)
			if known && !there {
				continue // judgeLibraries
			}
			if t.Detail != "" {
				continue // the library of an extension that is there: extension-missing
			}
			level, what := Warn, fmt.Sprintf("what is in it cannot be made on new unless it is there, built for PostgreSQL %s", f.newMajor())
			fix := "install that library on the new server's host, or drop the functions on old if nothing needs them"
			if there {
				level, what, fix = Note, "new has a library of that name, and must find the same functions in it", "look whether an extension brings them on new: then make them members of it on old"
			}
			out = append(out, Finding{
				Level: level, On: OnOld, Database: d.Name, Object: t.More,
				Says: fmt.Sprintf("library %s, which no extension brings, has %s of old in it (%s): %s", t.More, count(t.N, "function"), t.Name, what), Fix: fix,
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
