// Command lab boots the scenarios of package scenarios on this machine and
// plays them: real PostgreSQL of several majors, standbys, PgBouncer and a load
// that can prove what became of every row.
//
//	lab list                what there is
//	lab play upgrade        boot, upgrade, judge, take down
//	lab up upgrade          boot and leave it running, to drive crossfade by hand
//	lab load upgrade        the load of a scenario that is up, and its judgement
//	lab down upgrade        end it
//	lab monkey --seed 30    break everything at random, and judge by what clients were answered
//
// It is for the demo and for tests, and no part of the product.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
)

func main() {
	os.Exit(run(os.Args))
}

// usageError is a command line that cannot be understood: exit code 2.
type usageError struct{ says string }

func (e *usageError) Error() string { return e.says }

func run(args []string) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	got := make(chan os.Signal, 1)
	signal.Notify(got, os.Interrupt, syscall.SIGTERM)
	go func() {
		s := <-got
		signal.Stop(got) // the second one kills
		cancel(fmt.Errorf("interrupted by %s", s))
	}()
	err := app().RunContext(ctx, scenarioLast(args))
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		_, _ = fmt.Fprintf(os.Stderr, "lab: %v\n", err)
		return 2
	case errors.Is(err, errTold):
		return 1
	}
	_, _ = fmt.Fprintf(os.Stderr, "lab: %v\n", err)
	return 1
}

// errTold is a failure that was printed already.
var errTold = errors.New("failed")

func app() *cli.App {
	a := &cli.App{
		Name: "lab", Usage: "boot and play the scenarios of crossfade on this machine", HideHelpCommand: true,
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   badUsage,
		Action: func(c *cli.Context) error {
			if c.Args().Len() > 0 {
				return &usageError{fmt.Sprintf("unknown command %q; lab --help lists them", c.Args().First())}
			}
			return cli.ShowAppHelp(c)
		},
		Commands: []*cli.Command{listCommand(), playCommand(), upCommand(), loadCommand(), downCommand(), benchCommand(), tallyCommand(), faultsCommand(), monkeyCommand(), pictureCommand(), screenshotCommand()},
	}
	for _, c := range a.Commands {
		c.OnUsageError, c.HideHelpCommand = badUsage, true
	}
	return a
}

func badUsage(_ *cli.Context, err error, _ bool) error { return &usageError{err.Error()} }

// scenarioLast puts the word after the command to the end: lab play upgrade
// --keep is lab play --keep upgrade. The parser takes no flags after a word.
func scenarioLast(args []string) []string {
	if len(args) < 4 || strings.HasPrefix(args[1], "-") || strings.HasPrefix(args[2], "-") {
		return args
	}
	return append(append(slices.Clone(args[:2]), args[3:]...), args[2])
}

// words are the command's arguments: from least to most of them, and no flag
// among them, which the parser would take for one silently.
func words(c *cli.Context, least, most int) ([]string, error) {
	args := c.Args().Slice()
	for _, a := range args {
		if strings.HasPrefix(a, "-") {
			return nil, &usageError{fmt.Sprintf("%s: %s comes after a word that is no flag; flags come first", c.Command.Name, a)}
		}
	}
	if len(args) < least || len(args) > most {
		return nil, &usageError{fmt.Sprintf("usage: lab %s [flags] %s", c.Command.Name, c.Command.ArgsUsage)}
	}
	return args, nil
}

// write prints a result; where nobody reads it any more the command has failed.
func write(to io.Writer, format string, args ...any) error {
	_, err := fmt.Fprintf(to, format, args...)
	return err
}
