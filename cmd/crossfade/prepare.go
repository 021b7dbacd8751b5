package main

import (
	"context"
	"errors"

	"crossfade/upgrade"
	"crossfade/upgrade/exit"

	"github.com/urfave/cli/v2"
)

type prepareOptions struct {
	common
	Until string // the last step to run; "" runs all
}

func prepareCommand() command {
	return command{
		name: "prepare", synopsis: "prepare [--until STEP]", short: "fill new and keep it in step; run it again to resume",
		about: `Checks, makes roles, databases and schema on new, copies all rows, builds the
indexes, follows old from then on, builds new's standbys and compares both
sides. Old keeps serving; new accepts only replicated writes.

It may be stopped at any moment and run again: what the servers show as done is
not done twice. When it ends with 0, cutover may begin. abort undoes all of it.`,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "until", Usage: "stop after `STEP`, as plan names it"},
		},
		exits: []int{exit.Failed, exit.Findings, exit.Gate, exit.Differences, exit.Held},
		ends:  map[int]string{exit.Gate: "wrong phase; nothing was changed"},
		run: func(ctx context.Context, c *cli.Context, o common, out *output) error {
			return prepareOptions{o, c.String("until")}.run(ctx, out)
		},
	}
}

func (o prepareOptions) run(ctx context.Context, out *output) error {
	rb, err := readRunbook(o.common, out)
	if err != nil {
		return err
	}
	return with(ctx, rb, "", func(u *upgrade.Upgrade) error {
		err := u.Prepare(ctx, upgrade.PrepareOptions{Until: o.Until}, injected(out.observe))
		if stop, ok := errors.AsType[*exit.ErrFindings](err); ok {
			all := findings(stop.Blocking)
			if err := printFindings(all, out); err != nil {
				return err
			}
			return blocked(all)
		}
		if err != nil {
			return err
		}
		return nextIs(ctx, u, "prepare: done", out)
	})
}
