WITH RECURSIVE
ordinary AS MATERIALIZED (
  SELECT p.oid FROM pg_proc p JOIN pg_roles r ON r.oid = p.proowner WHERE p.oid >= 16384 AND NOT r.rolsuper
    AND p.pronamespace IS DISTINCT FROM (SELECT oid FROM pg_namespace WHERE nspname = 'crossfade')
),
-- what leads to one of them: functions over it, operators, casts, domains and what
-- contains them, operator classes, and at the end what belongs to a table
reach(classid, objid, fn) AS (
  SELECT 'pg_proc'::regclass::oid, oid, oid FROM ordinary
  UNION
  SELECT n.classid, n.objid, r.fn
  FROM reach r, LATERAL (
    SELECT d.classid, d.objid FROM pg_depend d
    WHERE d.refclassid = r.classid AND d.refobjid = r.objid AND d.deptype IN ('n', 'a', 'i') AND r.classid <> 'pg_class'::regclass
    UNION ALL
    SELECT 'pg_type'::regclass, c.contypid FROM pg_constraint c WHERE r.classid = 'pg_constraint'::regclass AND c.oid = r.objid AND c.contypid <> 0
    UNION ALL
    SELECT 'pg_type'::regclass, c.reltype FROM pg_class c WHERE r.classid = 'pg_class'::regclass AND c.oid = r.objid AND c.reltype <> 0
    UNION ALL
    SELECT 'pg_opclass'::regclass, o.oid FROM pg_amproc a JOIN pg_opclass o ON o.opcfamily = a.amprocfamily WHERE r.classid = 'pg_amproc'::regclass AND a.oid = r.objid
    UNION ALL
    SELECT 'pg_opclass'::regclass, o.oid FROM pg_amop a JOIN pg_opclass o ON o.opcfamily = a.amopfamily WHERE r.classid = 'pg_amop'::regclass AND a.oid = r.objid
  ) n(classid, objid)
)
