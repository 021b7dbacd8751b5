package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"unicode/utf8"

	"crossfade/upgrade/exit"

	"github.com/urfave/cli/v2"
)

// version is set by the Makefile: -ldflags "-X main.version=…".
var version = "dev"

// command is one command: what is typed, what it says of itself, what it does.
type command struct {
	name     string
	synopsis string // as in docs/commands.md: plan [--only PLAN] …
	short    string // one line, for the list of commands
	about    string // what a person needs to know who types --help
	flags    []cli.Flag
	exits    []int // the codes it can end with, beside 0, 2 and 130
	// ends says what codes mean for this command, where that is not what exits
	// says of all.
	ends map[int]string
	// reads: it changes nothing that lasts. It ends as soon as nobody reads its
	// results, and a signal that ends it has nothing to undo.
	reads bool
	// words are the only positional arguments that it takes: exactly one of
	// them. Only completion has any.
	words  []string
	hidden bool
	run    func(ctx context.Context, c *cli.Context, o common, out *output) error
}

// common is what every command takes.
type common struct {
	runbook              string
	json, quiet, verbose bool
}

const (
	runbookDefault = "crossfade.yaml"
	runbookEnv     = "CROSSFADE_RUNBOOK"
)

func commonFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "runbook", Aliases: []string{"f"}, EnvVars: []string{runbookEnv}, Value: runbookDefault, Usage: "the runbook is `FILE`"},
		&cli.BoolFlag{Name: "json", Usage: "one JSON object a line on stdout; whatever fails, the last is an error"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "no progress and no warnings, only results and errors"},
		&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "also what is skipped because it is done"},
	}
}

// commands are all commands, in the order of the contract.
func commands() []command {
	return []command{
		initCommand(), checkCommand(), planCommand(), prepareCommand(), statusCommand(), verifyCommand(), rehearseCommand(),
		cutoverCommand(), rollbackCommand(), finishCommand(), abortCommand(), runCommand(), reportCommand(), completionCommand(), guardCommand(),
	}
}

// newApp is the command line. Everything that urfave/cli would print or exit
// with by itself is taken from it: it parses, and errors come back.
func newApp(out *output) *cli.App {
	all := commands()
	cli.VersionFlag = &cli.BoolFlag{Name: "version", Usage: "print the version; without a command"} // -v is --verbose
	cli.VersionPrinter = func(c *cli.Context) { printText(out, versionText()) }
	cli.HelpPrinter = func(_ io.Writer, _ string, data any) { printText(out, helpText(all, data)) }
	app := &cli.App{
		Name: "crossfade", Version: version, HideHelpCommand: true, EnableBashCompletion: true,
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return badFlag("", nil, err) },
		Action: func(c *cli.Context) error {
			if c.Args().Len() == 0 {
				return &usageError{says: "no command was given", try: "crossfade --help"}
			}
			return unknownCommand(all, c.Args().Slice()...)
		},
	}
	for _, cmd := range all {
		app.Commands = append(app.Commands, cmd.cli(out))
	}
	return app
}

// cli is the command as the command line sees it.
func (cmd command) cli(out *output) *cli.Command {
	return &cli.Command{
		Name: cmd.name, Usage: cmd.short, Hidden: cmd.hidden, HideHelpCommand: true,
		Flags:        append(slices.Clone(cmd.flags), commonFlags()...),
		OnUsageError: func(_ *cli.Context, err error, _ bool) error { return badFlag(cmd.name, cmd.flags, err) },
		BashComplete: cmd.complete,
		Action: func(c *cli.Context) error {
			if err := cmd.arguments(c.Args().Slice()); err != nil {
				return err
			}
			o := common{runbook: c.String("runbook"), json: c.Bool("json"), quiet: c.Bool("quiet"), verbose: c.Bool("verbose")}
			if o.runbook == "" { // an empty CROSSFADE_RUNBOOK is none
				o.runbook = runbookDefault
			}
			out.json, out.quiet, out.verbose = o.json, o.quiet, o.verbose
			if cmd.reads {
				return cmd.read(c, o, out)
			}
			return cmd.run(c.Context, c, o, out)
		},
	}
}

// read runs a command that only reads, for as long as its results can be written.
func (cmd command) read(c *cli.Context, o common, out *output) error {
	ctx, cancel := context.WithCancelCause(c.Context)
	defer cancel(nil)
	out.reading(cancel)
	err := cmd.run(ctx, c, o, out)
	cause := context.Cause(ctx)
	if unwritten, ok := errors.AsType[*unwrittenError](cause); ok {
		return unwritten
	}
	if err != nil && errors.Is(cause, exit.ErrInterrupted) {
		return &exit.Error{Code: exit.Interrupted, Says: err.Error(), Hint: "nothing was changed", Err: err}
	}
	return err
}

// arguments refuses what stands after the flags. Flags that stand after an
// argument are arguments to the parser; nothing is ever taken silently.
func (cmd command) arguments(args []string) error {
	try := "crossfade " + cmd.name + " --help"
	switch {
	case cmd.words != nil && len(args) == 1 && slices.Contains(cmd.words, args[0]):
		return nil
	case cmd.words != nil:
		return &usageError{says: cmd.name + ": give one of " + strings.Join(cmd.words, ", "), try: "crossfade " + cmd.name + " " + cmd.words[0]}
	case len(args) > 0:
		return &usageError{says: fmt.Sprintf("%s takes no arguments, and got %q", cmd.name, args[0]), try: try}
	}
	return nil
}

func (cmd command) complete(c *cli.Context) {
	for _, w := range cmd.words {
		if _, err := fmt.Fprintln(c.App.Writer, w); err != nil {
			return
		}
	}
	if cmd.words == nil {
		cli.DefaultCompleteWithFlags(c.Command)(c)
	}
}

// hoist puts the common flags that stand before the command after it:
// crossfade -f x plan is crossfade plan -f x.
func hoist(args []string) []string {
	takesValue := map[string]bool{"f": true, "runbook": true, "json": false, "q": false, "quiet": false, "v": false, "verbose": false}
	for i := 0; i < len(args); i++ {
		if !strings.HasPrefix(args[i], "-") {
			if i == 0 {
				return args
			}
			// In front of the command's own: what stands nearer to the end wins.
			moved := append([]string{args[i]}, args[:i]...)
			return append(moved, args[i+1:]...)
		}
		name, _, hasValue := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		takes, known := takesValue[name]
		if !known {
			return args
		}
		if takes && !hasValue {
			i++
		}
	}
	return nil // nothing but common flags: no command
}

// unknownCommand is the answer to a command that there is not.
func unknownCommand(all []command, args ...string) error {
	name := args[0]
	e := &usageError{says: fmt.Sprintf("unknown command %q", name), try: "crossfade --help"}
	switch name {
	case "help":
		e.try = "crossfade --help, or crossfade COMMAND --help"
		if len(args) == 2 && slices.ContainsFunc(all, func(c command) bool { return c.name == args[1] && !c.hidden }) {
			e.try = "crossfade " + args[1] + " --help"
		}
		return e
	case "version":
		e.try = "crossfade --version"
		return e
	}
	var known []string
	for _, c := range all {
		if !c.hidden {
			known = append(known, c.name)
		}
	}
	if n := nearest(name, known); n != "" {
		e.says += "; did you mean " + n + "?"
	}
	return e
}

// badFlag is a parser's error in this program's words.
func badFlag(cmd string, flags []cli.Flag, err error) error {
	e := &usageError{says: err.Error(), try: "crossfade --help"}
	if cmd != "" {
		e.try = "crossfade " + cmd + " --help"
	}
	if name, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); ok {
		e.says = "unknown flag " + dashed(name)
		if name == "dry-run" {
			e.try = "crossfade plan: it is the dry run of every command"
			if slices.Contains(plans, cmd) {
				e.try = "crossfade plan --only " + cmd + ": it is the dry run, and touches nothing"
			}
		}
		var known []string
		for _, f := range append(append(slices.Clone(flags), commonFlags()...), cli.HelpFlag) {
			known = append(known, f.Names()...)
		}
		if n := nearest(name, known); n != "" {
			e.says += "; did you mean " + dashed(n) + "?"
		}
	}
	if cmd != "" {
		e.says = cmd + ": " + e.says
	}
	return e
}

func dashed(name string) string {
	if utf8.RuneCountInString(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// nearest is the known word that was probably meant, or "".
func nearest(word string, known []string) string {
	best, least := "", max(1, len(word)/3)+1
	if len(word) > 40 {
		return ""
	}
	for _, k := range known {
		if d := distance(word, k); len(k) > 1 && d < least {
			best, least = k, d
		}
	}
	return best
}

// distance is how many letters must be added, dropped or changed.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		left := row[0]
		row[0] = i + 1
		for j := range len(b) {
			up := row[j+1]
			change := left
			if a[i] != b[j] {
				change++
			}
			row[j+1], left = min(change, up+1, row[j]+1), up
		}
	}
	return row[len(b)]
}

// notYet is the answer to what the contract has and this version has not.
func notYet(what, instead string) error {
	return &usageError{says: what + ": not in this version", try: instead}
}

func versionText() string {
	text := "crossfade " + version
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				text += " (" + s.Value[:12] + ")"
			}
		}
	}
	return text + " " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH + "\n"
}
