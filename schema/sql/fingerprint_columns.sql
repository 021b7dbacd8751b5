-- The half of the fingerprint that is columns and what hangs on them.
WITH gone AS MATERIALIZED (
  {{template "gone"}}
), rel AS MATERIALIZED ( -- few: the tool's own and temporary ones
  SELECT c.oid FROM pg_class c
  WHERE c.oid >= 16384 AND c.relnamespace IN (SELECT oid FROM gone) AND c.relnamespace <> 'pg_toast'::regnamespace
)
SELECT md5(concat_ws(' ',
  -- rel's columns are taken out again: that is cheaper than asking each column
  -- whether it is one of theirs. VACUUM FULL makes a new TOAST table; to tell
  -- these by name is five times as cheap as to look each up.
  (SELECT {{rows "a.attrelid::int8 * 65536 + a.attnum" "a"}} FROM pg_attribute a
   WHERE a.attnum > 0 AND a.attrelid >= 16384 AND {{template "no_toast"}})
  - coalesce((SELECT sum(x.h) FROM rel, LATERAL (
      SELECT {{rows "a.attrelid::int8 * 65536 + a.attnum" "a"}} AS h FROM pg_attribute a WHERE a.attrelid = rel.oid AND a.attnum > 0 AND {{template "no_toast"}} OFFSET 0) x), 0),
  (SELECT {{rows "k.oid::int8" "k"}}
   FROM pg_constraint k WHERE k.oid >= 16384 AND k.conrelid NOT IN (SELECT oid FROM rel)),
  (SELECT {{rows "d.oid::int8" "d"}}
   FROM pg_attrdef d WHERE d.oid >= 16384 AND d.adrelid NOT IN (SELECT oid FROM rel)),
  (SELECT {{rows "t.oid::int8" "t"}}
   FROM pg_type t WHERE t.oid >= 16384 AND (t.typtype IN ('d', 'e', 'r') OR t.typtype = 'b' AND t.typcategory <> 'A') AND t.typnamespace NOT IN (SELECT oid FROM gone))
))

{{define "no_toast"}}NOT (a.attnum <= 3 AND a.attstorage = 'p' AND a.attname IN ('chunk_id', 'chunk_seq', 'chunk_data')){{end}}
