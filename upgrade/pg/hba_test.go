package pg_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"crossfade/scenarios/lab"
	"crossfade/scenarios/lab/labtest"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// TestHBA compares Match with what the server does, for many rules and callers.
func TestHBA(t *testing.T) {
	for _, major := range []int{13, 18} {
		t.Run(fmt.Sprintf("v%d", major), func(t *testing.T) { t.Parallel(); hba(t, major) })
	}
}

func hba(t *testing.T, major int) {
	l := labtest.T(t)
	c := l.Start(lab.Options{Name: "wacken", Major: major, Settings: map[string]string{"listen_addresses": "127.0.0.1, ::1"}})
	for _, sql := range []string{
		"CREATE ROLE shop LOGIN", "CREATE ROLE app LOGIN IN ROLE shop", "CREATE ROLE deep LOGIN IN ROLE app",
		"CREATE ROLE boss LOGIN SUPERUSER", "CREATE ROLE repl LOGIN REPLICATION", `CREATE ROLE "Two-B" LOGIN`,
		"CREATE DATABASE shop", "CREATE DATABASE app", `CREATE DATABASE "my shop"`,
	} {
		l.Exec(c, "", sql)
	}
	const keep = "local postgres postgres trust\n"
	files := map[string]string{
		"all":                    "local all all trust\nhost all all all trust",
		"order":                  "host shop app 127.0.0.1/32 reject\nhost all all 127.0.0.0/8 trust",
		"sameuser":               "host sameuser all 127.0.0.1/32 trust",
		"samerole":               "host samerole all 0.0.0.0/0 trust",
		"group":                  "host all +shop 127.0.0.1/32 trust",
		"mask":                   "host all all 127.0.0.0 255.255.255.0 trust\nhost all all 128.0.0.0/1 trust",
		"v6":                     "host all all ::1/128 trust",
		"v6 net":                 "host all all ::/0 trust\nhost all all 10.0.0.0/8 trust",
		"local only":             "local all all trust",
		"nossl":                  "hostnossl all all samehost trust",
		"ssl":                    "hostssl all all all trust",
		"samenet":                "host all all samenet trust",
		"replication":            "host replication repl 127.0.0.1/32 trust\nhost shop repl 127.0.0.1/32 trust",
		"all is not replication": "host all repl 127.0.0.1/32 trust",
		"lists":                  "host shop,app app,deep 127.0.0.1/32 trust",
		"quoted":                 `host "my shop" "Two-B" 127.0.0.1/32 trust`,
		"regexp":                 "host /^s app 127.0.0.1/32 trust\nhost all /^d.*p$ 127.0.0.1/32 trust",
		"nothing":                "",
	}
	ctx := t.Context()
	for name, text := range files {
		if name == "regexp" && major < 16 {
			text = "host all app 127.0.0.1/32 trust"
		}
		if err := os.WriteFile(filepath.Join(c.DataDir, "pg_hba.conf"), []byte(keep+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		admin, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres", c.Socket, c.Port))
		if err != nil {
			t.Fatal(err)
		}
		var before, after time.Time
		l.Must(admin.QueryRow(ctx, "SELECT pg_conf_load_time()").Scan(&before))
		l.Must(pg.Exec(ctx, admin, "SELECT pg_reload_conf()"))
		l.Must(pg.Poll(ctx, 5*time.Millisecond, "the reload", func(ctx context.Context) (bool, error) {
			err := admin.QueryRow(ctx, "SELECT pg_conf_load_time()").Scan(&after)
			return after.After(before), err
		}))
		h, err := pg.ReadHBA(ctx, admin)
		if err != nil {
			t.Fatal(err)
		}
		l.Must(admin.Close(ctx))
		if err := h.Errors(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, user := range []string{"app", "deep", "boss", "repl", "Two-B"} {
			for _, db := range []string{"shop", "app", "my shop"} {
				for _, host := range []string{"127.0.0.1", "::1", c.Socket} {
					for _, replication := range []bool{false, true} {
						if replication && (user != "repl" || db != "shop") {
							continue
						}
						caller := pg.Caller{Database: db, User: user, Replication: replication}
						if host != c.Socket {
							caller.Addr = netip.MustParseAddr(host)
						}
						rule, lets, says := h.Lets(caller)
						if did := enters(ctx, t, host, c.Port, caller); did != lets {
							t.Errorf("%s: the server lets %+v in: %v; the rules: %v (%s) %s", name, caller, did, lets, rule, says)
						}
					}
				}
			}
		}
	}
}

// enters tries to log in; a replication connection is a physical one.
func enters(ctx context.Context, t *testing.T, host string, port int, c pg.Caller) bool {
	t.Helper()
	conf, err := pgconn.ParseConfig("sslmode=disable passfile=/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	conf.Host, conf.Port, conf.User, conf.Database, conf.Password = host, uint16(port), c.User, c.Database, ""
	if c.Replication {
		conf.RuntimeParams["replication"] = "true"
	}
	conn, err := pgconn.ConnectConfig(ctx, conf)
	if err == nil {
		_ = conn.Close(ctx)
		return true
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != "28000" {
		t.Fatalf("%+v: %v", c, err)
	}
	return false
}

func TestHBARules(t *testing.T) {
	h := &pg.HBA{Version: 180000, Rules: []pg.HBARule{
		{Line: 1, Error: "torn"},
		{Line: 2, Type: "hostssl", Databases: []string{"all"}, Users: []string{"all"}, Address: ".example.org", Method: "md5"},
		{Line: 3, Type: "host", Databases: []string{"all"}, Users: []string{"all"}, Address: "samenet", Method: "md5"},
		{Line: 4, Type: "hostgssenc", Databases: []string{"all"}, Users: []string{"all"}, Address: "all", Method: "gss"},
		{Line: 5, Type: "host", Databases: []string{"all"}, Users: []string{"all"}, Address: "pool.example.net", Method: "reject"},
	}}
	addr := netip.MustParseAddr("::ffff:10.1.2.3") // as a server that listens on both kinds sees it
	net := []netip.Prefix{netip.MustParsePrefix("10.1.2.1/24")}
	for _, c := range []struct {
		caller pg.Caller
		line   int
		lets   bool
	}{
		{pg.Caller{Addr: addr, SSL: true, Names: []string{"a.example.org."}}, 2, true},
		{pg.Caller{Addr: addr, SSL: true, Names: []string{"example.org"}}, 0, false},
		{pg.Caller{Addr: addr, Names: []string{"a.example.org"}}, 0, false},
		{pg.Caller{Addr: addr, Server: net}, 3, true},
		{pg.Caller{Addr: netip.MustParseAddr("10.1.3.3"), Server: net}, 0, false},
		{pg.Caller{Addr: addr, Names: []string{"POOL.example.net"}}, 5, false},
		{pg.Caller{}, 0, false},
	} {
		r, lets, _ := h.Lets(c.caller)
		if r.Line != c.line || lets != c.lets {
			t.Errorf("%+v: line %d, %v", c.caller, r.Line, lets)
		}
	}
	if h.Errors() == nil {
		t.Error("the torn line is not told")
	}
}
