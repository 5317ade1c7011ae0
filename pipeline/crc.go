package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/kbuild"
)

// CRCChanged: an exported function's signature, or a type that it reaches, is
// another one.
const CRCChanged elfdiff.ProblemKind = "crc-changed"

// compareCRCs compares the symbol versions that a unit's exports have before
// and after the patch: modules of the running kernel rely on the old ones.
func (b *builder) compareCRCs(ctx context.Context, p *pair) error {
	job := kbuild.CompileJob{Unit: p.unit, Out: b.tempName(p.unit, "orig.crc.i")}
	orig, err := b.cache.symbolVersions(ctx, job)
	if errors.Is(err, kbuild.ErrGendwarfksyms) {
		b.note(err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	job.Unit, job.Shadow, job.Out = b.sel.after(p.unit), b.shadow, b.tempName(p.unit, "patched.crc.i")
	patched, err := b.cache.symbolVersions(ctx, job)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(orig)) {
		now, ok := patched[name]
		if !ok || now == orig[name] {
			continue
		}
		p.crcs = append(p.crcs, elfdiff.Problem{Kind: CRCChanged, At: elfobj.Pos{Object: p.unit.Source, Symbol: name},
			Detail: fmt.Sprintf("the version of the exported symbol %s changes (%#08x to %#08x): its prototype, or a type that it reaches, is another one, and modules of the running kernel rely on the old one", name, orig[name], now),
			Hint:   "keep the prototype and the types; add a new function or a shadow variable (klp_shadow_alloc) instead"})
	}
	return nil
}
