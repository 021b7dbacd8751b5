package upgrade

import (
	"context"

	"crossfade/upgrade/check"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
)

// mustPass runs check and returns its blocking findings as an error.
func (u *Upgrade) mustPass(ctx context.Context) error {
	found, err := u.Check(ctx)
	if err != nil {
		return err
	}
	if blocking := check.Blocking(found); len(blocking) > 0 {
		return exit.Blocks(blocking)
	}
	u.passed = true
	return nil
}

// findings tells as findings why a server cannot be worked with, or returns
// err where check finds nothing.
func (u *Upgrade) findings(ctx context.Context, err error) error {
	if cerr := u.mustPass(ctx); cerr != nil {
		return cerr
	}
	return err
}

func (u *Upgrade) checkStep() flow.Step {
	return flow.Step{
		ID: "check", Title: "Look for what blocks the upgrade",
		Done: func(context.Context) (bool, error) { return u.passed, nil },
		Do:   func(ctx context.Context, _ *flow.Turn) error { return u.mustPass(ctx) },
	}
}
