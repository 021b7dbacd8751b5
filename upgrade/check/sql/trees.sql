-- Expressions as the server keeps them, in which a function or an operator
-- stands by its OID. $1 is a pattern of operators, $2 of functions, $3 of what
-- may not stand in an index any more, $4 of names in the bodies of functions;
-- each has one group, and NULL matches nothing. $5 is $1 or $2, because looking
-- for both at once takes half as long, and most expressions have neither.
WITH ns AS MATERIALIZED (
  SELECT oid, nspname FROM pg_namespace
  WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'crossfade')
    AND nspname NOT LIKE 'pg\_temp\_%' AND nspname NOT LIKE 'pg\_toast\_temp\_%'
),
member AS MATERIALIZED (SELECT classid, objid FROM pg_depend WHERE deptype = 'e'),
relation AS MATERIALIZED (
  SELECT c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name, c.relkind
  FROM pg_class c JOIN ns n ON n.oid = c.relnamespace
  WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_class'::regclass AND m.objid = c.oid)
),
tree(what, fixed, tree) AS (
  SELECT CASE WHEN c.relkind = 'v' THEN 'view ' WHEN c.relkind = 'm' THEN 'materialized view ' ELSE 'rule ' || quote_ident(r.rulename) || ' on ' END || c.name,
         false, r.ev_action::text || coalesce(r.ev_qual::text, '')
  FROM pg_rewrite r JOIN relation c ON c.oid = r.ev_class
  UNION ALL
  SELECT CASE {{if since 12}}WHEN a.attgenerated <> '' THEN 'generated column '{{end}} WHEN true THEN 'default of ' END || c.name || '.' || quote_ident(a.attname),
         {{if since 12}}a.attgenerated <> ''{{else}}false{{end}}, d.adbin::text
  FROM pg_attrdef d JOIN relation c ON c.oid = d.adrelid JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
  UNION ALL
  SELECT 'constraint ' || quote_ident(k.conname) || CASE WHEN k.conrelid <> 0 THEN ' of ' || k.conrelid::regclass::text WHEN k.contypid <> 0 THEN ' of ' || k.contypid::regtype::text ELSE '' END,
         false, k.conbin::text
  FROM pg_constraint k JOIN ns n ON n.oid = k.connamespace WHERE k.conbin IS NOT NULL
  UNION ALL
  SELECT 'index ' || x.indexrelid::regclass::text, true, coalesce(x.indexprs::text, '') || coalesce(x.indpred::text, '')
  FROM pg_index x JOIN relation c ON c.oid = x.indrelid WHERE x.indexprs IS NOT NULL OR x.indpred IS NOT NULL
  UNION ALL
  SELECT 'policy ' || quote_ident(p.polname) || ' on ' || c.name, false, coalesce(p.polqual::text, '') || coalesce(p.polwithcheck::text, '')
  FROM pg_policy p JOIN relation c ON c.oid = p.polrelid
  UNION ALL
  SELECT 'trigger ' || quote_ident(t.tgname) || ' on ' || c.name, false, t.tgqual::text
  FROM pg_trigger t JOIN relation c ON c.oid = t.tgrelid WHERE t.tgqual IS NOT NULL AND NOT t.tgisinternal
  UNION ALL
  SELECT 'partition key of ' || c.name, true, p.partexprs::text
  FROM pg_partitioned_table p JOIN relation c ON c.oid = p.partrelid WHERE p.partexprs IS NOT NULL
  UNION ALL
  SELECT 'function ' || p.oid::regprocedure::text, false, coalesce(p.proargdefaults::text, ''){{if since 14}} || coalesce(p.prosqlbody::text, ''){{end}}
  FROM pg_proc p JOIN ns n ON n.oid = p.pronamespace
  WHERE (p.proargdefaults IS NOT NULL{{if since 14}} OR p.prosqlbody IS NOT NULL{{end}})
    AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid)
),
hit AS MATERIALIZED (
  SELECT what, CASE WHEN tree ~ $5::text THEN substring(tree FROM $1::text) END AS operator, CASE WHEN tree ~ $5::text THEN substring(tree FROM $2::text) END AS function,
         CASE WHEN fixed THEN substring(tree FROM $3::text) END AS mutable
  FROM tree WHERE fixed OR tree ~ $5::text
)
SELECT 'gone', what, coalesce(operator, ''), coalesce(function, ''), 0::bigint FROM hit WHERE operator IS NOT NULL OR function IS NOT NULL
UNION ALL -- detail: the OID of the function, or of the type that is written as text
SELECT 'mutable', what, mutable, '', 0 FROM hit WHERE mutable IS NOT NULL
UNION ALL -- detail: the function that a body names
SELECT 'body', p.oid::regprocedure::text, lower(substring(p.prosrc FROM $4::text)), '', 0
FROM pg_proc p JOIN ns n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang AND l.lanname NOT IN ('internal', 'c')
WHERE p.prosrc ~ $4::text AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid)
ORDER BY 1, 2
