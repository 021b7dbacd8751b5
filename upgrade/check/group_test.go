package check

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"crossfade/schema"
)

// keyless are facts of databases with tables that have no key.
func keyless(databases ...string) *Facts {
	f := &Facts{Old: &Server{Side: OnOld}, New: &Server{Side: OnNew}}
	for _, name := range databases {
		inv := &schema.Inventory{}
		for i := range 499 {
			inv.Tables = append(inv.Tables, schema.Table{
				OID: uint32(i + 1), Schema: "api", Name: fmt.Sprintf("t%03d", i), Kind: 'r', Persistence: 'p',
				Identity: schema.Identity{Kind: 'd', Why: "it has no primary key"}, Columns: []schema.Column{{Name: "a", Type: "integer", Equality: true}},
			})
		}
		f.Databases = append(f.Databases, DatabaseFacts{Name: name, Inventory: inv, Old: &Catalog{Name: name}})
	}
	return f
}

// TestGroup: findings of a kind are one, with a row for each object and one fix.
// What is accepted by a pattern stands apart, and a single one is as it was.
func TestGroup(t *testing.T) {
	f := keyless("shop", "side")
	judge := func() []Finding {
		found := judgeIdentity(f)
		for i := range found {
			found[i].ID, found[i].Accepted = "replica-identity", f.Want.Accepts != nil && f.Want.Accepts("replica-identity", found[i].Object)
		}
		return Group(found)
	}
	all := judge()
	if len(all) != 1 {
		t.Fatalf("%d findings", len(all))
	}
	one := all[0]
	if one.Object != "" || one.Database != "" || len(one.Objects) != 998 || len(one.Table.Rows) != 998 || !slices.Equal(one.Table.Columns, []string{"database", "table", "why"}) {
		t.Errorf("%q %q %d objects, %v", one.Object, one.Database, len(one.Objects), one.Table.Columns)
	}
	if !strings.Contains(one.Fix, `identity: {"api.*": full}`) || strings.Count(one.Fix, `REPLICA IDENTITY FULL;`) != 998 || strings.Count(one.Fix, `\connect "side"`) != 1 {
		t.Errorf("the fix: %.600s", one.Fix)
	}
	if !strings.HasPrefix(one.Says, "998 tables cannot be published") {
		t.Errorf("says %s", one.Says)
	}
	f.Want.Accepts = func(id, object string) bool { return id == "replica-identity" && strings.HasPrefix(object, "api.t00") }
	if all = judge(); len(all) != 2 || len(all[0].Objects) != 20 || !all[0].Accepted || all[1].Accepted {
		t.Errorf("accepted in part: %d findings", len(all))
	}
	f.Want.Accepts = nil
	f.Databases = f.Databases[:1]
	f.Databases[0].Inventory.Tables = f.Databases[0].Inventory.Tables[:1]
	if all = judge(); len(all) != 1 || all[0].Object != "api.t000" || !slices.Equal(all[0].Objects, []string{"api.t000"}) || all[0].Table != nil || all[0].Database != "shop" {
		t.Errorf("a single one: %+v", all)
	}
	// What the pattern orders is no finding any more.
	f.Databases[0].Want.Ordered = func(schema.Table) string { return "full" }
	if all = judge(); len(all) != 0 {
		t.Errorf("ordered by a pattern: %+v", all)
	}
}

// TestGroupIndexes: 499 tables with a unique index that can serve and others without
// one are two findings, whose fixes are one short line that stands for all of them.
func TestGroupIndexes(t *testing.T) {
	f := keyless("shop")
	tables := f.Databases[0].Inventory.Tables
	for i := range tables {
		if i%3 > 0 {
			tables[i].Identity.Candidate = fmt.Sprintf("t%03d_k", i)
		}
		if i == 0 {
			tables[i].Schema = "bare"
		}
	}
	found := judgeIdentity(f)
	for i := range found {
		found[i].ID = "replica-identity"
	}
	all := Group(found)
	if len(all) != 2 {
		t.Fatalf("%d findings", len(all))
	}
	for i, patterns := range []string{`identity: {"bare.*": full, "api.*": index}`, `identity: {"api.*": index}`} {
		var words []string
		for line := range strings.Lines(all[i].Fix) {
			if line = strings.TrimSpace(line); !strings.HasSuffix(line, ";") {
				words = append(words, line)
			}
		}
		if len(words) != 3 || words[1] != patterns || !strings.Contains(words[0], "index is the index that can serve") {
			t.Errorf("the fix: %q", words)
		}
		if n := strings.Count(all[i].Fix, "REPLICA IDENTITY"); n != len(all[i].Objects) {
			t.Errorf("%d statements for %d tables", n, len(all[i].Objects))
		}
	}
}

// TestUnloggedWithoutKey: the fix of an unlogged table is no reason for the next block.
func TestUnloggedWithoutKey(t *testing.T) {
	f := keyless("shop")
	tables := f.Databases[0].Inventory.Tables[:3]
	for i := range tables {
		tables[i].Persistence = 'u'
	}
	tables[1].Identity.Candidate = "t_key"
	tables[2].Columns[0].Equality = false
	f.Databases[0].Inventory.Tables = tables
	for i, want := range []string{"REPLICA IDENTITY FULL;\nALTER", "REPLICA IDENTITY USING INDEX \"t_key\";\nALTER", "primary key first"} {
		if got := judgeUnlogged(f)[i].Fix; !strings.Contains(got, want) {
			t.Errorf("%s: %s", tables[i].Name, got)
		}
	}
	if all := Group(judgeUnlogged(f)); len(all) != 1 || !strings.Contains(all[0].Fix, `accept: ["unlogged:api.*"]`) {
		t.Errorf("%+v", all)
	}
}

// TestMigrationTools: Rails has two tables and one note; Ecto is not Rails.
func TestMigrationTools(t *testing.T) {
	table := func(name string, columns ...string) schema.Table {
		x := schema.Table{Schema: "public", Name: name, Kind: 'r', Persistence: 'p'}
		for _, c := range columns {
			name, kind, _ := strings.Cut(c, " ")
			x.Columns = append(x.Columns, schema.Column{Name: name, Type: kind})
		}
		return x
	}
	rails := []schema.Table{table("ar_internal_metadata", "key text"), table("schema_migrations", "version character varying")}
	for _, c := range []struct {
		tables []schema.Table
		tool   string
	}{
		{rails, "Rails"},
		{[]schema.Table{table("schema_migrations", "version bigint", "inserted_at timestamp(0) without time zone")}, "Ecto"},
		{[]schema.Table{table("schema_migrations", "version bigint", "dirty boolean")}, "golang-migrate"},
		{[]schema.Table{table("schema_migrations", "version character varying(14)")}, "a migration tool"}, // of dbmate and of soda
	} {
		f := keyless("shop")
		f.Databases[0].Inventory.Tables = c.tables
		shows := "shows"
		if len(c.tables) > 1 {
			shows = "show"
		}
		if all := judgeDDL(f); len(all) != 1 || !strings.Contains(all[0].Says, " "+shows+" that "+c.tool+" changes") {
			t.Errorf("%s: %+v", c.tool, all)
		}
	}
}

// TestOneOfAKind: two objects of a kind of which a large schema has many are one
// finding, with both in its table and what fixes both.
func TestOneOfAKind(t *testing.T) {
	two := func(kind string, about func(n string) Thing) func(f *Facts) {
		return func(f *Facts) {
			for _, n := range []string{"one", "two"} {
				x := about(n)
				x.Kind = kind
				f.thing(x)
			}
		}
	}
	owned := func(f *Facts) {
		for _, n := range []string{"one", "two"} {
			x := full(0, n, 100, 0)
			x.OID = uint32(len(f.Databases[0].Inventory.Tables) + 100)
			f.table(x)
		}
	}
	for _, c := range []struct {
		id         string
		make       func(f *Facts)
		statements int // of the fix
	}{
		{"unqualified-names", two("unqualified", func(n string) Thing {
			return Thing{Name: "public." + n + "(text)", Detail: "index i\x01rates", More: "public", N: 1}
		}), 2},
		{"foreign-key-disabled", two("disabled-fk", func(n string) Thing {
			return Thing{Name: "public." + n, Detail: "k", More: "FOREIGN KEY (a) REFERENCES b"}
		}), 2},
		{"enum-hash-partitions", two("enum-hash", func(n string) Thing { return Thing{Name: "public." + n, Detail: "m", More: "mood"} }), 0},
		{"table-oids", two("oids", func(n string) Thing { return Thing{Name: "public." + n} }), 0},
		{"removed-in-bodies", two("body", func(n string) Thing { return Thing{Name: "public." + n + "()", Detail: "pg_start_backup"} }), 0},
		{"not-immutable", two("mutable", func(n string) Thing { return Thing{Name: "index public." + n} }), 0},
		{"event-triggers", two("event-trigger", func(n string) Thing { return Thing{Name: n, Detail: "O", More: "f"} }), 0},
		{"publications", two("publication", func(n string) Thing { return Thing{Name: n} }), 0},
		{"replica-identity-full", owned, 0},
	} {
		f := clean()
		c.make(f)
		var of []Finding
		for _, x := range Group(Judge(f)) {
			if x.ID == c.id {
				of = append(of, x)
			}
		}
		if len(of) != 1 || len(of[0].Objects) != 2 || of[0].Table == nil || len(of[0].Table.Rows) != 2 || !strings.Contains(of[0].Says, "2 ") {
			t.Errorf("%s: %d findings: %+v", c.id, len(of), of)
			continue
		}
		statements, words := 0, 0
		for line := range strings.Lines(of[0].Fix) {
			if strings.HasSuffix(strings.TrimSpace(line), ";") {
				statements++
			} else {
				words++
			}
		}
		if statements != c.statements || c.id != "table-oids" && words > 1 {
			t.Errorf("%s: the fix:\n%s", c.id, of[0].Fix)
		}
	}
}
