package elfdiff

// Equality of two pieces is equality of their bytes outside the fields that
// references fill in, of the references pairwise, and of the special-section
// entries pairwise. A reference to a twin is the same reference; one to a
// literal or an unnamed constant is the same if the content is. Everything
// else differs.

import (
	"bytes"
	"cmp"
	"debug/elf"
	"fmt"
	"slices"
	"strings"
)

// maskedBytes returns data with every field that a reference fills in zeroed.
func maskedBytes(data []byte, refs []Ref) []byte {
	if len(refs) == 0 {
		return data
	}
	out := bytes.Clone(data)
	for _, r := range refs {
		for i := r.Off; i < r.Off+uint64(r.Size) && i < uint64(len(out)); i++ {
			out[i] = 0
		}
	}
	return out
}

// sameCode compares two functions and says what differs.
func (c *comparison) sameCode(p, q *Piece) (reasons []string) {
	a, b := p.Bytes()[p.entryTrim():], q.Bytes()[q.entryTrim():]
	if len(a) != len(b) {
		reasons = append(reasons, fmt.Sprintf("code size %d instead of %d bytes", len(b), len(a)))
	} else if d := c.firstDifference(p, q); d != "" {
		reasons = append(reasons, d)
	} else if !c.branchesProven(p, q) {
		reasons = append(reasons, "contains an instruction that cannot be decoded, in a section shared with other functions")
	}
	if d := c.firstRefDifference(p.Refs, q.Refs, p.entryTrim(), q.entryTrim()); d != "" {
		reasons = append(reasons, d)
	}
	return append(reasons, c.entryDifferences(p, q)...)
}

// entryTrim is the number of padding bytes in front of the compared part: the
// padding that a shared section leaves between functions does not count, a
// kCFI type in front of the entry does.
func (p *Piece) entryTrim() uint64 {
	e := p.entry()
	d := p.Bytes()
	if e <= uint64(len(d)) && len(bytes.Trim(d[:e], "\x90\xcc\x00")) == 0 {
		return e
	}
	return 0
}

func (c *comparison) firstDifference(p, q *Piece) string {
	a := maskedBytes(p.Bytes(), p.Refs)[p.entryTrim():]
	b := maskedBytes(q.Bytes(), q.Refs)[q.entryTrim():]
	for i := range a {
		if a[i] != b[i] {
			return fmt.Sprintf("code differs at +%#x", uint64(i)+q.entryTrim()-q.entry())
		}
	}
	return ""
}

// branchesProven tells whether an undecodable instruction could hide a branch
// to another function of the same section that has moved.
func (c *comparison) branchesProven(p, q *Piece) bool {
	if p.undecode == 0 && q.undecode == 0 {
		return true
	}
	if len(c.orig.bySec[p.Sec]) == 1 && len(c.patched.bySec[q.Sec]) == 1 {
		return true
	}
	return bytes.Equal(p.Sec.Data, q.Sec.Data)
}

func (c *comparison) firstRefDifference(a, b []Ref, trimA, trimB uint64) string {
	for i := range min(len(a), len(b)) {
		if a[i].Off-trimA != b[i].Off-trimB {
			return instead(&a[i], &b[i])
		}
		if d := c.refDifference(&a[i], &b[i]); d != "" {
			return d
		}
	}
	switch {
	case len(a) < len(b):
		return "new reference to " + describe(&b[len(a)])
	case len(a) > len(b):
		return "no reference to " + describe(&a[len(b)]) + " any more"
	}
	return ""
}

// refDifference compares two references apart from where they stand.
func (c *comparison) refDifference(a, b *Ref) string {
	if a.Type != b.Type && !(a.Branch && b.Branch && isPC32(a.Type) && isPC32(b.Type)) {
		return fmt.Sprintf("relocation type %d instead of %d to %s", b.Type, a.Type, describe(b))
	}
	if a.Size != b.Size || !c.sameTarget(a, b) {
		return instead(a, b)
	}
	return ""
}

// instead says that b stands where a stood.
func instead(a, b *Ref) string {
	was, is := describe(a), describe(b)
	if was == is {
		return is + " is another one, or has other content"
	}
	return is + " instead of " + was
}

// isPC32 tells whether a type is one of the two that assemblers use for calls
// without meaning a difference: PLT32 for global, PC32 for local functions.
func isPC32(t uint32) bool {
	return t == uint32(elf.R_X86_64_PC32) || t == uint32(elf.R_X86_64_PLT32)
}

func (c *comparison) sameTarget(a, b *Ref) bool {
	if a.To.Kind != b.To.Kind {
		return false
	}
	switch a.To.Kind {
	case Nothing:
		return a.Addend == b.Addend
	case Undef:
		return a.To.Sym.Name == b.To.Sym.Name && a.Addend == b.Addend
	case Absolute:
		return a.To.Sym.Value == b.To.Sym.Value && a.Addend == b.Addend
	case Literal:
		return bytes.Equal(a.To.Content, b.To.Content) && a.Addend == b.Addend
	case InPiece:
		p, q := a.To.Piece, b.To.Piece
		if p.Twin == q && q.Twin == p {
			return a.Addend == b.Addend
		}
		if p.Twin != nil || q.Twin != nil {
			return false
		}
		return c.sameUnnamed(a, b)
	}
	return false // Lost: nothing is proven
}

// sameUnnamed compares what has no identity, by content: unnamed constants
// from the referenced byte to the end of the run, and copies that may travel.
func (c *comparison) sameUnnamed(a, b *Ref) bool {
	p, q := a.To.Piece, b.To.Piece
	switch {
	case p.Sym == nil && q.Sym == nil:
		from, to := a.Addend+a.Adj, b.Addend+b.Adj
		if from < 0 || to < 0 || uint64(from) > p.Hi-p.Lo || uint64(to) > q.Hi-q.Lo {
			return false
		}
		if p.Kind == Code { // which may jump back to what is in front
			return from == to && c.sameContent(p, q, 0, 0)
		}
		return c.sameContent(p, q, c.orig.reachedFrom(a), c.patched.reachedFrom(b))
	case p.Sym != nil && q.Sym != nil && p.key == q.key && (MayTravel(p) || p.Kind == ReadOnly) && !p.Func:
		return a.Addend == b.Addend && c.sameContent(p, q, 0, 0)
	}
	return false
}

// reachedFrom is the first byte of an unnamed run that a reference may reach, in
// bytes from its start. Compilers fold constants into an index: a memory operand
// with a register may reach back as far as to what the reference before it is
// for, and any reference to what lies in front of all of them.
func (v *View) reachedFrom(r *Ref) uint64 {
	if v.reached == nil {
		v.reached = v.referencedOffsets()
	}
	all, at := v.reached[r.To.Piece], r.Addend+r.Adj
	i, _ := slices.BinarySearch(all, at)
	switch {
	case i == 0:
		return 0
	case r.Memory && r.Type == uint32(elf.R_X86_64_32S):
		return uint64(max(all[i-1], 0))
	}
	return uint64(at)
}

// referencedOffsets lists the places of unnamed runs that are referred to, each
// once, in ascending order.
func (v *View) referencedOffsets() map[*Piece][]int64 {
	m := map[*Piece][]int64{}
	for _, p := range v.Pieces {
		v.EachRef(p, func(r *Ref) {
			if r.To.Kind == InPiece && r.To.Piece.Sym == nil {
				m[r.To.Piece] = append(m[r.To.Piece], r.Addend+r.Adj)
			}
		})
	}
	for p := range m {
		slices.Sort(m[p])
		m[p] = slices.Compact(m[p])
	}
	return m
}

// compared is a pair of pieces whose content is being compared.
type compared struct {
	p, q     *Piece
	from, to uint64
}

// sameContent compares two pieces from the given offsets on.
func (c *comparison) sameContent(p, q *Piece, from, to uint64) bool {
	if p.Kind == Code != (q.Kind == Code) || p.Hi-p.Lo-from != q.Hi-q.Lo-to {
		return false
	}
	if p.Sec.Data == nil && q.Sec.Data == nil {
		return true
	}
	k := compared{p, q, from, to}
	if c.assumed[k] {
		return true // reached again while being compared
	}
	c.assumed[k] = true
	defer delete(c.assumed, k)

	if !sameBytes(p, q, from, to) {
		return false
	}
	a, b := refsFrom(p.Refs, from), refsFrom(q.Refs, to)
	return c.firstRefDifference(a, b, from, to) == ""
}

// ubsanPlace is where the line and column of a record of UBSAN lie, in bytes
// from its start: behind the pointer to the file's name. Source: struct
// source_location, lib/ubsan.h; gcc/ubsan.cc names the records.
var ubsanPlace = struct{ from, to uint64 }{8, 16}

// isUbsanRecord tells whether a piece is one record of UBSAN, in a section of
// its own.
func isUbsanRecord(p *Piece) bool {
	return p.Sym == nil && p.Lo == 0 && p.Hi == p.Sec.Size && p.Hi >= ubsanPlace.to && strings.Contains(p.Sec.Name, ".Lubsan_data")
}

// comparedBytes are the bytes of a piece that count, references masked. The line
// in a record of UBSAN only names the place in the message, and an unpatched
// function keeps its own.
func comparedBytes(p *Piece) []byte {
	out := maskedBytes(p.Bytes(), p.Refs)
	if out != nil && isUbsanRecord(p) {
		out = bytes.Clone(out)
		clear(out[ubsanPlace.from:ubsanPlace.to])
	}
	return out
}

func refsFrom(refs []Ref, from uint64) []Ref {
	for i := range refs {
		if refs[i].Off >= from {
			return refs[i:]
		}
	}
	return nil
}

// sameBytes compares the contents of two pieces of equal length with
// references masked. What has no bytes in the file (.bss) is zero; nothing of
// its size is made, which a damaged file may claim to be anything.
func sameBytes(p, q *Piece, from, to uint64) bool {
	a, b := p.Bytes(), q.Bytes()
	switch {
	case a == nil && b == nil:
		return true
	case a == nil:
		return len(bytes.Trim(comparedBytes(q)[to:], "\x00")) == 0
	case b == nil:
		return len(bytes.Trim(comparedBytes(p)[from:], "\x00")) == 0
	}
	return bytes.Equal(comparedBytes(p)[from:], comparedBytes(q)[to:])
}

// entryDifferences compares the special-section entries of two functions.
func (c *comparison) entryDifferences(p, q *Piece) []string {
	var reasons []string
	a, b := comparedEntries(p), comparedEntries(q)
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(a):
			reasons = append(reasons, "new entry in "+b[i].Table)
		case i >= len(b):
			reasons = append(reasons, "entry in "+a[i].Table+" is gone")
		default:
			if d := c.entryDifference(p, q, a[i], b[i]); d != "" {
				reasons = append(reasons, d)
			}
		}
		if len(reasons) > 0 {
			break // what follows is shifted
		}
	}
	return reasons
}

// comparedEntries returns a function's entries table by table: the order of
// the tables in the file is that of their first use and means nothing.
func comparedEntries(p *Piece) []*Entry {
	var out []*Entry
	for _, e := range p.Entries {
		if specOf(e.Table).compared {
			out = append(out, e)
		}
	}
	slices.SortStableFunc(out, func(a, b *Entry) int { return cmp.Compare(a.Table, b.Table) })
	return out
}

func (c *comparison) entryDifference(p, q *Piece, a, b *Entry) string {
	what := strings.TrimLeft(b.Table, "._")
	if a.Table != b.Table || a.Size != b.Size || a.At-p.entry() != b.At-q.entry() {
		return what + " entry differs"
	}
	x, y := maskedBytes(a.Data, a.Refs), maskedBytes(b.Data, b.Refs)
	ra, rb := a.Refs, b.Refs
	if a.Table == "__bug_table" {
		x, ra = dropBugLine(x, ra)
		y, rb = dropBugLine(y, rb)
	}
	if !bytes.Equal(x, y) {
		return what + " entry differs"
	}
	if len(ra) != len(rb) {
		return what + " entry differs"
	}
	for i := range ra {
		if ra[i].Off != rb[i].Off {
			return what + " entry differs"
		}
		if ra[i].To.Kind == InPiece && ra[i].To.Piece.Kind == Replacement && ra[i].Type == rb[i].Type {
			continue // the code is compared below
		}
		if d := c.refDifference(&ra[i], &rb[i]); d != "" {
			return what + " entry: " + d
		}
	}
	if (a.Replacement == nil) != (b.Replacement == nil) {
		return what + " entry differs"
	}
	if a.Replacement != nil && len(c.sameCode(a.Replacement, b.Replacement)) > 0 {
		return "replacement code of an alternative differs"
	}
	return ""
}

// dropBugLine forgives the file and line of a bug entry: they only name the
// place in the message, and an unpatched function keeps its own. struct
// bug_entry (include/asm-generic/bug.h) is {addr, file, u16 line, u16 flags}
// with 12 bytes, or {addr, format, file, u16 line, u16 flags} with 16; flags
// and format count.
func dropBugLine(data []byte, refs []Ref) ([]byte, []Ref) {
	var line, file uint64
	switch len(data) {
	case 12:
		line, file = 8, 4
	case 16:
		line, file = 12, 8
	default:
		return data, refs
	}
	out := bytes.Clone(data)
	out[line], out[line+1] = 0, 0
	var kept []Ref
	for _, r := range refs {
		if r.Off != file {
			kept = append(kept, r)
		}
	}
	return out, kept
}

// describe names what a reference reaches, for people.
func describe(r *Ref) string {
	off := func(n int64) string {
		n += r.Adj
		if n == 0 {
			return ""
		}
		return fmt.Sprintf("%+#x", n)
	}
	switch r.To.Kind {
	case InPiece:
		return r.To.Piece.Name() + off(r.Addend)
	case Undef, Absolute:
		return r.To.Sym.Name + off(r.Addend)
	case Literal:
		if s := strings.TrimRight(string(r.To.Content), "\x00"); r.To.Sec.Flags&elf.SHF_STRINGS != 0 {
			if len(s) > 40 {
				s = s[:40] + "..."
			}
			return fmt.Sprintf("%q", s)
		}
		return fmt.Sprintf("constant %x", r.To.Content)
	case Lost:
		return "an unknown place"
	}
	return "nothing"
}
