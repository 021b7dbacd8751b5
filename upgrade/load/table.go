package load

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"

	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
)

// table is one table on its way, and how far it is.
type table struct {
	schema.Table
	o      *Options
	set    string
	filler string // the role with whose rights it is filled; "": the tool's own
	chunks []chunk

	mu      sync.Mutex
	left    int    // tasks to do
	node    string // which file on old the chunks are read from
	spoiled bool   // it was another one later
}

// copying is what copies one table. The statements are made when they are asked for: those of many
// tables are more than all the rest that is known of them.
type copying struct {
	// out and in are the two ends of the pipe. empty makes room on new. mark
	// says that the table is loaded. Where there are several chunks, emptied
	// says that there was made room, part that one of them is loaded, and unpart
	// takes these marks away.
	out, in, empty, mark, emptied, part, unpart flow.Effect
	holes                                       holes
}

// chunk is a range of pages; to is the first page after it.
type chunk struct{ from, to int64 }

// small is the size in bytes, toast included, below which a TRUNCATE costs more
// than FREEZE saves: it makes new files, and at its end the server looks through
// all of shared_buffers for pages of the old ones.
const small = 1 << 20

// last is after every page that a table can have: the last chunk takes what
// was added since the size was read.
const last = 1<<32 - 1

func tid(page int64) string { return fmt.Sprintf("(%d,0)", page) }

// work are the tables, in the order in which they are begun.
func (o Options) work() []*table {
	var work []*table
	for _, s := range o.Sets {
		for _, t := range s.Tables {
			work = append(work, o.table(s.Name, t))
		}
	}
	paths := make(map[*table]int64, len(work))
	for _, t := range work {
		paths[t] = o.path(t)
	}
	slices.SortStableFunc(work, func(a, b *table) int { return cmp.Compare(paths[b], paths[a]) })
	return work
}

func (o *Options) table(set string, t schema.Table) *table {
	w := &table{Table: t, o: o, set: set, filler: o.Filler(t, o.again), chunks: []chunk{{0, last}}}
	// To read a chunk is a query, and to plan one may run functions as well.
	if w.filler == "" && o.Version >= 140000 && t.Bytes > o.Chunk && len(copied(t)) > 0 {
		w.chunks = split(t.Pages, t.Bytes, o.Chunk)
	}
	return w
}

func (t *table) copying() (s copying) {
	o, single := t.o, len(t.chunks) == 1
	columns := copied(t.Table)
	list := strings.Join(columns, ", ")
	s.holes = newHoles(t.SQL() + list)

	format := "FORMAT text, ENCODING " + pg.Literal(o.Encoding)
	if t.Binary() && o.Encoding == "UTF8" && len(columns) > 0 {
		format = "FORMAT binary"
	}
	target := t.SQL()
	if len(columns) > 0 {
		target += " (" + list + ")"
	}
	out := "COPY " + target
	if !single {
		out = fmt.Sprintf("COPY (SELECT %s FROM ONLY %s WHERE ctid >= '$%s' AND ctid < '$%s')", list, t.SQL(), s.holes.from, s.holes.to)
	}
	s.out = o.onOld(out + " TO STDOUT WITH (" + format + ")")

	s.empty = o.onNew("TRUNCATE ONLY " + t.SQL())
	switch {
	case o.Referenced(t.Table):
		s.empty = o.onNew("DELETE FROM ONLY " + t.SQL() + t.as())
	case single && t.Bytes < small:
		s.empty = o.onNew("DO " + pg.Literal("BEGIN IF pg_catalog.pg_relation_size("+pg.Literal(t.SQL())+") > 0 THEN TRUNCATE ONLY "+t.SQL()+"; END IF; END"))
	case single:
		format += ", FREEZE" // permitted in the transaction of the TRUNCATE only
	}
	s.in = o.onNew("COPY " + target + " FROM STDIN WITH (" + format + ")" + t.as())
	s.mark = o.insertMark(loadedKey(t.set, t.Table), s.holes)
	s.emptied = o.insertMark(chunkPrefix(t.set, t.Table)+emptiedKey, s.holes)
	s.part = o.insertMark(chunkPrefix(t.set, t.Table)+"$"+s.holes.from, s.holes)
	s.unpart = o.deleteMarks(chunkPrefix(t.set, t.Table))
	return s
}

// as says in a statement with whose rights it runs.
func (t *table) as() string {
	if t.filler == "" {
		return ""
	}
	return " -- with the rights of " + strings.Join(strings.Fields(t.filler), " ")
}

// copied are the quoted names of the columns that are sent: generated ones are
// computed anew on the other side.
func copied(t schema.Table) []string {
	var names []string
	for _, c := range t.Columns {
		if c.Generated == 0 {
			names = append(names, pg.Ident(c.Name))
		}
	}
	return names
}

// split cuts pages into equal ranges of about size bytes, the last one open.
func split(pages, bytes, size int64) []chunk {
	pages = max(pages, 1)
	n := min((bytes+size-1)/size, pages)
	each := (pages + n - 1) / n
	var chunks []chunk
	for from := int64(0); from < pages; from += each {
		chunks = append(chunks, chunk{from, from + each})
	}
	chunks[len(chunks)-1].to = last
	return chunks
}

// effects are what copying t does, each once.
func (t *table) effects() []flow.Effect {
	s := t.copying()
	if len(t.chunks) == 1 {
		return []flow.Effect{s.mark, s.empty, s.out, s.in}
	}
	return []flow.Effect{s.unpart, s.empty, s.emptied, s.part, s.out, s.in, s.mark}
}
