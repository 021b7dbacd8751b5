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

// table is one table on its way: the statements that copy it, and how far it is.
type table struct {
	schema.Table
	set    string
	chunks []chunk

	// out and in are the two ends of the pipe. empty makes room on new. mark
	// says that the table is loaded. Where there are several chunks, emptied
	// says that there was made room, part that one of them is loaded, and unpart
	// takes these marks away.
	out, in, empty, mark, emptied, part, unpart flow.Effect
	holes                                       holes

	mu      sync.Mutex
	left    int    // tasks to do
	node    string // which file on old the chunks are read from
	spoiled bool   // it was another one later
}

// chunk is a range of pages; to is the first page behind it.
type chunk struct{ from, to int64 }

// small is the size in bytes, toast included, below which a TRUNCATE costs more
// than FREEZE saves: it makes new files, and at its end the server looks through
// all of shared_buffers for pages of the old ones.
const small = 1 << 20

// last is behind every page that a table can have: the last chunk takes what
// was added since the size was read.
const last = 1<<32 - 1

func tid(page int64) string { return fmt.Sprintf("(%d,0)", page) }

// work makes the tables' statements, in the order in which they are begun.
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

func (o Options) table(set string, t schema.Table) *table {
	w := &table{Table: t, set: set, chunks: []chunk{{0, last}}}
	columns := copied(t)
	if o.Version >= 140000 && t.Bytes > o.Chunk && len(columns) > 0 {
		w.chunks = split(t.Pages, t.Bytes, o.Chunk)
	}
	single := len(w.chunks) == 1

	format := "FORMAT text, ENCODING " + pg.Literal(o.Encoding)
	if t.Binary() && o.Encoding == "UTF8" && len(columns) > 0 {
		format = "FORMAT binary"
	}
	list := strings.Join(columns, ", ")
	w.holes = newHoles(t.SQL() + list)
	target := t.SQL()
	if len(columns) > 0 {
		target += " (" + list + ")"
	}
	out := "COPY " + target
	if !single {
		out = fmt.Sprintf("COPY (SELECT %s FROM ONLY %s WHERE ctid >= '$%s' AND ctid < '$%s')", list, t.SQL(), w.holes.from, w.holes.to)
	}
	w.out = o.onOld(out + " TO STDOUT WITH (" + format + ")")

	w.empty = o.onNew("TRUNCATE ONLY " + t.SQL())
	switch {
	case o.Referenced(t):
		w.empty = o.onNew("DELETE FROM ONLY " + t.SQL())
	case single && t.Bytes < small:
		w.empty = o.onNew("DO " + pg.Literal("BEGIN IF pg_catalog.pg_relation_size("+pg.Literal(t.SQL())+") > 0 THEN TRUNCATE ONLY "+t.SQL()+"; END IF; END"))
	case single:
		format += ", FREEZE" // permitted in the transaction of the TRUNCATE only
	}
	w.in = o.onNew("COPY " + target + " FROM STDIN WITH (" + format + ")")
	w.mark = o.insertMark(loadedKey(set, t), w.holes)
	w.emptied = o.insertMark(chunkPrefix(set, t)+emptiedKey, w.holes)
	w.part = o.insertMark(chunkPrefix(set, t)+"$"+w.holes.from, w.holes)
	w.unpart = o.deleteMarks(chunkPrefix(set, t))
	return w
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
	if len(t.chunks) == 1 {
		return []flow.Effect{t.mark, t.empty, t.out, t.in}
	}
	return []flow.Effect{t.unpart, t.empty, t.emptied, t.part, t.out, t.in, t.mark}
}
