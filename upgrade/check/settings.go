package check

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
)

var settingChecks = []Check{
	{ID: "setting-removed", Title: "New knows every setting of old's roles, databases and functions", Levels: onlyBlock, Judge: judgeRoleSettingsRemoved},
	{ID: "settings-renamed", Title: "Settings of old's configuration mean the same on new", Levels: onlyNote, Acceptable: true, Judge: judgeConfigChanged},
	{ID: "settings-defaults", Title: "Defaults that nobody set are the same", Levels: onlyNote, Acceptable: true, Judge: judgeDefaults},
	{ID: "settings-differ", Title: "New is configured as old", Levels: onlyNote, Acceptable: true, Judge: judgeConfigDiffers},
	{ID: "settings-results", Title: "Settings that can change query results are the same", Levels: onlyWarn, Acceptable: true, Judge: judgeResults},
	{ID: "snapshot-too-old", Title: "Old lets a snapshot grow as old as the copy takes", Levels: onlyBlock, Judge: judgeTooOld},
	{ID: "read-only-override", Title: "Nobody overrides default_transaction_read_only", Levels: onlyWarn, Acceptable: true, Judge: judgeReadOnly},
	{ID: "timeouts", Title: "Timeouts of roles and databases are known", Levels: warnNote, Acceptable: true, Judge: judgeTimeouts},
	{ID: "max-prepared-transactions", Title: "New takes as many prepared transactions as old", Levels: onlyWarn, Acceptable: true, Judge: judgeMaxPrepared},
}

// custom says whether a setting belongs to an extension or the application:
// such a name may be set before anybody knows it.
func custom(name string) bool { return strings.Contains(name, ".") }

// judgeRoleSettingsRemoved: what new does not know, or takes no such value for,
// cannot be set there for a role, a database or a function.
func judgeRoleSettingsRemoved(f *Facts) []Finding {
	if !f.both() || len(f.New.Settings) == 0 {
		return nil
	}
	var out []Finding
	for _, s := range f.Old.RoleSettings {
		if custom(s.Name) || schema.Unlisted(s.Name) || s.Database != "" && !f.moved(s.Database) {
			continue
		}
		why := ""
		if n, ok := lookup(f.New, s.Name); !ok {
			why = fmt.Sprintf("which PostgreSQL %s does not know: it cannot be set on new%s", f.New.release(), instead(s.Name))
		} else if r := n.refuses(s.Value); r != "" {
			why = fmt.Sprintf("which PostgreSQL %s refuses (%s): it cannot be set on new", f.New.release(), r)
		}
		if why == "" {
			continue
		}
		out = append(out, Finding{
			Level: Block, On: OnOld, Database: s.Database, Object: s.Name,
			Says: fmt.Sprintf("%s has %s = %s, %s", s, s.Name, s.Value, why),
			Fix:  s.alter() + " RESET " + s.Name + ";",
		})
	}
	for _, d := range f.Databases {
		for _, t := range d.things("function-setting") {
			if _, ok := lookup(f.New, t.Detail); ok || custom(t.Detail) || schema.Unlisted(t.Detail) {
				continue
			}
			out = append(out, Finding{
				Level: Block, On: OnOld, Database: d.Name, Object: t.Name,
				Says: fmt.Sprintf("function %s brings %s = %s along, which PostgreSQL %s does not know: it cannot be made on new%s", t.Name, t.Detail, t.More, f.New.release(), instead(t.Detail)),
				Fix:  "ALTER FUNCTION " + t.Name + " RESET " + t.Detail + ";",
			})
		}
	}
	return out
}

// lookup finds a setting. Names are compared without case, as PostgreSQL does.
func lookup(s *Server, name string) (Setting, bool) {
	for _, n := range []string{name, strings.ToLower(name)} {
		if x, ok := s.Settings[n]; ok {
			return x, true
		}
	}
	for n, x := range s.Settings {
		if strings.EqualFold(n, name) {
			return x, true
		}
	}
	return Setting{}, false
}

// refuses says why a server does not take a value; "" where it takes it, or
// where that cannot be told: values with units are not taken apart.
func (s Setting) refuses(value string) string {
	switch s.Type {
	case "enum":
		plain := []string{"on", "off", "true", "false", "yes", "no", "1", "0"} // aliases that no list shows
		if len(s.Enum) > 0 && !slices.ContainsFunc(append(plain, s.Enum...), func(e string) bool { return strings.EqualFold(e, value) }) {
			return "it is one of " + strings.Join(s.Enum, ", ")
		}
	case "integer", "real":
		v, err := strconv.ParseFloat(value, 64)
		if octal, oerr := strconv.ParseInt(value, 0, 64); oerr == nil { // modes of files are shown so
			v = float64(octal)
		}
		least, err1 := strconv.ParseFloat(s.Min, 64)
		most, err2 := strconv.ParseFloat(s.Max, 64)
		if err == nil && err1 == nil && err2 == nil && (v < least || v > most) {
			return fmt.Sprintf("it is %s to %s", s.Min, s.Max)
		}
	}
	return ""
}

// configured says whether somebody set it, rather than the program.
func (s Setting) configured() bool {
	return s.Source == "configuration file" || s.Source == "command line" || s.Source == "environment variable"
}

// sizeUnits are units of pg_settings that are sizes, in kB.
var sizeUnits = map[string]int64{"B": 0, "kB": 1, "8kB": 8, "MB": 1 << 10, "16MB": 16 << 10}

// text is the value as SHOW writes it, good for postgresql.conf.
func (s Setting) text() string {
	kB, isSize := sizeUnits[s.Unit]
	n, err := strconv.ParseInt(s.Value, 10, 64)
	if s.Unit == "" || err != nil || n <= 0 {
		return s.Value
	}
	if !isSize || kB == 0 {
		return s.Value + s.Unit
	}
	n *= kB
	unit := "kB"
	for _, u := range []string{"MB", "GB", "TB"} {
		if n%1024 != 0 {
			break
		}
		n, unit = n/1024, u
	}
	return fmt.Sprintf("%d%s", n, unit)
}

// line is the line of postgresql.conf that sets it.
func line(name, value string) string {
	return name + " = " + "'" + strings.ReplaceAll(value, "'", "''") + "'"
}

// changed is what a major between old and new did to a setting of old.
func (f *Facts) changed(name string) (change, bool) {
	c, ok := changes[name]
	return c, ok && f.Old.Major() < c.at && c.at <= f.New.Major() && (c.when == nil || c.when(f.Old.Settings[name], f.New))
}

// otherwise says whether new takes a setting of old otherwise, or not at all.
func (f *Facts) otherwise(name string) bool {
	s, n := f.Old.Settings[name], f.New.Settings[name]
	if _, ok := f.changed(name); ok || !f.New.has(name) {
		return true
	}
	return s.Unit == n.Unit && n.refuses(s.Value) != ""
}

// judgeConfigChanged lists the settings of old's configuration that mean
// something else on new, or nothing.
func judgeConfigChanged(f *Facts) []Finding {
	if !f.both() || len(f.New.Settings) == 0 {
		return nil
	}
	t := &Table{Columns: []string{"setting", "on old", "on new", "line for new"}}
	dead := false
	for _, name := range slices.Sorted(maps.Keys(f.Old.Settings)) {
		s := f.Old.Settings[name]
		if !s.configured() || custom(name) || s.Context == "internal" {
			continue
		}
		if !f.otherwise(name) {
			continue
		}
		n, there := f.New.Settings[name]
		what, to := "not known", ""
		if c, ok := f.changed(name); ok {
			what = fmt.Sprintf("%s (%d)", c.says, c.at)
			if c.line != nil {
				to = c.line(s)
			}
		} else if there {
			what = "refused: " + n.refuses(s.Value)
		}
		dead = dead || !there
		if to == "" {
			to = "none"
		}
		t.Rows = append(t.Rows, []string{name, s.text(), what, to})
	}
	if len(t.Rows) == 0 {
		return nil
	}
	says := fmt.Sprintf("PostgreSQL %s takes %s of old's configuration otherwise, or not at all", f.New.release(), count(int64(len(t.Rows)), "setting"))
	if dead {
		says += ": a server with a line that it does not know does not start"
	}
	return []Finding{{
		Level: Note, On: OnOld, Object: "configuration", Says: says, Table: t,
		Fix: "write new's configuration with the lines of the last column; crossfade carries over the settings of roles, databases and functions, not those of the server",
	}}
}

// judgeDefaults lists what changes because nobody set it.
func judgeDefaults(f *Facts) []Finding {
	if !f.both() || len(f.New.Settings) == 0 {
		return nil
	}
	t := &Table{Columns: []string{"setting", "on old", "on new", "line for new, to stay as on old"}}
	for _, name := range defaults {
		s, ok := f.Old.Settings[name]
		n, there := f.New.Settings[name]
		if ok && there && !s.configured() && !n.configured() && s.text() != n.text() {
			t.Rows = append(t.Rows, []string{name, s.text(), n.text(), line(name, s.text())})
		}
	}
	if len(t.Rows) == 0 {
		return nil
	}
	return []Finding{{
		Level: Note, On: OnNew, Object: "defaults", Table: t,
		Says: fmt.Sprintf("PostgreSQL %s changes the default of %s that are not set here", f.New.release(), count(int64(len(t.Rows)), "setting")),
		Fix:  "decide for each: the new default is usually better, but plans, vacuum and logs change with it",
	}}
}

// placed are settings that are to differ, because they say where a server is,
// or have a check of their own.
var placed = []string{
	"port", "listen_addresses", "data_directory", "hba_file", "ident_file", "config_file", "external_pid_file", "unix_socket_directories",
	"cluster_name", "log_directory", "log_filename", "ssl_cert_file", "ssl_key_file", "ssl_ca_file", "stats_temp_directory",
	"primary_conninfo", "primary_slot_name", "archive_command", "archive_library", "restore_command", "synchronous_standby_names",
	"recovery_target_timeline", "shared_preload_libraries", "session_preload_libraries", "local_preload_libraries", "output_plugin_libraries",
	"max_connections", "wal_level", "ssl", "max_prepared_transactions", "max_slot_wal_keep_size", "default_transaction_read_only",
	"session_replication_role", "event_triggers", "lc_messages", "dynamic_library_path", "krb_server_keyfile", "archive_mode", "allow_alter_system",
	"wal_receiver_status_interval", "idle_replication_slot_timeout", "synchronized_standby_slots", "old_snapshot_threshold",
	"max_replication_slots", "max_wal_senders", "max_worker_processes", "max_logical_replication_workers", "max_active_replication_origins",
}

func judgeConfigDiffers(f *Facts) []Finding {
	if !f.both() || len(f.New.Settings) == 0 {
		return nil
	}
	t := &Table{Columns: []string{"setting", "on old", "on new", "line for new"}}
	for _, name := range slices.Sorted(maps.Keys(f.Old.Settings)) {
		s := f.Old.Settings[name]
		n, ok := f.New.Settings[name]
		if !s.configured() || !ok || s.text() == n.text() || slices.Contains(placed, name) || slices.Contains(results, name) || f.otherwise(name) {
			continue
		}
		on := n.text()
		if !n.configured() {
			on += " (default)"
		}
		t.Rows = append(t.Rows, []string{name, s.text(), on, line(name, s.text())})
	}
	if len(t.Rows) == 0 {
		return nil
	}
	return []Finding{{
		Level: Note, On: OnNew, Object: "configuration", Table: t,
		Says: fmt.Sprintf("new has another value for %s of old's configuration", count(int64(len(t.Rows)), "setting")),
		Fix:  "configure new as it is to serve; crossfade carries over the settings of roles and databases, not those of the server",
	}}
}

// results are settings that change what statements answer.
var results = []string{
	"TimeZone", "DateStyle", "IntervalStyle", "default_text_search_config", "search_path", "bytea_output", "extra_float_digits", "xmlbinary", "xmloption",
	"standard_conforming_strings", "backslash_quote", "array_nulls", "transform_null_equals", "lc_monetary", "lc_numeric", "lc_time",
	"default_transaction_isolation", "default_transaction_deferrable", "row_security", "timezone_abbreviations", "lo_compat_privileges",
}

// listed are settings that are lists of names, shown with the quotes that they need.
var listed = []string{"search_path", "temp_tablespaces"}

func judgeResults(f *Facts) []Finding {
	if !f.both() || len(f.New.Settings) == 0 {
		return nil
	}
	t := &Table{Columns: []string{"setting", "on old", "on new"}}
	var fix []string
	for _, name := range results {
		s, ok := f.Old.Settings[name]
		n, there := f.New.Settings[name]
		if !ok || !there || !s.configured() && !n.configured() || sameResult(s.Value, n.Value) {
			continue
		}
		t.Rows = append(t.Rows, []string{name, s.Value, n.Value})
		value := strings.TrimSpace(pg.Literal(s.Value))
		if slices.Contains(listed, name) {
			value = s.Value
		}
		fix = append(fix, fmt.Sprintf("ALTER SYSTEM SET %s = %s;", pg.Ident(name), value))
	}
	if len(t.Rows) == 0 {
		return nil
	}
	return []Finding{{
		Level: Warn, On: OnNew, Object: "configuration", Table: t,
		Says: fmt.Sprintf("new has another value for %s that can change query results: what the application reads and writes would change with the cutover", count(int64(len(t.Rows)), "setting")),
		Fix:  lines(append(fix, "SELECT pg_reload_conf();")...),
	}}
}

// sameResult takes the names of one locale, and of UTC, for the same.
func sameResult(a, b string) bool {
	utc := []string{"utc", "etc/utc", "gmt", "etc/gmt", "zulu", "universal", "etc/universal"}
	return sameLocale(a, b) || slices.Contains(utc, strings.ToLower(a)) && slices.Contains(utc, strings.ToLower(b))
}

// judgeTooOld: a snapshot that is older than old_snapshot_threshold (gone with
// 17) cannot read what was vacuumed since, and the copy's is as old as it takes.
func judgeTooOld(f *Facts) []Finding {
	if !f.Old.ok() {
		return nil
	}
	if s, ok := f.Old.Settings["old_snapshot_threshold"]; ok && s.Value != "-1" && s.Value != "" {
		return []Finding{{
			Level: Block, On: OnOld, Object: "old_snapshot_threshold",
			Says: fmt.Sprintf("old_snapshot_threshold is %s: the snapshot by which everything is copied would be too old after that, and the copy would fail", s.text()),
			Fix:  lines("ALTER SYSTEM SET old_snapshot_threshold = -1;", "restart the old server"),
		}}
	}
	return nil
}

// judgeReadOnly: a role's own setting wins over the database's, by which the
// closed side turns clients away.
func judgeReadOnly(f *Facts) []Finding {
	if !f.Old.ok() {
		return nil
	}
	var out []Finding
	for _, s := range f.Old.RoleSettings {
		if s.Name != "default_transaction_read_only" || s.Role == "" {
			continue
		}
		if s.Value == "off" || s.Value == "false" || s.Value == "0" || s.Value == "no" {
			out = append(out, Finding{
				Level: Warn, On: OnOld, Database: s.Database, Object: s.String(),
				Says: fmt.Sprintf("%s has default_transaction_read_only = %s, which wins over the database's setting that closes a cluster: its tables are fenced all the same, but sequences, large objects and DDL are not, and target_session_attrs takes a closed cluster for writable", s, s.Value),
				Fix:  s.alter() + " RESET default_transaction_read_only;",
			})
		}
	}
	return out
}

// shortReceiver is less than a walsender may be silent for.
const shortReceiver = 10 * time.Second

// timeoutNames end a session's work; the tool and its subscriptions turn them off for themselves.
var timeoutNames = []string{"statement_timeout", "idle_in_transaction_session_timeout", "transaction_timeout", "idle_session_timeout", "lock_timeout"}

func judgeTimeouts(f *Facts) []Finding {
	if !f.both() {
		return nil
	}
	roles := []string{"", f.Old.Role.Name}
	if f.Want.FromNew != nil {
		roles = append(roles, f.Want.FromNew.User())
	}
	var out []Finding
	for _, s := range f.Old.RoleSettings {
		if slices.Contains(timeoutNames, s.Name) && s.Value != "0" && slices.Contains(roles, s.Role) && (s.Database == "" || f.moved(s.Database)) {
			out = append(out, Finding{
				Level: Note, On: OnOld, Database: s.Database, Object: s.Name,
				Says: fmt.Sprintf("%s has %s = %s, which would end the copy; the tool's sessions and subscriptions turn it off for themselves, client programs started by hand do not", s, s.Name, s.Value),
			})
		}
	}
	for _, s := range f.applying() {
		if ms := s.number("wal_receiver_timeout"); ms > 0 && ms < shortReceiver.Milliseconds() {
			out = append(out, Finding{
				Level: Warn, On: s.Side, Object: "wal_receiver_timeout",
				Says: fmt.Sprintf("wal_receiver_timeout is %d ms: a subscription that hears nothing for that long, as while a big transaction is decoded, begins again", ms),
				Fix:  lines("ALTER SYSTEM SET wal_receiver_timeout = '60s';", "SELECT pg_reload_conf();"),
			})
		}
	}
	out = append(out, f.dropped(f.New, f.Old, f.Want.FromNew)...)
	if f.Want.Back {
		out = append(out, f.dropped(f.Old, f.New, f.Want.FromOld)...)
	}
	return out
}

// dropped: a subscriber that does not pass options= on leaves the walsender the
// settings of its role, its database and its server.
func (f *Facts) dropped(applies, sends *Server, by *pg.Server) []Finding {
	if !link.DropsOptions(applies.Version) {
		return nil
	}
	money := slices.ContainsFunc(f.Databases, func(d DatabaseFacts) bool {
		return d.Inventory != nil && slices.ContainsFunc(d.Inventory.Tables, func(t schema.Table) bool {
			return slices.ContainsFunc(t.Columns, func(c schema.Column) bool { return strings.HasPrefix(c.Type, "money") })
		})
	})
	reach := map[string]string{}
	for name, plain := range link.SentSettings() {
		if name == "lc_monetary" && !money {
			continue
		}
		if s, ok := sends.Settings[name]; ok && s.configured() && !strings.EqualFold(s.Value, plain) {
			reach[name] = "the server"
		}
		for _, s := range f.Old.RoleSettings { // prepare carries them over
			if strings.EqualFold(s.Name, name) && !strings.EqualFold(s.Value, plain) &&
				(s.Role == "" || s.Role == sends.Role.Name || by != nil && s.Role == by.User()) && (s.Database == "" || f.moved(s.Database)) {
				reach[name] = s.String()
			}
		}
	}
	if len(reach) == 0 {
		return nil
	}
	t := &Table{Columns: []string{"setting", "set for"}}
	for _, name := range slices.Sorted(maps.Keys(reach)) {
		t.Rows = append(t.Rows, []string{name, reach[name]})
	}
	return []Finding{{
		Level: Warn, On: applies.Side, Object: "options", Table: t,
		Says: fmt.Sprintf("PostgreSQL %s does not pass options= of a subscription to the server that sends, so that %s there reach what is sent: values may arrive changed, or not at all", applies.release(), count(int64(len(reach)), "setting")),
		Fix:  fmt.Sprintf("install the newest minor of PostgreSQL %d there, or RESET these settings on the %s server until finish", applies.Major(), sends.Side),
	}}
}

func judgeMaxPrepared(f *Facts) []Finding {
	if !f.both() {
		return nil
	}
	have, want := f.New.number("max_prepared_transactions"), f.Old.number("max_prepared_transactions")
	if have >= want {
		return nil
	}
	return []Finding{{
		Level: Warn, On: OnNew, Object: "max_prepared_transactions",
		Says: fmt.Sprintf("max_prepared_transactions is %d on old and %d on new: two-phase commits of the application would fail after the cutover", want, have),
		Fix:  f.raise(OnNew, "max_prepared_transactions", want),
	}}
}
