package main

import (
	"context"

	"crossfade/upgrade"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/report"

	"github.com/urfave/cli/v2"
)

type finishOptions struct {
	common
	Yes       bool
	ReopenOld bool
}

func finishCommand() command {
	return command{
		name: "finish", synopsis: "finish [--yes] [--reopen-old]", short: "end the possibility of rollback and clean both sides",
		about: `Ends the links that keep the other side in step and removes what this upgrade
made on both sides. Afterwards there is no rollback.

One thing stays: old keeps refusing writes until it is retired, so that a client
that was forgotten is noticed. The statements that would reopen it are printed;
--reopen-old runs them.`,
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "yes", Usage: "do not ask for the upgrade's name"},
			&cli.BoolFlag{Name: "reopen-old", Usage: "let old take writes again: it will not follow new any more"},
		},
		exits: []int{exit.Failed, exit.Gate, exit.Held},
		ends:  map[int]string{exit.Gate: "wrong phase, or not approved; nothing was changed"},
		run: func(ctx context.Context, c *cli.Context, o common, out *output) error {
			return finishOptions{o, c.Bool("yes"), c.Bool("reopen-old")}.run(ctx, out)
		},
	}
}

func (o finishOptions) run(ctx context.Context, out *output) error {
	return clean(ctx, o.common, consent{plan: "finish", yes: o.Yes}, out, func(u *upgrade.Upgrade) (upgrade.Leftovers, error) {
		return u.Finish(ctx, upgrade.FinishOptions{ReopenOld: o.ReopenOld}, injected(out.observe))
	})
}

// clean is what finish and abort have in common: they ask, take things away
// and tell what they have left.
func clean(ctx context.Context, o common, agree consent, out *output, do func(*upgrade.Upgrade) (upgrade.Leftovers, error)) error {
	rb, err := readRunbook(o, out)
	if err != nil {
		return err
	}
	if err := agree.possible(out); err != nil {
		return err
	}
	return with(ctx, rb, "", func(u *upgrade.Upgrade) error {
		if err := agree.given(ctx, u, rb.Upgrade, out); err != nil {
			return err
		}
		left, err := do(u)
		if err != nil {
			return err
		}
		l := report.Left{Says: left.Lines, Lift: left.Lift}
		return out.result(l, l.Text)
	})
}
