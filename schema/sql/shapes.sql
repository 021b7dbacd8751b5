-- Columns and own checks of the user tables, columns first.
SELECT n.nspname::text, c.relname::text, k.is_check, k.name, k.type, k.collation, k.def, k.not_null, k.identity, k.generated, k.instant, k.inherited
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, LATERAL (
  SELECT false AS is_check, a.attnum AS num, a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type,
    CASE WHEN a.attcollation <> 0 AND a.attcollation <> t.typcollation THEN quote_ident(cn.nspname) || '.' || quote_ident(co.collname) ELSE '' END AS collation,
    coalesce(pg_get_expr(d.adbin, d.adrelid), '') AS def, a.attnotnull AS not_null, a.attidentity::text AS identity,
    {{if since 12}}a.attgenerated::text{{else}}''{{end}} AS generated,
    {{if since 11}}a.atthasmissing OR c.relkind = 'p' AND EXISTS (
      SELECT FROM pg_inherits i JOIN pg_attribute p ON p.attrelid = i.inhrelid AND p.attname = a.attname WHERE i.inhparent = c.oid AND p.atthasmissing){{else}}false{{end}} AS instant,
    a.attinhcount > 0 AS inherited
  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  LEFT JOIN pg_collation co ON co.oid = a.attcollation LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace
  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
  SELECT true, 0, o.conname::text, pg_get_constraintdef(o.oid), '', '', false, '', '', false, false
  FROM pg_constraint o WHERE o.conrelid = c.oid AND o.contype = 'c' AND o.coninhcount = 0) k
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'crossfade') AND n.nspname !~ '^pg_toast'
ORDER BY 1, 2, k.is_check, k.num, k.name
