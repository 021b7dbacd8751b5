-- Functions, views and aggregates that need a look: kind, name, detail, more, n.
WITH ns AS MATERIALIZED (
  SELECT oid, nspname FROM pg_namespace
  WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'crossfade')
    AND nspname NOT LIKE 'pg\_temp\_%' AND nspname NOT LIKE 'pg\_toast\_temp\_%'
),
member AS MATERIALIZED (SELECT classid, objid FROM pg_depend WHERE deptype = 'e'),
-- functions by which rows are checked, indexed or computed, and by what
used AS MATERIALIZED (
  SELECT d.refobjid AS oid, min(pg_describe_object(d.classid, d.objid, 0)) AS by
  FROM pg_depend d
  WHERE d.refclassid = 'pg_proc'::regclass AND d.refobjid >= 16384
    AND (d.classid IN ('pg_constraint'::regclass, 'pg_class'::regclass)
         {{if since 12}}OR d.classid = 'pg_attrdef'::regclass AND EXISTS
           (SELECT FROM pg_attrdef f JOIN pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum WHERE f.oid = d.objid AND a.attgenerated <> ''){{end}})
  GROUP BY 1
),
-- what their bodies name without a schema: relations behind FROM or JOIN, and
-- functions in front of a parenthesis
word AS MATERIALIZED (
  SELECT DISTINCT p.oid, p.proname, p.prosrc, p.proargtypes::oid[] AS types, u.by, m.calls, lower(m.word) AS word
  FROM used u JOIN pg_proc p ON p.oid = u.oid JOIN pg_language l ON l.oid = p.prolang AND l.lanname NOT IN ('internal', 'c'),
       LATERAL (SELECT false, r[1] FROM regexp_matches(p.prosrc, '\m(?:FROM|JOIN|ONLY)\s+([[:alpha:]_]\w*)(?!\w|\s*[.(])', 'gi') r
                UNION ALL
                SELECT true, r[1] FROM regexp_matches(p.prosrc, '(?:^|[^.\w"$])([[:alpha:]_]\w*)\s*\(', 'g') r) m(calls, word)
  WHERE NOT EXISTS (SELECT FROM unnest(p.proconfig) c WHERE c LIKE 'search\_path=%')
    {{if since 14}}AND p.prosqlbody IS NULL{{end}}
    AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid)
    AND NOT EXISTS (SELECT FROM pg_get_keywords() k WHERE k.word = lower(m.word) AND k.catcode <> 'U')
)
-- settings that functions bring along; detail: name; more: value
SELECT 'function-setting', p.oid::regprocedure::text, split_part(c, '=', 1), substr(c, strpos(c, '=') + 1), 0::bigint
FROM pg_proc p JOIN ns n ON n.oid = p.pronamespace, unnest(p.proconfig) c
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid)
UNION ALL -- names without a schema that are found by search_path alone; detail: what uses the function, and one of the names; more: where they are found
SELECT 'unqualified', f.fn::regprocedure::text, min(f.by) || chr(1) || min(f.word), string_agg(DISTINCT f.nspname, ', '), count(DISTINCT f.word)
FROM (SELECT w.oid AS fn, w.by, w.word, quote_ident(n.nspname) AS nspname
      FROM word w JOIN pg_class c ON c.relname = w.word AND NOT w.calls AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') JOIN ns n ON n.oid = c.relnamespace
      UNION ALL
      SELECT w.oid, w.by, w.word, quote_ident(n.nspname)
      FROM word w JOIN pg_proc p ON p.proname = w.word AND w.calls AND w.word <> w.proname JOIN ns n ON n.oid = p.pronamespace
      -- a function of pg_catalog of that name is found instead, if all that tells
      -- the two apart is a type that the caller does not speak of
      WHERE NOT (EXISTS (SELECT FROM pg_proc own WHERE own.proname = w.word AND own.pronamespace = 'pg_catalog'::regnamespace)
                 AND EXISTS (SELECT FROM unnest(p.proargtypes) a(t) JOIN pg_type t ON t.oid = a.t WHERE t.typnamespace <> 'pg_catalog'::regnamespace
                             AND a.t <> ALL (w.types) AND w.prosrc !~* ('\m' || t.typname || '\M')))) f
GROUP BY f.fn
UNION ALL -- views over the server's own; detail: the relation; more: the column
SELECT DISTINCT 'view-column', quote_ident(n.nspname) || '.' || quote_ident(v.relname), s.nspname || '.' || c.relname, a.attname::text, 0::bigint
FROM pg_rewrite r JOIN pg_class v ON v.oid = r.ev_class JOIN ns n ON n.oid = v.relnamespace
JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0 AND d.refobjid < 16384
JOIN pg_class c ON c.oid = d.refobjid JOIN pg_namespace s ON s.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_class'::regclass AND m.objid = v.oid)
UNION ALL -- aggregates of any type over the server's own functions; detail: its OID
SELECT 'over-builtin', 'aggregate ' || p.oid::regprocedure::text, f.oid::text, '', 0
FROM pg_aggregate a JOIN pg_proc p ON p.oid = a.aggfnoid JOIN ns n ON n.oid = p.pronamespace,
     unnest(ARRAY[a.aggtransfn::oid, a.aggfinalfn::oid, a.aggcombinefn::oid]) f(oid)
WHERE f.oid BETWEEN 1 AND 16383 AND a.aggtranstype IN (2276, 2277, 2283, 2776) AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid)
UNION ALL -- the same of operators
SELECT 'over-builtin', 'operator ' || o.oid::regoperator::text, o.oprcode::oid::text, '', 0
FROM pg_operator o JOIN ns n ON n.oid = o.oprnamespace
WHERE o.oprcode::oid BETWEEN 1 AND 16383 AND (o.oprleft IN (2276, 2277, 2283, 2776) OR o.oprright IN (2276, 2277, 2283, 2776)) AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_operator'::regclass AND m.objid = o.oid)
ORDER BY 1, 2
