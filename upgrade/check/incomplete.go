package check

import (
	"fmt"
	"strings"

	"crossfade/upgrade/pg"
)

var incompleteChecks = []Check{
	{ID: "check-incomplete", Title: "Every check could look", Levels: blockWarn, Acceptable: true, Judge: judgeIncomplete},
}

func judgeIncomplete(f *Facts) []Finding {
	var out []Finding
	for _, i := range f.Incomplete {
		level := Warn
		if i.Serious {
			level = Block
		}
		out = append(out, Finding{
			Level: level, On: i.On, Database: i.Database, Object: i.What,
			Says: fmt.Sprintf("%s could not be read, so that the checks that need it say nothing: %v", i.What, i.Err), Fix: f.readable(i),
		}.among("%s could not be read, so that the checks that need them say nothing", "thing", []string{"because"}, i.Err.Error()))
	}
	for _, d := range f.Databases {
		if d.Err != nil {
			out = append(out, Finding{
				Level: Block, On: OnOld, Database: d.Name, Object: d.Name,
				Says: fmt.Sprintf("database %s could not be read, so that nothing is known of what it holds: %v", d.Name, d.Err),
				Fix:  f.readable(Incomplete{On: OnOld, Database: d.Name, Err: d.Err}),
			})
		}
	}
	return out
}

// readable is what to do so that it can be read the next time.
func (f *Facts) readable(i Incomplete) string {
	switch pg.SQLState(i.Err) {
	case insufficientPrivilege:
		s := f.Old
		if i.On == OnNew {
			s = f.New
		}
		if !s.ok() || i.On != OnOld && i.On != OnNew {
			return "run crossfade as a superuser of that server"
		}
		role := pg.Ident(s.Role.Name)
		if i.Grants == nil {
			return lines("ALTER ROLE "+role+" SUPERUSER;", "or let crossfade log in there as a superuser")
		}
		or := "or let crossfade log in there as a superuser"
		if i.Database == "" { // rights on what is in pg_catalog are those of one database
			or = "in the database that the runbook's conninfo names; " + or
		}
		return lines(strings.ReplaceAll(strings.Join(i.Grants, "\n"), "$role", role), or)
	case "57014": // query_canceled: statement_timeout
		return "check again when the server is less busy"
	case "55P03": // lock_not_available
		return "check again when the session that holds that lock exclusively is done"
	}
	return "check again; if it stays, it is worth a bug report"
}
