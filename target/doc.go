// Package target reads the running kernel that is to be patched: its code bytes
// at link addresses, what its symbols are called and in which order (sympos),
// its exports, and the same for its modules.
//
// It does not read the source tree or the build (kbuild does) and decides
// nothing about a patch (codegen does). Sources: scripts/kallsyms.c,
// kernel/kallsyms.c, kernel/module/kallsyms.c and kernel/livepatch/core.c of
// Linux 6.1 to 7.x; Documentation/arch/x86/boot.rst (bzImage);
// Documentation/kbuild/modules.rst (Module.symvers).
package target

import (
	"encoding/binary"
	"fmt"
)

// slice returns data[off:off+n], or false if that is not wholly inside. Every
// read at a position that comes from a file goes through it.
func slice(data []byte, off, n int) ([]byte, bool) {
	if off < 0 || n < 0 || off > len(data) || n > len(data)-off {
		return nil, false
	}
	return data[off : off+n : off+n], true
}

// u16 reads two little-endian bytes at off, or false beyond the end.
func u16(data []byte, off int) (uint16, bool) {
	b, ok := slice(data, off, 2)
	if !ok {
		return 0, false
	}
	return binary.LittleEndian.Uint16(b), true
}

// u32 reads four little-endian bytes at off, or false beyond the end.
func u32(data []byte, off int) (uint32, bool) {
	b, ok := slice(data, off, 4)
	if !ok {
		return 0, false
	}
	return binary.LittleEndian.Uint32(b), true
}

// u64 reads eight little-endian bytes at off, or false beyond the end.
func u64(data []byte, off int) (uint64, bool) {
	b, ok := slice(data, off, 8)
	if !ok {
		return 0, false
	}
	return binary.LittleEndian.Uint64(b), true
}

// plural renders a count with its noun: "1 symbol", "3 symbols".
func plural(n int, noun string) string {
	if n == 1 {
		return fmt.Sprintf("1 %s", noun)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
