package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"crossfade/scenarios"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"
)

func listCommand() *cli.Command {
	return &cli.Command{
		Name: "list", Usage: "the scenarios",
		Action: func(c *cli.Context) error {
			if _, err := words(c, 0, 0); err != nil {
				return err
			}
			for _, name := range scenarios.Names() {
				s, err := scenarios.Read(name)
				if err != nil {
					return err
				}
				up := ""
				if _, err := os.Stat(filepath.Join(place(name), "stage.json")); err == nil {
					up = "  (up)"
				}
				if err := write(c.App.Writer, "%-12s %s%s\n", name, s.Title, up); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

var crossfadeFlag = &cli.StringFlag{Name: "crossfade", Usage: "the crossfade binary is `PATH`; it is built where that is not given"}

func playCommand() *cli.Command {
	return &cli.Command{
		Name: "play", Usage: "boot a scenario, do what it says, judge, take it down", ArgsUsage: "SCENARIO | --all [SCENARIO …]",
		Flags: []cli.Flag{
			crossfadeFlag,
			&cli.BoolFlag{Name: "keep", Usage: "leave the servers running"},
			&cli.BoolFlag{Name: "json", Usage: "the result as JSON on stdout; what happens goes to stderr"},
			&cli.BoolFlag{Name: "all", Usage: "play all scenarios, or those that are named, one after the other"},
			&cli.StringFlag{Name: "md", Usage: "with --all, write the table of results between the marks in `FILE`"},
			&cli.DurationFlag{Name: "timeout", Value: 10 * time.Minute, Usage: "give up after `DURATION`"},
		},
		Action: func(c *cli.Context) error {
			if c.Bool("all") {
				args, err := words(c, 0, len(scenarios.Names()))
				if err != nil {
					return err
				}
				return playAll(c, args)
			}
			if c.String("md") != "" {
				return &usageError{"play: --md is for --all"}
			}
			args, err := words(c, 1, 1)
			if err != nil {
				return err
			}
			return play(c, args[0])
		},
	}
}

func play(c *cli.Context, name string) error {
	s, err := known(name)
	if err != nil {
		return err
	}
	o := scenarios.Options{Crossfade: c.String("crossfade"), Keep: c.Bool("keep"), Out: c.App.Writer}
	if c.Bool("json") {
		o.Out = c.App.ErrWriter
	}
	o.Terminal = isTerminal(o.Out)
	if o.Keep {
		o.Dir = place(name)
		if err := vacant(o.Dir, name); err != nil {
			return err
		}
	}
	limit := c.Duration("timeout")
	ctx, cancel := context.WithTimeoutCause(c.Context, limit, fmt.Errorf("the play took more than %s", limit))
	defer cancel()
	result, err := scenarios.Play(ctx, s, o)
	if result == nil {
		return err
	}
	if c.Bool("json") {
		if jerr := json.NewEncoder(c.App.Writer).Encode(result); jerr != nil {
			return jerr
		}
	}
	if err != nil && result.Failure != "" {
		return errTold // the play's last line says why
	}
	return err
}

func known(name string) (*scenarios.Scenario, error) {
	s, err := scenarios.Read(name)
	if errors.Is(err, scenarios.ErrUnknown) {
		return nil, &usageError{err.Error()}
	}
	return s, err
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// place is the folder of a scenario that is up, the same for every process of
// this user.
func place(name string) string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("crossfade-up-%d", os.Getuid()), name)
}

// vacant refuses a place where the scenario is up already, or that is
// somebody else's.
func vacant(dir, name string) error {
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	st, err := os.Lstat(parent)
	if err != nil {
		return err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !st.IsDir() || (ok && int(sys.Uid) != os.Getuid()) {
		return fmt.Errorf("%s is not a folder of this user's", parent)
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is up already, in %s; lab down %s ends it", name, dir, name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// sayer tells what happens while a scenario boots.
func sayer(to io.Writer) scenarios.Say {
	return func(what, says string) { _, _ = fmt.Fprintf(to, "%-8s %s\n", what, strings.TrimSpace(says)) }
}
