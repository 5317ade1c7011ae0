package verify

// Special sections. Those that the compiler makes (alternatives, static branches,
// bug and exception tables) hold entries that describe functions; each entry of a
// paired function must be in the module once, in the same order for one place,
// and nothing else. Those that objtool makes (unwind information, return and call
// sites) are compared with what objtool makes of the freshly compiled object.

import (
	"bytes"
	"cmp"
	"debug/elf"
	"fmt"
	"slices"
	"strings"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
)

// specials finds the module's entries for a paired function.
func (c *check) specials(id pieceID) {
	last := map[string]map[uint64]uint64{} // table -> place in the function -> entry before
	for _, e := range id.u.shape(id.p).entries {
		if derivedTable(e.Table) {
			continue
		}
		sec := c.obj.Section(e.Table)
		if sec == nil || len(e.Refs) == 0 {
			c.find(Patched, c.where(c.pairs[id].sec, c.pairs[id].off+e.At), fmt.Sprintf("the module has no section %s, which describes this place in the patched object", e.Table), reportHint)
			continue
		}
		if last[e.Table] == nil {
			last[e.Table] = map[uint64]uint64{}
		}
		after, again := last[e.Table][e.At]
		start, ok := c.entryFor(id, e, sec, after, again)
		if !ok {
			continue
		}
		last[e.Table][e.At] = start
		c.entry(id, e, place{sec, start})
	}
}

// entryFor finds where in the module an entry is: the first that leads to its
// place in the function, and was not taken.
func (c *check) entryFor(id pieceID, e *elfdiff.Entry, sec *elfobj.Section, after uint64, again bool) (uint64, bool) {
	at := c.pairs[id]
	r := &e.Refs[0]
	to := place{at.sec, at.off + r.To.Piece.Origin() - r.To.Piece.Lo + uint64(r.Addend)}
	var candidates []uint64
	for _, off := range c.leading(sec)[to] {
		if off < r.Off {
			continue
		}
		start := off - r.Off
		if c.claimed(sec, start) || again && start <= after {
			continue
		}
		candidates = append(candidates, start)
	}
	for _, start := range candidates {
		if c.fits(id, e, place{sec, start}) {
			return start, true
		}
	}
	if len(candidates) > 0 {
		return candidates[0], true // to say what differs
	}
	c.find(Patched, c.where(to.sec, to.off), fmt.Sprintf("the entry of %s that describes this place in the patched object is missing", e.Table), reportHint)
	return 0, false
}

// leading maps places of the module to the relocations of a section that lead
// there.
func (c *check) leading(sec *elfobj.Section) map[place][]uint64 {
	if c.entries[sec] == nil {
		m := map[place][]uint64{}
		for _, r := range c.relocs[sec] {
			if to, ok := internal(r); ok {
				m[to] = append(m[to], r.Off)
			}
		}
		c.entries[sec] = m
	}
	return c.entries[sec]
}

func (c *check) claimed(sec *elfobj.Section, off uint64) bool {
	return slices.ContainsFunc(c.claims[sec], func(x claim) bool { return off >= x.lo && off < x.hi })
}

// fits tries whether an entry is equal, without saying what is not.
func (c *check) fits(id pieceID, e *elfdiff.Entry, at place) bool {
	before, trial := c.silent, c.trial
	c.silent, c.trial = true, 0
	c.entry(id, e, at)
	ok := c.trial == 0
	c.silent, c.trial = before, trial
	return ok
}

// entry compares one entry of a special section, with its replacement code.
func (c *check) entry(id pieceID, e *elfdiff.Entry, at place) {
	size := e.Full // the last may be cut short
	data := bytes.Clone(e.Data)
	data = append(data, make([]byte, size-uint64(len(data)))...)
	refs := make([]*elfdiff.Ref, 0, len(e.Refs))
	for i := range e.Refs {
		clear(data[e.Refs[i].Off:][:e.Refs[i].Size])
		refs = append(refs, &e.Refs[i])
	}
	c.claim(at.sec, at.off, at.off+size, "an entry of "+e.Table)
	where := c.where(at.sec, at.off)
	c.bytes(where, data, size, at, refs)
	if rs := c.within(at.sec, at.off, at.off+size); loadTable(e.Table) && !c.silent {
		for _, r := range rs {
			if r.klp != "" && r.klp != VMLinux {
				c.find(Accepted, c.where(r.sec, r.Off), fmt.Sprintf("%s is read when the livepatch is loaded, before the symbols of %s are known", e.Table, r.klp), reportHint)
			}
		}
	}
	if e.Replacement == nil {
		c.references(id, refs, at, size)
		return
	}
	c.references(id, slices.Delete(slices.Clone(refs), 1, 2), at, e.Refs[1].Off)
	c.references(id, nil, place{at.sec, at.off + e.Refs[1].Off + uint64(e.Refs[1].Size)}, size-e.Refs[1].Off-uint64(e.Refs[1].Size))
	c.replacement(id, e, at)
}

// loadTable tells whether the kernel uses a table while it loads the livepatch.
func loadTable(name string) bool {
	return name == "__jump_table" || name == ".altinstructions" || name == ".parainstructions" || name == ".static_call_sites"
}

// replacement compares the new code of an alternative, which the second
// reference of its entry leads to.
func (c *check) replacement(id pieceID, e *elfdiff.Entry, at place) {
	code := e.Replacement
	m := c.relocAt(at.sec, at.off+e.Refs[1].Off)
	where := c.where(at.sec, at.off)
	if m == nil || m.klp != "" || m.Type != e.Refs[1].Type {
		c.find(Patched, where, "the entry does not lead to its replacement code as in the patched object", reportHint)
		return
	}
	if !c.silent {
		m.used = true
	}
	to, ok := internal(m)
	if !ok || to.sec.Name != code.Sec.Name || to.off > to.sec.Size || code.Hi-code.Lo > to.sec.Size-to.off {
		c.find(Patched, where, "the entry does not lead to its replacement code", reportHint)
		return
	}
	data := bytes.Clone(code.Bytes())
	refs := make([]*elfdiff.Ref, 0, len(code.Refs))
	for i := range code.Refs {
		clear(data[code.Refs[i].Off:][:code.Refs[i].Size])
		refs = append(refs, &code.Refs[i])
	}
	if len(data) > 0 {
		c.claim(to.sec, to.off, to.off+uint64(len(data)), "replacement code")
	}
	c.bytes(where, data, uint64(len(data)), to, refs)
	c.references(id, refs, to, uint64(len(data)))
	for _, r := range c.within(to.sec, to.off, to.off+uint64(len(data))) {
		if r.klp != "" && r.klp != VMLinux {
			c.find(Accepted, c.where(r.sec, r.Off), fmt.Sprintf("replacement code is copied when the livepatch is loaded, before the symbols of %s are known", r.klp), reportHint)
		}
	}
}

// Tables that objtool makes.
const (
	orcUnwind     = ".orc_unwind"
	orcUnwindIP   = ".orc_unwind_ip"
	sealTable     = ".ibt_endbr_seal"
	callSites     = ".call_sites"
	staticSites   = ".static_call_sites"
	mcountTable   = "__mcount_loc"
	patchableSecs = "__patchable_function_entries"
)

// siteTables are those whose entries each begin with the place of an instruction
// or function, and their sizes in bytes. Source: tools/objtool/check.c.
var siteTables = map[string]uint64{
	".return_sites": 4, ".retpoline_sites": 4, callSites: 4, ".cfi_sites": 4, staticSites: 8, mcountTable: 8, patchableSecs: 8,
}

func derivedTable(name string) bool {
	return siteTables[name] > 0 || name == orcUnwind || name == orcUnwindIP || name == sealTable
}

// site is an entry of such a table: which place of which piece, and more.
type site struct {
	table string
	off   uint64 // bytes from the piece's Lo
	more  string // names what further relocations lead to
}

// orcEntry is a place where the state of the stack changes.
type orcEntry struct {
	off   uint64 // bytes from the start of the section
	state string // the entry of .orc_unwind
}

// derived is what objtool says about a unit.
type derived struct {
	sites map[*elfdiff.Piece][]site
	orc   map[*elfobj.Section][]orcEntry // by the section of code, ascending
	// bottom holds the states that end a section: nothing is known behind it.
	bottom map[string]bool
	has    map[string]bool // tables that are there at all
}

func (x *unit) readDerived() (*derived, error) {
	d := &derived{sites: map[*elfdiff.Piece][]site{}, orc: map[*elfobj.Section][]orcEntry{}, bottom: map[string]bool{}, has: map[string]bool{}}
	places := map[*elfobj.Section][]*elfdiff.Piece{}
	for _, p := range x.view.Pieces {
		if p.Func {
			places[p.Sec] = append(places[p.Sec], p)
		}
	}
	owner := func(sec *elfobj.Section, off uint64) *elfdiff.Piece {
		for _, p := range places[sec] {
			if off >= p.Lo && off < p.Hi {
				return p
			}
		}
		return nil
	}
	var states []byte
	for _, s := range x.Patched.Sections {
		if s.Name == orcUnwind {
			states = s.Data
		}
	}
	for _, s := range x.Patched.Sections {
		if s.Type != elf.SHT_RELA || s.Target == nil || !derivedTable(s.Target.Name) {
			continue
		}
		table := s.Target.Name
		d.has[table] = true
		if table == orcUnwindIP {
			if err := d.readORC(s.Relocs, s.Target, states); err != nil {
				return nil, err
			}
			continue
		}
		size := siteTables[table]
		for _, r := range s.Relocs {
			if size == 0 || r.Off%size != 0 || r.Sym == nil || r.Sym.Section == nil {
				continue
			}
			off := r.Sym.Value + uint64(r.Addend)
			p := owner(r.Sym.Section, off)
			if p == nil {
				continue // replacement code, or data
			}
			more := ""
			for _, q := range s.Relocs {
				if q.Off > r.Off && q.Off < r.Off+size && q.Sym != nil {
					more += fmt.Sprintf("%s%+d;", q.Sym.Name, q.Addend)
				}
			}
			d.sites[p] = append(d.sites[p], site{table, off - p.Lo, more})
		}
	}
	for _, all := range d.orc {
		slices.SortStableFunc(all, func(a, b orcEntry) int { return cmp.Compare(a.off, b.off) })
	}
	return d, nil
}

func (d *derived) readORC(rs []elfobj.Reloc, ips *elfobj.Section, states []byte) error {
	n := int(ips.Size / 4)
	if n == 0 || len(states)%n != 0 || len(rs) != n {
		return fmt.Errorf("%s has %d entries and %s %d bytes", orcUnwindIP, n, orcUnwind, len(states))
	}
	size := len(states) / n
	for _, r := range rs {
		if r.Sym == nil || r.Sym.Section == nil || r.Off%4 != 0 || r.Off >= ips.Size {
			return fmt.Errorf("%s: an entry leads to no code", orcUnwindIP)
		}
		i := int(r.Off / 4)
		e := orcEntry{r.Sym.Value + uint64(r.Addend), string(states[i*size : (i+1)*size])}
		sec := r.Sym.Section
		d.orc[sec] = append(d.orc[sec], e)
		if e.off == sec.Size {
			d.bottom[e.state] = true
		}
	}
	return nil
}

// stateIn lists the changes of state in a range, with the one that holds at its
// start, offsets from there.
func stateIn(all []orcEntry, lo, hi uint64) []orcEntry {
	var out []orcEntry
	for _, e := range all {
		if e.off >= hi {
			break
		}
		e.off = max(e.off, lo) - lo
		if n := len(out); n > 0 && out[n-1].off == e.off {
			out[n-1] = e
		} else {
			out = append(out, e)
		}
	}
	return slices.CompactFunc(out, func(a, b orcEntry) bool { return a.state == b.state })
}

// derivedTables compares what objtool has made.
func (c *check) derivedTables() {
	c.siteTables()
	c.unwind()
	c.seals()
}

// siteTables compares tables of places as sets.
func (c *check) siteTables() {
	type key struct {
		table string
		at    place
		more  string
	}
	want := map[key]int{}
	tables := map[string]bool{}
	for _, id := range c.sorted() {
		at := c.pairs[id]
		if !id.p.Func {
			continue
		}
		for _, s := range id.u.derived.sites[id.p] {
			if s.table == patchableSecs && id.u != c.v.init {
				continue // only for kernels whose ftrace needs it, which no x86 kernel does
			}
			if s.table == staticSites && c.viaTrampoline(id, s.off) {
				// An ordinary call of the trampoline.
				if id.u.derived.has[callSites] || c.v.init != nil && c.v.init.derived.has[callSites] {
					want[key{callSites, place{at.sec, at.off + s.off}, ""}]++
				}
				continue
			}
			want[key{s.table, place{at.sec, at.off + s.off}, s.more}]++
			tables[s.table] = true
		}
	}
	for _, sec := range c.obj.Sections {
		size := siteTables[sec.Name]
		if size == 0 || sec.Type == elf.SHT_RELA {
			continue
		}
		for off := uint64(0); off+size <= sec.Size; off += size {
			rs := c.within(sec, off, off+size)
			c.claim(sec, off, off+size, "an entry of "+sec.Name)
			if len(rs) == 0 || rs[0].Off != off || rs[0].klp != "" {
				c.find(Patched, c.where(sec, off), "the entry does not lead to code", reportHint)
				continue
			}
			more := ""
			for i, r := range rs {
				r.used = true
				if i > 0 {
					more += fmt.Sprintf("%s%+d;", symbolName(r.Sym), r.Addend)
				}
			}
			to, ok := internal(rs[0])
			k := key{sec.Name, to, more}
			if !ok || rs[0].Type != siteType(size, sec.Name) || want[k] == 0 || !c.siteTypes(rs) || !zeroFields(sec, off, size, rs) {
				c.find(Patched, c.where(sec, off), fmt.Sprintf("the entry leads to %s, where objtool finds none in the patched object", c.target(rs[0])), reportHint)
				continue
			}
			want[k]--
		}
	}
	var left []key
	for k, n := range want {
		if n > 0 {
			left = append(left, k)
		}
	}
	for _, k := range left {
		c.find(Patched, c.where(k.at.sec, k.at.off), fmt.Sprintf("%s has no entry for this place, and has one in the patched object", k.table), reportHint)
	}
}

// siteType is the relocation type of an entry's first field.
func siteType(size uint64, table string) uint32 {
	if size == 8 && table != staticSites {
		return uint32(elf.R_X86_64_64)
	}
	return uint32(elf.R_X86_64_PC32)
}

// siteTypes checks further relocations of an entry.
func (c *check) siteTypes(rs []*reloc) bool {
	for _, r := range rs[1:] {
		if r.Type != uint32(elf.R_X86_64_PC32) || r.klp != "" {
			return false
		}
	}
	return true
}

// zeroFields tells whether an entry has nothing but what relocations fill in.
func zeroFields(sec *elfobj.Section, off, size uint64, rs []*reloc) bool {
	return off+size <= uint64(len(sec.Data)) && len(bytes.Trim(sec.Data[off:off+size], "\x00")) == 0
}

func (c *check) target(r *reloc) string {
	if to, ok := internal(r); ok {
		return c.where(to.sec, to.off)
	}
	return symbolName(r.Sym)
}

// viaTrampoline tells whether a static call is an ordinary call of the kernel's
// trampoline, which the kernel keeps up to date.
func (c *check) viaTrampoline(id pieceID, off uint64) bool {
	at := c.pairs[id]
	for _, r := range c.within(at.sec, at.off+off, at.off+off+6) {
		if r.klp != "" && r.Sym != nil {
			_, name, _, ok := klpSymbol(r.Sym.Name)
			return ok && strings.HasPrefix(name, "__SCT__")
		}
	}
	return false
}

// unwind compares the unwinder's tables.
func (c *check) unwind() {
	ips, states := c.obj.Section(orcUnwindIP), c.obj.Section(orcUnwind)
	if ips == nil || states == nil {
		for _, u := range append([]*unit{c.v.init}, c.v.units...) {
			if u != nil && u.derived.has[orcUnwindIP] {
				c.find(Patched, orcUnwindIP, "the module has no unwind information, and the patched object has", reportHint)
				return
			}
		}
		return
	}
	d := &derived{orc: map[*elfobj.Section][]orcEntry{}, bottom: map[string]bool{}}
	var rs []elfobj.Reloc
	for _, r := range c.relocs[ips] {
		if r.klp != "" || r.Type != uint32(elf.R_X86_64_PC32) {
			c.find(Patched, c.where(ips, r.Off), "the relocation is not of the type that unwind information has", reportHint)
		}
		r.used = true
		rs = append(rs, r.Reloc)
	}
	if err := d.readORC(rs, ips, states.Data); err != nil {
		c.find(Patched, orcUnwindIP, err.Error(), reportHint)
		return
	}
	if len(bytes.Trim(ips.Data, "\x00")) > 0 {
		c.find(Patched, orcUnwindIP, "the places that relocations fill are not zero", reportHint)
	}
	c.claim(ips, 0, ips.Size, orcUnwindIP)
	c.claim(states, 0, states.Size, orcUnwind)
	bottom := map[string]bool{}
	for _, u := range append([]*unit{c.v.init}, c.v.units...) {
		if u != nil {
			for s := range u.derived.bottom {
				bottom[s] = true
			}
		}
	}
	covered := map[place]bool{}
	for sec, all := range d.orc {
		slices.SortStableFunc(all, func(a, b orcEntry) int { return cmp.Compare(a.off, b.off) })
		for i, e := range all {
			if i > 0 && all[i-1].off == e.off {
				c.find(Patched, c.where(sec, e.off), "two entries of the unwind information are for one place", reportHint)
			}
			covered[place{sec, e.off}] = true
		}
	}
	inside := c.unwindPieces(d)
	for sec, all := range d.orc {
		for _, e := range all {
			at := place{sec, e.off}
			if !inside[at] && !(bottom[e.state] && c.endsThere(at)) {
				c.find(Patched, c.where(sec, e.off), "the unwind information has an entry for a place that the patched object does not have", reportHint)
			}
		}
		if !covered[place{sec, sec.Size}] {
			c.find(Patched, c.where(sec, sec.Size), "the unwind information does not end with the section", reportHint)
		}
	}
}

// unwindPieces compares the states in each paired function, and returns the
// places of the module's entries in them.
func (c *check) unwindPieces(d *derived) map[place]bool {
	inside := map[place]bool{}
	for _, id := range c.sorted() {
		if !id.p.Func {
			continue
		}
		at := c.pairs[id]
		s := id.u.shape(id.p)
		want := stateIn(id.u.derived.orc[id.p.Sec], id.p.Lo, id.p.Hi)
		got := stateIn(d.orc[at.sec], at.off, at.off+s.size)
		for _, e := range d.orc[at.sec] {
			if e.off >= at.off && e.off < at.off+s.size {
				inside[place{at.sec, e.off}] = true
			}
		}
		if !slices.Equal(want, got) {
			c.find(Patched, c.where(at.sec, at.off+id.p.Origin()-id.p.Lo), "the unwind information is not that of the patched object", reportHint)
		}
	}
	return inside
}

// endsThere tells whether code ends at a place.
func (c *check) endsThere(at place) bool {
	if at.off == at.sec.Size {
		return true
	}
	return slices.ContainsFunc(c.claims[at.sec], func(x claim) bool { return x.hi == at.off })
}

// seals compares the list of functions whose ENDBR64 the kernel removes when it
// loads the module: those that begin with one and whose address nothing takes.
func (c *check) seals() {
	want := map[place]bool{}
	for _, id := range c.sorted() {
		at := c.pairs[id]
		entry := place{at.sec, at.off + id.p.Origin() - id.p.Lo}
		if !id.p.Func || id.p.Sym == nil || id.p.Sym.Type != elf.STT_FUNC || c.taken[entry] {
			continue
		}
		if code, ok := c.data(entry, 4); ok && bytes.Equal(code, []byte{0xf3, 0x0f, 0x1e, 0xfa}) {
			want[entry] = true
		}
	}
	sec := c.obj.Section(sealTable)
	if sec == nil {
		ibt := c.v.kernel.Config != nil && c.v.kernel.Config("CONFIG_X86_KERNEL_IBT") == "y"
		if ibt && len(want) > 0 {
			c.find(Patched, sealTable, "the list of functions that are not called indirectly is missing", reportHint)
		}
		return
	}
	for off := uint64(0); off+4 <= sec.Size; off += 4 {
		c.claim(sec, off, off+4, "an entry of "+sealTable)
		r := c.relocAt(sec, off)
		if r == nil {
			c.find(Patched, c.where(sec, off), "the entry leads to no code", reportHint)
			continue
		}
		r.used = true
		to, ok := internal(r)
		if !ok || r.klp != "" || r.Type != uint32(elf.R_X86_64_PC32) || !want[to] || !zeroFields(sec, off, 4, nil) {
			c.find(Patched, c.where(sec, off), fmt.Sprintf("the entry leads to %s, which is no function that is never called indirectly, or is listed twice", c.target(r)), reportHint)
			continue
		}
		delete(want, to)
	}
	for at := range want {
		c.find(Patched, c.where(at.sec, at.off), "the function is never called indirectly, and is missing in "+sealTable, reportHint)
	}
}
