package main

import (
	"context"

	"crossfade/upgrade"
	"crossfade/upgrade/report"

	"github.com/urfave/cli/v2"
)

func rollbackCommand() command {
	return command{
		name: "rollback", synopsis: "rollback [--now | --wait] [--yes] [--cluster NAME] [--without-new]", short: "move the writes back to old: nothing written on new is lost",
		about: `The same as cutover with the ends swapped, over the links that have kept old in
step since: new is closed, old is proven to have every row, and opened. New is
kept in step afterwards, so that cutover may be run again.

--without-new is for a new that is gone for good: it says up to which LSN and
time old has new's rows, and opens old. What was written on new after that is
lost. It asks you to type the upgrade's name, as every rollback does; --yes
answers that too, so that an emergency can be scripted: do not put it into a
script that cannot distinguish a dead server from a slow network.

With several new clusters --cluster says which one; without it all are rolled
back, one after the other.`,
		flags: append(crossFlags(), &cli.BoolFlag{Name: "without-new", Usage: "new is gone for good: open old with what it has"}),
		exits: crossExits, ends: crossEnds,
		run: func(ctx context.Context, c *cli.Context, o common, out *output) error {
			x := crossOptions{common: o, Now: c.Bool("now"), Wait: c.Bool("wait"), Yes: c.Bool("yes"), WithoutNew: c.Bool("without-new"), Cluster: c.String("cluster")}
			preview := "rollback"
			if x.WithoutNew {
				preview = "rollback --without-new"
			}
			return x.run(ctx, out, crossing{"rollback", preview, "old", report.PhaseRolledBack, (*upgrade.Upgrade).Rollback})
		},
	}
}
