package main

import (
	"context"

	"crossfade/cutover/traffic"
	"crossfade/upgrade/exit"

	"github.com/urfave/cli/v2"
)

func guardCommand() command {
	return command{
		name: "guard", synopsis: "guard", short: "resume clients when the process that paused them is gone", hidden: true,
		about: `Started by crossfade itself while clients are paused, and not for people: it
reads from a pipe, and resumes them when that ends before the decision.`,
		exits: []int{exit.Failed},
		run: func(_ context.Context, _ *cli.Context, _ common, out *output) error {
			if traffic.GuardMain(out.stdin) != 0 {
				return &exit.Error{Code: exit.Failed, Says: "guard: could not resume client traffic", Hint: "send RESUME to the poolers"}
			}
			return nil
		},
	}
}
