-- What runs where a superuser's materialized view is refreshed: that happens as
-- its owner, views and policies on the way included. The view and its owner, a
-- function of a role that is no superuser, its owner and through what it is
-- called; or, where the function is null, a table or materialized view that the
-- query reads, in the place of the latter two, quoted.
{{template "reach.sql"}},
reads(view, relid) AS ( -- what each reads, and what the views that it reads do
  SELECT c.oid, c.oid FROM pg_class c JOIN pg_roles o ON o.oid = c.relowner WHERE c.relkind = 'm' AND o.rolsuper
  UNION
  SELECT s.view, d.refobjid
  FROM reads s JOIN pg_class v ON v.oid = s.relid AND (v.relkind = 'v' OR v.oid = s.view) JOIN pg_rewrite w ON w.ev_class = v.oid
  JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
)
SELECT DISTINCT n.nspname::text, c.relname::text, o.rolname::text, found.fn::regprocedure::text, pg_get_userbyid(p.proowner)::text, found.what, found.table_schema::text, found.table_name::text
FROM reads s JOIN pg_class c ON c.oid = s.view JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles o ON o.oid = c.relowner
CROSS JOIN LATERAL (
  SELECT r.fn, CASE WHEN s.relid = s.view THEN 'its query' ELSE 'view ' || s.relid::regclass::text END, NULL::name, NULL::name
  FROM pg_rewrite w JOIN reach r ON r.classid = 'pg_rewrite'::regclass AND r.objid = w.oid JOIN pg_class v ON v.oid = w.ev_class AND (v.relkind = 'v' OR v.oid = s.view)
  WHERE w.ev_class = s.relid
  UNION ALL
  SELECT r.fn, pg_describe_object('pg_policy'::regclass, y.oid, 0), NULL, NULL
  FROM pg_policy y JOIN reach r ON r.classid = 'pg_policy'::regclass AND r.objid = y.oid WHERE y.polrelid = s.relid
  UNION ALL
  SELECT NULL, NULL, tn.nspname, t.relname FROM pg_class t JOIN pg_namespace tn ON tn.oid = t.relnamespace WHERE t.oid = s.relid AND t.relkind IN ('r', 'p', 'm')
) found(fn, what, table_schema, table_name)
LEFT JOIN pg_proc p ON p.oid = found.fn
ORDER BY 1, 2, 4, 6
