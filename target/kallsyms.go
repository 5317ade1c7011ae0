package target

import (
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"slices"
)

// The tables that scripts/kallsyms.c writes into .rodata carry no symbols in a
// stripped kernel, so they are found by their structure:
//
//	num_syms      u32: N
//	names         N times: length (one byte; two, low seven bits first, if the
//	              first has its top bit set), then that many token numbers
//	markers       u32 each: where in names every 256th entry begins
//	token_table   256 strings closed by NUL, which the numbers stand for
//	token_index   256 times u16: where in token_table each string begins
//	offsets       N times s32: the addresses
//	relative_base u64
//	seqs_of_names N times u24 big-endian: the entries sorted by name
//
// Their order and alignment differ by version:
//
//	6.1 to 6.3  offsets relative_base num_syms names markers [seqs_of_names]
//	            token_table token_index, each aligned to 8; seqs_of_names came
//	            with 6.2 and was taken back into 6.1.y
//	6.4 on      num_syms names markers token_table token_index offsets
//	            relative_base seqs_of_names, each aligned to 8
//	7.x         the same without relative_base, each aligned to 4
//
// And so does the meaning of an offset:
//
//	plain       address = relative_base + offset, unsigned; since 6.15, and
//	            before where CONFIG_KALLSYMS_ABSOLUTE_PERCPU is off
//	percpu      not negative: the address itself (per-CPU data, linked at 0);
//	            negative: address = relative_base - 1 - offset
//	place       address = that of the offset itself + offset, signed; 7.x
//
// The search starts at token_index, 256 ascending numbers whose first is 0 and
// which must hit the starts of 256 strings right before. From there it goes
// back to markers, whose length is known from the distance, then to num_syms,
// whose value is known within 256. A place that fits is proven by walking all
// names, which must pass through every marker and end where markers begins; by
// the addresses, which must ascend and put _text where code starts; and by
// seqs_of_names, which must sort the very names that came out.

// layout is where the tables are, in bytes from the start of one section, and
// how an offset is meant.
type layout struct {
	align      int // every table's address is a multiple of it: 8, or 4 in 7.x
	num        int // N
	numSyms    int
	names      int
	markers    int
	tokenTable int
	tokenIndex int
	offsets    int
	base       int // relative_base, -1 for none
	seqs       int // seqs_of_names, -1 for none
	meaning    offsetMeaning
}

// offsetMeaning tells how an entry of the offset table becomes an address.
type offsetMeaning int

const (
	offsetPlain offsetMeaning = iota
	offsetPercpu
	offsetPlace
)

func (m offsetMeaning) String() string {
	switch m {
	case offsetPlain:
		return "offsets from a base"
	case offsetPercpu:
		return "offsets from a base with absolute per-CPU addresses"
	case offsetPlace:
		return "offsets from their own place"
	}
	return fmt.Sprintf("offsetMeaning(%d)", int(m))
}

const (
	tokens         = 256
	tokenIndexSize = tokens * 2 // bytes
	markerStep     = 256        // entries
	// maxEntry bounds an entry of names, in bytes: no token is empty where it
	// is used, so an entry has no more numbers than its name and kind have
	// letters; and its length takes two bytes at most.
	maxEntry = 2 + maxNameLen
	// maxNamesTotal bounds the decoded names together, in bytes. Those of a
	// stock kernel have 3 MiB.
	maxNamesTotal = 256 << 20
)

// Kallsyms decodes the symbol table inside the image, wherever it is. The error
// tells what could not be found, or what did not hold about what was found.
func (im *Image) Kallsyms() (*Symtab, error) {
	var problems []error
	for _, s := range im.rodataFirst() {
		t, err := im.kallsymsIn(s)
		if err == nil {
			return t, nil
		}
		if !errors.Is(err, errNoTokens) {
			problems = append(problems, fmt.Errorf("%s: %w", s.Name, err))
		}
	}
	if len(problems) == 0 {
		problems = []error{fmt.Errorf("%w; is CONFIG_KALLSYMS off?", errNoTokens)}
	}
	return nil, fmt.Errorf("kallsyms: %w", errors.Join(problems...))
}

// errNoTokens says that a section has nothing like the tables.
var errNoTokens = errors.New("no token table found")

// rodataFirst lists the sections that may hold the tables, the likely one first.
func (im *Image) rodataFirst() []*ImageSection {
	var likely, others []*ImageSection
	for i := range im.Sections {
		switch s := &im.Sections[i]; {
		case s.Name == ".rodata":
			likely = append(likely, s)
		case s.Flags&elf.SHF_EXECINSTR == 0 && len(s.Data) > 0:
			others = append(others, s)
		}
	}
	return append(likely, others...)
}

// finder searches one section.
type finder struct {
	im   *Image
	data []byte
	addr uint64 // of data[0]
}

// kallsymsIn tries every place in a section that looks like the tables.
func (im *Image) kallsymsIn(s *ImageSection) (*Symtab, error) {
	f := &finder{im: im, data: s.Data, addr: s.Addr}
	var problems []error
	for index := f.align(0, 4); ; index += 4 {
		index = f.nextTokenIndex(index)
		if index < 0 {
			break
		}
		table := f.tokenTableBefore(index)
		if table < 0 {
			continue
		}
		t, err := f.decodeAt(table, index)
		if err == nil {
			return t, nil
		}
		problems = append(problems, fmt.Errorf("token table at %#x: %w", f.addr+uint64(table), err))
	}
	if len(problems) == 0 {
		return nil, errNoTokens
	}
	return nil, errors.Join(problems...)
}

// align rounds a position up so that its address is a multiple of n.
func (f *finder) align(off, n int) int {
	rest := int((f.addr + uint64(off)) % uint64(n))
	if rest == 0 {
		return off
	}
	return off + n - rest
}

// alignDown rounds a position down so that its address is a multiple of n.
func (f *finder) alignDown(off, n int) int {
	return off - int((f.addr+uint64(off))%uint64(n))
}

// nextTokenIndex finds the next place, from off on, with 256 ascending numbers
// that begin with 0; -1 if there is none.
func (f *finder) nextTokenIndex(off int) int {
	for ; off+tokenIndexSize <= len(f.data); off += 4 {
		if f.data[off] != 0 || f.data[off+1] != 0 {
			continue
		}
		if f.ascendingIndex(off) {
			return off
		}
	}
	return -1
}

// ascendingIndex tells whether each number exceeds the one before by the size
// of a token.
func (f *finder) ascendingIndex(off int) bool {
	before, _ := u16(f.data, off)
	for i := 1; i < tokens; i++ {
		v, ok := u16(f.data, off+2*i)
		if !ok || v <= before || v-before > maxNameLen {
			return false
		}
		before = v
	}
	return true
}

// tokenTableBefore finds the strings that an index leads to, which end right
// before it; -1 if there are none. Where the last string begins is known, so the
// only unknown is its length.
func (f *finder) tokenTableBefore(index int) int {
	last, _ := u16(f.data, index+2*(tokens-1))
	high := f.alignDown(index-int(last)-1, 4)
	low := max(0, high-maxNameLen-8)
	for table := high; table >= low; table -= 4 {
		if f.isTokenTable(table, index) {
			return table
		}
	}
	return -1
}

// isTokenTable tells whether the bytes from table to index are the strings that
// index leads to, and up to seven bytes of zero padding.
func (f *finder) isTokenTable(table, index int) bool {
	end := table
	for i := range tokens {
		start, _ := u16(f.data, index+2*i)
		if table+int(start) != end {
			return false
		}
		n := bytes.IndexByte(f.data[end:index], 0)
		if n < 0 || !printable(f.data[end:end+n]) {
			return false
		}
		end += n + 1
	}
	return f.padding(end, index)
}

// padding tells whether the bytes between two tables are what an alignment of
// 8 at most leaves: less than eight zeros.
func (f *finder) padding(from, to int) bool {
	gap, ok := slice(f.data, from, to-from)
	return ok && len(gap) < 8 && !slices.ContainsFunc(gap, func(c byte) bool { return c != 0 })
}

// printable tells whether a token may be part of a name. Empty ones are unused.
func printable(token []byte) bool {
	return !slices.ContainsFunc(token, func(c byte) bool { return c <= ' ' || c > '~' })
}

// decodeAt decodes the tables around a token table. Every layout that the
// structure allows is tried; the first that is proven is the answer.
func (f *finder) decodeAt(table, index int) (*Symtab, error) {
	var problems []error
	for _, align := range []int{8, 4} {
		if f.align(table, align) != table {
			continue
		}
		found, names := f.namesBefore(table, index, align)
		if names == nil {
			continue
		}
		symbols, err := f.expand(found, names)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		for _, l := range f.layouts(found) {
			t, err := f.prove(l, symbols)
			if err == nil {
				return t, nil
			}
			problems = append(problems, fmt.Errorf("%s at %#x: %w", l.meaning, f.addr+uint64(l.offsets), err))
		}
	}
	if len(problems) == 0 {
		return nil, errors.New("no names, markers and count before it that lead to each other")
	}
	return nil, errors.Join(problems...)
}

// namesBefore goes back from the token table to markers, names and num_syms. It
// returns what it found of the layout and the position of each name; nil if
// nothing fits.
func (f *finder) namesBefore(table, index, align int) (layout, []int) {
	for markers := f.alignDown(table-4, align); markers >= 0; markers -= align {
		if v, ok := u32(f.data, markers); !ok || v != 0 {
			continue
		}
		for _, r := range f.counts(markers, table, align) {
			l := layout{align: align, markers: markers, tokenTable: table, tokenIndex: index, seqs: r.seqs}
			if names := f.countBefore(&l, r); names != nil {
				return l, names
			}
		}
	}
	return layout{}, nil
}

// countRange is what the distance from markers to token_table says of N.
type countRange struct {
	low, high int // N is within
	seqs      int // where seqs_of_names lies between them, -1 if it does not
}

// counts lists the ranges that fit: markers may end at the token table, or at
// seqs_of_names, which then ends there. Markers must ascend by the size of 256
// names, which nearly no other bytes do.
func (f *finder) counts(markers, table, align int) []countRange {
	var fit []countRange
	gap := table - markers
	for m := gap / 4; m > 0 && gap-4*m < align; m-- {
		if f.ascendingMarkers(markers, m) {
			fit = append(fit, countRange{low: (m-1)*markerStep + 1, high: m * markerStep, seqs: -1})
		}
	}
	if align == 4 {
		return fit // seqs_of_names is elsewhere
	}
	// gap = 4*ceil(N/256) + 3*N + padding twice, each below 8.
	most := gap * markerStep / (3*markerStep + 4)
	for n := most; n > 0 && n > most-8; n-- {
		m := markerCount(n)
		seqs := f.align(markers+4*m, 8)
		if f.align(seqs+3*n, 8) == table && f.ascendingMarkers(markers, m) {
			fit = append(fit, countRange{low: n, high: n, seqs: seqs})
		}
	}
	return fit
}

// markerCount is the number of markers for n names.
func markerCount(n int) int { return (n + markerStep - 1) / markerStep }

// ascendingMarkers tells whether m markers could be at a place.
func (f *finder) ascendingMarkers(off, m int) bool {
	var before uint32
	for i := 1; i < m; i++ {
		v, ok := u32(f.data, off+4*i)
		// The shortest name takes a byte of length and one of number.
		if !ok || v < before+2*markerStep || v > before+maxEntry*markerStep {
			return false
		}
		before = v
	}
	return true
}

// countBefore finds num_syms, from whose value and place the names must lead to
// the markers. It completes l and returns the position of each name.
func (f *finder) countBefore(l *layout, r countRange) []int {
	for m := markerCount(r.low); m <= markerCount(r.high); m++ {
		last, ok := u32(f.data, l.markers+4*(m-1))
		if !ok {
			return nil
		}
		// After the last marker there is at least one name and at most 256.
		high := f.alignDown(l.markers-int(last)-2, l.align)
		low := max(l.align, high-maxEntry*markerStep-l.align)
		for names := high; names >= low; names -= l.align {
			numSyms := names - l.align
			n, ok := u32(f.data, numSyms)
			if !ok || int64(n) < int64(r.low) || int64(n) > int64(r.high) {
				continue
			}
			l.num, l.names, l.numSyms = int(n), names, numSyms
			if at := f.walk(*l); at != nil {
				return at
			}
		}
	}
	return nil
}

// walk steps through all names and returns where each begins, nil unless every
// marker is met and the end too.
func (f *finder) walk(l layout) []int {
	if l.markers-l.names < 2*l.num {
		return nil
	}
	at := make([]int, 0, l.num)
	off := l.names
	for i := range l.num {
		if i%markerStep == 0 {
			if m, ok := u32(f.data, l.markers+4*(i/markerStep)); !ok || int(m) != off-l.names {
				return nil
			}
		}
		at = append(at, off)
		n, size, ok := f.nameLength(off)
		if !ok || n == 0 {
			return nil
		}
		if off += size + n; off > l.markers {
			return nil
		}
	}
	if f.align(off, l.align) != l.markers || !f.padding(off, l.markers) {
		return nil
	}
	return at
}

// nameLength reads an entry's length, in numbers, and how many bytes that took.
func (f *finder) nameLength(off int) (n, size int, ok bool) {
	b, ok := slice(f.data, off, 1)
	if !ok || b[0]&0x80 == 0 {
		if !ok {
			return 0, 0, false
		}
		return int(b[0]), 1, true
	}
	b, ok = slice(f.data, off, 2)
	if !ok {
		return 0, 0, false
	}
	return int(b[0]&0x7f) | int(b[1])<<7, 2, true
}

// nameColumns is the table but for the addresses.
type nameColumns struct {
	names []string
	kinds []byte
}

// expand writes out the names. Their text is shared by one string.
func (f *finder) expand(l layout, at []int) (nameColumns, error) {
	var token [tokens][]byte
	for i := range token {
		start, _ := u16(f.data, l.tokenIndex+2*i)
		text := f.data[l.tokenTable+int(start) : l.tokenIndex]
		token[i] = text[:bytes.IndexByte(text, 0)]
	}
	text := make([]byte, 0, 4*(l.markers-l.names))
	ends := make([]int, len(at))
	for i, off := range at {
		n, size, _ := f.nameLength(off)
		start := len(text)
		for _, t := range f.data[off+size : off+size+n] {
			text = append(text, token[t]...)
			if len(text)-start > maxNameLen {
				return nameColumns{}, fmt.Errorf("symbol %d: the name is longer than %d bytes", i, maxNameLen-1)
			}
		}
		if len(text)-start < 2 || !validKind(text[start]) || !validName(text[start+1:]) {
			return nameColumns{}, fmt.Errorf("symbol %d: not a kind and a name: %q", i, text[start:])
		}
		if len(text) > maxNamesTotal {
			return nameColumns{}, fmt.Errorf("symbol %d: the names are longer than %d bytes together", i, maxNamesTotal)
		}
		ends[i] = len(text)
	}
	all := string(text)
	c := nameColumns{names: make([]string, len(at)), kinds: make([]byte, len(at))}
	start := 0
	for i, end := range ends {
		c.kinds[i], c.names[i] = all[start], all[start+1:end]
		start = end
	}
	return c, nil
}

// layouts completes what was found in each way that leaves room for the
// addresses.
func (f *finder) layouts(found layout) []layout {
	var all []layout
	add := func(offsets, base, seqs int, meanings ...offsetMeaning) {
		if _, ok := slice(f.data, offsets, 4*found.num); !ok {
			return
		}
		for _, m := range meanings {
			l := found
			l.offsets, l.base, l.seqs, l.meaning = offsets, base, seqs, m
			all = append(all, l)
		}
	}
	offsets := found.tokenIndex + tokenIndexSize
	end := offsets + 4*found.num
	if found.align == 4 { // 7.x
		add(offsets, -1, end, offsetPlace)
		return all
	}
	if found.seqs < 0 { // 6.4 on
		base := f.align(end, 8)
		add(offsets, base, base+8, offsetPercpu, offsetPlain)
	}
	// 6.1 to 6.3: before the count.
	base := found.numSyms - 8
	add(f.alignDown(base-4*found.num, 8), base, found.seqs, offsetPercpu, offsetPlain)
	return all
}

// prove computes the addresses and checks all that must hold.
func (f *finder) prove(l layout, c nameColumns) (*Symtab, error) {
	addrs, err := f.addresses(l)
	if err != nil {
		return nil, err
	}
	for i := 1; i < len(addrs); i++ {
		if addrs[i] < addrs[i-1] {
			return nil, fmt.Errorf("symbol %d (%s): address %#x is below the one before", i, c.names[i], addrs[i])
		}
	}
	if l.seqs >= 0 {
		if err := f.sortedBySeqs(l, c.names); err != nil {
			return nil, err
		}
	}
	t := newSymtab(c.names, addrs, c.kinds)
	if err := f.plausible(l, t); err != nil {
		return nil, err
	}
	return t, nil
}

// addresses decodes the offset table.
func (f *finder) addresses(l layout) ([]uint64, error) {
	var base uint64
	if l.base >= 0 {
		var ok bool
		if base, ok = u64(f.data, l.base); !ok {
			return nil, errors.New("no relative base after them")
		}
	}
	addrs := make([]uint64, l.num)
	for i := range addrs {
		at := l.offsets + 4*i
		v, ok := u32(f.data, at)
		if !ok {
			return nil, errors.New("truncated")
		}
		signed := int32(v)
		switch {
		case l.meaning == offsetPlace:
			addrs[i] = f.addr + uint64(at) + uint64(int64(signed))
		case l.meaning == offsetPlain:
			addrs[i] = base + uint64(v)
		case signed >= 0:
			addrs[i] = uint64(signed)
		default:
			addrs[i] = base - 1 - uint64(int64(signed))
		}
	}
	return addrs, nil
}

// sortedBySeqs tells whether seqs_of_names holds each symbol once, in the order
// of names and then of addresses, as the kernel needs to search it.
func (f *finder) sortedBySeqs(l layout, names []string) error {
	table, ok := slice(f.data, l.seqs, 3*l.num)
	if !ok {
		return errors.New("no table of symbols by name after them")
	}
	before := -1
	for i := 0; i < len(table); i += 3 {
		seq := int(table[i])<<16 | int(table[i+1])<<8 | int(table[i+2])
		if seq >= len(names) {
			return fmt.Errorf("table of symbols by name at %#x: no symbol %d", f.addr+uint64(l.seqs), seq)
		}
		// Strictly ascending by name and position: so none comes twice.
		if before >= 0 && cmp.Or(cmp.Compare(names[before], names[seq]), cmp.Compare(before, seq)) >= 0 {
			return fmt.Errorf("table of symbols by name at %#x: %s after %s",
				f.addr+uint64(l.seqs), names[seq], names[before])
		}
		before = seq
	}
	return nil
}

// plausible compares the table with the image: _text is where a section of code
// starts, no symbol of the kernel lies outside it, and where the file has a
// symbol table of its own, that agrees on where the tables are.
func (f *finder) plausible(l layout, t *Symtab) error {
	if err := t.complete(); err != nil {
		return err
	}
	text, err := t.unique("_text")
	if err != nil {
		return err
	}
	code := func(s ImageSection) bool { return s.Addr == text && s.Flags&elf.SHF_EXECINSTR != 0 }
	if !slices.ContainsFunc(f.im.Sections, code) {
		return fmt.Errorf("no section of code starts at _text, %#x", text)
	}
	end := f.im.end()
	for i := range t.names {
		if t.kinds[i] != 'A' && (t.addrs[i] < text || t.addrs[i] > end) {
			return fmt.Errorf("symbol %d (%s): %#x is outside of the image, %#x to %#x", i, t.names[i], t.addrs[i], text, end)
		}
	}
	for _, known := range []struct {
		name string
		off  int
	}{
		{"kallsyms_num_syms", l.numSyms}, {"kallsyms_names", l.names}, {"kallsyms_markers", l.markers},
		{"kallsyms_token_table", l.tokenTable}, {"kallsyms_token_index", l.tokenIndex},
		{"kallsyms_offsets", l.offsets}, {"kallsyms_relative_base", l.base}, {"kallsyms_seqs_of_names", l.seqs},
	} {
		addr, ok := f.im.tables[known.name]
		if ok && (known.off < 0 || addr != f.addr+uint64(known.off)) {
			return fmt.Errorf("the file's symbol table has %s at %#x, not at %#x", known.name, addr, f.addr+uint64(known.off))
		}
	}
	return nil
}
