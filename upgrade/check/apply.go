package check

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"crossfade/schema"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/rights"
)

var applyChecks = []Check{
	{ID: "triggers-on-apply", Title: "No trigger fires while rows are applied", Levels: onlyNote, Acceptable: true, Judge: judgeFiring},
	{ID: "event-triggers", Title: "Event triggers do not block the apply workers", Levels: warnNote, Acceptable: true, Judge: judgeEventTriggers},
	{ID: "row-security", Title: "Row-level security does not hide rows from the tool", Levels: onlyBlock, Judge: judgeRowSecurity},
	{ID: "owner-rights", Title: "Owners may write to their tables where apply runs as them", Levels: onlyBlock, Acceptable: true, Judge: judgeOwnerRights},
	{ID: "owner-schema", Title: "Owners may use the schemas of their tables where the tool works with their rights", Levels: onlyBlock, Judge: judgeOwnerSchemas},
	{ID: "unqualified-names", Title: "What checks and indexes rows finds its tables without a search_path", Levels: onlyWarn, Acceptable: true, Judge: judgeUnqualified},
	{ID: "foreign-key-disabled", Title: "Every foreign key is enforced", Levels: onlyWarn, Acceptable: true, Judge: judgeDisabledKeys},
}

func judgeFiring(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		if d.Inventory == nil {
			continue
		}
		for _, t := range d.Inventory.Triggers {
			if t.Table == "" {
				continue // judgeEventTriggers
			}
			mode := "ALWAYS"
			if t.Mode == 'R' {
				mode = "REPLICA"
			}
			out = append(out, Finding{
				Level: Note, On: OnOld, Database: d.Name, Object: schema.Name(t.Schema, t.Table) + "." + schema.Name(t.Name),
				Says: fmt.Sprintf("%s is enabled %s and would fire again where rows are applied: it is disabled on new until that is opened, and on old while that follows", t, mode),
			}.among("%s that would fire again where rows are applied: they are disabled on new until that is opened, and on old while that follows", "trigger", []string{"enabled"}, mode))
		}
		for _, r := range d.things("rule") {
			out = append(out, Finding{
				Level: Note, On: OnOld, Database: d.Name, Object: r.More + "." + r.Name,
				Says: fmt.Sprintf("rule %s on %s is enabled ALWAYS or REPLICA: rules do not act on applied rows, but on statements of sessions with session_replication_role = replica", r.Name, r.More),
			}.among("%s enabled ALWAYS or REPLICA: rules do not act on applied rows, but on statements of sessions with session_replication_role = replica", "rule", nil))
		}
	}
	return out
}

func judgeEventTriggers(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		for _, e := range d.things("event-trigger") {
			one, all := "the tool's own DDL does not fire it", "the tool's own DDL does not fire them"
			switch e.Detail {
			case "D":
				continue
			case "A", "R":
				one = "it fires in the tool's sessions too, so that it is disabled where rows are applied until clients are let in"
				all = "they fire in the tool's sessions too, so that they are disabled where rows are applied until clients are let in"
			}
			out = append(out, Finding{
				Level: Note, On: OnOld, Database: d.Name, Object: e.Name,
				Says: fmt.Sprintf("event trigger %s (%s) is carried over with the schema, last; %s", schema.Name(e.Name), e.More, one),
			}.among("%s carried over with the schema, last; "+all, "event trigger", []string{"function"}, e.More))
		}
		for _, e := range pick(d.NewThings, "event-trigger") {
			if e.Detail == "D" || e.Detail == "O" || f.begun() {
				continue
			}
			out = append(out, Finding{
				Level: Warn, On: OnNew, Database: d.Name, Object: e.Name,
				Says: fmt.Sprintf("event trigger %s (%s) of new fires on the DDL by which the schema is restored", schema.Name(e.Name), e.More),
				Fix:  "ALTER EVENT TRIGGER " + pg.Ident(e.Name) + " DISABLE;",
			})
		}
	}
	return out
}

// judgeRowSecurity: with row_security off a role that policies hold back gets
// an error instead of rows, in the copy as on apply.
func judgeRowSecurity(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.sides() {
		if s.Superuser || s.Role.BypassRLS {
			continue
		}
		for _, d := range f.Databases {
			if d.Inventory == nil {
				continue
			}
			var names []string
			for _, t := range d.Inventory.Tables {
				if t.RowSecurity && !t.Excluded {
					names = append(names, t.String())
				}
			}
			if len(names) == 0 {
				continue
			}
			out = append(out, Finding{
				Level: Block, On: s.Side, Database: d.Name, Object: s.Role.Name,
				Says: fmt.Sprintf("role %s is held back by the row-level security of %s: neither the copy nor apply could go on", s.Role.Name, some(names, "table", "tables")),
				Fix:  "ALTER ROLE " + pg.Ident(s.Role.Name) + " BYPASSRLS;",
			})
		}
	}
	return out
}

// judgeOwnerRights: from 16 on an apply worker acts on each table as its owner,
// so that no code of the owner runs with the tool's rights. What the owner may not
// do it may not either, and row-level security that is forced on owners stops it.
func judgeOwnerRights(f *Facts) []Finding {
	if !slices.ContainsFunc(f.applying(), func(s *Server) bool { return s.Major() >= 16 }) {
		return nil
	}
	all := map[string]Role{}
	for _, r := range f.Old.Roles {
		all[r.Name] = r
	}
	var out []Finding
	for _, d := range f.Databases {
		if d.Inventory == nil {
			continue
		}
		lacks := map[string]string{}
		for _, t := range d.things("owner-lacks") {
			lacks[t.Name] = t.Detail
		}
		for _, t := range d.Inventory.Tables {
			if !t.Published() {
				continue
			}
			owner := all[t.Owner]
			var says, fix []string
			if what := lacks[t.SQL()]; what != "" {
				says = append(says, "lacks "+what+" on it")
				fix = append(fix, fmt.Sprintf("GRANT %s ON TABLE %s TO %s;", what, t.SQL(), pg.Ident(t.Owner)))
			}
			if t.RowSecurity && t.ForceRLS && !owner.Super && !owner.BypassRLS {
				says = append(says, "is held by its row-level security, which is forced on owners")
				fix = append(fix, "ALTER TABLE "+t.SQL()+" NO FORCE ROW LEVEL SECURITY;")
			}
			if len(says) == 0 {
				continue
			}
			out = append(out, Finding{
				Level: Block, On: OnOld, Database: d.Name, Object: t.String(),
				Says: fmt.Sprintf("table %s: its owner %s %s: subscriptions of 16 and later apply as the owner, and the first such change would stop its whole set", t, schema.Name(t.Owner), strings.Join(says, ", and ")),
				Fix:  lines(append(fix, "which may be reverted after finish; accept it only where no client writes to the table")...),
			}.among("%s that their owners may not write: subscriptions of 16 and later apply as the owner, and the first such change would stop its whole set", "table", []string{"owner", "why"}, t.Owner, strings.Join(says, ", and ")))
		}
	}
	return out
}

// judgeOwnerSchemas: where the tool works with the rights of owners, these must be able
// to name their tables.
func judgeOwnerSchemas(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		outside := map[string]Thing{}
		for _, t := range d.things("owner-outside") {
			outside[t.Name] = t
		}
		if len(outside) == 0 || d.Inventory == nil {
			continue
		}
		blocked := map[[2]string][]string{} // schema and owner → tables
		for _, t := range d.asOwners() {
			if o, ok := outside[t]; ok {
				key := [2]string{o.Detail, o.More}
				blocked[key] = append(blocked[key], t)
			}
		}
		for _, key := range slices.SortedFunc(maps.Keys(blocked), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
			out = append(out, Finding{
				Level: Block, On: OnOld, Database: d.Name, Object: key[1],
				Says: fmt.Sprintf("role %s lacks USAGE on schema %s. It owns tables there that call functions of ordinary roles, or refer to such tables: crossfade would work on them with its rights, and be refused: %s",
					schema.Name(key[1]), schema.Name(key[0]), some(blocked[key], "table", "tables")),
				Fix: fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s;", pg.Ident(key[0]), pg.Ident(key[1])),
			})
		}
	}
	return out
}

// asOwners are the tables, as SQL, that the tool fills, reads or validates with the
// rights of their owners.
func (d DatabaseFacts) asOwners() []string {
	all := d.code()
	var out []string
	add := func(table string) {
		if !slices.Contains(out, table) {
			out = append(out, table)
		}
	}
	for _, c := range all.Code {
		if c.Table != "" && !c.OwnerSuper && (all.Filler(pg.Ident(c.Schema, c.Table)) != "" || c.Kind == rights.ForeignKey) {
			add(pg.Ident(c.Schema, c.Table))
		}
	}
	tables := d.byOID()
	for _, e := range d.Inventory.ForeignKeys {
		from, to := tables[e.From], tables[e.To]
		if from != nil && to != nil && (all.Reader(from.SQL()) != "" || all.Reader(to.SQL()) != "") {
			add(from.SQL())
		}
	}
	return out
}

// judgeUnqualified: the copy, apply workers, and from 17 on CREATE INDEX too run
// with a search_path of pg_catalog alone.
func judgeUnqualified(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		for _, t := range d.things("unqualified") {
			by, word, _ := strings.Cut(t.Detail, "\x01")
			more := ""
			if t.N > 1 {
				more = fmt.Sprintf(" and %d more", t.N-1)
			}
			out = append(out, Finding{
				Level: Warn, On: OnOld, Database: d.Name, Object: t.Name,
				Says: fmt.Sprintf("function %s serves %s and seems to name %s%s without a schema: where rows are copied, applied and indexed search_path is empty, and it would fail", t.Name, by, word, more),
				Fix:  "ALTER FUNCTION " + t.Name + " SET search_path = " + t.More + ";",
			}.among("%s that seem to name others without a schema: where rows are copied, applied and indexed search_path is empty, and they would fail", "function", []string{"serves", "names"}, by, word+more))
		}
	}
	return out
}

// judgeDisabledKeys: pg_dump carries a foreign key over as one that is enforced.
func judgeDisabledKeys(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		for _, t := range d.things("disabled-fk") {
			name := pg.Ident(t.Detail)
			out = append(out, Finding{
				Level: Warn, On: OnOld, Database: d.Name, Object: t.Name + "." + t.Detail,
				Says: fmt.Sprintf("foreign key %s of %s is not enforced (its triggers are disabled): if rows break it, it cannot be made on new, where it is enforced again", schema.Name(t.Detail), t.Name),
				Fix: lines("see now whether rows break it, and let it be enforced again:",
					fmt.Sprintf("ALTER TABLE %s DROP CONSTRAINT %s, ADD CONSTRAINT %s %s;", t.Name, name, name, t.More)),
			}.among("%s that are not enforced (their triggers are disabled): those that rows break cannot be made on new, where they are enforced again", "foreign key", nil))
		}
	}
	return out
}
