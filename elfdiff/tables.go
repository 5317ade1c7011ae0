package elfdiff

// Special sections are arrays of entries that each describe one place in the
// code: where a WARN stands, which branch a static key switches, which
// instructions an alternative replaces. An entry belongs to the function that
// its first relocation reaches. Entries whose size is not fixed by the kernel
// reach from one such relocation to the next.

import (
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
	for _, b := range v.entryBounds(sec, spec, rs) {
		lo := sort.Search(len(rs), func(i int) bool { return rs[i].Off >= b[0] })
		hi := sort.Search(len(rs), func(i int) bool { return rs[i].Off >= b[1] })
		e := &Entry{Table: sec.Name, Sec: sec, Off: b[0], Size: b[1] - b[0], Data: sec.Data[b[0]:b[1]]}
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

// entryBounds returns start and end of every entry of a table.
func (v *View) entryBounds(sec *elfobj.Section, spec tableSpec, rs []elfobj.Reloc) [][2]uint64 {
	var out [][2]uint64
	if spec.entry > 0 {
		for off := uint64(0); off < sec.Size; off += spec.entry {
			out = append(out, [2]uint64{off, min(off+spec.entry, sec.Size)})
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

// readReplacement cuts the new code of an alternative out of
// .altinstr_replacement: its start is the entry's second relocation, its
// length the entry's last byte (struct alt_instr, alternative.h).
func (v *View) readReplacement(e *Entry, rs []elfobj.Reloc) {
	n := uint64(e.Data[len(e.Data)-1])
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

// EntrySize is the size in bytes of a special section's entries where the
// kernel fixes it for all versions, else 0.
func EntrySize(table string) uint64 { return specOf(table).entry }
