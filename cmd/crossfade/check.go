package main

import (
	"context"
	"fmt"
	"io"

	"crossfade/upgrade"
	"crossfade/upgrade/check"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/report"

	"github.com/urfave/cli/v2"
)

type checkOptions struct {
	common
	Restore bool // also restore the schema into a scratch database on new
}

func checkCommand() command {
	return command{
		name: "check", synopsis: "check [--restore]", short: "what blocks the upgrade, and how to fix it",
		about: `Reads both clusters and reports everything that would stop the upgrade, break the
application or surprise a person, each with its object, the reason and the
statement that fixes it. Nothing is changed anywhere.

With --restore the schema of every database is really restored, by new's own
pg_dump, as prepare will do it: into a scratch database on new, cf_<upgrade>_
restore_<db>, which is dropped however it ends; what a killed run has left is
dropped by the next. Every statement that new refuses is a finding, and every
object that is not the same there as on old. Prepare does the same before it
copies anything. No row is copied, and no role is made: those that new lacks
exist inside of transactions.

A finding blocks, warns or is a note. What blocks must be fixed, or accepted in
the runbook (accept: [id] or [id:object]) where that is possible. Of
many that differ in their object alone two are shown; -v shows all of them.
docs/checks.md lists every check.`,
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "restore", Usage: "also restore the schema into a scratch database on new, which is dropped again"},
		},
		exits: []int{exit.Failed, exit.Findings, exit.Held}, reads: true,
		ends: map[int]string{exit.Held: "another check --restore of this upgrade is running"},
		run: func(ctx context.Context, c *cli.Context, o common, out *output) error {
			return checkOptions{o, c.Bool("restore")}.run(ctx, out)
		},
	}
}

func (o checkOptions) run(ctx context.Context, out *output) error {
	rb, err := readRunbook(o.common, out)
	if err != nil {
		return err
	}
	return with(ctx, rb, "", func(u *upgrade.Upgrade) error {
		look := u.Check
		if o.Restore {
			look = func(ctx context.Context) ([]check.Finding, error) { return u.CheckRestore(ctx, out.observe) }
		}
		found, err := look(ctx)
		if err != nil {
			return err
		}
		all := findings(found)
		if err := printFindings(all, out); err != nil {
			return err
		}
		if !o.Restore {
			err := out.result(nil, func(w io.Writer) error {
				_, err := io.WriteString(w, "The schema was not tried out on new: crossfade check --restore does it, and prepare does it first.\n")
				return err
			})
			if err != nil {
				return err
			}
		}
		return blocked(all)
	})
}

func printFindings(all []report.Finding, out *output) error {
	for _, f := range all {
		if err := out.result(f, nil); err != nil {
			return err
		}
	}
	return out.result(nil, func(w io.Writer) error { return report.Findings(w, all, out.verbose) })
}

// blocked is the error of findings that block the upgrade; nil where none do.
func blocked(all []report.Finding) error {
	n := 0
	for _, f := range all {
		if f.Blocks() {
			n++
		}
	}
	switch n {
	case 0:
		return nil
	case 1:
		return &exit.Error{Code: exit.Findings, Says: "1 finding blocks the upgrade", Hint: "fix it, or add it to accept: in the runbook where it is acceptable"}
	}
	return &exit.Error{
		Code: exit.Findings, Says: fmt.Sprintf("%d findings block the upgrade", n),
		Hint: "fix them, or add the acceptable ones to accept: in the runbook",
	}
}
