package schema

import (
	"cmp"
	"fmt"
	"slices"
)

// Split distributes tables over at most n sets of about equal load, named set1
// to setN; load is by OID, a table without is as heavy as its bytes. Tables
// that foreign keys, partitioning or inheritance tie together stay in one set,
// unless they are more than a set's fair share: then they are cut, biggest
// table first, which costs nothing but the moment in which one set is ahead of
// the other. The same input gives the same sets. Empty sets are left out. Pure.
func (i *Inventory) Split(tables []Table, load map[uint32]float64, n int) []Set {
	if len(tables) == 0 {
		return nil
	}
	n = max(n, 1)
	weight := func(t Table) float64 {
		if w, ok := load[t.OID]; ok {
			return w + 1
		}
		return float64(t.Bytes) + 1
	}
	total := 0.0
	for _, t := range tables {
		total += weight(t)
	}
	type pile struct {
		tables []Table
		weight float64
	}
	var piles []pile
	for _, group := range i.tied(tables) {
		p := pile{tables: group}
		for _, t := range group {
			p.weight += weight(t)
		}
		if p.weight <= total/float64(n)*1.2 || n == 1 {
			piles = append(piles, p)
			continue
		}
		for _, t := range group {
			piles = append(piles, pile{[]Table{t}, weight(t)})
		}
	}
	slices.SortStableFunc(piles, func(a, b pile) int {
		return cmp.Or(cmp.Compare(b.weight, a.weight), compareTables(a.tables[0], b.tables[0]))
	})
	bins := make([]pile, n)
	for _, p := range piles {
		least := 0
		for b := range bins {
			if bins[b].weight < bins[least].weight {
				least = b
			}
		}
		bins[least].tables = append(bins[least].tables, p.tables...)
		bins[least].weight += p.weight
	}
	var sets []Set
	for _, b := range bins {
		if len(b.tables) > 0 {
			slices.SortFunc(b.tables, compareTables)
			sets = append(sets, Set{Name: fmt.Sprintf("set%d", len(sets)+1), Tables: b.tables})
		}
	}
	return sets
}

// tied groups tables that are connected, each group and the groups by name.
func (i *Inventory) tied(tables []Table) [][]Table {
	root := map[uint32]uint32{}
	var find func(oid uint32) uint32
	find = func(oid uint32) uint32 {
		if r, ok := root[oid]; ok && r != oid {
			root[oid] = find(r)
			return root[oid]
		}
		return oid
	}
	for _, e := range i.ForeignKeys {
		root[find(e.From)] = find(e.To)
	}
	for _, t := range i.Tables {
		for _, p := range t.Parents {
			root[find(t.OID)] = find(p)
		}
	}
	at := map[uint32]int{}
	var groups [][]Table
	sorted := slices.Clone(tables)
	slices.SortFunc(sorted, compareTables)
	for _, t := range sorted {
		r := find(t.OID)
		n, ok := at[r]
		if !ok {
			n = len(groups)
			at[r] = n
			groups = append(groups, nil)
		}
		groups[n] = append(groups[n], t)
	}
	return groups
}
