package pipeline

import (
	"context"
	"fmt"
	"slices"

	"github.com/klpc/klpc/kbuild"
)

// manyUnits is from how many units on, that are to be preprocessed, the types of a
// few are looked at first.
const manyUnits = 32

// sampleUnits is how many readers of a header are compiled for that if the patch
// changes no source file.
const sampleUnits = 2

// sampleTypes finds out early that a patch is refused for a type that it changes:
// before hundreds of units that read a header are preprocessed and compiled, for
// the same outcome. It compiles the changed source files, or if there are none two
// of the readers, and asks the layout gate. What it refuses stays refused whatever
// other units hold (settle). The objects are kept for the step compile. sample
// are the readers among those, candidates those with the indices left.
func (b *builder) sampleTypes(ctx context.Context, s *textSieve, candidates []kbuild.Unit, left []int) (sample []kbuild.Unit, refused bool, err error) {
	if b.gated = b.typesMayChange(); !b.gated || len(left) < manyUnits {
		return nil, false, nil
	}
	units := b.sel.units
	if len(units) == 0 {
		sample = b.usersFirst(s, candidates, left)
		units = sample
	}
	if len(units) == 0 {
		return nil, false, nil
	}
	b.step(fmt.Sprintf("look at the types of %s of %d", count(len(units), "unit"), len(b.sel.units)+len(left)))
	if b.pairs, err = b.compilePairs(ctx, units); err != nil {
		return nil, false, err
	}
	return sample, b.refusesTypes(), nil
}

// usersFirst are the first readers whose own text mentions what changes.
func (b *builder) usersFirst(s *textSieve, candidates []kbuild.Unit, left []int) []kbuild.Unit {
	var out []kbuild.Unit
	for _, i := range left {
		if len(out) == sampleUnits || s.query == nil {
			break
		}
		if u := candidates[i]; s.query.Mentions(b.original(u.Source)) {
			out = append(out, u)
		}
	}
	return out
}

// refusesTypes tells whether the layout gate refuses a type of the units that are
// compiled.
func (b *builder) refusesTypes() bool {
	return slices.ContainsFunc(slices.Concat(b.mergeTypes(), b.changedBits()), func(l ReportLayout) bool {
		return l.Verdict == "" && !b.allows(l.Type, map[string]bool{})
	})
}
