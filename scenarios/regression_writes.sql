-- Writes to every table of the regression database, on the side that serves: a few rows
-- are updated, copied and deleted. What a table, its triggers, constraints or the
-- publications of the tests themselves refuse is left out, and shown as a warning.
DO $do$
DECLARE
  t regclass;
  all_columns text;
  own_columns text;
  n bigint;
  updated int := 0;
  inserted int := 0;
  deleted int := 0;
BEGIN
  FOR t IN
    SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'crossfade')
    ORDER BY n.nspname, c.relname
  LOOP
    SELECT string_agg(format('%I', attname), ', ' ORDER BY attnum),
           string_agg(format('%1$I = %1$I', attname), ', ' ORDER BY attnum) FILTER (WHERE attidentity <> 'a')
      INTO all_columns, own_columns
      FROM pg_attribute WHERE attrelid = t AND attnum > 0 AND NOT attisdropped AND attgenerated = '' AND attname <> 'regress_key';
    IF own_columns IS NOT NULL THEN
      BEGIN
        EXECUTE format('UPDATE ONLY %1$s SET %2$s WHERE ctid IN (SELECT ctid FROM ONLY %1$s LIMIT 3)', t, own_columns);
        GET DIAGNOSTICS n = ROW_COUNT;
        updated := updated + (n > 0)::int;
      EXCEPTION WHEN OTHERS THEN RAISE WARNING 'update of % (%): %', t, SQLSTATE, SQLERRM;
      END;
    END IF;
    IF all_columns IS NOT NULL THEN
      BEGIN
        EXECUTE format('INSERT INTO %1$s (%2$s) OVERRIDING SYSTEM VALUE SELECT %2$s FROM ONLY %1$s LIMIT 2', t, all_columns);
        GET DIAGNOSTICS n = ROW_COUNT;
        inserted := inserted + (n > 0)::int;
      EXCEPTION WHEN unique_violation OR exclusion_violation THEN NULL;
        WHEN OTHERS THEN RAISE WARNING 'insert into % (%): %', t, SQLSTATE, SQLERRM;
      END;
    END IF;
    BEGIN
      EXECUTE format('DELETE FROM ONLY %1$s WHERE ctid IN (SELECT ctid FROM ONLY %1$s ORDER BY ctid DESC LIMIT 1)', t);
      GET DIAGNOSTICS n = ROW_COUNT;
      deleted := deleted + (n > 0)::int;
    EXCEPTION WHEN foreign_key_violation THEN NULL;
      WHEN OTHERS THEN RAISE WARNING 'delete from % (%): %', t, SQLSTATE, SQLERRM;
    END;
  END LOOP;
  -- What was written is what the test wants to see arrive.
  ASSERT updated > 300 AND inserted > 250 AND deleted > 300, format('%s tables updated, %s inserted into, %s deleted from', updated, inserted, deleted);
END $do$;
