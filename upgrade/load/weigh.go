package load

import (
	"context"
	"math"
	"strings"

	"crossfade/schema"

	"github.com/jackc/pgx/v5"
)

// index is what old says of an index that is to be built on new.
type index struct {
	method string // access method: btree, gin, …
	bytes  int64  // on old
	rows   int64  // of its table; below 0 where nobody has counted
}

// indexes are old's, by schema and name. Nil knows none.
type indexes map[[2]string]index

// indexSQL leaves out those of less than 1 MB, which are built in no time.
const indexSQL = `
	SELECT n.nspname, c.relname, a.amname, pg_relation_size(c.oid), t.reltuples::bigint
	FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
	JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_am a ON a.oid = c.relam
	WHERE c.relkind = 'i' AND c.relpages >= 128 AND i.indrelid >= 16384`

// readIndexes reads them in a session on old.
func readIndexes(ctx context.Context, conn *pgx.Conn) (indexes, error) {
	rows, err := conn.Query(ctx, indexSQL)
	if err != nil {
		return nil, err
	}
	all := indexes{}
	var name [2]string
	var x index
	_, err = pgx.ForEachRow(rows, []any{&name[0], &name[1], &x.method, &x.bytes, &x.rows}, func() error {
		all[name] = x
		return nil
	})
	return all, err
}

// of finds the index that an entry of a table makes: the zero index where nothing is
// known.
func (all indexes) of(t schema.Table, e schema.Entry) index {
	name := e.Name
	if e.Type != "INDEX" { // pg_dump names a constraint with its table
		name = strings.TrimPrefix(name, t.Name+" ")
	}
	return all[[2]string{e.Schema, name}]
}

// cost is what a build takes of a processor, in bytes of a table that are
// copied in the same time. A build reads the heap, and then sorts what it reads:
// entries of a few bytes cost as much as wider ones, and of equal ones a btree
// keeps little. The factors were measured on 17 with tables of 300 to 420 MB
// and enough memory, but for that of gist and the like, which is a guess; what
// has to be right is only which of two is longer.
func (x index) cost(heap int64) int64 {
	const entry = 16
	size := max(x.bytes, x.rows*entry)
	switch x.method {
	case "btree":
		size = size * 5 / 2
	case "hash":
		size *= 4
	case "gin":
		size = x.bytes * 10
	case "brin":
		size = 0
	default: // gist, spgist and those of extensions insert row by row
		size *= 8
	}
	return heap/4 + size
}

// memory is the maintenance_work_mem in bytes of a build with so many workers,
// which share it. A btree is sorted, and that goes fastest in little memory: on 17,
// 4 million keys that come in no order took some 15 % less time with 64 MB than with
// 256 MB, and as long with 32 MB. It must be enough to merge all runs at once, each of
// which has a buffer of 256 kB then (MERGE_BUFFER_SIZE in tuplesort.c): the root of the
// size times that, 162 MB for 100 GB. Any other method, and what is not known, gets
// what a GIN does well with.
func (x index) memory(workers int64) int64 {
	if x.method != "btree" {
		return 256 << 20
	}
	const least, run = 64 << 20, 256 << 10
	return max(least, int64(math.Sqrt(float64(x.bytes)*run))) * (workers + 1)
}

// costOf an entry is by what is known of its index; else it is an equal part of
// what all the heavy ones of its table take.
func costOf(t schema.Table, e schema.Entry, x index, heavy int) int64 {
	if !builds(e) {
		return 1
	}
	if x != (index{}) {
		return x.cost(t.Bytes)
	}
	return t.Bytes/4 + 2*t.IndexBytes/int64(max(heavy, 1)) + 1
}

// path is the longest way of a table, from its first row to its last index: its
// rows, which as many copiers as it has chunks share, then one after the other
// what must be built alone, and the longest of what is built side by side. The
// table with the longest goes first: a small table with a slow index may come
// before a large one with none.
func (o Options) path(t *table) int64 {
	c := o.chain(t, nil)
	return t.Bytes/int64(min(len(t.chunks), o.Jobs)) + c.path()
}
