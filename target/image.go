package target

import (
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/klpc/klpc/elfobj"
)

// Image is the kernel's code and data at link addresses. It is immutable.
type Image struct {
	Machine elf.Machine
	// Sections holds what is loaded at run time (SHF_ALLOC), in file order.
	Sections []ImageSection

	byAddr []int // indices of Sections that have bytes, by ascending Addr
	// tables holds where an unstripped file's own symbol table says that the
	// kallsyms tables are; empty for a stripped one.
	tables map[string]uint64
}

// ImageSection is one loaded section.
type ImageSection struct {
	Name  string
	Addr  uint64 // link address; per-CPU data is at 0 on x86 before Linux 6.15
	Size  uint64 // bytes
	Flags elf.SectionFlag
	Data  []byte // nil if the file holds no bytes for it (bss)
}

// ReadImage reads a kernel: an x86 bzImage (vmlinuz) with any compression that
// Decompress knows, or a vmlinux, stripped or not, itself compressed or not.
// The Image refers to data, which must not change afterwards.
func ReadImage(data []byte) (*Image, error) {
	vmlinux, err := unpackKernel(data)
	if err != nil {
		return nil, fmt.Errorf("read kernel image: %w", err)
	}
	im, err := readVmlinux(vmlinux)
	if err != nil {
		return nil, fmt.Errorf("read kernel image: vmlinux: %w", err)
	}
	return im, nil
}

// unpackKernel returns the ELF file inside whatever the kernel comes in.
func unpackKernel(data []byte) ([]byte, error) {
	switch {
	case bytes.HasPrefix(data, []byte(elf.ELFMAG)):
		return data, nil
	case formatOf(data) != nil:
		return Decompress(data)
	case isBzImage(data):
		payload, err := bzImagePayload(data)
		if err != nil {
			return nil, fmt.Errorf("bzImage: %w", err)
		}
		vmlinux, err := unpackPayload(payload)
		if err != nil {
			return nil, fmt.Errorf("bzImage: %w", err)
		}
		return vmlinux, nil
	}
	return nil, errors.New("neither an x86 bzImage nor an ELF vmlinux" + foreign(data))
}

// foreign names kernel images that are known but not read.
func foreign(data []byte) string {
	// Magic numbers: Documentation/arch/arm64/booting.rst;
	// drivers/firmware/efi/libstub/zboot-header.S.
	for _, known := range []struct {
		off         int
		magic, name string
	}{
		{0x38, "ARM\x64", "an arm64 Image"},
		{4, "zimg", "an EFI zboot image"},
	} {
		if b, ok := slice(data, known.off, len(known.magic)); ok && string(b) == known.magic {
			return ": it is " + known.name + ", pass the vmlinux"
		}
	}
	return ""
}

// Fields of the x86 setup header, byte offsets in the file.
// Source: Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
const (
	bzSetupSects    = 0x1f1 // 1 byte: size of the real-mode code less its first sector; 0 means 4
	bzMagic         = 0x202 // "HdrS"
	bzVersion       = 0x206 // 2 bytes: boot protocol
	bzPayloadOffset = 0x248 // 4 bytes: from the start of the protected-mode code
	bzPayloadLength = 0x24c // 4 bytes

	bzSectorSize     = 512
	bzPayloadVersion = 0x0208 // the protocol that added the payload fields
)

func isBzImage(data []byte) bool {
	magic, ok := slice(data, bzMagic, 4)
	return ok && string(magic) == "HdrS"
}

// bzImagePayload finds the compressed vmlinux.
func bzImagePayload(data []byte) ([]byte, error) {
	version, _ := u16(data, bzVersion)
	offset, ok1 := u32(data, bzPayloadOffset)
	length, ok2 := u32(data, bzPayloadLength)
	switch {
	case !ok1 || !ok2:
		return nil, errors.New("truncated setup header")
	case version < bzPayloadVersion:
		return nil, fmt.Errorf("boot protocol %d.%02d has no payload field, %d.%02d is needed",
			version>>8, version&0xff, bzPayloadVersion>>8, bzPayloadVersion&0xff)
	}
	sectors := int(data[bzSetupSects])
	if sectors == 0 {
		sectors = 4
	}
	payload, ok := slice(data, (sectors+1)*bzSectorSize+int(offset), int(length))
	if !ok {
		return nil, fmt.Errorf("truncated: the payload of %d bytes is not all there", length)
	}
	return payload, nil
}

// readVmlinux takes the loaded sections of a linked kernel.
func readVmlinux(data []byte) (*Image, error) {
	o, err := elfobj.Parse(data)
	if err != nil {
		return nil, err
	}
	if o.Type != elf.ET_EXEC && o.Type != elf.ET_DYN {
		return nil, fmt.Errorf("type %v is not a linked image", o.Type)
	}
	im := &Image{Machine: o.Machine, tables: map[string]uint64{}}
	for _, s := range o.Sections {
		if s.Flags&elf.SHF_ALLOC == 0 {
			continue
		}
		im.Sections = append(im.Sections, ImageSection{
			Name: s.Name, Addr: s.Addr, Size: s.Size, Flags: s.Flags, Data: s.Data,
		})
	}
	if len(im.Sections) == 0 {
		return nil, errors.New("no loaded sections; section headers are needed")
	}
	for i, s := range im.Sections {
		if len(s.Data) > 0 {
			im.byAddr = append(im.byAddr, i)
		}
	}
	slices.SortStableFunc(im.byAddr, func(a, b int) int {
		return cmp.Compare(im.Sections[a].Addr, im.Sections[b].Addr)
	})
	for _, s := range o.Symbols {
		if strings.HasPrefix(s.Name, "kallsyms_") && s.Section != nil {
			im.tables[s.Name] = s.Value
		}
	}
	return im, nil
}

// Section returns the first section of that name, or nil.
func (im *Image) Section(name string) *ImageSection {
	for i := range im.Sections {
		if im.Sections[i].Name == name {
			return &im.Sections[i]
		}
	}
	return nil
}

// Bytes returns the n bytes at a link address, or false unless one section
// holds them all; bss holds none. The caller must not change them.
func (im *Image) Bytes(addr uint64, n int) ([]byte, bool) {
	i, found := slices.BinarySearchFunc(im.byAddr, addr, func(i int, addr uint64) int {
		return cmp.Compare(im.Sections[i].Addr, addr)
	})
	if !found {
		i--
	}
	if i < 0 {
		return nil, false
	}
	s := &im.Sections[im.byAddr[i]]
	off := addr - s.Addr
	if off > uint64(len(s.Data)) {
		return nil, false
	}
	return slice(s.Data, int(off), n)
}

// BTF returns the kernel's type information, nil if the image has none
// (CONFIG_DEBUG_INFO_BTF off).
func (im *Image) BTF() []byte {
	if s := im.Section(".BTF"); s != nil {
		return s.Data
	}
	return nil
}

// FtraceSites returns the addresses at which ftrace can patch, ascending: each
// is that of the call to __fentry__, which stands at the start of its function
// or after endbr64. They come from the kernel's own table, between
// __start_mcount_loc and __stop_mcount_loc; t must be the table of this image,
// at link addresses. Entries of zero are left out: since Linux 6.15 the build
// blanks those of overridden weak functions (scripts/sorttable.c).
func (im *Image) FtraceSites(t *Symtab) ([]uint64, error) {
	start, err := t.unique("__start_mcount_loc")
	if err != nil {
		return nil, fmt.Errorf("ftrace sites: %w", err)
	}
	stop, err := t.unique("__stop_mcount_loc")
	if err != nil {
		return nil, fmt.Errorf("ftrace sites: %w", err)
	}
	const entry = 8 // bytes: an address
	size := stop - start
	if stop < start || size%entry != 0 || size > maxUnpacked {
		return nil, fmt.Errorf("ftrace sites: bad bounds %#x to %#x", start, stop)
	}
	table, ok := im.Bytes(start, int(size))
	if !ok {
		return nil, fmt.Errorf("ftrace sites: the image has no bytes at %#x to %#x", start, stop)
	}
	sites := make([]uint64, 0, len(table)/entry)
	for off := 0; off < len(table); off += entry {
		site, _ := u64(table, off)
		if site == 0 {
			continue
		}
		if !im.executable(site) {
			return nil, fmt.Errorf("ftrace sites: entry %d: %#x is not in executable code", off/entry, site)
		}
		sites = append(sites, site)
	}
	slices.Sort(sites)
	return sites, nil
}

// executable tells whether a section of code holds the address.
func (im *Image) executable(addr uint64) bool {
	for i := range im.Sections {
		s := &im.Sections[i]
		if s.Flags&elf.SHF_EXECINSTR != 0 && addr >= s.Addr && addr-s.Addr < s.Size {
			return true
		}
	}
	return false
}

// end returns the address after the last section, bss and scratch space counted.
func (im *Image) end() uint64 {
	var end uint64
	for i := range im.Sections {
		end = max(end, im.Sections[i].Addr+im.Sections[i].Size)
	}
	return end
}
