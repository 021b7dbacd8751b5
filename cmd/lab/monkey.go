package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"crossfade/scenarios"
	"crossfade/scenarios/monkey"

	"github.com/urfave/cli/v2"
)

func monkeyCommand() *cli.Command {
	return &cli.Command{
		Name: "monkey", Usage: "upgrade and roll back while everything breaks at random, and judge by what clients were answered",
		Description: "Two machines type commands; the tool, servers, poolers, lines and journals break as the seed says. The script is printed\n" +
			"as it is played, a round a line; with --script such lines are played again, in whole or in part. Where a rule was broken,\n" +
			"the history, the clients' answers, logs and journals are kept, and the exit code is 1.",
		Flags: []cli.Flag{
			crossfadeFlag,
			&cli.Uint64Flag{Name: "seed", Usage: "what decides every action and every fault (default: the time)"},
			&cli.DurationFlag{Name: "for", Value: time.Minute, Usage: "begin rounds for `DURATION`"},
			&cli.DurationFlag{Name: "served", Value: 10 * time.Second, Usage: "clients may wait `DURATION` after a command, when nothing is broken"},
			&cli.StringFlag{Name: "script", Usage: "play the rounds in `FILE` instead"},
			&cli.StringFlag{Name: "evidence", Usage: "the `FOLDER` to keep evidence in (default: a new one for temporary files)"},
		},
		Action: func(c *cli.Context) error {
			if _, err := words(c, 0, 0); err != nil {
				return err
			}
			o := monkey.Options{Seed: c.Uint64("seed"), For: c.Duration("for"), Evidence: c.String("evidence"), Crossfade: c.String("crossfade"), Served: c.Duration("served"), Out: c.App.Writer}
			if !c.IsSet("seed") {
				o.Seed = uint64(time.Now().UnixNano()) % 1e6
			}
			var err error
			if path := c.String("script"); path != "" {
				if o.Script, err = readScript(path); err != nil {
					return &usageError{err.Error()}
				}
			}
			if o.Crossfade == "" {
				dir, err := os.MkdirTemp("", "crossfade-bin-")
				if err != nil {
					return err
				}
				defer func() { _ = os.RemoveAll(dir) }()
				if o.Crossfade, err = scenarios.Build(c.Context, dir); err != nil {
					return err
				}
			}
			if o.Crossfade, err = filepath.Abs(o.Crossfade); err != nil {
				return err
			}
			result, err := monkey.Run(c.Context, o)
			if err != nil {
				return err
			}
			if err := write(c.App.Writer, "%s\n", result.Figures()); err != nil {
				return err
			}
			if len(result.Violations) == 0 {
				return nil
			}
			again := fmt.Sprintf("lab monkey --seed %d --for %s", o.Seed, o.For)
			if o.Script != nil {
				again = "lab monkey --script " + c.String("script")
			}
			for _, v := range result.Violations {
				if err := write(c.App.Writer, "broken: %s; again: %s, or with --script %s\n", v, again, filepath.Join(result.Evidence, "script")); err != nil {
					return err
				}
			}
			return errTold
		},
	}
}

// readScript reads rounds, one a line, as monkey prints them. Empty lines and those that begin
// with # are left out.
func readScript(path string) ([]monkey.Round, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	var rounds []monkey.Round
	scan := bufio.NewScanner(file)
	for scan.Scan() {
		line := strings.TrimSpace(scan.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		r, err := monkey.Parse(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		rounds = append(rounds, r)
	}
	return rounds, scan.Err()
}
