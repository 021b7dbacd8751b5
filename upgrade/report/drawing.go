package report

import (
	"fmt"
	"slices"
	"strings"
)

// drawing is a cluster as a tree, from its primary downwards: coordinates for
// an SVG that scales with the page.
type drawing struct {
	Title         string
	Width, Height int
	Boxes         []box
	Lines         []line
	Sites         []siteKey
}

// box is one server.
type box struct {
	X, Y, Width, Height int
	Name, Full          string // Full: where Name had to be cut
	Chip                string // its role, or how commits wait for it
	ChipX, ChipWidth    int
	Sub, Note           string
	Bad                 bool // Note is a trap
	Primary             bool
	Planned, Silent     bool
	Site                int // of Sites; -1: not known
}

// line leads from an upstream to who receives from it.
type line struct {
	X, Y1, Y2, X2 int
	Sync, Planned bool
	Far           bool // from one site to another
}

type siteKey struct {
	Name  string
	Color string
}

// siteColors are the colours of sites; a cluster of more sites starts over.
var siteColors = []string{"#2f6fb0", "#b0632f", "#5b8a3c", "#8a4f9e", "#9a8423", "#3b8a8a"}

// Sizes of a drawing, in its own units; letters are as wide as the font of the
// page makes them, at most letterWidth.
const (
	drawingWidth = 420
	boxHeight    = 68
	boxGap       = 14
	indent       = 30
	letterWidth  = 9.4
	smallLetter  = 7
)

func (c Cluster) drawing() drawing {
	d := drawing{Title: c.Name, Width: drawingWidth}
	sites := c.sites()
	if len(sites) > 1 {
		for i, s := range sites {
			d.Sites = append(d.Sites, siteKey{s, siteColors[i%len(siteColors)]})
		}
	}
	site := func(name string) int {
		if len(d.Sites) == 0 {
			return -1
		}
		return slices.Index(sites, name)
	}
	primary := box{Name: c.Name, Chip: "primary", Primary: true, Silent: c.Silent != "", Site: site(c.Site)}
	primary.Sub = strings.Join(slices.DeleteFunc([]string{prefixed("PostgreSQL ", c.Version), c.Address}, empty), " · ")
	if c.Synchronous != "" {
		primary.Note = "commits wait for " + c.Synchronous
		if c.Level != "on" {
			primary.Note += parted(", synchronous_commit = ", c.Level)
		}
	} else {
		primary.Note = "commits wait for no standby"
	}
	if primary.Silent {
		primary.Note = "does not answer"
	}
	d.place(primary, 0)
	seen := map[int]bool{}
	d.below(c, "", c.Site, 0, 1, seen)
	for i := range c.Nodes { // whose upstream is not known
		if !seen[i] {
			d.node(c, i, "", -1, 1, seen)
		}
	}
	d.Height = len(d.Boxes)*(boxHeight+boxGap) - boxGap + 4
	return d
}

func empty(s string) bool { return s == "" }

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// sites are the sites of a cluster, in order.
func (c Cluster) sites() []string {
	var all []string
	if c.Site != "" {
		all = append(all, c.Site)
	}
	for _, n := range c.Nodes {
		if n.Site != "" && !slices.Contains(all, n.Site) {
			all = append(all, n.Site)
		}
	}
	return all
}

// below places who receives from upstream, which is box at.
func (d *drawing) below(c Cluster, upstream, site string, at, depth int, seen map[int]bool) {
	for i, n := range c.Nodes {
		if n.Upstream == upstream && !seen[i] && (n.State != "" || n.Planned || n.Upstream != "") {
			d.node(c, i, site, at, depth, seen)
		}
	}
}

// node places a standby and who is following it; from is the box of its upstream,
// -1 where that is not known.
func (d *drawing) node(c Cluster, i int, site string, from, depth int, seen map[int]bool) {
	seen[i] = true
	n := c.Nodes[i]
	b := box{Name: n.Name, Planned: n.Planned, Silent: !n.Planned && n.State == "", Site: -1}
	if len(d.Sites) > 0 {
		b.Site = slices.IndexFunc(d.Sites, func(s siteKey) bool { return s.Name == n.Site })
	}
	var sub []string
	switch {
	case n.Planned:
		b.Chip = "to be built"
	case n.State == "":
		b.Chip = "not connected"
	case n.SyncState != "":
		b.Chip = n.SyncState
	default:
		b.Chip = n.State
	}
	if n.State != "" && n.State != "streaming" {
		sub = append(sub, n.State)
	}
	sub = append(sub, n.Address)
	if n.Delay > 0 {
		sub = append(sub, "applies after "+n.Delay.String())
	}
	b.Sub = strings.Join(slices.DeleteFunc(sub, empty), " · ")
	switch {
	case n.AppName != "" && n.AppName != n.Name:
		b.Note, b.Bad = "calls itself "+n.AppName, true
	case n.Unlisted:
		b.Note = "not in the runbook"
	case n.AppName != "":
		b.Note = "application_name " + n.AppName
	}
	me := d.place(b, depth)
	if from >= 0 {
		p := d.Boxes[from]
		far := len(d.Sites) > 0 && n.Site != "" && site != "" && n.Site != site
		d.Lines = append(d.Lines, line{
			X: p.X + indent/2, Y1: p.Y + boxHeight, Y2: d.Boxes[me].Y + boxHeight/2, X2: d.Boxes[me].X,
			Sync: n.SyncState == "sync" || n.SyncState == "quorum", Planned: n.Planned, Far: far,
		})
	}
	d.below(c, n.Name, n.Site, me, depth+1, seen)
}

// place puts a box below the others.
func (d *drawing) place(b box, depth int) int {
	depth = min(depth, 5)
	b.X, b.Y = 2+depth*indent, 2+len(d.Boxes)*(boxHeight+boxGap)
	b.Width, b.Height = drawingWidth-4-depth*indent, boxHeight
	b.ChipWidth = int(float64(len([]rune(b.Chip)))*smallLetter) + 14
	b.ChipX = b.X + b.Width - b.ChipWidth - 8
	b.Full = b.Name
	b.Name = cut(b.Name, float64(b.Width-b.ChipWidth-34)/letterWidth)
	b.Sub = cut(b.Sub, float64(b.Width-24)/smallLetter)
	b.Note = cut(b.Note, float64(b.Width-24)/smallLetter)
	d.Boxes = append(d.Boxes, b)
	return len(d.Boxes) - 1
}

func cut(s string, letters float64) string {
	r := []rune(s)
	if n := int(letters); len(r) > n && n > 1 {
		return string(r[:n-1]) + "…"
	}
	return s
}

// Color is that of a box's site.
func (d drawing) Color(site int) string {
	if site < 0 || site >= len(d.Sites) {
		return "#5a6472"
	}
	return d.Sites[site].Color
}

// Path is the line as an SVG path.
func (l line) Path() string {
	return fmt.Sprintf("M%d %dV%dH%d", l.X, l.Y1, l.Y2, l.X2)
}

// TextX is where a box's text begins.
func (b box) TextX() int { return b.X + 14 }

// Line is the baseline of its nth line of text.
func (b box) Line(n int) int { return b.Y + 4 + 18*n }

// ChipY, ChipText and ChipMiddle are where its chip stands.
func (b box) ChipY() int { return b.Y + 8 }

// ChipText is the baseline of the chip's word.
func (b box) ChipText() int { return b.ChipY() + 12 }

// ChipMiddle is the middle of the chip.
func (b box) ChipMiddle() int { return b.ChipX + b.ChipWidth/2 }

// ChipFill is the colour under the chip's word: green where commits wait for
// the server, red where it is not there.
func (b box) ChipFill() string {
	switch {
	case b.Silent:
		return "#fdecea"
	case b.Chip == "sync" || b.Chip == "quorum":
		return "#dff0e5"
	case b.Primary:
		return "#1c2430"
	}
	return "#e9edf1"
}

// ChipInk is the colour of the chip's word.
func (b box) ChipInk() string {
	switch {
	case b.Silent:
		return "#a8231b"
	case b.Chip == "sync" || b.Chip == "quorum":
		return "#17703a"
	case b.Primary:
		return "#ffffff"
	}
	return "#5a6472"
}
