package traffic

import (
	"strings"
	"testing"
)

var pointCases = []struct {
	what, from, to string
	names          string
	err            string
}{
	{
		"every other byte stays",
		"; a comment = x\n# another\n\n[databases]\n  shop = host=old port=5432 dbname=shop pool_size=5 application_name='a; b=c'\nblog = host=old\n[pgbouncer]\nlisten_port = 6432\nshop = host=not port=a database\n",
		"; a comment = x\n# another\n\n[databases]\n  shop = host=new port=5433 dbname=shop pool_size=5 application_name='a; b=c'\nblog = host=old\n[pgbouncer]\nlisten_port = 6432\nshop = host=not port=a database\n",
		"shop", "",
	},
	{
		"no host, no port, no newline at the end",
		"[databases]\nshop = dbname=shop", "[databases]\nshop = dbname=shop host=new port=5433", "shop", "",
	},
	{"an empty string", "[databases]\nshop =\n[pgbouncer]\n", "[databases]\nshop = host=new port=5433\n[pgbouncer]\n", "shop", ""},
	{
		"quotes, tabs, carriage returns, hostaddr, words around =",
		"[databases]\r\n\tshop\t=\tport = '5432'   host='old host'  hostaddr=10.0.0.1 password='it''s host=x' user=a\r\n",
		"[databases]\r\n\tshop\t=\tport = 5433   host=new  password='it''s host=x' user=a\r\n",
		"shop", "",
	},
	{
		"quoted names, several, twice in the file, a second section",
		"[databases]\n\"my \"\"shop\"\"\" = host=a\nb=host=a port=1\n[users]\nx = pool_mode=session\n[databases]\nb = port=1 host=a\n",
		"[databases]\n\"my \"\"shop\"\"\" = host=new port=5433\nb=host=new port=5433\n[users]\nx = pool_mode=session\n[databases]\nb = port=5433 host=new\n",
		"my \"shop\"|b", "",
	},
	{
		"the entry for any database stays, and is copied",
		"[databases]\n* = host=old port=5432 auth_user=asker\n\n[pgbouncer]\n",
		"[databases]\n* = host=old port=5432 auth_user=asker\nshop = host=new port=5433 auth_user=asker\n\n[pgbouncer]\n",
		"shop", "",
	},
	{"any database and a name with a dash", "[databases]\n*=host=old", "[databases]\n*=host=old\ntwo-b = host=new port=5433", "two-b", ""},
	{"any database and a name that no entry can have", "[databases]\n*=host=old", "", "two b", "reads no entry of such a name"},
	{"an include elsewhere", "%include /etc/a.ini\n[databases]\nshop=host=a\n", "%include /etc/a.ini\n[databases]\nshop=host=new port=5433\n", "shop", ""},
	{"in an included file", "[databases]\n%include /etc/dbs.ini\n", "", "shop", "/etc/dbs.ini"},
	{"perhaps in an included file", "[databases]\n*=host=a\n%include /etc/dbs.ini\n", "", "shop", "/etc/dbs.ini"},
	{"not there", "[databases]\nblog=host=a\n", "", "shop", "shop is not in"},
	{"another section only", "[pgbouncer]\nshop=host=a\n", "", "shop", "shop is not in"},
	{"a section without end", "[databases\nshop=host=a\n", "", "shop", "line 1"},
	{"a line that is nothing", "[databases]\nshop\n", "", "shop", "line 2"},
	{"a quote without end", "[databases]\nx=host=a\nshop= host='a\n", "", "shop", "line 3"},
	{"a word without value", "[databases]\nshop= host=a port\n", "", "shop", "line 2"},
}

func TestPoint(t *testing.T) {
	for _, c := range pointCases {
		t.Run(c.what, func(t *testing.T) {
			names := strings.Split(c.names, "|")
			f, err := parseINI([]byte(c.from))
			var got []byte
			if err == nil {
				got, err = f.point(names, "new", "5433")
			}
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("%v, not %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.to {
				t.Errorf("\n%q, not\n%q", got, c.to)
			}
			// Again does nothing, and back is the way back.
			f, err = parseINI(got)
			if err != nil {
				t.Fatal(err)
			}
			again, err := f.point(names, "new", "5433")
			if err != nil || string(again) != string(got) {
				t.Errorf("again: %q %v", again, err)
			}
			back, err := f.point(names, "it's old", "1")
			if err != nil {
				t.Fatal(err)
			}
			if f, err = parseINI(back); err != nil {
				t.Fatal(err)
			}
			e, own, _ := f.find(names[0])
			if host, port := e.address(); !own || host != "it's old" || port != "1" {
				t.Errorf("back: %q %q", host, port)
			}
		})
	}
}

func TestReadUsers(t *testing.T) {
	users := readUsers([]byte("; \"no\" \"one\"\n\"app\" \"se\"\"cret\"\n  \"two b\"\t\"\" trailing\n\"torn\" \"x\n\"only\"\n"))
	if len(users) != 3 || users["app"] != `se"cret` || users["two b"] != "" || users["torn"] != "x" {
		t.Errorf("%q", users)
	}
}
