package check

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"crossfade/schema"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/rights"

	"github.com/jackc/pgx/v5"
)

// OwnerLogin is the id of the check that the tool may log in with the rights of
// owners of tables.
const OwnerLogin = "owner-login"

var functionChecks = []Check{
	{ID: "function-rights", Title: "Functions of ordinary roles run with no more rights than they have", Levels: onlyBlock, Acceptable: true, Judge: judgeFunctions},
	{ID: OwnerLogin, Title: "The tool can log in with the rights of table owners whose functions would run as it works", Levels: onlyBlock, Acceptable: true, Judge: judgeOwnerLogins},
}

// readSelf reads where the tool's sessions come from, as pg_hba.conf sees it.
func (s *Server) readSelf(ctx context.Context, conn *pgx.Conn) error {
	return conn.QueryRow(ctx, `SELECT current_user::text, current_database()::text, coalesce(host(a.client_addr), ''), coalesce(s.ssl, false), a.application_name, 1::int8
		FROM pg_stat_activity a LEFT JOIN pg_stat_ssl s USING (pid) WHERE a.pid = pg_backend_pid()`).
		Scan(&s.Self.Role, &s.Self.Database, &s.Self.Address, &s.Self.TLS, &s.Self.Application, &s.Self.Count)
}

// code is what of the tables that are moved runs functions of ordinary roles.
func (d DatabaseFacts) code() *rights.Map {
	if d.Rights == nil || d.Inventory == nil {
		return &rights.Map{}
	}
	stays := map[string]bool{}
	for _, t := range d.Inventory.Tables {
		stays[t.SQL()] = t.Excluded
	}
	return d.Rights.Without(func(s, t string) bool { return stays[pg.Ident(s, t)] })
}

// lastAsOwner is the last major whose apply workers run all code as the owner of
// the subscription, a superuser; later ones switch to the table's owner.
const lastAsOwner = 15

// judgeFunctions names what PostgreSQL itself would run with more rights.
func judgeFunctions(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		all := d.code()
		for _, side := range []struct {
			on   *Server
			when string
		}{{f.New, "while it follows"}, {f.Old, "on the way back"}} {
			if !side.on.ok() || side.on.Major() > lastAsOwner || side.on == f.Old && !f.Want.Back {
				continue
			}
			out = append(out, functions(side.on.Side, d.Name, pickCode(all, rights.Code.OnApply),
				fmt.Sprintf("PostgreSQL %d applies rows as the owner of the subscription, a superuser: %s, these functions of ordinary roles run with all rights, and may give their owners any", side.on.Major(), side.when),
				waysOut(side.on == f.Old)))
		}
		out = append(out,
			functions(OnOld, d.Name, pickCode(all, func(c rights.Code) bool { return c.OwnerSuper && (c.Kind != rights.OfDomain) }),
				"tables of superusers call functions of ordinary roles, which run with the rights of the table's owner where rows are copied, applied and indexed", waysOut(false)),
			functions(OnOld, d.Name, pickCode(all, func(c rights.Code) bool { return !c.OwnerSuper && c.Kind == rights.Partition && c.Folds }),
				"keys of partitioned tables call functions of ordinary roles with constants alone, or in SQL: PostgreSQL runs them as soon as a partition is attached, with the rights of the tool", waysOut(false)),
			functions(OnOld, d.Name, pickCode(all, func(c rights.Code) bool { return c.Kind == rights.Literal }),
				"checks of domains call functions of ordinary roles, and run while the schema is restored, with the rights of the tool, because expressions hold values of arrays, rows or ranges over these domains or partitions are bounded by them", waysOut(false)),
			functions(OnOld, d.Name, pickCode(all, func(c rights.Code) bool { return c.Kind == rights.EventTrigger && f.firesForTool() }),
				"event triggers that are enabled ALWAYS or REPLICA call functions of ordinary roles, and fire for what the tool does", waysOut(false)))
	}
	return slices.DeleteFunc(out, func(f Finding) bool { return f.Table == nil })
}

// firesForTool: from 17 on the tool's sessions have event triggers off.
func (f *Facts) firesForTool() bool {
	return f.Old.ok() && f.Old.Major() < 17 || f.New.ok() && f.New.Major() < 17
}

func pickCode(m *rights.Map, want func(rights.Code) bool) []rights.Code {
	return slices.DeleteFunc(slices.Clone(m.Code), func(c rights.Code) bool { return !want(c) })
}

func waysOut(back bool) string {
	with := ""
	if back {
		with = "or give up the way back: back: false under cutover: in the runbook"
	}
	return lines("read the functions and give them to a role that is trusted with all rights: ALTER FUNCTION … OWNER TO …",
		with, "or accept it: their owners are trusted as superusers are")
}

// functions is one finding about code; without any it has no table.
func functions(on, database string, code []rights.Code, says, fix string) Finding {
	f := Finding{Level: Block, On: on, Database: database, Object: database, Says: says, Fix: fix}
	names := map[string]bool{}
	for _, c := range code {
		if f.Table == nil {
			f.Table = &Table{Columns: []string{"function", "its owner", "called by", "of table", "the table's owner"}}
		}
		f.Table.Rows = append(f.Table.Rows, []string{c.Function, c.FunctionOwner, c.What, tableName(c), c.Owner})
		names[c.Function] = true
	}
	if len(names) > 0 {
		f.Says += ": " + some(slices.Sorted(maps.Keys(names)), "function", "functions")
	}
	return f
}

func tableName(c rights.Code) string {
	if c.Table == "" {
		return ""
	}
	return schema.Name(c.Schema, c.Table)
}

// judgeOwnerLogins asks pg_hba.conf whether it lets in the roles that the tool
// will make: members of the owners, who show a SCRAM password.
func judgeOwnerLogins(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		all := d.code()
		if f.New.ok() {
			out = append(out, f.refused(f.New, d.Name, all.Owners(), "its tables are filled")...)
		}
		if f.Old.ok() {
			out = append(out, f.refused(f.Old, d.Name, all.Readers(), "its tables are read, to compare rows")...)
		}
	}
	return out
}

func (f *Facts) refused(s *Server, database string, owners []string, when string) []Finding {
	if s.HBA == nil || !s.Role.Super {
		return nil
	}
	var out []Finding
	for _, owner := range owners {
		c := Client{Role: rights.LoginPrefix + "…", Database: database, Address: s.Self.Address, TLS: s.Self.TLS}
		hba := *s.HBA
		hba.Members = map[string]map[string]bool{c.Role: {c.Role: true, owner: true}}
		if f.Old.ok() && f.Old.HBA != nil {
			maps.Copy(hba.Members[c.Role], f.Old.HBA.Members[owner])
		}
		rule, ok, why := hba.Lets(c.caller(c.TLS))
		if !ok {
			if rule, lets, _ := hba.Widest().Lets(c.caller(c.TLS)); lets && asksPassword(rule) {
				continue // it cannot be told from here; prepare says so if not
			}
		} else if !asksPassword(rule) {
			ok, why = false, fmt.Sprintf("%s asks for something other than a password", rule)
		}
		if ok {
			continue
		}
		line := fmt.Sprintf("local %s %s scram-sha-256", hbaName(database), "+"+hbaName(owner))
		if c.Address != "" {
			bits := "/32"
			if strings.Contains(c.Address, ":") {
				bits = "/128"
			}
			line = fmt.Sprintf("host %s %s %s%s scram-sha-256", hbaName(database), "+"+hbaName(owner), c.Address, bits)
		}
		out = append(out, Finding{
			Level: Block, On: s.Side, Database: database, Object: owner,
			Says: fmt.Sprintf("tables or domains of role %s call functions of ordinary roles: while %s they run in sessions of roles that are members of %s and nothing else (%s…), and these would be refused: %s",
				owner, when, owner, rights.LoginPrefix, why),
			Fix: lines("put into pg_hba.conf of "+s.Side+", before what refuses it: "+line, "SELECT pg_reload_conf();",
				"or accept it: then the functions run with all rights of the tool, a superuser"),
		})
	}
	return out
}

func asksPassword(r pg.HBARule) bool {
	return slices.Contains([]string{"trust", "password", "md5", "scram-sha-256"}, r.Method)
}
