package standby

import (
	"reflect"
	"testing"
)

func TestQuorum(t *testing.T) {
	for s, want := range map[string]Quorum{
		"":                            {},
		"  ":                          {},
		"metal":                       {false, 1, []string{"metal"}},
		"metal, rock":                 {false, 1, []string{"metal", "rock"}},
		"2 (metal,rock)":              {false, 2, []string{"metal", "rock"}},
		"FIRST 1 (metal, \"two-b\")":  {false, 1, []string{"metal", "two-b"}},
		"any 2(rock , blues,\tmetal)": {true, 2, []string{"rock", "blues", "metal"}},
		"*":                           {false, 1, []string{"*"}},
		"ANY 1 (*)":                   {true, 1, []string{"*"}},
		"any":                         {false, 1, []string{"any"}},
		"first, any":                  {false, 1, []string{"first", "any"}},
		`"a ""b"" c"`:                 {false, 1, []string{`a "b" c`}},
		"1":                           {false, 1, []string{"1"}}, // a name, as in PostgreSQL
	} {
		got, err := ParseQuorum(s)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v %v, not %+v", s, got, err, want)
		}
	}
	for _, s := range []string{"two-b", "ANY 1 (metal", "ANY 1 metal", "metal rock", "ANY 1 ()", ",", "0 (metal)"} {
		if got, err := ParseQuorum(s); err == nil {
			t.Errorf("%q: %+v, no error", s, got)
		}
	}
	q := Quorum{true, 2, []string{"METAL", "rock"}}
	if n := q.Lacks([]State{{ApplicationName: "metal", State: "streaming"}, {ApplicationName: "rock", State: "catchup"}}); n != 1 {
		t.Errorf("lacks %d", n)
	}
}

func TestInForce(t *testing.T) {
	for _, c := range []struct {
		f    inForce
		want string
		is   bool
	}{
		{inForce{value: "on", kind: "bool"}, "yes", true},
		{inForce{value: "on", kind: "bool"}, "off", false},
		{inForce{value: "off", kind: "enum"}, "false", true},
		{inForce{value: "Replica", kind: "enum"}, "replica", true},
		{inForce{value: "2700000", kind: "integer", unit: "ms"}, "45min", true},
		{inForce{value: "16384", kind: "integer", unit: "8kB"}, "128MB", true},
		{inForce{value: "16384", kind: "integer", unit: "8kB"}, "16384", true},
		{inForce{value: "100", kind: "integer"}, "100", true},
		{inForce{value: "100", kind: "integer"}, "lots", false},
		{inForce{value: "0.9", kind: "real"}, "0.90", true},
		{inForce{value: "a b", kind: "string"}, "a b", true},
		{inForce{}, "", true},
		{inForce{}, "something of an extension", false},
	} {
		if c.f.is(c.want) != c.is {
			t.Errorf("%+v is %q: %v", c.f, c.want, !c.is)
		}
	}
	got := string(rewrite([]byte("# Do not edit\nport = '1'\nwork_mem = '5MB'\r\nPRIMARY_conninfo 'x'\nlast = 'line'"),
		[]Setting{{"primary_conninfo", `host=a user='it''s' \ `}}, elsewhere))
	want := "# Do not edit\nwork_mem = '5MB'\nlast = 'line'\nprimary_conninfo = 'host=a user=''it''''s'' \\\\ '\n"
	if got != want {
		t.Errorf("%q, not %q", got, want)
	}
}

func TestWithout(t *testing.T) {
	for _, c := range []struct{ value, gone, want string }{
		{"", "metal", ""},
		{"metal", "metal", ""},
		{"metal, rock", "metal", "metal, rock"}, // rock is enough
		{"FIRST 1 (metal, rock)", "METAL", "FIRST 1 (metal, rock)"},
		{"FIRST 2 (metal, rock)", "Metal", "FIRST 1 (rock)"},
		{"ANY 2 (metal, rock, blues)", "metal", "ANY 2 (metal, rock, blues)"},
		{"ANY 3 (metal, rock, blues)", "metal", "ANY 2 (rock, blues)"},
		{`2 ("it""s Rock", metal, "any")`, "metal", `2 ("it""s Rock", metal, "any")`},
		{`3 ("it""s Rock", metal, "any")`, "metal", `FIRST 2 ("it""s Rock", "any")`},
		{"2 (metal, *)", "metal", "2 (metal, *)"}, // everybody else is meant, too
		{"ANY 2 (metal", "metal", "ANY 2 (metal"},
		{"power", "metal", "power"},
	} {
		got := Without(c.value, []string{c.gone})
		if got != c.want {
			t.Errorf("%q without %s is %q, not %q", c.value, c.gone, got, c.want)
		}
		if again := Without(got, []string{c.gone}); again != got {
			t.Errorf("%q without %s again is %q", got, c.gone, again)
		}
	}
}
