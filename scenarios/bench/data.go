package bench

import (
	"context"
	"fmt"
	"strings"

	"crossfade/scenarios/lab"
)

// shape is a data set: SQL that makes about mb megabytes of rows without their
// indexes, and its indexes and constraints.
type shape struct {
	name, says string
	sql        func(mb int) []string
	chunk      func(mb int) int // megabytes above which a table is split, for those who can; nil: as they do it
}

// rows is how many rows of a width fit into so many megabytes.
func rows(mb, width int) int { return max(1, mb*1_000_000/width) }

// noise is 32 characters that compress badly, a different one for each n.
const noise = "md5((%s)::text)"

// plain is what a shop's database looks like: a few large tables, nine indexes
// beside the primary keys of which one is a GIN, a foreign key.
var plain = shape{name: "plain", says: "orders, lines, documents and events; 9 indexes beside the keys, of which one GIN; a foreign key", sql: func(mb int) []string {
	return []string{
		`CREATE TABLE orders (id bigint PRIMARY KEY, customer int NOT NULL, state text NOT NULL, total numeric(12,2) NOT NULL, placed timestamptz NOT NULL, note text)`,
		fmt.Sprintf(`INSERT INTO orders SELECT g, hashint8(g) %% 100000, (ARRAY['new','paid','sent','done'])[1 + g %% 4], (g %% 100000) / 7.0,
			timestamptz '2020-01-01' + g * interval '17 seconds', `+noise+` FROM generate_series(1, %d) g`, "g", rows(mb*30/100, 110)),
		`CREATE TABLE lines (orders_id bigint NOT NULL REFERENCES orders, n int, article int NOT NULL, price numeric(10,2) NOT NULL, pieces int NOT NULL, PRIMARY KEY (orders_id, n))`,
		fmt.Sprintf(`INSERT INTO lines SELECT 1 + (g - 1) / 3, 1 + (g - 1) %% 3, hashint8(g) %% 50000, (g %% 9999) / 3.0, 1 + g %% 5
			FROM generate_series(1, least(%d, 3 * (SELECT count(*) FROM orders))) g`, rows(mb*30/100, 64)),
		`CREATE TABLE documents (id bigint PRIMARY KEY, body jsonb NOT NULL)`,
		fmt.Sprintf(`INSERT INTO documents SELECT g, jsonb_build_object('id', g, 'name', `+noise+`, 'tags', jsonb_build_array('t' || g %% 500, 't' || g %% 77), 'size', g %% 1000)
			FROM generate_series(1, %d) g`, "g", rows(mb*20/100, 170)),
		`CREATE TABLE events (id uuid PRIMARY KEY, at timestamptz NOT NULL, kind smallint NOT NULL, value double precision NOT NULL, says text NOT NULL)`,
		fmt.Sprintf(`INSERT INTO events SELECT `+noise+`::uuid, timestamptz '2021-01-01' + g * interval '3 seconds', g %% 30, sqrt(g), 'event number ' || g
			FROM generate_series(1, %d) g`, "g", rows(mb*20/100, 95)),
		`CREATE INDEX ON orders (customer); CREATE INDEX ON orders (placed); CREATE INDEX ON orders (state, placed); CREATE INDEX ON lines (article)`,
		`CREATE INDEX ON documents USING gin (body jsonb_path_ops); CREATE INDEX ON documents ((body->>'name'))`,
		`CREATE INDEX ON events (at); CREATE INDEX ON events (kind, at); CREATE INDEX ON events (says)`,
	}
}}

// skewed are the shapes on which a copy may go wrong that does well on the plain one.
var skewed = []shape{
	{
		name: "one-large", says: "one table has 90 % of the bytes; crossfade's `chunk` and pgcopydb's `--split-tables-larger-than` are an eighth of it",
		chunk: func(mb int) int { return max(1, mb/8) },
		sql: func(mb int) []string {
			return append([]string{
				`CREATE TABLE large (id bigint PRIMARY KEY, a int NOT NULL, b text NOT NULL, c timestamptz NOT NULL)`,
				fmt.Sprintf(`INSERT INTO large SELECT g, hashint8(g) %% 1000000, `+noise+` || 'large', timestamptz '2020-01-01' + g * interval '1 second' FROM generate_series(1, %d) g`, "g", rows(mb*90/100, 96)),
				`CREATE INDEX ON large (a); CREATE INDEX ON large (c)`,
			}, manyTables(8, rows(mb*10/100, 72)/8)...)
		},
	},
	{name: "many-tables", says: "5,000 small tables (25 for each MB below 200), each with a key and an index", sql: func(mb int) []string {
		n := min(5000, 25*mb)
		return manyTables(n, max(1, rows(mb/10, 72)/n))
	}},
	{name: "toast", says: "rows of 20 kB that lie in TOAST, uncompressed", sql: func(mb int) []string {
		return []string{
			`CREATE TABLE pages (id bigint PRIMARY KEY, title text NOT NULL, body text NOT NULL); ALTER TABLE pages ALTER body SET STORAGE external`,
			fmt.Sprintf(`INSERT INTO pages SELECT g, 'page ' || g, (SELECT string_agg(`+noise+`, '') FROM generate_series(1, 625) i) FROM generate_series(1, %d) g`, "g * 1000 + i", rows(mb/2, 20_600)),
			`CREATE TABLE scans (id bigint PRIMARY KEY, body bytea NOT NULL); ALTER TABLE scans ALTER body SET STORAGE external`,
			fmt.Sprintf(`INSERT INTO scans SELECT g, decode((SELECT string_agg(`+noise+`, '') FROM generate_series(1, 1250) i), 'hex') FROM generate_series(1, %d) g`, "g * 2000 + i", rows(mb/2, 20_600)),
			`CREATE INDEX ON pages (title)`,
		}
	}},
	{name: "many-indexes", says: "one table with 12 indexes beside its key", sql: func(mb int) []string {
		sql := []string{
			`CREATE TABLE facts (id bigint PRIMARY KEY, a int, b int, c int, d int, e int, f int, g text, h text)`,
			fmt.Sprintf(`INSERT INTO facts SELECT g, hashint8(g), hashint8(g + 1), g %% 1000, g %% 77, -g, g / 10, `+noise+`, 'fact ' || g FROM generate_series(1, %d) g`, "g", rows(mb/2, 120)),
		}
		for _, on := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "a, b", "c, d", "d, e", "f, g"} {
			sql = append(sql, "CREATE INDEX ON facts ("+on+")")
		}
		return sql
	}},
	{name: "partitioned", says: "one table of 32 partitions by month, three indexes", sql: func(mb int) []string {
		sql := []string{`CREATE TABLE readings (at timestamptz NOT NULL, sensor int NOT NULL, value double precision, says text, PRIMARY KEY (sensor, at)) PARTITION BY RANGE (at)`}
		for i := range 32 {
			sql = append(sql, fmt.Sprintf(`CREATE TABLE readings_%d PARTITION OF readings FOR VALUES FROM (timestamptz '2020-01-01' + interval '%d days') TO (timestamptz '2020-01-01' + interval '%d days')`, i, i*30, i*30+30))
		}
		return append(sql,
			fmt.Sprintf(`INSERT INTO readings SELECT timestamptz '2020-01-01' + g * (interval '960 days' / %[1]d), g %% 5000, sqrt(g), `+strings.ReplaceAll(noise, "%s", "g")+` FROM generate_series(0, %[1]d - 1) g`, rows(mb*80/100, 100)),
			`CREATE INDEX ON readings (at); CREATE INDEX ON readings (value); CREATE INDEX ON readings (says)`)
	}},
}

// manyTables are n tables of so many rows.
func manyTables(n, rows int) []string {
	return []string{fmt.Sprintf(`DO $do$ BEGIN FOR t IN 1..%d LOOP
		EXECUTE format('CREATE TABLE small_%%s (id int PRIMARY KEY, a int NOT NULL, b text NOT NULL)', t);
		EXECUTE format('INSERT INTO small_%%s SELECT g, g %%%% 100, ''small '' || g FROM generate_series(1, %d) g', t);
		EXECUTE format('CREATE INDEX ON small_%%s (a)', t);
		IF t %% 500 = 0 THEN COMMIT; END IF;
	END LOOP; END $do$`, n, max(1, rows))}
}

// fill makes a database of a shape on a cluster, vacuumed as one that has been
// in use for a while.
func fill(ctx context.Context, c *lab.Cluster, db string, sh shape, mb int) (bytes int64, err error) {
	if err := c.Exec(ctx, "", "DROP DATABASE IF EXISTS "+db, "CREATE DATABASE "+db); err != nil {
		return 0, err
	}
	if err := c.Exec(ctx, db, append(sh.sql(mb), "VACUUM ANALYZE", "CHECKPOINT")...); err != nil {
		return 0, err
	}
	rows, err := c.Query(ctx, db, "SELECT sum(pg_table_size(oid)), sum(pg_indexes_size(oid)) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
	if err != nil {
		return 0, err
	}
	_, err = fmt.Sscan(rows[0][0], &bytes)
	return bytes, err
}

// counts asks for every table's rows, and how many indexes are valid and how
// many constraints validated.
func counts(ctx context.Context, c *lab.Cluster, db string) (string, error) {
	tables, err := c.Query(ctx, db, `SELECT c.oid::regclass::text FROM pg_class c WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1`)
	if err != nil {
		return "", err
	}
	var parts []string
	for _, t := range tables {
		parts = append(parts, "(SELECT count(*) FROM ONLY "+t[0]+")")
	}
	if len(parts) == 0 {
		return "no tables", nil
	}
	sql := `SELECT (SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE i.indisvalid AND i.indisready AND c.relnamespace = 'public'::regnamespace),
		(SELECT count(*) FROM pg_constraint WHERE convalidated AND contype <> 'n' AND connamespace = 'public'::regnamespace), ` + fmt.Sprint(len(parts))
	for len(parts) > 0 {
		n := min(90, len(parts))
		sql += "; SELECT concat_ws(' ', " + strings.Join(parts[:n], ", ") + ")"
		parts = parts[n:]
	}
	rows, err := c.Query(ctx, db, sql)
	return fmt.Sprint(rows), err
}

// whole is an error where new lacks anything that old has.
func (p *place) whole(ctx context.Context) error {
	want, err := counts(ctx, p.old, p.db)
	if err != nil {
		return err
	}
	got, err := counts(ctx, p.new, p.db)
	if err == nil && got != want {
		err = fmt.Errorf("what was left on new is not whole: old has %s, new has %s", last(want), last(got))
	}
	return err
}
