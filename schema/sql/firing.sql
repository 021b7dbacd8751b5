SELECT schema, rel, name, mode
FROM (
  SELECT n.nspname::text AS schema, c.relname::text AS rel, t.tgname::text AS name, t.tgenabled::text AS mode,
         {{if since 12}}CASE WHEN c.relispartition OR c.relkind = 'p' THEN (SELECT count(*) FROM pg_partition_ancestors(c.oid)) ELSE 0 END
         {{else}}CASE WHEN c.relispartition THEN 1 ELSE 0 END{{end}} AS depth
  FROM pg_trigger t
  JOIN pg_class c ON c.oid = t.tgrelid
  JOIN ({{template "user_namespaces"}}) n ON n.oid = c.relnamespace
  WHERE {{template "user_trigger"}} AND t.tgenabled IN ('A', 'R') AND t.tgname NOT LIKE 'crossfade\_fence%'
  UNION ALL
  SELECT '', '', evtname::text, evtenabled::text, -1
  FROM pg_event_trigger
  WHERE evtenabled IN ('A', 'R') AND evtname NOT LIKE 'crossfade\_ddl%'
) t
ORDER BY depth, schema COLLATE "C", rel COLLATE "C", name COLLATE "C"
