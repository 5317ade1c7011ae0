package locate

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
	"errors"
	"fmt"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/target"
)

// Kernel knows where the pieces of one original object of vmlinux lie in the
// kernel's image.
type Kernel struct {
	view *elfdiff.View
	tab  *target.Symtab
	img  *target.Image // nil: only names are known
	addr map[*elfdiff.Piece]uint64
	done bool
}

// NewKernel begins with the names that occur once. img may be nil: then only
// names are known.
func NewKernel(v *elfdiff.View, tab *target.Symtab, img *target.Image) *Kernel {
	l := &Kernel{view: v, tab: tab, img: img, addr: map[*elfdiff.Piece]uint64{}}
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
func (l *Kernel) spread() {
	if l.done || l.img == nil {
		return
	}
	l.done = true
	spread(l.view.Pieces, l.addr, l.follow, l.search)
}

// spread goes from the pieces that are located to all that follow finds from them,
// and on from what search finds where that ends.
func spread[T any](pieces []*elfdiff.Piece, located map[*elfdiff.Piece]T, follow func(*elfdiff.Piece) []*elfdiff.Piece, search func() *elfdiff.Piece) {
	var queue []*elfdiff.Piece
	for _, p := range pieces {
		if _, ok := located[p]; ok {
			queue = append(queue, p)
		}
	}
	for {
		for len(queue) > 0 {
			p := queue[0]
			queue = append(queue[1:], follow(p)...)
		}
		p := search()
		if p == nil {
			return
		}
		queue = append(queue, p)
	}
}

// follow reads the addresses that a located piece refers to.
func (l *Kernel) follow(p *elfdiff.Piece) []*elfdiff.Piece {
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
func (l *Kernel) search() *elfdiff.Piece {
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
func (l *Kernel) named(name string, addr uint64) int {
	for _, i := range l.tab.Named(name) {
		if l.tab.At(i).Addr == addr {
			return i
		}
	}
	return -1
}

// value reads S+A of a reference from the image, given where its piece lies.
func (l *Kernel) value(p *elfdiff.Piece, at uint64, r *elfdiff.Ref) (uint64, bool) {
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

// Symbol returns the index of the kernel symbol that a piece is, or an error
// that says why it cannot be told.
func (l *Kernel) Symbol(p *elfdiff.Piece) (int, error) {
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

// Verify compares a function, with its cold parts and the unnamed constants that
// it uses, with the kernel's bytes. References count by what they reach. The
// error is a *Difference unless the image is not known.
func (l *Kernel) Verify(p *elfdiff.Piece) error {
	if l.img == nil {
		return errors.New("the kernel's code is not known: a list of symbols alone was given")
	}
	i, err := l.Symbol(p)
	if err != nil {
		return err
	}
	return l.verify(p, l.tab.At(i).Addr)
}

func (l *Kernel) verify(p *elfdiff.Piece, at uint64) error {
	return (&imageCheck{Kernel: l, seen: map[*elfdiff.Piece]uint64{}, names: map[string]uint64{}}).function(p, at)
}

// imageCheck is one comparison with the image: what was compared already, and
// where it lies.
type imageCheck struct {
	*Kernel
	seen map[*elfdiff.Piece]uint64
	// names holds the addresses of symbols that kallsyms does not list, as the
	// first reference to each has it.
	names map[string]uint64
}

func (c *imageCheck) function(p *elfdiff.Piece, at uint64) error {
	c.seen[p] = at
	img, ok := c.img.Bytes(at, len(entryCode(p)))
	if !ok {
		return &Difference{Func: p.Name(), What: "code", Detail: fmt.Sprintf("the kernel's image has no code at %#x", at)}
	}
	return lockstep{
		arch: c.view.Arch, piece: p, other: img,
		check: func(r *elfdiff.Ref, off uint64, size int) error { return c.ref(p, at, r, off, size) },
		fentry: func(off uint64) bool {
			b, ok := c.img.Bytes(at+off+1, 4)
			return ok && c.named("__fentry__", at+off+5+uint64(int64(int32(binary.LittleEndian.Uint32(b))))) >= 0
		},
	}.run()
}

// ref checks that a reference whose field lies off bytes from the address at
// leads where the rebuilt one does.
func (c *imageCheck) ref(p *elfdiff.Piece, at uint64, r *elfdiff.Ref, off uint64, size int) error {
	bad := func(what, format string, args ...any) error {
		return &Difference{Func: p.Name(), Off: off, What: what, Detail: fmt.Sprintf(format, args...)}
	}
	b, ok := c.img.Bytes(at+off, size)
	if !ok {
		return bad("reference", "the image ends")
	}
	value, ok := fieldValue(b, r, at+off)
	if !ok {
		return bad("reference", "a relocation of type %d is not known", r.Type)
	}
	value += uint64(int64(size - r.Size)) // a shorter displacement ends earlier
	s := value - uint64(r.Addend)
	if r.Type == uint32(elf.R_X86_64_32) {
		s = uint64(uint32(s)) // what the field holds is cut to 32 bits
	}
	switch r.To.Kind {
	case elfdiff.Undef:
		if !c.undefined(r, s) {
			return bad("reference", "it refers to another place than %s", r.To.Sym.Name)
		}
	case elfdiff.InPiece:
		return c.piece(r.To.Piece, s, bad)
	case elfdiff.Literal:
		where := value + uint64(r.Adj) - uint64(r.Addend)
		if got, ok := c.img.Bytes(where, len(r.To.Content)); !ok || !bytes.Equal(got, r.To.Content) {
			return bad("constant", "it refers to another constant than %q", clip(r.To.Content))
		}
	case elfdiff.Nothing:
		if s != 0 {
			return bad("reference", "it refers to another place than address 0")
		}
	case elfdiff.Absolute:
		if s != r.To.Sym.Value {
			return bad("reference", "it refers to another place than the absolute address %s", r.To.Sym.Name)
		}
	default:
		return bad("reference", "the rebuilt code refers to something that cannot be resolved")
	}
	return nil
}

// undefined judges an address that a reference to another object's symbol has.
func (c *imageCheck) undefined(r *elfdiff.Ref, s uint64) bool {
	name := r.To.Sym.Name
	all := c.tab.Named(name)
	if len(all) == 0 {
		if r.To.Sym.Bind == elf.STB_WEAK && s == 0 {
			return true
		}
		// Not listed in kallsyms, such as what the linker script defines: all
		// references must agree.
		known, ok := c.names[name]
		if !ok {
			c.names[name] = s
		}
		return !ok || known == s
	}
	for _, i := range all {
		if a := c.tab.At(i).Addr; a == s || r.Type == uint32(elf.R_X86_64_32) && uint64(uint32(a)) == s {
			return true
		}
	}
	return false
}

// piece judges where a reference to the unit's own piece leads.
func (c *imageCheck) piece(q *elfdiff.Piece, s uint64, bad func(what, format string, args ...any) error) error {
	if known, ok := c.seen[q]; ok {
		if known != s {
			return bad("reference", "it refers to another place than %s", q.Name())
		}
		return nil
	}
	switch {
	case q.Sym == nil, len(c.tab.Named(q.Sym.Name)) == 0 && q.Kind == elfdiff.ReadOnly:
		c.seen[q] = s
		return c.content(q, s, bad)
	case q.Parent != nil && q.Func && c.named(q.Sym.Name, s) >= 0:
		if err := c.function(q, s); err != nil {
			return err
		}
	}
	if a, ok := c.addr[q]; ok {
		if a != s && !c.alias(q, s) {
			return bad("reference", "it refers to another place than %s", q.Name())
		}
		return nil
	}
	if !c.alias(q, s) {
		known := false
		for _, n := range q.Names {
			known = known || len(c.tab.Named(n.Name)) > 0
		}
		if known {
			return bad("reference", "it refers to another place than %s", q.Name())
		}
	}
	c.seen[q] = s
	return nil
}

// alias tells whether the kernel has one of a piece's names at an address.
func (c *imageCheck) alias(q *elfdiff.Piece, s uint64) bool {
	for _, n := range q.Names {
		if c.named(n.Name, s) >= 0 {
			return true
		}
	}
	return false
}

// content compares data without a name: jump tables, constants of the compiler.
func (c *imageCheck) content(q *elfdiff.Piece, at uint64, bad func(what, format string, args ...any) error) error {
	want := q.Bytes()
	if want == nil {
		return nil // zeros that have no bytes in either file
	}
	got, ok := c.img.Bytes(at, len(want))
	if !ok {
		return bad("constant", "the image has no bytes at %#x for %s", at, q.Name())
	}
	fields := map[uint64]bool{}
	for i := range q.Refs {
		r := &q.Refs[i]
		if err := c.ref(q, at, r, r.Off, r.Size); err != nil {
			return err
		}
		for k := range uint64(r.Size) {
			fields[r.Off+k] = true
		}
	}
	for k := range want {
		if !fields[uint64(k)] && want[k] != got[k] {
			return bad("constant", "%s has another content", q.Name())
		}
	}
	return nil
}

// clip shortens content for a message.
func clip(b []byte) []byte {
	const most = 40
	if len(b) > most {
		return b[:most]
	}
	return bytes.TrimRight(b, "\x00")
}
