package elfdiff

// A view cuts an object into pieces: for every function or variable the range
// of bytes that it owns, with the references that leave from it. A section
// with one symbol is one piece; a section that several symbols share (.text
// without -ffunction-sections, .data..percpu, .sched.text) is cut at the
// symbols. The assembler resolves branches inside a section without leaving a
// relocation, so functions are decoded and such branches become references
// like any other; where an instruction cannot be decoded, nothing is
// concluded from it.

import (
	"bytes"
	"cmp"
	"debug/elf"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/internal/arch"
)

// Piece is one function, one variable, or a run of bytes without a name.
type Piece struct {
	Sec  *elfobj.Section
	Kind SectionKind
	Init bool // thrown away after boot or module load

	// Lo and Hi bound the piece, in bytes from the section's start. Lo may
	// lie before the symbol: padding in front of a function belongs to it.
	Lo, Hi uint64
	// Sym is the symbol the piece is known by; nil for unnamed bytes.
	Sym *elfobj.Symbol
	// Names holds every symbol at the same place, Sym included.
	Names []*elfobj.Symbol
	// Func is set for executable pieces.
	Func bool

	Refs    []Ref    // by ascending Off
	Entries []*Entry // special-section entries that describe this function
	Parent  *Piece   // the function that a cold part was split from
	Parts   []*Piece // the cold parts of a function
	Twin    *Piece   // the same piece in the other object

	key nameKey
	// registers is set for functions that a compiler makes to tell the kernel
	// about the data of KASAN, KCSAN and GCOV while it boots.
	registers bool
	users     []string // source names of the functions that refer to it, sorted
	recorded  bool     // the object lists what ftrace knows in __mcount_loc
	undecode  uint64   // offset from Lo of the first undecodable instruction + 1; 0 if none
}

// Origin is the offset in the section that addends count from.
func (p *Piece) Origin() uint64 {
	if p.Sym != nil {
		return p.Sym.Value
	}
	return p.Lo
}

// Name is the symbol's name, or a description of unnamed bytes.
func (p *Piece) Name() string {
	if p.Sym != nil {
		return p.Sym.Name
	}
	return fmt.Sprintf("%s+%#x", p.Sec.Name, p.Lo)
}

// Size is the length of the named part in bytes.
func (p *Piece) Size() uint64 { return p.Hi - p.Origin() }

// Bytes returns the piece's content from Lo to Hi; nil for SHT_NOBITS.
func (p *Piece) Bytes() []byte {
	if p.Sec.Data == nil || p.Hi > uint64(len(p.Sec.Data)) {
		return nil
	}
	return p.Sec.Data[p.Lo:p.Hi]
}

// Undecoded tells whether the function may branch to others of its section in a
// way that is not known, and from which offset (from Lo) on.
func (p *Piece) Undecoded() (off uint64, yes bool) {
	return p.undecode - 1, p.undecode > 0 && p.Hi-p.Lo < p.Sec.Size
}

// Entry returns the address offset of the function's entry, from Lo.
func (p *Piece) entry() uint64 { return p.Origin() - p.Lo }

// Traceable tells whether the function starts with a call that ftrace can
// take over (-mfentry), also where a tool made it a nop already. recordmcount
// does that to functions that the kernel must not trace as well, without a
// record in __mcount_loc (nop_mcount, scripts/recordmcount.h, up to 5.x).
func (p *Piece) Traceable() bool {
	for _, r := range p.Refs {
		if r.Off > p.entry()+16 {
			return false
		}
		if r.To.Kind == Undef && r.To.Sym.Name == "__fentry__" {
			return r.Type != uint32(elf.R_X86_64_NONE) || !p.recorded || p.hasEntry("__mcount_loc")
		}
	}
	return false
}

// callsMcount tells whether a function was built with -pg alone: ftrace knows
// it, but the call stands behind the prologue, where no livepatch can take over.
func (p *Piece) callsMcount() bool {
	return slices.ContainsFunc(p.Refs, func(r Ref) bool { return r.To.Kind == Undef && r.To.Sym.Name == "mcount" })
}

func (p *Piece) hasEntry(table string) bool {
	return slices.ContainsFunc(p.Entries, func(e *Entry) bool { return e.Table == table })
}

// TargetKind is what a reference reaches.
type TargetKind uint8

// The kinds of targets.
const (
	Nothing  TargetKind = iota // symbol index 0
	InPiece                    // a piece of the same object
	Undef                      // a symbol of another object
	Literal                    // a string or constant, by content
	Absolute                   // SHN_ABS
	Lost                       // could not be resolved
)

// Target is where a reference leads.
type Target struct {
	Kind    TargetKind
	Piece   *Piece
	Sym     *elfobj.Symbol  // Undef, Absolute: the symbol
	Content []byte          // Literal: the bytes, with the final NUL of strings
	Sec     *elfobj.Section // Literal: where they lie
}

// Ref is one reference that leaves a piece: a relocation, or a branch within
// the section that needed none.
type Ref struct {
	Off    uint64 // bytes from Piece.Lo
	Type   uint32
	Size   int // bytes that it fills in
	To     Target
	Addend int64 // InPiece: from the piece's origin; Literal: into Content; else as in the file
	// Adj is the distance from the field to the end of its instruction if
	// the value is relative to that end, else 0. It is part of Addend for
	// Undef and InPiece, as in the file, and not for Literal.
	Adj    int64
	Branch bool // a direct call or jump
	Jump   bool // a direct jump: what it reaches returns to the caller of this
	// Section says that the relocation names a section and an offset, so that
	// where one variable ends and the next begins either may be meant.
	Section bool
	Memory  bool // the field is the displacement of a memory operand that is read or written
	Made    bool // no relocation stood here
}

// Entry is one entry of a special section.
type Entry struct {
	Table string
	Sec   *elfobj.Section
	Off   uint64 // bytes from the start of the section
	Size  uint64
	Full  uint64 // bytes of an entry; the last one may be cut short in the file
	Data  []byte // the entry's bytes
	Refs  []Ref  // Off is from the start of the entry
	At    uint64 // where in the function it applies, from the function's Lo
	// Replacement is the alternative's new code.
	Replacement *Piece
}

// View is one object cut into pieces.
type View struct {
	Obj    *elfobj.Object
	Arch   *arch.Arch
	Pieces []*Piece
	// Exports are the names that the object offers to modules, sorted.
	Exports []string

	bySec    map[*elfobj.Section][]*Piece // by ascending Lo, then Hi
	bySym    map[*elfobj.Symbol]*Piece
	kinds    map[*elfobj.Section]SectionKind
	relocs   map[*elfobj.Section][]elfobj.Reloc
	problems []Problem
	// functions holds the source names of all functions.
	functions map[string]bool
	jumpedTo  map[*elfobj.Section][]uint64 // see jumpTargets; made when first needed
	reached   map[*Piece][]int64           // see referencedOffsets; made when first needed
}

// PieceOf returns the piece that a defined symbol names, or nil.
func (v *View) PieceOf(s *elfobj.Symbol) *Piece { return v.bySym[s] }

// Before returns the piece that ends where q begins, or nil.
func (v *View) Before(q *Piece) *Piece {
	ps := v.bySec[q.Sec]
	for i := range ps {
		if ps[i] == q && i > 0 && ps[i-1].Hi == q.Lo {
			return ps[i-1]
		}
	}
	return nil
}

// Named returns the first piece with a symbol of that name, or nil.
func (v *View) Named(name string) *Piece {
	for _, p := range v.Pieces {
		for _, s := range p.Names {
			if s.Name == name {
				return p
			}
		}
	}
	return nil
}

// FuncAt returns the function at an offset from a symbol, or nil.
func (v *View) FuncAt(s *elfobj.Symbol, addend int64) *Piece {
	p := v.bySym[s]
	if p == nil && s.Section != nil {
		p = v.at(s.Section, s.Value+uint64(addend))
	}
	if p == nil || !p.Func {
		return nil
	}
	return p
}

// KindOf returns the kind of a section.
func (v *View) KindOf(s *elfobj.Section) SectionKind { return v.kinds[s] }

// NewView cuts an object into pieces. The object must not change afterwards.
func NewView(o *elfobj.Object) (*View, error) {
	a, ok := arch.ByMachine(o.Machine)
	if !ok {
		return nil, fmt.Errorf("object is for %v; klpc supports x86-64", o.Machine)
	}
	v := &View{
		Obj: o, Arch: a,
		bySec:  map[*elfobj.Section][]*Piece{},
		bySym:  map[*elfobj.Symbol]*Piece{},
		kinds:  map[*elfobj.Section]SectionKind{},
		relocs: map[*elfobj.Section][]elfobj.Reloc{},
	}
	for _, s := range o.Sections {
		v.kinds[s] = kindOf(s)
		if s.Type == elf.SHT_RELA && s.Target != nil && s.Flags&elfobj.SHFRelaLivepatch == 0 {
			v.relocs[s.Target] = append(v.relocs[s.Target], s.Relocs...)
		}
	}
	for s, rs := range v.relocs {
		if !slices.IsSortedFunc(rs, byOff) {
			rs = slices.Clone(rs)
			slices.SortStableFunc(rs, byOff)
			v.relocs[s] = rs
		}
	}
	v.cut()
	v.resolve()
	v.linkParts()
	v.readTables()
	v.noteRecorded()
	v.readExports()
	v.findUsers()
	return v, nil
}

// noteRecorded tells the functions of an object with a list of ftrace's places
// that there is one.
func (v *View) noteRecorded() {
	if !slices.ContainsFunc(v.Obj.Sections, func(s *elfobj.Section) bool { return s.Name == "__mcount_loc" }) {
		return
	}
	for _, p := range v.Pieces {
		p.recorded = true
	}
}

func byOff(a, b elfobj.Reloc) int { return cmp.Compare(a.Off, b.Off) }

// cut makes the pieces of every section that is compared or copied.
func (v *View) cut() {
	syms := map[*elfobj.Section][]*elfobj.Symbol{}
	for _, s := range v.Obj.Symbols {
		if s.Section != nil && s.Type != elf.STT_SECTION && s.Type != elf.STT_FILE {
			syms[s.Section] = append(syms[s.Section], s)
		}
	}
	for _, sec := range v.Obj.Sections {
		switch v.kinds[sec] {
		case Code, Data, ReadOnly, PerCPU:
			v.cutSection(sec, syms[sec])
		case Strings, Constants:
			// Literals are compared by content; a named object among
			// them is a piece like any other.
			for _, s := range syms[sec] {
				if s.Type == elf.STT_OBJECT && s.Size > 0 && !strings.HasPrefix(s.Name, ".L") {
					v.add(sec, s.Value, s.Value+s.Size, []*elfobj.Symbol{s})
				}
			}
		}
	}
}

// cutSection splits one section at its symbols.
func (v *View) cutSection(sec *elfobj.Section, syms []*elfobj.Symbol) {
	code := v.kinds[sec] == Code
	var starts, labels []*elfobj.Symbol
	for _, s := range syms {
		// Clang leaves labels and mapping symbols; prefix symbols lie in
		// the padding in front of the function they belong to.
		switch {
		case code && isPrefix(s.Name):
		case code && s.Type != elf.STT_FUNC && s.Size == 0 && !isCold(s.Name) && s.Bind == elf.STB_LOCAL:
			labels = append(labels, s)
		default:
			starts = append(starts, s)
		}
	}
	starts = append(starts, stubs(sec, starts, labels)...)
	slices.SortStableFunc(starts, func(a, b *elfobj.Symbol) int {
		return cmp.Or(cmp.Compare(a.Value, b.Value), cmp.Compare(b.Size, a.Size))
	})
	if len(starts) == 0 {
		if code {
			v.cutByReference(sec)
		} else if sec.Size > 0 {
			v.add(sec, 0, sec.Size, nil)
		}
		return
	}
	var end uint64
	for i := 0; i < len(starts); {
		first := starts[i]
		j := i + 1
		for j < len(starts) && starts[j].Value == first.Value && (starts[j].Size == first.Size || code) {
			j++
		}
		names := starts[i:j]
		lo, hi := first.Value, first.Value+first.Size
		if first.Size == 0 && (code || first.Type == elf.STT_NOTYPE) {
			hi = sec.Size // a label without a size: up to the next symbol
			if j < len(starts) {
				hi = starts[j].Value
			}
		}
		hi = min(hi, sec.Size)
		if code {
			lo = min(lo, max(end, prefixStart(syms, first)))
			if len(starts) == len(names) {
				lo, hi = 0, sec.Size
			} else if end < first.Value && first.Value-end >= 16 && paddingOnly(sec.Data, first.Value-16, first.Value) {
				lo = min(lo, first.Value-16)
			}
		} else if lo > end {
			v.add(sec, end, lo, nil)
		}
		v.add(sec, lo, hi, names)
		end = max(end, hi)
		i = j
	}
	if !code && end < sec.Size {
		v.add(sec, end, sec.Size, nil)
	}
}

// stubs returns the labels that stand in front of code of their own, outside
// every function with a size: assembly that says no more about itself.
func stubs(sec *elfobj.Section, funcs, labels []*elfobj.Symbol) []*elfobj.Symbol {
	var out []*elfobj.Symbol
	for _, l := range labels {
		inside, next := false, sec.Size
		for _, f := range funcs {
			if f.Value <= l.Value && (f.Size == 0 || l.Value < f.Value+f.Size) {
				inside = true
			}
			if f.Value > l.Value {
				next = min(next, f.Value)
			}
		}
		if !inside && l.Value < next && next <= uint64(len(sec.Data)) && len(bytes.Trim(sec.Data[l.Value:next], "\x90\xcc\x00")) > 0 {
			out = append(out, l)
		}
	}
	return out
}

// isPrefix tells whether a symbol names the padding in front of a function:
// __cfi_ by clang (-fsanitize=kcfi), __pfx_ by objtool (--prefix).
func isPrefix(name string) bool {
	return strings.HasPrefix(name, "__cfi_") || strings.HasPrefix(name, "__pfx_")
}

func prefixStart(syms []*elfobj.Symbol, f *elfobj.Symbol) uint64 {
	for _, s := range syms {
		if isPrefix(s.Name) && s.Value+s.Size == f.Value {
			return s.Value
		}
	}
	return f.Value
}

// paddingOnly tells whether a range holds only one-byte nops, as
// -fpatchable-function-entry puts in front of functions.
func paddingOnly(data []byte, lo, hi uint64) bool {
	return hi <= uint64(len(data)) && len(bytes.Trim(data[lo:hi], "\x90")) == 0
}

// cutByReference splits code without symbols (.altinstr_aux, .fixup, and the
// unlikely parts that GCC split off before version 8) at the places that are
// jumped to, where what is in front does not go on: each chunk is reached only
// through its start, or a jump into it.
func (v *View) cutByReference(sec *elfobj.Section) {
	if v.jumpedTo == nil {
		v.jumpedTo = v.jumpTargets()
	}
	cuts := append([]uint64{0, sec.Size}, v.jumpedTo[sec]...)
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	from := uint64(0)
	for _, to := range cuts[1:] {
		if to > sec.Size || to < sec.Size && !v.stopsAt(sec, from, to) {
			continue
		}
		v.add(sec, from, to, nil)
		from = to
	}
}

// stopsAt tells whether code from one offset on is known to end with an
// instruction that does not go on to the one at another offset.
func (v *View) stopsAt(sec *elfobj.Section, from, to uint64) bool {
	if to > uint64(len(sec.Data)) {
		return true // a damaged object, or no bytes at all
	}
	flow := arch.Return
	for from < to {
		in, ok := v.Arch.Decode(sec.Data[from:to])
		if !ok {
			return false
		}
		flow = in.Flow
		from += uint64(in.Len)
	}
	return flow == arch.Jump || flow == arch.Return
}

// jumpTargets collects the offsets that code and its tables refer to, by
// section: exception tables say where to go on.
func (v *View) jumpTargets() map[*elfobj.Section][]uint64 {
	m := map[*elfobj.Section][]uint64{}
	for _, s := range v.Obj.Sections {
		code := v.kinds[s] == Code || v.kinds[s] == Replacement
		if !code && v.kinds[s] != Table {
			continue
		}
		for _, r := range v.relocs[s] {
			if r.Sym == nil || r.Sym.Section == nil {
				continue
			}
			adj := uint64(0)
			if code && v.Arch.Relocs[r.Type].PCRel {
				adj = 4 // jumps end with their displacement
			}
			m[r.Sym.Section] = append(m[r.Sym.Section], r.Sym.Value+uint64(r.Addend)+adj)
		}
	}
	return m
}

func (v *View) add(sec *elfobj.Section, lo, hi uint64, names []*elfobj.Symbol) {
	p := &Piece{Sec: sec, Kind: v.kinds[sec], Init: initSection(sec.Name), Lo: lo, Hi: max(lo, hi), Func: v.kinds[sec] == Code}
	if len(names) > 0 {
		p.Names = slices.Clone(names)
		p.Sym = bestName(names)
		p.key = keyOf(p.Sym.Name)
		p.registers = p.Func && isRegistration(p.Sym.Name)
		for _, s := range names {
			v.bySym[s] = p
		}
	}
	v.Pieces = append(v.Pieces, p)
	v.bySec[sec] = append(v.bySec[sec], p)
}

// bestName picks the symbol that people know a place by: a strong global, then
// a local, then a weak one; the first by name among equals.
func bestName(names []*elfobj.Symbol) *elfobj.Symbol {
	rank := map[elf.SymBind]int{elf.STB_GLOBAL: 0, elf.STB_LOCAL: 1, elf.STB_WEAK: 2}
	return slices.MinFunc(names, func(a, b *elfobj.Symbol) int {
		return cmp.Or(cmp.Compare(rank[a.Bind], rank[b.Bind]), cmp.Compare(a.Name, b.Name))
	})
}

// at finds the piece at a section offset. An offset at the very end belongs to
// the last piece, as a pointer just behind it.
func (v *View) at(sec *elfobj.Section, off uint64) *Piece {
	ps := v.bySec[sec]
	i := sort.Search(len(ps), func(i int) bool { return ps[i].Lo > off })
	for j := i - 1; j >= 0; j-- {
		if off < ps[j].Hi || ps[j].Lo == off {
			return ps[j]
		}
		if j < i-4 {
			break
		}
	}
	if i > 0 && off == ps[i-1].Hi {
		return ps[i-1]
	}
	if i > 0 && ps[i-1].Func { // trailing padding
		return ps[i-1]
	}
	return nil
}

// resolve fills in the references of every piece.
func (v *View) resolve() {
	for _, sec := range v.Obj.Sections {
		ps := v.bySec[sec]
		if len(ps) == 0 {
			continue
		}
		rs := v.relocs[sec]
		for _, p := range ps {
			lo := sort.Search(len(rs), func(i int) bool { return rs[i].Off >= p.Lo })
			hi := sort.Search(len(rs), func(i int) bool { return rs[i].Off >= p.Hi })
			if p.Func {
				v.resolveCode(p, rs[lo:hi])
				continue
			}
			for _, r := range rs[lo:hi] {
				p.Refs = append(p.Refs, v.ref(r, p.Lo, 0))
			}
		}
	}
}

// ref resolves one relocation. base is subtracted from its offset; adj is the
// distance from the field to the end of its instruction.
func (v *View) ref(r elfobj.Reloc, base uint64, adj int64) Ref {
	rt := v.Arch.Relocs[r.Type]
	out := Ref{Off: r.Off - base, Type: r.Type, Size: rt.Size, Addend: r.Addend}
	if rt.PCRel {
		out.Adj = adj
	}
	s := r.Sym
	switch {
	case rt.Name == "":
		out.To = Target{Kind: Lost, Sym: s}
	case s == nil:
		out.To.Kind = Nothing
	case s.Section == nil && (s.Shndx == elf.SHN_UNDEF || s.Shndx == elf.SHN_COMMON):
		// A common symbol (-fcommon) is known by its name alone; its value
		// is an alignment.
		out.To = Target{Kind: Undef, Sym: s}
	case s.Section == nil:
		out.To = Target{Kind: Absolute, Sym: s}
	default:
		v.refInto(&out, s, r.Addend)
	}
	return out
}

// refInto resolves a reference to something that the object defines.
func (v *View) refInto(out *Ref, s *elfobj.Symbol, addend int64) {
	sec := s.Section
	if p := v.bySym[s]; p != nil {
		out.To = Target{Kind: InPiece, Piece: p}
		out.Addend = int64(s.Value) + addend - int64(p.Origin())
		return
	}
	where, inner := int64(s.Value)+addend+out.Adj, int64(0)
	out.Section = s.Type == elf.STT_SECTION
	if literal := v.kinds[sec] == Strings || v.kinds[sec] == Constants; literal && !out.Section {
		// The symbol says which literal is meant; the addend may lead to
		// its end, or in front of it.
		where, inner = int64(s.Value), addend+out.Adj
	}
	switch v.kinds[sec] {
	case Strings:
		if content, ok := stringAt(sec, where); ok {
			out.To = Target{Kind: Literal, Content: content, Sec: sec}
			out.Addend = inner
			return
		}
	case Constants:
		if where >= 0 && uint64(where) < sec.Size {
			start := uint64(where) / sec.EntSize * sec.EntSize
			if end := start + sec.EntSize; end <= uint64(len(sec.Data)) {
				out.To = Target{Kind: Literal, Content: sec.Data[start:end], Sec: sec}
				out.Addend = where - int64(start) + inner
				return
			}
		}
	default:
		if where >= 0 && uint64(where) <= sec.Size {
			if p := v.at(sec, uint64(where)); p != nil {
				out.To = Target{Kind: InPiece, Piece: p}
				out.Addend = int64(s.Value) + addend - int64(p.Origin())
				return
			}
		}
		// Compilers also point outside an object, to save an index
		// adjustment. Outside of the section it is that of the nearest
		// one, or of one behind it, at a distance that is as fixed.
		if ps := v.bySec[sec]; len(ps) > 0 && (!ps[0].Func || len(ps) == 1) {
			nearest := ps[0]
			if where > 0 {
				nearest = ps[len(ps)-1]
			}
			out.To = Target{Kind: InPiece, Piece: nearest}
			out.Addend = int64(s.Value) + addend - int64(nearest.Origin())
			return
		}
	}
	out.To = Target{Kind: Lost, Sym: s}
}

func stringAt(sec *elfobj.Section, off int64) ([]byte, bool) {
	w := max(sec.EntSize, 1)
	if off < 0 || uint64(off) >= uint64(len(sec.Data)) {
		return nil, false
	}
	d := sec.Data[off:]
	for i := uint64(0); i+w <= uint64(len(d)); i += w {
		if len(bytes.Trim(d[i:i+w], "\x00")) == 0 {
			return d[:i+w], true
		}
	}
	return nil, false
}

// resolveCode decodes a function and resolves its relocations and the branches
// that leave it without one.
func (v *View) resolveCode(p *Piece, rs []elfobj.Reloc) {
	code := p.Bytes()
	pos := p.entry()
	// What lies in front of the entry (padding, kCFI type) is data.
	k := 0
	for ; k < len(rs) && rs[k].Off-p.Lo < pos; k++ {
		p.Refs = append(p.Refs, v.ref(rs[k], p.Lo, 4))
	}
	for pos < uint64(len(code)) {
		in, ok := v.Arch.Decode(code[pos:])
		if !ok {
			p.undecode = pos + 1
			break
		}
		next := pos + uint64(in.Len)
		covered := false
		for ; k < len(rs) && rs[k].Off-p.Lo < next; k++ {
			r := v.ref(rs[k], p.Lo, int64(next-(rs[k].Off-p.Lo)))
			field := int(rs[k].Off - p.Lo - pos)
			r.Branch = in.RelSize > 0 && field == in.RelOff
			r.Jump = r.Branch && in.Flow != arch.Call
			r.Memory = !r.Branch && (in.ImmSize == 0 || field != in.ImmOff) && !isLea(code[pos:next])
			if r.Branch || in.DispOff > 0 && field == in.DispOff {
				covered = true
			}
			p.Refs = append(p.Refs, r)
		}
		if !covered {
			v.localBranch(p, code, pos, in)
		}
		pos = next
	}
	for ; k < len(rs); k++ {
		r := v.ref(rs[k], p.Lo, 4)
		if r.To.Kind != Undef && r.To.Kind != Nothing && v.Arch.Relocs[rs[k].Type].PCRel && rs[k].Sym.Type == elf.STT_SECTION && len(v.bySec[rs[k].Sym.Section]) != 1 {
			r.To = Target{Kind: Lost, Sym: rs[k].Sym}
		}
		p.Refs = append(p.Refs, r)
	}
}

// isLea tells whether an instruction computes an address without using it.
func isLea(insn []byte) bool {
	for _, b := range insn {
		switch {
		case b == 0x66 || b == 0x2e || b == 0x3e || b == 0x64 || b == 0x65 || b&0xf0 == 0x40:
			continue
		default:
			return b == 0x8d
		}
	}
	return false
}

// localBranch turns a branch or RIP-relative operand that leaves the piece
// without a relocation into a reference.
func (v *View) localBranch(p *Piece, code []byte, pos uint64, in arch.Inst) {
	field, size := in.RelOff, in.RelSize
	if size == 0 && in.DispOff > 0 {
		field, size = in.DispOff, 4
	}
	if size == 0 {
		return
	}
	at := code[pos+uint64(field):]
	var disp int64
	if size == 1 {
		disp = int64(int8(at[0]))
	} else {
		disp = int64(int32(uint32(at[0]) | uint32(at[1])<<8 | uint32(at[2])<<16 | uint32(at[3])<<24))
	}
	target := int64(p.Lo+pos) + int64(in.Len) + disp
	if target >= int64(p.Lo) && target < int64(p.Hi) {
		return
	}
	r := Ref{Off: pos + uint64(field), Type: uint32(elf.R_X86_64_PC32), Size: size, Made: true, Branch: in.RelSize > 0, Jump: in.RelSize > 0 && in.Flow != arch.Call}
	r.Adj = int64(in.Len - field)
	if target >= 0 && uint64(target) <= p.Sec.Size {
		if q := v.at(p.Sec, uint64(target)); q != nil {
			r.To = Target{Kind: InPiece, Piece: q}
			r.Addend = target - r.Adj - int64(q.Origin())
			p.Refs = append(p.Refs, r)
			return
		}
	}
	r.To.Kind = Lost
	p.Refs = append(p.Refs, r)
}

// linkParts joins cold parts to the functions that they were split from. In
// joined objects several functions may have the name; it is the one that jumps
// to the part.
func (v *View) linkParts() {
	byName := map[string][]*Piece{}
	for _, p := range v.Pieces {
		if p.Func {
			for _, s := range p.Names {
				byName[s.Name] = append(byName[s.Name], p)
			}
		}
	}
	for _, p := range v.Pieces {
		if !p.Func || p.Sym == nil || !isCold(p.Sym.Name) {
			continue
		}
		parents := slices.DeleteFunc(slices.Clone(byName[coldParent(p.Sym.Name)]), func(q *Piece) bool { return q == p })
		if len(parents) > 1 {
			parents = slices.DeleteFunc(parents, func(q *Piece) bool {
				return !slices.ContainsFunc(q.Refs, func(r Ref) bool { return r.To.Kind == InPiece && r.To.Piece == p })
			})
		}
		if len(parents) == 1 {
			p.Parent = parents[0]
			p.Parent.Parts = append(p.Parent.Parts, p)
		}
	}
}

// findUsers records for every named variable which functions refer to it.
func (v *View) findUsers() {
	users := map[*Piece]map[string]bool{}
	for _, p := range v.Pieces {
		if p.Sym == nil {
			continue
		}
		name := sourceName(p.Sym.Name)
		v.EachRef(p, func(r *Ref) {
			if r.To.Kind == InPiece && !r.To.Piece.Func {
				if users[r.To.Piece] == nil {
					users[r.To.Piece] = map[string]bool{}
				}
				users[r.To.Piece][name] = true
			}
		})
	}
	for p, set := range users {
		for n := range set {
			p.users = append(p.users, n)
		}
		slices.Sort(p.users)
	}
}

// EachRef calls f for each reference of a piece: its own, those of its
// special-section entries and of their replacement code.
func (v *View) EachRef(p *Piece, f func(*Ref)) {
	for i := range p.Refs {
		f(&p.Refs[i])
	}
	for _, e := range p.Entries {
		for i := range e.Refs {
			f(&e.Refs[i])
		}
		if e.Replacement != nil {
			for i := range e.Replacement.Refs {
				f(&e.Replacement.Refs[i])
			}
		}
	}
}

// Pos is the place of an offset (from Lo) in a piece.
func (p *Piece) Pos(off uint64) elfobj.Pos {
	pos := elfobj.Pos{Section: p.Sec.Name, Off: p.Lo + off}
	if p.Sym != nil {
		pos.Symbol = p.Sym.Name
		pos.Off = p.Lo + off - p.Origin()
	}
	return pos
}

// readExports collects the exported names: from the sections ___ksymtab+NAME
// (up to 6.3) and the symbols __export_symbol_NAME (since 6.4).
func (v *View) readExports() {
	set := map[string]bool{}
	for _, s := range v.Obj.Symbols {
		if s.Section == nil {
			continue
		}
		if v.kinds[s.Section] == Exports {
			for _, p := range []string{"__export_symbol_", "__ksymtab_"} {
				if n, ok := strings.CutPrefix(s.Name, p); ok {
					set[n] = true
				}
			}
		}
	}
	for n := range set {
		v.Exports = append(v.Exports, n)
	}
	slices.Sort(v.Exports)
}
