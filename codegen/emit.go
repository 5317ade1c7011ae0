package codegen

// Emit builds one object per unit: the pieces that travel, each in a section
// of its own, the special-section entries that describe them, and the
// literals that they use. References to the running kernel are undefined
// symbols; what Finalize has to know is in their names. For every function of
// the plan a section .debug_klpc.func.ID (and .cb.ID for callbacks) holds one
// relocation to it: linkers and objtool carry sections of that prefix along
// unseen, and Finalize takes them out.

import (
	"bytes"
	"debug/elf"
	"fmt"
	"strings"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
)

// Marker sections, see above. The number is Func.ID or Callback.ID.
const (
	funcMarker     = ".debug_klpc.func."
	callbackMarker = ".debug_klpc.cb."
)

// literals is the section of a unit's string and constant literals. It is not
// mergeable, so that offsets into it stay what they are.
const literals = ".rodata.klpc_literals"

// perCPU is the one section of per-CPU variables that the module loader knows
// (find_pcpusec, kernel/module/main.c); vmlinux has several, by alignment.
const perCPU = ".data..percpu"

// jumpNops are what a static branch that stays off turns into.
// Source: arch/x86/include/asm/nops.h, x86 NOPs of 2 and 5 bytes.
var jumpNops = map[byte][]byte{
	0xeb: {0x66, 0x90},
	0xe9: {0x0f, 0x1f, 0x44, 0x00, 0x00},
}

type emitter struct {
	u        *unitPlan
	out      *elfobj.Object
	syms     map[*elfdiff.Piece]*elfobj.Symbol  // own pieces
	secs     map[*elfdiff.Piece]*elfobj.Section // own pieces
	shifts   map[*elfdiff.Piece]uint64          // see shift
	secSym   map[*elfobj.Section]*elfobj.Symbol
	undef    map[string]*elfobj.Symbol
	rela     map[*elfobj.Section]*elfobj.Section
	literal  map[string]uint64 // alignment + content -> offset
	literals *elfobj.Section
	deadEnds *elfobj.Section
	tables   map[*elfobj.Section]*elfobj.Section // patched side -> own
}

// Emit builds the objects of all units that contribute something, in the
// order of the units; units that do not get nil.
func (p *Plan) Emit() []*elfobj.Object {
	out := make([]*elfobj.Object, len(p.units))
	for i, u := range p.units {
		if len(u.included) > 0 {
			out[i] = p.emit(u)
		}
	}
	return out
}

func (p *Plan) emit(u *unitPlan) *elfobj.Object {
	v := u.Diff.Patched
	e := &emitter{
		u:       u,
		out:     &elfobj.Object{Type: elf.ET_REL, Machine: v.Obj.Machine, OSABI: v.Obj.OSABI, Flags: v.Obj.Flags},
		syms:    map[*elfdiff.Piece]*elfobj.Symbol{},
		secs:    map[*elfdiff.Piece]*elfobj.Section{},
		shifts:  map[*elfdiff.Piece]uint64{},
		secSym:  map[*elfobj.Section]*elfobj.Symbol{},
		undef:   map[string]*elfobj.Symbol{},
		rela:    map[*elfobj.Section]*elfobj.Section{},
		literal: map[string]uint64{},
		tables:  map[*elfobj.Section]*elfobj.Section{},
	}
	e.fileSymbol(v)
	for _, q := range v.Pieces {
		if u.included[q] {
			e.place(q)
		}
	}
	for _, q := range v.Pieces {
		if u.included[q] {
			e.relocate(q)
			for _, entry := range q.Entries {
				e.entry(q, entry)
			}
		}
	}
	for _, o := range p.Objects {
		for _, f := range o.Funcs {
			if f.unit == u.index {
				e.mark(fmt.Sprint(funcMarker, f.ID), f.piece)
			}
		}
		for _, c := range o.Callbacks {
			if c.unit == u.index {
				e.mark(fmt.Sprint(callbackMarker, c.ID), c.piece)
				e.keepPointer(c.piece)
			}
		}
	}
	e.notes(v)
	return e.out
}

// fileSymbol keeps the unit's STT_FILE symbol, for people who read symbols.
func (e *emitter) fileSymbol(v *elfdiff.View) {
	for _, s := range v.Obj.Symbols {
		if s.Type == elf.STT_FILE {
			e.out.Symbols = append(e.out.Symbols, &elfobj.Symbol{Name: s.Name, Type: elf.STT_FILE, Shndx: elf.SHN_ABS})
			return
		}
	}
}

// notes keeps .note.GNU-stack and .note.gnu.property, which the linker joins
// from all objects: without them it would assume an executable stack, or drop
// the IBT property.
func (e *emitter) notes(v *elfdiff.View) {
	for _, s := range v.Obj.Sections {
		if s.Name == ".note.GNU-stack" || s.Name == ".note.gnu.property" {
			n := *s
			e.out.Sections = append(e.out.Sections, &n)
		}
	}
}

func (e *emitter) section(name string, like *elfobj.Section) *elfobj.Section {
	s := &elfobj.Section{Name: name, Type: like.Type, Flags: like.Flags &^ (elf.SHF_GROUP | elf.SHF_LINK_ORDER | elf.SHF_MERGE | elf.SHF_STRINGS), Align: like.Align}
	if like.Flags&elf.SHF_MERGE == 0 {
		s.EntSize = like.EntSize
	}
	e.out.Sections = append(e.out.Sections, s)
	return s
}

// place copies a piece's bytes and symbols.
func (e *emitter) place(q *elfdiff.Piece) {
	name := q.Sec.Name
	if q.Kind == elfdiff.PerCPU {
		name = perCPU
	}
	s := e.section(name, q.Sec)
	e.secs[q] = s
	shift := uint64(0)
	if q.Lo > 0 && s.Align > 1 {
		shift = q.Lo % s.Align // keep the alignment that the piece had
	}
	var grow uint64
	for _, w := range e.u.rewrites[q] {
		grow += w.grow
	}
	e.shifts[q] = shift
	s.Size = shift + q.Hi - q.Lo + grow
	if d := q.Bytes(); d != nil {
		s.Data = make([]byte, s.Size)
		if q.Func && shift > 0 {
			for i := range shift {
				s.Data[i] = 0x90
			}
		}
		copy(s.Data[shift:], d)
		for i := range q.Refs {
			clear(s.Data[shift+q.Refs[i].Off:][:q.Refs[i].Size])
		}
		for _, w := range e.u.rewrites[q] {
			copy(s.Data[shift+w.at:], w.code)
			if w.grow > 0 { // nothing but padding follows
				rest := s.Data[shift+w.at+uint64(len(w.code)):]
				copy(rest, bytes.Repeat([]byte{0xcc}, len(rest)))
			}
		}
	}
	local := e.u.changed[q] || q.Twin != nil
	for _, n := range q.Names {
		bind, name := n.Bind, n.Name
		if local {
			bind = elf.STB_LOCAL
		}
		if bind != elf.STB_LOCAL {
			name = e.u.ownName(name)
		}
		sym := &elfobj.Symbol{Name: name, Value: n.Value - q.Lo + shift, Size: n.Size + grow, Bind: bind, Type: n.Type, Other: n.Other, Section: s}
		e.out.Symbols = append(e.out.Symbols, sym)
		if n == q.Sym {
			e.syms[q] = sym
		}
	}
	if q.Sym == nil {
		e.syms[q] = e.sectionSymbol(s)
	}
}

func (e *emitter) sectionSymbol(s *elfobj.Section) *elfobj.Symbol {
	if e.secSym[s] == nil {
		e.secSym[s] = &elfobj.Symbol{Type: elf.STT_SECTION, Section: s}
		e.out.Symbols = append(e.out.Symbols, e.secSym[s])
	}
	return e.secSym[s]
}

// shift is the distance from a piece's Lo to the start of its own section.
func (e *emitter) shift(q *elfdiff.Piece) uint64 { return e.shifts[q] }

func (e *emitter) relocate(q *elfdiff.Piece) {
	s := e.secs[q]
	skip := e.silence(q)
	for i := range q.Refs {
		r := &q.Refs[i]
		if skip[r.Off] || isShortTail(q, r) {
			continue
		}
		e.reloc(s, e.shift(q)+r.Off, r)
	}
	for _, w := range e.u.rewrites[q] {
		e.reloc(s, e.shift(q)+w.ref.Off, w.ref)
	}
	e.deadEnd(q)
}

// deadEnds is where objtool looks for the ends of code that nothing follows.
// Source: tools/objtool/check.c, add_dead_ends, Linux 6.1 to 6.13.
const deadEnds = ".discard.unreachable"

// opCall is the instruction CALL rel32.
const opCall = 0xe8

// deadEnd tells objtool that a call that ends a piece does not return. Of a
// function in the same object objtool finds that out by itself, but this one may
// stay in the kernel: then objtool would take the code for running on behind its
// end, and give up on what it has not seen yet.
func (e *emitter) deadEnd(q *elfdiff.Piece) {
	if !q.Func {
		return
	}
	code, size := q.Bytes(), q.Hi-q.Lo
	for i := range q.Refs {
		r := &q.Refs[i]
		if r.Off == 0 || r.Off+uint64(r.Size) != size || code[r.Off-1] != opCall || e.u.dests[r].own != nil {
			continue
		}
		if e.deadEnds == nil {
			e.deadEnds = &elfobj.Section{Name: deadEnds, Type: elf.SHT_PROGBITS, Align: 1}
			e.out.Sections = append(e.out.Sections, e.deadEnds)
		}
		s := e.deadEnds
		rela := e.relaOf(s)
		rela.Relocs = append(rela.Relocs, elfobj.Reloc{Off: s.Size, Type: uint32(elf.R_X86_64_PC32),
			Sym: e.sectionSymbol(e.secs[q]), Addend: int64(e.shift(q) + size)})
		s.Data = append(s.Data, 0, 0, 0, 0)
		s.Size = uint64(len(s.Data))
	}
}

// silence turns the static branches whose entry is dropped into nops, and
// returns the offsets of the relocations that go with them.
func (e *emitter) silence(q *elfdiff.Piece) map[uint64]bool {
	skip := map[uint64]bool{}
	for _, entry := range q.Entries {
		if !e.u.dropped[entry] {
			continue
		}
		at := entry.At + e.shift(q)
		if nop, ok := jumpNops[e.secs[q].Data[at]]; ok {
			copy(e.secs[q].Data[at:], nop)
			skip[entry.At+1] = true
		}
	}
	return skip
}

// reloc adds one relocation at an offset of an own section.
func (e *emitter) reloc(s *elfobj.Section, off uint64, r *elfdiff.Ref) {
	d := e.u.dests[r]
	out := elfobj.Reloc{Off: off, Type: r.Type, Addend: r.Addend}
	switch {
	case d.literal:
		out.Sym, out.Addend = e.addLiteral(r)
	case d.own != nil && d.own.Kind == elfdiff.Replacement:
		return // placed by entry
	case d.own != nil:
		out.Sym, out.Addend = e.ownSymbol(d.own, r.Addend)
	case d.name != "":
		out.Sym = e.undefined(d)
	}
	rela := e.relaOf(s)
	rela.Relocs = append(rela.Relocs, out)
}

// callAddend is the addend of a PC-relative reference to an entry, as calls and
// jumps have it: the field ends 4 bytes after its start.
const callAddend = -4

// ownSymbol refers to a place in an own piece as assemblers do: by the section
// for local symbols, by name for global ones. objtool takes a jump to a named
// symbol for a tail call.
func (e *emitter) ownSymbol(q *elfdiff.Piece, addend int64) (*elfobj.Symbol, int64) {
	s := e.syms[q]
	switch {
	case q.Sym == nil:
		return s, addend + int64(e.shift(q))
	case s.Bind == elf.STB_LOCAL, q.Func && addend != callAddend: // a place in it, from a table or its own unlikely part
		return e.sectionSymbol(e.secs[q]), addend + int64(s.Value)
	}
	return s, addend
}

func (e *emitter) relaOf(s *elfobj.Section) *elfobj.Section {
	if e.rela[s] == nil {
		e.rela[s] = &elfobj.Section{Name: ".rela" + s.Name, Type: elf.SHT_RELA, Flags: elf.SHF_INFO_LINK, Align: 8, EntSize: 24, Target: s}
		e.out.Sections = append(e.out.Sections, e.rela[s])
	}
	return e.rela[s]
}

func (e *emitter) undefined(d dest) *elfobj.Symbol {
	if e.undef[d.name] == nil {
		s := &elfobj.Symbol{Name: d.name, Bind: d.bind}
		e.undef[d.name] = s
		e.out.Symbols = append(e.out.Symbols, s)
	}
	return e.undef[d.name]
}

// addLiteral copies a literal once and returns how to refer to it.
func (e *emitter) addLiteral(r *elfdiff.Ref) (*elfobj.Symbol, int64) {
	if e.literals == nil {
		e.literals = &elfobj.Section{Name: literals, Type: elf.SHT_PROGBITS, Flags: elf.SHF_ALLOC, Align: 1}
		e.out.Sections = append(e.out.Sections, e.literals)
	}
	s := e.literals
	align := max(r.To.Sec.Align, 1)
	key := fmt.Sprint(align) + ":" + string(r.To.Content)
	off, ok := e.literal[key]
	if !ok {
		for uint64(len(s.Data))%align != 0 {
			s.Data = append(s.Data, 0)
		}
		off = uint64(len(s.Data))
		s.Data = append(s.Data, r.To.Content...)
		s.Size = uint64(len(s.Data))
		s.Align = max(s.Align, align)
		e.literal[key] = off
	}
	return e.sectionSymbol(s), int64(off) + r.Addend - r.Adj
}

// entry copies one special-section entry of an included function.
func (e *emitter) entry(q *elfdiff.Piece, entry *elfdiff.Entry) {
	if e.u.dropped[entry] || strings.HasPrefix(entry.Table, ".discard.klp") || entry.Table == ".discard.addressable" || elfdiff.IsRuntimeConst(entry.Table) {
		return
	}
	s := e.tables[entry.Sec]
	if s == nil {
		s = e.section(entry.Sec.Name, entry.Sec)
		e.tables[entry.Sec] = s
	}
	base := s.Size
	data := append([]byte(nil), entry.Data...)
	for i := range entry.Refs {
		clear(data[entry.Refs[i].Off:][:entry.Refs[i].Size])
	}
	// A last entry may be cut short where the assembler left no padding.
	data = append(data, make([]byte, entry.Full-entry.Size)...)
	s.Data = append(s.Data, data...)
	s.Size = uint64(len(s.Data))
	if entry.Replacement != nil {
		e.replacement(entry, s, base)
	}
	for i := range entry.Refs {
		e.reloc(s, base+entry.Refs[i].Off, &entry.Refs[i])
	}
}

// replacement copies the new code of an alternative and links its entry to it.
func (e *emitter) replacement(entry *elfdiff.Entry, table *elfobj.Section, base uint64) {
	code := entry.Replacement
	s := e.tables[code.Sec]
	if s == nil {
		s = e.section(code.Sec.Name, code.Sec)
		e.tables[code.Sec] = s
	}
	at := s.Size
	data := append([]byte(nil), code.Bytes()...)
	for i := range code.Refs {
		clear(data[code.Refs[i].Off:][:code.Refs[i].Size])
	}
	s.Data = append(s.Data, data...)
	s.Size = uint64(len(s.Data))
	for i := range code.Refs {
		e.reloc(s, at+code.Refs[i].Off, &code.Refs[i])
	}
	rela := e.relaOf(table)
	rela.Relocs = append(rela.Relocs, elfobj.Reloc{Off: base + entry.Refs[1].Off, Type: entry.Refs[1].Type, Sym: e.sectionSymbol(s), Addend: int64(at)})
}

// keepPointer adds a loaded pointer to a callback. objtool does not look at the
// markers, and on a kernel with IBT it would let the module loader remove the
// ENDBR64 of a function whose address nothing takes.
func (e *emitter) keepPointer(q *elfdiff.Piece) {
	s := &elfobj.Section{Name: ".rodata.klpc_callbacks", Type: elf.SHT_PROGBITS, Flags: elf.SHF_ALLOC, Align: 8, Data: make([]byte, 8), Size: 8}
	e.out.Sections = append(e.out.Sections, s)
	rela := e.relaOf(s)
	rela.Relocs = append(rela.Relocs, elfobj.Reloc{Type: uint32(elf.R_X86_64_64), Sym: e.syms[q]})
}

// mark adds a marker section with one pointer to a function.
func (e *emitter) mark(name string, q *elfdiff.Piece) {
	s := &elfobj.Section{Name: name, Type: elf.SHT_PROGBITS, Align: 8, Data: make([]byte, 8), Size: 8}
	e.out.Sections = append(e.out.Sections, s)
	rela := e.relaOf(s)
	rela.Relocs = append(rela.Relocs, elfobj.Reloc{Type: uint32(elf.R_X86_64_64), Sym: e.syms[q]})
}
