-- Triggers, rules, policies, event triggers; ours left out.
{{template "common"}}
SELECT 'trigger' AS kind, {{ident "t.tgname"}} || ' on ' || {{ident "n.nspname"}} || '.' || {{ident "c.relname"}} AS name, ARRAY[
  'definition', {{if since 13}}CASE WHEN t.tgparentid = 0 THEN pg_get_triggerdef(t.oid) END{{else}}pg_get_triggerdef(t.oid){{end}},
  'enabled', t.tgenabled::text] AS properties
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN ns n ON n.oid = c.relnamespace
WHERE {{template "user_trigger"}}
  AND t.tgname NOT LIKE 'crossfade\_fence%'
  AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_trigger'::regclass AND m.objid = t.oid
                  OR m.classid = 'pg_class'::regclass AND m.objid = c.oid)
UNION ALL
SELECT 'rule', {{ident "r.rulename"}} || ' on ' || {{ident "n.nspname"}} || '.' || {{ident "c.relname"}}, ARRAY[
  'definition', pg_get_ruledef(r.oid), 'enabled', r.ev_enabled::text]
FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN ns n ON n.oid = c.relnamespace
WHERE r.rulename <> '_RETURN'
  AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_rewrite'::regclass AND m.objid = r.oid
                  OR m.classid = 'pg_class'::regclass AND m.objid = c.oid)
UNION ALL
SELECT 'policy', {{ident "p.polname"}} || ' on ' || {{ident "n.nspname"}} || '.' || {{ident "c.relname"}}, ARRAY[
  'command', p.polcmd::text,
  'permissive', p.polpermissive::text,
  'roles', (SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE {{ident "pg_get_userbyid(r)"}} END, ', ' ORDER BY pg_get_userbyid(r)::text COLLATE "C") FROM unnest(p.polroles) r),
  'using', pg_get_expr(p.polqual, p.polrelid),
  'with check', pg_get_expr(p.polwithcheck, p.polrelid)]
FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN ns n ON n.oid = c.relnamespace
UNION ALL
SELECT 'event trigger', {{ident "e.evtname"}}, ARRAY[
  'owner', pg_get_userbyid(e.evtowner)::text,
  'event', e.evtevent::text,
  'tags', {{sorted "e.evttags"}},
  'function', {{proc "e.evtfoid"}},
  'enabled', e.evtenabled::text]
FROM pg_event_trigger e
WHERE e.evtname NOT LIKE 'crossfade\_ddl%'
  AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_event_trigger'::regclass AND m.objid = e.oid)
