-- Everything that is rare.
{{template "common"}}
SELECT 'extension' AS kind, {{ident "e.extname"}} AS name, ARRAY['schema', n.nspname::text, 'version', e.extversion] AS properties
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
{{- if .operator}}
UNION ALL
SELECT 'operator', {{ident "n.nspname"}} || '.' || o.oprname || '(' || coalesce({{type "o.oprleft" ""}}, 'none') || ', ' || coalesce({{type "o.oprright" ""}}, 'none') || ')', ARRAY[ -- a shell has no function
 
  'owner', pg_get_userbyid(o.oprowner)::text, 'function', {{proc "o.oprcode"}}, 'result', {{type "o.oprresult" ""}},
  'commutator', {{oper "o.oprcom"}}, 'negator', {{oper "o.oprnegate"}},
  'restrict', {{proc "o.oprrest"}}, 'join', {{proc "o.oprjoin"}}, 'merges', o.oprcanmerge::text, 'hashes', o.oprcanhash::text]
FROM pg_operator o JOIN ns n ON n.oid = o.oprnamespace
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_operator'::regclass AND m.objid = o.oid){{end}}
{{- if .operator_class}}
UNION ALL
SELECT 'operator class', {{ident "n.nspname"}} || '.' || {{ident "o.opcname"}} || ' using ' || {{ident "am.amname"}}, ARRAY[
  'owner', pg_get_userbyid(o.opcowner)::text, 'type', {{type "o.opcintype" ""}}, 'default', o.opcdefault::text,
  'family', (SELECT {{ident "fn.nspname"}} || '.' || {{ident "f.opfname"}} FROM pg_opfamily f JOIN pg_namespace fn ON fn.oid = f.opfnamespace WHERE f.oid = o.opcfamily),
  'key type', {{type "o.opckeytype" ""}}]
FROM pg_opclass o JOIN ns n ON n.oid = o.opcnamespace JOIN pg_am am ON am.oid = o.opcmethod
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_opclass'::regclass AND m.objid = o.oid){{end}}
{{- if .operator_family}}
UNION ALL
SELECT 'operator family', {{ident "n.nspname"}} || '.' || {{ident "f.opfname"}} || ' using ' || {{ident "am.amname"}}, ARRAY[
  'owner', pg_get_userbyid(f.opfowner)::text,
  'operators', (SELECT string_agg(concat_ws(' ', o.amopstrategy, o.amoppurpose, {{oper "o.amopopr"}}, (SELECT {{ident "sn.nspname"}} || '.' || {{ident "sf.opfname"}} FROM pg_opfamily sf JOIN pg_namespace sn ON sn.oid = sf.opfnamespace WHERE sf.oid = o.amopsortfamily)), ', '
                ORDER BY o.amopstrategy, {{oper "o.amopopr"}} COLLATE "C") FROM pg_amop o WHERE o.amopfamily = f.oid),
  'functions', (SELECT string_agg(concat_ws(' ', o.amprocnum, {{type "o.amproclefttype" ""}}, {{type "o.amprocrighttype" ""}}, {{proc "o.amproc"}}), ', '
                ORDER BY o.amprocnum, {{type "o.amproclefttype" ""}} COLLATE "C", {{type "o.amprocrighttype" ""}} COLLATE "C") FROM pg_amproc o WHERE o.amprocfamily = f.oid)]
FROM pg_opfamily f JOIN ns n ON n.oid = f.opfnamespace JOIN pg_am am ON am.oid = f.opfmethod
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_opfamily'::regclass AND m.objid = f.oid){{end}}
{{- if .cast}}
UNION ALL
SELECT 'cast', {{type "c.castsource" ""}} || ' as ' || {{type "c.casttarget" ""}}, ARRAY[
  'function', {{proc "c.castfunc"}}, 'context', c.castcontext::text, 'method', c.castmethod::text]
FROM pg_cast c
WHERE c.oid >= 16384 AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_cast'::regclass AND d.objid = c.oid AND d.deptype = 'i')
  AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_cast'::regclass AND m.objid = c.oid){{end}}
{{- if .transform}}
UNION ALL
SELECT 'transform', {{type "t.trftype" ""}} || ' for ' || {{ident "l.lanname"}}, ARRAY['from', {{proc "t.trffromsql"}}, 'to', {{proc "t.trftosql"}}]
FROM pg_transform t JOIN pg_language l ON l.oid = t.trflang
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_transform'::regclass AND m.objid = t.oid){{end}}
{{- if .conversion}}
UNION ALL
SELECT 'conversion', {{ident "n.nspname"}} || '.' || {{ident "c.conname"}}, ARRAY['owner', pg_get_userbyid(c.conowner)::text,
  'from', pg_encoding_to_char(c.conforencoding), 'to', pg_encoding_to_char(c.contoencoding), 'function', {{proc "c.conproc"}}, 'default', c.condefault::text]
FROM pg_conversion c JOIN ns n ON n.oid = c.connamespace
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_conversion'::regclass AND m.objid = c.oid){{end}}
{{- if .collation}}
UNION ALL
SELECT 'collation', {{ident "n.nspname"}} || '.' || {{ident "c.collname"}}, ARRAY['owner', pg_get_userbyid(c.collowner)::text, 'provider', c.collprovider::text,
  'locale', {{if since 17}}coalesce(c.collcollate, c.colllocale){{else if since 15}}coalesce(c.collcollate, c.colliculocale){{else}}c.collcollate::text{{end}},
  'character type', CASE WHEN c.collprovider <> 'i' THEN c.collctype::text END,
  'rules', {{if since 16}}c.collicurules{{else}}NULL{{end}},
  'deterministic', {{if since 12}}c.collisdeterministic::text{{else}}'true'{{end}}, 'encoding', -- CREATE COLLATION writes the database's where one that was made FROM another has any
    (SELECT c.collencoding::text FROM pg_database d WHERE d.datname = current_database() AND c.collencoding NOT IN (-1, d.encoding))]
FROM pg_collation c JOIN ns n ON n.oid = c.collnamespace
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_collation'::regclass AND m.objid = c.oid){{end}}
{{- if .language}}
UNION ALL
SELECT 'language', {{ident "l.lanname"}}, ARRAY['owner', pg_get_userbyid(l.lanowner)::text, 'privileges', {{acl "l.lanacl" "l" "l.lanowner"}}, 'trusted', l.lanpltrusted::text,
  'handler', {{proc "l.lanplcallfoid"}}, 'inline', {{proc "l.laninline"}}, 'validator', {{proc "l.lanvalidator"}}]
FROM pg_language l
WHERE l.oid >= 16384 AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_language'::regclass AND m.objid = l.oid){{end}}
{{- if .access_method}}
UNION ALL
SELECT 'access method', {{ident "a.amname"}}, ARRAY['type', a.amtype::text, 'handler', {{proc "a.amhandler"}}]
FROM pg_am a WHERE a.oid >= 16384 AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_am'::regclass AND m.objid = a.oid){{end}}
{{- if .text_search_configuration}}
UNION ALL
SELECT 'text search configuration', {{ident "n.nspname"}} || '.' || {{ident "c.cfgname"}}, ARRAY['owner', pg_get_userbyid(c.cfgowner)::text,
  'parser', (SELECT {{ident "pn.nspname"}} || '.' || {{ident "p.prsname"}} FROM pg_ts_parser p JOIN pg_namespace pn ON pn.oid = p.prsnamespace WHERE p.oid = c.cfgparser),
  'mappings', (SELECT string_agg(m.maptokentype || ' ' || m.mapseqno || ' ' || (SELECT {{ident "dn.nspname"}} || '.' || {{ident "d.dictname"}} FROM pg_ts_dict d JOIN pg_namespace dn ON dn.oid = d.dictnamespace WHERE d.oid = m.mapdict), ', ' ORDER BY m.maptokentype, m.mapseqno) FROM pg_ts_config_map m WHERE m.mapcfg = c.oid)]
FROM pg_ts_config c JOIN ns n ON n.oid = c.cfgnamespace
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_ts_config'::regclass AND m.objid = c.oid){{end}}
{{- if .text_search_dictionary}}
UNION ALL
SELECT 'text search dictionary', {{ident "n.nspname"}} || '.' || {{ident "d.dictname"}}, ARRAY['owner', pg_get_userbyid(d.dictowner)::text, 'options', d.dictinitoption,
  'template', (SELECT {{ident "tn.nspname"}} || '.' || {{ident "t.tmplname"}} FROM pg_ts_template t JOIN pg_namespace tn ON tn.oid = t.tmplnamespace WHERE t.oid = d.dicttemplate)]
FROM pg_ts_dict d JOIN ns n ON n.oid = d.dictnamespace
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_ts_dict'::regclass AND m.objid = d.oid){{end}}
{{- if .text_search_parser}}
UNION ALL
SELECT 'text search parser', {{ident "n.nspname"}} || '.' || {{ident "p.prsname"}}, ARRAY['functions',
  concat_ws(', ', 'start ' || {{proc "p.prsstart"}}, 'gettoken ' || {{proc "p.prstoken"}}, 'end ' || {{proc "p.prsend"}}, 'headline ' || {{proc "p.prsheadline"}}, 'lextypes ' || {{proc "p.prslextype"}})]
FROM pg_ts_parser p JOIN ns n ON n.oid = p.prsnamespace
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_ts_parser'::regclass AND m.objid = p.oid){{end}}
{{- if .text_search_template}}
UNION ALL
SELECT 'text search template', {{ident "n.nspname"}} || '.' || {{ident "t.tmplname"}}, ARRAY['functions', concat_ws(', ', 'init ' || {{proc "t.tmplinit"}}, 'lexize ' || {{proc "t.tmpllexize"}})]
FROM pg_ts_template t JOIN ns n ON n.oid = t.tmplnamespace
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_ts_template'::regclass AND m.objid = t.oid){{end}}
{{- if .foreign_data_wrapper}}
UNION ALL
SELECT 'foreign data wrapper', {{ident "w.fdwname"}}, ARRAY['owner', pg_get_userbyid(w.fdwowner)::text, 'privileges', {{acl "w.fdwacl" "F" "w.fdwowner"}},
  'handler', {{proc "w.fdwhandler"}}, 'validator', {{proc "w.fdwvalidator"}}, 'options', {{sorted "w.fdwoptions"}}]
FROM pg_foreign_data_wrapper w
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_foreign_data_wrapper'::regclass AND m.objid = w.oid){{end}}
{{- if .server}}
UNION ALL
SELECT 'server', {{ident "s.srvname"}}, ARRAY['owner', pg_get_userbyid(s.srvowner)::text, 'privileges', {{acl "s.srvacl" "S" "s.srvowner"}}, 'type', s.srvtype, 'version', s.srvversion,
  'wrapper', (SELECT {{ident "fdwname"}} FROM pg_foreign_data_wrapper WHERE oid = s.srvfdw), 'options', {{sorted "s.srvoptions"}}]
FROM pg_foreign_server s
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_foreign_server'::regclass AND m.objid = s.oid){{end}}
{{- if .user_mapping}}
UNION ALL
-- options hold passwords: only their hash
SELECT 'user mapping', CASE u.umuser WHEN 0 THEN 'PUBLIC' ELSE {{ident "u.usename"}} END || ' for ' || {{ident "u.srvname"}}, ARRAY['options', md5({{sorted "u.umoptions"}})]
FROM pg_user_mappings u{{end}}
{{- if .default_privileges}}
UNION ALL
SELECT 'default privileges', 'of ' || {{ident "pg_get_userbyid(d.defaclrole)"}} || ' in ' || coalesce({{ident "n.nspname"}}, 'any schema') || ' on ' || d.defaclobjtype::text, ARRAY[
  'privileges', (SELECT string_agg(x.item, ', ' ORDER BY x.item COLLATE "C") FROM (
    SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE {{ident "pg_get_userbyid(a.grantee)"}} END || '='
      || string_agg(a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END, '+' ORDER BY a.privilege_type) AS item
    FROM aclexplode(d.defaclacl) a GROUP BY a.grantee, a.grantor) x)]
FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace{{end}}
UNION ALL
SELECT 'comment', {{template "called"}}, ARRAY['text', d.description]
FROM (SELECT objoid, classoid, objsubid, description FROM pg_description
      WHERE objoid >= 16384 OR classoid = 'pg_namespace'::regclass AND objoid = (SELECT oid FROM pg_namespace WHERE nspname = 'public')) d,
LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) i
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = d.classoid AND m.objid = d.objoid)
  AND NOT {{template "stays"}} AND NOT {{template "ours"}}
{{- if .security_label}}
UNION ALL
SELECT 'security label', d.provider || ' on ' || {{template "called"}}, ARRAY['label', d.label]
FROM pg_seclabel d, LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) i
WHERE NOT {{template "stays"}} AND NOT {{template "ours"}}{{end}}
UNION ALL
-- privileges that somebody changed on what initdb or an extension made; those on
-- information_schema, which pg_dump leaves out, are each server's own
SELECT 'privileges', {{template "called"}}, ARRAY['privileges', {{acl "d.acl" "d.kind" "d.owner"}}, '~extension', e.extname::text]
FROM (
  SELECT 'pg_class'::regclass AS classoid, c.oid AS objoid, 0 AS objsubid, c.relacl AS acl, CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char" AS kind, c.relowner AS owner, c.relnamespace AS nsp FROM pg_class c WHERE c.relacl IS NOT NULL
  UNION ALL SELECT 'pg_class'::regclass, c.oid, a.attnum, a.attacl, 'c', c.relowner, c.relnamespace FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE a.attacl IS NOT NULL AND NOT a.attisdropped
  UNION ALL SELECT 'pg_proc'::regclass, f.oid, 0, f.proacl, 'f', f.proowner, f.pronamespace FROM pg_proc f WHERE f.proacl IS NOT NULL
  UNION ALL SELECT 'pg_type'::regclass, t.oid, 0, t.typacl, 'T', t.typowner, t.typnamespace FROM pg_type t WHERE t.typacl IS NOT NULL
  UNION ALL SELECT 'pg_language'::regclass, l.oid, 0, l.lanacl, 'l', l.lanowner, 'pg_catalog'::regnamespace FROM pg_language l WHERE l.lanacl IS NOT NULL
  UNION ALL SELECT 'pg_namespace'::regclass, n.oid, 0, n.nspacl, 'n', n.nspowner, 'pg_catalog'::regnamespace FROM pg_namespace n WHERE n.nspacl IS NOT NULL AND n.nspname <> 'public'
  UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, w.oid, 0, w.fdwacl, 'F', w.fdwowner, 'pg_catalog'::regnamespace FROM pg_foreign_data_wrapper w WHERE w.fdwacl IS NOT NULL
  UNION ALL SELECT 'pg_foreign_server'::regclass, s.oid, 0, s.srvacl, 'S', s.srvowner, 'pg_catalog'::regnamespace FROM pg_foreign_server s WHERE s.srvacl IS NOT NULL
) d
LEFT JOIN pg_init_privs ip ON ip.classoid = d.classoid AND ip.objoid = d.objoid AND ip.objsubid = d.objsubid
LEFT JOIN member m ON m.classid = d.classoid AND m.objid = d.objoid
LEFT JOIN pg_extension e ON e.oid = m.extension,
LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) i
WHERE (d.nsp = 'pg_catalog'::regnamespace AND d.objoid < 16384 OR m.objid IS NOT NULL)
  AND NOT (d.acl @> coalesce(ip.initprivs, acldefault(d.kind, d.owner)) AND d.acl <@ coalesce(ip.initprivs, acldefault(d.kind, d.owner)))
