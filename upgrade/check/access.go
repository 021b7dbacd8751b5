package check

import (
	"fmt"
	"net/netip"
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

// newHBA is what new's pg_hba.conf says once old's roles are there: their
// memberships travel with them.
func (f *Facts) newHBA() *pg.HBA {
	h := *f.New.HBA
	h.Members = map[string]map[string]bool{}
	for _, of := range []*pg.HBA{f.New.HBA, f.Old.HBA} {
		if of == nil {
			continue
		}
		for member, roles := range of.Members {
			if h.Members[member] == nil {
				h.Members[member] = map[string]bool{}
			}
			for r := range roles {
				h.Members[member][r] = true
			}
		}
	}
	return &h
}

// caller is how a server sees a client.
func (c Client) caller(tls bool) pg.Caller {
	addr, _ := netip.ParseAddr(c.Address) // invalid is a socket
	return pg.Caller{Database: c.Database, User: c.Role, Addr: addr, SSL: tls && addr.IsValid()}
}

// possibly is h with every rule whose address cannot be judged from here
// (samehost, samenet, host names) taken to match.
func possibly(h *pg.HBA) *pg.HBA {
	p := *h
	p.Rules = slices.Clone(h.Rules)
	for i := range p.Rules {
		r := &p.Rules[i]
		if _, err := netip.ParseAddr(r.Address); err != nil && r.Address != "" && r.Method != "reject" {
			r.Address = "all"
		}
	}
	return &p
}

// letsIn says whether new lets a client in, and why not. maybe: it depends on
// a rule that cannot be judged from here.
func (f *Facts) letsIn(h *pg.HBA, c Client) (ok, maybe bool, says string) {
	// Where old offers no TLS, a client that prefers it will use it on new.
	tls := []bool{c.TLS && f.New.setting("ssl") == "on"}
	if f.Old.setting("ssl") != "on" && f.New.setting("ssl") == "on" {
		tls = []bool{true, false}
	}
	for _, t := range tls {
		rule, lets, why := h.Lets(c.caller(t))
		if lets {
			why = f.passwordRefused(c, rule)
			lets = why == ""
		}
		if lets {
			return true, false, ""
		}
		says = why
		if rule, lets, _ := possibly(h).Lets(c.caller(t)); lets && f.passwordRefused(c, rule) == "" {
			maybe = true
		}
	}
	return false, maybe, says
}

// passwordRefused says why a role cannot show what a rule of new asks for; it
// is silent where passwords are not known or the methods are the same.
func (f *Facts) passwordRefused(c Client, rule pg.HBARule) string {
	kind, known := f.Old.Passwords[c.Role]
	if !known {
		return ""
	}
	asks := rule.Method == "password" || rule.Method == "md5" || rule.Method == "scram-sha-256"
	switch {
	case asks && kind == NoPassword:
		return fmt.Sprintf("role %s has no password, and %s asks for one", c.Role, rule)
	case rule.Method == "scram-sha-256" && kind == MD5Password:
		return fmt.Sprintf("the password of role %s is an md5 hash, and %s asks for SCRAM", c.Role, rule)
	}
	return ""
}

func judgeClients(f *Facts) []Finding {
	if !f.both() || f.New.HBA == nil {
		return nil
	}
	h := f.newHBA()
	var out []Finding
	for _, c := range append(slices.Clone(f.Want.Clients), f.Old.Clients...) {
		if !f.moved(c.Database) || c.Role == "" {
			continue
		}
		ok, maybe, says := f.letsIn(h, c)
		if ok {
			continue
		}
		level, unsure := Block, ""
		if maybe || c.Address == "" {
			// A socket on new may not be what the client will use.
			level, unsure = Warn, ", as far as can be told from here"
		}
		out = append(out, Finding{
			Level: level, On: OnNew, Database: c.Database, Object: c.Role,
			Says: fmt.Sprintf("%s%s would be refused by new after the cutover%s: %s", c, now(c), unsure, says),
			Fix:  f.letIn(c),
		})
	}
	return dedupe(out)
}

func now(c Client) string {
	if c.Count == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d sessions on old now)", c.Count)
}

// letIn is the line for pg_hba.conf of new: old's own where it matches.
func (f *Facts) letIn(c Client) string {
	method := "scram-sha-256"
	if f.Old.Passwords[c.Role] == MD5Password {
		method = "md5"
	}
	if f.Old.HBA != nil {
		if rule, ok, _ := f.Old.HBA.Lets(c.caller(c.TLS)); ok {
			method = rule.Method
		}
	}
	line := fmt.Sprintf("local %s %s %s", hbaName(c.Database), hbaName(c.Role), method)
	if c.Address != "" {
		bits := "/32"
		if strings.Contains(c.Address, ":") {
			bits = "/128"
		}
		line = fmt.Sprintf("host %s %s %s%s %s", hbaName(c.Database), hbaName(c.Role), c.Address, bits, method)
	}
	return lines("put into pg_hba.conf of new, before what refuses it: "+line, "SELECT pg_reload_conf();")
}

func hbaName(s string) string {
	if s == schema.Name(s) && !slices.Contains([]string{"all", "sameuser", "samerole", "replication"}, s) {
		return s
	}
	return `"` + s + `"`
}

// judgeRules compares the rules themselves, for clients that are not connected
// now: who is let in by a line of old, at the first address of its net.
func judgeRules(f *Facts) []Finding {
	if !f.both() || f.New.HBA == nil || f.Old.HBA == nil {
		return nil
	}
	h, seen := f.newHBA(), f.clientKeys()
	var out []Finding
	for _, rule := range f.Old.HBA.Rules {
		if rule.Error != "" || rule.Method == "reject" || rule.Type == "local" {
			continue
		}
		addr, ok := sample(rule)
		if !ok {
			continue
		}
		refused := map[string][]string{} // why → roles and databases
		for _, d := range f.Databases {
			for _, r := range f.Old.Roles {
				c := Client{Role: r.Name, Database: d.Name, Address: addr, TLS: rule.Type == "hostssl"}
				if !r.Login || r.Super || seen[c.Role+"\x00"+c.Database+"\x00"+c.Address] {
					continue
				}
				if got, ok := f.Old.HBA.Match(c.caller(c.TLS)); !ok || got.String() != rule.String() {
					continue
				}
				if ok, maybe, says := f.letsIn(h, c); !ok && !maybe {
					refused[d.Name] = append(refused[d.Name], r.Name+"\x00"+says)
				}
			}
		}
		for _, d := range f.Databases {
			if len(refused[d.Name]) == 0 {
				continue
			}
			var roles []string
			_, says, _ := strings.Cut(refused[d.Name][0], "\x00")
			for _, r := range refused[d.Name] {
				role, _, _ := strings.Cut(r, "\x00")
				roles = append(roles, role)
			}
			out = append(out, Finding{
				Level: Warn, On: OnNew, Database: d.Name, Object: rule.String(),
				Says: fmt.Sprintf("old lets %s in by %s; new would refuse: %s", some(roles, "role", "roles"), rule, says),
				Fix:  lines("put the like of that line into pg_hba.conf of new", "SELECT pg_reload_conf();"),
			})
		}
	}
	return out
}

func (f *Facts) clientKeys() map[string]bool {
	keys := map[string]bool{}
	for _, c := range append(slices.Clone(f.Want.Clients), f.Old.Clients...) {
		keys[c.Role+"\x00"+c.Database+"\x00"+c.Address] = true
	}
	return keys
}

// sample is an address that a rule is for. Everything, the own nets and host
// names have none that would mean anything elsewhere; 0.0.0.0/0 has.
func sample(r pg.HBARule) (string, bool) {
	addr, err := netip.ParseAddr(r.Address)
	switch {
	case r.Address == "all":
		return "203.0.113.1", true // of TEST-NET-3: nobody's
	case err != nil:
		return "", false
	case addr.IsUnspecified():
		if addr.Is4() {
			return "203.0.113.1", true
		}
		return "2001:db8::1", true
	}
	if next := addr.Next(); r.Netmask != "255.255.255.255" && r.Netmask != "" && next.IsValid() && !strings.HasSuffix(r.Netmask, "ffff:ffff:ffff") {
		return next.String(), true
	}
	return addr.String(), true
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
