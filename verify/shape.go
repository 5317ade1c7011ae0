package verify

// What a piece of the patched object must look like in a module. It is the
// compiler's and objtool's bytes, but for three constructs that a module cannot
// have as they are:
//
//   - A runtime constant (6.11 and later) is an immediate that the kernel sets
//     while it boots, and not in modules. The instruction loads the variable:
//     48|REX b8+r imm64 becomes 48|REX 8b /r disp32, 0f 1f 00.
//   - A jump of two bytes to another function, at the very end of a function in a
//     section that functions share, gets a displacement of four bytes.
//   - A static branch on a tracepoint of the patched module stays off: the
//     livepatch cannot reach the key when it is loaded. Its jump is a nop.

import (
	"bytes"
	"debug/elf"
	"slices"
	"strings"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
)

// shape is what is expected of a piece.
type shape struct {
	data []byte // nil: zeros without bytes
	size uint64
	grow uint64 // bytes by which it is longer than the piece
	refs []*elfdiff.Ref
	// entries are the special-section entries that the module must have.
	entries []*elfdiff.Entry
}

func (x *unit) shape(p *elfdiff.Piece) *shape {
	if s := x.shapes[p]; s != nil {
		return s
	}
	s := &shape{size: p.Hi - p.Lo, data: bytes.Clone(p.Bytes())}
	skip := map[uint64]bool{}
	for _, e := range p.Entries {
		switch {
		case elfdiff.IsRuntimeConst(e.Table):
			s.loadVariable(x, p, e)
		case strings.HasPrefix(e.Table, ".discard."):
		case e.Table == jumpTable && x.unreachable(e):
			if off, ok := s.silence(e.At); ok {
				skip[off] = true
			}
		default:
			s.entries = append(s.entries, e)
		}
	}
	for i := range p.Refs {
		r := &p.Refs[i]
		switch {
		case skip[r.Off], elf.R_X86_64(r.Type) == elf.R_X86_64_NONE && !r.Made:
		case x.shortTail(p, r):
			long := *r
			long.Size, long.Addend, long.Adj = 4, r.Addend+r.Adj-4, 4
			rest := bytes.Repeat([]byte{0xcc}, len(s.data)-int(r.Off+1))
			s.data = append(append(s.data[:r.Off-1:r.Off-1], 0xe9, 0, 0, 0, 0), rest...)
			s.grow = 3
			s.size += s.grow
			s.refs = append(s.refs, &long)
		default:
			s.refs = append(s.refs, r)
		}
	}
	slices.SortStableFunc(s.refs, func(a, b *elfdiff.Ref) int { return int(int64(a.Off) - int64(b.Off)) })
	for _, r := range s.refs {
		if s.data != nil && r.Off+uint64(r.Size) <= uint64(len(s.data)) {
			clear(s.data[r.Off:][:r.Size])
		}
	}
	x.shapes[p] = s
	return s
}

// loadVariable replaces a runtime constant.
func (s *shape) loadVariable(x *unit, p *elfdiff.Piece, e *elfdiff.Entry) {
	name, ok := strings.CutPrefix(e.Table, "runtime_ptr_")
	if !ok || e.At < 2 || e.At+8 > uint64(len(s.data)) || s.data[e.At-2]&^1 != 0x48 || s.data[e.At-1]&^7 != 0xb8 {
		s.entries = append(s.entries, e) // cannot be in a module: will be missed there
		return
	}
	rex, reg := s.data[e.At-2], s.data[e.At-1]&7
	copy(s.data[e.At-2:], []byte{0x48 | rex&1<<2, 0x8b, 0x05 | reg<<3, 0, 0, 0, 0, 0x0f, 0x1f, 0x00})
	r := &elfdiff.Ref{Off: e.At + 1, Type: uint32(elf.R_X86_64_PC32), Size: 4, Addend: -4, Adj: 4, Memory: true}
	if q := x.view.Named(name); q != nil {
		r.To = elfdiff.Target{Kind: elfdiff.InPiece, Piece: q}
	} else {
		r.To = elfdiff.Target{Kind: elfdiff.Undef, Sym: &elfobj.Symbol{Name: name, Bind: elf.STB_GLOBAL}}
	}
	s.refs = append(s.refs, r)
}

// silence makes the instruction of a static branch a nop, and returns the offset
// of the relocation that goes with it.
func (s *shape) silence(at uint64) (uint64, bool) {
	if at >= uint64(len(s.data)) {
		return 0, false
	}
	nop, ok := branchNops()[s.data[at]]
	if ok {
		copy(s.data[at:], nop)
	}
	return at + 1, ok
}

// unreachable tells whether a static branch is on a tracepoint of the patched
// module itself.
func (x *unit) unreachable(e *elfdiff.Entry) bool {
	if x.module == nil || len(e.Refs) < 3 {
		return false
	}
	switch t := e.Refs[2].To; {
	case t.Kind == elfdiff.Undef:
		return x.defined[t.Sym.Name] != nil && strings.HasPrefix(t.Sym.Name, tracepointPrefix)
	case t.Kind == elfdiff.InPiece && t.Piece.Sym != nil:
		return x.twin(t.Piece) != nil && strings.HasPrefix(t.Piece.Sym.Name, tracepointPrefix)
	}
	return false
}

// shortTail tells whether a reference is that of a jump of two bytes behind which
// only padding follows.
func (x *unit) shortTail(p *elfdiff.Piece, r *elfdiff.Ref) bool {
	code := p.Bytes()
	return r.Made && r.Size == 1 && r.Off > 0 && r.Off < uint64(len(code)) && code[r.Off-1] == 0xeb &&
		len(bytes.Trim(code[r.Off+1:], "\x90\xcc\x00")) == 0
}
