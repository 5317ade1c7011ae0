package target

import (
	"bytes"
	"fmt"
	"strings"
)

// ImageExport is a symbol that the kernel itself offers to modules.
type ImageExport struct {
	Addr      uint64
	CRC       uint32 // 0 if the kernel has no symbol versions
	HasCRC    bool
	Namespace string
}

// ksymtabEntry is the size of struct kernel_symbol in bytes: three offsets, each
// relative to its own place, to the value, the name and the namespace.
// Source: include/linux/export-internal.h, CONFIG_HAVE_ARCH_PREL32_RELOCATIONS.
const ksymtabEntry = 12

// Exports reads the tables that the module loader resolves symbols with, by
// name: __ksymtab and __kcrctab, and up to Linux 7.x those with the suffix _gpl.
// The result is empty if kallsyms does
// not say where the tables are. t must be the table of this image.
func (im *Image) Exports(t *Symtab) (map[string]ImageExport, error) {
	all := map[string]ImageExport{}
	for _, suffix := range []string{"", "_gpl"} {
		table, at, err := im.between(t, "__start___ksymtab"+suffix, "__stop___ksymtab"+suffix)
		if err != nil {
			return nil, err
		}
		crcs, _, err := im.between(t, "__start___kcrctab"+suffix, "__stop___kcrctab"+suffix)
		if err != nil {
			return nil, err
		}
		n := len(table) / ksymtabEntry
		if len(table)%ksymtabEntry != 0 || len(crcs) != 0 && len(crcs) != 4*n {
			return nil, fmt.Errorf("exports of the kernel: %d bytes of symbols and %d of checksums", len(table), len(crcs))
		}
		for i := range n {
			off := i * ksymtabEntry
			x := ImageExport{Addr: relative(table, at, off)}
			name, ok := im.text(relative(table, at, off+4))
			if !ok {
				return nil, fmt.Errorf("exports of the kernel: entry %d has no name", i)
			}
			if ns := relative(table, at, off+8); ns != 0 {
				x.Namespace, _ = im.text(ns)
			}
			if len(crcs) > 0 {
				x.CRC, x.HasCRC = u32at(crcs, 4*i), true
			}
			all[name] = x
		}
	}
	return all, nil
}

// between returns what lies between two symbols, and where; nothing if the
// kernel does not have them.
func (im *Image) between(t *Symtab, start, stop string) ([]byte, uint64, error) {
	a, err := t.unique(start)
	if err != nil {
		return nil, 0, nil
	}
	b, err := t.unique(stop)
	if err != nil || b < a || b-a > maxUnpacked {
		return nil, 0, fmt.Errorf("exports of the kernel: bad bounds of %s", start)
	}
	if a == b {
		return nil, 0, nil
	}
	data, ok := im.Bytes(a, int(b-a))
	if !ok {
		return nil, 0, fmt.Errorf("exports of the kernel: the image has no bytes at %s", start)
	}
	return data, a, nil
}

// relative reads an offset and adds its own address.
func relative(table []byte, at uint64, off int) uint64 {
	v := u32at(table, off)
	if v == 0 {
		return 0
	}
	return at + uint64(off) + uint64(int64(int32(v)))
}

func u32at(b []byte, off int) uint32 {
	v, _ := u32(b, off)
	return v
}

// text reads a string that ends in NUL.
func (im *Image) text(addr uint64) (string, bool) {
	for n := 64; n <= 1<<12; n *= 2 {
		b, ok := im.Bytes(addr, n)
		if !ok {
			if b, ok = im.tail(addr); !ok {
				return "", false
			}
		}
		if i := bytes.IndexByte(b, 0); i >= 0 {
			return string(b[:i]), true
		}
	}
	return "", false
}

// tail returns the bytes from an address to the end of its section.
func (im *Image) tail(addr uint64) ([]byte, bool) {
	for _, i := range im.byAddr {
		s := &im.Sections[i]
		if addr >= s.Addr && addr-s.Addr < uint64(len(s.Data)) {
			return s.Data[addr-s.Addr:], true
		}
	}
	return nil, false
}

// Text reads the string that a variable of the kernel holds, such as
// "linux_banner" or "vermagic".
func (im *Image) Text(t *Symtab, name string) (string, error) {
	addr, err := t.unique(name)
	if err != nil {
		return "", err
	}
	s, ok := im.text(addr)
	if !ok {
		return "", fmt.Errorf("%s holds no text", name)
	}
	return strings.TrimSpace(s), nil
}
