package check

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/pg"
)

var identityChecks = []Check{
	{ID: "replica-identity", Title: "Every table that is updated can be: it has a replica identity", Levels: onlyBlock, Judge: judgeIdentity},
	{ID: "replica-identity-equality", Title: "REPLICA IDENTITY FULL only where every column can be compared", Levels: onlyBlock, Judge: judgeEquality},
	{ID: "identity-generated", Title: "No replica identity needs a generated column", Levels: onlyBlock, Judge: judgeGenerated},
	{ID: "replica-identity-full", Title: "REPLICA IDENTITY FULL costs little on new", Levels: blockWarnNote, Acceptable: true, Judge: judgeFull},
	{ID: "identity-lost", Title: "Tables have the same replica identity on both sides", Levels: onlyWarn, Acceptable: true, Judge: judgeLost},
	{ID: "identity-order", Title: "The identities that the runbook orders can be had", Levels: onlyBlock, Judge: judgeOrders},
	{ID: "excluded-tables", Title: "Every table is moved", Levels: onlyNote, Acceptable: true, Judge: judgeExcluded},
	{ID: "foreign-key-excluded", Title: "No moved table refers to one that stays on old", Levels: onlyBlock, Judge: judgeForeignKeyExcluded},
}

// ordered is the identity of a table once prepare has done what the runbook
// orders. Index orders are judged by judgeOrders.
func (d DatabaseFacts) ordered(t schema.Table) schema.Identity {
	id := t.Identity
	order := d.Want.order(t)
	switch {
	case order == "":
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
		for _, x := range d.Indexes[t.String()] {
			if x.Name == id.Index {
				id.Columns = x.Columns
			}
		}
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

// Index is an index of a table whose rows are not found by its primary key.
type Index struct {
	Name   string
	Unique bool
	Why    string // why it cannot be a replica identity; "" where it can
	// Method is its access method where it is valid, whole and begins with a
	// column; "" where apply can never use it.
	Method string
	// Distinct is how many values its first column has: less than 0 as a part of
	// the rows, 0 not known.
	Distinct float64
	// Columns are those of its key, in its order.
	Columns []string
}

// Narrowed is a publication with UPDATE or DELETE that publishes less than the whole
// of a table. PostgreSQL refuses both to the application where the replica identity
// has a column that is not published, FULL where any columns are named; and where
// the row filter reads a column that the identity has not.
type Narrowed struct {
	Publication string
	Columns     []string // that are published; nil is all
	Filter      []string // that the row filter reads
}

// refuses is why n makes PostgreSQL refuse UPDATE and DELETE of a table with an
// identity, of these columns where its kind is not FULL; "" where it does not.
func (n Narrowed) refuses(kind byte, columns []string) string {
	if kind == 'f' {
		if n.Columns == nil {
			return ""
		}
		return fmt.Sprintf("publication %s publishes only columns %s of it, and FULL needs all", schema.Name(n.Publication), columnNames(n.Columns))
	}
	lacks := func(of, in []string) []string {
		return slices.DeleteFunc(slices.Clone(of), func(c string) bool { return slices.Contains(in, c) })
	}
	if n.Columns != nil {
		if not := lacks(columns, n.Columns); len(not) > 0 {
			return fmt.Sprintf("publication %s does not publish column %s of it", schema.Name(n.Publication), columnNames(not))
		}
	}
	if not := lacks(n.Filter, columns); len(not) > 0 {
		return fmt.Sprintf("the row filter of publication %s reads column %s, which the index has not", schema.Name(n.Publication), columnNames(not))
	}
	return ""
}

func columnNames(columns []string) string {
	out := make([]string, len(columns))
	for i, c := range columns {
		out[i] = schema.Name(c)
	}
	return strings.Join(out, ", ")
}

func judgeIdentity(f *Facts) []Finding {
	var out []Finding
	orders := f.orders()
	f.published(func(d DatabaseFacts, t schema.Table, id schema.Identity) {
		if id.Usable || id.Kind == 'f' {
			return
		}
		why := id.Why
		for _, x := range d.Indexes[t.String()] {
			if x.Unique && x.Why != "" && !strings.Contains(why, x.Name) {
				why += fmt.Sprintf(", and its unique index %s cannot serve (%s)", schema.Name(x.Name), x.Why)
			}
		}
		fix, or := "ALTER TABLE ONLY "+t.SQL()+" REPLICA IDENTITY ", fmt.Sprintf("or in the runbook, for the time of the upgrade: identity: {%s: full}; best is a primary key", t)
		if id.Candidate != "" {
			fix += "USING INDEX " + pg.Ident(id.Candidate) + ";"
			or = fmt.Sprintf("or in the runbook, for the time of the upgrade: identity: {%s: index:%s}", t, id.Candidate)
		} else {
			fix += "FULL;"
		}
		if i := slices.IndexFunc(t.Columns, func(c schema.Column) bool { return !c.Equality && c.Generated == 0 }); i >= 0 && id.Candidate == "" {
			// FULL would only exchange this finding for another one.
			fix, or = "give it a primary key, or a unique index over NOT NULL columns", fmt.Sprintf("REPLICA IDENTITY FULL cannot serve: column %s has type %s, which has no equality", schema.Name(t.Columns[i].Name), t.Columns[i].Type)
		}
		if i := slices.IndexFunc(t.Columns, func(c schema.Column) bool { return c.Generated != 0 }); i >= 0 && id.Candidate == "" && f.strictGenerated() {
			fix, or = "give it a primary key, or a unique index over NOT NULL columns, without generated columns", fmt.Sprintf("REPLICA IDENTITY FULL cannot serve: column %s is generated (identity-generated)", schema.Name(t.Columns[i].Name))
		}
		found := Finding{
			Level: Block, On: OnOld, Database: d.Name, Object: t.String(),
			Says: fmt.Sprintf("table %s cannot be published: %s. Every UPDATE and DELETE of it by the application would fail from the moment the publication exists", t, why),
			Fix:  lines(fix, or),
		}
		const would = "%s cannot be published: every UPDATE and DELETE of them by the application would fail from the moment the publication exists. "
		switch {
		case id.Candidate != "":
			found = found.among(would+"An index of each can serve", "table", []string{"why", "index"}, why, id.Candidate).fixedBy(orders.fix)
		case strings.HasSuffix(fix, ";"):
			found = found.among(would+"None has an index that could serve", "table", []string{"why"}, why).fixedBy(orders.fix)
		default:
			found = found.among(would+"REPLICA IDENTITY FULL cannot serve either", "table", []string{"why", "FULL"}, why, or).fixedBy(firstLines)
		}
		out = append(out, found)
	})
	return out
}

// orders are the schemas of each database with a table that an index could serve,
// by the database's name.
type orders map[string][]string

func (f *Facts) orders() orders {
	all := orders{}
	f.published(func(d DatabaseFacts, t schema.Table, id schema.Identity) {
		if name := schema.Name(t.Schema); !id.Usable && id.Kind != 'f' && id.Candidate != "" && !slices.Contains(all[d.Name], name) {
			all[d.Name] = append(all[d.Name], name)
		}
	})
	return all
}

// fix is that of tables without a key: a pattern for each schema in the runbook,
// the same whether an index can serve or not, or a statement for each table.
func (o orders) fix(all []Finding) string {
	var patterns []string
	byIndex := false
	for _, f := range all {
		schema, what := f.Object[:schemaEnd(f.Object)], "full"
		if slices.Contains(o[f.Database], schema) {
			what, byIndex = "index", true
		}
		if p := fmt.Sprintf("%q: %s", schema+".*", what); !slices.Contains(patterns, p) {
			patterns = append(patterns, p)
		}
	}
	says := "best is a primary key for each; else in the runbook, for the time of the upgrade. Such a pattern is for those of its tables that have no key"
	if byIndex {
		says += "; index is the index that can serve, and full where there is none"
	}
	return lines(says+":", "identity: {"+strings.Join(patterns, ", ")+"}", "or on old:", firstLines(all))
}

// firstLines are the first lines of the fixes alone: what follows stands in the table.
func firstLines(all []Finding) string {
	own := slices.Clone(all)
	for i := range own {
		own[i].Fix, _, _ = strings.Cut(own[i].Fix, "\n")
	}
	return fixes(own)
}

// schemaEnd is where the schema of a table's name ends, quoted or not.
func schemaEnd(name string) int {
	quoted := false
	for i, c := range name {
		switch {
		case c == '"':
			quoted = !quoted
		case c == '.' && !quoted:
			return i
		}
	}
	return len(name)
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
		}.among("%s would stop their whole sets on new with the first UPDATE or DELETE", "table", []string{"why"}, id.Why))
	})
	return out
}

// judgeGenerated: values of generated columns do not travel, so that no row is
// found by them on the other side. A server of 18 and later refuses UPDATE and
// DELETE of a published table whose replica identity, FULL included, has a
// generated column that is not published; and no subscriber takes such a column
// for one that is generated there, too.
func judgeGenerated(f *Facts) []Finding {
	var out []Finding
	f.published(func(d DatabaseFacts, t schema.Table, id schema.Identity) {
		switch id.Kind {
		case 'd', 'i':
			column := t.GeneratedOf(id.Columns)
			if column == "" {
				return
			}
			fix := "give it a primary key, or a unique index over NOT NULL columns, without generated columns, and make that its replica identity"
			if !f.strictGenerated() {
				fix = "in the runbook, for the time of the upgrade: identity: {" + t.String() + ": full}; or " + fix
			}
			if t.Identity.Candidate != "" {
				fix = "ALTER TABLE ONLY " + t.SQL() + " REPLICA IDENTITY USING INDEX " + pg.Ident(t.Identity.Candidate) + ";"
			}
			out = append(out, Finding{
				Level: Block, On: OnOld, Database: d.Name, Object: t.String(),
				Says: fmt.Sprintf("table %s: its replica identity %s has the generated column %s, whose values do not travel: the first UPDATE or DELETE would stop its whole set", t, schema.Name(id.Index), schema.Name(column)),
				Fix:  fix,
			}.among("%s whose replica identity has a generated column, whose values do not travel: the first UPDATE or DELETE would stop their whole sets", "table", []string{"index", "column"}, id.Index, column))
		case 'f':
			i := slices.IndexFunc(t.Columns, func(c schema.Column) bool { return c.Generated != 0 })
			if i < 0 || !f.strictGenerated() {
				return
			}
			fix := lines("give it a primary key, or a unique index over NOT NULL columns, without generated columns, and make that its replica identity (identity: in the runbook)",
				"or do without the way back: cutover: {back: false}")
			if id.Candidate != "" {
				fix = lines("ALTER TABLE ONLY "+t.SQL()+" REPLICA IDENTITY USING INDEX "+pg.Ident(id.Candidate)+";", "and take it out of identity: in the runbook")
			}
			out = append(out, Finding{
				Level: Block, On: OnOld, Database: d.Name, Object: t.String(),
				Says: fmt.Sprintf("table %s: its replica identity is FULL, and column %s is generated: where PostgreSQL 18 or later publishes it, every UPDATE and DELETE of it by the application fails", t, schema.Name(t.Columns[i].Name)),
				Fix:  fix,
			}.among("%s with REPLICA IDENTITY FULL and a generated column: where PostgreSQL 18 or later publishes them, every UPDATE and DELETE of them by the application fails", "table", []string{"column"}, t.Columns[i].Name))
		}
	})
	return out
}

// strictGenerated says whether a server that publishes refuses UPDATE and DELETE
// where FULL has a generated column.
func (f *Facts) strictGenerated() bool {
	const since = 18
	return f.Old.ok() && f.Old.Major() >= since || f.Want.Back && f.New.ok() && f.New.Major() >= since
}

// What finding a row costs the apply worker where REPLICA IDENTITY is FULL:
// fullRowNanos for each row that it looks at (500 updates of a table of 200,000
// rows took 2.5 to 3.3 s on 14 to 18), and fullIndexNanos where an index leads
// there (67 to 79 ms on 16 to 18).
const (
	fullRowNanos   = 30
	fullIndexNanos = 150_000
)

// applies is which index methods apply uses under FULL on a major.
func applies(major int, method string) bool {
	return method == "btree" && major >= 16 || method == "hash" && major >= 17
}

// fullCost is how long one UPDATE or DELETE of t takes to be applied, and by
// which index; "" reads the table. Which of several indexes is taken depends on
// their OIDs on new: the worst one counts.
func (d DatabaseFacts) fullCost(t schema.Table, major int) (cost time.Duration, index string) {
	count := float64(max(t.Rows, 0))
	for _, x := range d.Indexes[t.String()] {
		if !applies(major, x.Method) {
			continue
		}
		distinct := x.Distinct
		if distinct < 0 {
			distinct *= -count
		}
		looks := count
		if distinct >= 1 {
			looks = count / distinct
		}
		if by := time.Duration(looks*fullRowNanos + fullIndexNanos); by > cost {
			cost, index = by, x.Name
		}
	}
	if index == "" {
		cost = time.Duration(count * fullRowNanos)
	}
	return cost, index
}

// shortest is how long statistics must have been counted for a rate.
const shortest = time.Hour

// How much of one apply worker's time a table under FULL may take: from
// noticeable on it is a warning, from hopeless on its set never catches up.
const (
	noticeable = 0.1
	hopeless   = 1
)

// judgeFull: without any index that the apply worker can use, each UPDATE and
// DELETE reads the table. A primary key on new serves even where old is FULL;
// other indexes from 16 on.
func judgeFull(f *Facts) []Finding {
	major := newestNew
	if f.New.ok() {
		major = f.New.Major()
	}
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
			}.among("%s with REPLICA IDENTITY FULL though an index could serve: each UPDATE and DELETE writes the whole old row into the WAL", "table", []string{"index"}, id.Candidate))
			return
		}
		out = append(out, f.full(d, t, major))
	})
	return out
}

// full is the finding of a table under FULL that has no key.
func (f *Facts) full(d DatabaseFacts, t schema.Table, major int) Finding {
	cost, index := d.fullCost(t, major)
	how, by := "reads the table for its row", "reading the table"
	if index != "" {
		how, by = "looks for its row by index "+schema.Name(index), "index "+schema.Name(index)
	}
	level, says, each := Note, fmt.Sprintf("table %s has REPLICA IDENTITY FULL and no unique index: on new each UPDATE and DELETE %s", t, how), ""
	if cost >= 100*time.Microsecond {
		each = fmt.Sprintf("%.1f ms", float64(cost.Microseconds())/1000)
		says += fmt.Sprintf(" (%d rows: about %s each)", t.Rows, each)
	}
	changes, counted, often := t.Updates+t.Deletes, f.At.Sub(d.StatsSince), ""
	switch {
	case changes == 0:
	case d.StatsSince.IsZero() || counted < shortest:
		often = fmt.Sprint(changes)
		says += fmt.Sprintf("; old counts %d of them since its statistics were reset", changes)
		if t.Rows >= 10_000 && index == "" {
			level = Warn
		}
	default:
		busy := float64(changes) * cost.Seconds() / counted.Seconds()
		hourly, share := float64(changes)/counted.Hours(), fmt.Sprintf("%.2g %% of one worker's time", 100*busy)
		often = fmt.Sprintf("%.0f an hour: %s", hourly, share)
		says += fmt.Sprintf("; old makes %.0f of them an hour (%d since %s): %s", hourly, changes, d.StatsSince.UTC().Format("2006-01-02 15:04 UTC"), share)
		switch {
		case busy >= hopeless:
			level = Block
			often += ", so that its set would never catch up"
			says += ", so that its set would never catch up"
		case busy >= noticeable:
			level = Warn
		}
	}
	fix := "give it a primary key"
	if major >= 16 && index == "" {
		fix += orIndex
		if column := d.Telling[t.String()]; column != "" && level != Note {
			fix = lines(fix+":", "CREATE INDEX CONCURRENTLY ON "+t.SQL()+" ("+pg.Ident(column)+");")
		}
	}
	return Finding{Level: level, On: OnOld, Database: d.Name, Object: t.String(), Says: says, Fix: fix}.
		among("%s with REPLICA IDENTITY FULL and no unique index: on new each UPDATE and DELETE has to look for its row", "table",
			[]string{"rows", "found by", "each about", "updates and deletes"}, rowCount(t.Rows), by, each, often).fixedBy(giveKeys)
}

const orIndex = ", or an index on a selective column, which apply on 16 and later uses"

// giveKeys is the fix of several tables under FULL without a key.
func giveKeys(all []Finding) string {
	own, says := slices.Clone(all), "give each a primary key"
	for i := range own {
		if strings.Contains(own[i].Fix, orIndex) {
			says = "give each a primary key" + orIndex
		}
		_, own[i].Fix, _ = strings.Cut(own[i].Fix, "\n")
	}
	sql := fixes(own)
	if sql != "" {
		says += ":"
	}
	return lines(says, sql)
}

func rowCount(n int64) string {
	if n < 0 {
		return "not known"
	}
	return fmt.Sprint(n)
}

func judgeOrders(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		if d.Inventory == nil {
			continue
		}
		for _, t := range d.Inventory.Tables {
			order := d.Want.order(t)
			if order == "" {
				continue
			}
			if x, ok := d.noSuchIdentity(t, order); ok {
				out = append(out, x)
			} else if x, ok := d.refusedIdentity(t, f.ours); ok {
				out = append(out, x)
			}
		}
	}
	return out
}

// noSuchIdentity is an order of an index that cannot be the identity of t.
func (d DatabaseFacts) noSuchIdentity(t schema.Table, order string) (Finding, bool) {
	name, isIndex := strings.CutPrefix(order, "index:")
	if !isIndex {
		return Finding{}, false
	}
	why := "there is no such index on it"
	all := d.Indexes[t.String()]
	if i := slices.IndexFunc(all, func(x Index) bool { return x.Name == name }); i >= 0 {
		why = all[i].Why
	}
	fix := "name a unique index in the runbook that is whole, valid, not deferrable, and over NOT NULL columns"
	if c := t.Identity.Candidate; c != "" {
		fix = fmt.Sprintf("in the runbook: identity: {%s: index:%s}", t, c)
	}
	return Finding{
		Level: Block, On: OnOld, Database: d.Name, Object: t.String(),
		Says: fmt.Sprintf("the runbook orders index %s as identity of %s, which cannot be: %s", schema.Name(name), t, why), Fix: fix,
	}, why != ""
}

// refusedIdentity is an order under which PostgreSQL would refuse the application's
// UPDATE and DELETE of t, as it does not now, for a publication that is not ours.
func (d DatabaseFacts) refusedIdentity(t schema.Table, ours func(string) bool) (Finding, bool) {
	if t.Identity.Kind != 'f' && t.Identity.Index == "" {
		return Finding{}, false // they are refused already
	}
	id := d.ordered(t)
	for _, n := range d.Narrowed[t.String()] {
		why := n.refuses(id.Kind, id.Columns)
		if why == "" || ours(n.Publication) || n.refuses(t.Identity.Kind, t.Identity.Columns) != "" {
			continue
		}
		return Finding{
			Level: Block, On: OnOld, Database: d.Name, Object: t.String(),
			Says: fmt.Sprintf("the runbook orders another identity of %s, under which every UPDATE and DELETE of it by the application would fail: %s", t, why),
			Fix:  "take the table out of identity: in the runbook, if it has a key; or for the time of the upgrade let that publication publish all columns, without a row filter",
		}.among("the runbook orders another identity of %s, under which every UPDATE and DELETE by the application would fail", "table", []string{"why"}, why), true
	}
	return Finding{}, false
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
				}.among("%s excluded by the runbook: on new they are there and empty", "table", nil))
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
