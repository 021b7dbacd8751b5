package check

import (
	"fmt"
	"slices"
	"strings"

	"crossfade/schema"
	"crossfade/upgrade/pg"
)

var accessChecks = []Check{
	{ID: "new-cannot-reach-old", Title: "The new server reaches the old one and may replicate from it", Judge: judgeReach(OnNew)},
	{ID: "old-cannot-reach-new", Title: "The old server reaches the new one, for the way back", Judge: judgeReach(OnOld)},
	{ID: "client-refused", Title: "The application's sessions would be let in on new", Acceptable: true, Judge: judgeClients},
	{ID: "hba-narrower", Title: "Every line of old's pg_hba.conf that lets somebody in has its like on new", Acceptable: true, Judge: judgeRules},
	{ID: "ssl-off", Title: "New offers TLS where old does", Acceptable: true, Judge: judgeSSL},
	{ID: "max-connections", Title: "New takes as many connections as old", Acceptable: true, Judge: judgeMaxConnections},
	{ID: "md5-passwords", Title: "Passwords are not md5 hashes", Acceptable: true, Judge: judgeMD5},
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

func judgeMD5(f *Facts) []Finding {
	if !f.both() {
		return nil
	}
	var roles []string
	for name, kind := range f.Old.Passwords {
		if kind == MD5Password {
			roles = append(roles, name)
		}
	}
	if len(roles) == 0 {
		return nil
	}
	slices.Sort(roles)
	level, says := Note, fmt.Sprintf("%s: md5 hashes are carried over and work, but are deprecated (18 warns, 19 will say so at each login)", some(roles, "role", "roles"))
	if f.New.HBA != nil && slices.ContainsFunc(f.New.HBA.Rules, func(r pg.HBARule) bool { return r.Method == "scram-sha-256" }) {
		level = Warn
		says += "; pg_hba.conf of new has lines with scram-sha-256, by which they cannot log in"
	}
	return []Finding{{
		Level: level, On: OnOld, Says: says,
		Fix: "set password_encryption to scram-sha-256 on old and give each of them its password anew (\\password in psql); md5 lines in pg_hba.conf let SCRAM passwords in too",
	}}
}

// dedupe drops findings that say the same.
func dedupe(all []Finding) []Finding {
	var out []Finding
	for _, x := range all {
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
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
