package verify

// The second proof. A graph is walked in step: on one side the pieces of the
// patched objects and their references, on the other the ranges of the module and
// its relocations. It starts at the redirect table, whose entries pair new
// functions with changed ones, and at the init file. A pair's bytes must be
// equal, each reference of the one must have its relocation in the other at the
// same place, of the same type, and what they lead to is paired in turn or must
// be the same thing in the running kernel. Special-section entries belong to the
// functions that they describe. In the end all loaded bytes and relocations of
// the module must have been accounted for, so that nothing is there that no
// source explains.

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

func (c *check) patched() {
	c.redirects()
	c.callbacks()
	if c.v.init != nil {
		c.pairInit()
	}
	c.drain()
	c.callbackPointers()
	c.orphans()
	c.derivedTables()
	c.linkonce()
	c.leftovers()
	c.countPatched()
}

// pair notes that a piece is at a place of the module, from its first byte on.
func (c *check) pair(id pieceID, at place, from string) {
	if known, ok := c.pairs[id]; ok {
		if known != at {
			c.find(Patched, from, fmt.Sprintf("it leads to another place of the module than %s", id.p.Name()), reportHint)
		}
		return
	}
	if c.silent {
		return
	}
	c.pairs[id] = at
	c.queue = append(c.queue, id)
}

// drain compares what is paired until nothing new is reached. Entries of special
// sections come after all code, because their places are found through it.
func (c *check) drain() {
	for {
		for len(c.queue) > 0 {
			id := c.queue[0]
			c.queue = c.queue[1:]
			c.piece(id)
		}
		ids := c.sorted()
		for _, id := range ids {
			if !c.done[id] {
				c.done[id] = true
				c.specials(id)
			}
		}
		if len(c.queue) == 0 {
			return
		}
	}
}

// sorted lists the pairs in the order of units and places.
func (c *check) sorted() []pieceID {
	order := map[*unit]int{c.v.init: -1}
	for i, u := range c.v.units {
		order[u] = i
	}
	index := map[*elfobj.Section]int{}
	for i, s := range c.obj.Sections {
		index[s] = i
	}
	ids := make([]pieceID, 0, len(c.pairs))
	for id := range c.pairs {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b pieceID) int {
		x, y := c.pairs[a], c.pairs[b]
		return cmp.Or(cmp.Compare(order[a.u], order[b.u]), cmp.Compare(index[x.sec], index[y.sec]), cmp.Compare(x.off, y.off),
			strings.Compare(a.p.Name(), b.p.Name()))
	})
	return ids
}

// loaded are the flags that say how a section is mapped.
const loaded = elf.SHF_ALLOC | elf.SHF_WRITE | elf.SHF_EXECINSTR

// piece compares one pair.
func (c *check) piece(id pieceID) {
	p, at := id.p, c.pairs[id]
	s := id.u.shape(p)
	where := c.where(at.sec, at.off)
	if p.Sym != nil {
		where = c.where(at.sec, at.off+p.Origin()-p.Lo)
	}
	if at.off > at.sec.Size || s.size > at.sec.Size-at.off {
		c.find(Patched, where, fmt.Sprintf("%s of %s does not fit into the module's section", p.Name(), id.u.Source), reportHint)
		return
	}
	c.claim(at.sec, at.off, at.off+s.size, p.Name())
	if p.Sec.Flags&loaded != at.sec.Flags&loaded {
		c.find(Patched, where, fmt.Sprintf("section %s is not mapped as %s of the patched object is", at.sec.Name, p.Sec.Name), reportHint)
	}
	if align := max(p.Sec.Align, 1); at.off%align != p.Lo%align || max(at.sec.Align, 1)%align != 0 {
		c.find(Patched, where, fmt.Sprintf("it is not aligned to %d bytes as in the patched object", align), reportHint)
	}
	c.symbols(id, at, s.grow)
	c.bytes(where, s.data, s.size, at, s.refs)
	c.references(id, s.refs, at, s.size)
}

// symbols checks that a pair has the same symbols on both sides: the livepatch
// core takes functions' sizes from them.
func (c *check) symbols(id pieceID, at place, grow uint64) {
	for _, n := range id.p.Names {
		to := place{at.sec, at.off + n.Value - id.p.Lo}
		ok := slices.ContainsFunc(c.at[to], func(s *elfobj.Symbol) bool {
			own := s.Name == n.Name || s.Name == n.Name+"."+id.u.Object
			return own && s.Type == n.Type && s.Size == n.Size+grow
		})
		if !ok {
			c.find(Patched, c.where(to.sec, to.off), fmt.Sprintf("the module has no symbol %s of %d bytes there", n.Name, n.Size+grow), reportHint)
		}
	}
}

// bytes compares content outside of the fields that references fill in, which
// must be zero: the livepatch core refuses anything else.
func (c *check) bytes(where string, want []byte, size uint64, at place, refs []*elfdiff.Ref) {
	got := at.sec.Data
	if got == nil || at.off+size > uint64(len(got)) {
		if len(bytes.Trim(want, "\x00")) > 0 || got != nil {
			c.find(Patched, where, "the module has no bytes there", reportHint)
		}
		return
	}
	got = got[at.off : at.off+size]
	if want == nil {
		want = make([]byte, size)
	}
	if bytes.Equal(want, got) {
		return
	}
	for i := range got {
		if got[i] == want[i] {
			continue
		}
		for _, r := range refs {
			if uint64(i) >= r.Off && uint64(i) < r.Off+uint64(r.Size) {
				c.find(Patched, c.where(at.sec, at.off+uint64(i)), "the place that a relocation fills is not zero", reportHint)
				return
			}
		}
		c.find(Patched, c.where(at.sec, at.off+uint64(i)),
			fmt.Sprintf("byte %#02x is %#02x in the patched object", got[i], want[i]), reportHint)
		return
	}
}

// references compares the relocations of a range with references.
func (c *check) references(id pieceID, refs []*elfdiff.Ref, at place, size uint64) {
	rs := c.within(at.sec, at.off, at.off+size)
	k := 0
	for _, r := range refs {
		off := at.off + r.Off
		for ; k < len(rs) && rs[k].Off < off; k++ {
			c.extra(rs[k])
		}
		if k == len(rs) || rs[k].Off != off {
			c.find(Patched, c.where(at.sec, off), fmt.Sprintf("there is no relocation to %s", targetName(r)), reportHint)
			continue
		}
		c.reference(id, r, rs[k])
		k++
	}
	for ; k < len(rs); k++ {
		c.extra(rs[k])
	}
}

func (c *check) extra(r *reloc) {
	r.used = true
	c.find(Patched, c.where(r.sec, r.Off), fmt.Sprintf("a relocation to %s is there that the patched object does not have", symbolName(r.Sym)), reportHint)
}

// reference compares one reference with the relocation in its place.
func (c *check) reference(id pieceID, r *elfdiff.Ref, m *reloc) {
	where := c.where(m.sec, m.Off)
	if !c.silent {
		m.used = true
	}
	if m.Type != r.Type {
		c.find(Patched, where, fmt.Sprintf("the relocation to %s is %v; it is %v in the patched object", symbolName(m.Sym), elf.R_X86_64(m.Type), elf.R_X86_64(r.Type)), reportHint)
		return
	}
	if to, ok := internal(m); ok && m.klp == "" {
		c.reachesOwn(id, r, m, to, where)
		return
	}
	c.reachesKernel(id, r, m, where)
}

// reachesOwn judges a relocation that leads into the module.
func (c *check) reachesOwn(id pieceID, r *elfdiff.Ref, m *reloc, to place, where string) {
	wrong := func() {
		c.find(Patched, where, fmt.Sprintf("it leads to %s; it is %s in the patched object", c.where(to.sec, to.off), targetName(r)), reportHint)
	}
	switch r.To.Kind {
	case elfdiff.Literal:
		start := to.off + uint64(r.Adj) - uint64(r.Addend)
		n := uint64(len(r.To.Content))
		align := max(r.To.Sec.Align, 1)
		if to.sec.Data == nil || start > to.sec.Size || n > to.sec.Size-start || !bytes.Equal(to.sec.Data[start:start+n], r.To.Content) ||
			to.sec.Flags&(loaded) != elf.SHF_ALLOC || start%align != 0 || max(to.sec.Align, 1)%align != 0 || len(c.within(to.sec, start, start+n)) > 0 {
			wrong()
			return
		}
		if !c.silent {
			c.claims[to.sec] = append(c.claims[to.sec], claim{start, start + n, "a literal", true})
		}
	case elfdiff.InPiece:
		c.ownPiece(id, r, to, where, wrong)
	case elfdiff.Undef:
		c.ownGlobal(id, r, m, to, where, wrong)
	default:
		wrong()
	}
}

// ownPiece judges a reference to something that the unit itself defines, where
// the module leads into itself: may it be a copy, and is it that copy?
func (c *check) ownPiece(id pieceID, r *elfdiff.Ref, to place, where string, wrong func()) {
	q := r.To.Piece
	if why := id.u.mustBeKernels(r); why != "" {
		c.find(Patched, where, fmt.Sprintf("it leads to a copy of %s in the module, but %s", q.Name(), why), reportHint)
	}
	base := place{to.sec, to.off - uint64(r.Addend) - (q.Origin() - q.Lo)}
	if base.off > to.sec.Size {
		wrong()
		return
	}
	if q.Func && !r.Branch && r.Addend+r.Adj == 0 {
		c.taken[place{base.sec, base.off + q.Origin() - q.Lo}] = true
	}
	if known, ok := c.pairs[pieceID{id.u, q}]; ok && known != base {
		wrong()
		return
	}
	c.pair(pieceID{id.u, q}, base, where)
}

// mustBeKernels says why a reference may not lead to a copy; "" if it may.
func (x *unit) mustBeKernels(r *elfdiff.Ref) string {
	q := r.To.Piece
	twin := x.twin(q)
	switch {
	case twin == nil || q.Sym == nil:
		return "" // new, or without an identity
	case q.Func:
		if !r.Branch && r.Addend+r.Adj == 0 && !r.Made && !x.partOf(q) {
			return "a pointer to a function of the running kernel must outlive the module"
		}
		return ""
	case elfdiff.MayTravel(x.plain[q]):
		return ""
	case x.module != nil && q.Sec.Name == "__dyndbg":
		return "" // its static key would be needed before the module's symbols are known
	case q.Kind == elfdiff.ReadOnly && x.leadsIntoChanged(q):
		return "" // labels as values
	}
	return "the running kernel has that variable, with its own content"
}

// partOf tells whether a function is a cold part, which nothing but its own
// function reaches.
func (x *unit) partOf(q *elfdiff.Piece) bool { return q.Parent != nil }

// leadsIntoChanged tells whether a constant holds places inside of a changed
// function.
func (x *unit) leadsIntoChanged(q *elfdiff.Piece) bool {
	for i := range q.Refs {
		r := &q.Refs[i]
		if r.To.Kind == elfdiff.InPiece && r.To.Piece.Func && r.Addend+r.Adj != 0 {
			if _, changed := x.changed[x.plain[r.To.Piece]]; changed {
				return true
			}
		}
	}
	return false
}

// Names of the pointers of the init file that are filled in when the module is
// finished.
const (
	funcPointer     = "klpc_func_"
	callbackPointer = "klpc_callback_"
)

// ownGlobal judges a reference by name to another object, where the module leads
// into itself: to what another unit adds, or from the init file.
func (c *check) ownGlobal(id pieceID, r *elfdiff.Ref, m *reloc, to place, where string, wrong func()) {
	name := r.To.Sym.Name
	if id.u == c.v.init {
		switch {
		case strings.HasPrefix(name, funcPointer) && c.tables != nil && c.tables.newFuncs[place{m.sec, m.Off}]:
			return // compared by redirects
		case strings.HasPrefix(name, callbackPointer) && c.tables != nil && c.tables.callbacks[place{m.sec, m.Off}]:
			return
		case name == "__this_module" && to.sec.Name == thisModule && to.off == uint64(r.Addend):
			return
		}
		wrong()
		return
	}
	for _, object := range []string{id.u.Object, VMLinux} {
		for _, x := range c.v.units {
			if x.Object != object {
				continue
			}
			q := x.added(name)
			if q == nil {
				continue
			}
			for _, n := range q.Names {
				if n.Name != name {
					continue
				}
				base := place{to.sec, to.off - uint64(r.Addend) - (n.Value - q.Lo)}
				if known, ok := c.pairs[pieceID{x, q}]; base.off > to.sec.Size || ok && known != base {
					wrong()
					return
				}
				if q.Func && !r.Branch && r.Addend+r.Adj == 0 {
					c.taken[place{to.sec, to.off - uint64(r.Addend)}] = true
				}
				c.pair(pieceID{x, q}, base, where)
				return
			}
		}
	}
	wrong()
}

// added returns the piece of a global that the unit adds, or nil.
func (x *unit) added(name string) *elfdiff.Piece {
	q := x.view.Named(name)
	if q == nil || x.twin(q) != nil || q.Init {
		return nil
	}
	return q
}

// targetName names what a reference reaches, for messages.
func targetName(r *elfdiff.Ref) string {
	name := "address 0"
	switch {
	case r.To.Kind == elfdiff.InPiece:
		name = r.To.Piece.Name()
	case r.To.Kind == elfdiff.Literal:
		text := bytes.TrimRight(r.To.Content, "\x00")
		return fmt.Sprintf("the constant %q", text[:min(len(text), 40)])
	case r.To.Sym != nil:
		name = r.To.Sym.Name
	}
	if n := r.Addend + r.Adj; n != 0 {
		name += fmt.Sprintf("%+#x", n)
	}
	return name
}

func symbolName(s *elfobj.Symbol) string {
	switch {
	case s == nil:
		return "address 0"
	case s.Name == "" && s.Section != nil:
		return s.Section.Name
	}
	return s.Name
}
