package elfobj

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Reading is one pass over the section headers, one over the symbols and one
// over the relocations and groups, in that order, because each needs pointers
// to what the one before made. Nothing is allocated from a number in the file
// before that many bytes were found in the file, and sections may not overlap,
// so that memory stays within a small multiple of the file's size.

// maxFile bounds what Read takes into memory, in bytes. A vmlinux with debug
// information has well under 1 GiB.
const maxFile = 4 << 30

// maxNameFactor bounds the total length of all names by this many times the
// file's size. Linkers let names share their tails, so that the total may
// exceed the string table's size, but a file in which it does so many times
// over was made to exhaust its reader.
const maxNameFactor = 16

// Read reads an ELF file of size bytes. See Parse.
func Read(r io.ReaderAt, size int64) (*Object, error) {
	head := make([]byte, min(max(size, 0), ehdrSize))
	if err := readAt(r, head, 0); err != nil {
		return nil, err
	}
	if err := checkMagic(head); err != nil {
		return nil, err
	}
	if size > maxFile {
		return nil, fmt.Errorf("file of %#x bytes is larger than the %#x bytes that klpc reads", size, int64(maxFile))
	}
	// The last byte proves the size before memory is taken for it.
	if err := readAt(r, make([]byte, 1), size-1); err != nil {
		return nil, err
	}
	data := make([]byte, size)
	if err := readAt(r, data, 0); err != nil {
		return nil, err
	}
	return Parse(data)
}

// readAt fills b from byte off of the file.
func readAt(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	switch {
	case n == len(b):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return fmt.Errorf("truncated: the file ends before byte %#x", off+int64(len(b)))
	default:
		return err
	}
}

// Parse reads an ELF file: a relocatable one (ET_REL), or a linked image
// (ET_EXEC, ET_DYN) that has section headers. Data of the sections are parts of
// data, which must not change afterwards. Bytes after the last section, such as
// a module's signature, are ignored.
//
// In a relocatable file the contents of SHT_RELA and SHT_GROUP sections are
// held in Relocs and Members; their Data is nil and their Size 0. In an image,
// all sections except the tables that Object leaves out keep their bytes, and
// no relocations are decoded.
//
// An error is about the first thing found wrong and names the section or
// symbol with its index as readelf shows it.
func Parse(data []byte) (*Object, error) {
	if err := checkMagic(data); err != nil {
		return nil, err
	}
	b, ok := span(data, 0, ehdrSize)
	if !ok {
		return nil, fmt.Errorf("truncated: the ELF header ends at %#x beyond the file's %#x bytes", ehdrSize, len(data))
	}
	head := decodeEhdr((*[ehdrSize]byte)(b))
	if err := checkEhdr(head); err != nil {
		return nil, err
	}
	p := &parser{data: data, head: head, image: elf.Type(head.Type) != elf.ET_REL}
	p.namesLeft = maxNameFactor * uint64(len(data))
	for _, step := range []func() error{
		p.readHeaders, // first: everything else is found through them
		p.findTables,  // then which of them stay out of Sections
		p.readSections,
		p.linkSections, // beyond this point Sections is complete
		p.readSymbols,  // beyond this point Symbols is complete
		p.readRelocs,
		p.readGroups,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return p.object(), nil
}

// otherFormats are what people hand in by mistake, by their first bytes.
var otherFormats = []struct{ magic, what string }{
	{"\xfd7zXZ\x00", "xz-compressed data"},
	{"\x1f\x8b", "gzip-compressed data"},
	{"\x28\xb5\x2f\xfd", "zstd-compressed data"},
	{"BC\xc0\xde", "LLVM bitcode, as clang's LTO makes it"},
	{"!<arch>\n", "an ar archive"},
	{"!<thin>\n", "a thin ar archive"},
	{"MZ", "a PE or kernel boot image"},
}

func checkMagic(data []byte) error {
	if bytes.HasPrefix(data, []byte(elf.ELFMAG)) {
		return nil
	}
	if len(data) == 0 {
		return errors.New("not an ELF file: it is empty")
	}
	for _, f := range otherFormats {
		if bytes.HasPrefix(data, []byte(f.magic)) {
			return fmt.Errorf("not an ELF file: it is %s", f.what)
		}
	}
	return errors.New("not an ELF file")
}

// checkEhdr refuses what this package cannot read at all.
func checkEhdr(h elf.Header64) error {
	if c := elf.Class(h.Ident[elf.EI_CLASS]); c != elf.ELFCLASS64 {
		if c == elf.ELFCLASS32 {
			return fmt.Errorf("32-bit ELF for machine %s, klpc supports 64-bit only", machineName(elf.Machine(h.Machine)))
		}
		return fmt.Errorf("unknown ELF class %d", byte(c))
	}
	if d := elf.Data(h.Ident[elf.EI_DATA]); d != elf.ELFDATA2LSB {
		if d == elf.ELFDATA2MSB {
			return errors.New("big-endian ELF, klpc supports little-endian only")
		}
		return fmt.Errorf("unknown ELF byte order %d", byte(d))
	}
	if v := h.Ident[elf.EI_VERSION]; v != byte(elf.EV_CURRENT) || h.Version != uint32(elf.EV_CURRENT) {
		return fmt.Errorf("unknown ELF version %d, %d", v, h.Version)
	}
	if v := h.Ident[elf.EI_ABIVERSION]; v != 0 {
		return fmt.Errorf("unknown ELF ABI version %d", v)
	}
	if err := checkMachine(elf.Machine(h.Machine)); err != nil {
		return err
	}
	switch t := elf.Type(h.Type); t {
	case elf.ET_REL, elf.ET_EXEC, elf.ET_DYN:
	default:
		return fmt.Errorf("ELF file of type %s is neither relocatable nor a linked image", t)
	}
	if h.Ehsize != ehdrSize {
		return fmt.Errorf("ELF header size is %d, not %d", h.Ehsize, ehdrSize)
	}
	if h.Shoff == 0 {
		return errors.New("no section headers")
	}
	if h.Shentsize != shdrSize {
		return fmt.Errorf("section header size is %d, not %d", h.Shentsize, shdrSize)
	}
	if elf.Type(h.Type) == elf.ET_REL && h.Phnum != 0 {
		return errors.New("relocatable file has program headers")
	}
	return nil
}

// parser holds one file while it is read. Slices by section index have the
// null section at 0, as in the file.
type parser struct {
	data  []byte
	head  elf.Header64
	image bool // linked: nothing is relocated, values are addresses

	headers  []elf.Section64
	secNames stringTable
	contents [][]byte // nil for SHT_NOBITS and SHT_NULL

	// Indices of the tables that Object leaves out; 0 if there is none.
	symtab, strtab, shstrtab, symtabShndx uint32

	sections []*Section // nil for the tables
	symbols  []*Symbol  // nil for the null symbol
	extents  []uint64   // bytes that can be addressed

	namesLeft uint64 // bytes that names may still have; see maxNameFactor
}

// section names a section in a message.
func (p *parser) section(i uint32) string {
	name, _ := p.secNames.at(p.headers[i].Name)
	return label("section", int(i), name)
}

// readHeaders finds the section headers and the table of their names. Numbers
// that do not fit the ELF header's 16 bits stand in the null section's header.
// Source: gABI chapter 4, e_shnum and e_shstrndx.
func (p *parser) readHeaders() error {
	b, ok := span(p.data, p.head.Shoff, shdrSize)
	if !ok {
		return p.headersTruncated(1)
	}
	null := decodeShdr((*[shdrSize]byte)(b))
	if t := elf.SectionType(null.Type); t != elf.SHT_NULL {
		return fmt.Errorf("section 0 has type %s instead of SHT_NULL", t)
	}
	count := uint64(p.head.Shnum)
	if count == 0 {
		count = null.Size
	}
	if count == 0 {
		return errors.New("no section headers")
	}
	// More than the file's bytes could hold; the product below cannot wrap.
	if count > uint64(len(p.data))/shdrSize {
		return p.headersTruncated(count)
	}
	table, ok := span(p.data, p.head.Shoff, count*shdrSize)
	if !ok {
		return p.headersTruncated(count)
	}
	p.headers = make([]elf.Section64, 0, count)
	for b := range slices.Chunk(table, shdrSize) {
		p.headers = append(p.headers, decodeShdr((*[shdrSize]byte)(b)))
	}
	p.shstrtab = uint32(p.head.Shstrndx)
	if elf.SectionIndex(p.shstrtab) == elf.SHN_XINDEX {
		p.shstrtab = null.Link
	}
	if p.shstrtab == 0 {
		return errors.New("no section name table (e_shstrndx is 0)")
	}
	if uint64(p.shstrtab) >= count {
		return fmt.Errorf("section name table is section %d of %d", p.shstrtab, count)
	}
	if t := elf.SectionType(p.headers[p.shstrtab].Type); t != elf.SHT_STRTAB {
		return fmt.Errorf("section %d is the section name table but has type %s", p.shstrtab, t)
	}
	return p.readContents()
}

func (p *parser) headersTruncated(count uint64) error {
	return fmt.Errorf("truncated: %d section headers at %#x do not fit into the file's %#x bytes", count, p.head.Shoff, len(p.data))
}

// readContents cuts out what each section occupies. Names come first so that
// messages can show them; a bad name table is itself reported by its index.
func (p *parser) readContents() error {
	h := p.headers[p.shstrtab]
	if b, ok := span(p.data, h.Off, h.Size); ok {
		p.secNames = newStringTable(b)
	}
	p.contents = make([][]byte, len(p.headers))
	var total uint64 // cannot wrap: each part is at most the file's size
	for i, h := range p.headers {
		t := elf.SectionType(h.Type)
		if t == elf.SHT_NOBITS || t == elf.SHT_NULL {
			continue
		}
		b, ok := span(p.data, h.Off, h.Size)
		if !ok {
			return fmt.Errorf("truncated: %s%s beyond the file's %#x bytes", p.section(uint32(i)), endsAt(h.Off, h.Size), len(p.data))
		}
		total += h.Size
		if total > uint64(len(p.data)) {
			return fmt.Errorf("%s: sections overlap: up to here they hold %#x bytes, the file has %#x", p.section(uint32(i)), total, len(p.data))
		}
		if len(b) > 0 {
			p.contents[i] = b
		}
	}
	return nil
}

// endsAt says where a part of the file ends, also if that does not fit 64 bits.
func endsAt(off, size uint64) string {
	if off+size < off {
		return fmt.Sprintf(": %#x bytes at %#x end", size, off)
	}
	return fmt.Sprintf(" ends at %#x", off+size)
}

// findTables finds the symbol table and its companions.
func (p *parser) findTables() error {
	for i, h := range p.headers {
		if elf.SectionType(h.Type) != elf.SHT_SYMTAB {
			continue
		}
		if p.symtab != 0 {
			return fmt.Errorf("%s: second symbol table, the first is %s", p.section(uint32(i)), p.section(p.symtab))
		}
		p.symtab = uint32(i)
	}
	for i, h := range p.headers {
		if elf.SectionType(h.Type) != elf.SHT_SYMTAB_SHNDX {
			continue
		}
		if p.symtab == 0 || h.Link != p.symtab {
			return fmt.Errorf("%s: sh_link is %d, which is not the symbol table", p.section(uint32(i)), h.Link)
		}
		if p.symtabShndx != 0 {
			return fmt.Errorf("%s: second table of extended section indices, the first is %s", p.section(uint32(i)), p.section(p.symtabShndx))
		}
		p.symtabShndx = uint32(i)
	}
	if p.symtab == 0 {
		return nil
	}
	h := p.headers[p.symtab]
	if uint64(h.Link) >= uint64(len(p.headers)) || elf.SectionType(p.headers[h.Link].Type) != elf.SHT_STRTAB {
		return fmt.Errorf("%s: sh_link is %d, which is not a string table", p.section(p.symtab), h.Link)
	}
	p.strtab = h.Link
	return nil
}

// isTable tells whether Object leaves this section out.
func (p *parser) isTable(i uint32) bool {
	return i != 0 && (i == p.symtab || i == p.strtab || i == p.shstrtab || i == p.symtabShndx)
}

// readSections makes the sections, still without pointers between them.
func (p *parser) readSections() error {
	slab := make([]Section, len(p.headers))
	p.sections = make([]*Section, len(p.headers))
	p.extents = make([]uint64, len(p.headers))
	for i, h := range p.headers {
		n := uint32(i)
		name, err := p.name(p.secNames, h.Name)
		if err != nil {
			return fmt.Errorf("section %d: %w", i, err)
		}
		if i == 0 || p.isTable(n) {
			continue
		}
		s := &slab[i]
		*s = Section{Name: name, Type: elf.SectionType(h.Type)}
		p.sections[i] = s
		// The gABI leaves the other members of a null header undefined.
		if s.Type == elf.SHT_NULL {
			continue
		}
		s.Flags = elf.SectionFlag(h.Flags)
		s.Addr, s.Align, s.EntSize = h.Addr, h.Addralign, h.Entsize
		if err := checkAlign(s.Align); err != nil {
			return fmt.Errorf("%s: %w", p.section(n), err)
		}
		if p.image || !decoded(s.Type) {
			s.Data, s.Size, s.Info = p.contents[i], h.Size, h.Info
		}
		if p.image {
			continue
		}
		if err := checkType(s.Type); err != nil {
			return fmt.Errorf("%s: %w", p.section(n), err)
		}
		if p.extents[i], err = extent(s); err != nil {
			return fmt.Errorf("%s: %w", p.section(n), err)
		}
	}
	return nil
}

// linkSections resolves sh_link, and in a relocatable file sh_info of
// relocations.
func (p *parser) linkSections() error {
	for i, s := range p.sections {
		if s == nil || s.Type == elf.SHT_NULL {
			continue
		}
		if err := p.linkSection(s, p.headers[i]); err != nil {
			return fmt.Errorf("%s: %w", p.section(uint32(i)), err)
		}
	}
	return nil
}

func (p *parser) linkSection(s *Section, h elf.Section64) error {
	if uint64(h.Link) >= uint64(len(p.headers)) {
		return fmt.Errorf("sh_link is %d, but there are %d sections", h.Link, len(p.headers))
	}
	if p.image {
		s.Link = p.sections[h.Link]
		return nil
	}
	if decoded(s.Type) {
		if p.symtab == 0 || h.Link != p.symtab {
			return fmt.Errorf("sh_link is %d, which is not the symbol table", h.Link)
		}
		if s.Type == elf.SHT_RELA {
			var err error
			s.Target, err = p.sectionAt(h.Info)
			return err
		}
		return nil
	}
	if s.Flags&elf.SHF_INFO_LINK != 0 {
		return fmt.Errorf("sh_info names a section (SHF_INFO_LINK), which is known of relocations only")
	}
	switch {
	case h.Link == 0:
		return nil
	case h.Link == p.symtab && (s.Type == shtLLVMAddrsig || s.Type == shtLLVMCallGraph || s.Type == shtLLVMCallGraphOld):
		// They hold symbol numbers. Encode numbers anew and writes no
		// link, which tells lld that the contents are stale.
		return nil
	}
	var err error
	s.Link, err = p.sectionAt(h.Link)
	return err
}

// sectionAt finds the section that an index in the file names.
func (p *parser) sectionAt(i uint32) (*Section, error) {
	switch {
	case i == 0:
		return nil, errors.New("section index is 0")
	case uint64(i) >= uint64(len(p.sections)):
		return nil, fmt.Errorf("section index is %d, but there are %d sections", i, len(p.sections))
	case p.sections[i] == nil:
		return nil, fmt.Errorf("section index is %d, which is the file's own table %s", i, p.section(i))
	}
	return p.sections[i], nil
}

// entries cuts a table into how many records it has. sh_entsize must be size.
func (p *parser) entries(i uint32, size uint64) (int, error) {
	h := p.headers[i]
	if h.Entsize != size {
		return 0, fmt.Errorf("%s: entry size is %d, not %d", p.section(i), h.Entsize, size)
	}
	if h.Size%size != 0 {
		return 0, fmt.Errorf("%s: size %#x is not a multiple of the entry size %d", p.section(i), h.Size, size)
	}
	return int(h.Size / size), nil
}

func (p *parser) readSymbols() error {
	if p.symtab == 0 {
		return nil
	}
	count, err := p.entries(p.symtab, symSize)
	if err != nil || count == 0 {
		return err
	}
	if p.symtabShndx != 0 {
		n, err := p.entries(p.symtabShndx, wordSize)
		if err != nil {
			return err
		}
		if n != count {
			return fmt.Errorf("%s: has %d entries for %d symbols", p.section(p.symtabShndx), n, count)
		}
	}
	names := newStringTable(p.contents[p.strtab])
	slab := make([]Symbol, count)
	p.symbols = make([]*Symbol, count)
	i := 0
	for b := range slices.Chunk(p.contents[p.symtab], symSize) {
		raw := decodeSym((*[symSize]byte)(b))
		if i == 0 && raw != (elf.Sym64{}) {
			return errors.New("symbol 0 is not null")
		}
		if i != 0 {
			name, err := p.name(names, raw.Name)
			if err != nil {
				return fmt.Errorf("symbol %d: %w", i, err)
			}
			slab[i].Name = name
			if err := p.readSymbol(&slab[i], raw, i); err != nil {
				return fmt.Errorf("%s: %w", label("symbol", i, name), err)
			}
			p.symbols[i] = &slab[i]
		}
		i++
	}
	return nil
}

// readSymbol fills in symbol i from its record.
func (p *parser) readSymbol(sym *Symbol, raw elf.Sym64, i int) error {
	sym.Value, sym.Size, sym.Other = raw.Value, raw.Size, raw.Other
	sym.Bind, sym.Type = elf.ST_BIND(raw.Info), elf.ST_TYPE(raw.Info)
	// Encode puts locals first, so another order would not survive.
	if first := p.headers[p.symtab].Info; !p.image && (sym.Bind == elf.STB_LOCAL) != (uint64(i) < uint64(first)) {
		return fmt.Errorf("binding %s does not fit sh_info of the symbol table, which says that local symbols end at %d", sym.Bind, first)
	}
	shndx := elf.SectionIndex(raw.Shndx)
	index := uint32(raw.Shndx)
	switch {
	case shndx == elf.SHN_XINDEX:
		if p.symtabShndx == 0 {
			return errors.New("section index is SHN_XINDEX, but there is no SHT_SYMTAB_SHNDX table")
		}
		index = le.Uint32(p.contents[p.symtabShndx][i*wordSize:])
	case shndx == elf.SHN_UNDEF || shndx >= elf.SHN_LORESERVE:
		sym.Shndx = shndx
		return nil
	}
	var err error
	if sym.Section, err = p.sectionAt(index); err != nil {
		return err
	}
	if p.image {
		return nil
	}
	return checkSymbolValue(sym, p.extents[index])
}

// symbolAt finds the symbol that an index in the file names.
func (p *parser) symbolAt(i uint32) (*Symbol, error) {
	if uint64(i) >= uint64(len(p.symbols)) {
		return nil, fmt.Errorf("symbol index is %d, but there are %d symbols", i, len(p.symbols))
	}
	return p.symbols[i], nil
}

// readRelocs decodes the relocations of a relocatable file.
func (p *parser) readRelocs() error {
	if p.image {
		return nil
	}
	for i, s := range p.sections {
		if s == nil || s.Type != elf.SHT_RELA {
			continue
		}
		count, err := p.entries(uint32(i), relaSize)
		if err != nil {
			return err
		}
		if count == 0 {
			continue
		}
		s.Relocs = make([]Reloc, 0, count)
		size := p.extents[p.headers[i].Info]
		for b := range slices.Chunk(p.contents[i], relaSize) {
			raw := decodeRela((*[relaSize]byte)(b))
			err := checkRelocOff(raw.Off, s.Target, size)
			rel := Reloc{Off: raw.Off, Type: elf.R_TYPE64(raw.Info), Addend: raw.Addend}
			// Index 0 means no symbol, also where there are none.
			if sym := elf.R_SYM64(raw.Info); sym != 0 && err == nil {
				rel.Sym, err = p.symbolAt(sym)
			}
			if err != nil {
				return fmt.Errorf("%s: relocation %d: %w", p.section(uint32(i)), len(s.Relocs), err)
			}
			s.Relocs = append(s.Relocs, rel)
		}
	}
	return nil
}

// readGroups decodes the section groups of a relocatable file.
func (p *parser) readGroups() error {
	if p.image {
		return nil
	}
	for i, s := range p.sections {
		if s == nil || s.Type != elf.SHT_GROUP {
			continue
		}
		if _, err := p.entries(uint32(i), wordSize); err != nil {
			return err
		}
		if err := p.readGroup(s, uint32(i)); err != nil {
			return fmt.Errorf("%s: %w", p.section(uint32(i)), err)
		}
	}
	return nil
}

func (p *parser) readGroup(s *Section, i uint32) error {
	sig := p.headers[i].Info
	if sig == 0 {
		return errors.New("group has no signature symbol (sh_info is 0)")
	}
	var err error
	if s.Signature, err = p.symbolAt(sig); err != nil {
		return err
	}
	if len(p.contents[i]) == 0 {
		return errors.New("group has no flag word")
	}
	first := true
	for b := range slices.Chunk(p.contents[i], wordSize) {
		word := le.Uint32(b)
		if first {
			s.GroupFlag, first = word, false
			continue
		}
		member, err := p.sectionAt(word)
		if err != nil {
			return fmt.Errorf("member %d: %w", len(s.Members), err)
		}
		if member == s {
			return fmt.Errorf("member %d: the group contains itself", len(s.Members))
		}
		s.Members = append(s.Members, member)
	}
	return nil
}

// object puts the parts together.
func (p *parser) object() *Object {
	o := &Object{
		Type:    elf.Type(p.head.Type),
		Machine: elf.Machine(p.head.Machine),
		OSABI:   elf.OSABI(p.head.Ident[elf.EI_OSABI]),
		Flags:   p.head.Flags,
	}
	o.Sections = slices.DeleteFunc(p.sections, func(s *Section) bool { return s == nil })
	if len(p.symbols) > 1 {
		o.Symbols = p.symbols[1:]
	}
	return o
}

// name looks a name up and counts its length against the limit.
func (p *parser) name(t stringTable, off uint32) (string, error) {
	name, err := t.at(off)
	if err != nil {
		return "", err
	}
	if uint64(len(name)) > p.namesLeft {
		return "", fmt.Errorf("names up to here are %d times as long as the file", maxNameFactor)
	}
	p.namesLeft -= uint64(len(name))
	return name, nil
}

// stringTable is a string table; the names are parts of one string.
type stringTable struct{ all string }

func newStringTable(b []byte) stringTable { return stringTable{string(b)} }

// at returns the name at a byte offset. Offset 0 is the empty name.
func (t stringTable) at(off uint32) (string, error) {
	if off == 0 {
		return "", nil
	}
	if uint64(off) >= uint64(len(t.all)) {
		return "", fmt.Errorf("name offset %#x lies beyond the string table's %#x bytes", off, len(t.all))
	}
	rest := t.all[off:]
	n := strings.IndexByte(rest, 0)
	if n < 0 {
		return "", fmt.Errorf("name at offset %#x has no end in the string table", off)
	}
	return rest[:n], nil
}
