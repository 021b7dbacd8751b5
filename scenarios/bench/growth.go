package bench

import (
	"context"
	"fmt"
	"slices"
)

// growth is the copy, the comparison and the catch-up at three sizes.
func (b *bench) growth(ctx context.Context) (*Report, error) {
	field := b.field(ours, pgcdb, floor)
	r := &Report{
		Title:    "How it grows",
		Says:     []string{"Slope: the exponent of time over size; 1 is twice the time for twice the data. That of the cutover stands with the cutover."},
		Commands: commands(field),
	}
	g := &grown{title: "The copy:", took: map[string][]float64{}, memory: map[string]int64{}}
	h := &grown{title: "The comparison, of a quiet database:", took: map[string][]float64{}, memory: map[string]int64{}}
	c := &grown{title: "The catch-up, over one set:", took: map[string][]float64{}}
	for _, mb := range []int{max(1, b.MB/2), b.MB, b.MB * 2} {
		t, err := b.race(ctx, plain, mb, field)
		if err != nil {
			return nil, err
		}
		g.add(float64(t.bytes), megabytes(t.bytes), t)
		if t, err = b.compare(ctx, mb); err != nil {
			return nil, err
		}
		h.add(float64(t.bytes), megabytes(t.bytes), t)
		way := applied{1, "true", "on"}
		changes, took, err := b.catchup(ctx, mb, []applied{way})
		if err != nil {
			return nil, err
		}
		seconds, _ := columns(took[0])
		c.add(float64(changes), fmt.Sprintf("%d changes", changes), &times{seconds: map[string][]float64{way.String(): seconds}})
	}
	for _, one := range []*grown{g, h, c} {
		r.Tables = append(r.Tables, one.table())
	}
	return r, nil
}

// grown is what several took at several sizes.
type grown struct {
	title  string
	names  []string
	heads  []string
	sizes  []float64
	took   map[string][]float64
	memory map[string]int64 // the most; nil: not told
}

func (g *grown) add(size float64, head string, t *times) {
	g.sizes, g.heads = append(g.sizes, size), append(g.heads, head)
	for name := range t.seconds {
		if g.took[name] == nil {
			g.names = append(g.names, name)
		}
		g.took[name] = append(g.took[name], t.median(name))
		if g.memory != nil {
			g.memory[name] = max(g.memory[name], t.memory[name])
		}
	}
	slices.Sort(g.names)
}

func (g *grown) table() Table {
	t := Table{Title: g.title, Header: append(append([]string{""}, g.heads...), "slope")}
	if g.memory != nil {
		t.Header = append(t.Header, "memory")
	}
	for _, name := range g.names {
		row := []string{name}
		for _, s := range g.took[name] {
			row = append(row, seconds(s))
		}
		row = append(row, fmt.Sprintf("%.2f", slope(g.sizes, g.took[name])))
		if g.memory != nil {
			row = append(row, megabytes(g.memory[name]))
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}
