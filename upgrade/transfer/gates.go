package transfer

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"crossfade/cutover"
	"crossfade/schema"
	"crossfade/upgrade/report"
	"crossfade/upgrade/survey"
)

// SchemaGate wants equal catalogs on both sides, and on new every role, setting
// and database that old has.
func (tf *Transfer) SchemaGate(ctx context.Context, s *survey.Survey) (bool, string, error) {
	for _, db := range s.Databases {
		diff, err := survey.Differences(ctx, tf.c, db)
		if err != nil {
			return false, "", err
		}
		if bad := schema.Unexpected(diff); len(bad) > 0 {
			says := fmt.Sprintf("the catalogs of %s differ: %s; crossfade prepare takes along what it can; otherwise make the same change on both sides (%s)", db.Name, differ(bad), s.ByHand())
			if passing(bad) {
				return false, says, nil
			}
			// A crossing refuses DDL on the closing side while it waits.
			return false, "", &cutover.ErrShut{Says: says, Do: "crossfade prepare"}
		}
	}
	missing, err := tf.LackedGlobals(ctx, s)
	if err != nil {
		return false, "", err
	}
	if len(missing) > 0 {
		return false, "", &cutover.ErrShut{Says: fmt.Sprintf("%s lacks, or has differently, %s: run crossfade prepare, which takes it along", s.Applying().Name, report.Some(missing)), Do: "crossfade prepare"}
	}
	return true, "the catalogs are equal", nil
}

// passing reports whether differences may go by themselves: an index that is
// built CONCURRENTLY is on one side only, under a name of its own or not valid,
// until the build has ended.
func passing(bad []schema.Difference) bool {
	for _, d := range bad {
		if d.Kind == "index" && (d.Property == "valid" || concurrently.MatchString(d.Object)) {
			return true
		}
	}
	return false
}

// concurrently are the names of the indexes that REINDEX CONCURRENTLY makes.
var concurrently = regexp.MustCompile(`_cc(new|old)[0-9]*"?$`)

// differ are differences in a sentence: of a table that is on one side only,
// nothing of what belongs to it.
func differ(bad []schema.Difference) string {
	whole := map[string]bool{}
	for _, d := range bad {
		if d.Kind == "table" && d.Property == "" {
			whole[d.Object] = true
		}
	}
	var says []string
	for _, d := range bad {
		if d.Kind != "table" && slices.ContainsFunc(slices.Collect(maps.Keys(whole)), func(t string) bool { return strings.Contains(d.Object, t) }) {
			continue
		}
		says = append(says, d.Says)
	}
	return report.Some(says)
}
