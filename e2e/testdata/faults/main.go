// Command faults gives bad addresses to system calls that write to user memory
// and expects EFAULT each time: from reading /dev/zero and from listing a
// folder. A buffer that ends early must be filled up to its end. It runs in the
// guest, which has no C library.
package main

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

const pageSize = 4096

// addresses: nothing is mapped there; the end of user space with 4 and with 5
// levels of page tables; not canonical; the kernel's own.
var addresses = []uintptr{
	0, 1, 0x1000, 0x7ffffffff000, 0x800000000000, 0x00ff000000000000,
	0x0100000000000000, 0xffff800000000000, 0xffffffffff600000, 0xfffffffffffff000,
}

func main() {
	failures := 0
	fail := func(format string, args ...any) {
		fmt.Printf(format+"\n", args...)
		failures++
	}
	zero, err1 := syscall.Open("/dev/zero", syscall.O_RDONLY, 0)
	dir, err2 := syscall.Open("/", syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err1 != nil || err2 != nil {
		fail("open: %v, %v", err1, err2)
	}
	call := func(number uintptr, fd int, addr, size uintptr) (int, syscall.Errno) {
		if _, err := syscall.Seek(fd, 0, 0); err != nil {
			fail("seek: %v", err)
		}
		n, _, errno := syscall.Syscall(number, uintptr(fd), addr, size)
		return int(n), errno
	}
	for _, addr := range addresses {
		if n, errno := call(syscall.SYS_READ, zero, addr, pageSize); errno != syscall.EFAULT {
			fail("read to %#x: %d, %v", addr, n, errno)
		}
		if n, errno := call(syscall.SYS_GETDENTS64, dir, addr, pageSize); errno != syscall.EFAULT {
			fail("getdents64 to %#x: %d, %v", addr, n, errno)
		}
	}
	page, err := syscall.Mmap(-1, 0, 2*pageSize, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		fail("mmap: %v", err)
		os.Exit(1)
	}
	start := uintptr(unsafe.Pointer(&page[0]))
	if err := syscall.Mprotect(page[pageSize:], syscall.PROT_NONE); err != nil {
		fail("mprotect: %v", err)
	}
	if n, errno := call(syscall.SYS_READ, zero, start, 2*pageSize); n != pageSize || errno != 0 {
		fail("read over the end of a buffer: %d, %v, want %d", n, errno, pageSize)
	}
	if n, errno := call(syscall.SYS_GETDENTS64, dir, start, pageSize); n <= 0 || errno != 0 {
		fail("getdents64: %d, %v", n, errno)
	}
	if failures > 0 {
		os.Exit(1)
	}
}
