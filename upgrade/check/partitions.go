package check

import (
	"fmt"
	"strings"
	"time"

	"crossfade/upgrade/pg"
)

var partitionChecks = []Check{
	{ID: "partition-horizon", Title: "No partition will be made during the upgrade", Levels: onlyWarn, Acceptable: true, Judge: judgeHorizon},
	{ID: "enum-hash-partitions", Title: "No table is partitioned by the hash of an enum, of a reg type, or of what is made of them", Levels: onlyBlock, Judge: judgeEnumHash},
	{ID: "unlogged-partitioned", Title: "No partitioned table is unlogged", Levels: onlyBlock, Judge: judgeUnloggedRoots},
}

// Partitions that end within soon make somebody make the next ones during the
// upgrade; those that ended long ago have nobody who does.
const (
	soon    = 7 * 24 * time.Hour
	longAgo = 60 * 24 * time.Hour
	ahead   = 14 * 24 * time.Hour // how far the fix makes them
	mostNew = 60                  // and how many at most
)

// judgeHorizon: a partition that is made on old after prepare is in no set: its
// rows are missing on new until prepare is run again.
func judgeHorizon(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		for _, t := range d.things("horizon") {
			from, to, ok := bounds(t.More)
			if !ok || to.After(f.At.Add(soon)) || to.Before(f.At.Add(-longAgo)) {
				continue
			}
			out = append(out, Finding{
				Level: Warn, On: OnOld, Database: d.Name, Object: t.Name,
				Says: fmt.Sprintf("the last of %s of %s ends at %s: the next one, made during the upgrade, is a table that is in no set, and its rows are missing on new until prepare is run again",
					count(t.N, "partition"), t.Name, to.Format("2006-01-02 15:04 UTC")),
				Fix: lines("make the coming ones now, on old, and pause the job that makes them:", d.coming(t, from, to, f.At.Add(ahead))),
			}.among("%s whose last partition ends soon: the next one, made during the upgrade, is a table that is in no set, and its rows are missing on new until prepare is run again", "table", []string{"partitions", "the last ends at"}, fmt.Sprint(t.N), to.Format("2006-01-02 15:04 UTC")))
		}
	}
	return out
}

func bounds(more string) (from, to time.Time, ok bool) {
	a, b, _ := strings.Cut(more, " ")
	from, err1 := time.Parse(time.RFC3339, a)
	to, err2 := time.Parse(time.RFC3339, b)
	return from, to, err1 == nil && err2 == nil && to.After(from)
}

// coming are the statements that make the partitions after the last one, as
// wide as that, until a time.
func (d DatabaseFacts) coming(t Thing, from, to, until time.Time) string {
	taken := map[string]bool{}
	if d.Inventory != nil {
		for _, x := range d.Inventory.Tables {
			taken[x.Name] = true
		}
	}
	schemaName, root := unquote(t.Name)
	next := step(from, to)
	var out []string
	for len(out) < mostNew && !to.After(until) {
		end := next(to)
		name := root + to.Format("_20060102")
		if end.Sub(to) < 24*time.Hour {
			name += to.Format("1504")
		}
		for taken[name] {
			name += "_"
		}
		out = append(out, fmt.Sprintf("CREATE TABLE %s PARTITION OF %s FOR VALUES FROM (%s) TO (%s);", pg.Ident(schemaName, name), t.Name, bound(t.Detail, to), bound(t.Detail, end)))
		to = end
	}
	return strings.Join(out, "\n")
}

// step is how the end of one partition follows from that of the one before:
// whole months stay whole months.
func step(from, to time.Time) func(time.Time) time.Time {
	months := int(to.Month()) - int(from.Month()) + 12*(to.Year()-from.Year())
	if months > 0 && from.AddDate(0, months, 0).Equal(to) && from.Day() == to.Day() {
		return func(t time.Time) time.Time { return t.AddDate(0, months, 0) }
	}
	width := to.Sub(from)
	return func(t time.Time) time.Time { return t.Add(width) }
}

func bound(kind string, t time.Time) string {
	switch kind {
	case "date":
		return t.Format("'2006-01-02'")
	case "timestamp with time zone":
		return t.Format("'2006-01-02 15:04:05.999999+00'")
	}
	return t.Format("'2006-01-02 15:04:05.999999'")
}

// unquote takes a qualified name apart that quote_ident has put together.
func unquote(name string) (schemaName, table string) {
	var parts []string
	var b strings.Builder
	quoted := false
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c == '"' && quoted && i+1 < len(name) && name[i+1] == '"':
			b.WriteByte('"')
			i++
		case c == '"':
			quoted = !quoted
		case c == '.' && !quoted:
			parts = append(parts, b.String())
			b.Reset()
		default:
			b.WriteByte(c)
		}
	}
	parts = append(parts, b.String())
	if len(parts) < 2 {
		return "public", parts[0]
	}
	return parts[0], parts[1]
}

// judgeEnumHash: the hash of an enum's value is that of its OID, and so it is for
// a reg type and for whatever is made of such, at any depth; it is another one on new, so that the leaf that a row is in on old refuses it there.
func judgeEnumHash(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		for _, t := range d.things("enum-hash") {
			out = append(out, Finding{
				Level: Block, On: OnOld, Database: d.Name, Object: t.Name,
				Says: fmt.Sprintf("table %s is partitioned by the hash of column %s (type %s), which is made of OIDs: its values have other hashes on new, whose partitions would refuse the rows that the same partitions of old hold", t.Name, t.Detail, t.More),
				Fix:  "partition it by list of that column, or by the hash of a column of another type; or exclude its partitions in the runbook and carry them over yourself (pg_dump --load-via-partition-root)",
			}.among("%s partitioned by the hash of a column that is made of OIDs: its values have other hashes on new, whose partitions would refuse the rows that the same partitions of old hold", "table", []string{"column", "type"}, t.Detail, t.More))
		}
	}
	return out
}

// judgeUnloggedRoots: what UNLOGGED says of a partitioned table never meant
// anything, and from 18 on it is refused.
func judgeUnloggedRoots(f *Facts) []Finding {
	if !f.New.ok() || f.New.Major() < 18 {
		return nil
	}
	var out []Finding
	for _, d := range f.Databases {
		if d.Inventory == nil {
			continue
		}
		for _, t := range d.Inventory.Tables {
			if t.Kind != 'p' || t.Persistence != 'u' {
				continue
			}
			out = append(out, Finding{
				Level: Block, On: OnOld, Database: d.Name, Object: t.String(),
				Says: fmt.Sprintf("partitioned table %s is UNLOGGED, which PostgreSQL 18 refuses: it cannot be made on new (its partitions are what they are by themselves)", t),
				Fix:  fmt.Sprintf("make it anew without UNLOGGED: CREATE TABLE … (LIKE %s INCLUDING ALL) PARTITION BY …, then DETACH its partitions and ATTACH them to that", t),
			})
		}
	}
	return out
}
