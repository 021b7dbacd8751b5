-- Members of extensions: extension, kind, name; the schema of the extension is
-- left out of names, because it may be another elsewhere. The parameter names one
-- extension; null is every one of which members were not all made at once, which
-- is so where somebody has added some, and where it was updated.
WITH m AS MATERIALIZED (
  SELECT d.refobjid AS ext, d.classid, d.objid, d.xmin::text AS made
  FROM pg_depend d WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
),
mixed AS (SELECT ext FROM m GROUP BY ext HAVING count(DISTINCT made) > 1)
SELECT e.extname::text, i.type, replace(i.identity, quote_ident(n.nspname) || '.', '') AS name, i.identity
FROM m JOIN pg_extension e ON e.oid = m.ext JOIN pg_namespace n ON n.oid = e.extnamespace, pg_identify_object(m.classid, m.objid, 0) i
WHERE CASE WHEN $1::text IS NULL THEN m.ext IN (SELECT ext FROM mixed) AND e.extname <> 'plpgsql' ELSE e.extname = $1 END
ORDER BY 1, 2, 3
