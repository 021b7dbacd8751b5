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

// FunctionRights is the id of the check that functions of ordinary roles run with no
// more rights than they have.
const FunctionRights = "function-rights"

// OwnerLogin is the id of the check that the tool may log in with the rights of
// owners of tables.
const OwnerLogin = "owner-login"

var functionChecks = []Check{
	{ID: FunctionRights, Title: "Functions of ordinary roles run with no more rights than they have", Levels: onlyBlock, Acceptable: true, Judge: judgeFunctions},
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

// The apply workers of these majors look for an index by which to find the rows of a
// table with REPLICA IDENTITY FULL before they switch to the table's owner: its
// expressions and predicates are simplified with the rights of the subscription's.
// That was seen on 17, and not on 18; 16 is taken to be as 17.
const (
	firstLooksFirst = 16
	lastLooksFirst  = 17
)

// judgeFunctions names what PostgreSQL itself would run with more rights.
func judgeFunctions(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		all := Running{d.Name, d.code()}
		var sides []*Server
		if f.New.ok() {
			sides = append(sides, f.New)
		}
		if f.Old.ok() && f.Want.Back {
			sides = append(sides, f.Old)
		}
		for _, s := range sides {
			out = append(out, all.applied(s.Side, s.Major())...)
		}
		out = append(out, all.made(OnOld, f.New.ok() && f.New.Major() < rights.FirstNotValid, f.firesForTool())...)
	}
	return out
}

// Running is what of one database runs functions of ordinary roles.
type Running struct {
	Database string
	Map      *rights.Map
}

// Taken are the findings (function-rights, which are acceptable) about a side of a
// major, to, that applies, and makes what was made on the other one, from, since a
// cutover or a rollback.
func (r Running) Taken(from, to string, major int, accepts func(id, object string) bool) []Finding {
	all := append(r.applied(to, major), r.made(from, major < rights.FirstNotValid, false)...)
	for i := range all {
		all[i].ID, all[i].Acceptable = FunctionRights, true
		all[i].Accepted = accepts(FunctionRights, all[i].Object)
	}
	return all
}

// applied names what runs on a side where rows are applied.
func (r Running) applied(side string, major int) []Finding {
	back, when := side == OnOld, "while it follows"
	if back {
		when = "on the way back"
	}
	switch {
	case major <= rights.LastAsOwner:
		return r.functions(side, pickCode(r.Map, rights.Code.OnApply),
			fmt.Sprintf("PostgreSQL %d applies rows as the owner of the subscription, a superuser: %s, these functions of ordinary roles run with all rights, and may give their owners any", major, when),
			waysOut(back))
	case major >= firstLooksFirst && major <= lastLooksFirst:
		return r.functions(side, pickCode(r.Map, func(c rights.Code) bool {
			return !c.OwnerSuper && c.Folds && c.Unidentified && !c.Materialized && (c.Kind == rights.Index || c.Kind == rights.Exclusion)
		}), fmt.Sprintf("tables without a primary key or another index as their replica identity have indexes that call functions of ordinary roles with constants alone, or in SQL: %s, PostgreSQL %d runs these to find the rows of an UPDATE or DELETE, as the owner of the subscription, a superuser", when, major),
			lines("give the tables a primary key, or a unique index as their replica identity", waysOut(back)))
	}
	return nil
}

// made names what runs where rows are copied and the schema is made, from the side
// that serves. foreign: foreign keys of partitioned tables are validated as soon as
// they are made. fires: event triggers fire for the tool.
func (r Running) made(side string, foreign, fires bool) []Finding {
	super := pickCode(r.Map, func(c rights.Code) bool { return c.OwnerSuper && c.Kind != rights.EventTrigger })
	for _, d := range r.Map.Domains {
		if d.OwnerSuper {
			super = append(super, rights.Code{
				Kind: rights.OfDomain, Schema: d.Schema, Table: d.Name, Owner: d.Owner, OwnerSuper: true,
				What: "constraint " + d.Constraint + " of the domain", Function: d.Function, FunctionOwner: d.FunctionOwner,
			})
		}
	}
	return slices.Concat(
		r.functions(side, super,
			"tables, materialized views or domains of superusers call functions of ordinary roles, which run with the rights of that owner, all rights, where rows are copied, applied, indexed, validated and refreshed", waysOut(false)),
		r.functions(side, pickCode(r.Map, func(c rights.Code) bool { return !c.OwnerSuper && c.Kind == rights.Partition && c.Folds }),
			"keys of partitioned tables call functions of ordinary roles with constants alone, or in SQL: PostgreSQL runs them as soon as a partition is attached, with the rights of the tool", waysOut(false)),
		r.functions(side, pickCode(r.Map, func(c rights.Code) bool {
			return foreign && !c.OwnerSuper && c.Kind == rights.ForeignKey && c.Partitioned
		}),
			fmt.Sprintf("foreign keys of partitioned tables compare by casts, or over indexes, that call functions of ordinary roles: before %d PostgreSQL validates them as soon as they are made, with the rights of the tool", rights.FirstNotValid), waysOut(false)),
		r.functions(side, pickCode(r.Map, func(c rights.Code) bool { return c.Kind == rights.Literal }),
			"checks of domains call functions of ordinary roles, and run while the schema is restored, with the rights of the tool, because expressions hold values of arrays, rows or ranges over these domains or partitions are bounded by them", waysOut(false)),
		r.functions(side, pickCode(r.Map, func(c rights.Code) bool { return c.Kind == rights.EventTrigger && fires }),
			"event triggers that are enabled ALWAYS or REPLICA call functions of ordinary roles, and fire for what the tool does", waysOut(false)))
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

// functions is one finding about code; none where there is no code.
func (r Running) functions(on string, code []rights.Code, says, fix string) []Finding {
	if len(code) == 0 {
		return nil
	}
	t := &Table{Columns: []string{"function", "its owner", "called by", "of table", "the table's owner"}}
	names := map[string]bool{}
	for _, c := range code {
		t.Rows = append(t.Rows, []string{c.Function, c.FunctionOwner, c.What, tableName(c), c.Owner})
		names[c.Function] = true
	}
	return []Finding{{
		Level: Block, On: on, Database: r.Database, Object: r.Database, Fix: fix, Table: t,
		Says: says + ": " + some(slices.Sorted(maps.Keys(names)), "function", "functions"),
	}}
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
