-- Everything that is rare.
{{template "common"}}
SELECT 'extension' AS kind, quote_ident(e.extname) AS name, ARRAY['schema', n.nspname::text, 'version', e.extversion] AS properties
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
UNION ALL
SELECT 'operator', quote_ident(n.nspname) || '.' || o.oprname || '(' || format_type(nullif(o.oprleft, 0), NULL) || ', ' || coalesce(format_type(nullif(o.oprright, 0), NULL), '') || ')', ARRAY[
  'owner', pg_get_userbyid(o.oprowner)::text, 'function', o.oprcode::regprocedure::text, 'result', format_type(o.oprresult, NULL),
  'commutator', nullif(o.oprcom, 0)::regoperator::text, 'negator', nullif(o.oprnegate, 0)::regoperator::text,
  'restrict', nullif(o.oprrest::regproc::text, '-'), 'join', nullif(o.oprjoin::regproc::text, '-'), 'merges', o.oprcanmerge::text, 'hashes', o.oprcanhash::text]
FROM pg_operator o JOIN ns n ON n.oid = o.oprnamespace
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_operator'::regclass AND m.objid = o.oid)
UNION ALL
SELECT 'operator class', quote_ident(n.nspname) || '.' || quote_ident(o.opcname) || ' using ' || am.amname, ARRAY[
  'owner', pg_get_userbyid(o.opcowner)::text, 'type', format_type(o.opcintype, NULL), 'default', o.opcdefault::text,
  'family', (SELECT quote_ident(fn.nspname) || '.' || quote_ident(f.opfname) FROM pg_opfamily f JOIN pg_namespace fn ON fn.oid = f.opfnamespace WHERE f.oid = o.opcfamily),
  'key type', format_type(nullif(o.opckeytype, 0), NULL)]
FROM pg_opclass o JOIN ns n ON n.oid = o.opcnamespace JOIN pg_am am ON am.oid = o.opcmethod
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_opclass'::regclass AND m.objid = o.oid)
UNION ALL
SELECT 'operator family', quote_ident(n.nspname) || '.' || quote_ident(f.opfname) || ' using ' || am.amname, ARRAY[
  'owner', pg_get_userbyid(f.opfowner)::text,
  'operators', (SELECT string_agg(concat_ws(' ', o.amopstrategy, o.amoppurpose, o.amopopr::regoperator, (SELECT sf.opfname FROM pg_opfamily sf WHERE sf.oid = o.amopsortfamily)), ', '
                ORDER BY o.amopstrategy, o.amopopr::regoperator::text COLLATE "C") FROM pg_amop o WHERE o.amopfamily = f.oid),
  'functions', (SELECT string_agg(concat_ws(' ', o.amprocnum, format_type(o.amproclefttype, NULL), format_type(o.amprocrighttype, NULL), o.amproc::regprocedure), ', '
                ORDER BY o.amprocnum, o.amproc::regprocedure::text COLLATE "C") FROM pg_amproc o WHERE o.amprocfamily = f.oid)]
FROM pg_opfamily f JOIN ns n ON n.oid = f.opfnamespace JOIN pg_am am ON am.oid = f.opfmethod
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_opfamily'::regclass AND m.objid = f.oid)
UNION ALL
SELECT 'cast', format_type(c.castsource, NULL) || ' as ' || format_type(c.casttarget, NULL), ARRAY[
  'function', nullif(c.castfunc, 0)::regprocedure::text, 'context', c.castcontext::text, 'method', c.castmethod::text]
FROM pg_cast c
WHERE c.oid >= 16384 AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_cast'::regclass AND d.objid = c.oid AND d.deptype = 'i')
  AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_cast'::regclass AND m.objid = c.oid)
UNION ALL
SELECT 'transform', format_type(t.trftype, NULL) || ' for ' || l.lanname, ARRAY['from', t.trffromsql::regproc::text, 'to', t.trftosql::regproc::text]
FROM pg_transform t JOIN pg_language l ON l.oid = t.trflang
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_transform'::regclass AND m.objid = t.oid)
UNION ALL
SELECT 'conversion', quote_ident(n.nspname) || '.' || quote_ident(c.conname), ARRAY['owner', pg_get_userbyid(c.conowner)::text,
  'from', pg_encoding_to_char(c.conforencoding), 'to', pg_encoding_to_char(c.contoencoding), 'function', c.conproc::regproc::text, 'default', c.condefault::text]
FROM pg_conversion c JOIN ns n ON n.oid = c.connamespace
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_conversion'::regclass AND m.objid = c.oid)
UNION ALL
SELECT 'collation', quote_ident(n.nspname) || '.' || quote_ident(c.collname), ARRAY['owner', pg_get_userbyid(c.collowner)::text, 'provider', c.collprovider::text,
  'locale', {{if since 17}}coalesce(c.collcollate, c.colllocale){{else if since 15}}coalesce(c.collcollate, c.colliculocale){{else}}c.collcollate::text{{end}},
  'character type', {{if since 15}}coalesce(c.collctype, {{if since 17}}c.colllocale{{else}}c.colliculocale{{end}}){{else}}c.collctype::text{{end}},
  'rules', {{if since 16}}c.collicurules{{else}}NULL{{end}},
  'deterministic', {{if since 12}}c.collisdeterministic::text{{else}}'true'{{end}}, 'encoding', -- CREATE COLLATION writes the database's where one that was made FROM another has any
    (SELECT c.collencoding::text FROM pg_database d WHERE d.datname = current_database() AND c.collencoding NOT IN (-1, d.encoding))]
FROM pg_collation c JOIN ns n ON n.oid = c.collnamespace
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_collation'::regclass AND m.objid = c.oid)
UNION ALL
SELECT 'language', quote_ident(l.lanname), ARRAY['owner', pg_get_userbyid(l.lanowner)::text, 'privileges', {{acl "l.lanacl" "l" "l.lanowner"}}, 'trusted', l.lanpltrusted::text,
  'handler', nullif(l.lanplcallfoid::regproc::text, '-'), 'inline', nullif(l.laninline::regproc::text, '-'), 'validator', nullif(l.lanvalidator::regproc::text, '-')]
FROM pg_language l
WHERE l.oid >= 16384 AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_language'::regclass AND m.objid = l.oid)
UNION ALL
SELECT 'access method', quote_ident(a.amname), ARRAY['type', a.amtype::text, 'handler', a.amhandler::regproc::text]
FROM pg_am a WHERE a.oid >= 16384 AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_am'::regclass AND m.objid = a.oid)
UNION ALL
SELECT 'text search configuration', quote_ident(n.nspname) || '.' || quote_ident(c.cfgname), ARRAY['owner', pg_get_userbyid(c.cfgowner)::text,
  'parser', (SELECT quote_ident(pn.nspname) || '.' || quote_ident(p.prsname) FROM pg_ts_parser p JOIN pg_namespace pn ON pn.oid = p.prsnamespace WHERE p.oid = c.cfgparser),
  'mappings', (SELECT string_agg(m.maptokentype || ' ' || m.mapseqno || ' ' || m.mapdict::regdictionary::text, ', ' ORDER BY m.maptokentype, m.mapseqno) FROM pg_ts_config_map m WHERE m.mapcfg = c.oid)]
FROM pg_ts_config c JOIN ns n ON n.oid = c.cfgnamespace
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_ts_config'::regclass AND m.objid = c.oid)
UNION ALL
SELECT 'text search dictionary', quote_ident(n.nspname) || '.' || quote_ident(d.dictname), ARRAY['owner', pg_get_userbyid(d.dictowner)::text, 'options', d.dictinitoption,
  'template', (SELECT quote_ident(tn.nspname) || '.' || quote_ident(t.tmplname) FROM pg_ts_template t JOIN pg_namespace tn ON tn.oid = t.tmplnamespace WHERE t.oid = d.dicttemplate)]
FROM pg_ts_dict d JOIN ns n ON n.oid = d.dictnamespace
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_ts_dict'::regclass AND m.objid = d.oid)
UNION ALL
SELECT 'text search parser', quote_ident(n.nspname) || '.' || quote_ident(p.prsname), ARRAY['functions',
  concat_ws(' ', p.prsstart, p.prstoken, p.prsend, p.prsheadline, p.prslextype)]
FROM pg_ts_parser p JOIN ns n ON n.oid = p.prsnamespace
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_ts_parser'::regclass AND m.objid = p.oid)
UNION ALL
SELECT 'text search template', quote_ident(n.nspname) || '.' || quote_ident(t.tmplname), ARRAY['functions', concat_ws(' ', t.tmplinit, t.tmpllexize)]
FROM pg_ts_template t JOIN ns n ON n.oid = t.tmplnamespace
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_ts_template'::regclass AND m.objid = t.oid)
UNION ALL
SELECT 'foreign data wrapper', quote_ident(w.fdwname), ARRAY['owner', pg_get_userbyid(w.fdwowner)::text, 'privileges', {{acl "w.fdwacl" "F" "w.fdwowner"}},
  'handler', nullif(w.fdwhandler, 0)::regproc::text, 'validator', nullif(w.fdwvalidator, 0)::regproc::text, 'options', {{sorted "w.fdwoptions"}}]
FROM pg_foreign_data_wrapper w
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_foreign_data_wrapper'::regclass AND m.objid = w.oid)
UNION ALL
SELECT 'server', quote_ident(s.srvname), ARRAY['owner', pg_get_userbyid(s.srvowner)::text, 'privileges', {{acl "s.srvacl" "S" "s.srvowner"}}, 'type', s.srvtype, 'version', s.srvversion,
  'wrapper', (SELECT fdwname::text FROM pg_foreign_data_wrapper WHERE oid = s.srvfdw), 'options', {{sorted "s.srvoptions"}}]
FROM pg_foreign_server s
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_foreign_server'::regclass AND m.objid = s.oid)
UNION ALL
-- options hold passwords: only their hash
SELECT 'user mapping', CASE u.umuser WHEN 0 THEN 'PUBLIC' ELSE quote_ident(u.usename) END || ' for ' || quote_ident(u.srvname), ARRAY['options', md5({{sorted "u.umoptions"}})]
FROM pg_user_mappings u
UNION ALL
SELECT 'default privileges', 'of ' || quote_ident(pg_get_userbyid(d.defaclrole)) || ' in ' || coalesce(quote_ident(n.nspname), 'any schema') || ' on ' || d.defaclobjtype::text, ARRAY[
  'privileges', (SELECT string_agg(x.item, ', ' ORDER BY x.item COLLATE "C") FROM (
    SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END || '='
      || string_agg(a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END, '+' ORDER BY a.privilege_type) AS item
    FROM aclexplode(d.defaclacl) a GROUP BY a.grantee, a.grantor) x)]
FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
UNION ALL
SELECT 'comment', i.type || ' ' || i.identity, ARRAY['text', d.description]
FROM pg_description d, LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) i
WHERE (d.objoid >= 16384 OR d.classoid = 'pg_namespace'::regclass AND d.objoid = (SELECT oid FROM pg_namespace WHERE nspname = 'public'))
  AND NOT EXISTS (SELECT FROM member m WHERE m.classid = d.classoid AND m.objid = d.objoid)
  AND d.classoid <> 'pg_publication'::regclass AND d.classoid <> 'pg_subscription'::regclass
  AND i.identity <> 'crossfade' AND i.identity NOT LIKE 'crossfade.%' AND i.identity NOT LIKE 'crossfade\_%'
UNION ALL
SELECT 'security label', l.provider || ' on ' || l.objtype || ' ' || l.objname, ARRAY['label', l.label]
FROM pg_seclabels l WHERE l.objtype NOT IN ('database', 'tablespace', 'role', 'publication', 'subscription')
UNION ALL
-- privileges that somebody changed on what initdb or an extension made
SELECT 'privileges', i.type || ' ' || i.identity, ARRAY['privileges', {{acl "p.acl" "p.kind" "p.owner"}}]
FROM (
  SELECT 'pg_class'::regclass AS classid, c.oid, c.relacl AS acl, CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char" AS kind, c.relowner AS owner, c.relnamespace AS nsp FROM pg_class c WHERE c.relacl IS NOT NULL
  UNION ALL SELECT 'pg_proc'::regclass, f.oid, f.proacl, 'f', f.proowner, f.pronamespace FROM pg_proc f WHERE f.proacl IS NOT NULL
) p
LEFT JOIN pg_init_privs ip ON ip.classoid = p.classid AND ip.objoid = p.oid AND ip.objsubid = 0,
LATERAL pg_identify_object(p.classid, p.oid, 0) i
WHERE (p.nsp = 'pg_catalog'::regnamespace AND p.oid < 16384 OR EXISTS (SELECT FROM member m WHERE m.classid = p.classid AND m.objid = p.oid))
  AND NOT (p.acl @> coalesce(ip.initprivs, acldefault(p.kind, p.owner)) AND p.acl <@ coalesce(ip.initprivs, acldefault(p.kind, p.owner)))
