package check

import (
	"fmt"
	"slices"
	"strings"

	"crossfade/schema"
	"crossfade/upgrade/pg"
)

var roleChecks = []Check{
	{ID: "md5-passwords", Title: "Passwords are not md5 hashes", Levels: warnNote, Acceptable: true, Judge: judgeMD5},
	{ID: "createrole-changed", Title: "Roles with CREATEROLE can go on with what they do", Levels: onlyWarn, Acceptable: true, Judge: judgeCreateRole},
	{ID: "role-has-more", Title: "Roles that new has already may not do more than on old", Levels: onlyWarn, Acceptable: true, Judge: judgeHasMore},
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

// judgeCreateRole: from 16 on CREATEROLE is the right to make roles, and to
// change those that one was given WITH ADMIN OPTION; before, all but superusers.
func judgeCreateRole(f *Facts) []Finding {
	if !f.both() || f.Old.Major() >= 16 || f.New.Major() < 16 {
		return nil
	}
	var out []Finding
	for _, r := range f.Old.Roles {
		if !r.CreateRole || r.Super {
			continue
		}
		out = append(out, Finding{
			Level: Warn, On: OnOld, Object: r.Name,
			Says: fmt.Sprintf("role %s has CREATEROLE: on %d it may alter, drop and grant every role but superusers; on %d only those that it makes there or holds WITH ADMIN OPTION, so that what it does to others would fail",
				schema.Name(r.Name), f.Old.Major(), f.New.Major()),
			Fix: fmt.Sprintf("on new, once prepare has made the roles, for each role that it is to manage: GRANT … TO %s WITH ADMIN OPTION", pg.Ident(r.Name)),
		})
	}
	return out
}

// judgeHasMore: prepare takes no attribute from a role that is there already.
func judgeHasMore(f *Facts) []Finding {
	if !f.both() {
		return nil
	}
	on := make(map[string]Role, len(f.New.Roles))
	for _, r := range f.New.Roles {
		on[r.Name] = r
	}
	var out []Finding
	for _, r := range f.Old.Roles {
		n, there := on[r.Name]
		if !there || r.Name == f.New.Role.Name || strings.HasPrefix(r.Name, "pg_") {
			continue
		}
		var more []string
		for _, a := range []struct {
			word     string
			old, new bool
		}{
			{"SUPERUSER", r.Super, n.Super},
			{"REPLICATION", r.Replication, n.Replication},
			{"BYPASSRLS", r.BypassRLS, n.BypassRLS},
			{"CREATEDB", r.CreateDB, n.CreateDB},
			{"CREATEROLE", r.CreateRole, n.CreateRole},
			{"LOGIN", r.Login, n.Login},
		} {
			if a.new && !a.old {
				more = append(more, a.word)
			}
		}
		if len(more) == 0 {
			continue
		}
		out = append(out, Finding{
			Level: Warn, On: OnNew, Object: r.Name,
			Says: fmt.Sprintf("role %s is on new already and has %s there, which it has not on old: prepare gives roles what they lack and takes nothing from them", schema.Name(r.Name), strings.Join(more, ", ")),
			Fix:  "ALTER ROLE " + pg.Ident(r.Name) + " NO" + strings.Join(more, " NO") + ";",
		})
	}
	return out
}

// judgeSecrets: a subscription keeps its conninfo in pg_subscription as it was
// given, and CREATE SUBSCRIPTION is a statement that a server may log.
func judgeSecrets(f *Facts) []Finding {
	if !f.both() {
		return nil
	}
	var out []Finding
	look := func(on *Server, by *pg.Server, key string) {
		if by == nil || by.Secret() == "" {
			return
		}
		level, says := Note, fmt.Sprintf("the subscriptions on %s carry the password of role %s, which superusers there can read in pg_subscription until finish", on.Side, schema.Name(by.User()))
		if v := on.setting("log_statement"); v == "ddl" || v == "mod" || v == "all" {
			level = Warn
			says += fmt.Sprintf("; log_statement is %s there, so that CREATE SUBSCRIPTION would write it into the server's log", v)
		}
		out = append(out, Finding{
			Level: level, On: on.Side, Object: by.User(), Says: says,
			Fix: fmt.Sprintf("put it into ~/.pgpass of who runs the %s server and give %s: without a password in the runbook, or use a certificate", on.Side, key),
		})
	}
	fromNew, fromOld := f.Want.FromNew, f.Want.FromOld
	if fromNew == nil {
		fromNew = f.Want.Old
	}
	if fromOld == nil {
		fromOld = f.Want.New
	}
	look(f.New, fromNew, "from_new")
	if f.Want.Back {
		look(f.Old, fromOld, "from_old")
	}
	return out
}
