package load

import (
	"context"
	"testing"
	"time"

	"crossfade/schema"
)

// TestYard: a key goes alone and before the indexes of its table, indexes go side
// by side, a foreign key waits until nobody builds on either table, and what takes
// longest is begun first.
func TestYard(t *testing.T) {
	entry := func(typ, table, name string, stage schema.Stage) schema.Entry {
		return schema.Entry{Type: typ, Schema: "public", Name: name, Table: table, Stage: stage}
	}
	of := func(name string, bytes int64) *table {
		return &table{Table: schema.Table{Schema: "public", Name: name, Bytes: bytes}, chunks: []chunk{{0, last}}}
	}
	a, b := of("a", 1000), of("b", 100)
	o := Options{Indexes: func(t schema.Table) []schema.Entry {
		return []schema.Entry{
			entry("CONSTRAINT", t.SQL(), t.Name+" "+t.Name+"_pkey", schema.Identify),
			entry("INDEX", t.SQL(), t.Name+"_x", schema.Index), entry("INDEX", t.SQL(), t.Name+"_y", schema.Index),
		}
	}}
	y := newYard()
	on := map[*table]*chain{a: o.chain(a, nil), b: o.chain(b, nil)}
	y.add(a, on[a])
	y.add(b, on[b])
	y.addForeign(entry("FK CONSTRAINT", b.SQL(), "b b_a_fkey", schema.Foreign), on[b], on[a], 100)
	y.open()

	running := map[string]unit{}
	take := func(want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		u, ok := y.take(ctx)
		if got := u.entry.Name; ok != (want != "") || got != want {
			t.Fatalf("took %q (%t), want %q", got, ok, want)
		}
		running[u.entry.Name] = u
	}
	built := func(names ...string) {
		for _, name := range names {
			y.built(running[name])
			delete(running, name)
		}
	}
	take("") // no rows are there
	y.loaded(b, true)
	take("b b_pkey")
	take("") // the key is alone at its table
	y.loaded(a, true)
	take("a a_pkey")
	built("b b_pkey")
	take("b_x")
	built("a a_pkey")
	take("a_x") // a's takes longer than what is left of b
	take("a_y")
	take("b_y")
	built("b_x", "b_y", "a_x")
	take("") // one still builds on a
	built("a_y")
	take("b b_a_fkey")
	take("") // it runs: something may come yet
	built("b b_a_fkey")
	if u, ok := y.take(t.Context()); ok {
		t.Errorf("took %s, and everything is built", u.entry.Name)
	}
	if y.entries != 7 {
		t.Errorf("%d entries, want 7", y.entries)
	}
}

// TestMemory: a btree is sorted in little memory, each worker in as much, as long as
// that is enough to merge at once; another method gets more.
func TestMemory(t *testing.T) {
	for _, c := range []struct {
		index   index
		workers int64
		mb      int64
	}{
		{index{method: "btree", bytes: 100 << 20}, 0, 64},
		{index{method: "btree", bytes: 16 << 30}, 0, 64},
		{index{method: "btree", bytes: 100 << 20}, 2, 192},
		{index{method: "btree", bytes: 1 << 40}, 0, 512},
		{index{method: "gin", bytes: 1 << 40}, 0, 256},
		{index{method: "gin", bytes: 100 << 20}, 2, 256},
		{index{}, 0, 256},
	} {
		if got := c.index.memory(c.workers) >> 20; got != c.mb {
			t.Errorf("%v with %d workers: %d MB, want %d", c.index, c.workers, got, c.mb)
		}
	}
}
