package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"crossfade/upgrade/exit"

	"github.com/urfave/cli/v2"
)

const aboutApp = `Moves a PostgreSQL cluster to a new major version by logical replication: old
keeps serving while new is filled, kept in step, surrounded by its standbys, and
then takes over in one short, provable cutover.

A runbook (crossfade.yaml) says what is to be done. The usual way:

  crossfade check      what blocks the upgrade, and how to fix it
  crossfade plan       every step with the very SQL it will run; changes nothing
  crossfade prepare    fills new and keeps it in step; run it again to resume
  crossfade status     who is writable now, and what to type next
  crossfade rehearse   the cutover's steps, timed and undone: how long writers will wait
  crossfade cutover    moves the writes to new, or leaves everything as it was
  crossfade finish     ends the possibility of rollback and cleans both sides

crossfade run does prepare and cutover by itself, at the next window.
Until finish, rollback moves the writes back to old without losing one. Until
the cutover, abort undoes everything.`

// printText prints what a person asked for (help, version) on stdout.
func printText(out *output, text string) {
	out.put(printed{to: out.stdout, text: []byte(text), exact: true})
}

// helpText is the help of the program or of one command.
func helpText(all []command, data any) string {
	if c, ok := data.(*cli.Command); ok {
		if i := slices.IndexFunc(all, func(cmd command) bool { return cmd.name == c.Name }); i >= 0 {
			return all[i].help()
		}
	}
	var b strings.Builder
	b.WriteString("crossfade - a new PostgreSQL major without losing a write\n\nUSAGE\n  crossfade COMMAND [flags]\n\n")
	b.WriteString(aboutApp + "\n\nCOMMANDS\n")
	var rows [][2]string
	for _, c := range all {
		if !c.hidden {
			rows = append(rows, [2]string{c.name, c.short})
		}
	}
	table(&b, rows)
	b.WriteString("\nFLAGS (of every command, before or after it)\n")
	table(&b, flagRows(append(commonFlags(), cli.HelpFlag, cli.VersionFlag)))
	b.WriteString("\nEXIT STATUS\n")
	b.WriteString(exitText(nil, nil))
	b.WriteString("\nCodes may be added: treat one that you do not know as a failure.\n")
	return b.String()
}

func (cmd command) help() string {
	var b strings.Builder
	fmt.Fprintf(&b, "crossfade %s - %s\n\nUSAGE\n  crossfade %s\n\n%s\n\nFLAGS\n", cmd.name, cmd.short, cmd.synopsis, cmd.about)
	table(&b, flagRows(slices.Concat(cmd.flags, commonFlags(), []cli.Flag{cli.HelpFlag})))
	b.WriteString("\nEXIT STATUS\n")
	b.WriteString(exitText(append([]int{exit.Done, exit.Usage, exit.Interrupted}, cmd.exits...), cmd.means()))
	return b.String()
}

// flagRows are flags with what they do.
func flagRows(flags []cli.Flag) [][2]string {
	var rows [][2]string
	for _, f := range flags {
		doc, ok := f.(cli.DocGenerationFlag)
		if v, hides := f.(cli.VisibleFlag); !ok || hides && !v.IsVisible() {
			continue
		}
		names := slices.Clone(f.Names())
		slices.SortFunc(names, func(a, b string) int { return len(a) - len(b) })
		for i := range names {
			names[i] = dashed(names[i])
		}
		left, usage := strings.Join(names, ", "), doc.GetUsage()
		if doc.TakesValue() {
			before, rest, _ := strings.Cut(usage, "`")
			value, after, _ := strings.Cut(rest, "`")
			left, usage = left+" "+value, before+value+after
		}
		if env := doc.GetEnvVars(); len(env) > 0 {
			usage += fmt.Sprintf(" (or $%s; else %s)", env[0], runbookDefault)
		}
		rows = append(rows, [2]string{left, usage})
	}
	return rows
}

// means is what codes mean for the command alone.
func (cmd command) means() map[int]string {
	if !cmd.reads {
		return cmd.ends
	}
	own := map[int]string{
		exit.Failed:      "failed: a server could not be queried, or the results could not be written",
		exit.Interrupted: "interrupted (SIGINT, SIGTERM); nothing was changed",
	}
	maps.Copy(own, cmd.ends)
	return own
}

// exitText are the exit codes that are in only (nil: all), with what they mean:
// what own says of them, otherwise what they mean for all commands.
func exitText(only []int, own map[int]string) string {
	var rows [][2]string
	for _, e := range exits {
		if only == nil || slices.Contains(only, e.code) {
			rows = append(rows, [2]string{fmt.Sprint(e.code), cmp.Or(own[e.code], e.means)})
		}
	}
	var b strings.Builder
	table(&b, rows)
	return b.String()
}

func table(to io.Writer, rows [][2]string) {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		// A strings.Builder takes everything.
		_, _ = fmt.Fprintf(w, "  %s\t%s\n", r[0], r[1])
	}
	_ = w.Flush()
}
