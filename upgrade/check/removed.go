package check

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

var removedChecks = []Check{
	{ID: "removed-types", Title: "New has every type and operator form in use", Levels: onlyBlock, Judge: judgeRemovedTypes},
	{ID: "removed-functions", Title: "New has every function and operator of the server that definitions use", Levels: onlyBlock, Judge: judgeRemovedFunctions},
	{ID: "removed-in-bodies", Title: "New has every function of the server that bodies of functions call", Levels: onlyWarn, Acceptable: true, Judge: judgeRemovedInBodies},
	{ID: "removed-columns", Title: "New's own views have the columns that views of old read", Levels: onlyBlock, Judge: judgeRemovedColumns},
	{ID: "not-immutable", Title: "What indexes compute is still immutable on new", Levels: onlyBlock, Judge: judgeNotImmutable},
	{ID: "table-oids", Title: "No table has OIDs", Levels: onlyWarn, Acceptable: true, Judge: judgeTableOIDs},
}

// Function is a function of pg_catalog.
type Function struct {
	Name       string
	Args       string // OIDs of their types
	Volatility string // i, s, v
}

func judgeRemovedTypes(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		for _, t := range d.things("removed-type") {
			out = append(out, Finding{
				Level: Block, On: OnOld, Database: d.Name, Object: t.Name,
				Says: fmt.Sprintf("column %s of %s has type %s, which PostgreSQL 12 removed: its table cannot be made on new", t.Detail, t.Name, t.More),
				Fix:  "ALTER TABLE " + t.Name + " ALTER COLUMN " + t.Detail + " TYPE timestamptz on old, or interval",
			}.among("%s with a column of a type that PostgreSQL 12 removed: they cannot be made on new", "table", []string{"column", "type"}, t.Detail, t.More))
		}
		if f.New.ok() && f.New.Major() < 14 {
			continue
		}
		for _, t := range d.things("postfix") {
			out = append(out, Finding{
				Level: Block, On: OnOld, Database: d.Name, Object: t.Name,
				Says: fmt.Sprintf("operator %s is a postfix operator, which PostgreSQL 14 removed: it cannot be made on new", t.Name),
				Fix:  lines("replace it by a function in what uses it, then:", fmt.Sprintf("DROP OPERATOR %s (%s, NONE);", t.Name, t.Detail)),
			})
		}
		for _, t := range d.things("opaque") {
			out = append(out, Finding{
				Level: Block, On: OnOld, Database: d.Name, Object: t.Name,
				Says: fmt.Sprintf("function %s takes or returns opaque, which PostgreSQL 13 removed: it cannot be made on new", t.Name),
				Fix:  "make it anew with the type that is meant (trigger, cstring, internal), or drop it",
			})
		}
	}
	return out
}

// gone are the functions and operators of old's pg_catalog that new's has under
// no arguments at all, by OID. The OIDs of what PostgreSQL brings are the same
// in every major, as long as it is there.
func (f *Facts) gone() (functions map[uint32]string, operators map[uint32]string) {
	if !f.both() || f.Old.Functions == nil || f.New.Functions == nil {
		return nil, nil
	}
	names, symbols := map[string]bool{}, map[string]bool{}
	for _, n := range f.New.Functions {
		names[n.Name] = true
	}
	for _, n := range f.New.Operators {
		symbols[n] = true
	}
	functions, operators = map[uint32]string{}, map[uint32]string{}
	for oid, o := range f.Old.Functions {
		if !names[o.Name] {
			functions[oid] = o.Name
		}
	}
	for oid, o := range f.Old.Operators {
		if !symbols[o] {
			operators[oid], _, _ = strings.Cut(o, " ")
		}
	}
	return functions, operators
}

// unfixed are the functions that are immutable on old and not on new.
func (f *Facts) unfixed() map[uint32]string {
	out := map[uint32]string{}
	for oid, o := range f.Old.Functions {
		if n, ok := f.New.Functions[oid]; ok && o.Volatility == "i" && n.Volatility != "i" && n.Name == o.Name {
			out[oid] = o.Name
		}
	}
	return out
}

// alternatives is a pattern of OIDs, or names, in a fixed order.
func alternatives[K comparable](all map[K]string, key func(K, string) string) string {
	var out []string
	for k, v := range all {
		out = append(out, key(k, v))
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), "|")
}

const (
	intervalOut  = 1161 // stable from 15 on: it depends on IntervalStyle
	intervalType = 1186
)

// readTrees looks for what new does not have in the expressions and functions
// of a database of old.
func (g *gathering) readTrees(ctx context.Context, conn *pgx.Conn, d *DatabaseFacts) error {
	functions, operators := g.gone()
	if functions == nil {
		return nil // server-unreachable or check-incomplete says why
	}
	byOID := func(oid uint32, _ string) string { return strconv.FormatUint(uint64(oid), 10) }
	pattern := func(before, all, after string) *string {
		if all == "" {
			return nil
		}
		p := before + "(" + all + ")" + after
		return &p
	}
	unfixed := g.unfixed()
	var mutable *string
	if all := alternatives(unfixed, byOID); all != "" {
		p := ":(?:funcid|opfuncid) (?:" + all + ") "
		if _, ok := unfixed[intervalOut]; ok {
			p += fmt.Sprintf(`|COERCEVIAIO :arg \{[A-Z]+ [^{}]*:(?:vartype|funcresulttype|opresulttype|resulttype) %d `, intervalType)
		}
		mutable = pattern("", p, "")
	}
	names := alternatives(functions, func(_ uint32, name string) string { return name })
	op, fn := pattern(":opno ", alternatives(operators, byOID), " "), pattern(":(?:funcid|aggfnoid|winfnoid) ", alternatives(functions, byOID), " ")
	var either []string
	for _, p := range []*string{op, fn} {
		if p != nil {
			either = append(either, *p)
		}
	}
	var both *string
	if len(either) > 0 {
		p := strings.Join(either, "|")
		both = &p
	}
	things, err := rows[Thing](ctx, conn, query("trees", g.Old.Version), op, fn, mutable, pattern(`\m`, names, `\s*\(`), both)
	if err == nil {
		d.Things = append(d.Things, things...)
	}
	return err
}

// judgeRemovedFunctions: what is part of a definition cannot be made on new.
func judgeRemovedFunctions(f *Facts) []Finding {
	functions, operators := f.gone()
	if functions == nil {
		return nil
	}
	var out []Finding
	for _, d := range f.Databases {
		for _, t := range d.things("gone") {
			uses := ""
			if oid, err := strconv.ParseUint(t.Detail, 10, 32); err == nil {
				uses = "operator " + operators[uint32(oid)]
			} else if oid, err := strconv.ParseUint(t.More, 10, 32); err == nil {
				uses = "function " + functions[uint32(oid)]
			}
			out = append(out, Finding{
				Level: Block, On: OnOld, Database: d.Name, Object: t.Name,
				Says: fmt.Sprintf("%s uses %s, which PostgreSQL %s does not have: it cannot be made on new", t.Name, uses, f.newMajor()),
				Fix:  "change it on old to what both have, or drop it there and make it on new in another way",
			}.among("%s that use what PostgreSQL "+f.newMajor()+" does not have: they cannot be made on new", "object", []string{"uses"}, uses))
		}
		for _, t := range d.things("over-builtin") {
			oid, err := strconv.ParseUint(t.Detail, 10, 32)
			o, ok := f.Old.Functions[uint32(oid)]
			n := f.New.Functions[uint32(oid)]
			if err != nil || !ok || n.Name == o.Name && n.Args == o.Args {
				continue
			}
			out = append(out, Finding{
				Level: Block, On: OnOld, Database: d.Name, Object: t.Name,
				Says: fmt.Sprintf("%s is made over function %s, which PostgreSQL %s does not have with these types (anyarray and anyelement became anycompatiblearray and anycompatible in 14): it cannot be made on new", t.Name, o.Name, f.newMajor()),
				Fix:  "make it anew on old over plain types (text[] and text, say), or drop it there and make it on new over anycompatiblearray",
			})
		}
	}
	return out
}

// judgeRemovedInBodies: a body is not looked at when its function is made; it
// fails when it is called.
func judgeRemovedInBodies(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		for _, t := range d.things("body") {
			out = append(out, Finding{
				Level: Warn, On: OnOld, Database: d.Name, Object: t.Name,
				Says: fmt.Sprintf("the body of function %s calls %s, which PostgreSQL %s does not have: it is carried over, and fails when it is called", t.Name, t.Detail, f.newMajor()),
				Fix:  "change it on new once prepare has made it, or on old so that it asks server_version_num",
			}.among("%s whose bodies call what PostgreSQL "+f.newMajor()+" does not have: they are carried over, and fail when they are called", "function", []string{"calls"}, t.Detail))
		}
	}
	return out
}

// judgeRemovedColumns: columns of system views that have gone or moved.
func judgeRemovedColumns(f *Facts) []Finding {
	if !f.New.ok() || f.New.Columns == nil {
		return nil
	}
	relations := map[string]bool{}
	for c := range f.New.Columns {
		relations[c[:strings.LastIndexByte(c, '.')]] = true
	}
	var out []Finding
	for _, d := range f.Databases {
		missing := map[string][]string{} // view → what it reads
		for _, t := range d.things("view-column") {
			switch {
			case !relations[t.Detail]:
				missing[t.Name] = append(missing[t.Name], t.Detail)
			case !f.New.Columns[t.Detail+"."+t.More]:
				missing[t.Name] = append(missing[t.Name], t.Detail+"."+t.More)
			}
		}
		for _, view := range slices.Sorted(maps.Keys(missing)) {
			out = append(out, Finding{
				Level: Block, On: OnOld, Database: d.Name, Object: view,
				Says: fmt.Sprintf("view %s reads %s, which PostgreSQL %s does not have: it cannot be made on new", view, strings.Join(slices.Compact(missing[view]), ", "), f.newMajor()),
				Fix:  lines("drop it on old, and make it on new by what is there instead:", "DROP VIEW "+view+";"),
			}.among("%s that read what PostgreSQL "+f.newMajor()+" does not have: they cannot be made on new", "view", []string{"reads"}, strings.Join(slices.Compact(missing[view]), ", ")))
		}
	}
	return out
}

func judgeNotImmutable(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		for _, t := range d.things("mutable") {
			out = append(out, Finding{
				Level: Block, On: OnOld, Database: d.Name, Object: t.Name,
				Says: fmt.Sprintf("%s computes what is not immutable any more in PostgreSQL %s (an interval as text depends on IntervalStyle, from 15 on): it cannot be made on new", t.Name, f.newMajor()),
				Fix:  "compute it by a function of your own that is IMMUTABLE and sets what it depends on, or store what it computes",
			}.among("%s that compute what is not immutable any more in PostgreSQL "+f.newMajor()+" (an interval as text depends on IntervalStyle, from 15 on): they cannot be made on new", "object", nil))
		}
	}
	return out
}

func judgeTableOIDs(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		for _, t := range d.things("oids") {
			out = append(out, Finding{
				Level: Warn, On: OnOld, Database: d.Name, Object: t.Name,
				Says: fmt.Sprintf("table %s was made WITH OIDS, which PostgreSQL 12 removed: column oid is not carried over", t.Name),
				Fix:  "ALTER TABLE " + t.Name + " SET WITHOUT OIDS; once nothing reads that column (it rewrites the table)",
			}.among("%s made WITH OIDS, which PostgreSQL 12 removed: column oid is not carried over", "table", nil))
		}
	}
	return out
}
