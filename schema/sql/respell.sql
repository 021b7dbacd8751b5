-- Makes each item in a subtransaction that is always rolled back, and returns
-- how this server spells it. It lives and dies with the transaction that the
-- caller rolls back.
CREATE FUNCTION pg_temp.crossfade_respell(items jsonb, OUT n int, OUT spelled text, OUT refused text) RETURNS SETOF record
LANGUAGE plpgsql AS $$
DECLARE item jsonb; ddl text;
BEGIN
  n := -1;
  FOR item IN SELECT jsonb_array_elements(items) LOOP
    n := n + 1;
    spelled := NULL;
    refused := NULL;
    BEGIN
      FOR ddl IN SELECT jsonb_array_elements_text(item->'make') LOOP
        EXECUTE ddl;
      END LOOP;
      EXECUTE item->>'look' INTO spelled;
      RAISE EXCEPTION USING ERRCODE = 'CF001';
    EXCEPTION
      WHEN SQLSTATE 'CF001' THEN NULL;
      WHEN OTHERS THEN refused := SQLERRM;
    END;
    RETURN NEXT;
  END LOOP;
END $$
