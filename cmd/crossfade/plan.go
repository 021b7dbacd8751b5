package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"crossfade/upgrade"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/report"

	"github.com/urfave/cli/v2"
)

type planOptions struct {
	common
	Only string // one plan's name; "" is all of them
	Full bool   // every effect, also of long runs of like ones
}

// plans are what --only may name.
var plans = []string{"prepare", "cutover", "rollback", "rehearse", "finish", "abort"}

func planCommand() command {
	return command{
		name: "plan", synopsis: "plan [--only PLAN] [--full] [--html FILE] [--md FILE] [--sample 30s]",
		short: "the dry run: every step with the very SQL and commands it will run",
		about: `Shows what check finds and then every plan: its steps, the very SQL and the
programs that each will run and on which server, and how long it will take.
What runs later are these same values. Nothing is touched.

A rehearsal's is shown with --only rehearse, an undo as a step of its own.

What is known only while a step runs (a slot's snapshot, a fence LSN) stands in
it as $name. More than 20 like effects in a row become one line with a count,
unless --full or --json is given. It ends as check does.`,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "only", Usage: "show only `PLAN`: " + strings.Join(plans, ", ")},
			&cli.BoolFlag{Name: "full", Usage: "show every effect, however many are alike"},
			&cli.StringFlag{Name: "html", Usage: "write it as HTML to `FILE` (not in this version)"},
			&cli.StringFlag{Name: "md", Usage: "write it as Markdown to `FILE` (not in this version)"},
			&cli.DurationFlag{Name: "sample", Usage: "measure the servers for `DURATION` first (not in this version)"},
		},
		exits: []int{upgrade.ExitFailed, upgrade.ExitFindings},
		run: func(ctx context.Context, c *cli.Context, o common, out *output) error {
			for _, f := range []string{"html", "md", "sample"} {
				if c.IsSet(f) {
					return notYet("plan --"+f, "crossfade plan, or crossfade plan --json")
				}
			}
			return planOptions{o, c.String("only"), c.Bool("full")}.run(ctx, out)
		},
	}
}

func (o planOptions) run(ctx context.Context, out *output) error {
	if o.Only != "" && !slices.Contains(plans, o.Only) {
		return &usageError{says: fmt.Sprintf("plan: --only %s: there is no such plan; they are %s", o.Only, strings.Join(plans, ", ")), try: "crossfade plan --only prepare"}
	}
	rb, err := readRunbook(o.common, out)
	if err != nil {
		return err
	}
	return with(ctx, rb, "", func(u *upgrade.Upgrade) error {
		planned, err := u.Plan(ctx, o.Only)
		all := findings(planned.Findings)
		if len(all) > 0 || err == nil {
			if err := printFindings(all, out); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		if planned.Undrawn != nil {
			out.sayf("no plan could be drawn: %v", planned.Undrawn)
		}
		for i, p := range planned.Plans {
			planned.Plans[i] = flow.Plan{} // printed plans of ten thousand tables need not be kept
			for _, s := range report.Steps(p) {
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
		return blocked(all)
	})
}
