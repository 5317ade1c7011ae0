package codegen

// Runtime constants are immediates that the kernel replaces once, while it
// boots (arch/x86/include/asm/runtime-const.h, since 6.11). It does not do so
// for modules. So where travelling code holds a pointer-sized one, the
// instruction that loads the immediate becomes one that loads the variable
// itself:
//
//	48 b8+r imm64        movabs $imm, %reg       10 bytes
//	48 8b /r disp32      mov    SYM(%rip), %reg   7 bytes
//	0f 1f 00             nopl   (%rax)            3 bytes
//
// Shift counts and masks have no such form; they are a problem.

import (
	"bytes"
	"debug/elf"
	"fmt"
	"strings"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
)

// RuntimeConst is a boot-time constant that a module cannot have.
const RuntimeConst elfdiff.ProblemKind = "runtime-constant"

// rewrite is an instruction that travelling code gets another one for.
type rewrite struct {
	at   uint64 // offset of the instruction from the piece's Lo
	code []byte
	ref  *elfdiff.Ref // its Off is from the piece's Lo
	grow uint64       // bytes by which the function becomes longer; only padding may follow
}

// isShortTail tells whether a reference is that of a jump with a one-byte
// displacement, to another function of the section, which is the function's
// last instruction: what assemblers make of a tail call in a section such as
// .sched.text.
func isShortTail(p *elfdiff.Piece, r *elfdiff.Ref) bool {
	code := p.Bytes()
	return r.Made && r.Size == 1 && r.Off > 0 && code[r.Off-1] == 0xeb &&
		len(bytes.Trim(code[r.Off+1:], "\x90\xcc\x00")) == 0
}

// longTail plans to give such a jump a displacement of four bytes.
func (u *unitPlan) longTail(queue []*elfdiff.Piece, p *elfdiff.Piece, r *elfdiff.Ref) []*elfdiff.Piece {
	long := *r
	long.Size, long.Addend, long.Adj = 4, r.Addend+r.Adj-4, 4
	u.rewrites[p] = append(u.rewrites[p], rewrite{at: r.Off - 1, code: []byte{0xe9, 0, 0, 0, 0}, ref: &long, grow: 3})
	return u.edge(queue, p, nil, &long)
}

// runtimeConst plans the rewriting of one runtime constant.
func (u *unitPlan) runtimeConst(queue []*elfdiff.Piece, p *elfdiff.Piece, e *elfdiff.Entry) []*elfdiff.Piece {
	name, isPointer := strings.CutPrefix(e.Table, "runtime_ptr_")
	code := p.Bytes()
	if !isPointer || e.At < 2 || e.At+8 > uint64(len(code)) || code[e.At-2]&^1 != 0x48 || code[e.At-1]&^7 != 0xb8 {
		u.problem(RuntimeConst, p, e.At, fmt.Sprintf("%s uses the constant of section %s, which the kernel sets while it boots and not for modules", p.Name(), e.Table),
			"let the patched code avoid it: leave this function as it is and change a caller, or copy what it does without the constant")
		return queue
	}
	reg, high := code[e.At-1]&7, code[e.At-2]&1
	r := &elfdiff.Ref{Off: e.At + 1, Type: uint32(elf.R_X86_64_PC32), Size: 4, Addend: -4, Adj: 4, Memory: true}
	u.rewrites[p] = append(u.rewrites[p], rewrite{
		at:   e.At - 2,
		code: []byte{0x48 | high<<2, 0x8b, 0x05 | reg<<3, 0, 0, 0, 0, 0x0f, 0x1f, 0x00},
		ref:  r,
	})
	// The variable may be a static one of this very unit.
	if q := u.Diff.Patched.Named(name); q != nil {
		r.To = elfdiff.Target{Kind: elfdiff.InPiece, Piece: q}
	} else {
		r.To = elfdiff.Target{Kind: elfdiff.Undef, Sym: &elfobj.Symbol{Name: name, Bind: elf.STB_GLOBAL}}
	}
	return u.edge(queue, p, nil, r)
}
