package rights

import (
	"slices"
	"strconv"
	"strings"
)

// calls are the nodes of an expression that name a function.
var calls = []string{"FUNCEXPR", "OPEXPR", "DISTINCTEXPR", "NULLIFEXPR", "SCALARARRAYOPEXPR"}

// varying are the nodes that no constant takes the place of.
var varying = []string{"VAR", "PARAM", "COERCETODOMAINVALUE", "CASETESTEXPR"}

// folds says whether PostgreSQL may run one of the functions all while it only
// plans: a call of it whose arguments are constants is replaced by its result,
// and a function in SQL by its text, where such a call may stand. exprs is a
// pg_node_tree as text, or several.
func folds(exprs string, all, sql []uint32) bool {
	folds := false
	type open struct {
		node   string
		from   int
		varies bool
	}
	var nodes []open
	for i := 0; i < len(exprs) && !folds; i++ {
		switch exprs[i] {
		case '\\':
			i++ // what follows is a letter of a name
		case '{':
			word := exprs[i+1:]
			if end := strings.IndexAny(word, " {}"); end >= 0 {
				word = word[:end]
			}
			nodes = append(nodes, open{node: word, from: i, varies: slices.Contains(varying, word)})
		case '}':
			if len(nodes) == 0 {
				return true // it is not what is known here
			}
			n := nodes[len(nodes)-1]
			nodes = nodes[:len(nodes)-1]
			if n.varies && len(nodes) > 0 {
				nodes[len(nodes)-1].varies = true
			}
			if fn, ok := called(n.node, exprs[n.from:i]); ok {
				folds = slices.Contains(all, fn) && (!n.varies || slices.Contains(sql, fn))
			} else if !n.varies && (n.node == "COERCEVIAIO" || n.node == "ARRAYCOERCEEXPR") {
				folds = true
			}
		}
	}
	return folds
}

// called is the function that a node calls.
func called(node, text string) (uint32, bool) {
	field := ":opfuncid "
	switch {
	case !slices.Contains(calls, node):
		return 0, false
	case node == "FUNCEXPR":
		field = ":funcid "
	}
	_, rest, _ := strings.Cut(text, field) // it stands ahead of the arguments
	n, err := strconv.ParseUint(rest[:strings.IndexByte(rest+" ", ' ')], 10, 32)
	return uint32(n), err == nil
}
