package elfobj

import (
	"debug/elf"
	"errors"
	"fmt"
	"math"
	"strings"
)

// Writing numbers the sections and symbols, checks that every pointer stays
// inside the object and every value can be expressed, and only then makes
// bytes: the ELF header, the sections in order, .symtab, .symtab_shndx if an
// index does not fit its field, .strtab, .shstrtab, the section headers.

// maxFileAlign bounds the alignment of a section inside the file, in bytes. A
// larger sh_addralign binds only whoever places the section in memory.
const maxFileAlign = 4096

// Encode writes a relocatable file. The symbol table and the string tables are
// made anew, with local symbols first; the same object always gives the same
// bytes. It does not change o.
//
// Each section's Size must equal the length of its Data, except for SHT_NOBITS,
// which has no Data, and for SHT_RELA and SHT_GROUP, where both are empty. All
// sections and symbols that are pointed to must be in o. The error joins all
// violations; indices in it count from 1 in Sections and Symbols.
func (o *Object) Encode() ([]byte, error) {
	n := number(o)
	if err := n.check(); err != nil {
		return nil, err
	}
	w := &writer{numbering: n, names: newNameTable(), secNames: newNameTable()}
	w.buf = make([]byte, ehdrSize, w.estimate())
	w.headers = make([]elf.Section64, 1, len(o.Sections)+5)
	for _, s := range o.Sections {
		w.section(s)
	}
	w.tables()
	return w.finish()
}

// numbering gives the parts of an object their indices in the file.
type numbering struct {
	object   *Object
	sections map[*Section]uint32
	symbols  map[*Symbol]uint32
	order    []*Symbol // locals, then the others
	globals  uint32    // index of the first symbol that is not local
	problems []error
}

func number(o *Object) *numbering {
	n := &numbering{
		object:   o,
		sections: make(map[*Section]uint32, len(o.Sections)),
		symbols:  make(map[*Symbol]uint32, len(o.Symbols)),
		order:    make([]*Symbol, 0, len(o.Symbols)),
	}
	for i, s := range o.Sections {
		if first := n.sections[s]; first != 0 {
			n.sectionProblem(i, s, fmt.Errorf("is in the object twice, also as section %d", first))
			continue
		}
		n.sections[s] = uint32(i + 1)
	}
	add := func(s *Symbol) {
		n.order = append(n.order, s)
		n.symbols[s] = uint32(len(n.order))
	}
	for _, s := range o.Symbols {
		if s != nil && s.Bind == elf.STB_LOCAL {
			add(s)
		}
	}
	n.globals = uint32(len(n.order)) + 1
	for _, s := range o.Symbols {
		if s != nil && s.Bind != elf.STB_LOCAL {
			add(s)
		}
	}
	return n
}

// sectionProblem notes what is wrong with section i of the object, if anything.
func (n *numbering) sectionProblem(i int, s *Section, err error) {
	if err == nil {
		return
	}
	var name string
	if s != nil {
		name = s.Name
	}
	n.problems = append(n.problems, fmt.Errorf("%s: %w", label("section", i+1, name), err))
}

// symbolProblem notes what is wrong with symbol i of the object, if anything.
func (n *numbering) symbolProblem(i int, s *Symbol, err error) {
	if err == nil {
		return
	}
	var name string
	if s != nil {
		name = s.Name
	}
	n.problems = append(n.problems, fmt.Errorf("%s: %w", label("symbol", i+1, name), err))
}

// check finds everything that keeps the object from being written.
func (n *numbering) check() error {
	o := n.object
	if o.Type != elf.ET_REL {
		return fmt.Errorf("only relocatable files can be written, this is %s", o.Type)
	}
	if err := checkMachine(o.Machine); err != nil {
		return err
	}
	for i, s := range o.Sections {
		if s == nil {
			n.sectionProblem(i, s, errors.New("is nil"))
			continue
		}
		n.sectionProblem(i, s, n.checkSection(s))
		n.sectionProblem(i, s, n.checkPointers(s))
	}
	if len(n.order) != len(n.symbols) {
		n.problems = append(n.problems, errors.New("a symbol is in the object twice"))
	}
	for i, s := range o.Symbols {
		if s == nil {
			n.symbolProblem(i, s, errors.New("is nil"))
			continue
		}
		n.symbolProblem(i, s, n.checkSymbol(s))
	}
	return errors.Join(n.problems...)
}

// checkSection checks what a section says about itself.
func (n *numbering) checkSection(s *Section) error {
	if err := checkName(s.Name); err != nil {
		return err
	}
	switch s.Type {
	case elf.SHT_NULL:
		if s.Flags != 0 || s.Addr != 0 || s.Align != 0 || s.EntSize != 0 || s.Data != nil || s.Size != 0 || s.Link != nil || s.Info != 0 {
			return errors.New("is of type SHT_NULL but not empty")
		}
	case elf.SHT_SYMTAB, elf.SHT_SYMTAB_SHNDX:
		return fmt.Errorf("%s is made anew and cannot be given", s.Type)
	case elf.SHT_NOBITS:
		if s.Data != nil {
			return errors.New("SHT_NOBITS has Data")
		}
	case elf.SHT_RELA, elf.SHT_GROUP:
		if s.Data != nil || s.Size != 0 || s.Link != nil || s.Info != 0 {
			return fmt.Errorf("%s has Data, Size, Link or Info of its own", s.Type)
		}
		if want := entSize(s.Type); s.EntSize != 0 && s.EntSize != want {
			return fmt.Errorf("entry size is %d, not %d", s.EntSize, want)
		}
	default:
		if s.Size != uint64(len(s.Data)) {
			return fmt.Errorf("field Size is %#x but Data has %#x bytes", s.Size, len(s.Data))
		}
	}
	if s.Type != elf.SHT_RELA && (s.Target != nil || s.Relocs != nil) {
		return fmt.Errorf("%s has a Target or Relocs", s.Type)
	}
	if s.Type != elf.SHT_GROUP && (s.Signature != nil || s.GroupFlag != 0 || s.Members != nil) {
		return fmt.Errorf("%s has a Signature, GroupFlag or Members", s.Type)
	}
	if s.Flags&elf.SHF_INFO_LINK != 0 && !decoded(s.Type) {
		return errors.New("sh_info names a section (SHF_INFO_LINK), which is known of relocations only")
	}
	if err := checkType(s.Type); err != nil {
		return err
	}
	if _, err := extent(s); err != nil {
		return err
	}
	return checkAlign(s.Align)
}

// entSize is the entry size, in bytes, of a section that is encoded from
// pointers.
func entSize(t elf.SectionType) uint64 {
	if t == elf.SHT_RELA {
		return relaSize
	}
	return wordSize
}

// checkPointers checks what a section points to.
func (n *numbering) checkPointers(s *Section) error {
	if s.Link != nil && n.sections[s.Link] == 0 {
		return fmt.Errorf("its linked section %s is not in the object", s.Link.Name)
	}
	switch s.Type {
	case elf.SHT_RELA:
		return n.checkRelocs(s)
	case elf.SHT_GROUP:
		if s.Signature == nil {
			return errors.New("group has no Signature")
		}
		if n.symbols[s.Signature] == 0 {
			return fmt.Errorf("its signature %s is not in the object", s.Signature.Name)
		}
		for i, m := range s.Members {
			switch {
			case m == nil:
				return fmt.Errorf("member %d: is nil", i)
			case m == s:
				return fmt.Errorf("member %d: the group contains itself", i)
			case n.sections[m] == 0:
				return fmt.Errorf("member %d: section %s is not in the object", i, m.Name)
			}
		}
	}
	return nil
}

func (n *numbering) checkRelocs(s *Section) error {
	if s.Target == nil {
		return errors.New("relocation section has no Target")
	}
	if n.sections[s.Target] == 0 {
		return fmt.Errorf("its target %s is not in the object", s.Target.Name)
	}
	size, err := extent(s.Target)
	if err != nil {
		return err
	}
	for i, r := range s.Relocs {
		if err := checkRelocOff(r.Off, s.Target, size); err != nil {
			return fmt.Errorf("relocation %d: %w", i, err)
		}
		if r.Sym != nil && n.symbols[r.Sym] == 0 {
			return fmt.Errorf("relocation %d: its symbol %s is not in the object", i, r.Sym.Name)
		}
	}
	return nil
}

func (n *numbering) checkSymbol(s *Symbol) error {
	if err := checkName(s.Name); err != nil {
		return err
	}
	if s.Bind > 0xf || s.Type > 0xf {
		return fmt.Errorf("binding %d or type %d does not fit 4 bits", s.Bind, s.Type)
	}
	if s.Section == nil {
		if s.Shndx != elf.SHN_UNDEF && (s.Shndx < elf.SHN_LORESERVE || s.Shndx >= elf.SHN_XINDEX) {
			return fmt.Errorf("field Shndx %#x is not a reserved section index", int(s.Shndx))
		}
		return nil
	}
	if s.Shndx != 0 {
		return fmt.Errorf("has both a Section (%s) and Shndx %#x", s.Section.Name, int(s.Shndx))
	}
	if n.sections[s.Section] == 0 {
		return fmt.Errorf("its section %s is not in the object", s.Section.Name)
	}
	size, err := extent(s.Section)
	if err != nil {
		return err
	}
	return checkSymbolValue(s, size)
}

func checkName(name string) error {
	if i := strings.IndexByte(name, 0); i >= 0 {
		return fmt.Errorf("name has a zero byte at %d", i)
	}
	return nil
}

// writer appends to one buffer; offsets in it are file offsets.
type writer struct {
	*numbering
	buf      []byte
	headers  []elf.Section64 // by index, the null header first
	names    *nameTable
	secNames *nameTable
}

// estimate is about the size of the file, in bytes.
func (w *writer) estimate() int {
	total := ehdrSize
	for _, s := range w.object.Sections {
		total += len(s.Data) + relaSize*len(s.Relocs) + wordSize*len(s.Members) + shdrSize + len(s.Name) + 16
	}
	for _, s := range w.order {
		total += symSize + wordSize + len(s.Name) + 1
	}
	return total + 4096
}

// pad aligns the end of the file for what comes next.
func (w *writer) pad(align uint64) {
	align = min(max(align, 1), maxFileAlign)
	for uint64(len(w.buf))%align != 0 {
		w.buf = append(w.buf, 0)
	}
}

// section writes one section of the object.
func (w *writer) section(s *Section) {
	h := elf.Section64{
		Name:      w.secNames.add(s.Name),
		Type:      uint32(s.Type),
		Flags:     uint64(s.Flags),
		Addr:      s.Addr,
		Size:      s.Size,
		Link:      w.sections[s.Link], // 0 for nil
		Info:      s.Info,
		Addralign: s.Align,
		Entsize:   s.EntSize,
	}
	align := s.Align
	switch s.Type {
	case elf.SHT_NULL:
		w.headers = append(w.headers, elf.Section64{Name: h.Name})
		return
	case elf.SHT_RELA:
		align = max(align, 8)
		h.Info = w.sections[s.Target]
	case elf.SHT_GROUP:
		align = max(align, wordSize)
		h.Info = w.symbols[s.Signature]
	}
	if decoded(s.Type) {
		h.Entsize = entSize(s.Type)
		h.Link = w.symtabIndex()
	}
	if s.Type != elf.SHT_NOBITS {
		w.pad(align)
	}
	h.Off = uint64(len(w.buf))
	switch s.Type {
	case elf.SHT_RELA:
		w.relocs(s.Relocs)
	case elf.SHT_GROUP:
		w.group(s)
	default:
		w.buf = append(w.buf, s.Data...)
	}
	if s.Type != elf.SHT_NOBITS {
		h.Size = uint64(len(w.buf)) - h.Off
	}
	w.headers = append(w.headers, h)
}

// symtabIndex is the section index of .symtab, right behind the object's own.
func (w *writer) symtabIndex() uint32 { return uint32(len(w.object.Sections)) + 1 }

func (w *writer) relocs(relocs []Reloc) {
	for _, r := range relocs {
		w.buf = appendRela(w.buf, elf.Rela64{
			Off:    r.Off,
			Info:   elf.R_INFO(w.symbols[r.Sym], r.Type), // index 0 for nil
			Addend: r.Addend,
		})
	}
}

func (w *writer) group(s *Section) {
	w.buf = le.AppendUint32(w.buf, s.GroupFlag)
	for _, m := range s.Members {
		w.buf = le.AppendUint32(w.buf, w.sections[m])
	}
}

// tables writes the symbol table and the string tables.
func (w *writer) tables() {
	symtab := w.symtabIndex()
	strtab := symtab + 1
	shndx := w.extendedIndices()
	if shndx != nil {
		strtab++
	}
	w.pad(8)
	off := len(w.buf)
	w.buf = appendSym(w.buf, elf.Sym64{})
	for _, s := range w.order {
		w.buf = appendSym(w.buf, elf.Sym64{
			Name:  w.names.add(s.Name),
			Info:  elf.ST_INFO(s.Bind, s.Type),
			Other: s.Other,
			Shndx: w.shndx(s),
			Value: s.Value,
			Size:  s.Size,
		})
	}
	w.table(".symtab", off, elf.Section64{Type: uint32(elf.SHT_SYMTAB), Link: strtab, Info: w.globals, Addralign: 8, Entsize: symSize})
	if shndx != nil {
		w.pad(wordSize)
		off = len(w.buf)
		for _, i := range shndx {
			w.buf = le.AppendUint32(w.buf, i)
		}
		w.table(".symtab_shndx", off, elf.Section64{Type: uint32(elf.SHT_SYMTAB_SHNDX), Link: symtab, Addralign: wordSize, Entsize: wordSize})
	}
	off = len(w.buf)
	w.buf = append(w.buf, w.names.bytes...)
	w.table(".strtab", off, elf.Section64{Type: uint32(elf.SHT_STRTAB), Addralign: 1})
	name := w.secNames.add(".shstrtab") // before its bytes are complete
	off = len(w.buf)
	w.buf = append(w.buf, w.secNames.bytes...)
	w.headers = append(w.headers, elf.Section64{Name: name, Type: uint32(elf.SHT_STRTAB), Off: uint64(off), Size: uint64(len(w.buf) - off), Addralign: 1})
}

// table adds the header of a table that was written from byte off on.
func (w *writer) table(name string, off int, h elf.Section64) {
	h.Name = w.secNames.add(name)
	h.Off, h.Size = uint64(off), uint64(len(w.buf)-off)
	w.headers = append(w.headers, h)
}

// shndx is a symbol's st_shndx.
func (w *writer) shndx(s *Symbol) uint16 {
	if s.Section == nil {
		return uint16(s.Shndx)
	}
	if i := w.sections[s.Section]; i < uint32(elf.SHN_LORESERVE) {
		return uint16(i)
	}
	return uint16(elf.SHN_XINDEX)
}

// extendedIndices is the contents of .symtab_shndx: for each symbol, the null
// symbol first, its section index if that does not fit st_shndx, else 0. It is
// nil if all fit. Source: gABI chapter 4, SHT_SYMTAB_SHNDX.
func (w *writer) extendedIndices() []uint32 {
	var table []uint32
	for i, s := range w.order {
		n := w.sections[s.Section]
		if n < uint32(elf.SHN_LORESERVE) {
			continue
		}
		if table == nil {
			table = make([]uint32, len(w.order)+1)
		}
		table[i+1] = n
	}
	return table
}

// finish writes the section headers and the ELF header.
func (w *writer) finish() ([]byte, error) {
	if len(w.names.bytes) > math.MaxUint32 || len(w.secNames.bytes) > math.MaxUint32 {
		return nil, errors.New("names take more than 4 GiB")
	}
	w.pad(8)
	count, last := len(w.headers), len(w.headers)-1
	head := elf.Header64{
		Type:      uint16(w.object.Type),
		Machine:   uint16(w.object.Machine),
		Version:   uint32(elf.EV_CURRENT),
		Shoff:     uint64(len(w.buf)),
		Flags:     w.object.Flags,
		Ehsize:    ehdrSize,
		Shentsize: shdrSize,
		Shnum:     uint16(count),
		Shstrndx:  uint16(last),
	}
	copy(head.Ident[:], elf.ELFMAG)
	head.Ident[elf.EI_CLASS] = byte(elf.ELFCLASS64)
	head.Ident[elf.EI_DATA] = byte(elf.ELFDATA2LSB)
	head.Ident[elf.EI_VERSION] = byte(elf.EV_CURRENT)
	head.Ident[elf.EI_OSABI] = byte(w.object.OSABI)
	if count >= int(elf.SHN_LORESERVE) {
		head.Shnum, w.headers[0].Size = 0, uint64(count)
	}
	if last >= int(elf.SHN_LORESERVE) {
		head.Shstrndx, w.headers[0].Link = uint16(elf.SHN_XINDEX), uint32(last)
	}
	for _, h := range w.headers {
		w.buf = appendShdr(w.buf, h)
	}
	appendEhdr(w.buf[:0], head)
	return w.buf, nil
}

// nameTable is a string table in the making. Equal names are stored once.
type nameTable struct {
	bytes   []byte
	offsets map[string]uint32
}

func newNameTable() *nameTable {
	return &nameTable{bytes: []byte{0}, offsets: map[string]uint32{"": 0}}
}

// add returns the offset of a name, in bytes.
func (t *nameTable) add(name string) uint32 {
	off, ok := t.offsets[name]
	if !ok {
		off = uint32(len(t.bytes))
		t.offsets[name] = off
		t.bytes = append(append(t.bytes, name...), 0)
	}
	return off
}
