-- Which kinds of objects are there that most databases have none of: to plan what
-- describes them takes a server longer than to describe all the others. What
-- initdb makes has OIDs below 16384.
SELECT kind FROM (VALUES
  ('operator', EXISTS (SELECT FROM pg_operator WHERE oid >= 16384)),
  ('operator_class', EXISTS (SELECT FROM pg_opclass WHERE oid >= 16384)),
  ('operator_family', EXISTS (SELECT FROM pg_opfamily WHERE oid >= 16384)),
  ('cast', EXISTS (SELECT FROM pg_cast WHERE oid >= 16384)),
  ('transform', EXISTS (SELECT FROM pg_transform WHERE oid >= 16384)),
  ('conversion', EXISTS (SELECT FROM pg_conversion WHERE oid >= 16384)),
  ('collation', EXISTS (SELECT FROM pg_collation WHERE oid >= 16384)),
  ('language', EXISTS (SELECT FROM pg_language WHERE oid >= 16384)),
  ('access_method', EXISTS (SELECT FROM pg_am WHERE oid >= 16384)),
  ('text_search_configuration', EXISTS (SELECT FROM pg_ts_config WHERE oid >= 16384)),
  ('text_search_dictionary', EXISTS (SELECT FROM pg_ts_dict WHERE oid >= 16384)),
  ('text_search_parser', EXISTS (SELECT FROM pg_ts_parser WHERE oid >= 16384)),
  ('text_search_template', EXISTS (SELECT FROM pg_ts_template WHERE oid >= 16384)),
  ('foreign_data_wrapper', EXISTS (SELECT FROM pg_foreign_data_wrapper)),
  ('server', EXISTS (SELECT FROM pg_foreign_server)),
  ('user_mapping', EXISTS (SELECT FROM pg_user_mappings)),
  ('default_privileges', EXISTS (SELECT FROM pg_default_acl)),
  ('security_label', EXISTS (SELECT FROM pg_seclabel)),
  ('aggregate', EXISTS (SELECT FROM pg_aggregate WHERE aggfnoid::oid >= 16384)),
  ('range', EXISTS (SELECT FROM pg_range WHERE rngtypid >= 16384)),
  ('base_type', EXISTS (SELECT FROM pg_type t WHERE t.oid >= 16384 AND t.typtype = 'b' AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)))
) r (kind, found) WHERE found
