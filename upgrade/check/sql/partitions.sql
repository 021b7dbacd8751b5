-- Partitioned tables that need a look: kind, name, detail, more, n.
WITH RECURSIVE root AS MATERIALIZED (
  SELECT c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name, p.partstrat, p.partnatts, k.n, a.attname, a.atttypid, t.typtype, t.typelem, t.typbasetype,
         (p.partcollation::oid[])[k.n - 1] AS collation
  FROM pg_partitioned_table p JOIN pg_class c ON c.oid = p.partrelid JOIN pg_namespace n ON n.oid = c.relnamespace,
       unnest(p.partattrs::int2[]) WITH ORDINALITY k(attnum, n),
       pg_attribute a, pg_type t
  WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'crossfade') AND c.relpersistence <> 't'
    AND a.attrelid = c.oid AND a.attnum = k.attnum AND t.oid = a.atttypid
),
-- what the types of hash keys are made of, at any depth
made(root, oid) AS (
  SELECT DISTINCT atttypid, atttypid FROM root WHERE partstrat = 'h'
  UNION
  SELECT m.root, x.part FROM made m JOIN pg_type t ON t.oid = m.oid, LATERAL (
    SELECT t.typbasetype WHERE t.typtype = 'd'
    UNION ALL SELECT t.typelem WHERE t.typinput = 'array_in'::regproc
    UNION ALL SELECT rngsubtype FROM pg_range WHERE rngtypid = t.oid
    {{if since 14}}UNION ALL SELECT rngsubtype FROM pg_range WHERE rngmultitypid = t.oid{{end}}
    UNION ALL SELECT a.atttypid FROM pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
  ) x(part)
),
-- partitions by time, with their bounds; one up to MAXVALUE has none
bound AS MATERIALIZED (
  SELECT r.oid, r.name, format_type(r.atttypid, NULL) AS type,
         CASE WHEN r.atttypid IN (1082, 1114, 1184) THEN substring(e.expr FROM 'FROM \(''([^'']+)''\)')::timestamptz END AS lower,
         CASE WHEN r.atttypid IN (1082, 1114, 1184) THEN substring(e.expr FROM 'TO \(''([^'']+)''\)')::timestamptz END AS upper,
         e.expr ~ 'MAXVALUE' AS open
  FROM root r JOIN pg_inherits i ON i.inhparent = r.oid JOIN pg_class c ON c.oid = i.inhrelid, pg_get_expr(c.relpartbound, c.oid) e(expr)
  WHERE r.partstrat = 'r' AND r.partnatts = 1 AND r.atttypid IN (1082, 1114, 1184)
)
-- detail: the key's type; more: from and to of the last partition; n: how many
SELECT 'horizon', name, type,
       to_char((array_agg(lower ORDER BY upper DESC))[1], 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || ' ' || to_char(max(upper), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), count(*)
FROM bound WHERE isfinite(lower) AND isfinite(upper) AND NOT EXISTS (SELECT FROM bound o WHERE o.oid = bound.oid AND o.open)
GROUP BY name, type
UNION ALL -- by hash of what has another hash on new; detail: the column; more: its type and that which does it
SELECT 'enum-hash', name, quote_ident(attname), format_type(atttypid, NULL) || CASE WHEN p.oid <> atttypid THEN ', of ' || format_type(p.oid, NULL) ELSE '' END, 0
FROM root, LATERAL (SELECT made.oid FROM made JOIN pg_type t ON t.oid = made.oid
                    WHERE made.root = root.atttypid AND (t.typtype = 'e' OR t.typname LIKE 'reg%' AND t.typnamespace = 'pg_catalog'::regnamespace)
                    ORDER BY made.oid LIMIT 1) p
WHERE partstrat = 'h'
UNION ALL -- by ranges of text in another order than that of bytes; detail: the column; more: the collation
SELECT 'text-range', name, quote_ident(attname), co.collname::text, 0
FROM root JOIN pg_collation co ON co.oid = root.collation
WHERE partstrat = 'r' AND co.collname NOT IN ('C', 'POSIX', 'ucs_basic')
ORDER BY 1, 2
