package schema

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// Compare is Diff after want's definitions were respelled as new's server
// spells them: what it returns as different is different in meaning. conn is a
// session on new, in the database of got; nothing is left there.
func Compare(ctx context.Context, conn *pgx.Conn, want, got *Inventory) ([]Difference, error) {
	respelled, err := Respell(ctx, conn, lend(want, got), got)
	if err != nil {
		return nil, err
	}
	return Diff(respelled, got), nil
}

// Respell returns want with those definitions that differ from got's as text
// written as conn's server, which got was read from, spells them: majors put
// names and casts differently, and even one server spells a check of a varchar
// in another way once it was dumped and restored. Each such definition is made
// there as a temporary object and read back, in a transaction that is rolled
// back; what the server refuses stays as it was. want is not changed.
func Respell(ctx context.Context, conn *pgx.Conn, want, got *Inventory) (*Inventory, error) {
	type place struct {
		object   int
		property string
		spell    respelling
	}
	var places []place
	var items []respelling
	i := 0
	for n, w := range want.Objects {
		for i < len(got.Objects) && compareObjects(got.Objects[i], w) < 0 {
			i++
		}
		if i == len(got.Objects) || compareObjects(got.Objects[i], w) != 0 {
			continue
		}
		for _, p := range w.Properties {
			if g := got.Objects[i].Property(p.Name); !p.compared() || g == "" || g == p.Value {
				continue
			}
			if s, ok := respellable(w, p, got.Objects[i], got); ok {
				places = append(places, place{n, p.Name, s})
				items = append(items, s)
			}
		}
	}
	if len(items) == 0 {
		return want, nil
	}
	spelled, err := respell(ctx, conn, items)
	if err != nil {
		return nil, fmt.Errorf("see how new spells %d definitions of database %s: %w", len(items), want.Database, err)
	}
	out := *want
	out.Objects = slices.Clone(want.Objects)
	for k, p := range places {
		if spelled[k] == "" {
			continue
		}
		o := &out.Objects[p.object]
		o.Properties = slices.Clone(o.Properties)
		for m := range o.Properties {
			if o.Properties[m].Name == p.property {
				o.Properties[m].Value = p.spell.finish(spelled[k])
			}
		}
	}
	return &out, nil
}

// respelling is one definition to be made and looked at.
type respelling struct {
	Make []string
	Look string

	// Of a definition that names its own table: the word in front of the
	// name, and what stood up to the end of the name.
	mark, head string
}

// finish puts the object's own table back where the temporary one stands.
func (r respelling) finish(spelled string) string {
	if r.mark == "" {
		return spelled
	}
	_, _, end, ok := named(spelled, r.mark)
	if !ok {
		return spelled
	}
	return r.head + spelled[end:]
}

// named finds the qualified name after the first mark (and ONLY) in sql.
func named(sql, mark string) (parts []string, start, end int, ok bool) {
	for _, s := range statements(sql) {
		n := s.after(mark)
		if n < 0 || n >= len(s.tokens) {
			continue
		}
		if s.is(n, "ONLY") {
			n++
		}
		parts, after := s.name(n)
		if len(parts) == 0 {
			return nil, 0, 0, false
		}
		return parts, s.tokens[n].start, s.tokens[after-1].end, true
	}
	return nil, 0, 0, false
}

// probe is the name of the temporary objects.
const probe = "crossfade_probe"

// respellable is how to have property p of object o respelled; false where its
// text means the same on every major. there is the same object on new.
func respellable(o Object, p Property, there Object, got *Inventory) (respelling, bool) {
	if strings.HasPrefix(p.Name, "default ") {
		return respelling{
			Make: []string{"CREATE FUNCTION pg_temp." + probe + "(" + there.Property("~"+p.Name) + " DEFAULT " + p.Value + ") RETURNS void LANGUAGE sql AS ''"},
			Look: "SELECT pg_get_function_arg_default(oid, 1) FROM pg_proc WHERE proname = '" + probe + "' AND pronamespace = pg_my_temp_schema()",
		}, true
	}
	switch o.Kind + "/" + p.Name {
	case "view/definition", "materialized view/definition":
		return respelling{
			Make: []string{"CREATE TEMP VIEW " + probe + " AS " + p.Value},
			Look: "SELECT pg_get_viewdef('pg_temp." + probe + "'::regclass)",
		}, true
	case "table/partition key":
		parts, _ := identifiers(o.Name)
		return respelling{
			Make: []string{"CREATE TEMP TABLE " + probe + " (LIKE " + pg.Ident(parts...) + ") PARTITION BY " + p.Value},
			Look: "SELECT pg_get_partkeydef('pg_temp." + probe + "'::regclass)",
		}, true
	case "index/definition":
		return respellOn(p.Value, "ON", "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = '%s'::regclass")
	case "trigger/definition":
		return respellOn(p.Value, "ON", "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = '%s'::regclass")
	case "rule/definition":
		return respellOn(p.Value, "TO", "SELECT pg_get_ruledef(oid) FROM pg_rewrite WHERE ev_class = '%s'::regclass")
	case "statistics/definition":
		return respellStatistics(p.Value)
	case "column/default", "column/generated":
		return respellColumn(o, p, there)
	case "constraint/definition", "policy/using", "policy/with check":
		return respellOnTable(o, p)
	case "domain constraint/definition", "type/default":
		return respellDomain(o, p, got)
	case "function/body", "procedure/body":
		return respellBody(o, p, there)
	case "collation/locale":
		return respellCollation(o, p)
	}
	return respelling{}, false
}

// like makes a temporary table of the same name and columns as table.
func like(table []string) (ddl, name string) {
	name = pg.Ident("pg_temp", table[len(table)-1])
	return "CREATE TEMP TABLE " + pg.Ident(table[len(table)-1]) + " (LIKE " + pg.Ident(table...) + ")", name
}

// respellOn is for definitions that are whole statements about a table.
func respellOn(definition, mark, look string) (respelling, bool) {
	table, start, end, ok := named(definition, mark)
	if !ok {
		return respelling{}, false
	}
	ddl, name := like(table)
	if strings.Contains(definition[:start], " INSTEAD OF ") { // such triggers are on views
		ddl = "CREATE TEMP VIEW " + pg.Ident(table[len(table)-1]) + " AS SELECT * FROM " + pg.Ident(table...)
	}
	front := definition[:start]
	if only := strings.LastIndex(front, mark+" ONLY "); only >= 0 && only == len(front)-len(mark+" ONLY ") {
		front = front[:only] + mark + " " // a temporary table has no partitions
	}
	return respelling{
		Make: []string{ddl, front + name + definition[end:]},
		Look: strings.Replace(look, "'%s'", pg.Literal(name), 1),
		mark: mark, head: definition[:end],
	}, true
}

func respellStatistics(definition string) (respelling, bool) {
	_, start, end, ok := named(definition, "STATISTICS")
	if !ok {
		return respelling{}, false
	}
	own := definition[:start] + "pg_temp." + probe + definition[end:]
	table, tableStart, tableEnd, ok := named(own, "FROM")
	if !ok {
		return respelling{}, false
	}
	ddl, name := like(table)
	// Only what lies between the two names can be spelled in two ways.
	return respelling{
		Make: []string{ddl, own[:tableStart] + name + own[tableEnd:]},
		Look: fmt.Sprintf("SELECT %s || substring(d from '%s(.*) FROM ') || %s FROM pg_get_statisticsobjdef((SELECT oid FROM pg_statistic_ext WHERE stxrelid = %s::regclass)) d",
			pg.Literal(definition[:end]), probe, pg.Literal(" FROM "+own[tableStart:tableEnd]+own[tableEnd:]), pg.Literal(name)),
	}, true
}

func respellColumn(o Object, p Property, there Object) (respelling, bool) {
	parts, _ := identifiers(o.Name)
	if len(parts) != 3 {
		return respelling{}, false
	}
	ddl, name := like(parts[:2])
	look := "SELECT " + "pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = " + pg.Literal(name) + "::regclass"
	if p.Name == "default" {
		return respelling{Make: []string{ddl, "ALTER TABLE " + name + " ALTER COLUMN " + pg.Ident(parts[2]) + " SET DEFAULT " + p.Value}, Look: look}, true
	}
	how, expression, _ := strings.Cut(p.Value, " ")
	return respelling{
		Make: []string{ddl, "ALTER TABLE " + name + " ADD COLUMN " + probe + " " + there.Property("~type") + " GENERATED ALWAYS AS (" + expression + ") " + how},
		Look: strings.Replace(look, "pg_get_expr", "'"+how+" ' || pg_get_expr", 1),
	}, true
}

// identifiers reads a qualified name as Object.Name has it, and what follows.
func identifiers(name string) (parts []string, rest string) {
	all := statements(name)
	if len(all) == 0 {
		return nil, name
	}
	parts, n := all[0].name(0)
	if n < len(all[0].tokens) {
		rest = name[all[0].tokens[n].start:]
	}
	return parts, rest
}

// respellOnTable is for expressions about a table that o.Name ends with.
func respellOnTable(o Object, p Property) (respelling, bool) {
	_, rest := identifiers(o.Name)
	table, _ := identifiers(strings.TrimPrefix(rest, "on "))
	if len(table) != 2 {
		return respelling{}, false
	}
	ddl, name := like(table)
	of := pg.Literal(name) + "::regclass"
	switch {
	case o.Kind == "policy" && p.Name == "using":
		return respelling{
			Make: []string{ddl, "CREATE POLICY " + probe + " ON " + name + " USING (" + p.Value + ")"},
			Look: "SELECT pg_get_expr(polqual, polrelid) FROM pg_policy WHERE polrelid = " + of,
		}, true
	case o.Kind == "policy":
		return respelling{
			Make: []string{ddl, "CREATE POLICY " + probe + " ON " + name + " WITH CHECK (" + p.Value + ")"},
			Look: "SELECT pg_get_expr(polwithcheck, polrelid) FROM pg_policy WHERE polrelid = " + of,
		}, true
	case strings.HasPrefix(p.Value, "CHECK"), strings.HasPrefix(p.Value, "EXCLUDE"):
		return respelling{
			Make: []string{ddl, "ALTER TABLE " + name + " ADD CONSTRAINT " + probe + " " + p.Value},
			Look: "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = '" + probe + "' AND conrelid = " + of,
		}, true
	}
	return respelling{}, false
}

func respellDomain(o Object, p Property, got *Inventory) (respelling, bool) {
	domain := o.Name
	if o.Kind == "domain constraint" {
		_, rest := identifiers(o.Name)
		domain = strings.TrimPrefix(rest, "on ")
	}
	i, ok := slices.BinarySearchFunc(got.Objects, Object{Kind: "type", Name: domain}, compareObjects)
	if !ok || got.Objects[i].Property("~base") == "" {
		return respelling{}, false
	}
	create := "CREATE DOMAIN pg_temp." + probe + " AS " + got.Objects[i].Property("~base")
	if o.Kind == "type" {
		return respelling{
			Make: []string{create + " DEFAULT " + p.Value},
			Look: "SELECT coalesce(pg_get_expr(typdefaultbin, 0), typdefault) FROM pg_type WHERE oid = 'pg_temp." + probe + "'::regtype",
		}, true
	}
	return respelling{
		Make: []string{create + " CONSTRAINT " + probe + " " + strings.TrimSuffix(p.Value, " NOT VALID")},
		Look: fmt.Sprintf("SELECT pg_get_constraintdef(oid) || %s FROM pg_constraint WHERE contypid = 'pg_temp.%s'::regtype AND conname = '%s'",
			pg.Literal(p.Value[len(strings.TrimSuffix(p.Value, " NOT VALID")):]), probe, probe),
	}, true
}

func respellBody(o Object, p Property, there Object) (respelling, bool) {
	parts, _ := identifiers(o.Name)
	if len(parts) != 2 {
		return respelling{}, false
	}
	// Its own name: a body may say name.argument.
	create := "CREATE " + strings.ToUpper(o.Kind) + " " + pg.Ident("pg_temp", parts[1]) + "(" + there.Property("~arguments") + ")"
	if r := there.Property("~result"); r != "" && o.Kind == "function" {
		create += " RETURNS " + r
	}
	return respelling{
		Make: []string{"SET LOCAL check_function_bodies = off", create + " LANGUAGE sql " + p.Value},
		Look: "SELECT pg_get_function_sqlbody(oid) FROM pg_proc WHERE proname = " + pg.Literal(parts[1]) + " AND pronamespace = pg_my_temp_schema()",
	}, true
}

// respellCollation is for locales, which 16 and later write in the one form of
// BCP 47, whatever CREATE COLLATION says.
func respellCollation(o Object, p Property) (respelling, bool) {
	if o.Property("provider") != "i" {
		return respelling{}, false
	}
	create, look := probeLocale(p.Value)
	return respelling{Make: []string{create}, Look: look}, true
}

// probeLocale makes a collation of a locale of ICU, and reads how it is written.
func probeLocale(locale string) (create, look string) {
	return "CREATE COLLATION pg_temp." + probe + " (provider = icu, locale = " + pg.Literal(locale) + ")",
		"SELECT coalesce(to_jsonb(c)->>'colllocale', to_jsonb(c)->>'colliculocale', c.collcollate) FROM pg_collation c WHERE collname = '" + probe + "' AND collnamespace = pg_my_temp_schema()"
}

// Locale is how the server of conn writes a locale of ICU; as it is where it
// refuses it. Nothing is left there.
func Locale(ctx context.Context, conn *pgx.Conn, locale string) (string, error) {
	create, look := probeLocale(locale)
	spelled, err := respell(ctx, conn, []respelling{{Make: []string{create}, Look: look}})
	if err != nil {
		return "", fmt.Errorf("see how the server writes the locale %s: %w", locale, err)
	}
	return cmp.Or(spelled[0], locale), nil
}

// respell asks the server how it spells each item: "" where it refuses.
func respell(ctx context.Context, conn *pgx.Conn, items []respelling) (spelled []string, err error) {
	version, err := serverVersion(ctx, conn)
	if err != nil {
		return nil, err
	}
	var counts []int32
	var makes, looks []string
	for _, item := range items {
		counts, makes, looks = append(counts, int32(len(item.Make))), append(makes, item.Make...), append(looks, item.Look)
	}
	if err := pg.Exec(ctx, conn, "BEGIN; SET LOCAL quote_all_identifiers = on; SET LOCAL client_min_messages = error"); err != nil {
		return nil, err
	}
	defer func() {
		if !conn.IsClosed() {
			err = joinErr(err, pg.Exec(context.WithoutCancel(ctx), conn, "ROLLBACK"))
		}
	}()
	if err := pg.Exec(ctx, conn, query("respell", version)); err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, `SELECT n, coalesce(spelled, '') FROM pg_temp.crossfade_respell($1::int[], $2::text[], $3::text[])`, pgx.QueryExecModeExec, counts, makes, looks)
	if err != nil {
		return nil, err
	}
	spelled = make([]string, len(items))
	var n int
	var s string
	_, err = pgx.ForEachRow(rows, []any{&n, &s}, func() error { spelled[n-1] = s; return nil })
	return spelled, err
}
