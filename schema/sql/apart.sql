-- What needs the tables of $1, directly or through others. What belongs to
-- another table is no further followed: it crosses.
WITH RECURSIVE given AS (SELECT u.oid FROM unnest($1::oid[]) AS u(oid)),
away AS (
  SELECT 'pg_class'::regclass::oid AS classid, u.oid AS objid, false AS crosses, 0::oid AS needclass, 0::oid AS needobj FROM given u
  UNION
  SELECT x.classid, x.objid, y.crosses, CASE WHEN y.crosses THEN a.classid ELSE 0 END, CASE WHEN y.crosses THEN a.objid ELSE 0 END
  FROM away a
  JOIN pg_depend d ON d.refclassid = a.classid AND d.refobjid = a.objid AND d.deptype IN ('n', 'a', 'i', 'P', 'S')
  CROSS JOIN LATERAL (
    SELECT o.classid, o.objid, coalesce(o.rel, 0::oid) AS rel, coalesce((SELECT relkind FROM pg_class WHERE oid = o.rel), '-') AS relkind FROM (
      SELECT CASE d.classid WHEN 'pg_rewrite'::regclass THEN 'pg_class'::regclass::oid ELSE d.classid END AS classid,
             CASE d.classid WHEN 'pg_rewrite'::regclass THEN (SELECT ev_class FROM pg_rewrite WHERE oid = d.objid) ELSE d.objid END AS objid,
             CASE d.classid
               WHEN 'pg_rewrite'::regclass THEN (SELECT ev_class FROM pg_rewrite WHERE oid = d.objid)
               WHEN 'pg_class'::regclass THEN coalesce((SELECT indrelid FROM pg_index WHERE indexrelid = d.objid), d.objid)
               WHEN 'pg_constraint'::regclass THEN (SELECT conrelid FROM pg_constraint WHERE oid = d.objid)
               WHEN 'pg_attrdef'::regclass THEN (SELECT adrelid FROM pg_attrdef WHERE oid = d.objid)
               WHEN 'pg_policy'::regclass THEN (SELECT polrelid FROM pg_policy WHERE oid = d.objid)
               WHEN 'pg_trigger'::regclass THEN (SELECT tgrelid FROM pg_trigger WHERE oid = d.objid)
             END AS rel
    ) o
    WHERE NOT (o.classid = 'pg_trigger'::regclass AND EXISTS (SELECT FROM pg_trigger t WHERE t.oid = o.objid AND t.tgisinternal))
  ) x
  LEFT JOIN given g ON g.oid = x.rel
  CROSS JOIN LATERAL (SELECT g.oid IS NULL AND x.relkind IN ('r', 'p', 'f') AS crosses) y
  WHERE NOT a.crosses
)
SELECT DISTINCT
  CASE
    WHEN a.crosses AND (c.relkind IN ('i', 'I') OR k.conparentid <> 0) THEN 'nothing' -- its table or its parent tells
    WHEN a.crosses THEN 'crosses'
    WHEN a.classid = 'pg_class'::regclass THEN CASE c.relkind
      WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'f' THEN 'table' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence'
      WHEN 'i' THEN 'index' WHEN 'I' THEN 'index' WHEN 't' THEN 'nothing' ELSE 'crosses' END
    WHEN a.classid = 'pg_proc'::regclass THEN 'function'
    WHEN a.classid = 'pg_statistic_ext'::regclass THEN 'statistics'
    WHEN a.classid = 'pg_type'::regclass AND (t.typrelid <> 0 OR t.typcategory = 'A') THEN 'nothing'
    WHEN a.classid IN ('pg_constraint'::regclass, 'pg_attrdef'::regclass, 'pg_policy'::regclass, 'pg_trigger'::regclass, 'pg_rewrite'::regclass,
                       'pg_publication_rel'::regclass) THEN 'nothing'
    ELSE 'crosses'
  END AS kind,
  coalesce(n.nspname, pn.nspname, sn.nspname, '')::text AS schema,
  coalesce(c.relname::text, p.proname || '(' || coalesce((SELECT string_agg(format_type(u.t, NULL), ', ' ORDER BY u.i) FROM unnest(p.proargtypes) WITH ORDINALITY u(t, i)), '') || ')', s.stxname::text, '') AS name,
  coalesce({{ident "n.nspname"}} || '.' || {{ident "c.relname"}}, {{ident "pn.nspname"}} || '.' || {{ident "p.proname"}} || '(' || {{types "p.proargtypes"}} || ')',
           {{ident "sn.nspname"}} || '.' || {{ident "s.stxname"}}, '') AS object,
  coalesce(p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')', '') AS named,
  CASE WHEN k.contype = 'f' AND a.crosses THEN 'foreign key' ELSE '' END AS what,
  CASE WHEN a.crosses OR c.oid IS NULL AND p.oid IS NULL AND s.oid IS NULL THEN pg_describe_object(a.classid, a.objid, 0) ELSE '' END AS says,
  CASE WHEN a.crosses THEN pg_describe_object(a.needclass, a.needobj, 0) ELSE '' END AS needs
FROM away a
LEFT JOIN pg_class c ON a.classid = 'pg_class'::regclass AND c.oid = a.objid
LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_proc p ON a.classid = 'pg_proc'::regclass AND p.oid = a.objid
LEFT JOIN pg_namespace pn ON pn.oid = p.pronamespace
LEFT JOIN pg_statistic_ext s ON a.classid = 'pg_statistic_ext'::regclass AND s.oid = a.objid
LEFT JOIN pg_namespace sn ON sn.oid = s.stxnamespace
LEFT JOIN pg_type t ON a.classid = 'pg_type'::regclass AND t.oid = a.objid
LEFT JOIN pg_constraint k ON a.classid = 'pg_constraint'::regclass AND k.oid = a.objid
ORDER BY 1, 2, 3, 6
