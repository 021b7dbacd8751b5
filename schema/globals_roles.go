package schema

import (
	"fmt"
	"slices"
	"strings"

	"crossfade/upgrade/pg"
)

// secret is the $name that stands for a password in an effect.
const secret = "crossfade_password"

func (c *carrier) carryRoles() {
	if !c.from.Passwords {
		c.problem(Problem{
			ID: "no-passwords", Object: Name(c.from.User), Says: "the tool's role on old may not read passwords (pg_authid): roles are made without them",
			Fix: "use a superuser on old, or set the passwords on new by hand",
		})
	}
	for _, r := range c.from.Roles {
		if r.MD5() {
			c.problem(Problem{
				ID: "md5-password", Object: r.Name, Says: fmt.Sprintf("role %s has an md5 password: it is carried as it is, and later majors warn of it", Name(r.Name)),
				Fix: "set the password again with password_encryption = 'scram-sha-256'",
			})
		}
		if have := find(c.to.Roles, func(o Role) bool { return o.Name == r.Name }); have != nil {
			c.alterRole(r, *have)
		} else {
			c.createRole(r)
		}
	}
}

func (c *carrier) createRole(r Role) {
	sql := "CREATE ROLE " + pg.Ident(r.Name)
	for _, a := range r.attributes() {
		if a.has {
			sql += " " + a.word
		} else {
			sql += " NO" + a.word
		}
	}
	if r.Limit != -1 {
		sql += fmt.Sprintf(" CONNECTION LIMIT %d", r.Limit)
	}
	if r.ValidUntil != "" {
		sql += " VALID UNTIL " + pg.Literal(r.ValidUntil)
	}
	if r.password != "" {
		sql += " PASSWORD $" + secret
	}
	g := c.do("role "+r.Name, sql, "DROP ROLE IF EXISTS "+pg.Ident(r.Name))
	g.Creates = true
	if r.password != "" {
		g.Effect.Secrets = map[string]string{secret: pg.Literal(r.password)}
	}
	c.commentRole(r, "")
}

type attribute struct {
	word string
	has  bool
}

func (r Role) attributes() []attribute {
	return []attribute{
		{"SUPERUSER", r.Superuser},
		{"INHERIT", r.Inherit},
		{"CREATEROLE", r.CreateRole},
		{"CREATEDB", r.CreateDB},
		{"LOGIN", r.Login},
		{"REPLICATION", r.Replication},
		{"BYPASSRLS", r.BypassRLS},
	}
}

// alterRole gives a role of new what it lacks. Limits and password follow old,
// but not those of the role that the tool is logged in as: it could lock
// itself out.
func (c *carrier) alterRole(r, have Role) {
	var do, undo []string
	lacks := have.attributes()
	for i, a := range r.attributes() {
		if a.has && !lacks[i].has {
			do, undo = append(do, a.word), append(undo, "NO"+a.word)
		}
	}
	own := r.Name == c.to.User
	if r.Limit != have.Limit && !own {
		do, undo = append(do, fmt.Sprintf("CONNECTION LIMIT %d", r.Limit)), append(undo, fmt.Sprintf("CONNECTION LIMIT %d", have.Limit))
	}
	if r.ValidUntil != have.ValidUntil && !own {
		do, undo = append(do, "VALID UNTIL "+until(r.ValidUntil)), append(undo, "VALID UNTIL "+until(have.ValidUntil))
	}
	password := r.password != "" && r.password != have.password && c.to.Passwords
	if password && own {
		password = false
		c.problem(Problem{
			ID: "tool-role", Object: r.Name,
			Says: fmt.Sprintf("role %s has another password on new than on old; the tool logs in as this role there and leaves it", Name(r.Name)),
			Fix:  "let the tool log in as another role, or set the password by hand afterwards",
		})
	}
	if password {
		do = append(do, "PASSWORD $"+secret)
		undo = append(undo, "PASSWORD "+map[bool]string{true: "$" + secret, false: "NULL"}[have.password != ""])
	}
	if len(do) > 0 {
		alter := "ALTER ROLE " + pg.Ident(r.Name) + " "
		g := c.do("role "+r.Name, alter+strings.Join(do, " "), alter+strings.Join(undo, " "))
		if password {
			g.Effect.Secrets = map[string]string{secret: pg.Literal(r.password)}
			g.Undo.Secrets = map[string]string{secret: pg.Literal(have.password)}
		}
	}
	c.commentRole(r, have.Comment)
}

func until(v string) string {
	if v == "" {
		v = "infinity"
	}
	return pg.Literal(v)
}

func (c *carrier) commentRole(r Role, have string) {
	if r.Comment != have && r.Comment != "" {
		c.do("comment role "+r.Name, commentOn("ROLE", r.Name, r.Comment), commentOn("ROLE", r.Name, have))
	}
}

func commentOn(kind, name, text string) string {
	v := "NULL"
	if text != "" {
		v = pg.Literal(text)
	}
	return "COMMENT ON " + kind + " " + pg.Ident(name) + " IS " + v
}

// merged are the memberships with one line for each pair: the sum of what
// several grantors gave.
func (s *Shared) merged() []Membership {
	var out []Membership
	for _, m := range s.Memberships {
		if have := find(out, func(o Membership) bool { return o.Role == m.Role && o.Member == m.Member }); have != nil {
			have.Admin, have.Inherit, have.Set = have.Admin || m.Admin, have.Inherit || m.Inherit, have.Set || m.Set
			continue
		}
		m.Grantor = ""
		out = append(out, m)
	}
	return out
}

// carryMemberships grants what new lacks. A grantor must have the admin option
// himself, so grants of that kind wait until he has it; grantors that never
// get it, and those of servers that do not check it (below 16), are left out:
// then the grant is the bootstrap superuser's.
func (c *carrier) carryMemberships() {
	chains := c.from.Version >= 160000 && c.to.Version >= 160000
	wanted := c.from.merged()
	if chains {
		wanted = slices.Clone(c.from.Memberships)
	}
	admin := map[[2]string]bool{}
	var left []Membership
	for _, m := range wanted {
		if !c.knows(m.Role) {
			c.problem(Problem{
				ID: "unknown-role", Object: m.Role, Says: fmt.Sprintf("new has no role %s, which %s is in on old", Name(m.Role), Name(m.Member)),
				Fix: fmt.Sprintf("REVOKE %s FROM %s", pg.Ident(m.Role), pg.Ident(m.Member)),
			})
			continue
		}
		left = append(left, m)
	}
	for len(left) > 0 {
		var wait []Membership
		for _, m := range left {
			if m.Grantor != "" && !admin[[2]string{m.Role, m.Grantor}] && !c.superuser(m.Grantor) {
				wait = append(wait, m)
				continue
			}
			c.grant(m, chains)
			if m.Admin {
				admin[[2]string{m.Role, m.Member}] = true
			}
		}
		if len(wait) == len(left) {
			for i := range wait {
				wait[i].Grantor = ""
			}
		}
		left = wait
	}
}

func (c *carrier) superuser(role string) bool {
	r := find(c.from.Roles, func(r Role) bool { return r.Name == role })
	return r != nil && r.Superuser
}

// knows says whether new has the role, or will.
func (c *carrier) knows(role string) bool {
	return c.to.Predefined[role] || slices.ContainsFunc(c.from.Roles, func(r Role) bool { return r.Name == role })
}

func (c *carrier) grant(m Membership, chains bool) {
	have := find(c.to.Memberships, func(o Membership) bool {
		return o.Role == m.Role && o.Member == m.Member && (!chains || o.Grantor == m.Grantor)
	})
	if have != nil && (have.Admin || !m.Admin) && (c.to.Version < 160000 || have.Inherit == m.Inherit && have.Set == m.Set) {
		return
	}
	sql := "GRANT " + pg.Ident(m.Role) + " TO " + pg.Ident(m.Member)
	by := ""
	if m.Grantor != "" {
		by = " GRANTED BY " + pg.Ident(m.Grantor)
	}
	switch {
	case c.to.Version >= 160000:
		word := func(b bool) string { return strings.ToUpper(fmt.Sprint(b)) }
		sql += " WITH ADMIN " + word(m.Admin) + ", INHERIT " + word(m.Inherit) + ", SET " + word(m.Set)
	case m.Admin:
		sql += " WITH ADMIN OPTION"
	}
	undo := "REVOKE " + pg.Ident(m.Role) + " FROM " + pg.Ident(m.Member) + by
	if have != nil {
		undo = "" // it was there before, with less; taking it away would be too much
		if c.to.Version >= 160000 {
			undo = fmt.Sprintf("GRANT %s TO %s WITH ADMIN %t, INHERIT %t, SET %t%s", pg.Ident(m.Role), pg.Ident(m.Member), have.Admin, have.Inherit, have.Set, by)
		}
	}
	c.do("membership "+m.Member+" in "+m.Role, sql+by, undo)
}

// carryParameters grants privileges on settings.
func (c *carrier) carryParameters() {
	if c.to.Version < 150000 {
		return
	}
	for _, p := range c.from.Parameters {
		if slices.Contains(c.to.Parameters, p) {
			continue
		}
		if !c.known(p.Name) {
			c.unknownSetting(p.Name, "a privilege of "+granteeName(p.Grantee))
			continue
		}
		grantee := granteeSQL(p.Grantee)
		sql := fmt.Sprintf("GRANT %s ON PARAMETER %s TO %s", p.Privilege, settingName(p.Name), grantee)
		if p.Grantable {
			sql += " WITH GRANT OPTION"
		}
		c.do("parameter "+p.Name+" "+p.Privilege+" "+p.Grantee, sql, fmt.Sprintf("REVOKE %s ON PARAMETER %s FROM %s", p.Privilege, settingName(p.Name), grantee))
	}
}

func granteeSQL(role string) string {
	if role == "" {
		return "PUBLIC"
	}
	return pg.Ident(role)
}
