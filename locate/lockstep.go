package locate

// Two builds of one function are compared instruction by instruction, because
// equal code need not have equal bytes: where a file is compiled without
// -ffunction-sections, the assembler shortens jumps to functions that happen
// to lie near. So jumps count by their condition and by what they reach, all
// other instructions by their bytes outside the fields that references fill in.
// Where an instruction cannot be decoded, the bytes from there on must be equal.

import (
	"bytes"
	"fmt"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/internal/arch"
)

// Difference says where a rebuilt function is not what the kernel runs.
type Difference struct {
	Func string // the rebuilt function's name
	Off  uint64 // bytes from its entry
	// What is compared: "code", "reference" or "constant".
	What   string
	Detail string
	// Built and Running are the instructions' bytes; nil where What is not code.
	Built, Running []byte
}

func (d *Difference) Error() string {
	s := fmt.Sprintf("%s differs from the rebuilt code at +%#x: %s", d.Func, d.Off, d.Detail)
	if d.Built != nil {
		s += fmt.Sprintf(" (rebuilt % x, running % x)", d.Built, d.Running)
	}
	return s
}

// lockstep compares a rebuilt function with other code.
type lockstep struct {
	arch  *arch.Arch
	piece *elfdiff.Piece // rebuilt
	other []byte         // from the entry on
	// check judges a reference of the rebuilt function, given where its
	// field lies in other and how many bytes it has there.
	check func(r *elfdiff.Ref, off uint64, size int) error
	// fentry tells whether the call at an offset of other is that to ftrace.
	fentry func(off uint64) bool
}

// entryCode is a function's code from its entry to the end of the symbol.
func entryCode(p *elfdiff.Piece) []byte {
	code := p.Bytes()
	if entry := p.Origin() - p.Lo; entry <= uint64(len(code)) {
		code = code[entry:]
	}
	if n := p.Sym; n != nil && n.Size > 0 && n.Size < uint64(len(code)) {
		code = code[:n.Size]
	}
	return code
}

// jump is a direct jump within a function.
type jump struct{ from, to, otherTo uint64 }

func (l lockstep) run() error {
	code := entryCode(l.piece)
	refs := l.refs()
	sites := rewrittenSites(l.piece)
	moved := map[uint64]uint64{} // offset of an instruction -> its offset in other
	var jumps []jump
	var i, j uint64
	for i < uint64(len(code)) {
		moved[i] = j
		if j >= uint64(len(l.other)) {
			return l.differs(i, "the running code ends")
		}
		a, ok := l.arch.Decode(code[i:])
		b, ok2 := l.arch.Decode(l.other[j:])
		if !ok || !ok2 {
			return l.same(code[i:], i, j, refs)
		}
		switch {
		case sites[i] != 0 && l.rewritten(sites[i], code[i:], i, j, a, b):
		case a.RelSize > 0:
			if a.Flow != b.Flow || b.RelSize == 0 || condition(code[i:], a) != condition(l.other[j:], b) {
				return l.instruction(i, j, a, b)
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
	return l.jumps(jumps, moved, i, j)
}

// jumps compares where the jumps inside of the function lead. One that leads
// nowhere in it (to its very end) must do so in both.
func (l lockstep) jumps(all []jump, moved map[uint64]uint64, end, otherEnd uint64) error {
	moved[end] = otherEnd
	for _, k := range all {
		if to, ok := moved[k.to]; !ok || to != k.otherTo {
			return l.differs(k.from, "a jump leads to another place")
		}
	}
	return nil
}

// rewritten tells whether an instruction is what the build makes of one that it
// rewrites: objtool turns the call to __fentry__ and the jumps of static
// branches that are off into nops of the same length.
func (l lockstep) rewritten(site siteKind, insn []byte, i, j uint64, a, b arch.Inst) bool {
	other := l.other[j : j+uint64(b.Len)]
	switch site {
	case fentrySite:
		return isNop(other) && b.Len == a.Len || b.Flow == arch.Call && b.RelSize == 4 && l.fentry(j)
	case branchSite:
		return isNop(other) && (isNop(insn[:a.Len]) || a.Flow == arch.Jump)
	}
	return false
}

// isNop tells whether an instruction is one of the nops that stand for a jump
// or call. Source: arch/x86/include/asm/nops.h, nops of 2 and 5 bytes.
func isNop(insn []byte) bool {
	return bytes.Equal(insn, []byte{0x66, 0x90}) || bytes.Equal(insn, []byte{0x0f, 0x1f, 0x44, 0x00, 0x00})
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
		return l.differs(i, "the running code ends")
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
		if k >= skip && insn[k] != l.other[j+uint64(k)] {
			n := min(len(insn), 15)
			d := l.difference(i, "another instruction")
			d.Built, d.Running = insn[:n], l.other[j:j+uint64(n)]
			return d
		}
	}
	return nil
}

func (l lockstep) instruction(i, j uint64, a, b arch.Inst) error {
	d := l.difference(i, "another instruction")
	d.Built, d.Running = entryCode(l.piece)[i:i+uint64(a.Len)], l.other[j:j+uint64(b.Len)]
	return d
}

func (l lockstep) difference(off uint64, detail string) *Difference {
	return &Difference{Func: l.piece.Name(), Off: off, What: "code", Detail: detail}
}

func (l lockstep) differs(off uint64, detail string) error { return l.difference(off, detail) }

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

// siteKind is what the build rewrites at a place.
type siteKind uint8

const (
	fentrySite siteKind = iota + 1
	branchSite
)

// rewrittenSites finds the instructions of a function, by their offset from the
// entry, that objtool may have rewritten in the finished kernel.
func rewrittenSites(p *elfdiff.Piece) map[uint64]siteKind {
	entry := p.Origin() - p.Lo
	sites := map[uint64]siteKind{}
	for i := range p.Refs {
		if r := &p.Refs[i]; r.To.Kind == elfdiff.Undef && r.To.Sym.Name == "__fentry__" && r.Off > entry {
			sites[r.Off-entry-1] = fentrySite
		}
	}
	for _, e := range p.Entries {
		if e.Table == "__jump_table" && e.At >= entry {
			sites[e.At-entry] = branchSite
		}
	}
	return sites
}
