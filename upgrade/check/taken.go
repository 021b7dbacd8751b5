package check

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// taken are old's standbys whose places new's take, by name.
func (f *Facts) taken() []StandbyFacts {
	var out []StandbyFacts
	for _, s := range f.Standbys {
		after := slices.ContainsFunc(f.Want.NewStandbys, func(n Standby) bool { return n.After && n.Name == s.Name })
		if s.Side == OnOld && after {
			out = append(out, s)
		}
	}
	return out
}

// judgeTaken says what old, and so a rollback, loses with a standby. Commits
// on old that would wait for it are loosened by a step of the cutover.
func judgeTaken(f *Facts) []Finding {
	var out []Finding
	var names []string
	for _, s := range f.taken() {
		names = append(names, s.Name)
	}
	for _, s := range f.taken() {
		found := Finding{
			Level: Note, On: OnOld, Object: s.Name,
			Says: fmt.Sprintf("build: after stops standby %s of old once new is open and builds new's in its place: from then on old is without it, after a rollback, too, and what was on it is moved aside only where new's data directory is the same", s.Name),
			Fix:  "build it elsewhere (build: before), or accept it: accept: [\"standby-taken:" + s.Name + "\"]",
		}
		if f.Old.ok() {
			sync := parseSync(f.Old.setting("synchronous_standby_names"))
			left := sync.without(names)
			if sync.names(s.Name) && !slices.Contains(sync.Names, "*") && parseSync(left).Count < sync.Count {
				if left == "" {
					left = "empty"
				}
				found.Level = Warn
				found.Says += fmt.Sprintf(". synchronous_standby_names of old is %s, and commits there would hang after a rollback: the cutover sets it to %s before it stops the standby",
					f.Old.setting("synchronous_standby_names"), left)
			}
		}
		var behind []string
		for _, w := range s.Facts.standbys() {
			if !slices.Contains(names, w.Application) {
				behind = append(behind, w.Application)
			}
		}
		if len(behind) > 0 {
			slices.Sort(behind)
			found.Level = Warn
			found.Says += ". What follows it on old gets nothing new from then on: " + strings.Join(behind, ", ")
		}
		out = append(out, found)
	}
	return out
}

// judgeTakenPlace: nothing is stopped but the very standby that the runbook
// means, and logical slots that wait for its slot would wait for ever.
func judgeTakenPlace(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.taken() {
		if !s.Facts.ok() {
			continue
		}
		if data := s.Facts.setting("data_directory"); data != "" && s.Data != "" && filepath.Clean(data) != filepath.Clean(s.Data) {
			out = append(out, Finding{
				Level: Block, On: s.Name, Object: s.Name,
				Says: fmt.Sprintf("standby %s of old runs in %s, and the runbook says %s: the cutover would not stop it", s.Name, data, s.Data),
				Fix:  fmt.Sprintf("data: %s under old.standbys", data),
			})
		}
		slot := s.Facts.setting("primary_slot_name")
		if !f.Old.ok() || slot == "" {
			continue
		}
		if waits := f.Old.setting("synchronized_standby_slots"); slices.Contains(splitList(waits), slot) {
			out = append(out, Finding{
				Level: Block, On: OnOld, Object: "synchronized_standby_slots",
				Says: fmt.Sprintf("synchronized_standby_slots of old is %s, and standby %s, whose slot %s is in it, is stopped for good: what reads old's logical slots with failover = true would wait for it for ever, after a rollback the links of this upgrade, too", waits, s.Name, slot),
				Fix:  "take " + slot + " out of synchronized_standby_slots, or build: before",
			})
		}
	}
	return out
}
