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
		}.among(fmt.Sprintf("%%s with CREATEROLE: on %d they may alter, drop and grant every role but superusers; on %d only those that they make there or hold WITH ADMIN OPTION, so that what they do to others would fail", f.Old.Major(), f.New.Major()), "role", nil))
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
		}.among("%s on new already with more there than on old: prepare gives roles what they lack and takes nothing from them", "role", []string{"has"}, strings.Join(more, ", ")))
	}
	return out
}

// judgeSecrets: a subscription keeps its conninfo in pg_subscription as it was
// given.
func judgeSecrets(f *Facts) []Finding {
	var out []Finding
	f.eachSecret(func(on *Server, by *pg.Server, key string) {
		out = append(out, Finding{
			Level: Note, On: on.Side, Object: by.User(),
			Says: fmt.Sprintf("the subscriptions on %s carry the password of role %s, which superusers there can read in pg_subscription until finish", on.Side, schema.Name(by.User())),
			Fix:  passElsewhere(on, key),
		})
	})
	return out
}

func passElsewhere(on *Server, key string) string {
	return fmt.Sprintf("put it into ~/.pgpass of who runs the %s server and give %s: without a password in the runbook, or use a certificate", on.Side, key)
}

// eachSecret calls f for each side whose subscriptions will carry a password: by
// is how that side reaches the other one, as key of the runbook says.
func (f *Facts) eachSecret(each func(on *Server, by *pg.Server, key string)) {
	if !f.both() {
		return
	}
	fromNew, fromOld := f.Want.FromNew, f.Want.FromOld
	if fromNew == nil {
		fromNew = f.Want.Old
	}
	if fromOld == nil {
		fromOld = f.Want.New
	}
	if fromNew != nil && fromNew.Secret() != "" {
		each(f.New, fromNew, "from_new")
	}
	if f.Want.Back && fromOld != nil && fromOld.Secret() != "" {
		each(f.Old, fromOld, "from_old")
	}
}

// judgeLogged: a statement that holds a password is executed with the server's
// log turned off for it, where the tool's role may do that. Where it may not, the
// server writes the password down.
func judgeLogged(f *Facts) []Finding {
	if !f.both() {
		return nil
	}
	holds, fix := map[*Server][]string{}, map[*Server][]string{}
	f.eachSecret(func(on *Server, by *pg.Server, key string) {
		holds[on] = append(holds[on], "CREATE SUBSCRIPTION with the password of role "+schema.Name(by.User()))
		fix[on] = append(fix[on], passElsewhere(on, key))
	})
	for _, kind := range f.Old.Passwords {
		if kind != NoPassword {
			holds[f.New] = append(holds[f.New], "CREATE ROLE with the hashes of passwords")
			break
		}
	}
	var out []Finding
	for _, on := range []*Server{f.Old, f.New} {
		if len(holds[on]) == 0 || len(on.Overheard) == 0 {
			continue
		}
		level := Warn
		if len(on.Overheard) == 1 && strings.HasPrefix(on.Overheard[0], "log_min_error_statement ") {
			level = Note // only a statement that fails
		}
		var grant []string
		for _, setting := range on.Overheard {
			name, _, _ := strings.Cut(setting, " = ")
			if on.Major() >= 15 {
				grant = append(grant, "GRANT SET ON PARAMETER "+name+" TO "+pg.Ident(on.Role.Name)+";")
			}
		}
		out = append(out, Finding{
			Level: level, On: on.Side, Object: on.Role.Name,
			Says: fmt.Sprintf("the %s server will log %s: %s, and role %s may not turn that off for the statement", on.Side, strings.Join(holds[on], " and "), strings.Join(on.Overheard, ", "), schema.Name(on.Role.Name)),
			Fix:  lines(append(append(grant, fix[on]...), "or turn that logging off on the "+on.Side+" server until prepare and the cutover are done")...),
		})
	}
	return out
}
