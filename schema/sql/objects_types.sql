-- Types but those of tables, arrays and multiranges, which come with others.
{{template "common"}}
SELECT 'type' AS kind, {{ident "n.nspname"}} || '.' || {{ident "t.typname"}} AS name, ARRAY[
  'kind', t.typtype::text,
  'owner', pg_get_userbyid(t.typowner)::text,
  'privileges', {{acl "t.typacl" "T" "t.typowner"}},
  'labels', CASE WHEN t.typtype = 'e' THEN (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid) END,
  'base', CASE WHEN t.typtype = 'd' THEN {{type "t.typbasetype" "t.typtypmod"}} END,
  '~base', CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) END,
  'not null', CASE WHEN t.typtype = 'd' AND t.typnotnull THEN 'true' END,
  'default', coalesce(pg_get_expr(t.typdefaultbin, 0), t.typdefault), -- as text it is as the server quoted it then
  'collation', CASE WHEN t.typtype = 'd' AND t.typcollation <> b.typcollation THEN
    {{collation "t.typcollation"}} END,
  'range', {{if .range}}CASE WHEN t.typtype = 'r' THEN (
    SELECT concat_ws(', ', {{type "r.rngsubtype" ""}}, 'opclass ' || (SELECT {{ident "on_.nspname"}} || '.' || {{ident "o.opcname"}} FROM pg_opclass o JOIN pg_namespace on_ ON on_.oid = o.opcnamespace WHERE o.oid = r.rngsubopc),
      'collation ' || CASE WHEN r.rngcollation <> s.typcollation THEN {{collation "r.rngcollation"}} END, 'canonical ' || {{proc "r.rngcanonical"}}, 'diff ' || {{proc "r.rngsubdiff"}})
    FROM pg_range r JOIN pg_type s ON s.oid = r.rngsubtype WHERE r.rngtypid = t.oid) END{{else}}NULL{{end}},
  'multirange', {{if and .range (since 14)}}CASE WHEN t.typtype = 'r' THEN (SELECT {{type "r.rngmultitypid" ""}} FROM pg_range r WHERE r.rngtypid = t.oid) END{{else}}NULL{{end}},
  'representation', {{if .base_type}}CASE WHEN t.typtype = 'b' THEN concat_ws(', ', t.typlen, t.typbyval, t.typalign, t.typstorage, t.typcategory, t.typispreferred, t.typdelim,
    'input ' || {{proc "t.typinput"}}, 'output ' || {{proc "t.typoutput"}}, 'receive ' || {{proc "t.typreceive"}}, 'send ' || {{proc "t.typsend"}}, 'modin ' || {{proc "t.typmodin"}},
    'modout ' || {{proc "t.typmodout"}}, 'analyze ' || {{proc "t.typanalyze"}}, {{if since 14}}'subscript ' || {{proc "t.typsubscript"}}, {{end}}'element ' || {{type "t.typelem" ""}}) END{{else}}NULL{{end}},
  'defined', CASE WHEN NOT t.typisdefined THEN 'not yet' END] AS properties
FROM pg_type t
JOIN ns n ON n.oid = t.typnamespace
LEFT JOIN pg_type b ON b.oid = t.typbasetype
WHERE t.typtype IN ('b', 'd', 'e', 'r', 'c', 'p')
  AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
  AND (t.typrelid = 0 OR EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c'))
  AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_type'::regclass AND m.objid = t.oid)
  AND NOT (t.typrelid <> 0 AND EXISTS (SELECT FROM member m WHERE m.classid = 'pg_class'::regclass AND m.objid = t.typrelid))
