-- The types of all columns, and what they are made of.
WITH RECURSIVE used AS (
  SELECT DISTINCT a.atttypid AS oid
  FROM pg_attribute a
  JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
  JOIN ({{template "user_namespaces"}}) n ON n.oid = c.relnamespace
  WHERE a.attnum > 0 AND NOT a.attisdropped
), whole(oid) AS (
  SELECT oid FROM used
  UNION
  SELECT x.part FROM whole w JOIN pg_type t ON t.oid = w.oid, LATERAL (
    SELECT t.typbasetype WHERE t.typtype = 'd'
    UNION ALL SELECT t.typelem WHERE t.typinput = 'array_in'::regproc
    UNION ALL SELECT rngsubtype FROM pg_range WHERE t.typtype = 'r' AND rngtypid = t.oid
    {{if since 14}}UNION ALL SELECT rngsubtype FROM pg_range WHERE t.typtype = 'm' AND rngmultitypid = t.oid{{end}}
    UNION ALL SELECT a.atttypid FROM pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
  ) x(part)
)
SELECT t.oid, t.typname, t.typtype::text, t.typinput = 'array_in'::regproc,
       CASE WHEN t.typtype = 'd' THEN t.typbasetype WHEN t.typinput = 'array_in'::regproc THEN t.typelem ELSE 0 END,
       ARRAY(SELECT rngsubtype FROM pg_range WHERE t.typtype IN ('r', 'm') AND t.oid IN (rngtypid{{if since 14}}, rngmultitypid{{end}})
             UNION SELECT a.atttypid FROM pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped),
       t.typsend <> 0 AND t.typreceive <> 0,
       EXISTS (SELECT FROM pg_opclass o JOIN pg_am am ON am.oid = o.opcmethod AND am.amname IN ('btree', 'hash')
               WHERE o.opcdefault AND (o.opcintype = t.oid OR EXISTS (
                 SELECT FROM pg_cast c WHERE c.castsource = t.oid AND c.casttarget = o.opcintype AND c.castmethod = 'b' AND c.castcontext = 'i')))
FROM whole w JOIN pg_type t ON t.oid = w.oid
