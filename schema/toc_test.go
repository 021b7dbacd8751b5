package schema

import (
	"slices"
	"strings"
	"testing"
)

// archive is a small archive as pg_restore prints it.
const (
	archiveList = `;
; Archive created at 2026-11-23 23:14:32 UTC
;
9; 2615 16772 SCHEMA - s o w
1; 1255 16900 FUNCTION s f() o
2; 1259 16901 TABLE s a; Type: TABLE; Schema: x o
3; 0 0 COMMENT s TABLE "a; Type: TABLE; Schema: x" o
4; 0 0 ACL s TABLE t o
5; 1259 16903 TABLE s t o
6; 2606 16904 CONSTRAINT s t t_pkey o
7; 1259 16905 INDEX s t_i o
8; 0 0 COMMENT s INDEX t_i o
10; 2620 16906 TRIGGER s t always o
11; 2606 16907 FK CONSTRAINT s t t_fkey o
12; 826 1 DEFAULT ACL - DEFAULT PRIVILEGES FOR TABLES o
`
	archivePre = `9; 2615 16772 SCHEMA - s o w
1; 1255 16900 FUNCTION s f() o
2; 1259 16901 TABLE s a; Type: TABLE; Schema: x o
3; 0 0 COMMENT s TABLE "a; Type: TABLE; Schema: x" o
4; 0 0 ACL s TABLE t o
5; 1259 16903 TABLE s t o
`
	archiveSQL = `--
-- PostgreSQL database dump
--

\restrict abc

SET statement_timeout = 0;

--
-- Name: s; Type: SCHEMA; Schema: -; Owner: o w
--

CREATE SCHEMA s;


--
-- Name: f(); Type: FUNCTION; Schema: s; Owner: o
--

CREATE FUNCTION s.f() RETURNS text
    LANGUAGE sql
    AS $_$ SELECT '
--
-- Name: t; Type: TABLE; Schema: s; Owner: o
--
\restrict x
SET default_tablespace = fake;
ALTER TABLE ONLY s.t ALTER COLUMN a SET (pg_attver=1);
' || E'\'
-- Name: t_i; Type: INDEX; Schema: s; Owner: o
' /* -- Name: t t_pkey; Type: CONSTRAINT; Schema: s; Owner: o
*/ $_$;


SET default_tablespace = space;

SET default_table_access_method = heap;

--
-- Name: a; Type: TABLE; Schema: x; Type: TABLE; Schema: s; Owner: o; Tablespace: space
--

CREATE TABLE s."a; Type: TABLE; Schema: x" (
    a integer DEFAULT '
-- Name: t; Type: TABLE; Schema: s; Owner: o
'
);
ALTER TABLE ONLY s."a; Type: TABLE; Schema: x" ALTER COLUMN a SET (pg_attver=32348048);
ALTER TABLE ONLY s."a; Type: TABLE; Schema: x" ALTER COLUMN b SET (pg_attver=32348048, n_distinct=5);
ALTER TABLE ONLY s."a; Type: TABLE; Schema: x" ALTER COLUMN c SET (n_distinct=5, pg_attver=32348048);
ALTER TABLE ONLY s."a; Type: TABLE; Schema: x" ALTER COLUMN d SET (n_distinct=5);
ALTER TABLE ONLY s."a; Type: TABLE; Schema: x" ALTER COLUMN pg_attver SET STATISTICS 5;


--
-- Name: TABLE "a; Type: TABLE; Schema: x"; Type: COMMENT; Schema: s; Owner: o
--

COMMENT ON TABLE s."a; Type: TABLE; Schema: x" IS '-- Name: t; Type: TABLE; Schema: s; Owner: o';


SET default_tablespace = '';

--
-- Name: t; Type: TABLE; Schema: s; Owner: o
--

CREATE TABLE s.t (
    a integer
);
ALTER TABLE ONLY s.t ALTER COLUMN a SET (pg_attver=7);


--
-- Name: t t_pkey; Type: CONSTRAINT; Schema: s; Owner: o
--

ALTER TABLE ONLY s.t
    ADD CONSTRAINT t_pkey PRIMARY KEY (a);


SET default_tablespace = "odd;space";

--
-- Name: t_i; Type: INDEX; Schema: s; Owner: o; Tablespace: odd;space
--

CREATE UNIQUE INDEX t_i ON ONLY s.t USING btree (a);

ALTER TABLE ONLY s.t REPLICA IDENTITY USING INDEX t_i;


--
-- Name: INDEX t_i; Type: COMMENT; Schema: s; Owner: o
--

COMMENT ON INDEX s.t_i IS 'x';


--
-- Name: t always; Type: TRIGGER; Schema: s; Owner: o
--

CREATE TRIGGER always BEFORE UPDATE OF "ON" ON s.t FOR EACH ROW EXECUTE FUNCTION s.f(' ENABLE ALWAYS TRIGGER ');

ALTER TABLE s.t ENABLE ALWAYS TRIGGER always;


--
-- Name: t t_fkey; Type: FK CONSTRAINT; Schema: s; Owner: o
--

ALTER TABLE ONLY s.t
    ADD CONSTRAINT t_fkey FOREIGN KEY (a) REFERENCES s."a; Type: TABLE; Schema: x"(a);


--
-- Name: TABLE t; Type: ACL; Schema: s; Owner: o
--

GRANT SELECT ON TABLE s.t TO o;


--
-- Name: DEFAULT PRIVILEGES FOR TABLES; Type: DEFAULT ACL; Schema: -; Owner: o
--

ALTER DEFAULT PRIVILEGES FOR ROLE o GRANT SELECT ON TABLES TO o;


--
-- PostgreSQL database dump complete
--

\unrestrict abc
`
)

func TestAssemble(t *testing.T) {
	entries, err := assemble(archiveList, archivePre, archiveSQL)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Type+"|"+e.Schema+"|"+e.Name+"|"+e.Stage.String()+"|"+e.Table+"|"+e.References)
		if strings.Contains(e.SQL, "unrestrict") || strings.Contains(e.SQL, "PostgreSQL database dump") || strings.HasSuffix(e.SQL, "--") {
			t.Errorf("%s keeps what frames it:\n%s", e.Object(), e.SQL)
		}
	}
	want := []string{
		`SCHEMA||s|before||`,
		`FUNCTION|s|f()|before||`,
		`TABLE|s|a; Type: TABLE; Schema: x|before||`,
		`COMMENT|s|TABLE "a; Type: TABLE; Schema: x"|before||`,
		`TABLE|s|t|before||`,
		`CONSTRAINT|s|t t_pkey|identity|"s"."t"|`,
		`INDEX|s|t_i|identity|"s"."t"|`,
		`COMMENT|s|INDEX t_i|identity|"s"."t"|`,
		`TRIGGER|s|t always|late|"s"."t"|`,
		`FK CONSTRAINT|s|t t_fkey|foreign|"s"."t"|"s"."a; Type: TABLE; Schema: x"`,
		`ACL|s|TABLE t|before||`,
		`DEFAULT ACL||DEFAULT PRIVILEGES FOR TABLES|late||`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	sql := func(n int) string { return entries[n].SQL }
	if f := sql(1); !strings.Contains(f, "\\restrict x\nSET default_tablespace = fake;\nALTER TABLE ONLY s.t ALTER COLUMN a SET (pg_attver=1);") {
		t.Errorf("the function's body was touched:\n%s", f)
	}
	if table := sql(2); !strings.HasPrefix(table, "SET LOCAL default_tablespace = space;\nSET LOCAL default_table_access_method = heap;\nCREATE TABLE") {
		t.Errorf("what was in force is not in front:\n%s", table)
	}
	if table := sql(2); strings.Contains(table, "pg_attver=") || !strings.Contains(table, "ALTER COLUMN b SET (n_distinct=5);") ||
		!strings.Contains(table, "ALTER COLUMN c SET (n_distinct=5);") || !strings.Contains(table, "ALTER COLUMN d SET (n_distinct=5);") ||
		!strings.Contains(table, "ALTER COLUMN pg_attver SET STATISTICS 5;") {
		t.Errorf("pg_attver:\n%s", table)
	}
	if table := sql(4); !strings.HasPrefix(table, "SET LOCAL default_tablespace = '';") || strings.Contains(table, "ALTER") {
		t.Errorf("%s", table)
	}
	if index := sql(6); !strings.HasPrefix(index, `SET LOCAL default_tablespace = "odd;space";`) || !strings.HasSuffix(index, "REPLICA IDENTITY USING INDEX t_i;") {
		t.Errorf("%s", index)
	}
	if trigger := sql(8); !strings.HasSuffix(trigger, "ALTER TABLE s.t ENABLE ALWAYS TRIGGER always;\n\nALTER TABLE s.t DISABLE TRIGGER always;") {
		t.Errorf("%s", trigger)
	}
}

func TestAssembleRefusesWhatDoesNotFit(t *testing.T) {
	for says, c := range map[string][2]string{
		"an entry that the list has not": {archiveList, archiveSQL + "--\n-- Name: x; Type: TABLE; Schema: s; Owner: o\n--\n"},
		"an entry that the SQL has not":  {archiveList + "99; 1259 1 TABLE s missing o\n", archiveSQL},
		"a list that is none":            {"hello\n", archiveSQL},
	} {
		sql := strings.Replace(c[1], endMark, "--", 1)
		if _, err := assemble(c[0], archivePre, sql); err == nil {
			t.Errorf("%s passes", says)
		}
	}
}

func TestKeysTellTwinsApart(t *testing.T) {
	list := "1; 0 0 OPERATOR s + o\n2; 0 0 OPERATOR s + o\n3; 0 0 TEXT s t o\n4; 0 0 TEXT s t o\n"
	sql := ""
	for _, e := range []string{"OPERATOR|+|CREATE OPERATOR s.+ (LEFTARG = int);", "OPERATOR|+|CREATE OPERATOR s.+ (LEFTARG = text);", "TEXT|t|SELECT 1;", "TEXT|t|SELECT 1;"} {
		f := strings.Split(e, "|")
		sql += "--\n-- Name: " + f[1] + "; Type: " + f[0] + "; Schema: s; Owner: o\n--\n\n" + f[2] + "\n\n"
	}
	entries, err := assemble(list, list, sql)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	for _, e := range entries {
		keys[e.Key()] = true
	}
	if len(keys) != 4 {
		t.Errorf("%v", keys)
	}
}

func FuzzLex(f *testing.F) {
	f.Add(archiveSQL)
	f.Add("$a$ $b$ $a$ 'x''y' E'\\'' \"q\"\"q\" /* /* */ */ -- c\n$1 a$b$c U&'x'")
	f.Add("'")
	f.Add("$")
	f.Add("/*")
	f.Fuzz(func(t *testing.T, sql string) {
		at := 0
		lex(sql, func(tok token) bool {
			if tok.start < at || tok.end <= tok.start || tok.end > len(sql) {
				t.Fatalf("%q: token %+v after %d", sql, tok, at)
			}
			at = tok.end
			return true
		})
	})
}

func TestSplitList(t *testing.T) {
	for list, want := range map[string][]string{
		`"$user", public`:                   {"$user", "public"},
		`shop, "Odd, ""Schema""", "public"`: {"shop", `Odd, "Schema"`, "public"},
		`""`:                                {""},
		``:                                  nil,
		`$libdir/plugin, other`:             {"$libdir/plugin", "other"},
	} {
		if got := splitList(list); !slices.Equal(got, want) {
			t.Errorf("%s: %q", list, got)
		}
	}
}

func TestWithoutMaintain(t *testing.T) {
	for p, want := range map[string]string{
		"a=DELETE+INSERT+MAINTAIN+SELECT/o, b=SELECT/o": "a=DELETE+INSERT+SELECT/o, b=SELECT/o",
		"a=DELETE*+MAINTAIN*/o":                         "a=DELETE*/o",
		"a=MAINTAIN+SELECT/o":                           "a=SELECT/o",
	} {
		if got := withoutMaintain(p); got != want {
			t.Errorf("%s: %s", p, got)
		}
	}
}
