package verify

// What belongs to no function of the patch: the init file, what the patch adds
// without using it, and what modpost writes into every module.

import (
	"bytes"
	"cmp"
	"debug/elf"
	"fmt"
	"slices"
	"strings"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
)

// thisModule is the section of the module's struct module.
const thisModule = ".gnu.linkonce.this_module"

// pairInit pairs the functions and variables of the init file, which have names.
func (c *check) pairInit() {
	u := c.v.init
	for _, p := range u.view.Pieces {
		if p.Kind == elfdiff.Table || p.Hi == p.Lo {
			continue
		}
		if p.Sym == nil && len(p.Refs) == 0 && len(bytes.Trim(p.Bytes(), "\x00")) == 0 {
			continue // padding between variables
		}
		if p.Sym == nil {
			c.find(Patched, u.Source, fmt.Sprintf("%s has no name", p.Name()), "this is klpc's fault: report it")
			continue
		}
		var at []place
		for _, s := range c.named[p.Sym.Name] {
			if s.Section != nil && s.Section.Name == p.Sec.Name {
				at = append(at, place{s.Section, s.Value - (p.Origin() - p.Lo)})
			}
		}
		if len(at) != 1 {
			c.find(Patched, u.Source, fmt.Sprintf("the module has %d symbols %s in %s", len(at), p.Sym.Name, p.Sec.Name), "this module was made by another version of klpc: build it again")
			continue
		}
		c.pair(pieceID{u, p}, at[0], u.Source)
	}
}

// callbackPointers accounts for the pointers that keep callbacks callable.
func (c *check) callbackPointers() {
	sec := c.obj.Section(".rodata.klpc_callbacks")
	if sec == nil {
		return
	}
	callbacks := map[place]bool{}
	if c.tables != nil {
		for slot := range c.tables.callbacks {
			if to, ok := internal(c.relocAt(slot.sec, slot.off)); ok {
				callbacks[to] = true
			}
		}
	}
	for off := uint64(0); off+8 <= sec.Size; off += 8 {
		r := c.relocAt(sec, off)
		if r == nil {
			continue
		}
		r.used = true
		to, ok := internal(r)
		if !ok || r.klp != "" || r.Type != rX64 || !callbacks[to] {
			c.find(Patched, c.where(sec, off), "the pointer leads to no callback of the redirect table", reportHint)
			continue
		}
		delete(callbacks, to)
		c.taken[to] = true
		c.claim(sec, off, off+8, "a pointer to a callback")
	}
	for to := range callbacks {
		c.find(Patched, c.where(to.sec, to.off), "nothing keeps the callback callable on a kernel with IBT", reportHint)
	}
	c.bytes(sec.Name, make([]byte, sec.Size), sec.Size, place{sec, 0}, nil)
}

// callbacks pairs the callbacks of the redirect table with the functions that the
// patch declares as such.
func (c *check) callbacks() {
	if c.tables == nil {
		return
	}
	kinds := callbackKinds()
	type declared struct{ object, kind string }
	want := map[declared][]pieceID{}
	for _, u := range c.v.units {
		for _, d := range u.callbacks() {
			k := declared{u.Object, d.kind}
			want[k] = append(want[k], pieceID{u, d.piece})
		}
	}
	for _, o := range c.tables.objects {
		for i, slot := range o.callbacks {
			field := (slot.off - o.at.off - objectCallbacks) / 8
			k := declared{o.name, kinds[field]}
			r := c.relocAt(slot.sec, slot.off)
			to, ok := internal(r)
			if len(want[k]) != 1 || !ok || r.klp != "" || r.Type != rX64 {
				c.find(Patched, c.where(slot.sec, slot.off), fmt.Sprintf("callback %d of %s is not what the patch declares as %s", i, o.name, k.kind), reportHint)
				continue
			}
			id := want[k][0]
			c.pair(id, place{to.sec, to.off - (id.p.Origin() - id.p.Lo)}, c.where(slot.sec, slot.off))
			delete(want, k)
		}
	}
	for k := range want {
		c.find(Patched, k.object, fmt.Sprintf("the patch declares a callback %s, and the redirect table has none", k.kind), reportHint)
	}
}

type callback struct {
	kind  string
	piece *elfdiff.Piece
}

// callbacks finds what the unit declares with KLP_PRE_PATCH_CALLBACK and its
// kin: pointers named __klp_KIND_callback_* in .discard.klp_callback_ptrs.
func (x *unit) callbacks() []callback {
	var out []callback
	for _, s := range x.Patched.Symbols {
		if s.Section == nil || s.Section.Name != ".discard.klp_callback_ptrs" {
			continue
		}
		kind, _, ok := strings.Cut(strings.TrimPrefix(s.Name, "__klp_"), "_callback")
		if !ok {
			continue
		}
		for _, r := range x.Patched.Relocs(s.Section) {
			if r.Off == s.Value && r.Sym != nil {
				if q := x.view.FuncAt(r.Sym, r.Addend); q != nil {
					out = append(out, callback{kind, q})
				}
			}
		}
	}
	return out
}

// orphans pairs globals that the patch adds and that nothing in the module uses.
func (c *check) orphans() {
	for _, u := range c.v.units {
		for _, p := range u.view.Pieces {
			if p.Sym == nil || p.Sym.Bind == elf.STB_LOCAL || u.added(p.Sym.Name) != p {
				continue
			}
			if _, ok := c.pairs[pieceID{u, p}]; ok {
				continue
			}
			for _, name := range []string{p.Sym.Name + "." + u.Object, p.Sym.Name} {
				if s := c.named[name]; len(s) == 1 && s[0].Section != nil && s[0].Value >= p.Origin()-p.Lo {
					c.pair(pieceID{u, p}, place{s[0].Section, s[0].Value - (p.Origin() - p.Lo)}, u.Source)
					break
				}
			}
		}
	}
	c.drain()
}

// moduleLayout is where struct module has what modpost fills in, in bytes.
type moduleLayout struct {
	size             uint64
	name, init, exit uint64
	nameSize         uint64
	source           string // empty: not known
	// sizes are those of struct klp_object and struct klp_func, if known.
	sizes map[string]uint64
}

// findModuleLayout reads the layout of struct module from the kernel's types, or
// takes it from what modpost makes, or from a module of this kernel.
func findModuleLayout(in Inputs) moduleLayout {
	k := in.Kernel
	if k.Image != nil {
		if l, ok := layoutFromTypes(k); ok {
			return l
		}
	}
	if in.Mod != nil {
		if l, ok := layoutFromModule(in.Mod, in.ModName); ok {
			return l
		}
	}
	names := make([]string, 0, len(k.Modules))
	for n := range k.Modules {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		if l, ok := layoutFromModule(k.Modules[n].Object, n); ok {
			return l
		}
	}
	return moduleLayout{}
}

// layoutFromModule finds where a module's struct module has its name and the
// pointers to its first and last function.
func layoutFromModule(o *elfobj.Object, name string) (moduleLayout, bool) {
	s := o.Section(thisModule)
	if s == nil {
		return moduleLayout{}, false
	}
	l := moduleLayout{size: s.Size, source: "as in module " + name, nameSize: maxObjectName + 1}
	i := bytes.Index(s.Data, append([]byte(name), 0))
	if i < 0 {
		return moduleLayout{}, false
	}
	l.name = uint64(i)
	for _, r := range o.Relocs(s) {
		switch {
		case r.Sym == nil:
		case r.Sym.Name == "init_module":
			l.init = r.Off
		case r.Sym.Name == "cleanup_module":
			l.exit = r.Off
		}
	}
	return l, l.init > 0 && l.exit > 0
}

// linkonce compares the module's struct module.
func (c *check) linkonce() {
	sec := c.obj.Section(thisModule)
	if sec == nil {
		return // accepted says so
	}
	l := c.v.layout
	c.claim(sec, 0, sec.Size, "struct module")
	if l.source == "" {
		c.lacks(Patched, "the layout of struct module is not known: the kernel's image has no BTF, and no module file was given")
	} else if sec.Size != l.size {
		c.find(Patched, sec.Name, fmt.Sprintf("struct module has %d bytes; it has %d in the kernel (%s)", sec.Size, l.size, l.source), reportHint)
		return
	}
	for _, r := range c.within(sec, 0, sec.Size) {
		r.used = true
		known := l.source != ""
		want := ""
		switch {
		case known && r.Off == l.init, !known && r.Sym != nil && r.Sym.Name == "init_module":
			want = "init_module"
		case known && r.Off == l.exit, !known && r.Sym != nil && r.Sym.Name == "cleanup_module":
			want = "cleanup_module"
		}
		if want == "" || r.klp != "" || r.Type != rX64 || r.Addend != 0 || r.Sym == nil || r.Sym.Name != want || r.Sym.Section == nil {
			c.find(Patched, c.where(sec, r.Off), fmt.Sprintf("a relocation to %s is there, and struct module must have %s", c.target(r), cmp.Or(want, "none")), reportHint)
		}
	}
	if l.source == "" {
		return
	}
	for _, off := range []uint64{l.init, l.exit} {
		if c.relocAt(sec, off) == nil {
			c.find(Patched, c.where(sec, off), "struct module does not name the module's first and last function", reportHint)
		}
	}
	want := make([]byte, sec.Size)
	if l.name+uint64(len(c.mod.Name)) < uint64(len(want)) {
		copy(want[l.name:], c.mod.Name)
	}
	c.bytes(sec.Name, want, sec.Size, place{sec, 0}, nil)
}

// freeSections are those without relocations whose content the third proof
// judges, or that no code depends on.
func freeSection(s *elfobj.Section) bool {
	return s.Name == ".modinfo" || strings.HasPrefix(s.Name, "__version") || s.Type == elf.SHT_NOTE || strings.HasPrefix(s.Name, ".note") ||
		s.Name == ".orc_header"
}

// leftovers makes sure that nothing of the module is unexplained.
func (c *check) leftovers() {
	for _, sec := range c.obj.Sections {
		for _, r := range c.relocs[sec] {
			if !r.used {
				r.used = true
				c.find(Patched, c.where(sec, r.Off), fmt.Sprintf("nothing in the patched objects explains the relocation to %s", c.target(r)), reportHint)
			}
		}
		if sec.Flags&elf.SHF_ALLOC == 0 || sec.Type == elf.SHT_RELA || sec.Size == 0 || freeSection(sec) {
			continue
		}
		c.gaps(sec)
	}
}

// gaps looks for bytes of a section that are neither accounted for nor padding.
func (c *check) gaps(sec *elfobj.Section) {
	all := slices.Clone(c.claims[sec])
	slices.SortStableFunc(all, func(a, b claim) int { return cmp.Or(cmp.Compare(a.lo, b.lo), cmp.Compare(b.hi, a.hi)) })
	var end uint64
	var last claim
	for _, x := range all {
		if x.lo < end && x.hi > x.lo && !(x.literal && last.literal && x.lo == last.lo && x.hi == last.hi) {
			c.find(Patched, c.where(sec, x.lo), fmt.Sprintf("%s and %s take the same bytes of the module", last.what, x.what), reportHint)
		}
		if x.lo > end {
			c.gap(sec, end, x.lo)
		}
		if x.hi >= end && x.hi > x.lo {
			end, last = x.hi, x
		}
	}
	if end < sec.Size {
		c.gap(sec, end, sec.Size)
	}
}

// gap judges bytes between what is accounted for. Padding is shorter than the
// section's alignment.
func (c *check) gap(sec *elfobj.Section, lo, hi uint64) {
	padding := hi-lo < max(sec.Align, 1)
	if padding && sec.Data != nil {
		d := sec.Data[lo:hi]
		switch {
		case sec.Flags&elf.SHF_EXECINSTR != 0:
			padding = len(bytes.Trim(d, "\x90\xcc\x00")) == 0
		default:
			padding = len(bytes.Trim(d, "\x00")) == 0
		}
	}
	if !padding {
		c.find(Patched, c.where(sec, lo), fmt.Sprintf("nothing in the patched objects explains %d bytes of %s", hi-lo, sec.Name), reportHint)
	}
}

// countPatched says what the second proof covers.
func (c *check) countPatched() {
	var functions, data, relocs, entries, literals int
	for id := range c.pairs {
		switch {
		case id.u == c.v.init:
		case id.p.Func:
			functions++
		default:
			data++
		}
	}
	for _, rs := range c.relocs {
		relocs += len(rs)
	}
	for _, all := range c.claims {
		for _, x := range all {
			switch {
			case x.literal:
				literals++
			case strings.HasPrefix(x.what, "an entry of "):
				entries++
			}
		}
	}
	c.count(Patched, "functions compared", functions)
	c.count(Patched, "variables and tables compared", data)
	c.count(Patched, "references to literals compared", literals)
	c.count(Patched, "special-section entries compared", entries)
	c.count(Patched, "relocations accounted for", relocs)
}
