package upgrade

import (
	"fmt"
	"strings"

	"crossfade/upgrade/pg"
)

// trafficSays tells how clients come to the cluster that serves.
func (u *Upgrade) trafficSays() []string {
	var says []string
	for _, t := range u.rb.Cutover.Traffic {
		if t.Hook != nil {
			says = append(says, "Clients are sent by "+t.Hook.Run[0]+".")
			continue
		}
		for _, i := range t.PgBouncer.Instances {
			at := "an address that cannot be read"
			if admin, err := pg.Parse("pgbouncer", i.Admin, ""); err == nil {
				at = admin.Address()
			}
			says = append(says, fmt.Sprintf("Clients of %s come through PgBouncer at %s.", strings.Join(t.PgBouncer.Databases, ", "), at))
		}
	}
	if says == nil {
		says = []string{"Clients find the cluster that serves by themselves: both servers in their connection string, with target_session_attrs."}
	}
	return says
}
