-- Types but those of tables, arrays and multiranges, which come with others.
{{template "common"}}
SELECT 'type' AS kind, quote_ident(n.nspname) || '.' || quote_ident(t.typname) AS name, ARRAY[
  'kind', t.typtype::text,
  'owner', pg_get_userbyid(t.typowner)::text,
  'privileges', {{acl "t.typacl" "T" "t.typowner"}},
  'labels', CASE WHEN t.typtype = 'e' THEN (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid) END,
  'base', CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) END,
  'not null', CASE WHEN t.typtype = 'd' AND t.typnotnull THEN 'true' END,
  'default', t.typdefault,
  'collation', CASE WHEN t.typtype = 'd' AND t.typcollation <> b.typcollation THEN
    (SELECT quote_ident(cn.nspname) || '.' || quote_ident(co.collname) FROM pg_collation co JOIN pg_namespace cn ON cn.oid = co.collnamespace WHERE co.oid = t.typcollation) END,
  'range', CASE WHEN t.typtype = 'r' THEN (
    SELECT concat_ws(' ', format_type(r.rngsubtype, NULL), (SELECT opcname FROM pg_opclass WHERE oid = r.rngsubopc),
      (SELECT collname FROM pg_collation WHERE oid = r.rngcollation AND r.rngcollation <> s.typcollation), r.rngcanonical::regproc, r.rngsubdiff::regproc)
    FROM pg_range r JOIN pg_type s ON s.oid = r.rngsubtype WHERE r.rngtypid = t.oid) END,
  'multirange', CASE WHEN t.typtype = 'r' THEN {{if since 14}}(SELECT format_type(rngmultitypid, NULL) FROM pg_range WHERE rngtypid = t.oid){{else}}NULL{{end}} END,
  'representation', CASE WHEN t.typtype = 'b' THEN concat_ws(' ', t.typlen, t.typbyval, t.typalign, t.typstorage, t.typcategory, t.typispreferred, t.typdelim,
    t.typinput, t.typoutput, t.typreceive, t.typsend, t.typmodin, t.typmodout, t.typanalyze, format_type(nullif(t.typelem, 0), NULL)) END,
  'defined', CASE WHEN NOT t.typisdefined THEN 'not yet' END] AS properties
FROM pg_type t
JOIN ns n ON n.oid = t.typnamespace
LEFT JOIN pg_type b ON b.oid = t.typbasetype
WHERE t.typtype IN ('b', 'd', 'e', 'r', 'c', 'p')
  AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
  AND (t.typrelid = 0 OR EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c'))
  AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_type'::regclass AND m.objid = t.oid)
  AND NOT (t.typrelid <> 0 AND EXISTS (SELECT FROM member m WHERE m.classid = 'pg_class'::regclass AND m.objid = t.typrelid))
