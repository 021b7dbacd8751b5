-- What CREATE DATABASE … TEMPLATE template0 does not give. Schema public alone
-- is not strange; extensions are, because their versions may not fit.
WITH ns AS ({{template "user_namespaces"}})
SELECT left(x.name, 200) FROM (
  SELECT 'schema ' || quote_ident(nspname) AS name FROM ns WHERE nspname <> 'public'
  UNION ALL SELECT 'extension ' || quote_ident(extname) FROM pg_extension WHERE extname <> 'plpgsql'
  UNION ALL SELECT 'relation ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_class c JOIN ns n ON n.oid = c.relnamespace
            WHERE c.relkind NOT IN ('i', 'I', 't') AND c.relpersistence <> 't'
  UNION ALL SELECT 'function ' || quote_ident(n.nspname) || '.' || quote_ident(p.proname) FROM pg_proc p JOIN ns n ON n.oid = p.pronamespace
  UNION ALL SELECT 'type ' || quote_ident(n.nspname) || '.' || quote_ident(t.typname) FROM pg_type t JOIN ns n ON n.oid = t.typnamespace WHERE t.typtype IN ('d', 'e', 'r')
  UNION ALL SELECT 'event trigger ' || quote_ident(evtname) FROM pg_event_trigger WHERE evtname NOT LIKE 'crossfade\_ddl%'
  UNION ALL SELECT 'foreign server ' || quote_ident(srvname) FROM pg_foreign_server
  UNION ALL SELECT 'large object ' || oid FROM pg_largeobject_metadata
) x ORDER BY 1 LIMIT 10
