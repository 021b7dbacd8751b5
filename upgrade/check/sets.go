package check

import (
	"fmt"
	"slices"
	"strings"

	"crossfade/upgrade/pg"
)

var setChecks = []Check{
	{ID: "foreign-key-sets", Title: "Foreign keys do not cross sets", Levels: onlyWarn, Acceptable: true, Judge: judgeForeignKeySets},
	{ID: "truncate-cascade", Title: "No TRUNCATE … CASCADE reaches beyond a set", Levels: blockWarn, Acceptable: true, Judge: judgeTruncate},
	{ID: "many-sets", Title: "Old's machine can decode its WAL once for every set", Levels: warnNote, Acceptable: true, Judge: judgeManySets},
	{ID: "slot-copy", Title: "Old can give several sets of a database one snapshot", Levels: onlyBlock, Judge: judgeSlotCopy},
}

// setOf is the set of every table that is published, by OID.
func (d DatabaseFacts) setOf() map[uint32]string {
	in := map[uint32]string{}
	for _, s := range d.Sets {
		for _, t := range s.Tables {
			in[t.OID] = s.Name
		}
	}
	return in
}

// judgeForeignKeySets: sets are applied one without the other.
func judgeForeignKeySets(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		if d.Inventory == nil || len(d.Sets) < 2 {
			continue
		}
		tables, in := d.byOID(), d.setOf()
		crossing := map[[2]string][]string{}
		for _, e := range d.Inventory.ForeignKeys {
			a, b := in[e.From], in[e.To]
			if a != "" && b != "" && a != b {
				pair := [2]string{min(a, b), max(a, b)}
				crossing[pair] = append(crossing[pair], fmt.Sprintf("%s to %s", tables[e.From], tables[e.To]))
			}
		}
		for pair, keys := range crossing {
			out = append(out, Finding{
				Level: Warn, On: OnOld, Database: d.Name, Object: pair[0] + ", " + pair[1],
				Says: fmt.Sprintf("sets %s and %s are tied by foreign keys (%s): until the cutover, rows on new may refer to rows that are not there yet",
					pair[0], pair[1], some(keys, "from", "from")),
				Fix: "put both tables into one set in the runbook, or let nobody read new before the cutover",
			})
		}
	}
	return out
}

// judgeTruncate: TRUNCATE is applied without the tables that are not in its set
// (or in none), and PostgreSQL refuses to truncate a table to which another one
// refers. The set stops for good.
func judgeTruncate(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		if d.Inventory == nil {
			continue
		}
		tables, in := d.byOID(), d.setOf()
		to := map[string][]string{} // what may not be truncated → what refers to it
		for _, e := range d.Inventory.ForeignKeys {
			from, target := tables[e.From], tables[e.To]
			if from == nil || target == nil || from.Kind != 'r' || in[e.To] == "" || in[e.From] == in[e.To] {
				continue
			}
			to[target.String()] = append(to[target.String()], from.String())
		}
		for target, from := range to {
			slices.Sort(from)
			level, seen := Warn, ""
			if d.DDL.Truncates > 0 {
				level, seen = Block, fmt.Sprintf(". pg_stat_statements has counted %d TRUNCATEs in this database (%s)", d.DDL.Truncates, pg.Brief(d.DDL.TruncateOne))
			}
			out = append(out, Finding{
				Level: level, On: OnOld, Database: d.Name, Object: target,
				Says: fmt.Sprintf("%s refer%s to %s and %s not in its set: a TRUNCATE of %s with CASCADE on old could not be applied on new, and would stop the set for good%s",
					some(slices.Compact(from), "table", "tables"), oneOf(from, "s", ""), target, oneOf(from, "is", "are"), target, seen),
				Fix: "put them into one set in the runbook, or see to it that nobody truncates " + target + " before the cutover (DELETE is applied)",
			})
		}
	}
	return out
}

func oneOf(all []string, one, many string) string {
	if len(all) == 1 {
		return one
	}
	return many
}

// manySets is from how many walsenders on it is worth a word where the number
// of cores is not known.
const manySets = 8

// judgeManySets: every set has a walsender of its own, and each of them decodes
// all the WAL of the cluster.
func judgeManySets(f *Facts) []Finding {
	if !f.Old.ok() {
		return nil
	}
	sets, split := 0, false
	for _, d := range f.Databases {
		sets += len(d.Sets)
		split = split || len(d.Sets) > 1
	}
	others := 0
	for _, w := range f.Old.Senders {
		if w.Logical && !f.ours(w.Application) && !f.ours(w.Slot) {
			others++
		}
	}
	all, cores := sets+others, f.OldMachine.Cores
	switch {
	case cores > 0 && 2*all <= cores, cores == 0 && all <= manySets, !split && others == 0 && all <= manySets:
		return nil
	}
	level, on := Note, ""
	if cores > 0 {
		on = fmt.Sprintf(", on a machine with %d cores", cores)
		if split {
			level = Warn
		}
	}
	return []Finding{{
		Level: level, On: OnOld, Object: "sets",
		Says: strings.TrimSpace(fmt.Sprintf("%s and %s each decode the whole WAL of old%s: from half of the cores on, decoding slows the application down", count(int64(sets), "set"), count(int64(others), "other consumer"), on)),
		Fix:  "fewer sets in the runbook, unless one of them cannot keep up by itself",
	}}
}

// judgeSlotCopy: the slots of a database's sets are copies of the first, so
// that the copy is one state of all of them.
func judgeSlotCopy(f *Facts) []Finding {
	if !f.Old.ok() || f.Old.Version >= 120000 {
		return nil
	}
	var out []Finding
	for _, d := range f.Databases {
		if len(d.Sets) > 1 {
			out = append(out, Finding{
				Level: Block, On: OnOld, Database: d.Name, Object: "sets",
				Says: fmt.Sprintf("PostgreSQL %d cannot copy a logical slot, so that the %d sets of database %s would not be copied from one snapshot", f.Old.Major(), len(d.Sets), d.Name),
				Fix:  "one set for this database in the runbook",
			})
		}
	}
	return out
}
