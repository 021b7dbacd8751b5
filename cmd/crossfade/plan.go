package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"crossfade/upgrade"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/report"

	"github.com/urfave/cli/v2"
)

type planOptions struct {
	common
	Only     string        // one plan's name; "" is all of them
	Full     bool          // every effect, also of long runs of like ones
	HTML, MD string        // files to write it to; "": none
	Sample   time.Duration // the bound of the sampling; 0: until the estimate is stable, at most 5 s
}

// plans are what --only may name.
var plans = []string{"prepare", "cutover", "rollback", "rehearse", "finish", "abort"}

func planCommand() command {
	return command{
		name: "plan", synopsis: "plan [--only PLAN] [--full] [--html FILE] [--md FILE] [--sample 30s]",
		short: "the dry run: every step with the very SQL and commands it will run",
		about: `Shows what check finds, then every plan: its steps, the very SQL and the
programs that each will run and on which server; then how long it will take.
What runs later are these same values. Nothing is touched.

A rehearsal's is shown with --only rehearse, an undo as a step of its own.

What is known only while a step runs (a slot's snapshot, a fence LSN) stands in
it as $name. More than 20 like effects of a step become one line with a count,
unless --full or --json is given. It ends as check does.

The forecast is measured: pieces of the biggest tables are read as the copy will
read them, keys of their indexes are sorted in memory, and old's WAL and open
transactions are watched; all of it READ ONLY, in one session at a time on each
server, and without a temporary file. --sample bounds it; without, or with 0, it
goes on until the estimate is stable, at most 5 s. What needs writing to be known
is taken from earlier measurements, and is called assumed.

--html and --md write the whole for those who are to sign it: one file, with
nothing from elsewhere in it.`,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "only", Usage: "show only `PLAN`: " + strings.Join(plans, ", ")},
			&cli.BoolFlag{Name: "full", Usage: "show every effect, however many are alike"},
			&cli.StringFlag{Name: "html", Usage: "write it as HTML to `FILE`, too"},
			&cli.StringFlag{Name: "md", Usage: "write it as Markdown to `FILE`, too"},
			&cli.DurationFlag{Name: "sample", Usage: "measure for `DURATION` in all; 0: until the estimate is stable, at most 5 s"},
		},
		exits: []int{exit.Failed, exit.Findings}, reads: true,
		run: func(ctx context.Context, c *cli.Context, o common, out *output) error {
			return planOptions{o, c.String("only"), c.Bool("full"), c.String("html"), c.String("md"), c.Duration("sample")}.run(ctx, out)
		},
	}
}

func (o planOptions) run(ctx context.Context, out *output) error {
	switch {
	case o.Only != "" && !slices.Contains(plans, o.Only):
		return &usageError{says: fmt.Sprintf("plan: --only %s: there is no such plan; they are %s", o.Only, strings.Join(plans, ", ")), try: "crossfade plan --only prepare"}
	case o.Sample < 0:
		return &usageError{says: fmt.Sprintf("plan: --sample %s is less than nothing", o.Sample), try: "crossfade plan --sample 30s"}
	}
	for flag, path := range map[string]string{"html": o.HTML, "md": o.MD} {
		if st, err := os.Stat(filepath.Dir(path)); path != "" && (err != nil || !st.IsDir()) {
			return &usageError{says: fmt.Sprintf("plan: --%s %s: there is no folder %s", flag, path, filepath.Dir(path)), try: "crossfade plan --" + flag + " plan." + flag}
		}
	}
	rb, err := readRunbook(o.common, out)
	if err != nil {
		return err
	}
	return with(ctx, rb, "", func(u *upgrade.Upgrade) error {
		planned, err := u.Plan(ctx, upgrade.PlanOptions{Only: o.Only, Sample: o.Sample})
		run := planned.DryRun
		run.Findings = findings(planned.Findings)
		if len(run.Findings) > 0 || err == nil {
			if err := printFindings(run.Findings, out); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		if run.Undrawn != "" {
			out.sayf("no plan could be drawn: %s", run.Undrawn)
		}
		if err := o.write(run); err != nil {
			return err
		}
		if err := o.print(run, out); err != nil {
			return err
		}
		return blocked(run.Findings)
	})
}

// print prints the plans and the forecast.
func (o planOptions) print(run report.DryRun, out *output) error {
	for i, p := range run.Plans {
		run.Plans[i] = report.Plan{} // printed plans of ten thousand tables need not be kept
		for _, s := range p.Steps {
			if err := out.result(s, nil); err != nil {
				return err
			}
		}
		err := out.result(nil, func(w io.Writer) error {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
			return report.PlanText(w, p, o.Full)
		})
		if err != nil {
			return err
		}
	}
	for _, f := range run.Figures {
		if err := out.result(f, nil); err != nil {
			return err
		}
	}
	return out.result(nil, func(w io.Writer) error { return report.Forecast(w, run.Figures, run.Sampled) })
}

// write writes the files that were asked for.
func (o planOptions) write(run report.DryRun) error {
	for _, f := range []struct {
		path  string
		write func(io.Writer, report.DryRun, bool) error
	}{{o.HTML, report.HTML}, {o.MD, report.Markdown}} {
		if f.path == "" {
			continue
		}
		var b bytes.Buffer
		if err := f.write(&b, run, o.Full); err != nil {
			return fmt.Errorf("write %s: %w", f.path, err)
		}
		if err := replaceFile(f.path, report.Visible(b.Bytes())); err != nil {
			return fmt.Errorf("write %s: %w", f.path, err)
		}
	}
	return nil
}

// replaceFile writes a file whole or not at all: who has the earlier one open
// keeps it.
func replaceFile(path string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
