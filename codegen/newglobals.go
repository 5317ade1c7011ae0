package codegen

import (
	"fmt"
	"slices"

	"github.com/klpc/klpc/elfdiff"
)

// AlreadyDefined: a new function or variable that the object has already.
const AlreadyDefined elfdiff.ProblemKind = "already-defined"

// newGlobals are the global functions and variables that the patch adds, by
// name: the objects that get them, in the order of the units. A source that is
// linked into several modules adds its own copy to each of them, and the copies
// are kept apart by the modules' names.
type newGlobals map[string][]string

func findNewGlobals(units []Unit) newGlobals {
	g := newGlobals{}
	for _, u := range units {
		for _, q := range u.Diff.Patched.Pieces {
			if !isNewGlobal(q) {
				continue
			}
			for _, s := range q.Names {
				if !slices.Contains(g[s.Name], u.Object) {
					g[s.Name] = append(g[s.Name], u.Object)
				}
			}
		}
	}
	return g
}

// in is the name in the livepatch of what code of an object calls by a name.
func (g newGlobals) in(object, name string) (string, error) {
	objects := g[name]
	switch {
	case len(objects) <= 1:
		return name, nil
	case slices.Contains(objects, object):
		return name + "." + object, nil
	case slices.Contains(objects, VMLinux):
		return name + "." + VMLinux, nil
	}
	return "", fmt.Errorf("the patch adds it to the modules %v, and nothing tells which of them is meant", objects)
}

// checkNew makes sure that what the patch adds does not stand in for what the
// kernel has: a function that moves here from another file, or that overrides
// a weak one. Callers that are not patched would go on with the old one.
func (u *unitPlan) checkNew(q *elfdiff.Piece) {
	for _, s := range q.Names {
		if o := u.Diff.Orig.Named(s.Name); o != nil && o.Init {
			continue // it was init code, and whoever called it then has gone, too
		}
		exists := u.defined[s.Name] != nil
		if u.module == nil {
			i, err := u.global(s.Name)
			exists = err == nil && isGlobalKind(u.target.Symtab.At(i).Kind)
		}
		if exists {
			u.problem(AlreadyDefined, q, q.Origin()-q.Lo,
				fmt.Sprintf("%s is added here, but %s has it already: it moves from another file, or overrides a weak definition, and callers outside of the patch would go on with the old one", s.Name, u.Object),
				"change it where it is; or give the new one another name")
		}
	}
}

// isGlobalKind judges a symbol's letter as nm prints it.
func isGlobalKind(kind byte) bool { return kind >= 'A' && kind <= 'Z' }

// ownName is the name that a new global of the unit gets in the livepatch.
func (u *unitPlan) ownName(name string) string {
	if own, err := u.newNames.in(u.Object, name); err == nil {
		return own
	}
	return name
}
