package schema_test

import (
	"fmt"
	"math/rand/v2"
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
	published := slices.DeleteFunc(slices.Clone(inv.Tables), func(t schema.Table) bool { return !t.Published() })
	sets := inv.Split(published, nil, 3)
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
		rand.Shuffle(len(published), func(i, j int) { published[i], published[j] = published[j], published[i] })
		if !reflect.DeepEqual(inv.Split(published, nil, 3), sets) {
			t.Fatal("the order of the input matters")
		}
	}
	// One knot of foreign keys holds everything: it is cut.
	inv.ForeignKeys = []schema.Edge{{From: 1, To: 2}, {From: 2, To: 3}, {From: 3, To: 4}, {From: 4, To: 5}, {From: 5, To: 6}}
	if n := len(inv.Split(published, nil, 3)); n != 3 {
		t.Errorf("%d sets", n)
	}
	// More sets than tables, and none.
	if n := len(inv.Split(published, nil, 100)); n != len(published) {
		t.Errorf("%d sets", n)
	}
	if n := len(inv.Split(nil, nil, 3)); n != 0 {
		t.Errorf("%d sets", n)
	}
	// Load counts where it is known.
	inv.ForeignKeys = nil
	sets = inv.Split([]schema.Table{table(1, 1), table(2, 1), table(3, 1000)}, map[uint32]float64{1: 5000, 2: 3000, 3: 2500}, 2)
	if len(sets[0].Tables) != 1 || sets[0].Tables[0].OID != 1 {
		t.Errorf("%v", sets)
	}
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
