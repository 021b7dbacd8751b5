package schema

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// Kept is what was once seen of a cluster's shared things: a digest of each, by
// the key that a Global about it has. Before the digest stand the words that can
// be taken away one by one: attributes of a role, options of a membership. It
// holds no secrets.
type Kept map[string]string

// Kept is what s is, for a later comparison.
func (s *Shared) Kept() Kept {
	k := Kept{}
	for _, r := range s.Roles {
		k["role "+r.Name] = kept(r.words(), r.Limit, r.ValidUntil, r.password, r.Comment)
	}
	for _, m := range s.merged() {
		k["membership "+m.Member+" in "+m.Role] = kept(m.words(), m.Inherit, m.Set)
	}
	for _, v := range s.Settings {
		k["setting "+v.String()] = kept(nil, v.Value)
	}
	for _, p := range s.Parameters {
		k["parameter "+p.Name+" "+p.Privilege+" "+p.Grantee] = kept(nil, p.Grantable)
	}
	for _, d := range s.Databases {
		k["database "+d.Name] = kept(nil, d.Owner, d.Limit, d.Comment, d.Privileges)
	}
	for _, l := range s.Labels {
		k["label "+l.Type+" "+l.Name] = kept(nil, l.Provider, l.Label)
	}
	return k
}

func kept(words []string, values ...any) string {
	h := sha256.Sum256(fmt.Append(nil, values...))
	return strings.Join(words, ",") + "|" + hex.EncodeToString(h[:12])
}

// had reports whether a thing had a word when it was seen.
func (k Kept) had(key, word string) bool {
	words, _, _ := strings.Cut(k[key], "|")
	return slices.Contains(strings.Split(words, ","), word)
}

// words are what can be taken from a role: its attributes, its password and its
// comment.
func (r Role) words() []string {
	var words []string
	for _, a := range r.attributes() {
		if a.has {
			words = append(words, a.word)
		}
	}
	if r.password != "" {
		words = append(words, "PASSWORD")
	}
	if r.Comment != "" {
		words = append(words, "COMMENT")
	}
	return words
}

func (m Membership) words() []string {
	if m.Admin {
		return []string{"ADMIN"}
	}
	return nil
}

// Crossed is what Since is about.
type Crossed struct {
	Side string // where the effects are: old or new
	// Was is what the serving side had when both were last made equal; nil: not
	// known, and nothing is taken away.
	Was Kept
	// Only what has changed on the serving side since Was is carried: the other
	// side has things of its own.
	Only bool
}

// Since is Globals for two clusters that were made equal before: it also takes
// away, on the applying side (to), what the serving side (from) had then and has
// not any more. It returns what from has now, too.
func Since(ctx context.Context, from, to *pgx.Conn, databases []string, c Crossed) ([]Global, []Problem, Kept, error) {
	have, err := ReadShared(ctx, from, databases)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("on the side that serves: %w", err)
	}
	lacks, err := ReadShared(ctx, to, databases)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("on the side that applies: %w", err)
	}
	all, problems := CarrySince(have, lacks, c)
	return all, problems, have.Kept(), nil
}

// CarrySince is Since over facts that were read. Pure.
func CarrySince(from, to *Shared, since Crossed) ([]Global, []Problem) {
	if since.Only && since.Was == nil {
		return nil, nil
	}
	all, problems := Carry(from, to)
	if since.Only {
		now := from.Kept()
		all = slices.DeleteFunc(all, func(g Global) bool {
			key := g.about()
			return now[key] == since.Was[key]
		})
	}
	c := &carrier{from: from, to: to}
	if since.Was != nil {
		c.takeRoles(since.Was)
		c.takeMemberships(since.Was)
		c.takeRest(since.Was)
		c.dropRoles(since.Was)
	}
	all = append(all, c.globals...)
	for i := range all {
		all[i].Effect.On = since.Side
	}
	return all, problems
}

// about is the key of the thing in Kept.
func (g Global) about() string {
	key := strings.TrimPrefix(g.Key, "comment ")
	for _, part := range []string{" owner", " limit", " comment", " privileges"} {
		if strings.HasPrefix(key, "database ") {
			key = strings.TrimSuffix(key, part)
		}
	}
	return key
}

// takeRoles takes from roles what they had. The role that the tool is logged in
// as keeps what it has: it could lock itself out.
func (c *carrier) takeRoles(was Kept) {
	for _, r := range c.from.Roles {
		have := find(c.to.Roles, func(o Role) bool { return o.Name == r.Name })
		key := "role " + r.Name
		if have == nil || have.Bootstrap || r.Name == c.to.User {
			continue
		}
		var no []string
		has := have.attributes()
		for i, a := range r.attributes() {
			if !a.has && has[i].has && was.had(key, a.word) {
				no = append(no, "NO"+a.word)
			}
		}
		if r.password == "" && have.password != "" && c.from.Passwords && was.had(key, "PASSWORD") {
			no = append(no, "PASSWORD NULL")
		}
		if len(no) > 0 {
			c.do(key, "ALTER ROLE "+pg.Ident(r.Name)+" "+strings.Join(no, " "), "")
		}
		if r.Comment == "" && have.Comment != "" && was.had(key, "COMMENT") {
			c.do("comment "+key, commentOn("ROLE", r.Name, ""), "")
		}
	}
}

func (c *carrier) takeMemberships(was Kept) {
	wanted := c.from.merged()
	for _, m := range c.to.Memberships {
		key := "membership " + m.Member + " in " + m.Role
		if _, had := was[key]; !had {
			continue
		}
		by := ""
		if c.to.Version >= 160000 && m.Grantor != "" {
			by = " GRANTED BY " + pg.Ident(m.Grantor)
		}
		have := find(wanted, func(o Membership) bool { return o.Role == m.Role && o.Member == m.Member })
		switch {
		case have == nil:
			c.do(key, "REVOKE "+pg.Ident(m.Role)+" FROM "+pg.Ident(m.Member)+by+" CASCADE", "")
		case m.Admin && !have.Admin && was.had(key, "ADMIN"):
			c.do(key, "REVOKE ADMIN OPTION FOR "+pg.Ident(m.Role)+" FROM "+pg.Ident(m.Member)+by+" CASCADE", "")
		}
	}
}

// takeRest takes settings, privileges on parameters and labels.
func (c *carrier) takeRest(was Kept) {
	gone := func(key string, there bool) bool {
		_, had := was[key]
		return had && !there
	}
	for _, v := range c.to.Settings {
		key := "setting " + v.String()
		if gone(key, find(c.from.Settings, func(o Setting) bool { return o.String() == v.String() }) != nil) {
			c.do(key, v.statement(false), "")
		}
	}
	for _, p := range c.to.Parameters {
		key := "parameter " + p.Name + " " + p.Privilege + " " + p.Grantee
		if gone(key, find(c.from.Parameters, func(o Parameter) bool {
			return o.Name == p.Name && o.Privilege == p.Privilege && o.Grantee == p.Grantee
		}) != nil) {
			c.do(key, fmt.Sprintf("REVOKE %s ON PARAMETER %s FROM %s", p.Privilege, settingName(p.Name), granteeSQL(p.Grantee)), "")
		}
	}
	for _, l := range c.to.Labels {
		key := "label " + l.Type + " " + l.Name
		if gone(key, find(c.from.Labels, func(o Label) bool { return o.Type == l.Type && o.Name == l.Name && o.Provider == l.Provider }) != nil) {
			c.do(key, fmt.Sprintf("SECURITY LABEL FOR %s ON %s %s IS NULL", pg.Ident(l.Provider), strings.ToUpper(l.Type), pg.Ident(l.Name)), "")
		}
	}
}

// dropRoles drops roles that are gone: last, when nothing of them is left in the
// databases.
func (c *carrier) dropRoles(was Kept) {
	for _, r := range c.to.Roles {
		key := "role " + r.Name
		_, had := was[key]
		if !had || r.Bootstrap || r.Name == c.to.User || find(c.from.Roles, func(o Role) bool { return o.Name == r.Name }) != nil {
			continue
		}
		c.do(key, "DROP ROLE "+pg.Ident(r.Name), "").Late = true
	}
}
