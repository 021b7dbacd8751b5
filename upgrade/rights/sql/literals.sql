-- What is stored with an expression of an array, row or range type over a domain
-- whose check runs functions of ordinary roles, and partitions bounded by such a
-- domain: reading the literal, or attaching the partition, runs the check.
{{template "reach.sql"}}
SELECT DISTINCT pg_describe_object(d.classid, d.objid, 0), r.fn::regprocedure::text, pg_get_userbyid(p.proowner)::text
FROM reach r JOIN pg_type y ON r.classid = 'pg_type'::regclass AND y.oid = r.objid AND y.typtype <> 'd'
JOIN pg_depend d ON d.refclassid = 'pg_type'::regclass AND d.refobjid = y.oid
  AND d.classid IN ('pg_rewrite'::regclass, 'pg_attrdef'::regclass, 'pg_constraint'::regclass, 'pg_policy'::regclass, 'pg_trigger'::regclass, 'pg_statistic_ext'::regclass)
JOIN pg_proc p ON p.oid = r.fn
UNION
SELECT 'partition key of table ' || k.partrelid::regclass::text, r.fn::regprocedure::text, pg_get_userbyid(p.proowner)::text
FROM reach r JOIN pg_attribute a ON r.classid = 'pg_type'::regclass AND a.atttypid = r.objid
JOIN pg_partitioned_table k ON k.partrelid = a.attrelid AND a.attnum = ANY (k.partattrs) JOIN pg_proc p ON p.oid = r.fn
ORDER BY 1
