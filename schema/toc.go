package schema

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"crossfade/upgrade/pg"
)

// Section is where pg_dump puts an entry.
type Section byte

// Sections of an archive; data never occurs, only schemas are dumped.
const (
	PreData Section = iota
	PostData
)

// Stage says when an entry is restored. Stages run in this order, entries of a
// stage in the order of Dump.
type Stage int

// The stages.
const (
	// Before: what rows need to be loaded, and all privileges on it.
	Before Stage = iota
	// Identify: primary keys and what REPLICA IDENTITY USING INDEX names; must
	// exist before anything is applied.
	Identify
	// Index: other indexes, unique and exclusion constraints, extended
	// statistics. Independent of each other table by table (EntriesFor), but
	// those of no table (partitions' indexes are attached to their roots')
	// come when all tables have theirs.
	Index
	// Foreign: foreign keys, and checks that were added NOT VALID or apart.
	Foreign
	// Late: rules, triggers, policies, views and materialized views that need
	// a key, default privileges, event triggers.
	Late
	// Refresh: filling materialized views, in dependency order.
	Refresh
)

var stageNames = [...]string{"before", "identity", "index", "foreign", "late", "refresh"}

func (s Stage) String() string {
	if int(s) < len(stageNames) {
		return stageNames[s]
	}
	return "stage " + strconv.Itoa(int(s))
}

// Entry is one entry of the table of contents of a dumped database.
type Entry struct {
	ID      int // pg_dump's; 0 where the tool added the entry
	Section Section
	// Type is pg_dump's: TABLE, FK CONSTRAINT, …; Name and Schema as pg_dump
	// prints them ("orders orders_pkey" for a constraint, "f(integer)" for a
	// function, line ends replaced by blanks); Schema is "" for what has none.
	Type, Schema, Name, Owner string
	// Table is the table that an index, constraint, trigger, rule or policy
	// belongs to, qualified and quoted; "" for other entries and for INDEX
	// ATTACH. References is the other table of a foreign key.
	Table, References string
	// SQL is sent as one message, one transaction; never cut apart. Vars fill
	// its $names when it is sent: secrets of user mappings, never shown.
	SQL   string
	Vars  map[string]string
	Stage Stage
	// Borrowed is the function of a privilege on what the database did not make;
	// $arguments in SQL are those that new's has. Else nil.
	Borrowed *Borrowed

	twin int // counts entries of the same type and name
}

// Object is the entry as an error names it: "index shop.orders_open".
func (e Entry) Object() string {
	name := unquoted(e.Name)
	if e.Schema != "" {
		name = e.Schema + "." + name
	}
	return strings.ToLower(e.Type) + " " + name
}

// Key is the entry's mark in crossfade.ledger. It is the same for the same
// object in every dump of the database, whatever became of it since.
func (e Entry) Key() string {
	k := "toc " + e.Type + " " + e.Schema + "." + e.Name
	switch {
	case strings.HasPrefix(e.Type, "OPERATOR"): // its arguments are not in its name
		k += " " + e.hash()[:16]
	case e.twin > 0:
		k += " #" + strconv.Itoa(e.twin+1)
	}
	return k
}

// Is reports whether hash, of a mark, is that of the entry's text.
func (e Entry) Is(hash string) bool { return e.hash() == hash }

// hash is of the text without the replica identity, which the upgrade changes for
// its own time (identity: in the runbook).
func (e Entry) hash() string {
	sql := e.SQL
	if e.Type == "TABLE" {
		sql = strings.TrimSpace(identityOf.ReplaceAllString(sql, "\n"))
	}
	h := sha256.Sum256([]byte(sql))
	return hex.EncodeToString(h[:])
}

var identityOf = regexp.MustCompile(`\n*\nALTER TABLE (ONLY )?.* REPLICA IDENTITY (FULL|NOTHING);\n`)

// Entries selects the entries of stages, in order.
func Entries(all []Entry, stages ...Stage) []Entry {
	var out []Entry
	for _, e := range all {
		if slices.Contains(stages, e.Stage) {
			out = append(out, e)
		}
	}
	return out
}

// EntriesFor selects the entries of a stage that belong to table (Table.SQL);
// "" selects those that belong to none.
func EntriesFor(all []Entry, stage Stage, table string) []Entry {
	var out []Entry
	for _, e := range all {
		if e.Stage == stage && e.Table == table {
			out = append(out, e)
		}
	}
	return out
}

// listed is a line of pg_restore -l.
type listed struct {
	id   int
	rest string // "TYPE schema name owner", as the line has it
}

func parseList(list string) ([]listed, error) {
	var out []listed
	sc := bufio.NewScanner(strings.NewReader(list))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		line := sc.Text()
		if line == "" || line[0] == ';' {
			continue
		}
		id, rest, ok := strings.Cut(line, "; ")
		n, err := strconv.Atoi(id)
		parts := strings.SplitN(rest, " ", 3) // catalog's OID, object's OID, the rest
		if !ok || err != nil || len(parts) != 3 {
			return nil, fmt.Errorf("read the list of the archive: cannot make sense of %q", line)
		}
		out = append(out, listed{id: n, rest: parts[2]})
	}
	return out, sc.Err()
}

// header is what stands above an entry in plain SQL.
type header struct{ kind, schema, name, owner string }

// readings are the ways to read "Name: a; Type: b; Schema: c; Owner: d" where
// names may themselves hold such text.
func readings(line string) []header {
	var out []header
	for _, t := range indexes(line, "; Type: ") {
		behind := line[t+len("; Type: "):]
		kind, rest, ok := strings.Cut(behind, "; Schema: ")
		if !ok || strings.Trim(kind, "ABCDEFGHIJKLMNOPQRSTUVWXYZ ") != "" {
			continue
		}
		for _, o := range indexes(rest, "; Owner: ") {
			h := header{kind: kind, schema: rest[:o], name: line[:t], owner: rest[o+len("; Owner: "):]}
			out = append(out, h)
			for _, s := range indexes(h.owner, "; Tablespace: ") {
				h := h
				h.owner = h.owner[:s]
				out = append(out, h)
			}
		}
	}
	return out
}

func indexes(s, sub string) []int {
	var out []int
	for from := 0; ; {
		i := strings.Index(s[from:], sub)
		if i < 0 {
			return out
		}
		out = append(out, from+i)
		from += i + 1
	}
}

const (
	headerMark = "-- Name: "
	endMark    = "-- PostgreSQL database dump complete"
)

// cut cuts the plain SQL of an archive into entries, in the order of the text,
// and returns what stands in front of the first one too.
// A header counts only outside of strings, quoted names and nested comments,
// and only where it is one that the archive's list still expects, so that no
// function body can pass for one.
func cut(sql string, list []listed) (head string, entries []Entry, err error) {
	expected := map[string][]int{} // rest → ids in order
	for _, l := range list {
		expected[l.rest] = append(expected[l.rest], l.id)
	}
	begin := 0
	ends := func(end int) {
		if len(entries) == 0 {
			head = sql[:end]
		} else {
			entries[len(entries)-1].SQL = sql[begin:end]
		}
	}
	lex(sql, func(t token) bool {
		if t.kind != comment || t.start > 0 && sql[t.start-1] != '\n' {
			return true
		}
		if t.text == endMark {
			sql = sql[:t.start]
			return false
		}
		line, ok := strings.CutPrefix(t.text, headerMark)
		if !ok {
			return true
		}
		e, ok := take(line, expected)
		if !ok {
			err = fmt.Errorf("the archive has an entry that its list has not: %q", line)
			return false
		}
		ends(t.start)
		entries = append(entries, e)
		begin = t.end
		return true
	})
	if err != nil {
		return "", nil, err
	}
	ends(len(sql))
	for _, l := range list {
		if len(expected[l.rest]) > 0 {
			return "", nil, fmt.Errorf("the archive lists an entry that its SQL has not: %q", l.rest)
		}
	}
	return head, entries, nil
}

// take finds the expected entry that a header names.
func take(line string, expected map[string][]int) (Entry, bool) {
	for _, h := range readings(line) {
		owners := []string{h.owner}
		if h.owner == "-" {
			owners = append(owners, "")
		}
		for _, owner := range owners {
			rest := h.kind + " " + h.schema + " " + h.name + " " + owner
			ids := expected[rest]
			if len(ids) == 0 {
				continue
			}
			expected[rest] = ids[1:]
			e := Entry{ID: ids[0], Type: h.kind, Schema: h.schema, Name: h.name, Owner: owner}
			if e.Schema == "-" {
				e.Schema = ""
			}
			return e, true
		}
	}
	return Entry{}, false
}

// settle takes the SET statements of pg_dump out of the entries' text and puts
// what is in force in front of those entries that are touched by it, because
// each may run in another session; and removes what new would refuse.
func settle(head string, entries []Entry) {
	tablespace, method := "", ""
	inForce := func(sql string, s statement) bool {
		switch {
		case s.is(0, "SET", "default_tablespace"):
			tablespace = "SET LOCAL" + sql[s.tokens[0].end:s.end] + "\n"
		case s.is(0, "SET", "default_table_access_method"):
			method = "SET LOCAL" + sql[s.tokens[0].end:s.end] + "\n"
		default:
			return false
		}
		return true
	}
	for _, s := range statements(head) {
		inForce(head, s)
	}
	for i := range entries {
		e := &entries[i]
		before := ""
		switch e.Type {
		case "TABLE", "MATERIALIZED VIEW":
			before = tablespace + method
		case "INDEX", "CONSTRAINT":
			before = tablespace
		}
		var b strings.Builder
		from := 0
		for _, s := range statements(e.SQL) {
			with := ""
			if !inForce(e.SQL, s) {
				var ok bool
				if with, ok = withoutAttver(e.SQL, s); !ok {
					continue
				}
			}
			b.WriteString(e.SQL[from:s.start])
			b.WriteString(with)
			from = s.end
		}
		b.WriteString(e.SQL[from:])
		e.SQL = tidy(b.String())
		if before != "" && e.SQL != "" {
			e.SQL = before + e.SQL
		}
	}
}

// tidy takes away the comment lines that frame headers and empty lines at both
// ends.
func tidy(sql string) string {
	for {
		s := strings.TrimSpace(sql)
		if s == "--" {
			return ""
		}
		s = strings.TrimPrefix(s, "--\n")
		s = strings.TrimSuffix(s, "\n--")
		s = strings.TrimPrefix(s, "-- *not* creating schema, since initdb creates it\n")
		if s == sql {
			return s
		}
		sql = s
	}
}

// attver is a column option that servers of November 2026 store by themselves
// and that an older pg_dump writes out; no server takes it (pitfall 71).
const attver = "pg_attver"

// withoutAttver returns what is left of an ALTER … ALTER COLUMN … SET (…) that
// sets pg_attver: "" where it sets nothing else. false: the statement is
// another one.
func withoutAttver(sql string, s statement) (string, bool) {
	if !s.is(0, "ALTER") || s.after(attver) < 0 {
		return "", false
	}
	open := s.after("SET", "(")
	if open < 0 || s.after("ALTER", "COLUMN") < 0 {
		return "", false
	}
	var keep []string
	n := open
	for n < len(s.tokens) && !s.is(n, ")") {
		first := n
		for n < len(s.tokens) && !s.is(n, ",") && !s.is(n, ")") {
			n++
		}
		if !s.is(first, attver) {
			keep = append(keep, sql[s.tokens[first].start:s.tokens[n-1].end])
		}
		if s.is(n, ",") {
			n++
		}
	}
	if len(keep) == 0 {
		return "", true
	}
	return sql[s.start:s.tokens[open-1].end] + strings.Join(keep, ", ") + ");", true
}

// stage puts every entry into its stage. order is the list's order, in which
// comments, labels and privileges stand after what they are about; pre are
// the ids of the pre-data section.
func stage(entries []Entry, order []listed, pre map[int]bool) {
	at := make(map[int]*Entry, len(entries))
	for i := range entries {
		at[entries[i].ID] = &entries[i]
	}
	late := map[string]bool{} // relations that come late, or that are no tables
	var about *Entry
	for _, l := range order {
		e := at[l.id]
		if !pre[l.id] {
			e.Section = PostData
		}
		switch e.Type {
		case "COMMENT", "SECURITY LABEL", "ACL":
			if about != nil {
				e.Stage, e.Table = about.Stage, about.Table
			}
			continue
		}
		e.place()
		if e.Type == "MATERIALIZED VIEW" || e.Section == PostData && (e.Type == "VIEW" || e.Type == "TABLE") {
			s := statements(e.SQL)
			for _, st := range s {
				if n := st.after("VIEW"); n > 0 && st.is(0, "CREATE") {
					parts, _ := st.name(n)
					late[pg.Ident(parts...)] = true
				}
			}
		}
		if e.Table != "" && late[e.Table] {
			e.Stage = Late
		}
		about = e
	}
	twins := map[string]int{}
	for i := range entries {
		k := entries[i].Key()
		entries[i].twin = twins[k]
		twins[k]++
	}
}

// place decides the stage and the table of an entry that stands for itself.
func (e *Entry) place() {
	if e.Section == PreData {
		e.Stage = Before
		if e.Type == "USER MAPPING" {
			e.hide()
		}
		return
	}
	e.Stage = Late
	all := statements(e.SQL)
	tableAfter := func(words ...string) {
		for _, s := range all {
			if n := s.after(words...); n > 0 {
				if s.is(n, "ONLY") {
					n++
				}
				if parts, _ := s.name(n); len(parts) > 0 {
					e.Table = pg.Ident(parts...)
					return
				}
			}
		}
	}
	has := func(words ...string) bool {
		return slices.ContainsFunc(all, func(s statement) bool { return s.after(words...) > 0 })
	}
	switch e.Type {
	case "CONSTRAINT":
		tableAfter("ALTER", "TABLE")
		e.Stage = Index
		switch {
		case has("PRIMARY", "KEY"), has("REPLICA", "IDENTITY"):
			e.Stage = Identify
		case has("NOT", "VALID"):
			e.Stage = Foreign
		}
	case "INDEX":
		tableAfter("ON")
		e.Stage = Index
		if has("REPLICA", "IDENTITY") {
			e.Stage = Identify
		}
	case "INDEX ATTACH":
		e.Stage = Index
	case "STATISTICS":
		tableAfter("FROM")
		e.Stage = Index
	case "FK CONSTRAINT":
		tableAfter("REFERENCES")
		e.References = e.Table
		tableAfter("ALTER", "TABLE")
		e.Stage = Foreign
	case "CHECK CONSTRAINT":
		tableAfter("ALTER", "TABLE")
		e.Stage = Foreign
	case "RULE":
		tableAfter("TO")
	case "TRIGGER":
		if tableAfter("ON"); e.Table == "" {
			tableAfter("ALTER", "TABLE")
		}
		e.SQL += keepDisabled(e.SQL, all)
	case "POLICY":
		tableAfter("ON")
	case "ROW SECURITY":
		tableAfter("ALTER", "TABLE")
	case "EVENT TRIGGER":
		e.SQL += keepDisabled(e.SQL, all)
	}
}

// hide puts $names in place of a user mapping's options, but for the user.
func (e *Entry) hide() {
	var b strings.Builder
	from := 0
	e.Vars = map[string]string{}
	for _, s := range statements(e.SQL) {
		n := s.after("OPTIONS", "(")
		for ; n > 0 && n+1 < len(s.tokens); n++ {
			if s.tokens[n+1].kind != str || s.tokens[n].text == "user" {
				continue
			}
			value := s.tokens[n+1]
			name := secret + "_" + letters(len(e.Vars))
			e.Vars[name] = e.SQL[value.start:value.end]
			b.WriteString(e.SQL[from:value.start] + "$" + name)
			from = value.end
		}
	}
	e.SQL = b.String() + e.SQL[from:]
}

// letters counts a, b, … z, ba, bb …: a $name holds no digits.
func letters(n int) string {
	s := string(rune('a' + n%26))
	if n >= 26 {
		return letters(n/26) + s
	}
	return s
}

// keepDisabled is the statement that disables a trigger or event trigger which
// the SQL enables ALWAYS or for REPLICA, in the same transaction: it must not
// fire for a single applied row. FiringTrigger.Restore puts it back when the
// side is opened.
func keepDisabled(sql string, all []statement) string {
	for _, s := range all {
		for n := range s.tokens {
			always, replica := s.is(n, "ENABLE", "ALWAYS"), s.is(n, "ENABLE", "REPLICA")
			if !s.is(0, "ALTER") || !always && !replica {
				continue
			}
			return "\n\n" + sql[s.start:s.tokens[n].start] + "DISABLE" + sql[s.tokens[n+1].end:s.end]
		}
	}
	return ""
}
