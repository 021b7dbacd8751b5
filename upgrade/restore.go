package upgrade

import (
	"context"

	"crossfade/upgrade/check"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/survey"
	"crossfade/upgrade/trial"
)

// CheckRestore is Check, and restores old's schema into a scratch database on
// new, as prepare will restore it, which is dropped again however it ends. What
// an earlier run left behind that was killed is dropped first.
func (u *Upgrade) CheckRestore(ctx context.Context, observe func(flow.Event)) ([]check.Finding, error) {
	if u.parts != nil {
		return u.parts.check(ctx, func(p *Upgrade) ([]check.Finding, error) {
			found, err := p.CheckRestore(ctx, p.Telling(observe))
			return p.named(found), err
		})
	}
	o, s, err := u.checkOptions(ctx, false)
	if err != nil {
		return nil, err
	}
	found, err := u.judged(ctx, o, s)
	if err != nil {
		return nil, err
	}
	if s == nil {
		s, err = survey.Take(ctx, u.c, false)
	}
	if err == nil {
		err = s.BothAnswer()
	}
	var rejected []check.Finding
	if err == nil {
		rejected, err = u.trial.Restore(ctx, s, check.Blocking(found), observe)
	}
	if err != nil && ctx.Err() == nil && len(check.Blocking(found)) > 0 {
		// What blocks checking blocks the restore.
		return append(found, check.Finding{
			ID: trial.SchemaRejected, Level: check.Warn, On: check.OnNew,
			Says: "the schema could not be restored to its end: " + err.Error(), Fix: "fix what blocks, and run crossfade check --restore again",
		}), nil
	}
	return append(rejected, found...), err
}
