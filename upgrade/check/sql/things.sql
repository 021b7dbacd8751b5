-- What a database holds beside tables and sequences, as far as checks look at
-- it: kind, name, detail, more, n.
WITH ns AS MATERIALIZED (
  SELECT oid, nspname FROM pg_namespace
  WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'crossfade')
    AND nspname NOT LIKE 'pg\_temp\_%' AND nspname NOT LIKE 'pg\_toast\_temp\_%'
),
member AS MATERIALIZED (SELECT classid, objid FROM pg_depend WHERE deptype = 'e')
-- the tool's schema; detail says whether it holds crossfade.upgrade
SELECT 'schema', nspname::text, EXISTS (SELECT FROM pg_class u WHERE u.relnamespace = pg_namespace.oid AND (u.relname = 'upgrade' OR u.relname LIKE 'upgrade\_%'))::text, '', 0::bigint
FROM pg_namespace WHERE nspname = 'crossfade'
UNION ALL -- the language that the fence is written in is not there
SELECT 'no-plpgsql', '', '', '', 0 WHERE NOT EXISTS (SELECT FROM pg_language WHERE lanname = 'plpgsql')
UNION ALL -- a trigger or event trigger of the tool's name
SELECT 'own-trigger', quote_ident(n.nspname) || '.' || quote_ident(c.relname), t.tgname::text, '', 0
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN ns n ON n.oid = c.relnamespace
WHERE t.tgname = 'crossfade_fence' AND NOT t.tgisinternal
  AND t.tgfoid NOT IN (SELECT p.oid FROM pg_proc p JOIN pg_namespace o ON o.oid = p.pronamespace AND o.nspname = 'crossfade')
UNION ALL
SELECT 'publication', pubname::text, '', '', 0 FROM pg_publication
UNION ALL -- detail: enabled; more: the function
SELECT 'event-trigger', evtname::text, evtenabled::text, evtfoid::regproc::text, 0 FROM pg_event_trigger WHERE evtname NOT LIKE 'crossfade\_ddl%'
UNION ALL -- detail: version; more: its schema; n: tables whose rows are the user's
SELECT 'extension', extname::text, extversion, extnamespace::regnamespace::text, coalesce(cardinality(extconfig), 0) FROM pg_extension WHERE extname <> 'plpgsql'
UNION ALL -- detail: its wrapper; more: where it is, as far as options say; n: its foreign tables
SELECT 'foreign-server', s.srvname::text, w.fdwname::text,
       coalesce((SELECT string_agg(o, ' ' ORDER BY o) FROM unnest(s.srvoptions) o
                 WHERE split_part(o, '=', 1) IN ('host', 'hostaddr', 'port', 'dbname', 'dbserver', 'servername', 'address')), ''),
       (SELECT count(*) FROM pg_foreign_table f WHERE f.ftserver = s.oid)
FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_foreign_server'::regclass AND m.objid = s.oid)
UNION ALL -- columns that may name large objects; more: the type
(SELECT 'lo-column', quote_ident(n.nspname) || '.' || quote_ident(c.relname) || '.' || quote_ident(a.attname), '', format_type(a.atttypid, a.atttypmod), 0
 FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid AND c.relkind = 'r' JOIN ns n ON n.oid = c.relnamespace JOIN pg_type t ON t.oid = a.atttypid
 WHERE a.attnum > 0 AND NOT a.attisdropped AND (t.oid = 26 OR t.typbasetype = 26) LIMIT 50)
UNION ALL -- foreign keys that are not enforced; detail: the constraint; more: its definition
SELECT DISTINCT 'disabled-fk', quote_ident(n.nspname) || '.' || quote_ident(c.relname), co.conname::text, pg_get_constraintdef(co.oid), 0::bigint
FROM pg_trigger t JOIN pg_constraint co ON co.oid = t.tgconstraint AND co.contype = 'f' AND co.conparentid = 0
JOIN pg_class c ON c.oid = co.conrelid JOIN ns n ON n.oid = c.relnamespace
WHERE t.tgisinternal AND t.tgenabled = 'D'
UNION ALL -- security labels; name: their provider
SELECT 'label', provider, '', '', count(*) FROM (
  SELECT provider FROM pg_seclabel
  UNION ALL SELECT provider FROM pg_shseclabel WHERE classoid = 'pg_authid'::regclass OR classoid = 'pg_database'::regclass AND objoid = (SELECT oid FROM pg_database WHERE datname = current_database())) l
GROUP BY 2
{{if since 14}}UNION ALL -- columns that are compressed with lz4
SELECT 'lz4', '', '', '', count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN ns n ON n.oid = c.relnamespace
WHERE a.attcompression = 'l' AND NOT a.attisdropped HAVING count(*) > 0
{{end}}UNION ALL -- more: its table
SELECT 'invalid-index', quote_ident(n.nspname) || '.' || quote_ident(i.relname), '', quote_ident(n.nspname) || '.' || quote_ident(c.relname), 0
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid JOIN ns n ON n.oid = c.relnamespace
WHERE NOT (x.indisvalid AND x.indisready) AND c.relkind = 'r'
UNION ALL -- n: how many sessions have temporary tables now
SELECT 'temporary', '', '', '', count(DISTINCT relnamespace) FROM pg_class WHERE relpersistence = 't' AND relkind IN ('r', 'p')
HAVING count(*) > 0
UNION ALL -- of tables, indexes and materialized views; n: how many are in it
SELECT 'tablespace', t.spcname::text, '', '', count(*) FROM pg_class c JOIN ns n ON n.oid = c.relnamespace JOIN pg_tablespace t ON t.oid = c.reltablespace
WHERE t.spcname NOT IN ('pg_default', 'pg_global') GROUP BY 2
UNION ALL -- collations of pg_catalog that columns use; detail: provider; n: columns
SELECT 'collation', co.collname::text, co.collprovider::text, '', count(*)
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p', 'i', 'I', 'm') JOIN ns n ON n.oid = c.relnamespace
JOIN pg_collation co ON co.oid = a.attcollation AND co.collnamespace = 'pg_catalog'::regnamespace
WHERE a.attnum > 0 AND NOT a.attisdropped AND co.collname NOT IN ('default', 'C', 'POSIX') GROUP BY 2, 3
UNION ALL -- collations that the user made; more: their locale
SELECT 'user-collation', quote_ident(n.nspname) || '.' || quote_ident(co.collname), co.collprovider::text,
       {{if since 17}}coalesce(co.collcollate::text, co.colllocale, ''){{else if since 15}}coalesce(co.collcollate::text, co.colliculocale, ''){{else}}co.collcollate::text{{end}}, 0
FROM pg_collation co JOIN ns n ON n.oid = co.collnamespace
UNION ALL -- collations in use whose library sorts otherwise than when they were made; detail, more: the versions
SELECT 'collation-changed', quote_ident(n.nspname) || '.' || quote_ident(co.collname), co.collversion, pg_collation_actual_version(co.oid), 0
FROM pg_collation co JOIN pg_namespace n ON n.oid = co.collnamespace
WHERE co.collversion <> pg_collation_actual_version(co.oid)
  AND EXISTS (SELECT FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN ns x ON x.oid = c.relnamespace WHERE a.attcollation = co.oid AND c.relkind IN ('r', 'i', 'm'))
UNION ALL -- columns with types that newer majors do not have; more: the type
SELECT 'removed-type', quote_ident(n.nspname) || '.' || quote_ident(c.relname), quote_ident(a.attname), format_type(a.atttypid, a.atttypmod), 0
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p', 'm', 'v', 'f', 'c') JOIN ns n ON n.oid = c.relnamespace
WHERE a.atttypid IN (702, 703, 704, 705, 1023, 1024, 1025) AND a.attnum > 0 AND NOT a.attisdropped
{{if not (since 12)}}UNION ALL -- tables WITH OIDS
SELECT 'oids', quote_ident(n.nspname) || '.' || quote_ident(c.relname), '', '', 0
FROM pg_class c JOIN ns n ON n.oid = c.relnamespace WHERE c.relhasoids AND c.relkind IN ('r', 'p')
{{end}}{{if not (since 14)}}UNION ALL -- postfix operators, which 14 removed; detail: the operand
SELECT 'postfix', quote_ident(n.nspname) || '.' || o.oprname, format_type(o.oprleft, NULL), '', 0 FROM pg_operator o JOIN ns n ON n.oid = o.oprnamespace WHERE o.oprright = 0
{{end}}UNION ALL -- functions of a C library that are of no extension; detail: the extension whose library it is; more: the library
SELECT 'c-function', min(quote_ident(n.nspname) || '.' || quote_ident(p.proname)),
       coalesce((SELECT min(e.extname::text) FROM pg_depend d JOIN pg_proc x ON x.oid = d.objid AND x.probin = p.probin JOIN pg_extension e ON e.oid = d.refobjid
                 WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'), ''), p.probin, count(*)
FROM pg_proc p JOIN ns n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang AND l.lanname = 'c'
WHERE p.probin IS NOT NULL AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid) GROUP BY p.probin
UNION ALL -- columns carry pg_attver; n: how many
SELECT 'attver', '', '', '', count(*) FROM pg_attribute WHERE attoptions::text ~ 'pg\_attver' HAVING count(*) > 0
UNION ALL -- rules enabled ALWAYS or REPLICA; more: the table
SELECT 'rule', r.rulename::text, r.ev_enabled::text, quote_ident(n.nspname) || '.' || quote_ident(c.relname), 0
FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN ns n ON n.oid = c.relnamespace
WHERE r.ev_enabled IN ('A', 'R') AND r.rulename <> '_RETURN'
UNION ALL -- columns whose values name something of this cluster; detail: the type
(SELECT 'id-column', quote_ident(n.nspname) || '.' || quote_ident(c.relname) || '.' || quote_ident(a.attname), format_type(b.oid, NULL), '', 0
 FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid AND c.relkind = 'r' JOIN ns n ON n.oid = c.relnamespace JOIN pg_type t ON t.oid = a.atttypid
 JOIN pg_type b ON b.oid = coalesce(nullif(t.typbasetype, 0), t.oid)
 WHERE a.attnum > 0 AND NOT a.attisdropped AND (b.typname ~ '^_?(xid|xid8|cid|tid|txid_snapshot|pg_snapshot|pg_lsn|oid|reg[a-z]+)$') AND b.oid < 16384
   AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_class'::regclass AND m.objid = c.oid)
 ORDER BY 2 LIMIT 200)
UNION ALL -- defaults that ask for the current transaction id; detail: the default
(SELECT 'id-default', quote_ident(n.nspname) || '.' || quote_ident(c.relname) || '.' || quote_ident(a.attname), pg_get_expr(ad.adbin, ad.adrelid), '', 0
 FROM pg_attrdef ad JOIN pg_class c ON c.oid = ad.adrelid AND c.relkind IN ('r', 'p') JOIN ns n ON n.oid = c.relnamespace
 JOIN pg_attribute a ON a.attrelid = ad.adrelid AND a.attnum = ad.adnum
 WHERE pg_get_expr(ad.adbin, ad.adrelid) ~ '\m(txid_current|txid_current_snapshot|txid_current_if_assigned|pg_current_xact_id|pg_current_snapshot|pg_current_xact_id_if_assigned)\(' ORDER BY 2 LIMIT 50)
UNION ALL -- functions whose bodies do
(SELECT 'id-function', p.oid::regprocedure::text, '', '', 0
 FROM pg_proc p JOIN ns n ON n.oid = p.pronamespace
 WHERE p.prosrc ~ '\m(txid_current|txid_current_snapshot|txid_current_if_assigned|pg_current_xact_id|pg_current_snapshot|pg_current_xact_id_if_assigned)\s*\('
   AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid) ORDER BY 2 LIMIT 50)
UNION ALL -- tables that their owner may not write; name: quoted always; detail: what it lacks
SELECT 'owner-lacks', '"' || replace(n.nspname, '"', '""') || '"."' || replace(c.relname, '"', '""') || '"', string_agg(r.what, ', ' ORDER BY r.i), pg_get_userbyid(c.relowner)::text, 0::bigint
FROM pg_class c JOIN ns n ON n.oid = c.relnamespace, (VALUES (1, 'INSERT'), (2, 'UPDATE'), (3, 'DELETE'), (4, 'TRUNCATE')) r(i, what)
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.relacl IS NOT NULL AND NOT has_table_privilege(c.relowner, c.oid, r.what)
GROUP BY n.nspname, c.relname, c.relowner
UNION ALL -- tables whose owner may not even name them; detail: the schema; more: the owner
SELECT 'owner-outside', '"' || replace(n.nspname, '"', '""') || '"."' || replace(c.relname, '"', '""') || '"', n.nspname::text, pg_get_userbyid(c.relowner)::text, 0
FROM pg_class c JOIN ns n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT has_schema_privilege(c.relowner, n.oid, 'USAGE')
{{if not (since 13)}}UNION ALL -- functions over opaque, which 13 removed
SELECT 'opaque', p.oid::regprocedure::text, '', '', 0 FROM pg_proc p JOIN ns n ON n.oid = p.pronamespace WHERE p.prorettype = 2282 OR 2282 = ANY (p.proargtypes::oid[])
{{end}}ORDER BY 1, 2
