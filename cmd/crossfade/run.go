package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"crossfade/upgrade"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/report"

	"github.com/urfave/cli/v2"
)

func runCommand() command {
	return command{
		name: "run", synopsis: "run", short: "prepare, then cutover at the next window: unattended",
		about: `Prepares, waits until the window opens and for the approval, and cuts over. It is
unattended: approve: auto goes on by itself, approve: file:<path> when that file
is newer than this command's start (it is renamed to .used); approve: prompt is
refused before anything is touched.

What it waits for is in its output, and crossfade status shows it on any machine,
with what to type meanwhile. It holds the upgrade while it waits, and takes along
what was made on old in that time. SIGINT ends the waiting with 130, and nothing
has changed. Killed, it may be run again, from another machine too: it goes on,
also with a cutover that was closed already, then at once.

It waits for the next window where one has ended without an approval, or with a
gate still closed or a lock not acquired (then a new approval is needed). What a
person must judge ends it: findings (3), a gate that stays closed for cutover.patience (4), a cutover
that failed and was undone (5). It does not retry after that.`,
		exits: []int{
			exit.Failed, exit.Findings, exit.Gate, exit.Undone, exit.AfterOpen,
			exit.Differences, exit.Held,
		},
		ends: map[int]string{
			exit.Undone:      crossEnds[exit.Undone],
			exit.Interrupted: "interrupted (SIGINT, SIGTERM) while it prepared or waited; run again to resume. In the cutover a signal is 5, after open 6",
		},
		run: func(ctx context.Context, _ *cli.Context, o common, out *output) error { return runAll(ctx, o, out) },
	}
}

func runAll(ctx context.Context, o common, out *output) error {
	started := time.Now()
	rb, err := readRunbook(o, out)
	if err != nil {
		return err
	}
	return with(ctx, rb, report.PhaseOpen, func(u *upgrade.Upgrade) error {
		says := ""
		err := u.RunParts(ctx, started, injected(out.observe), func(p *upgrade.Upgrade, done *report.Cutover, err error) error {
			if done == nil && err == nil {
				says = fmt.Sprintf("nothing to do: %s takes writes already", p.Calls("new"))
			}
			return crossed(p, done, "new", err, out)
		})
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
		return nextIs(ctx, u, says, out)
	})
}
