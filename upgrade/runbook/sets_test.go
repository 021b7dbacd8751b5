package runbook

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPattern(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, schema, table string
		want                   bool
	}{
		{"*", "any", "thing", true},
		{"*.*", "any", "thing", true},
		{"public.orders", "public", "orders", true},
		{"public.orders", "public", "orders2", false},
		{"public.orders", "Public", "orders", false},
		{"public.Orders", "public", "Orders", true},
		{"public.Orders", "public", "orders", false},
		{"public.o*s", "public", "orders", true},
		{"public.o*s", "public", "os", true},
		{"public.*o*r*", "public", "xxorxr", true},
		{"public.*ab", "public", "aab", true},
		{"public.a*b*c", "public", "abcb", false},
		{"public.o?", "public", "oü", true},
		{"public.o?", "public", "o", false},
		{`public."o*"`, "public", "o*", true},
		{`public."o*"`, "public", "orders", false},
		{`"Scho ol"."Ta ""b""le.x"`, "Scho ol", `Ta "b"le.x`, true},
		{`pub"lic".or"de"rs`, "public", "orders", true},
		{`public."a"*`, "public", "abc", true},
		{"*.log", "audit", "log", true},
		{"*.log", "audit", "logs", false},
	} {
		p, err := ParsePattern(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		if got := p.Match(c.schema, c.table); got != c.want {
			t.Errorf("%s matches %s.%s: %v, want %v", c.pattern, c.schema, c.table, got, c.want)
		}
		if p.String() != c.pattern {
			t.Errorf("%s prints as %s", c.pattern, p)
		}
		if name, ok := p.Exact(); ok && name != (TableName{c.schema, c.table}) && c.want {
			t.Errorf("%s is exactly %v, and matches %s.%s", c.pattern, name, c.schema, c.table)
		}
		if p.Everything() != (c.pattern == "*" || c.pattern == "*.*") {
			t.Errorf("%s is everything: %v", c.pattern, p.Everything())
		}
	}
	// A table's name is a pattern for it, however odd.
	for _, name := range []TableName{{"public", "orders"}, {"Public", "a.b"}, {"a b", `q"q`}, {"1a", "*?"}, {"ü", "a$b"}, {"", ""}} {
		p, err := ParsePattern(name.String())
		if name.Name == "" {
			if err == nil {
				t.Errorf("%s is a pattern", name)
			}
			continue
		}
		if exact, ok := p.Exact(); err != nil || !ok || exact != name || !p.Match(name.Schema, name.Name) {
			t.Errorf("%s: %v, exact %v %v", name, err, exact, ok)
		}
	}
	if _, err := ParsePattern("a.\x00"); err == nil {
		t.Error("a NUL is in a pattern")
	}
}

// assigned is an assignment as text.
func assigned(a Assignment) string {
	var b strings.Builder
	for _, s := range a.Sets {
		fmt.Fprintf(&b, "%s: %v\n", s.Name, s.Tables)
	}
	fmt.Fprintf(&b, "excluded: %v\n", a.Excluded)
	for _, p := range a.Problems {
		fmt.Fprintln(&b, p)
	}
	return b.String()
}

func TestAssign(t *testing.T) {
	t.Parallel()
	tables := []TableName{
		{"public", "orders"},
		{"public", "order_lines"},
		{"public", "Log"},
		{"sales", "orders"},
		{"audit", "trail"},
	}
	for _, c := range []struct{ name, db, want string }{
		{"own patterns win over *", `
    exclude: ["audit.*"]
    sets:
      - {name: orders, tables: ["*.orders", public.order_lines]}
      - {name: rest, tables: ["*"]}`, `orders: [public.orders public.order_lines sales.orders]
rest: [public."Log"]
excluded: [audit.trail]
`},
		{"no sets", ``, `main: [public.orders public.order_lines public."Log" sales.orders audit.trail]
excluded: []
`},
		{"in two sets", `
    sets:
      - {name: a, tables: ["public.order*"]}
      - {name: b, tables: ["*.orders", "*.o*"]}
      - {name: c, tables: ["*"]}`, `a: [public.orders public.order_lines]
b: [sales.orders]
c: [public."Log" audit.trail]
excluded: []
rb.yaml:8:28: tables: *.orders in set b: public.orders is in set a already, by public.order* in line 7; every table is in exactly one set
rb.yaml:8:40: tables: *.o* in set b: public.orders, public.order_lines are in set a already, by public.order* in line 7; every table is in exactly one set
`},
		{"nothing matches", `
    exclude: ["audit.*", audit.trial]
    identity: {public.log: full}
    sets:
      - {name: a, tables: ["*.*s", public.order, audit.t*, zzz.zzzzzz]}
      - {name: b, tables: [public.Log, public.LOG]}
      - {name: c, tables: ["*"]}`, `a: [public.orders public.order_lines sales.orders]
b: [public."Log"]
c: []
excluded: [audit.trail]
rb.yaml:6:26: warning: exclude: audit.trial matches no published table of shop; did you mean audit.trail?
rb.yaml:7:16: identity: public.log is no published table of shop; did you mean public."Log"?
rb.yaml:9:36: tables: public.order in set a matches no published table of shop; did you mean public.orders?
rb.yaml:9:50: tables: audit.t* in set a matches only excluded tables of shop; leave one of the two out
rb.yaml:9:60: tables: zzz.zzzzzz in set a matches no published table of shop; upper and lower case count, and the schema is part of the name
rb.yaml:10:40: tables: public.LOG in set b matches no published table of shop; did you mean public."Log"?
rb.yaml:11:28: tables: nothing is left for * in set c of shop: every table is in another set or excluded; leave the set out
`},
		{"in no set", `
    sets: [{name: a, tables: ["sales.*", public.orders]}]`, `a: [public.orders sales.orders]
excluded: []
rb.yaml:5:5: sets: in no set of shop: public.order_lines, public."Log", audit.trail; every table is in exactly one: name it in a set or in exclude, or end with a set of ["*"]
`},
		{"* beside others", `
    sets: [{name: a, tables: [public.orders]}, {name: b, tables: ["*", sales.orders]}]`, `a: [public.orders]
b: [public.order_lines public."Log" sales.orders audit.trail]
excluded: []
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rb := must(t, head+"databases:\n  - name: shop"+c.db+"\n")
			a := Assign(rb.Databases[0], tables)
			if diff := cmp.Diff(c.want, assigned(a)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if again := Assign(rb.Databases[0], tables); assigned(again) != assigned(a) {
				t.Errorf("another answer the second time:\n%s", assigned(again))
			}
			for _, p := range a.Problems {
				if p.Excerpt() == "" {
					t.Errorf("no line is shown with %s", p)
				}
			}
		})
	}
}

func TestAssignNothing(t *testing.T) {
	t.Parallel()
	if a := Assign(DefaultDatabase("postgres"), nil); len(a.Problems) > 0 || len(a.Sets) != 1 {
		t.Errorf("a database without tables and without a word in the runbook: %v", a)
	}
}

// Many tables stay quick, and are named only so far.
func TestAssignMany(t *testing.T) {
	t.Parallel()
	var many []TableName
	for i := range 10000 {
		many = append(many, TableName{"public", fmt.Sprintf("t%d", i)})
	}
	text := strings.Builder{}
	for _, n := range slices.Backward(many) {
		fmt.Fprintf(&text, "%sx, ", n)
	}
	rb := must(t, head+"databases: [{name: shop, sets: [{name: a, tables: ["+text.String()+"]}]}]\n")
	a := Assign(rb.Databases[0], many)
	if len(a.Problems) != 10001 || !strings.Contains(a.Problems[0].Says, "and 9990 more") {
		t.Errorf("%d problems, first %v", len(a.Problems), a.Problems[0])
	}
}
