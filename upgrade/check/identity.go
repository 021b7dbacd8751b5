package check

import (
	"fmt"
	"slices"
	"strings"

	"crossfade/schema"
	"crossfade/upgrade/pg"
)

var identityChecks = []Check{
	{ID: "replica-identity", Title: "Every table that is updated can be: it has a replica identity", Judge: judgeIdentity},
	{ID: "replica-identity-equality", Title: "REPLICA IDENTITY FULL only where every column can be compared", Judge: judgeEquality},
	{ID: "replica-identity-full", Title: "REPLICA IDENTITY FULL costs little on new", Acceptable: true, Judge: judgeFull},
	{ID: "identity-order", Title: "The identities that the runbook orders can be had", Judge: judgeOrders},
	{ID: "excluded-tables", Title: "Every table is moved", Acceptable: true, Judge: judgeExcluded},
	{ID: "foreign-key-excluded", Title: "No moved table refers to one that is left behind", Judge: judgeForeignKeyExcluded},
	{ID: "foreign-key-sets", Title: "Foreign keys do not cross sets", Acceptable: true, Judge: judgeForeignKeySets},
}

// ordered is the identity of a table once prepare has done what the runbook
// orders. Index orders are judged by judgeOrders.
func (d DatabaseFacts) ordered(t schema.Table) schema.Identity {
	id := t.Identity
	order, ok := d.Want.Identity[t.String()]
	switch {
	case !ok:
	case order == "full":
		id = schema.Identity{Kind: 'f', Usable: true, Candidate: id.Candidate}
		if id.Candidate == "" && t.Identity.Usable {
			id.Candidate = t.Identity.Index
		}
		for _, c := range t.Columns {
			if !c.Equality && c.Generated == 0 {
				id.Usable = false
				id.Why = noEquality(c)
				break
			}
		}
	default:
		id = schema.Identity{Kind: 'i', Index: strings.TrimPrefix(order, "index:"), Usable: true}
	}
	return id
}

func noEquality(c schema.Column) string {
	return fmt.Sprintf("its replica identity is FULL, and column %s has type %s, which has no equality", schema.Name(c.Name), c.Type)
}

// published are the tables whose rows travel, with their identity as it will be.
func (f *Facts) published(judge func(d DatabaseFacts, t schema.Table, id schema.Identity)) {
	for _, d := range f.Databases {
		if d.Inventory == nil {
			continue
		}
		for _, t := range d.Inventory.Tables {
			if t.Published() {
				judge(d, t, d.ordered(t))
			}
		}
	}
}

func judgeIdentity(f *Facts) []Finding {
	var out []Finding
	f.published(func(d DatabaseFacts, t schema.Table, id schema.Identity) {
		if id.Usable || id.Kind == 'f' {
			return
		}
		fix := "ALTER TABLE ONLY " + t.SQL() + " REPLICA IDENTITY "
		or := fmt.Sprintf("or in the runbook, for the time of the upgrade: identity: {%s: full}; best is a primary key", t)
		if id.Candidate != "" {
			fix += "USING INDEX " + pg.Ident(id.Candidate) + ";"
			or = fmt.Sprintf("or in the runbook, for the time of the upgrade: identity: {%s: index:%s}", t, id.Candidate)
		} else {
			fix += "FULL;"
		}
		out = append(out, Finding{
			Level: Block, On: OnOld, Database: d.Name, Object: t.String(),
			Says: fmt.Sprintf("table %s cannot be published: %s. Every UPDATE and DELETE of it by the application would fail from the moment the publication exists", t, id.Why),
			Fix:  lines(fix, or),
		})
	})
	return out
}

func judgeEquality(f *Facts) []Finding {
	var out []Finding
	f.published(func(d DatabaseFacts, t schema.Table, id schema.Identity) {
		if id.Kind != 'f' || id.Usable {
			return
		}
		fix := "give it a primary key, exclude it, or change that column's type (json to jsonb)"
		if id.Candidate != "" {
			fix = "ALTER TABLE ONLY " + t.SQL() + " REPLICA IDENTITY USING INDEX " + pg.Ident(id.Candidate) + ";"
		}
		out = append(out, Finding{
			Level: Block, On: OnOld, Database: d.Name, Object: t.String(),
			Says: fmt.Sprintf("table %s: %s. The first UPDATE or DELETE would stop its whole set on new", t, id.Why), Fix: fix,
		})
	})
	return out
}

// fullRowNanos is what one row of a table costs the apply worker to look at:
// 500 updates of a table of 200,000 rows took 2.5 to 3.3 s on 14 to 18.
const fullRowNanos = 30

// judgeFull: without any index that the apply worker can use, each UPDATE and
// DELETE reads the table. A primary key on new serves even where old is FULL;
// other unique indexes from 16 on.
func judgeFull(f *Facts) []Finding {
	var out []Finding
	f.published(func(d DatabaseFacts, t schema.Table, id schema.Identity) {
		if id.Kind != 'f' || !id.Usable {
			return
		}
		if id.Candidate != "" {
			out = append(out, Finding{
				Level: Note, On: OnOld, Database: d.Name, Object: t.String(),
				Says: fmt.Sprintf("table %s has REPLICA IDENTITY FULL though index %s could serve: each UPDATE and DELETE writes the whole old row into the WAL", t, schema.Name(id.Candidate)),
				Fix:  "ALTER TABLE ONLY " + t.SQL() + " REPLICA IDENTITY USING INDEX " + pg.Ident(id.Candidate) + ";",
			})
			return
		}
		changes, rows := t.Updates+t.Deletes, max(t.Rows, 0)
		level, says := Note, fmt.Sprintf("table %s has REPLICA IDENTITY FULL and no unique index: on new each UPDATE and DELETE reads the table for its row", t)
		if rows > 0 {
			says += fmt.Sprintf(" (%d rows: about %.1f ms each)", rows, float64(rows)*fullRowNanos/1e6)
		}
		if changes > 0 {
			says += fmt.Sprintf("; old counts %d of them since its statistics were reset", changes)
		}
		if rows >= 10_000 && changes > 0 {
			level = Warn
		}
		fix := "give it a primary key"
		if f.New.ok() && f.New.Major() >= 16 {
			fix += ", or an index on a column that tells its rows apart: apply on 16 and later uses it"
		}
		out = append(out, Finding{Level: level, On: OnOld, Database: d.Name, Object: t.String(), Says: says, Fix: fix})
	})
	return out
}

func judgeOrders(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		if d.Inventory == nil {
			continue
		}
		for _, t := range d.Inventory.Tables {
			name, isIndex := strings.CutPrefix(d.Want.Identity[t.String()], "index:")
			if !isIndex {
				continue
			}
			why := "there is no such index on it"
			if i := slices.IndexFunc(d.Indexes, func(x Index) bool { return x.Table == t.String() && x.Name == name }); i >= 0 {
				why = d.Indexes[i].Why
			}
			if why != "" {
				fix := "name a unique index in the runbook that is whole, valid, not deferrable, and over NOT NULL columns"
				if c := t.Identity.Candidate; c != "" {
					fix = fmt.Sprintf("in the runbook: identity: {%s: index:%s}", t, c)
				}
				out = append(out, Finding{
					Level: Block, On: OnOld, Database: d.Name, Object: t.String(),
					Says: fmt.Sprintf("the runbook orders index %s as identity of %s, which cannot be: %s", schema.Name(name), t, why), Fix: fix,
				})
			}
		}
	}
	return out
}

func judgeExcluded(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		if d.Inventory == nil {
			continue
		}
		for _, t := range d.Inventory.Tables {
			if t.Excluded && t.Kind == 'r' {
				out = append(out, Finding{
					Level: Note, On: OnOld, Database: d.Name, Object: t.String(),
					Says: fmt.Sprintf("table %s is excluded: on new it is there and empty", t),
				})
			}
		}
	}
	return out
}

// judgeForeignKeyExcluded: the rows that a foreign key refers to must be there
// when it is made on new.
func judgeForeignKeyExcluded(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		if d.Inventory == nil {
			continue
		}
		tables := d.byOID()
		for _, e := range d.Inventory.ForeignKeys {
			from, to := tables[e.From], tables[e.To]
			if from == nil || to == nil || !from.Published() || !to.Excluded || to.Kind != 'r' {
				continue
			}
			out = append(out, Finding{
				Level: Block, On: OnOld, Database: d.Name, Object: from.String(),
				Says: fmt.Sprintf("table %s refers to %s, which is excluded and empty on new: its foreign key cannot be made there", from, to),
				Fix:  fmt.Sprintf("move %s too, or exclude %s as well, or drop the foreign key on old", to, from),
			})
		}
	}
	return out
}

func (d DatabaseFacts) byOID() map[uint32]*schema.Table {
	m := make(map[uint32]*schema.Table, len(d.Inventory.Tables))
	for i := range d.Inventory.Tables {
		m[d.Inventory.Tables[i].OID] = &d.Inventory.Tables[i]
	}
	return m
}

// judgeForeignKeySets: sets are applied one without the other.
func judgeForeignKeySets(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		if d.Inventory == nil || len(d.Sets) < 2 {
			continue
		}
		tables, in := d.byOID(), map[uint32]string{}
		for _, s := range d.Sets {
			for _, t := range s.Tables {
				in[t.OID] = s.Name
			}
		}
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
				Says: fmt.Sprintf("sets %s and %s are tied by foreign keys (%s): until the cutover, rows on new may refer to rows that are not there yet, and TRUNCATE … CASCADE across them stops the sets for good",
					pair[0], pair[1], some(keys, "from", "from")),
				Fix: "put both tables into one set, or see to it that nobody truncates them",
			})
		}
	}
	return out
}
