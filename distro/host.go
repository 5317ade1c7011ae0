package distro

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// need is something that must be installed, with its Debian package.
type need struct {
	program string // looked for in PATH; or
	header  string // looked for where the compiler finds the headers of libraries
	pkg     string
}

// aptTools find out which kernels there are.
var aptTools = []need{
	{program: "apt-cache", pkg: "apt"},
	{program: "apt-get", pkg: "apt"},
	{program: "dpkg-deb", pkg: "dpkg"},
}

// unpackTools unpack a stock kernel's source.
var unpackTools = []need{
	{program: "tar", pkg: "tar"},
	{program: "xz", pkg: "xz-utils"},
}

// buildTools prepare a kernel's source: Documentation/process/changes.rst,
// as far as "make prepare modules_prepare" needs them.
var buildTools = []need{
	{program: "make", pkg: "make"},
	{program: "gcc", pkg: "gcc"}, // the kernel's HOSTCC
	{program: "ld", pkg: "binutils"},
	{program: "flex", pkg: "flex"},
	{program: "bison", pkg: "bison"},
	{program: "bc", pkg: "bc"},
	{program: "perl", pkg: "perl"},
	{program: "python3", pkg: "python3"}, // tools/lib/bpf, since 6.0
	{header: "stdlib.h", pkg: "libc6-dev"},
	{header: "gelf.h", pkg: "libelf-dev"},             // objtool
	{header: "openssl/opensslv.h", pkg: "libssl-dev"}, // scripts/sign-file
	{header: "zlib.h", pkg: "zlib1g-dev"},             // tools/bpf/resolve_btfids
}

// host is the machine as far as needs are concerned.
type host struct {
	lookPath func(program string) (string, error)
	includes []string // directories with headers
}

func defaultHost() host {
	dirs := []string{"/usr/include", "/usr/local/include"}
	multiarch, _ := filepath.Glob("/usr/include/*-linux-gnu*")
	return host{lookPath: exec.LookPath, includes: append(dirs, multiarch...)}
}

// check reports everything that is missing, and how to install it, at once.
func (h host) check(needs []need) error {
	var what, pkgs []string
	for _, n := range needs {
		if h.has(n) {
			continue
		}
		what = append(what, n.program+n.header)
		if !slices.Contains(pkgs, n.pkg) {
			pkgs = append(pkgs, n.pkg)
		}
	}
	if len(what) == 0 {
		return nil
	}
	if _, err := h.lookPath("apt-get"); err != nil {
		return fmt.Errorf("this machine lacks %s; Debian has them in the packages %s", strings.Join(what, ", "), strings.Join(pkgs, " "))
	}
	return fmt.Errorf("this machine lacks %s; as root: apt-get install --no-install-recommends %s",
		strings.Join(what, ", "), strings.Join(pkgs, " "))
}

func (h host) has(n need) bool {
	if n.program != "" {
		_, err := h.lookPath(n.program)
		return err == nil
	}
	return slices.ContainsFunc(h.includes, func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, n.header))
		return err == nil
	})
}

// checkPath refuses a directory that the kernel's Makefile refuses: "source
// directory cannot contain spaces or colons"; what the shell or make would
// expand fails later and less clearly.
func checkPath(dir string) error {
	if i := strings.IndexAny(dir, " :\t\n$%#'\"\\&;|<>()*?[]`"); i >= 0 {
		return fmt.Errorf("%s: the kernel's Makefile cannot work in a path with %q", dir, dir[i])
	}
	return nil
}

// What a tree takes at its peak, in bytes.
const (
	stockSpace = 2_500_000_000 // 1.7 GB of source, and its packed form, modules and prepared tree of 0.1 to 0.3 GB each
	partsSpace = 100_000_000   // the prepared tree alone
)

func checkSpace(dir string, need uint64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("cache of kernels %s: %w", dir, err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < need {
		return fmt.Errorf("cache of kernels %s: %d MB free, a kernel needs %d MB", dir, free/1e6, need/1e6)
	}
	return nil
}
