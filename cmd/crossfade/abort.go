package main

import (
	"context"

	"crossfade/upgrade"
	"crossfade/upgrade/exit"

	"github.com/urfave/cli/v2"
)

type abortOptions struct {
	common
	Yes bool
}

func abortCommand() command {
	return command{
		name: "abort", synopsis: "abort [--yes]", short: "undo everything before open; old is as it was",
		about: `Undoes what prepare and a cutover that was cut off have made: slots, publications,
subscriptions, fences, settings. On new, databases and roles are dropped only
where this upgrade created them; the list is shown first. Afterwards no object
of this upgrade is left on any server: that is looked up, not assumed.

After the open step, use rollback instead.`,
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "yes", Usage: "do not ask for the upgrade's name"},
		},
		exits: []int{exit.Failed, exit.Gate, exit.Held},
		ends:  map[int]string{exit.Gate: "wrong phase, or not approved; nothing was changed"},
		run: func(ctx context.Context, c *cli.Context, o common, out *output) error {
			return abortOptions{o, c.Bool("yes")}.run(ctx, out)
		},
	}
}

func (o abortOptions) run(ctx context.Context, out *output) error {
	return clean(ctx, o.common, consent{plan: "abort", yes: o.Yes}, out, func(u *upgrade.Upgrade) (upgrade.Leftovers, error) {
		return u.Abort(ctx, injected(out.observe))
	})
}
