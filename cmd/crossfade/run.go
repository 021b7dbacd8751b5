package main

import (
	"context"
	"errors"
	"io"
	"time"

	"crossfade/upgrade"
	"crossfade/upgrade/report"

	"github.com/urfave/cli/v2"
)

func runCommand() command {
	return command{
		name: "run", synopsis: "run", short: "prepare, then cutover at the next window: unattended",
		about: `Prepares, waits until the window opens and for the approval, and cuts over. It
asks nobody: approve: auto goes on by itself, approve: file:<path> when that file
is newer than this command's start (it is renamed to .used); approve: prompt is
refused before anything is touched.

What it waits for is in its output, and crossfade status tells it from anywhere,
with what to type meanwhile. It holds the upgrade while it waits, and takes along
what was made on old in that time. SIGINT ends the waiting with 130, and nothing
has changed. Killed, it may be run again, from another machine too: it goes on,
also with a cutover that was closed already, then at once.

It waits for the next window where one has ended without an approval, or with a
gate still closed or a lock not had (then a new approval is needed). What a
person must judge ends it: findings (3), a gate that stays closed for cutover.patience (4), a cutover
that failed and was undone (5). Nothing is tried again behind that.`,
		exits: []int{
			upgrade.ExitFailed, upgrade.ExitFindings, upgrade.ExitGate, upgrade.ExitUndone, upgrade.ExitBehind,
			upgrade.ExitDifferences, upgrade.ExitHeld,
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
		done, err := u.Run(ctx, started, injected(out.observe))
		if stop, ok := errors.AsType[*upgrade.ErrFindings](err); ok {
			all := findings(stop.Blocking)
			if err := printFindings(all, out); err != nil {
				return err
			}
			return blocked(all)
		}
		if done != nil {
			// With --json what was measured is told of a failed one too.
			if perr := out.result(*done, nil); perr != nil {
				return perr
			}
		}
		if err != nil {
			return err
		}
		if done == nil {
			return nextIs(ctx, u, "nothing to do: new takes writes already", out)
		}
		err = out.result(nil, func(w io.Writer) error { return done.Text(w, "new") })
		return errors.Join(err, nextIs(ctx, u, "", out))
	})
}
