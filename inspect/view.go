package inspect

import (
	"bytes"
	"cmp"
	"debug/elf"
	"fmt"
	"math"
	"slices"

	"github.com/klpc/klpc/elfobj"
)

// place is a position in a section, in bytes from its start.
type place struct {
	section *elfobj.Section
	off     uint64
}

func (p place) plus(n uint64) place { return place{p.section, p.off + n} }

// view answers what a module's data holds once the module loader is through
// with it, except for what the livepatch core applies.
type view struct {
	object  *elfobj.Object
	relocAt map[place]elfobj.Reloc // ordinary ones that do something
	// offsets are where relocAt has something, ascending.
	offsets map[*elfobj.Section][]uint64
	// symbolsIn are the named ones, in symbol table order.
	symbolsIn map[*elfobj.Section][]*elfobj.Symbol
}

func newView(o *elfobj.Object) view {
	v := view{object: o, relocAt: map[place]elfobj.Reloc{}, offsets: map[*elfobj.Section][]uint64{}, symbolsIn: map[*elfobj.Section][]*elfobj.Symbol{}}
	for _, s := range o.Sections {
		if !ordinary(s) {
			continue
		}
		for _, r := range s.Relocs {
			if elf.R_X86_64(r.Type) == elf.R_X86_64_NONE {
				continue
			}
			v.relocAt[place{s.Target, r.Off}] = r
			v.offsets[s.Target] = append(v.offsets[s.Target], r.Off)
		}
	}
	for _, offs := range v.offsets {
		slices.Sort(offs)
	}
	for _, s := range o.Symbols {
		if s.Section != nil && s.Name != "" {
			v.symbolsIn[s.Section] = append(v.symbolsIn[s.Section], s)
		}
	}
	return v
}

// ordinary tells whether the module loader applies the relocations.
func ordinary(s *elfobj.Section) bool {
	return s.Type == elf.SHT_RELA && s.Flags&elfobj.SHFRelaLivepatch == 0 && s.Target != nil && s.Target.Flags&elf.SHF_ALLOC != 0
}

// relocsIn returns the offsets, relative to p, of the relocations in size bytes
// from p.
func (v *view) relocsIn(p place, size uint64) []uint64 {
	var rel []uint64
	offsets := v.offsets[p.section]
	first, _ := slices.BinarySearch(offsets, p.off)
	for _, off := range offsets[first:] {
		if off-p.off >= size {
			break
		}
		rel = append(rel, off-p.off)
	}
	return rel
}

// bytes returns the n bytes at p. Sections without contents hold zeros, of
// which no more than a table's worth is given.
func (v *view) bytes(p place, n uint64) ([]byte, bool) {
	const most = 1 << 20
	s := p.section
	if p.off > s.Size || n > s.Size-p.off {
		return nil, false
	}
	if s.Type == elf.SHT_NOBITS {
		if n > most {
			return nil, false
		}
		return make([]byte, n), true
	}
	if p.off > uint64(len(s.Data)) || n > uint64(len(s.Data))-p.off {
		return nil, false
	}
	return s.Data[p.off : p.off+n : p.off+n], true
}

// text returns the string at p.
func (v *view) text(p place) (string, error) {
	if p.off <= uint64(len(p.section.Data)) {
		if s, _, ok := bytes.Cut(p.section.Data[p.off:], []byte{0}); ok {
			return string(s), nil
		}
	}
	return "", fmt.Errorf("no string at %v", v.where(p))
}

// pointer returns where the 64-bit pointer at p points to, and false if there
// is none to a place in the module.
func (v *view) pointer(p place) (place, bool) {
	r, ok := v.relocAt[p]
	if !ok || elf.R_X86_64(r.Type) != elf.R_X86_64_64 {
		return place{}, false
	}
	return resolve(r, 0)
}

// resolve returns the place that a relocation refers to, bias bytes further.
func resolve(r elfobj.Reloc, bias int64) (place, bool) {
	if r.Sym == nil || r.Sym.Section == nil || r.Sym.Value > math.MaxInt64 {
		return place{}, false
	}
	off := int64(r.Sym.Value) + r.Addend + bias
	if off < 0 || uint64(off) > r.Sym.Section.Size {
		return place{}, false
	}
	return place{r.Sym.Section, uint64(off)}, true
}

// variable returns the variable that starts at p.
func (v *view) variable(p place) (*elfobj.Symbol, bool) {
	for _, s := range v.symbolsIn[p.section] {
		if s.Type == elf.STT_OBJECT && s.Value == p.off && s.Size > 0 {
			return s, true
		}
	}
	return nil, false
}

// function returns the function that starts at p. Of several, it takes the one
// that the reference names, else the first by name.
func (v *view) function(p place, reference *elfobj.Symbol) (*elfobj.Symbol, bool) {
	var found *elfobj.Symbol
	for _, s := range v.symbolsIn[p.section] {
		if s.Type != elf.STT_FUNC || s.Value != p.off {
			continue
		}
		if s == reference {
			return s, true
		}
		if found == nil || s.Name < found.Name {
			found = s
		}
	}
	return found, found != nil
}

// where names a place, in a message, by the function or variable around it.
func (v *view) where(p place) string {
	var in *elfobj.Symbol
	for _, s := range v.symbolsIn[p.section] {
		if s.Type != elf.STT_FUNC && s.Type != elf.STT_OBJECT || p.off < s.Value || p.off-s.Value >= s.Size {
			continue
		}
		if in == nil || cmp.Or(cmp.Compare(in.Value, s.Value), cmp.Compare(s.Name, in.Name)) < 0 {
			in = s
		}
	}
	if in == nil {
		return shown(elfobj.Pos{Section: p.section.Name, Off: p.off}.String())
	}
	return shown(elfobj.Pos{Section: p.section.Name, Symbol: in.Name, Off: p.off - in.Value}.String())
}
