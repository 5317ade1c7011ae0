package pipeline

import (
	"strings"

	"github.com/klpc/klpc/diff"
)

// Why a function is in the module.
const (
	Edited  = "edited"
	Inlined = "inlined callee edited"
	Reached = "reached through a macro, type or header"
	New     = "new"
)

// why explains from the source why a function changed: the patch edits its
// text, or that of functions that the compiler has inlined into it.
func why(name string, edited []string) string {
	source, _, _ := strings.Cut(name, ".")
	for _, e := range edited {
		if e == source || strings.HasSuffix(source, "_sys_"+e) {
			return Edited
		}
	}
	if len(edited) == 0 {
		return Reached
	}
	return Inlined + " (" + strings.Join(edited, ", ") + ")"
}

// editedFunctions names the functions whose text the edits touch, in order.
func editedFunctions(text []byte, edits []diff.Edit) []string {
	var names []string
	seen := map[string]bool{}
	for _, f := range diff.Functions(text) {
		for _, e := range edits {
			if e.NewStart <= f.Last && e.NewStart+max(e.NewLines, 1) > f.First && !seen[f.Name] {
				seen[f.Name] = true
				names = append(names, f.Name)
			}
		}
	}
	return names
}
