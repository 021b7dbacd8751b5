-- What DDL changes and nothing else does, in two halves, which two sessions read
-- side by side where they are large. A row of most catalogs is rewritten
-- by DDL only, so that the transaction that wrote it (xmin, which neither
-- VACUUM FREEZE nor VACUUM FULL changes) stands for what is in it; pg_class is
-- rewritten by CREATE TRIGGER and TRUNCATE too, so there it is columns.
WITH gone AS MATERIALIZED (
  {{template "gone"}}
), apart AS MATERIALIZED ( -- and TOAST, which VACUUM FULL makes anew with its indexes
  SELECT c.oid, c.relkind FROM pg_class c
  WHERE c.relkind = 't' OR c.oid >= 16384 AND c.relnamespace IN (SELECT oid FROM gone) AND c.relnamespace <> 'pg_toast'::regnamespace
), rel AS MATERIALIZED ( -- few: the tool's own and temporary ones
  SELECT oid FROM apart WHERE relkind <> 't'
)
SELECT md5(concat_ws(' ',
  (SELECT sum(hashtextextended(concat(c.relname, c.relpersistence, c.relreplident, c.relrowsecurity, c.relforcerowsecurity, c.relispartition, c.relacl, c.reloptions),
                                   c.oid::int8 * 1000003 + c.relnamespace::int8 * 65599 + c.relowner::int8 * 4093 + c.relam::int8 * 511 + c.reltablespace::int8 * 61 + c.relnatts))
   FROM pg_class c WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c') AND c.relnamespace NOT IN (SELECT oid FROM gone)),
  (SELECT {{rows "x.indexrelid::int8" "x"}}
   FROM pg_index x WHERE x.indrelid >= 16384 AND x.indrelid NOT IN (SELECT oid FROM apart)),
  (SELECT {{rows "s.seqrelid::int8" "s"}}
   FROM pg_sequence s WHERE s.seqrelid NOT IN (SELECT oid FROM rel)),
  (SELECT {{rows "t.oid::int8" "t"}}
   FROM pg_trigger t WHERE t.oid >= 16384 AND t.tgname NOT LIKE 'crossfade\_fence%' AND t.tgrelid NOT IN (SELECT oid FROM rel)),
  (SELECT {{rows "i.inhrelid::int8 * 4294967296 + i.inhparent::int8" "i"}}
   FROM pg_inherits i WHERE i.inhrelid NOT IN (SELECT oid FROM rel)),
  (SELECT {{rows "r.oid::int8" "r"}}
   FROM pg_rewrite r WHERE r.oid >= 16384 AND r.ev_class NOT IN (SELECT oid FROM rel)),
  (SELECT {{rows "p.oid::int8" "p"}} FROM pg_policy p WHERE p.polrelid NOT IN (SELECT oid FROM rel)),
  (SELECT {{rows "f.oid::int8" "f"}}
   FROM pg_proc f WHERE f.oid >= 16384 AND f.pronamespace NOT IN (SELECT oid FROM gone)),
  (SELECT {{rows "n.oid::int8" "n"}} FROM pg_namespace n WHERE n.oid >= 16384 AND n.oid NOT IN (SELECT oid FROM gone)),
  (SELECT {{rows "e.oid::int8" "e"}} FROM pg_event_trigger e WHERE e.evtname NOT LIKE 'crossfade\_ddl%'),
  {{- if since 12}}
  (SELECT {{rows "s.oid::int8" "s"}} FROM pg_statistic_ext s),
  {{- end}}
  {{- range $catalog := words "pg_enum pg_extension pg_cast pg_operator pg_opclass pg_opfamily pg_amop pg_amproc pg_collation pg_conversion pg_language pg_ts_config pg_ts_dict pg_foreign_data_wrapper pg_foreign_server pg_user_mapping pg_default_acl"}}
  (SELECT {{rows "o.oid::int8" "o"}} FROM {{$catalog}} o WHERE o.oid >= 16384),
  {{- end}}
  (SELECT {{rows "r.rngtypid::int8" "r"}} FROM pg_range r WHERE r.rngtypid >= 16384),
  (SELECT {{rows "f.ftrelid::int8" "f"}} FROM pg_foreign_table f),
  (SELECT {{rows "p.partrelid::int8" "p"}} FROM pg_partitioned_table p)
))

{{define "gone"}}SELECT oid FROM pg_namespace
  WHERE nspname IN ('crossfade', 'pg_toast') OR nspname LIKE 'pg\_temp\_%' OR nspname LIKE 'pg\_toast\_temp\_%'{{end}}
