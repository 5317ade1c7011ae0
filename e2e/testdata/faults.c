/*
 * Gives bad addresses to system calls that write to user memory and expects
 * EFAULT each time: from reading /dev/zero and from listing a folder. A buffer
 * that ends early must be filled up to its end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static int failures;

static void must_fault(const char *what, unsigned long addr, long got)
{
	if (got == -1 && errno == EFAULT)
		return;
	printf("%s to %#lx: %ld, %s\n", what, addr, got, got < 0 ? strerror(errno) : "no error");
	failures++;
}

int main(void)
{
	static const unsigned long addrs[] = {
		0, 1, 0x10000, 0x7ffffffff000, 0x800000000000, 0x00ff000000000000,
		0x0100000000000000, 0xffff800000000000, 0xffffffffff600000, -4096UL,
	};
	int zero = open("/dev/zero", O_RDONLY), dir = open("/", O_RDONLY | O_DIRECTORY);
	char *p;
	long n;

	for (unsigned int i = 0; i < sizeof(addrs) / sizeof(addrs[0]); i++) {
		must_fault("read", addrs[i], syscall(SYS_read, zero, addrs[i], 4096));
		lseek(dir, 0, SEEK_SET);
		must_fault("getdents64", addrs[i], syscall(SYS_getdents64, dir, addrs[i], 4096));
	}

	p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED || munmap(p + 4096, 4096)) {
		perror("mmap");
		return 1;
	}
	n = syscall(SYS_read, zero, p, 8192);
	if (n != 4096) {
		printf("read over the end of a mapping: %ld instead of 4096\n", n);
		failures++;
	}
	lseek(dir, 0, SEEK_SET);
	n = syscall(SYS_getdents64, dir, p, 4096);
	if (n <= 0) {
		printf("getdents64: %ld\n", n);
		failures++;
	}
	return failures != 0;
}
