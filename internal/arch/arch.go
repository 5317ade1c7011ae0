// Package arch holds what differs between machines, one file a machine: the
// length and control flow of an instruction, and the relocation types.
//
// It does not explain instructions to people; that is left to a disassembler.
package arch

import "debug/elf"

// Flow is what an instruction does with the program counter.
type Flow uint8

// The kinds of control flow that matter to a comparison.
const (
	Next     Flow = iota // goes on to the next instruction
	Call                 // direct call, target in Rel
	Jump                 // direct unconditional jump, target in Rel
	Branch               // direct conditional jump, target in Rel
	Indirect             // indirect call or jump
	Return               // return, or an instruction that never goes on (ud2)
)

// Inst is one decoded instruction. Offsets are bytes from its first byte.
type Inst struct {
	Len  int
	Flow Flow
	// RelOff and RelSize give the displacement of a direct call or jump
	// (RelSize 1 or 4), relative to the end of the instruction. RelSize is 0
	// if there is none.
	RelOff, RelSize int
	// DispOff is the offset of a 32-bit displacement relative to the end of
	// the instruction (RIP-relative operand), or 0 if there is none.
	DispOff int
	// ImmOff and ImmSize give the immediate operand; ImmSize is 0 if there
	// is none.
	ImmOff, ImmSize int
}

// RelocType is what a relocation does to its place.
type RelocType struct {
	Name  string // R_X86_64_PC32
	Size  int    // bytes written
	PCRel bool   // the place's own address is subtracted
	// Klp tells whether the kernel's module loader and livepatch core apply it.
	Klp bool
}

// Arch is one machine.
type Arch struct {
	Name    string // as Kbuild's SRCARCH says it: "x86"
	Machine elf.Machine
	// Decode decodes the instruction at the start of code. ok is false if
	// it does not know the instruction or code is too short; the caller
	// then must not conclude anything from the bytes.
	Decode func(code []byte) (inst Inst, ok bool)
	// Relocs maps a relocation number to what it does.
	Relocs map[uint32]RelocType
}

// ByMachine finds the architecture of an ELF machine number.
func ByMachine(m elf.Machine) (*Arch, bool) {
	for _, a := range all {
		if a.Machine == m {
			return a, true
		}
	}
	return nil, false
}

var all = []*Arch{x86_64}
