package check

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/pg"
)

var accessChecks = []Check{
	{ID: "new-cannot-reach-old", Title: "The new server reaches the old one and may replicate from it", Levels: onlyBlock, Judge: judgeReach(OnNew)},
	{ID: "old-cannot-reach-new", Title: "The old server reaches the new one, for the way back", Levels: onlyBlock, Judge: judgeReach(OnOld)},
	{ID: "client-refused", Title: "The application's sessions would be let in on new", Levels: blockWarn, Acceptable: true, Judge: judgeClients},
	{ID: "hba-narrower", Title: "Every line of old's pg_hba.conf that lets a client in has an equivalent on new", Levels: onlyWarn, Acceptable: true, Judge: judgeRules},
	{ID: "ssl-off", Title: "New offers TLS where old does", Levels: blockWarn, Acceptable: true, Judge: judgeSSL},
	{ID: "max-connections", Title: "New takes as many connections as old", Levels: blockWarn, Acceptable: true, Judge: judgeMaxConnections},
	{ID: "listen-addresses", Title: "New listens where old does", Levels: onlyWarn, Acceptable: true, Judge: judgeListen},
	{ID: "clients-direct", Title: "Every session goes through what the cutover redirects", Levels: onlyWarn, Acceptable: true, Judge: judgeDirect},
	{ID: "password-in-subscription", Title: "No subscription carries a password", Levels: onlyNote, Acceptable: true, Judge: judgeSecrets},
	{ID: "password-logged", Title: "Statements with passwords can be kept out of the servers' logs", Levels: warnNote, Acceptable: true, Judge: judgeLogged},
}

func judgeReach(from string) func(*Facts) []Finding {
	return func(f *Facts) []Finding {
		var out []Finding
		for _, r := range f.Reach {
			if r.From != from || r.Err == nil {
				continue
			}
			key := "from_new"
			if from == OnOld {
				key = "from_old"
			}
			out = append(out, Finding{
				Level: Block, On: from, Database: r.Database, Object: r.Conninfo,
				Says: fmt.Sprintf("the %s server itself cannot replicate from the %s one (database %s), which its subscriptions must: %v", from, r.To, r.Database, r.Err),
				Fix: lines(
					fmt.Sprintf("give %s: in the runbook if the %s server knows the %s one by another address or role; the password in that server's own ~/.pgpass", key, from, r.To),
					fmt.Sprintf("let that role in for its databases in pg_hba.conf of the %s server (a line for replication is not asked), with REPLICATION or SUPERUSER, then SELECT pg_reload_conf() there", r.To),
				),
			})
		}
		return out
	}
}

// databases that are moved, by name.
func (f *Facts) moved(database string) bool {
	return slices.ContainsFunc(f.Databases, func(d DatabaseFacts) bool { return d.Name == database })
}

func judgeSSL(f *Facts) []Finding {
	if !f.both() || f.Old.setting("ssl") != "on" || f.New.setting("ssl") == "on" {
		return nil
	}
	var using []string
	for _, c := range f.Old.Clients {
		if c.TLS && f.moved(c.Database) {
			using = append(using, schema.Name(c.Role))
		}
	}
	level, says := Warn, "ssl is on on old and off on new: a client that demands TLS (sslmode=require and stricter) could not connect after the cutover"
	if len(using) > 0 {
		slices.Sort(using)
		level = Block
		says += fmt.Sprintf("; connected with TLS now: %s", some(slices.Compact(using), "role", "roles"))
	}
	return []Finding{{
		Level: level, On: OnNew, Object: "ssl", Says: says,
		Fix: lines("put a key and a certificate whose name clients accept where ssl_key_file and ssl_cert_file of new point",
			"ALTER SYSTEM SET ssl = on;", "SELECT pg_reload_conf();"),
	}}
}

func judgeMaxConnections(f *Facts) []Finding {
	if !f.both() {
		return nil
	}
	have, want := f.New.forClients(), f.Old.forClients()
	if have >= want {
		return nil
	}
	used := f.Old.Backends["client backend"]
	level, says := Warn, fmt.Sprintf("new takes %d connections of clients, old %d (%d are open now)", have, want, used)
	if used > have {
		level = Block
		says += ": not everybody who is connected now could connect after the cutover"
	}
	return []Finding{{
		Level: level, On: OnNew, Object: "max_connections", Says: says,
		Fix: f.raise(OnNew, "max_connections", want+f.New.number("max_connections")-have),
	}}
}

// forClients is how many connections are left for ordinary roles.
func (s *Server) forClients() int64 {
	return s.number("max_connections") - s.number("superuser_reserved_connections") - s.number("reserved_connections")
}

// judgeListen: a server that listens on its own machine alone is reached by
// nobody who comes from elsewhere.
func judgeListen(f *Facts) []Finding {
	if !f.both() {
		return nil
	}
	const name = "listen_addresses"
	have, want := f.New.setting(name), f.Old.setting(name)
	local := func(list string) bool {
		return !slices.ContainsFunc(splitList(list), func(a string) bool { return a != "localhost" && a != "127.0.0.1" && a != "::1" })
	}
	if !local(have) || local(want) {
		return nil
	}
	return []Finding{{
		Level: Warn, On: OnNew, Object: name,
		Says: fmt.Sprintf("new listens on %s alone, old on %s: who comes from another machine could not connect after the cutover", orNothing(have), want),
		Fix:  lines("ALTER SYSTEM SET listen_addresses = "+strings.TrimSpace(pg.Literal(want))+";", "restart the new server"),
	}}
}

func orNothing(s string) string {
	if s == "" {
		return "no address"
	}
	return s
}

const poolerTimeout = 2 * time.Second

// readPoolers finds the addresses that sessions of the poolers come from, as
// far as their names tell. One that is on this machine may come from any of
// its addresses: then nothing is reported.
func (g *gathering) readPoolers(ctx context.Context) {
	ctx, cancel := context.WithTimeoutCause(ctx, poolerTimeout, fmt.Errorf("no answer within %s", poolerTimeout))
	defer cancel()
	var all []string
	for _, name := range g.Want.Poolers {
		if strings.HasPrefix(name, "/") {
			return
		}
		found, err := net.DefaultResolver.LookupHost(ctx, name)
		if err != nil {
			g.missing(OnOld, "", "where the sessions of pooler "+name+" come from", err, false)
			return
		}
		for _, a := range found {
			if ip, err := netip.ParseAddr(a); err != nil || ip.IsLoopback() {
				return
			}
		}
		all = append(all, found...)
	}
	g.PoolerAddresses = all
}

// judgeDirect: who does not come through a pooler is not sent to new by it.
func judgeDirect(f *Facts) []Finding {
	if !f.Old.ok() || len(f.PoolerAddresses) == 0 {
		return nil
	}
	var out []Finding
	for _, d := range f.Databases {
		var who []string
		for _, c := range f.Old.Clients {
			if c.Database == d.Name && !slices.Contains(f.PoolerAddresses, c.Address) {
				who = append(who, fmt.Sprintf("%s from %s (%s)", schema.Name(c.Role), orSocket(c.Address), c.Application))
			}
		}
		if len(who) == 0 {
			continue
		}
		out = append(out, Finding{
			Level: Warn, On: OnOld, Database: d.Name, Object: d.Name,
			Says: some(who, "role", "roles") + " do not come through the poolers of the runbook: the cutover ends their sessions, and where they connect again old refuses their writes",
			Fix:  "let them go through the pooler, name both servers with target_session_attrs=read-write, or move them by a hook: under cutover.traffic",
		})
	}
	return out
}

// dedupe drops findings that say the same.
func dedupe(all []Finding) []Finding {
	var out []Finding
	for _, x := range all {
		if !slices.ContainsFunc(out, func(f Finding) bool {
			return f.On == x.On && f.Database == x.Database && f.Object == x.Object && f.Says == x.Says
		}) {
			out = append(out, x)
		}
	}
	return out
}

// count is how many of something: 1 column, 2 columns.
func count(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if what == "index" {
		return fmt.Sprintf("%d indexes", n)
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// most is how many names a sentence names.
const most = 5

// some names things, the first of many, with how many there are.
func some(names []string, one, many string) string {
	if len(names) == 1 {
		return one + " " + names[0]
	}
	if len(names) <= most {
		return many + " " + strings.Join(names, ", ")
	}
	return fmt.Sprintf("%d %s (%s, …)", len(names), many, strings.Join(names[:most], ", "))
}
