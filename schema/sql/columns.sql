SELECT a.attrelid, a.attname, a.attnum, format_type(a.atttypid, a.atttypmod), a.atttypid, a.attnotnull,
       {{if since 12}}a.attgenerated::text{{else}}''{{end}}, a.attidentity::text,
       CASE WHEN a.attcollation <> t.typcollation THEN coalesce(quote_ident(cn.nspname) || '.' || quote_ident(co.collname), '') ELSE '' END
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
JOIN ({{template "user_namespaces"}}) n ON n.oid = c.relnamespace
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_collation co ON co.oid = a.attcollation
LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace
WHERE a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
