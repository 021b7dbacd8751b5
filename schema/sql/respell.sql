-- Makes each item, which is counts[n] of makes, in a subtransaction that is always rolled back, and returns
-- how this server spells it. It lives and dies with the transaction that the
-- caller rolls back.
CREATE FUNCTION pg_temp.crossfade_respell(counts int[], makes text[], looks text[], OUT n int, OUT spelled text, OUT refused text) RETURNS SETOF record
LANGUAGE plpgsql AS $$
DECLARE ddl text; k int; m int := 1;
BEGIN
  FOR k IN 1 .. cardinality(looks) LOOP
    n := k;
    spelled := NULL;
    refused := NULL;
    BEGIN
      FOREACH ddl IN ARRAY makes[m:m + counts[n] - 1] LOOP
        EXECUTE ddl;
      END LOOP;
      EXECUTE looks[n] INTO spelled;
      RAISE EXCEPTION USING ERRCODE = 'CF001';
    EXCEPTION
      WHEN SQLSTATE 'CF001' THEN NULL;
      WHEN OTHERS THEN refused := SQLERRM;
    END;
    m := m + counts[n];
    RETURN NEXT;
  END LOOP;
END $$
