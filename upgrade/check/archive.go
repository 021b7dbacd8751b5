package check

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var archiveChecks = []Check{
	{ID: "archive-path", Title: "New does not archive to where old does", Levels: blockWarn, Acceptable: true, Judge: judgeArchive},
	{ID: "archive-off", Title: "New archives its WAL if old does", Levels: onlyWarn, Acceptable: true, Judge: judgeArchiveOff},
	{ID: "restore-command", Title: "New does not restore from where old archives", Levels: onlyWarn, Acceptable: true, Judge: judgeRestore},
}

// elsewhere are programs that decide by configurations of their own where
// they archive to.
var elsewhere = []string{"pgbackrest", "barman", "wal-g", "wal-e", "pg_probackup"}

// idle are commands that archive nothing.
func idle(command string) bool {
	return command == "" || command == "(disabled)" || command == ":" || command == "true" || strings.HasSuffix(command, "/true")
}

func judgeArchive(f *Facts) []Finding {
	if !f.both() || f.Old.setting("archive_mode") == "off" || f.New.setting("archive_mode") == "off" {
		return nil
	}
	for _, name := range []string{"archive_command", "archive_library"} {
		old, v := f.Old.setting(name), f.New.setting(name)
		if idle(v) || idle(old) {
			continue
		}
		place, same := "", v == old
		if !same && name == "archive_command" {
			place, same = shared(old, v)
		}
		if !same {
			continue
		}
		out := Finding{
			Level: Block, On: OnNew, Object: name,
			Says: fmt.Sprintf("old and new both archive with %s = %s; new's WAL begins again at timeline 1, so that its files can overwrite or be taken for old's: neither could be restored", name, v),
			Fix:  lines("give new an archive of its own (another path, stanza or server name):", fmt.Sprintf("ALTER SYSTEM SET %s = '…' on new, then SELECT pg_reload_conf()", name)),
		}
		if place != "" {
			out.Says = fmt.Sprintf("old and new both archive into %s (new by %s); new's WAL begins again at timeline 1, so that its files can overwrite or be taken for old's: neither could be restored", place, v)
		}
		if slices.ContainsFunc(elsewhere, func(p string) bool { return strings.Contains(v, p) }) {
			out.Level = Warn
			out.Says += ". What decides is in that program's own configuration, which was not looked at"
		}
		return []Finding{out}
	}
	return nil
}

// target is a path that a WAL file's name is put after: /wal/%f.
var target = regexp.MustCompile(`["']?([^\s"'=]*/)["']?%f`)

// shared is a folder that both commands name as the place of a WAL file.
func shared(a, b string) (string, bool) {
	in := map[string]bool{}
	for _, m := range target.FindAllStringSubmatch(a, -1) {
		in[m[1]] = true
	}
	for _, m := range target.FindAllStringSubmatch(b, -1) {
		if in[m[1]] {
			return m[1], true
		}
	}
	return "", false
}

func judgeArchiveOff(f *Facts) []Finding {
	archives := func(s *Server) bool {
		return s.setting("archive_mode") != "off" && s.setting("archive_mode") != "" && !(idle(s.setting("archive_command")) && idle(s.setting("archive_library")))
	}
	if !f.both() || !archives(f.Old) || archives(f.New) {
		return nil
	}
	var fix []string
	if f.New.setting("archive_mode") == "off" {
		fix = append(fix, "ALTER SYSTEM SET archive_mode = 'on';", "restart the new server")
	}
	return []Finding{{
		Level: Warn, On: OnNew, Object: "archive_mode",
		Says: "old archives its WAL and new does not: from the cutover on there is no restoring to a point in time, and no backup of old reaches beyond it",
		Fix: lines(append(fix, "give new an archive_command of its own, not old's: ALTER SYSTEM SET archive_command = '…', then SELECT pg_reload_conf()",
			"take a first base backup of new before finish (hooks: after_open)")...),
	}}
}

// judgeRestore: a standby of new that finds a segment of old by its name
// stumbles over it.
func judgeRestore(f *Facts) []Finding {
	if !f.both() {
		return nil
	}
	v := f.New.setting("restore_command")
	if v == "" {
		return nil
	}
	same := v == f.Old.setting("restore_command")
	if !same {
		_, same = shared(v, f.Old.setting("archive_command"))
	}
	if !same {
		return nil
	}
	return []Finding{{
		Level: Warn, On: OnNew, Object: "restore_command",
		Says: fmt.Sprintf("restore_command of new is %s, which reads old's archive: new's timeline begins at 1 again, so that its standbys would be given segments of old by the same names", v),
		Fix:  lines("ALTER SYSTEM SET restore_command = '';", "SELECT pg_reload_conf();", "then let it read new's own archive"),
	}}
}
