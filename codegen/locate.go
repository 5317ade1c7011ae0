package codegen

// Locating answers: which of the kernel's symbols is this function or variable
// of the rebuilt object? A name that occurs once in the kernel's symbol table
// answers itself. For the others (static functions and variables whose name
// several files use) the kernel's own code does: a function that is already
// located contains, at each of its relocations, the final address of what it
// refers to. From the unique names on, addresses spread along the references
// until nothing new is found; what is still open is searched among the
// candidates for the one whose code equals the rebuilt one. Each located
// function is compared with the kernel's bytes, so that a wrong guess, another
// compiler or another configuration cannot pass.

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/target"
)

// locator knows where the pieces of one original object lie in the kernel.
type locator struct {
	view *elfdiff.View
	tab  *target.Symtab
	img  *target.Image // nil: only names are known
	addr map[*elfdiff.Piece]uint64
	done bool
}

func newLocator(v *elfdiff.View, t Target) *locator {
	l := &locator{view: v, tab: t.Symtab, img: t.Image, addr: map[*elfdiff.Piece]uint64{}}
	for _, p := range v.Pieces {
		if p.Sym == nil {
			continue
		}
		if at := l.tab.Named(p.Sym.Name); len(at) == 1 {
			l.addr[p] = l.tab.At(at[0]).Addr
		}
	}
	return l
}

// spread locates everything that can be reached. It runs once, when the first
// ambiguous name is asked for.
func (l *locator) spread() {
	if l.done || l.img == nil {
		return
	}
	l.done = true
	var queue []*elfdiff.Piece
	for _, p := range l.view.Pieces {
		if _, ok := l.addr[p]; ok {
			queue = append(queue, p)
		}
	}
	for {
		for len(queue) > 0 {
			p := queue[0]
			queue = append(queue[1:], l.follow(p)...)
		}
		if p := l.search(); p != nil {
			queue = append(queue, p)
			continue
		}
		return
	}
}

// follow reads the addresses that a located piece refers to.
func (l *locator) follow(p *elfdiff.Piece) []*elfdiff.Piece {
	if p.Func && l.verify(p, l.addr[p]) != nil {
		return nil
	}
	var found []*elfdiff.Piece
	for i := range p.Refs {
		r := &p.Refs[i]
		if r.To.Kind != elfdiff.InPiece || r.To.Piece.Sym == nil {
			continue
		}
		q := r.To.Piece
		if _, ok := l.addr[q]; ok {
			continue
		}
		value, ok := l.value(p, l.addr[p], r)
		if !ok {
			continue
		}
		s := value - uint64(r.Addend)
		if l.named(q.Sym.Name, s) >= 0 {
			l.addr[q] = s
			found = append(found, q)
		}
	}
	return found
}

// search looks for a function whose code occurs at exactly one candidate.
func (l *locator) search() *elfdiff.Piece {
	for _, p := range l.view.Pieces {
		if _, ok := l.addr[p]; ok || !p.Func || p.Sym == nil {
			continue
		}
		var hits []uint64
		for _, i := range l.tab.Named(p.Sym.Name) {
			if a := l.tab.At(i).Addr; l.verify(p, a) == nil {
				hits = append(hits, a)
			}
		}
		if len(hits) == 1 {
			l.addr[p] = hits[0]
			return p
		}
	}
	return nil
}

// named returns the index of the symbol with that name and address, or -1.
func (l *locator) named(name string, addr uint64) int {
	for _, i := range l.tab.Named(name) {
		if l.tab.At(i).Addr == addr {
			return i
		}
	}
	return -1
}

// value reads S+A of a reference from the image, given where its piece lies.
func (l *locator) value(p *elfdiff.Piece, at uint64, r *elfdiff.Ref) (uint64, bool) {
	place := at - (p.Origin() - p.Lo) + r.Off
	b, ok := l.img.Bytes(place, r.Size)
	if !ok || r.Size == 0 {
		return 0, false
	}
	return fieldValue(b, r, place)
}

// fieldValue is S+A of a reference, from the bytes at its place.
func fieldValue(b []byte, r *elfdiff.Ref, place uint64) (uint64, bool) {
	switch elf.R_X86_64(r.Type) {
	case elf.R_X86_64_PC32, elf.R_X86_64_PLT32:
		if len(b) == 1 {
			return place + uint64(int64(int8(b[0]))), true
		}
		return place + uint64(int64(int32(binary.LittleEndian.Uint32(b)))), true
	case elf.R_X86_64_32S:
		return uint64(int64(int32(binary.LittleEndian.Uint32(b)))), true
	case elf.R_X86_64_32:
		return uint64(binary.LittleEndian.Uint32(b)), true
	case elf.R_X86_64_64:
		return binary.LittleEndian.Uint64(b), true
	case elf.R_X86_64_PC64:
		return place + binary.LittleEndian.Uint64(b), true
	}
	return 0, false
}

// symbol returns the index of the kernel symbol that a piece is, or an error
// that says why it cannot be told.
func (l *locator) symbol(p *elfdiff.Piece) (int, error) {
	name := p.Sym.Name
	all := l.tab.Named(name)
	switch {
	case len(all) == 0:
		for _, s := range p.Names { // an alias may be what the kernel lists
			if at := l.tab.Named(s.Name); len(at) == 1 {
				return at[0], nil
			}
		}
		return -1, fmt.Errorf("the running kernel has no symbol %s", name)
	case len(all) == 1:
		return all[0], nil
	}
	l.spread()
	if a, ok := l.addr[p]; ok {
		if i := l.named(name, a); i >= 0 {
			return i, nil
		}
	}
	if l.img == nil {
		return -1, fmt.Errorf("the running kernel has %d symbols named %s, and a list of symbols alone does not tell which of them this is; give vmlinux or vmlinuz with --image", len(all), name)
	}
	return -1, fmt.Errorf("the running kernel has %d symbols named %s, and its code does not tell which of them this is", len(all), name)
}

// verify compares a function with the kernel's bytes at an address. References
// count by what they reach; the ftrace call and static branches, which objtool
// turns into nops, by their place.
func (l *locator) verify(p *elfdiff.Piece, at uint64) error {
	code := entryCode(p)
	img, ok := l.img.Bytes(at, len(code))
	if !ok {
		return fmt.Errorf("no code at %#x in the kernel image", at)
	}
	return lockstep{
		arch: l.view.Arch, piece: p, other: img,
		check: func(r *elfdiff.Ref, off uint64, size int) error { return l.verifyRef(p, at, r, off, size) },
	}.run()
}

// verifyRef checks that a reference whose field lies off bytes from the
// address at leads where the rebuilt one does, as far as its target is known.
func (l *locator) verifyRef(p *elfdiff.Piece, at uint64, r *elfdiff.Ref, off uint64, size int) error {
	b, ok := l.img.Bytes(at+off, size)
	if !ok {
		return nil
	}
	adj := int64(size - r.Size) // a shorter displacement ends earlier
	value, ok := fieldValue(b, r, at+off)
	if !ok {
		return nil
	}
	value += uint64(adj)
	s := value - uint64(r.Addend)
	bad := func(name string) error {
		return fmt.Errorf("%s refers at +%#x to another place than %s", p.Name(), off, name)
	}
	switch r.To.Kind {
	case elfdiff.Undef:
		if all := l.tab.Named(r.To.Sym.Name); len(all) > 0 && l.named(r.To.Sym.Name, s) < 0 {
			return bad(r.To.Sym.Name)
		}
	case elfdiff.InPiece:
		q := r.To.Piece
		if q.Sym == nil {
			return nil
		}
		if a, ok := l.addr[q]; ok && a != s {
			return bad(q.Name())
		} else if !ok && len(l.tab.Named(q.Sym.Name)) > 0 && l.named(q.Sym.Name, s) < 0 {
			return bad(q.Name())
		}
	case elfdiff.Literal:
		where := value + uint64(r.Adj)
		want := r.To.Content
		if got, ok := l.img.Bytes(where-uint64(r.Addend), len(want)); ok && !bytes.Equal(got, want) {
			return bad("the same constant")
		}
	}
	return nil
}
