-- What of each table runs functions of roles that are no superusers: kind, the
-- table, its owner and whether that is a superuser, whether it is a materialized
-- view or partitioned, whether no index is its identity, the object, the function and its owner, the expressions and, of their
-- functions, those that matter and those in SQL.
{{template "reach.sql"}},
keys AS MATERIALIZED ( -- partitioned tables whose key leads there, by more than a column's type
  SELECT p.partrelid, r.fn, p.partexprs
  FROM pg_partitioned_table p JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = p.partrelid AND d.objsubid = 0
  JOIN reach r ON r.classid = d.refclassid AND r.objid = d.refobjid
  WHERE p.partexprs IS NOT NULL AND d.deptype = 'n'
),
under(root, relid) AS (
  SELECT DISTINCT partrelid, partrelid FROM keys
  UNION
  SELECT u.root, i.inhrelid FROM under u JOIN pg_inherits i ON i.inhparent = u.relid
),
found(kind, relid, what, fn, exprs) AS (
  SELECT 'check', c.conrelid, 'constraint ' || c.conname, r.fn, c.conbin::text
  FROM reach r JOIN pg_constraint c ON r.classid = 'pg_constraint'::regclass AND c.oid = r.objid WHERE c.contype = 'c' AND c.conrelid <> 0
  {{if since 12}}UNION ALL
  SELECT 'generated', f.adrelid, 'column ' || a.attname, r.fn, f.adbin::text
  FROM reach r JOIN pg_attrdef f ON r.classid = 'pg_attrdef'::regclass AND f.oid = r.objid
  JOIN pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum WHERE a.attgenerated <> ''
  UNION ALL -- before 15 the column depends on the function, and not its expression
  SELECT 'generated', f.adrelid, 'column ' || a.attname, r.fn, f.adbin::text
  FROM reach r JOIN pg_depend d ON d.refclassid = r.classid AND d.refobjid = r.objid AND d.classid = 'pg_class'::regclass
  JOIN pg_attribute a ON a.attrelid = d.objid AND a.attnum = d.objsubid AND a.attgenerated <> '' JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
  {{end}}UNION ALL -- it runs where a row is applied that comes without the column
  SELECT 'default', f.adrelid, 'the default of column ' || a.attname, r.fn, ''
  FROM reach r JOIN pg_attrdef f ON r.classid = 'pg_attrdef'::regclass AND f.oid = r.objid
  JOIN pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum{{if since 12}} WHERE a.attgenerated = ''{{end}}
  UNION ALL
  SELECT CASE WHEN x.indisexclusion THEN 'exclusion' ELSE 'index' END, x.indrelid, 'index ' || i.relname, r.fn, concat(x.indexprs::text, x.indpred::text)
  FROM reach r JOIN pg_index x ON r.classid = 'pg_class'::regclass AND x.indexrelid = r.objid JOIN pg_class i ON i.oid = x.indexrelid
  {{if since 14}}UNION ALL
  SELECT 'statistics', s.stxrelid, 'statistics ' || s.stxname, r.fn, s.stxexprs::text
  FROM reach r JOIN pg_statistic_ext s ON r.classid = 'pg_statistic_ext'::regclass AND s.oid = r.objid
  {{end}}UNION ALL
  SELECT 'trigger', t.tgrelid, 'trigger ' || t.tgname, r.fn, ''
  FROM reach r JOIN pg_trigger t ON r.classid = 'pg_trigger'::regclass AND t.oid = r.objid WHERE t.tgenabled IN ('A', 'R') AND NOT t.tgisinternal
  UNION ALL
  SELECT 'domain', a.attrelid, 'column ' || a.attname, r.fn, ''
  FROM reach r JOIN pg_attribute a ON r.classid = 'pg_type'::regclass AND a.atttypid = r.objid WHERE a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
  SELECT 'partition', u.relid, 'the partition key of ' || k.partrelid::regclass::text, k.fn, k.partexprs::text
  FROM keys k JOIN under u ON u.root = k.partrelid
  UNION ALL -- an implicit cast by which a foreign key compares its columns
  SELECT 'foreign-key', c.conrelid, 'constraint ' || c.conname, r.fn, ''
  FROM reach r JOIN pg_cast s ON r.classid = 'pg_cast'::regclass AND s.oid = r.objid AND s.castcontext = 'i'
  JOIN pg_attribute a ON a.atttypid = s.castsource
  JOIN pg_constraint c ON c.contype = 'f' AND (c.conrelid = a.attrelid AND a.attnum = ANY (c.conkey) OR c.confrelid = a.attrelid AND a.attnum = ANY (c.confkey))
)
SELECT DISTINCT f.kind, n.nspname::text, c.relname::text, o.rolname::text, o.rolsuper, c.relkind = 'm', c.relkind = 'p',
       NOT EXISTS (SELECT FROM pg_index k WHERE k.indrelid = c.oid AND (k.indisprimary OR k.indisreplident)), f.what, f.fn::regprocedure::text, pg_get_userbyid(p.proowner)::text,
       coalesce(f.exprs, ''),
       CASE WHEN f.exprs <> '' THEN ARRAY(SELECT DISTINCT r.objid FROM reach r WHERE r.classid = 'pg_proc'::regclass) END,
       CASE WHEN f.exprs <> '' THEN ARRAY(SELECT DISTINCT r.objid FROM reach r JOIN pg_proc q ON q.oid = r.objid JOIN pg_language l ON l.oid = q.prolang
                                          WHERE r.classid = 'pg_proc'::regclass AND l.lanname = 'sql') END
FROM found f JOIN pg_class c ON c.oid = f.relid AND c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't' JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_roles o ON o.oid = c.relowner JOIN pg_proc p ON p.oid = f.fn
WHERE n.nspname <> 'crossfade' AND (c.relkind <> 'm' OR f.kind <> 'domain')
ORDER BY 2, 3, 1, 9, 10
