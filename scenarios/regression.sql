-- What PostgreSQL 15's own regression database needs before any tool can move it to
-- 18 by logical replication, each with its reason. docs/regression.md has the list
-- with what the runbook accepts. psql and a superuser run it on the old cluster.

-- Test functions that the library of 18 no longer has (get_columns_length since 17).
-- PostgreSQL's own test of pg_upgrade drops them, too (AdjustUpgrade.pm).
DROP FUNCTION get_columns_length(oid[]), ttdummy(), set_ttdummy(integer);

-- Since 16 a child table cannot have a generation expression where its parent has an
-- ordinary column (SQLSTATE 42611). PostgreSQL's own test drops them, too.
DROP TABLE gtest_normal_child, gtest_normal_child2;

-- Tables that logical replication can find no row of: nothing in them is a key; FULL
-- compares all columns, and a type of theirs has no equality, or a column is generated,
-- whose values do not travel, and 18 refuses such an identity. What they need is a key of
-- some kind, which is what check says. The rows, and the tables, stay as they are.
CREATE SEQUENCE regress_key;
DO $do$
DECLARE
  t regclass;
  key text;
BEGIN
  FOR t IN
    SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_index p ON p.indrelid = c.oid AND p.indisprimary
    WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                  AND CASE WHEN p.indexrelid IS NOT NULL THEN a.attnum = ANY (p.indkey) AND a.attgenerated <> ''
                           ELSE a.attgenerated <> '' OR a.atttypid = ANY ('{box,circle,json,line,lseg,path,point,polygon,xml}'::regtype[]) END)
    ORDER BY c.oid
  LOOP
    -- A child has the column already where its parent was first.
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = t AND attname = 'regress_key') THEN
      EXECUTE format('ALTER TABLE %s ADD COLUMN regress_key bigint NOT NULL DEFAULT nextval(''regress_key'')', t);
    END IF;
    key := (SELECT relname FROM pg_class WHERE oid = t) || '_regress_key';
    EXECUTE format('CREATE UNIQUE INDEX %I ON %s (regress_key)', key, t);
    EXECUTE format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', t, key);
  END LOOP;
END $do$;
