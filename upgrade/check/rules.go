package check

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"crossfade/schema"
	"crossfade/upgrade/pg"
)

// door is what new's pg_hba.conf says once old's roles are there: their
// memberships travel with them. In maybe, every rule whose address cannot be
// judged from here (samehost, samenet, host names) is taken to match.
type door struct{ sure, maybe *pg.HBA }

func (f *Facts) door() door {
	sure := *f.New.HBA
	sure.Members = map[string]map[string]bool{}
	for _, of := range []*pg.HBA{f.New.HBA, f.Old.HBA} {
		if of == nil {
			continue
		}
		for member, roles := range of.Members {
			if sure.Members[member] == nil {
				sure.Members[member] = map[string]bool{}
			}
			maps.Copy(sure.Members[member], roles)
		}
	}
	return door{&sure, sure.Widest()}
}

// caller is how a server sees a client.
func (c Client) caller(tls bool) pg.Caller {
	addr, _ := netip.ParseAddr(c.Address) // invalid is a socket
	return pg.Caller{Database: c.Database, User: c.Role, Addr: addr, SSL: tls && addr.IsValid()}
}

// letsIn says whether new lets a client in, and why not. maybe: it depends on
// a rule that cannot be judged from here.
func (f *Facts) letsIn(d door, c Client) (ok, maybe bool, says string) {
	// Where old offers no TLS, a client that prefers it will use it on new.
	tls := []bool{c.TLS && f.New.setting("ssl") == "on"}
	if f.Old.setting("ssl") != "on" && f.New.setting("ssl") == "on" {
		tls = []bool{true, false}
	}
	for _, t := range tls {
		rule, lets, why := d.sure.Lets(c.caller(t))
		if lets {
			why = f.passwordRefused(c, rule)
			lets = why == ""
		}
		if lets {
			return true, false, ""
		}
		says = why
		if rule, lets, _ := d.maybe.Lets(c.caller(t)); lets && f.passwordRefused(c, rule) == "" {
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
	d := f.door()
	var out []Finding
	for _, c := range append(slices.Clone(f.Want.Clients), f.Old.Clients...) {
		if !f.moved(c.Database) || c.Role == "" {
			continue
		}
		ok, maybe, says := f.letsIn(d, c)
		if ok {
			continue
		}
		level, unsure := Block, ""
		if maybe || c.Address == "" {
			// A socket on new may not be what the client will use.
			level, unsure = Warn, ", as far as is known here"
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
// now: who is let in by a line of old, at the first address of its net. Roles
// that every line treats alike are tried once.
func judgeRules(f *Facts) []Finding {
	if !f.both() || f.New.HBA == nil || f.Old.HBA == nil {
		return nil
	}
	there, seen, classes := f.door(), f.clientKeys(), f.classes()
	var out []Finding
	for _, rule := range f.Old.HBA.Rules {
		addr, ok := sample(rule)
		if !ok || rule.Error != "" || rule.Method == "reject" || rule.Type == "local" {
			continue
		}
		for _, d := range f.Databases {
			var roles []string
			why := ""
			for _, class := range classes {
				c := Client{Role: class[0], Database: d.Name, Address: addr, TLS: rule.Type == "hostssl"}
				if got, ok := f.Old.HBA.Match(c.caller(c.TLS)); !ok || got.Line != rule.Line || got.File != rule.File {
					continue
				}
				if ok, maybe, says := f.letsIn(there, c); !ok && !maybe {
					left := slices.DeleteFunc(slices.Clone(class), func(r string) bool { return seen[clientKey(r, d.Name, addr)] })
					roles = append(roles, left...)
					why = says
				}
			}
			if len(roles) == 0 {
				continue
			}
			slices.Sort(roles)
			out = append(out, Finding{
				Level: Warn, On: OnNew, Database: d.Name, Object: rule.String(),
				Says: fmt.Sprintf("old lets %s in by %s; new would refuse: %s", some(roles, "role", "roles"), rule, why),
				Fix:  lines("put the like of that line into pg_hba.conf of new", "SELECT pg_reload_conf();"),
			})
		}
	}
	return out
}

// classes are the application's roles, those together that no line of either
// pg_hba.conf can tell apart for a database that is moved.
func (f *Facts) classes() [][]string {
	var tokens []string
	for _, h := range []*pg.HBA{f.Old.HBA, f.New.HBA} {
		for _, r := range h.Rules {
			tokens = append(tokens, r.Users...)
		}
	}
	for _, d := range f.Databases {
		tokens = append(tokens, d.Name, "+"+d.Name) // sameuser, samerole
	}
	slices.Sort(tokens)
	tokens = slices.Compact(tokens)
	byKind := map[string][]string{}
	var order []string
	for _, r := range f.Old.Roles {
		if !r.Login || r.Super {
			continue
		}
		kind := string(f.Old.Passwords[r.Name])
		for _, t := range tokens {
			group, isGroup := strings.CutPrefix(t, "+")
			pattern, isPattern := strings.CutPrefix(t, "/")
			switch {
			case t == r.Name, isGroup && f.Old.HBA.Members[r.Name][group], isGroup && f.New.HBA.Members[r.Name][group]:
				kind += "\x00" + t
			case isPattern:
				if re, err := regexp.Compile(pattern); err == nil && re.MatchString(r.Name) {
					kind += "\x00" + t
				}
			}
		}
		if byKind[kind] == nil {
			order = append(order, kind)
		}
		byKind[kind] = append(byKind[kind], r.Name)
	}
	var out [][]string
	for _, kind := range order {
		out = append(out, byKind[kind])
	}
	return out
}

func clientKey(role, database, address string) string {
	return role + "\x00" + database + "\x00" + address
}

func (f *Facts) clientKeys() map[string]bool {
	keys := map[string]bool{}
	for _, c := range append(slices.Clone(f.Want.Clients), f.Old.Clients...) {
		keys[clientKey(c.Role, c.Database, c.Address)] = true
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
