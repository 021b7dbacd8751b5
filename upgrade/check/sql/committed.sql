-- What DDL of the last days has left in the catalogs, by the time of its commit:
-- the transactions, the last one, and what it did.
WITH ns AS MATERIALIZED (
  SELECT oid, nspname FROM pg_namespace
  WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'crossfade')
    AND nspname NOT LIKE 'pg\_temp\_%' AND nspname NOT LIKE 'pg\_toast\_temp\_%'
),
changed(xmin, at, what) AS (
  SELECT a.xmin::text, pg_xact_commit_timestamp(a.xmin), 'table ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname)
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p') JOIN ns n ON n.oid = c.relnamespace WHERE a.attnum > 0
  UNION ALL
  SELECT k.xmin::text, pg_xact_commit_timestamp(k.xmin), 'constraint ' || quote_ident(k.conname)
  FROM pg_constraint k JOIN ns n ON n.oid = k.connamespace
  UNION ALL
  SELECT x.xmin::text, pg_xact_commit_timestamp(x.xmin), 'index ' || quote_ident(n.nspname) || '.' || quote_ident(i.relname)
  FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN ns n ON n.oid = i.relnamespace
  UNION ALL
  SELECT p.xmin::text, pg_xact_commit_timestamp(p.xmin), 'function ' || quote_ident(n.nspname) || '.' || quote_ident(p.proname)
  FROM pg_proc p JOIN ns n ON n.oid = p.pronamespace
  UNION ALL
  SELECT t.xmin::text, pg_xact_commit_timestamp(t.xmin), 'trigger ' || quote_ident(t.tgname) || ' of ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname)
  FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN ns n ON n.oid = c.relnamespace WHERE NOT t.tgisinternal AND t.tgname <> 'crossfade_fence'
)
SELECT count(DISTINCT xmin), max(at), coalesce((array_agg(what ORDER BY at DESC, what))[1], '')
FROM changed WHERE at > clock_timestamp() - interval '7 days'
