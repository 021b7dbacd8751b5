package check

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"crossfade/schema"
	"crossfade/upgrade/pg"
)

var contentChecks = []Check{
	{ID: "large-objects", Title: "There are no large objects", Levels: onlyBlock, Acceptable: true, Judge: judgeLargeObjects},
	{ID: "unlogged", Title: "There are no unlogged tables", Levels: onlyBlock, Acceptable: true, Judge: judgeUnlogged},
	{ID: "foreign-tables", Title: "Foreign servers are reachable from new too", Levels: warnNote, Acceptable: true, Judge: judgeForeignTables},
	{ID: "materialized-views", Title: "Materialized views are filled anew", Levels: onlyNote, Acceptable: true, Judge: judgeMatViews},
	{ID: "temporary-tables", Title: "No session depends on temporary tables", Levels: onlyNote, Acceptable: true, Judge: judgeTemporary},
	{ID: "invalid-index", Title: "Every index is valid", Levels: onlyWarn, Acceptable: true, Judge: judgeInvalidIndexes},
	{ID: "template-changed", Title: "template1 has nothing that later databases rely on", Levels: onlyNote, Acceptable: true, Judge: judgeTemplate},
	{ID: "security-labels", Title: "New knows the providers of security labels", Levels: onlyBlock, Judge: judgeLabels},
	{ID: "compression-missing", Title: "New can compress as columns of old are compressed", Levels: onlyBlock, Judge: judgeCompression},
	{ID: "transaction-ids", Title: "Transaction ids that rows hold come before those of new", Levels: onlyWarn, Acceptable: true, Judge: judgeTransactionIDs},
	{ID: "stored-ids", Title: "No row holds what only old can explain", Levels: onlyNote, Acceptable: true, Judge: judgeStoredIDs},
	{ID: "sequence-exhausted", Title: "No sequence is near its end", Levels: onlyWarn, Acceptable: true, Judge: judgeSequences},
}

func judgeUnlogged(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		if d.Inventory == nil {
			continue
		}
		for _, t := range d.Inventory.Tables {
			if t.Persistence == 'u' && t.Kind == 'r' && !t.Excluded {
				// Logged it is published, and needs what every published table needs.
				identity := ""
				switch full := unequal(t) == ""; {
				case t.Identity.Usable:
				case t.Identity.Candidate != "":
					identity = "ALTER TABLE ONLY " + t.SQL() + " REPLICA IDENTITY USING INDEX " + pg.Ident(t.Identity.Candidate) + ";"
				case full:
					identity = "ALTER TABLE ONLY " + t.SQL() + " REPLICA IDENTITY FULL;"
				default:
					identity = fmt.Sprintf("give %s a primary key first: a logged table is published and needs one, and FULL cannot serve, because column %s has no equality", t, unequal(t))
				}
				out = append(out, Finding{
					Level: Block, On: OnOld, Database: d.Name, Object: t.String(),
					Says: fmt.Sprintf("table %s is unlogged: it cannot be published, and is there and empty on new", t),
					Fix: lines(identity, "ALTER TABLE "+t.SQL()+" SET LOGGED;",
						fmt.Sprintf("which rewrites it under an exclusive lock; or, where its rows may be lost: accept: [\"unlogged:%s\"]", t)),
				}.among("%s that are unlogged: they cannot be published, and are there and empty on new", "table", []string{"rows"}, rowCount(t.Rows)).fixedBy(logged))
			}
		}
	}
	return out
}

// unequal is a column of a table without equality; "" is none.
func unequal(t schema.Table) string {
	for _, c := range t.Columns {
		if !c.Equality && c.Generated == 0 {
			return schema.Name(c.Name)
		}
	}
	return ""
}

// logged is the fix of several unlogged tables.
func logged(all []Finding) string {
	own := slices.Clone(all)
	var patterns []string
	for i := range own {
		own[i].Fix = own[i].Fix[:strings.LastIndexByte(own[i].Fix, '\n')]
		if p := fmt.Sprintf("%q", "unlogged:"+own[i].Object[:schemaEnd(own[i].Object)]+".*"); !slices.Contains(patterns, p) {
			patterns = append(patterns, p)
		}
	}
	return lines(fixes(own), "which rewrites each under an exclusive lock; or, where their rows may be lost: accept: ["+strings.Join(patterns, ", ")+"]")
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
		says := fmt.Sprintf("%s: not replicated; prepare fills them on new, and the cutover refreshes them before old is closed and once more after open", some(names, "materialized view", "materialized views"))
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

func judgeTemporary(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		for _, t := range d.things("temporary") {
			out = append(out, Finding{
				Level: Note, On: OnOld, Database: d.Name,
				Says: fmt.Sprintf("%s with temporary tables now: these end with their sessions, which the cutover ends", count(t.N, "session")),
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
			}.among("%s not valid (a CREATE INDEX CONCURRENTLY failed or runs now): pg_dump leaves them out, so that they are not on new", "index", []string{"table"}, t.More))
		}
	}
	return out
}

func judgeLargeObjects(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		if d.Inventory == nil || d.Inventory.LargeObjects <= 0 {
			continue
		}
		says := fmt.Sprintf("%s: logical replication does not carry them; the rows with their OIDs arrive on new, the objects do not", count(d.Inventory.LargeObjects, "large object"))
		var columns []string
		for _, t := range d.things("lo-column") {
			columns = append(columns, t.Name)
		}
		if len(columns) > 0 {
			says += fmt.Sprintf(". They may be named in %s", some(columns, "column", "columns"))
		}
		out = append(out, Finding{
			Level: Block, On: OnOld, Database: d.Name, Says: says,
			Fix: "move them into bytea columns, unlink those that nobody refers to (vacuumlo), or accept large-objects and carry them over yourself inside the cutover",
		})
	}
	return out
}

func judgeForeignTables(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		for _, t := range d.things("foreign-server") {
			level, says := Note, fmt.Sprintf("foreign server %s (%s) has %s: definitions and user mappings are carried over, rows are not, and the new server must reach it", schema.Name(t.Name), t.Detail, count(t.N, "foreign table"))
			fix := "check that the new server can connect and log in to it"
			if t.More != "" {
				says += ". It is at " + t.More
			}
			if here(t) {
				level, fix = Warn, fmt.Sprintf("on new, once prepare has made it: ALTER SERVER %s OPTIONS (SET host '…') with an address that is right from there", pg.Ident(t.Name))
				says += ", which on new's machine is new's machine"
			}
			out = append(out, Finding{Level: level, On: OnOld, Database: d.Name, Object: t.Name, Says: says, Fix: fix})
		}
	}
	return out
}

// here says whether a foreign server is where the server itself is: by a name
// that means another machine on another machine.
func here(t Thing) bool {
	if t.Detail != "postgres_fdw" && t.Detail != "dblink_fdw" {
		return false
	}
	host := ""
	for _, o := range strings.Fields(t.More) {
		if v, ok := strings.CutPrefix(o, "host="); ok {
			host = v
		} else if v, ok := strings.CutPrefix(o, "hostaddr="); ok {
			host = v
		}
	}
	return host == "" || host == "localhost" || host == "::1" || strings.HasPrefix(host, "127.") || strings.HasPrefix(host, "/")
}

// judgeTemplate: what is in template1 is in every database that is made later.
func judgeTemplate(f *Facts) []Finding {
	var has []string
	for _, t := range f.Template {
		kind, user := strings.CutPrefix(t.Kind, "user-")
		if !user && t.Kind != "extension" {
			continue
		}
		has = append(has, fmt.Sprintf("%s %s", kind, t.Name))
		if t.N > 1 {
			has[len(has)-1] = fmt.Sprintf("%d of kind %s (%s, …)", t.N, kind, t.Name)
		}
	}
	if len(has) == 0 {
		return nil
	}
	return []Finding{{
		Level: Note, On: OnOld, Database: "template1", Object: "template1",
		Says: fmt.Sprintf("template1 of old holds %s: it is not moved, and databases that are made on new later will lack them", strings.Join(has, ", ")),
		Fix:  "make the same in template1 of new once prepare is done",
	}}
}

// labelling are the libraries of providers of security labels.
var labelling = map[string]string{"selinux": "sepgsql"}

// judgeLabels: SECURITY LABEL fails where its provider is not loaded.
func judgeLabels(f *Facts) []Finding {
	if !f.New.ok() {
		return nil
	}
	var loaded []string
	for _, setting := range preloads {
		loaded = append(loaded, splitList(f.New.setting(setting))...)
	}
	var out []Finding
	for _, d := range f.Databases {
		for _, t := range d.things("label") {
			library := t.Name
			if l := labelling[t.Name]; l != "" {
				library = l
			}
			if slices.Contains(loaded, library) {
				continue
			}
			out = append(out, Finding{
				Level: Block, On: OnNew, Database: d.Name, Object: t.Name,
				Says: fmt.Sprintf("new does not load provider %s, which has given security labels to %s of old: SECURITY LABEL would fail there", t.Name, count(t.N, "object")),
				Fix:  fmt.Sprintf("add %s to shared_preload_libraries of new and restart the new server, or remove the labels on old (SECURITY LABEL … IS NULL)", library),
			})
		}
	}
	return out
}

// judgeCompression: a server that was built without lz4 makes no column that
// is compressed with it.
func judgeCompression(f *Facts) []Finding {
	if !f.New.ok() {
		return nil
	}
	can, known := f.New.Settings["default_toast_compression"]
	if !known || len(can.Enum) == 0 || slices.Contains(can.Enum, "lz4") {
		return nil
	}
	var out []Finding
	for _, d := range f.Databases {
		for _, t := range d.things("lz4") {
			out = append(out, Finding{
				Level: Block, On: OnNew, Database: d.Name, Object: "lz4",
				Says: fmt.Sprintf("new is built without lz4, with which %s of old compressed: their tables cannot be made there", are(t.N, "column")),
				Fix:  "install a server that is built with lz4, or on old for each of them: ALTER TABLE … ALTER COLUMN … SET COMPRESSION pglz",
			})
		}
	}
	return out
}

// are is count as the subject of a sentence.
func are(n int64, what string) string {
	if n == 1 {
		return "1 " + what + " is"
	}
	return count(n, what) + " are"
}

// wideIDs are types of transaction ids with their epoch, which are compared with
// one another.
var wideIDs = []string{"xid8", "txid_snapshot", "pg_snapshot"}

// judgeTransactionIDs: rows that hold ids of old's transactions, and code that
// compares them with the current one, as an outbox does, go wrong where new counts
// lower.
func judgeTransactionIDs(f *Facts) []Finding {
	if !f.both() || f.Old.NextXID == 0 || f.New.NextXID == 0 || f.New.NextXID > f.Old.NextXID {
		return nil
	}
	t := &Table{Columns: []string{"database", "object", "what"}}
	for _, d := range f.Databases {
		for _, x := range d.things("id-column") {
			if slices.Contains(wideIDs, strings.TrimSuffix(x.Detail, "[]")) {
				t.Rows = append(t.Rows, []string{d.Name, x.Name, "column of type " + x.Detail})
			}
		}
		for _, x := range d.things("id-default") {
			t.Rows = append(t.Rows, []string{d.Name, x.Name, "default " + x.Detail})
		}
		for _, x := range d.things("id-function") {
			t.Rows = append(t.Rows, []string{d.Name, x.Name, "its body asks for the current transaction id"})
		}
	}
	if len(t.Rows) == 0 {
		return nil
	}
	program, data := "pg_resetwal", f.New.setting("data_directory")
	if f.Want.New != nil && f.Want.New.Bin != "" {
		program = f.Want.New.Bin + "/pg_resetwal"
	}
	if data == "" {
		data = "its data directory"
	}
	fix := lines("stop the new server while it is empty, before prepare, run as who owns its data directory, and start it again:",
		fmt.Sprintf("%s -e %d -D '%s'", program, f.Old.NextXID>>32+1, strings.ReplaceAll(data, "'", `'\''`)))
	if f.begun() {
		fix = "crossfade abort, then crossfade check says what to do with the empty new server; or fix after the cutover what compares these ids"
	}
	return []Finding{{
		Level: Warn, On: OnNew, Object: "epoch", Table: t,
		Says: fmt.Sprintf("the next transaction id of new is %d and of old %d: rows that hold ids of old would look as if they came from the future, and who reads only what is older than all running transactions would not see them", f.New.NextXID, f.Old.NextXID),
		Fix:  fix,
	}}
}

// judgeStoredIDs: values that are names for something of old.
func judgeStoredIDs(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		t := &Table{Columns: []string{"column", "type", "on new"}}
		for _, x := range d.things("id-column") {
			kind, means := strings.TrimSuffix(x.Detail, "[]"), ""
			switch {
			case slices.Contains(wideIDs, kind):
				continue
			case kind == "oid":
				means = "the number; objects have other OIDs there"
			case strings.HasPrefix(kind, "reg"):
				means = "the object of that name, which must be there"
			case kind == "pg_lsn":
				means = "a position in old's WAL"
			default:
				means = "the number, of a transaction or row of old"
			}
			t.Rows = append(t.Rows, []string{x.Name, x.Detail, means})
		}
		if len(t.Rows) > 0 {
			out = append(out, Finding{
				Level: Note, On: OnOld, Database: d.Name, Object: "columns", Table: t,
				Says: fmt.Sprintf("the values of %s mean something in old alone, and arrive as they are", count(int64(len(t.Rows)), "column")),
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
		var tables map[uint32]*schema.Table
		for _, s := range d.Inventory.Sequences {
			if tables == nil {
				tables = d.byOID()
			}
			used, by := s.Used(), ""
			narrow := narrowed(&s, tables[s.Table])
			if u := s.Used(); narrow != "" && u > used {
				used, by = u, fmt.Sprintf(" (column %s is %s)", s.OwnedBy, narrow)
			}
			if used < mostUsed {
				continue
			}
			out = append(out, Finding{
				Level: Warn, On: OnOld, Database: d.Name, Object: s.String(),
				Says: fmt.Sprintf("sequence %s has used %.1f %% of its range%s: nextval fails at its end, before the upgrade or after it; the cutover sets it ahead, by no more than half of what is left", s, used*100, by),
				Fix:  widen(s, tables[s.Table]),
			}.among("%s near the end: nextval fails there, before the upgrade or after it; the cutover sets them ahead, by no more than half of what is left", "sequence",
				[]string{"used", "column"}, fmt.Sprintf("%.1f %%", used*100), s.OwnedBy))
		}
	}
	return out
}

// highest are the greatest values of the integer types.
var highest = map[string]int64{"smallint": math.MaxInt16, "integer": math.MaxInt32, "bigint": math.MaxInt64}

// narrowed cuts the range of a sequence that counts up to that of the column
// that owns it, and returns the column's type where it did.
func narrowed(s *schema.Sequence, t *schema.Table) string {
	kind := columnType(*s, t)
	if top, ok := highest[kind]; ok && top < s.Max && s.Increment > 0 {
		s.Max = top
		return kind
	}
	return ""
}

func columnType(s schema.Sequence, t *schema.Table) string {
	if t == nil {
		return ""
	}
	for _, c := range t.Columns {
		if c.Num == s.Column {
			return c.Type
		}
	}
	return ""
}

// widen is how a sequence is given room: its column first, which is rewritten.
func widen(s schema.Sequence, t *schema.Table) string {
	kind, column := columnType(s, t), ""
	if kind == "smallint" || kind == "integer" {
		for _, c := range t.Columns {
			if c.Num == s.Column {
				column = fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s TYPE bigint;", t.SQL(), pg.Ident(c.Name))
			}
		}
	}
	change := fmt.Sprintf("ALTER SEQUENCE %s NO MAXVALUE;", s.SQL())
	switch {
	case s.Increment < 0:
		change = fmt.Sprintf("ALTER SEQUENCE %s NO MINVALUE;", s.SQL())
	case s.Type != "bigint":
		change = fmt.Sprintf("ALTER SEQUENCE %s AS bigint;", s.SQL())
	}
	if s.Type == "bigint" && s.Max == math.MaxInt64 && column == "" && s.Increment > 0 || s.Type == "bigint" && s.Min == math.MinInt64 {
		return "its range is all there is: let it begin again where values are free (ALTER SEQUENCE … RESTART), or hand out something else"
	}
	if column == "" {
		return change
	}
	return lines("rewrite its column under an exclusive lock, where that can be borne:", column, change)
}
