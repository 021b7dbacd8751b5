package check

import (
	"fmt"

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
			Says: fmt.Sprintf("%s could not be read, so that the checks that need it say nothing: %v", i.What, i.Err), Fix: whyNot(i.Err),
		})
	}
	for _, d := range f.Databases {
		if d.Err != nil {
			out = append(out, Finding{
				Level: Block, On: OnOld, Database: d.Name, Object: d.Name,
				Says: fmt.Sprintf("database %s could not be read, so that nothing is known of what it holds: %v", d.Name, d.Err), Fix: whyNot(d.Err),
			})
		}
	}
	return out
}

func whyNot(err error) string {
	switch pg.SQLState(err) {
	case insufficientPrivilege:
		return "run crossfade as a superuser of that server"
	case "57014": // query_canceled: statement_timeout
		return "check again when the server is less busy"
	case "55P03": // lock_not_available
		return "check again when whoever holds that lock exclusively is done"
	}
	return "check again; if it stays, it is worth a bug report"
}
