package codegen

// Two builds of one function are compared instruction by instruction, because
// equal code need not have equal bytes: where a file is compiled without
// -ffunction-sections, the assembler shortens jumps to functions that happen
// to lie near. So jumps count by their condition and by what they reach, all
// other instructions by their bytes outside the fields that references fill in.

import (
	"bytes"
	"fmt"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/internal/arch"
)

// lockstep compares a rebuilt function with other code.
type lockstep struct {
	arch  *arch.Arch
	piece *elfdiff.Piece // rebuilt
	other []byte         // from the entry on
	// masked marks bytes of other, from the entry, that do not count.
	masked map[uint64]bool
	// check judges a reference of the rebuilt function, given where its
	// field lies in other and how many bytes it has there.
	check func(r *elfdiff.Ref, off uint64, size int) error
}

// entryCode is a function's code from its entry to the end of the symbol.
func entryCode(p *elfdiff.Piece) []byte {
	code := p.Bytes()[p.Origin()-p.Lo:]
	if n := p.Sym; n != nil && n.Size > 0 && n.Size < uint64(len(code)) {
		code = code[:n.Size]
	}
	return code
}

func (l lockstep) run() error {
	code := entryCode(l.piece)
	refs := l.refs()
	sites := rewrittenSites(l.piece)
	moved := map[uint64]uint64{} // offset of an instruction -> its offset in other
	type jump struct{ from, to, otherTo uint64 }
	var jumps []jump
	var i, j uint64
	for i < uint64(len(code)) {
		moved[i] = j
		if j >= uint64(len(l.other)) {
			return l.differs(i)
		}
		a, ok := l.arch.Decode(code[i:])
		b, ok2 := l.arch.Decode(l.other[j:])
		if !ok || !ok2 {
			return l.rest(code, i, j, refs)
		}
		switch {
		case sites[i]:
		case a.RelSize > 0:
			if a.Flow != b.Flow || b.RelSize == 0 || condition(code[i:], a) != condition(l.other[j:], b) {
				return l.differs(i)
			}
			if r := refs[i+uint64(a.RelOff)]; r != nil {
				if err := l.check(r, j+uint64(b.RelOff), b.RelSize); err != nil {
					return err
				}
			} else {
				jumps = append(jumps, jump{i, destination(code, i, a), destination(l.other, j, b)})
			}
		default:
			if err := l.same(code[i:i+uint64(a.Len)], i, j, refs); err != nil {
				return err
			}
			b.Len = a.Len
		}
		i, j = i+uint64(a.Len), j+uint64(b.Len)
	}
	for _, k := range jumps {
		if to, ok := moved[k.to]; ok && to != k.otherTo {
			return l.differs(k.from)
		}
	}
	return nil
}

// refs maps the offset of each reference's field, from the entry, to it.
func (l lockstep) refs() map[uint64]*elfdiff.Ref {
	entry := l.piece.Origin() - l.piece.Lo
	m := map[uint64]*elfdiff.Ref{}
	for i := range l.piece.Refs {
		if r := &l.piece.Refs[i]; r.Off >= entry {
			m[r.Off-entry] = r
		}
	}
	return m
}

// same compares bytes that lie at i in the rebuilt code and at j in the other.
func (l lockstep) same(insn []byte, i, j uint64, refs map[uint64]*elfdiff.Ref) error {
	if j+uint64(len(insn)) > uint64(len(l.other)) {
		return l.differs(i)
	}
	skip := 0
	for k := range insn {
		off := i + uint64(k)
		if r := refs[off]; r != nil {
			if err := l.check(r, j+uint64(k), r.Size); err != nil {
				return err
			}
			skip = k + r.Size
		}
		if k >= skip && insn[k] != l.other[j+uint64(k)] && !l.masked[j+uint64(k)] {
			return l.differs(off)
		}
	}
	return nil
}

// rest compares what follows an instruction that cannot be decoded, byte by
// byte.
func (l lockstep) rest(code []byte, i, j uint64, refs map[uint64]*elfdiff.Ref) error {
	return l.same(code[i:], i, j, refs)
}

func (l lockstep) differs(off uint64) error {
	return fmt.Errorf("%s differs from the rebuilt code at +%#x", l.piece.Name(), off)
}

// condition identifies what a direct jump or call tests: its opcode without
// the form of its displacement.
func condition(code []byte, in arch.Inst) string {
	op := bytes.TrimLeft(code[:in.RelOff], "\x2e\x3e\x66") // branch hints and padding prefixes
	switch {
	case in.Flow == arch.Call:
		return "call"
	case in.Flow == arch.Jump:
		return "jmp"
	case len(op) == 2 && op[0] == 0x0f: // jcc rel32: 0f 80+cc
		return fmt.Sprintf("j%x", op[1]&0x0f)
	case len(op) == 1 && op[0]&0xf0 == 0x70: // jcc rel8: 70+cc
		return fmt.Sprintf("j%x", op[0]&0x0f)
	}
	return string(op)
}

// destination is where a direct jump at off leads, from the start of code.
func destination(code []byte, off uint64, in arch.Inst) uint64 {
	var disp int64
	b := code[off+uint64(in.RelOff):]
	if in.RelSize == 1 {
		disp = int64(int8(b[0]))
	} else {
		disp = int64(int32(uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24))
	}
	return off + uint64(in.Len) + uint64(disp)
}

// rewrittenSites marks the instructions of a function, by their offset from
// the entry, that objtool has rewritten in the finished kernel: the call to
// __fentry__ and the instruction of each static branch.
func rewrittenSites(p *elfdiff.Piece) map[uint64]bool {
	entry := p.Origin() - p.Lo
	sites := map[uint64]bool{}
	for i := range p.Refs {
		if r := &p.Refs[i]; r.To.Kind == elfdiff.Undef && r.To.Sym.Name == "__fentry__" && r.Off > entry {
			sites[r.Off-entry-1] = true
		}
	}
	for _, e := range p.Entries {
		if e.Table == "__jump_table" && e.At >= entry {
			sites[e.At-entry] = true
		}
	}
	return sites
}
