package check

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"crossfade/schema"
	"crossfade/upgrade/pg"
)

var standbyChecks = []Check{
	{ID: "standby-unreachable", Title: "The standbys of old answer", Levels: onlyWarn, Acceptable: true, Judge: judgeStandbyUnreachable},
	{ID: "standby-role", Title: "What the runbook calls a standby is one", Levels: onlyBlock, Judge: judgeStandbyRole},
	{ID: "standby-other-cluster", Title: "Each standby belongs to its cluster", Levels: onlyBlock, Judge: judgeStandbyCluster},
	{ID: "standby-misnamed", Title: "Each standby calls itself by its name", Levels: onlyWarn, Acceptable: true, Judge: judgeStandbyName},
	{ID: "standby-unnamed", Title: "Each standby gives itself a name", Levels: onlyWarn, Acceptable: true, Judge: judgeUnnamed},
	{ID: "standby-duplicate", Title: "No two standbys call themselves the same", Levels: onlyWarn, Acceptable: true, Judge: judgeDuplicate},
	{ID: "standby-unknown", Title: "The runbook knows every standby of old", Levels: onlyNote, Acceptable: true, Judge: judgeStandbyUnknown},
	{ID: "standby-taken", Title: "What `build: after` takes from old is known, and what a rollback is without", Levels: []Level{Warn, Note}, Acceptable: true, Judge: judgeTaken},
	{ID: "standby-taken-place", Title: "Old's standby that `build: after` stops is where the runbook says, and nothing of old waits for it", Levels: onlyBlock, Judge: judgeTakenPlace},
	{ID: "sync-names-any", Title: "synchronous_standby_names is no *", Levels: onlyBlock, Judge: judgeSyncAny},
	{ID: "sync-names-nobody", Title: "synchronous_standby_names names who streams", Levels: onlyWarn, Acceptable: true, Judge: judgeSyncNobody},
	{ID: "sync-fragile", Title: "Commits on old survive the loss of one synchronous standby", Levels: onlyNote, Acceptable: true, Judge: judgeSyncFragile},
}

func judgeStandbyUnreachable(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.Standbys {
		if s.Side == OnOld && s.Facts.Err != nil {
			out = append(out, Finding{
				Level: Warn, On: s.Name, Object: s.Name,
				Says: fmt.Sprintf("it could not be asked: %v. The cutover's gate waits for what old's standbys must keep", s.Facts.Err),
				Fix:  "bring it back, or take it out of old.standbys in the runbook",
			})
		}
	}
	return out
}

func judgeStandbyRole(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.Standbys {
		if !s.Facts.ok() || s.Facts.InRecovery {
			continue
		}
		says := fmt.Sprintf("%s is a primary (pg_is_in_recovery() is false), and the runbook has it as a standby of old", s.Facts.Name)
		if s.Side == OnNew {
			says = fmt.Sprintf("a primary runs where standby %s is to be built (%s); crossfade stops nothing that it does not know", s.Name, s.Facts.Name)
		}
		out = append(out, Finding{Level: Block, On: s.Name, Object: s.Name, Says: says, Fix: "correct its conninfo in the runbook, or stop that server yourself if it is not needed"})
	}
	return out
}

// judgeStandbyCluster: a standby to be built may still be one of old, whose
// place it takes; anything else there is a stranger.
func judgeStandbyCluster(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.Standbys {
		if !s.Facts.ok() || !s.Facts.InRecovery || s.Facts.SystemID == "" {
			continue
		}
		belongs := f.Old.ok() && s.Facts.SystemID == f.Old.SystemID || s.Side == OnNew && f.New.ok() && s.Facts.SystemID == f.New.SystemID
		if known := f.Old.ok() && (s.Side == OnOld || f.New.ok()); !known || belongs {
			continue
		}
		out = append(out, Finding{
			Level: Block, On: s.Name, Object: s.Name,
			Says: fmt.Sprintf("%s is a standby of another cluster (system identifier %s)", s.Facts.Name, s.Facts.SystemID),
			Fix:  "correct its conninfo in the runbook, or stop that server yourself if it is not needed",
		})
	}
	return out
}

// judgeStandbyName: synchronous_standby_names matches what a standby calls
// itself, not its host.
func judgeStandbyName(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.Standbys {
		if s.Side != OnOld || !s.Facts.ok() || s.AppName == "" || strings.EqualFold(s.AppName, s.Name) {
			continue
		}
		says := fmt.Sprintf("standby %s calls itself %s (application_name of its primary_conninfo, else its cluster_name, else walreceiver): a synchronous_standby_names that names %s does not mean it, and one that names %s waits for it",
			s.Name, s.AppName, s.Name, s.AppName)
		if f.Old.ok() {
			if sync := parseSync(f.Old.setting("synchronous_standby_names")); sync.names(s.AppName) || sync.names(s.Name) {
				says += fmt.Sprintf(". It is %s now", f.Old.setting("synchronous_standby_names"))
			}
		}
		out = append(out, Finding{
			Level: Warn, On: s.Name, Object: s.AppName, Says: says, Table: f.names(),
			Fix: lines(rename(s), "the new standby is built with its own name"),
		})
	}
	return out
}

// names are the standbys of the runbook beside what they call themselves.
func (f *Facts) names() *Table {
	t := &Table{Columns: []string{"standby", "calls itself", "receives from", "state", "sync_state"}}
	for _, s := range f.Standbys {
		if s.Side != OnOld || !s.Facts.ok() || s.AppName == "" {
			continue
		}
		row := []string{s.Name, s.AppName, "?", "?", "?"}
		for _, at := range f.receivers() {
			i := slices.IndexFunc(at.senders, func(w Sender) bool { return w.Application == s.AppName })
			if at.port == s.From && i >= 0 {
				row[2], row[3], row[4] = at.name, at.senders[i].State, at.senders[i].SyncState
			}
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// rename is how a standby is given its name: as SQL for it where its
// primary_conninfo is a setting that a reload changes (13 and later) and holds
// no password.
func rename(s StandbyFacts) string {
	conninfo := s.Facts.setting("primary_conninfo")
	if s.Facts.Major() < 13 || conninfo == "" || strings.Contains(conninfo, "password=") || strings.Contains(conninfo, "://") {
		return fmt.Sprintf("put application_name=%s into primary_conninfo on %s, then SELECT pg_reload_conf() there (before 13: restart it)", s.Name, s.Name)
	}
	var words []string
	for _, kv := range append(connPairs(conninfo), [2]string{"application_name", s.Name}) {
		if kv[0] != "application_name" || kv[1] == s.Name {
			v := kv[1]
			if v == "" || strings.ContainsAny(v, ` '\`) {
				v = "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "'"
			}
			words = append(words, kv[0]+"="+v)
		}
	}
	return lines(fmt.Sprintf("ALTER SYSTEM SET primary_conninfo = %s;", strings.TrimSpace(pg.Literal(strings.Join(words, " ")))), "SELECT pg_reload_conf();")
}

// upstream is a server of old that sends WAL.
type upstream struct {
	name    string
	on      string // Finding.On
	port    int
	senders []Sender
}

// receivers are who receives WAL in the old cluster, by who sends it: the
// primary, and standbys of the runbook that others follow.
func (f *Facts) receivers() []upstream {
	var out []upstream
	if f.Old.ok() && !f.Old.InRecovery {
		out = append(out, upstream{"the primary", OnOld, int(f.Old.number("port")), f.Old.standbys()})
	}
	for _, s := range f.Standbys {
		if s.Side == OnOld && s.Facts.ok() && s.Facts.InRecovery {
			out = append(out, upstream{s.Name, s.Name, int(s.Facts.number("port")), s.Facts.standbys()})
		}
	}
	return out
}

// unnamed is what PostgreSQL calls a standby that has neither an
// application_name nor a cluster_name.
const unnamed = "walreceiver"

// judgeUnnamed: pg_basebackup -R writes no application_name unless it is given
// one.
func judgeUnnamed(f *Facts) []Finding {
	var out []Finding
	for _, at := range f.receivers() {
		for _, w := range at.senders {
			told := slices.ContainsFunc(f.Standbys, func(s StandbyFacts) bool { return s.Side == OnOld && s.AppName == unnamed })
			if w.Application != unnamed || told {
				continue // standby-misnamed tells whose it is
			}
			out = append(out, Finding{
				Level: Warn, On: at.on, Object: orSocket(w.Address),
				Says: fmt.Sprintf("a standby that receives WAL from %s (from %s) has no application_name and no cluster_name: it calls itself walreceiver, synchronous_standby_names cannot name it, and status cannot distinguish it from others",
					at.name, orSocket(w.Address)),
				Fix: "put application_name=<its name> into primary_conninfo of that standby, then SELECT pg_reload_conf() there (before 13: restart it)",
			})
		}
	}
	return out
}

// judgeDuplicate: two of one name count as two where a quorum means one.
func judgeDuplicate(f *Facts) []Finding {
	var out []Finding
	where := map[string][]string{}
	var order []string
	for _, at := range f.receivers() {
		for _, w := range at.senders {
			name := strings.ToLower(w.Application)
			if w.Application == unnamed {
				continue
			}
			if where[name] == nil {
				order = append(order, name)
			}
			where[name] = append(where[name], at.name+" from "+orSocket(w.Address))
		}
	}
	for _, name := range order {
		if len(where[name]) < 2 {
			continue
		}
		out = append(out, Finding{
			Level: Warn, On: OnOld, Object: name,
			Says: fmt.Sprintf("%d standbys call themselves %s (%s): a synchronous_standby_names that names it is content with either, and what status says of one may be the other's",
				len(where[name]), name, strings.Join(where[name], "; ")),
			Fix: "give each its own application_name in primary_conninfo, then SELECT pg_reload_conf() there (before 13: restart it)",
		})
	}
	return out
}

func judgeStandbyUnknown(f *Facts) []Finding {
	var out []Finding
	for _, at := range f.receivers() {
		for _, w := range at.senders {
			known := slices.ContainsFunc(f.Want.OldStandbys, func(s Standby) bool { return strings.EqualFold(s.Name, w.Application) }) ||
				slices.ContainsFunc(f.Standbys, func(s StandbyFacts) bool {
					return s.Side == OnOld && s.AppName != "" && strings.EqualFold(s.AppName, w.Application)
				})
			if known {
				continue
			}
			out = append(out, Finding{
				Level: Note, On: at.on, Object: w.Application,
				Says: fmt.Sprintf("%s receives WAL from %s (from %s, %s), and the runbook does not name it under old.standbys: it is not rebuilt, and its failover is not watched",
					schema.Name(w.Application), at.name, orSocket(w.Address), w.State),
				Fix: "name it under old.standbys, and under standbys of new if it is to follow the new cluster",
			})
		}
	}
	return out
}

func orSocket(address string) string {
	if address == "" {
		return "a local socket"
	}
	return address
}

// sync is synchronous_standby_names, taken apart.
type syncNames struct {
	Count int // how many must confirm; 0 is none
	Any   bool
	Names []string // * is among them as it is
}

// parseSync reads the grammar of syncrep_gram.y, for what the server has
// accepted: [FIRST|ANY] n (list), or a list.
func parseSync(s string) syncNames {
	tokens := syncTokens(s)
	if len(tokens) == 0 {
		return syncNames{}
	}
	out := syncNames{Count: 1}
	if first := strings.ToUpper(tokens[0]); len(tokens) > 1 && (first == "FIRST" || first == "ANY") {
		if _, err := strconv.Atoi(tokens[1]); err == nil {
			out.Any = first == "ANY"
			tokens = tokens[1:]
		}
	}
	if n, err := strconv.Atoi(tokens[0]); err == nil && len(tokens) > 1 && tokens[1] == "(" {
		out.Count, tokens = n, tokens[1:]
	}
	for _, t := range tokens {
		if t != "(" && t != ")" && t != "," {
			out.Names = append(out.Names, strings.TrimPrefix(t, `"`))
		}
	}
	return out
}

// without is the setting with some names taken out; "" where none are left.
func (s syncNames) without(names []string) string {
	var left []string
	for _, n := range s.Names {
		if !slices.Contains(names, n) {
			left = append(left, quoteSync(n))
		}
	}
	if len(left) == 0 {
		return ""
	}
	how := "FIRST"
	if s.Any {
		how = "ANY"
	}
	return fmt.Sprintf("%s %d (%s)", how, min(s.Count, len(left)), strings.Join(left, ", "))
}

// syncTokens splits into words, quoted names (marked by a leading quote) and
// punctuation.
func syncTokens(s string) []string {
	var tokens []string
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
		case strings.IndexByte("(),", c) >= 0:
			tokens = append(tokens, string(c))
			i++
		case c == '"':
			var b strings.Builder
			b.WriteByte('"')
			for i++; i < len(s); i++ {
				if s[i] == '"' && i+1 < len(s) && s[i+1] == '"' {
					i++
				} else if s[i] == '"' {
					break
				}
				b.WriteByte(s[i])
			}
			tokens = append(tokens, b.String())
			i++
		default:
			j := i
			for j < len(s) && strings.IndexByte(" \t\n\r(),\"", s[j]) < 0 {
				j++
			}
			tokens = append(tokens, s[i:j])
			i = j
		}
	}
	return tokens
}

// names says whether a standby of that application_name is meant.
func (s syncNames) names(app string) bool {
	return slices.ContainsFunc(s.Names, func(n string) bool { return n == "*" || strings.EqualFold(n, app) })
}

// judgeSyncAny: * matches logical walsenders too (pitfall 75).
func judgeSyncAny(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.sending() {
		names := s.setting("synchronous_standby_names")
		if !slices.Contains(parseSync(names).Names, "*") {
			continue
		}
		var apps []string
		for _, w := range s.standbys() {
			apps = append(apps, quoteSync(w.Application))
		}
		slices.Sort(apps)
		// Where nobody streams, every commit that asks for a standby waits already.
		list := ""
		if len(apps) > 0 {
			list = "FIRST 1 (" + strings.Join(slices.Compact(apps), ", ") + ")"
		}
		out = append(out, Finding{
			Level: Block, On: s.Side, Object: "synchronous_standby_names",
			Says: fmt.Sprintf("synchronous_standby_names is %s, and * matches subscriptions too: one of this upgrade would become the synchronous standby, and commits of the application would wait for the other cluster", names),
			Fix:  lines("ALTER SYSTEM SET synchronous_standby_names = "+strings.TrimSpace(pg.Literal(list))+";", "SELECT pg_reload_conf();"),
		})
	}
	return out
}

func quoteSync(app string) string {
	if app == schema.Name(app) && app != "first" && app != "any" {
		return app
	}
	return `"` + strings.ReplaceAll(app, `"`, `""`) + `"`
}

func judgeSyncNobody(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.sides() {
		if s.InRecovery {
			continue
		}
		sync := parseSync(s.setting("synchronous_standby_names"))
		if sync.Count == 0 || slices.Contains(sync.Names, "*") {
			continue
		}
		streaming := 0
		for _, w := range s.standbys() {
			if sync.names(w.Application) && w.State == "streaming" {
				streaming++
			}
		}
		var missing []string
		for _, n := range sync.Names {
			if !slices.ContainsFunc(s.standbys(), func(w Sender) bool { return strings.EqualFold(w.Application, n) }) {
				missing = append(missing, n)
			}
		}
		if len(missing) == 0 {
			continue
		}
		says := fmt.Sprintf("synchronous_standby_names names %s, which nobody who receives WAL calls itself", strings.Join(missing, ", "))
		if streaming < sync.Count {
			says += fmt.Sprintf("; %d must confirm and %d stream: commits with synchronous_commit = on wait for ever now", sync.Count, streaming)
		}
		out = append(out, Finding{
			Level: Warn, On: s.Side, Object: "synchronous_standby_names", Says: says,
			Fix: lines("set application_name in primary_conninfo of the standbys that are meant; or, if there are none, take the names out:",
				"ALTER SYSTEM SET synchronous_standby_names = "+strings.TrimSpace(pg.Literal(sync.without(missing)))+";", "SELECT pg_reload_conf();"),
		})
	}
	return out
}

// judgeSyncFragile: with as many synchronous standbys as are demanded, losing
// one stops every commit, the cutover's clients' included.
func judgeSyncFragile(f *Facts) []Finding {
	if !f.Old.ok() || f.Old.InRecovery {
		return nil
	}
	sync := parseSync(f.Old.setting("synchronous_standby_names"))
	if sync.Count == 0 || slices.Contains(sync.Names, "*") {
		return nil
	}
	var streaming []string
	for _, w := range f.Old.standbys() {
		if sync.names(w.Application) && w.State == "streaming" {
			streaming = append(streaming, w.Application)
		}
	}
	if len(streaming) != sync.Count {
		return nil // fewer is judgeSyncNobody's
	}
	return []Finding{{
		Level: Note, On: OnOld, Object: "synchronous_standby_names",
		Says: fmt.Sprintf("%d synchronous standbys must confirm and exactly that many stream (%s): if one of them goes, commits on old wait", sync.Count, strings.Join(streaming, ", ")),
		Fix:  "have one more standby in the list, or rehearse without it: ALTER SYSTEM SET synchronous_standby_names = '' and reload",
	}}
}

// receiverName is what a walreceiver of that conninfo calls itself. The
// conninfo is as pg_stat_wal_receiver shows it: key=value, values quoted where
// needed, passwords hidden.
func receiverName(conninfo, cluster string) string {
	app, fallback := "", ""
	for _, kv := range connPairs(conninfo) {
		switch kv[0] {
		case "application_name":
			app = kv[1]
		case "fallback_application_name":
			fallback = kv[1]
		}
	}
	switch {
	case app != "":
		return app
	case fallback != "":
		return fallback
	case cluster != "":
		return cluster
	}
	return "walreceiver"
}

// connPairs splits what libpq's PQconninfo shows.
func connPairs(s string) [][2]string {
	var out [][2]string
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		key, rest, ok := strings.Cut(s, "=")
		if !ok {
			break
		}
		var b strings.Builder
		quoted := strings.HasPrefix(rest, "'")
		i := 0
		if quoted {
			i = 1
		}
		for ; i < len(rest); i++ {
			c := rest[i]
			if c == '\\' && i+1 < len(rest) {
				i++
				b.WriteByte(rest[i])
				continue
			}
			if quoted && c == '\'' || !quoted && c == ' ' {
				i++
				break
			}
			b.WriteByte(c)
		}
		out = append(out, [2]string{strings.TrimSpace(key), b.String()})
		s = rest[i:]
	}
	return out
}
