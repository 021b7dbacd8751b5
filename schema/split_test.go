package schema_test

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"crossfade/schema"
)

func TestSplit(t *testing.T) {
	table := func(oid uint32, bytes int64, parents ...uint32) schema.Table {
		return schema.Table{OID: oid, Schema: "s", Name: fmt.Sprintf("t%02d", oid), Kind: 'r', Persistence: 'p', Bytes: bytes, Parents: parents}
	}
	inv := &schema.Inventory{
		Tables:      []schema.Table{table(1, 100), table(2, 10), table(3, 100), table(4, 10), table(5, 90), table(6, 10, 7), {OID: 7, Schema: "s", Name: "root", Kind: 'p'}, table(8, 10, 7)},
		ForeignKeys: []schema.Edge{{From: 2, To: 1}, {From: 4, To: 3}, {From: 3, To: 3}},
	}
	sets := inv.Split(3)
	var got []string
	for _, s := range sets {
		for _, t := range s.Tables {
			got = append(got, s.Name+" "+t.Name)
		}
	}
	want := []string{"set1 t01", "set1 t02", "set2 t03", "set2 t04", "set3 t05", "set3 t06", "set3 t08"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	for range 20 {
		if !reflect.DeepEqual(inv.Split(3), sets) {
			t.Fatal("not the same sets the second time")
		}
	}
	// More sets than groups.
	if n := len(inv.Split(100)); n != 4 {
		t.Errorf("%d sets", n)
	}
	// Without ties each table is a group; what is excluded or unlogged is in none.
	inv.ForeignKeys, inv.Tables[0].Excluded, inv.Tables[2].Persistence = nil, true, 'u'
	if n := len(inv.Split(100)); n != 4 {
		t.Errorf("%d sets", n)
	}
	// One knot of foreign keys holds everything: it is not cut.
	inv.ForeignKeys = []schema.Edge{{From: 1, To: 2}, {From: 2, To: 3}, {From: 3, To: 4}, {From: 4, To: 5}, {From: 5, To: 6}}
	if sets := inv.Split(3); len(sets) != 1 || len(sets[0].Tables) != 5 {
		t.Errorf("%v", sets)
	}
	// Empty tables are spread, and no table is one empty set.
	inv = &schema.Inventory{Tables: []schema.Table{table(1, 0), table(2, 0), table(3, 0), table(4, 0)}}
	if sets := inv.Split(2); len(sets) != 2 || len(sets[0].Tables) != 2 {
		t.Errorf("%v", sets)
	}
	if sets := new(schema.Inventory).Split(3); len(sets) != 1 || sets[0].Name != "set1" || len(sets[0].Tables) != 0 {
		t.Errorf("%v", sets)
	}
}

// Whatever the ties: each published table is in one set, and no tie crosses.
func FuzzSplit(f *testing.F) {
	f.Add(3, 9, []byte{1, 2, 5, 6, 6, 7})
	f.Fuzz(func(t *testing.T, n, tables int, ties []byte) {
		if n < 1 || n > 50 || tables < 0 || tables > 200 {
			t.Skip()
		}
		inv := &schema.Inventory{}
		for k := range tables {
			inv.Tables = append(inv.Tables, schema.Table{
				OID: uint32(k + 1), Schema: "public", Name: fmt.Sprintf("t%03d", k), Kind: 'r', Persistence: 'p', Bytes: int64(k*7919%1000) << 20,
			})
		}
		for k := 0; k+1 < len(ties); k += 2 {
			inv.ForeignKeys = append(inv.ForeignKeys, schema.Edge{From: uint32(ties[k]), To: uint32(ties[k+1])})
		}
		sets := inv.Split(n)
		in := map[uint32]string{}
		for _, s := range sets {
			for _, table := range s.Tables {
				if in[table.OID] != "" {
					t.Fatalf("%s is in %s and %s", table.Name, in[table.OID], s.Name)
				}
				in[table.OID] = s.Name
			}
		}
		if len(in) != tables || len(sets) > n {
			t.Fatalf("%d of %d tables in %d sets", len(in), tables, len(sets))
		}
		for _, e := range inv.ForeignKeys {
			if a, b := in[e.From], in[e.To]; a != "" && b != "" && a != b {
				t.Fatalf("tables %d and %d are tied, in %s and %s", e.From, e.To, a, b)
			}
		}
	})
}

func TestStrange(t *testing.T) {
	for _, major := range []int{15, 18} {
		s := fresh(t, major)
		conn := connect(t, s)
		exec(t, conn, schema.Ledger("new", s.Database()).SQL)
		if names, err := schema.Strange(t.Context(), conn); err != nil || len(names) != 0 {
			t.Errorf("a fresh database has %v, %v", names, err)
		}
		names, err := schema.Strange(t.Context(), connect(t, hard(t, major)))
		if err != nil || len(names) != 10 {
			t.Errorf("%v, %v", names, err)
		}
	}
}
