package schema

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// Change is one entry of a schema that is not what it was when it was restored,
// with the statements that bring the applying side to what the serving side has.
type Change struct {
	Key  string // the mark in crossfade.ledger
	What string // "the comment on table public.orders was changed", for a person
	// Drops and Makes are executed in this order, in one transaction with the
	// mark. Both "": the applying side has the entry already, and only the mark
	// is written.
	Drops, Makes string
	Vars         map[string]string // of Makes; secrets
	// Owner is the role whose rights the statements need, because they may call
	// functions for rows that are there: an ordinary role's must not run with the
	// tool's. "": they call none. They are then executed first, and the mark follows.
	Owner string
	hash  string // of the entry as it is now; "": it is gone, and so is its mark
}

// spelledAlike are the types of entries whose text is the same on every major, so
// that a text that differs says that they do.
var spelledAlike = []string{"FUNCTION", "PROCEDURE", "COMMENT", "SECURITY LABEL", "ACL", "DEFAULT ACL", "TRIGGER", "POLICY"}

// ChangeFacts is what two dumps do not say of what has changed.
type ChangeFacts struct {
	// Alter is the statement that gives a table, by its quoted name, the shape that
	// it has on the serving side, and whether it may call functions for rows that are
	// there; "" where there is none.
	Alter func(table string) (sql string, calls bool)
	// Differs tells whether the comparison of the catalogs has found that an object
	// (kind and name as in Difference) differs: majors print some definitions in
	// other words.
	Differs func(kind, name string) bool
}

// Changes compares the entries of the serving side (now) with those of the
// applying side (there), both dumped by the same program, and with the marks of
// what was restored: hashes by Entry.Key, see MarkHashes; "" where an entry was
// restored, but its text then is not known. It returns
// what is to be done before the entries without a mark are restored.
//
// An entry that the applying side has although it has no mark was made there by
// hand, or travelled the other way: it is adopted, and replaced where its text
// differs and it can be replaced. One that has changed since it was restored is
// replaced; one that is gone is dropped. A table whose text differs is altered by
// what Alter says of it; its rows, and what else holds some (sequences, types,
// schemas), are left to the comparison of the catalogs.
func Changes(now, there []Entry, marks map[string]string, o ChangeFacts) []Change {
	have := map[string]Entry{}
	for _, e := range there {
		have[e.Key()] = e
	}
	is, table := map[string]bool{}, map[string]bool{}
	for _, e := range now {
		if e.Type == "TABLE" || e.Type == "MATERIALIZED VIEW" || e.Type == "VIEW" {
			table[pg.Ident(e.Schema, e.Name)] = true
		}
	}
	var dropped, out []Change
	for _, e := range now {
		key := e.Key()
		is[key] = true
		was := marks[key] // "": not marked, or not known
		other, exists := have[key]
		switch {
		case e.Stage == Refresh: // it is no object
		case !exists: // it is restored; or was, and was taken away there, which the comparison says
		case was == e.hash():
		case other.SQL == e.SQL:
			out = append(out, Change{Key: key, hash: e.hash()})
		case e.Type == "TABLE":
			c := Change{Key: key, hash: e.hash(), What: e.Object() + " was altered"}
			var calls bool
			if c.Makes, calls = o.Alter(pg.Ident(e.Schema, e.Name)); calls {
				c.Owner = e.Owner
			}
			out = append(out, c)
		case was == "" && !slices.Contains(spelledAlike, e.Type) && !o.Differs(strings.ToLower(e.Type), Name(e.Schema, e.Name)):
			out = append(out, Change{Key: key, hash: e.hash()})
		default:
			if c, ok := replace(e, other); ok {
				out = append(out, c)
			}
		}
	}
	for _, e := range slices.Backward(there) {
		key := e.Key()
		if _, marked := marks[key]; is[key] || !marked || e.Table != "" && !table[e.Table] {
			continue // what belongs to a table that is gone goes with it
		}
		if drop := e.drop(); drop != "" {
			dropped = append(dropped, Change{Key: key, What: e.Object() + " is gone", Drops: drop})
		}
	}
	return append(dropped, out...)
}

// replace makes of what is there what is now. ok: that can be done without
// touching rows.
func replace(now, there Entry) (c Change, ok bool) {
	c = Change{Key: now.Key(), What: now.Object() + " was changed", Makes: now.SQL, Vars: now.Vars, hash: now.hash()}
	switch now.Type {
	case "FUNCTION", "PROCEDURE", "VIEW":
		word := "CREATE " + now.Type
		if sql, found := strings.CutPrefix(now.SQL, word); found {
			c.Makes = "CREATE OR REPLACE " + now.Type + sql
			return c, true
		}
		return c, false
	case "COMMENT", "SECURITY LABEL", "DEFAULT":
		return c, true
	case "ACL", "DEFAULT ACL", "INDEX", "CONSTRAINT", "FK CONSTRAINT", "CHECK CONSTRAINT", "TRIGGER", "RULE", "POLICY", "EVENT TRIGGER", "USER MAPPING", "CAST", "STATISTICS", "AGGREGATE":
		c.Drops = there.drop()
		if now.Type == "CHECK CONSTRAINT" || now.Type == "FK CONSTRAINT" {
			c.Owner = now.Owner
		}
		return c, c.Drops != ""
	}
	return c, false
}

// drop is the statement that takes an entry away; "" where that would take rows
// away, or where it is not known how. The name is read from the entry's own
// text, as pg_dump quoted it.
func (e Entry) drop() string {
	all := statements(e.SQL)
	text := func(from, to int) string { return e.SQL[from:to] }
	// named is the text of the name that stands after words in a statement.
	named := func(words ...string) string {
		for _, s := range all {
			if n := s.after(words...); n > 0 && n < len(s.tokens) {
				if _, end := s.name(n); end > n {
					return text(s.tokens[n].start, s.tokens[end-1].end)
				}
			}
		}
		return ""
	}
	switch e.Type {
	case "ACL", "DEFAULT ACL":
		return e.revoked(all)
	case "COMMENT":
		for _, s := range all {
			if n := lastIs(s); s.is(0, "COMMENT", "ON") && n > 0 {
				return text(s.start, s.tokens[n].start) + "IS NULL;"
			}
		}
	case "INDEX":
		return "DROP INDEX " + pg.Ident(e.Schema, strings.TrimSpace(e.Name)) + ";"
	case "CONSTRAINT", "FK CONSTRAINT", "CHECK CONSTRAINT":
		if name := named("ADD", "CONSTRAINT"); name != "" && e.Table != "" {
			return "ALTER TABLE " + e.Table + " DROP CONSTRAINT " + name + ";"
		}
	case "TRIGGER", "POLICY", "RULE":
		if name := named(e.Type); name != "" && e.Table != "" {
			return "DROP " + e.Type + " " + name + " ON " + e.Table + ";"
		}
	case "DEFAULT":
		for _, s := range all {
			if n := s.after("SET", "DEFAULT"); n > 0 {
				return text(s.start, s.tokens[n-2].start) + "DROP DEFAULT;"
			}
		}
	case "CAST", "USER MAPPING":
		for _, s := range all {
			end := s.after(")")
			if e.Type == "USER MAPPING" {
				if end = s.after("SERVER"); end > 0 {
					end++
				}
			}
			if s.is(0, "CREATE") && end > 0 {
				return "DROP" + text(s.tokens[0].end, s.tokens[end-1].end) + ";"
			}
		}
	case "FUNCTION", "PROCEDURE", "AGGREGATE", "VIEW", "STATISTICS", "EVENT TRIGGER", "COLLATION", "CONVERSION", "OPERATOR", "DOMAIN",
		"TEXT SEARCH CONFIGURATION", "TEXT SEARCH DICTIONARY", "MATERIALIZED VIEW", "FOREIGN TABLE", "SERVER", "FOREIGN DATA WRAPPER":
		// ALTER FUNCTION public.f(integer) OWNER TO app;
		for _, s := range all {
			if n := s.after("OWNER", "TO"); s.is(0, "ALTER") && n > 2 {
				return "DROP" + text(s.tokens[0].end, s.tokens[n-3].end) + ";"
			}
		}
	}
	return ""
}

// lastIs is the IS of COMMENT ON … IS '…'; -1 where there is none.
func lastIs(s statement) int {
	for n := len(s.tokens) - 1; n > 0; n-- {
		if s.is(n, "IS") {
			return n
		}
	}
	return -1
}

// revoked turns every grant of a privilege entry around, and every revoke, last
// first: it leaves what there is without the entry.
func (e Entry) revoked(all []statement) string {
	var out []string
	for _, s := range slices.Backward(all) {
		verb := 0
		if s.is(0, "ALTER", "DEFAULT", "PRIVILEGES") {
			for verb = 3; verb < len(s.tokens) && !s.is(verb, "GRANT") && !s.is(verb, "REVOKE"); verb++ {
				continue
			}
		}
		flip := map[bool][2]string{true: {"REVOKE", "FROM"}, false: {"GRANT", "TO"}}[s.is(verb, "GRANT")]
		prep := -1
		for n := verb; n < len(s.tokens); n++ {
			if s.is(n, "TO") || s.is(n, "FROM") {
				prep = n
			}
		}
		switch {
		case s.is(0, "SET"), s.is(0, "RESET"): // SET SESSION AUTHORIZATION around a grantor's grants
			continue
		case prep < 0 || !s.is(verb, "GRANT") && !s.is(verb, "REVOKE"):
			continue
		}
		end := s.end
		if n := s.after("WITH", "GRANT", "OPTION"); n > 0 {
			end = s.tokens[n-4].end
		} else if s.is(len(s.tokens)-1, ";") {
			end = s.tokens[len(s.tokens)-2].end
		}
		out = append(out, e.SQL[s.start:s.tokens[verb].start]+flip[0]+e.SQL[s.tokens[verb].end:s.tokens[prep].start]+flip[1]+e.SQL[s.tokens[prep].end:end]+";")
	}
	return strings.Join(out, "\n")
}

// Effects are what is executed for the change: its mark with it, in one
// transaction, apart from statements that an owner executes.
func (c Change) Effects(on, database string) []flow.Effect {
	var sql []string
	for _, q := range []string{c.Drops, c.Makes} {
		if q != "" {
			sql = append(sql, q)
		}
	}
	of := func(sql ...string) flow.Effect {
		return flow.Effect{On: on, Database: database, SQL: strings.Join(sql, "\n")}
	}
	if c.Owner == "" {
		return []flow.Effect{of(append([]string{c.mark() + ";"}, sql...)...)}
	}
	return []flow.Effect{of(append(sql, "-- with the rights of "+c.Owner)...), of(c.mark())}
}

// mark is the statement that writes down what the entry is by now.
func (c Change) mark() string {
	mark := "DELETE FROM " + Own + ".ledger WHERE key = " + pg.Literal(c.Key)
	if c.hash != "" {
		mark = fmt.Sprintf("INSERT INTO %s.ledger (key, value) VALUES (%s, '{\"sha256\": \"%s\"}') ON CONFLICT (key) DO UPDATE SET value = excluded.value", Own, pg.Literal(c.Key), c.hash)
	}
	return mark
}

// Touches reports whether the change does more than to write its mark.
func (c Change) Touches() bool { return c.Drops != "" || c.Makes != "" }

// Apply executes a change in a Session of the applying side. as opens one with the
// rights of a role; it may be nil where the change has no Owner.
func (c Change) Apply(ctx context.Context, conn *pgx.Conn, as func(role string) (*pgx.Conn, error)) error {
	for i, e := range c.Effects("", "") {
		if len(c.Vars) > 0 {
			e = e.Fill(c.Vars)
		}
		err := func() error {
			if c.Owner == "" || i > 0 {
				return pg.Exec(ctx, conn, e.SQL)
			}
			owner, err := as(c.Owner)
			if err != nil {
				return err
			}
			defer pg.Leave(owner)
			return pg.Exec(ctx, owner, e.SQL)
		}()
		if err == nil {
			continue
		}
		hint := "nothing was changed; make the same change on both sides, then run crossfade prepare again"
		if i > 0 {
			hint = "the change itself was made; run crossfade prepare again, which writes it down"
		}
		return &pg.Error{Doing: "take along that " + c.What, Object: c.What, Err: err, On: "database " + conn.Config().Database, Hint: hint}
	}
	return nil
}

// ofTable are the types of entries whose key begins with the name of their table.
var ofTable = []string{"CONSTRAINT", "FK CONSTRAINT", "CHECK CONSTRAINT", "TRIGGER", "RULE", "POLICY", "DEFAULT"}

// RenameMarks is the statement that gives the marks of what belongs to a table the
// table's new name, so that what is dropped later is still known to have been
// restored.
func RenameMarks(fromSchema, from, toSchema, to string) string {
	types := make([]string, len(ofTable))
	for i, t := range ofTable {
		types[i] = pg.Literal("toc " + t + " ")
	}
	was, is := pg.Literal(fromSchema+"."+from+" "), pg.Literal(toSchema+"."+to+" ")
	return "UPDATE " + Own + ".ledger SET key = t || " + is + " || substr(key, length(t || " + was + ") + 1) FROM unnest(ARRAY[" + strings.Join(types, ", ") + "]) t WHERE starts_with(key, t || " + was + ")"
}

// MarkHashes reads the hash of every restored entry by its key; none where there
// is no ledger.
func MarkHashes(ctx context.Context, conn *pgx.Conn) (map[string]string, error) {
	rows, err := conn.Query(ctx, `SELECT key, coalesce(value ->> 'sha256', '') FROM crossfade.ledger WHERE starts_with(key, 'toc ')`)
	if err == nil {
		var key, hash string
		marks := map[string]string{}
		_, err = pgx.ForEachRow(rows, []any{&key, &hash}, func() error { marks[key] = hash; return nil })
		if err == nil {
			return marks, nil
		}
	}
	switch pg.SQLState(err) {
	case undefinedTable, undefinedSchema:
		return nil, nil
	}
	return nil, fmt.Errorf("read the ledger: %w", err)
}
