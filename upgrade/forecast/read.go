package forecast

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// Limits of reading.
const (
	// sampledTables is how many tables are read, the biggest of all databases.
	sampledTables = 12
	// firstPages is how many pages the first piece of a table has, with what lies
	// elsewhere for them, onePiece how long reading one should take.
	firstPages = 128
	pageBytes  = 8192
	onePiece   = 150 * time.Millisecond
	// sortedRows is how many keys of an index are sorted, sortMemory what they
	// may take: nothing goes to a temporary file.
	sortedRows = 100_000
	sortMemory = 48 << 20
)

// target is one table to be sampled.
type target struct {
	db       *Database
	table    schema.Table
	facts    *TableFacts
	deadline time.Time
}

// targets are the biggest tables, database by database.
func (t *taking) targets() []target {
	var all []target
	for i := range t.o.Databases {
		for j, s := range t.o.Databases[i].Sets {
			for k, table := range s.Tables {
				if table.Pages > 0 && (t.o.Databases[i].Skip == nil || !t.o.Databases[i].Skip(table)) {
					all = append(all, target{db: &t.o.Databases[i], table: table, facts: &t.facts.Databases[i].Sets[j].Tables[k]})
				}
			}
		}
	}
	size := func(x target) int64 { return x.table.Bytes + x.table.IndexBytes }
	slices.SortStableFunc(all, func(a, b target) int { return int(min(max(size(b)-size(a), -1), 1)) })
	all = slices.Clone(all[:min(len(all), sampledTables)])
	slices.SortStableFunc(all, func(a, b target) int { return strings.Compare(a.db.Name, b.db.Name) })
	return all
}

// sample reads and sorts pieces of the biggest tables, each for its share of
// the time that is left: nine tenths of it where a limit was given.
func (t *taking) sample(ctx context.Context) {
	targets := t.targets()
	var all int64
	for _, x := range targets {
		all += x.table.Bytes + x.table.IndexBytes
	}
	left := time.Until(t.end) * 9 / 10
	began := time.Now()
	spent := time.Duration(0)
	for i := range targets {
		x := &targets[i]
		spent += time.Duration(float64(left) * float64(x.table.Bytes+x.table.IndexBytes) / float64(max(all, 1)))
		x.deadline = began.Add(spent)
		if err := t.one(ctx, x); err != nil {
			if ctx.Err() != nil {
				return
			}
			t.missing(x.db.Name+" "+x.table.String(), err)
		}
		t.writers(ctx)
	}
}

// one samples one table: three quarters of its time for rows, the rest for keys.
func (t *taking) one(ctx context.Context, x *target) error {
	conn, err := t.session(ctx, x.db.Name)
	if err != nil {
		return err
	}
	rows := time.Now().Add(time.Until(x.deadline) * 3 / 4)
	if err := t.read(ctx, conn, x, rows); err != nil {
		return err
	}
	if x.table.IndexBytes == 0 || x.table.Rows <= 0 {
		return nil
	}
	return t.sorts(ctx, conn, x)
}

// read reads pieces of a table, spread over it, until the time is up or all of
// it was read. Each piece is a transaction of its own, so that vacuum is not
// held up.
func (t *taking) read(ctx context.Context, conn *pgx.Conn, x *target, until time.Time) error {
	pages := x.table.Pages
	// Rows that lie in TOAST make a page of the table stand for many.
	least := min(max(firstPages*pages*pageBytes/max(x.table.Bytes, 1), 1), firstPages)
	piece := least
	var read int64
	var took time.Duration
	first := true
	for n := 0; (first || time.Now().Before(until)) && read < pages; n++ {
		span, from := min(piece, pages), int64(0)
		if span < pages {
			from = int64(math.Mod(float64(n)*math.Phi, 1) * float64(pages-span))
		}
		began := time.Now()
		if err := copyOut(ctx, conn, t.o.Version, x, from, span); err != nil {
			if pg.SQLState(err) == "57014" && read > 0 { // the limit
				break
			}
			return err
		}
		one := time.Since(began)
		first = false
		read += span
		took += one
		switch {
		case one < onePiece/2:
			piece *= 2
		case one > onePiece*2:
			piece = max(piece/2, least)
		}
	}
	x.facts.Read = &Reading{Bytes: int64(float64(x.table.Bytes) * float64(read) / float64(pages)), Took: took}
	return nil
}

// copyOut reads pages of a table as the copy does. Below 14 a range of pages
// would read the whole table: there the sample is the server's.
func copyOut(ctx context.Context, conn *pgx.Conn, version int, x *target, from, span int64) error {
	var columns []string
	for _, c := range x.table.Columns {
		if c.Generated == 0 {
			columns = append(columns, pg.Ident(c.Name))
		}
	}
	encoding := x.db.Encoding
	if encoding == "" {
		encoding = "UTF8"
	}
	format := "FORMAT text, ENCODING " + pg.Literal(encoding)
	if x.table.Binary() && encoding == "UTF8" && len(columns) > 0 {
		format = "FORMAT binary"
	}
	where := ""
	switch {
	case span >= x.table.Pages:
	case version >= 140000:
		where = fmt.Sprintf(" WHERE ctid >= '(%d,0)' AND ctid < '(%d,0)'", from, from+span)
	default:
		where = fmt.Sprintf(" TABLESAMPLE SYSTEM (%f) REPEATABLE (%d)", 100*float64(span)/float64(x.table.Pages), from)
	}
	sql := fmt.Sprintf("COPY (SELECT %s FROM ONLY %s%s) TO STDOUT WITH (%s)", strings.Join(columns, ", "), x.table.SQL(), where, format)
	return readOnly(ctx, conn, func() error {
		_, err := conn.PgConn().CopyTo(ctx, io.Discard, sql)
		return err
	})
}

// readOnly runs f in a transaction that can write nothing.
func readOnly(ctx context.Context, conn *pgx.Conn, f func() error) error {
	if err := pg.Exec(ctx, conn, "BEGIN READ ONLY"); err != nil {
		return err
	}
	err := f()
	end := "COMMIT"
	if err != nil {
		end = "ROLLBACK"
	}
	if conn.IsClosed() {
		return err
	}
	return errors.Join(err, pg.Exec(context.WithoutCancel(ctx), conn, end))
}

// indexesOf are the btree indexes of a table over plain columns that keep
// their keys in memory for a sort: name, size, key columns, width of a key.
const indexesOf = `
	SELECT i.relname::text, pg_relation_size(i.oid),
	       (SELECT array_agg(a.attname::text ORDER BY u.n) FROM unnest(x.indkey::int2[]) WITH ORDINALITY u(num, n)
	        JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = u.num WHERE u.n <= x.indnkeyatts),
	       (SELECT coalesce(sum(coalesce(s.avg_width, CASE WHEN a.attlen > 0 THEN a.attlen ELSE 100 END)), 0)::int8 FROM unnest(x.indkey::int2[]) WITH ORDINALITY u(num, n)
	        JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = u.num
	        LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = t.relname AND s.attname = a.attname AND NOT s.inherited
	        WHERE u.n <= x.indnkeyatts)
	FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am m ON m.oid = i.relam
	JOIN pg_class t ON t.oid = x.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace
	WHERE x.indrelid = $1::text::regclass AND m.amname = 'btree' AND x.indexprs IS NULL AND x.indpred IS NULL AND x.indisvalid
	ORDER BY 2 DESC LIMIT 3`

// sorts sorts samples of the keys of a table's biggest indexes.
func (t *taking) sorts(ctx context.Context, conn *pgx.Conn, x *target) error {
	type index struct {
		name  string
		bytes int64
		keys  []string
		width int64
	}
	rows, err := conn.Query(ctx, indexesOf, x.table.SQL())
	if err != nil {
		return err
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (i index, err error) {
		err = row.Scan(&i.name, &i.bytes, &i.keys, &i.width)
		return i, err
	})
	if err != nil {
		return err
	}
	for n, i := range found {
		if n > 0 && time.Now().After(x.deadline) {
			break
		}
		want := min(sortedRows, sortMemory/(2*i.width+64), x.table.Rows)
		span := max(int64(float64(want)/float64(x.table.Rows)*float64(x.table.Pages)), 1)
		keys := make([]string, len(i.keys))
		for k, name := range i.keys {
			keys[k] = pg.Ident(name)
		}
		where := ""
		if span < x.table.Pages {
			where = fmt.Sprintf(" WHERE ctid < '(%d,0)'", span)
			if t.o.Version < 140000 {
				where = fmt.Sprintf(" TABLESAMPLE SYSTEM (%f) REPEATABLE (1)", 100*float64(span)/float64(x.table.Pages))
			}
		}
		list := strings.Join(keys, ", ")
		sql := fmt.Sprintf("SELECT count(*) FROM (SELECT %s FROM ONLY %s%s ORDER BY %s OFFSET 0) s", list, x.table.SQL(), where, list)
		s := Sorting{Index: i.name, Bytes: i.bytes}
		err := readOnly(ctx, conn, func() error {
			began := time.Now()
			err := conn.QueryRow(ctx, sql).Scan(&s.Rows)
			s.Took = time.Since(began)
			return err
		})
		switch pg.SQLState(err) {
		case "57014", "53400": // the limit of time, or of temporary files
			return nil
		}
		if err != nil {
			return err
		}
		if s.Rows > 0 {
			x.facts.Sorts = append(x.facts.Sorts, s)
		}
	}
	return nil
}
