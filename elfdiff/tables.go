package elfdiff

// Special sections are arrays of entries that each describe one place in the
// code: where a WARN stands, which branch a static key switches, which
// instructions an alternative replaces. An entry belongs to the function that
// its first relocation reaches. Entries whose size is not fixed by the kernel
// reach from one such relocation to the next.

import (
	"debug/elf"
	"sort"

	"github.com/klpc/klpc/elfobj"
)

func (v *View) readTables() {
	for _, sec := range v.Obj.Sections {
		if v.kinds[sec] == Table && sec.Data != nil {
			v.readTable(sec)
		}
	}
}

func (v *View) readTable(sec *elfobj.Section) {
	spec := specOf(sec.Name)
	rs := v.relocs[sec]
	size := v.entrySize(sec, spec, rs)
	for _, b := range v.entryBounds(sec, size, rs) {
		lo := sort.Search(len(rs), func(i int) bool { return rs[i].Off >= b[0] })
		hi := sort.Search(len(rs), func(i int) bool { return rs[i].Off >= b[1] })
		e := &Entry{Table: sec.Name, Sec: sec, Off: b[0], Size: b[1] - b[0], Full: max(size, b[1]-b[0]), Data: sec.Data[b[0]:b[1]]}
		for _, r := range rs[lo:hi] {
			e.Refs = append(e.Refs, v.ref(r, b[0], 0))
		}
		if len(e.Refs) == 0 || e.Refs[0].To.Kind != InPiece || !e.Refs[0].To.Piece.Func {
			if spec.compared {
				v.problem(Problem{Kind: UnknownConstruct, At: elfobj.Pos{Section: sec.Name, Off: b[0]},
					Detail: "entry of " + sec.Name + " does not start with a reference to code",
					Hint:   "report this: the section's layout is not known to klpc"})
			}
			continue
		}
		owner := e.Refs[0].To.Piece
		e.At = uint64(e.Refs[0].Addend + int64(owner.entry()))
		if sec.Name == ".altinstructions" {
			v.readReplacement(e, rs[lo:hi])
		}
		owner.Entries = append(owner.Entries, e)
	}
}

// entryBounds returns start and end of every entry of a table whose entries
// have a size in bytes, or 0 if it is not fixed.
func (v *View) entryBounds(sec *elfobj.Section, size uint64, rs []elfobj.Reloc) [][2]uint64 {
	var out [][2]uint64
	if size > 0 {
		for off := uint64(0); off < sec.Size; off += size {
			out = append(out, [2]uint64{off, min(off+size, sec.Size)})
		}
		return out
	}
	var starts []uint64
	for _, r := range rs {
		if t := v.ref(r, 0, 0).To; t.Kind == InPiece && t.Piece.Func {
			starts = append(starts, r.Off)
		}
	}
	for i, s := range starts {
		end := sec.Size
		if i+1 < len(starts) {
			end = starts[i+1]
		}
		out = append(out, [2]uint64{s, end})
	}
	return out
}

// Sizes of entries that older kernels have.
const (
	oldExtable  = 8  // {instruction, fixup}: struct exception_table_entry up to 4.5
	oldJump     = 24 // three addresses: struct jump_entry up to 4.19
	oldSmpLocks = 8  // an address: .smp_locks up to 2.6.33
)

// entrySize is the size in bytes of a table's entries, of which the relocations
// tell whether they are those of an older kernel; 0 if it is not fixed.
func (v *View) entrySize(sec *elfobj.Section, spec tableSpec, rs []elfobj.Reloc) uint64 {
	absolute := len(rs) > 0 && rs[0].Type == uint32(elf.R_X86_64_64)
	switch {
	case sec.Name == "__jump_table" && absolute:
		return oldJump
	case sec.Name == ".smp_locks" && absolute:
		return oldSmpLocks
	case sec.Name == "__ex_table" && sec.Size == oldExtable*uint64(len(rs)/2) && v.startsEvery(oldExtable, rs):
		return oldExtable
	}
	return spec.entry
}

// startsEvery tells whether references to code of this object stand at every
// n-th byte, each followed by one 4 bytes on, and nowhere else. The third field
// of the exception tables of Linux 4.6 to 5.15 is a handler elsewhere.
func (v *View) startsEvery(n uint64, rs []elfobj.Reloc) bool {
	for i, r := range rs {
		if r.Off != uint64(i/2)*n+uint64(i%2)*4 {
			return false
		}
		if t := v.ref(r, 0, 0).To; t.Kind != InPiece || !t.Piece.Func {
			return false
		}
	}
	return len(rs) > 0
}

// lengthField is the offset in an entry of .altinstructions of the length in
// bytes of the new code: the last byte, but for the 13 bytes that entries had
// from 4.0 to 5.12, where the length of the padding follows.
func lengthField(entry int) int {
	if entry == 13 {
		return entry - 2
	}
	return entry - 1
}

// readReplacement cuts the new code of an alternative out of
// .altinstr_replacement: its start is the entry's second relocation, its
// length in the entry's last bytes (struct alt_instr, alternative.h).
func (v *View) readReplacement(e *Entry, rs []elfobj.Reloc) {
	n := uint64(e.Data[lengthField(len(e.Data))])
	if len(rs) < 2 || rs[1].Sym == nil || rs[1].Sym.Section == nil {
		return
	}
	sec := rs[1].Sym.Section
	lo := rs[1].Sym.Value + uint64(rs[1].Addend)
	if lo > sec.Size || n > sec.Size-lo {
		v.problem(Problem{Kind: UnknownConstruct, At: elfobj.Pos{Section: e.Table, Off: e.Off},
			Detail: "replacement code lies outside " + sec.Name, Hint: "the object is damaged"})
		return
	}
	p := &Piece{Sec: sec, Kind: Replacement, Lo: lo, Hi: lo + n, Func: true}
	all := v.relocs[sec]
	i := sort.Search(len(all), func(i int) bool { return all[i].Off >= p.Lo })
	j := sort.Search(len(all), func(i int) bool { return all[i].Off >= p.Hi })
	v.resolveCode(p, all[i:j])
	e.Replacement = p
	e.Refs[1].To = Target{Kind: InPiece, Piece: p}
	e.Refs[1].Addend = 0
}

func (v *View) problem(p Problem) { v.problems = append(v.problems, p) }
