package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"crossfade/scenarios/bench"

	"github.com/urfave/cli/v2"
)

func benchCommand() *cli.Command {
	return &cli.Command{
		Name: "bench", Usage: "measure copy, comparison, cutover and catch-up beside the peers, and write docs/benchmarks.md",
		ArgsUsage: "[SECTION…]",
		Description: "Sections: " + strings.Join(bench.Sections(), ", ") + "; all of them without a word. What is missing of PostgreSQL, PgBouncer\n" +
			"and pgcopydb is fetched. Each section takes the place of its own in the file; the others stay.",
		Flags: []cli.Flag{
			crossfadeFlag,
			&cli.IntFlag{Name: "size", Value: 200, Usage: "about `MB` of rows in the copy's data set"},
			&cli.IntFlag{Name: "rounds", Value: 3, Usage: "how often each competitor runs"},
			&cli.IntFlag{Name: "jobs", Usage: "tables and indexes at once, for everybody (default: the cores)"},
			&cli.IntFlag{Name: "old", Value: 15, Usage: "`MAJOR` of the old cluster"},
			&cli.IntFlag{Name: "new", Value: 17, Usage: "`MAJOR` of the new cluster"},
			&cli.IntSliceFlag{Name: "tables", Usage: "tables of the cutover's databases (default: 10, 1000, 10000)"},
			&cli.StringSliceFlag{Name: "shape", Usage: "only these `NAME`s of the skewed data sets: " + strings.Join(bench.Shapes(), ", ") + " ; the section then has no others (default: all)"},
			&cli.StringFlag{Name: "write", Value: "docs/benchmarks.md", Usage: "the `FILE` that the results go into"},
		},
		Action: func(c *cli.Context) error {
			args, err := words(c, 0, len(bench.Sections()))
			if err != nil {
				return err
			}
			o := bench.Options{
				Old: c.Int("old"), New: c.Int("new"), MB: c.Int("size"), Rounds: c.Int("rounds"), Jobs: c.Int("jobs"), Tables: c.IntSlice("tables"),
				Out: c.App.Writer, Say: func(line string) { _, _ = fmt.Fprintln(c.App.ErrWriter, line) },
			}
			if c.IsSet("shape") {
				o.Shapes = c.StringSlice("shape")
			}
			if len(args) > 0 {
				o.Sections = args
			}
			if o.Binary = c.String("crossfade"); o.Binary != "" {
				if o.Binary, err = filepath.Abs(o.Binary); err != nil {
					return err
				}
			}
			return bench.Run(c.Context, o, c.String("write"))
		},
	}
}
