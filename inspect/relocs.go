package inspect

import (
	"bytes"
	"cmp"
	"debug/elf"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/klpc/klpc/elfobj"
)

// What the livepatch core reads names with: ".klp.rela.%55[^.]" and
// ".klp.sym.%55[^.].%511[^,],%lu". Source: kernel/livepatch/core.c,
// klp_write_section_relocs and klp_resolve_symbols.
const (
	relaPrefix = ".klp.rela."
	symPrefix  = ".klp.sym."
	mostObject = 55  // bytes
	mostName   = 511 // bytes
)

// parseSection takes .klp.rela.OBJECT.TARGET apart.
func parseSection(name string) (object, target string, ok bool) {
	rest, ok := strings.CutPrefix(name, relaPrefix)
	if !ok {
		return "", "", false
	}
	object, target, ok = strings.Cut(rest, ".")
	return object, target, ok && object != "" && len(object) <= mostObject && target != ""
}

// parseSymbol takes .klp.sym.OBJECT.NAME,SYMPOS apart.
func parseSymbol(s string) (sym RelocSymbol, ok bool) {
	rest, ok := strings.CutPrefix(s, symPrefix)
	if !ok {
		return sym, false
	}
	object, rest, _ := strings.Cut(rest, ".")
	name, number, _ := strings.Cut(rest, ",")
	sympos, err := strconv.ParseUint(number, 10, 64)
	ok = err == nil && object != "" && len(object) <= mostObject && name != "" && len(name) <= mostName
	return RelocSymbol{Object: object, Name: name, Sympos: sympos}, ok
}

// relocations describes the sections of livepatch relocations.
func (r *reader) relocations() {
	targets := []*elfobj.Section{}
	for _, s := range r.object.Sections {
		if !strings.HasPrefix(s.Name, relaPrefix) && s.Flags&elfobj.SHFRelaLivepatch == 0 {
			continue
		}
		if s.Type != elf.SHT_RELA || s.Target == nil {
			r.problem("section %s: it holds no relocations", shown(s.Name))
			continue
		}
		r.module.Relocations = append(r.module.Relocations, r.relocSection(s))
		if !slices.Contains(targets, s.Target) {
			targets = append(targets, s.Target)
		}
	}
	slices.SortStableFunc(r.module.Relocations, func(a, b RelocSection) int {
		return cmp.Or(compareObjects(a.Object, b.Object), cmp.Compare(a.Section, b.Section), cmp.Compare(a.Target, b.Target))
	})
	for _, t := range targets {
		r.checkOverlaps(t)
	}
}

// relocSection describes one section and checks it.
func (r *reader) relocSection(s *elfobj.Section) RelocSection {
	out := RelocSection{Section: s.Name, Target: s.Target.Name, Count: len(s.Relocs), Symbols: []RelocSymbol{}}
	object, named, ok := parseSection(s.Name)
	label := "section " + shown(s.Name)
	if ok {
		out.Object = object
		r.checkObject(label, object)
		if named != s.Target.Name {
			r.problem("%s: it applies to section %s", label, shown(s.Target.Name))
		}
	} else {
		r.problem("%s: the name is not .klp.rela.OBJECT.SECTION", label)
	}
	if s.Flags&elfobj.SHFRelaLivepatch == 0 {
		r.problem("%s: no flag SHF_RELA_LIVEPATCH", label)
	}
	if s.Flags&elf.SHF_ALLOC == 0 {
		r.problem("%s: no flag SHF_ALLOC, the kernel would not keep it", label)
	}
	if s.Target.Flags&elf.SHF_ALLOC == 0 {
		r.problem("%s: section %s is not loaded", label, shown(s.Target.Name))
	}
	counts := map[symbolKey]map[string]int{}
	for _, rel := range s.Relocs {
		r.checkPlace(s, rel)
		sym, ok := r.relocSymbol(label, object, rel.Sym)
		if !ok {
			continue
		}
		if counts[sym] == nil {
			counts[sym] = map[string]int{}
		}
		counts[sym][r.typeName(rel.Type)]++
	}
	for key, types := range counts {
		out.Symbols = append(out.Symbols, RelocSymbol{key.object, key.name, key.sympos, sortedCounts(types)})
	}
	slices.SortFunc(out.Symbols, func(a, b RelocSymbol) int {
		return cmp.Or(compareObjects(a.Object, b.Object), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Sympos, b.Sympos))
	})
	return out
}

// symbolKey tells livepatch symbols apart.
type symbolKey struct {
	object, name string
	sympos       uint64
}

func sortedCounts(counts map[string]int) []TypeCount {
	var all []TypeCount
	for name, n := range counts {
		all = append(all, TypeCount{name, n})
	}
	slices.SortFunc(all, func(a, b TypeCount) int { return cmp.Compare(a.Type, b.Type) })
	return all
}

// checkObject checks that relocations for a module can be applied at all: the
// livepatch core applies them for the objects of its table.
func (r *reader) checkObject(label, object string) {
	if object == vmlinux || r.module.Tables != Static {
		return
	}
	if !slices.ContainsFunc(r.module.Objects, func(o Object) bool { return o.Name == object }) {
		r.problem("%s: %s is not among the patched objects, so that it is never applied", label, shown(object))
	}
}

// relocSymbol checks the symbol of a relocation that is applied with an object.
func (r *reader) relocSymbol(label, object string, s *elfobj.Symbol) (symbolKey, bool) {
	if s == nil {
		r.problem("%s: a relocation has no symbol", label)
		return symbolKey{}, false
	}
	if s.Section != nil || s.Shndx != elfobj.SHNLivepatch {
		r.problem("%s: symbol %s is not a livepatch symbol (SHN_LIVEPATCH)", label, shown(symbolName(s)))
	}
	sym, ok := parseSymbol(s.Name)
	if !ok {
		r.problem("%s: the name of symbol %s is not .klp.sym.OBJECT.NAME,SYMPOS", label, shown(symbolName(s)))
		return symbolKey{}, false
	}
	if sym.Object == vmlinux && object != vmlinux && object != "" {
		r.problem("%s: symbol %s is of vmlinux, relocations for a module must not use it", label, shown(s.Name))
	}
	return symbolKey{sym.Object, sym.Name, sym.Sympos}, true
}

// symbolName names a symbol in a message.
func symbolName(s *elfobj.Symbol) string {
	if s.Name == "" && s.Section != nil {
		return s.Section.Name
	}
	return s.Name
}

func (r *reader) typeName(t uint32) string {
	if known, ok := r.relocs[t]; ok {
		return known.Name
	}
	return fmt.Sprintf("type %d", t)
}

// checkPlace checks that the kernel can apply a livepatch relocation: it must
// know the type, and the place must be zero.
func (r *reader) checkPlace(s *elfobj.Section, rel elfobj.Reloc) {
	at := place{s.Target, rel.Off}
	t := r.relocs[rel.Type]
	if !t.Klp {
		r.problem("section %s: %v: the livepatch core cannot apply %s", shown(s.Name), r.where(at), r.typeName(rel.Type))
		return
	}
	data, ok := r.bytes(at, uint64(t.Size))
	switch {
	case !ok:
		r.problem("section %s: %v: the place ends outside its section", shown(s.Name), r.where(at))
	case len(bytes.Trim(data, "\x00")) > 0:
		r.problem("section %s: %v: the place is not zero", shown(s.Name), r.where(at))
	}
}

// checkOverlaps finds places that a livepatch relocation and another one write.
// The first one to be applied makes the place nonzero for the second.
func (r *reader) checkOverlaps(target *elfobj.Section) {
	type write struct {
		start, end uint64
		klp        bool
	}
	var writes []write
	for _, s := range r.object.Sections {
		if s.Type != elf.SHT_RELA || s.Target != target {
			continue
		}
		klp := s.Flags&elfobj.SHFRelaLivepatch != 0
		for _, rel := range s.Relocs {
			if size := uint64(r.relocs[rel.Type].Size); size > 0 {
				writes = append(writes, write{rel.Off, rel.Off + size, klp})
			}
		}
	}
	slices.SortStableFunc(writes, func(a, b write) int { return cmp.Compare(a.start, b.start) })
	for i, w := range writes[:max(len(writes)-1, 0)] {
		if next := writes[i+1]; w.end > next.start && (w.klp || next.klp) {
			r.problem("%v: two relocations write the same place", r.where(place{target, next.start}))
		}
	}
}

// symbols checks livepatch symbols outside livepatch relocations.
func (r *reader) symbols() {
	for _, s := range r.object.Symbols {
		if !strings.HasPrefix(s.Name, symPrefix) {
			continue
		}
		if s.Section != nil || s.Shndx != elfobj.SHNLivepatch {
			r.problem("symbol %s is not marked as a livepatch symbol (SHN_LIVEPATCH)", shown(s.Name))
		}
	}
	for _, s := range r.object.Sections {
		if !ordinary(s) || strings.HasPrefix(s.Name, relaPrefix) {
			continue
		}
		for _, rel := range s.Relocs {
			if elf.R_X86_64(rel.Type) != elf.R_X86_64_NONE && rel.Sym != nil && rel.Sym.Section == nil && rel.Sym.Shndx == elfobj.SHNLivepatch {
				r.problem("%v: an ordinary relocation uses the livepatch symbol %s", r.where(place{s.Target, rel.Off}), shown(rel.Sym.Name))
			}
		}
	}
}
