package scenarios

import (
	"strings"
	"testing"
)

func TestScenariosAreWellFormed(t *testing.T) {
	names := Names()
	if len(names) == 0 {
		t.Fatal("no scenario")
	}
	for _, name := range names {
		if _, err := Read(name); err != nil {
			t.Error(err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const good = "title: t\nold: {major: 15}\nnew: {majors: [18]}\ndatabases: [{name: shop}]\nrunbook: x\n"
	if _, err := Parse("good", []byte(good)); err != nil {
		t.Fatal(err)
	}
	for text, says := range map[string]string{
		"tittle: t\n": "tittle",
		"databases: [{name: shop}, {name: shop}]\n":         "databases",
		"load: [{database: nix}]\n":                         "no database",
		"load: [{database: shop, pgbench: {clients: 1}}]\n": "pooler",
		"poolers: [{name: p, databases: [nix]}]\n":          "nix",
		"acts: [{run: check, prove: old}]\n":                "one of run",
		"acts: [{prove: both}]\n":                           "both",
		"acts: [{left: something}]\n":                       "something",
		"expect: {outage: soon}\n":                          "soon",
	} {
		if _, err := Parse("bad", []byte(strings.Replace(good, "databases: [{name: shop}]\n", "", btoi(strings.HasPrefix(text, "databases")))+text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got %v, want something about %q", text, err, says)
		}
	}
	if _, err := Parse("bad", []byte(strings.Replace(good, "old: {major: 15}", "old: {major: 15, standbys: [{name: power, upstream: metal}, {name: metal}]}", 1))); err == nil || !strings.Contains(err.Error(), "metal") {
		t.Errorf("a standby before its upstream: got %v", err)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// What the judges are made of must see what they are there for.
func TestDumpSeesDifferences(t *testing.T) {
	st := &Stage{Scenario: &Scenario{Databases: []Database{{Name: "shop", Identity: map[string]string{"public.log": "full"}}}}}
	const text = `--
-- Roles
--

CREATE ROLE app;
ALTER ROLE app WITH LOGIN;
--
-- Database "shop" dump
--

--
-- Name: log; Type: TABLE; Schema: public; Owner: postgres
--

SET default_tablespace = '';
CREATE TABLE public.log (
    a integer,
    b text
);
ALTER TABLE ONLY public.log REPLICA IDENTITY NOTHING;
--
-- Name: log crossfade_fence; Type: TRIGGER; Schema: public; Owner: postgres
--

CREATE TRIGGER crossfade_fence BEFORE INSERT ON public.log FOR EACH STATEMENT EXECUTE FUNCTION crossfade.fence();
`
	want := st.readDump(text)
	for change, seen := range map[string]bool{
		"": false,
		"REPLICA IDENTITY NOTHING→REPLICA IDENTITY FULL":                                            false, // the runbook's
		"EXECUTE FUNCTION crossfade.fence()→EXECUTE FUNCTION crossfade.fence_2()":                   false, // ours
		"CREATE ROLE app;\nALTER ROLE app WITH LOGIN;→ALTER ROLE app WITH LOGIN;\nCREATE ROLE app;": false, // a set
		"ALTER ROLE app WITH LOGIN→ALTER ROLE app WITH NOLOGIN":                                     true,
		"    a integer,\n    b text→    b text,\n    a integer":                                     true, // columns have an order
		"b text→b text NOT NULL":                                                                    true,
	} {
		from, to, _ := strings.Cut(change, "→")
		if _, n := st.readDump(strings.Replace(text, from, to, 1)).differences(want); (n > 0) != seen {
			t.Errorf("%q: %d differences", change, n)
		}
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234", -123: "-123"} {
		if got := number(n); got != want {
			t.Errorf("%d is written %q", n, got)
		}
	}
}
