package schema

import (
	"cmp"
	"fmt"
	"slices"
)

// Split puts the published tables into at most n sets of about the same size,
// named set1 to setN. Tables that foreign keys, partitioning or inheritance tie
// together stay in one set, however big: a TRUNCATE of one of them could not be
// applied without the others. The biggest group goes first, always into the set
// that is the smallest so far. There is always one set, and there are fewer
// than n where there are fewer groups. The same inventory gives the same sets.
// Pure.
func (i *Inventory) Split(n int) []Set {
	var published []Table
	for _, t := range i.Tables {
		if t.Published() {
			published = append(published, t)
		}
	}
	type pile struct {
		tables []Table
		size   int64
	}
	var piles []pile
	for _, group := range i.tied(published) {
		p := pile{tables: group}
		for _, t := range group {
			p.size += t.Bytes + t.IndexBytes + 8192 // an empty table is work, too
		}
		piles = append(piles, p)
	}
	slices.SortStableFunc(piles, func(a, b pile) int { return cmp.Compare(b.size, a.size) })
	sets := make([]Set, max(min(n, len(piles)), 1))
	filled := make([]int64, len(sets))
	for k := range sets {
		sets[k].Name = fmt.Sprintf("set%d", k+1)
	}
	for _, p := range piles {
		k := slices.Index(filled, slices.Min(filled))
		sets[k].Tables, filled[k] = append(sets[k].Tables, p.tables...), filled[k]+p.size
	}
	for _, s := range sets {
		slices.SortFunc(s.Tables, compareTables)
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
