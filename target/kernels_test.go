package target

import (
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"
)

// kernelsVar names a folder with vmlinuz-* of real kernels, and maybe
// System.map-* beside them, to check the readers on.
const kernelsVar = "KLPC_TEST_KERNELS"

// TestRealKernels checks what must hold for every kernel with livepatch
// support, above all that the addresses from kallsyms agree with the bytes and
// with the kernel's own list of function entries.
func TestRealKernels(t *testing.T) {
	folders := os.Getenv(kernelsVar)
	if folders == "" {
		t.Skipf("%s is not set: no real kernels to check", kernelsVar)
	}
	for _, folder := range filepath.SplitList(folders) {
		images, err := filepath.Glob(filepath.Join(folder, "vmlinuz-*"))
		if err != nil {
			t.Fatal(err)
		}
		if len(images) == 0 {
			t.Errorf("no vmlinuz-* in %s", folder)
		}
		for _, path := range images {
			t.Run(filepath.Base(path), func(t *testing.T) { checkKernel(t, path) })
		}
	}
}

func checkKernel(t *testing.T, path string) {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	im, err := ReadImage(data)
	if err != nil {
		t.Fatal(err)
	}
	unpacked := time.Now()
	table, err := im.Kallsyms()
	if err != nil {
		t.Fatal(err)
	}
	decoded := time.Now()
	t.Logf("%s in %v and %v, %s", plural(table.Len(), "symbol"), unpacked.Sub(start).Round(time.Millisecond),
		decoded.Sub(unpacked).Round(time.Millisecond), duplicates(table))
	if table.Len() < 20000 {
		t.Errorf("only %d symbols", table.Len())
	}
	sites, err := im.FtraceSites(table)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d functions with an ftrace entry, %d bytes of BTF", len(sites), len(im.BTF()))
	checkTypes(t, im)
	checkExports(t, im, table)
	checkSites(t, im, table, sites)
	checkBoundaries(t, im, table)
	checkSystemMap(t, table, strings.Replace(path, "vmlinuz-", "System.map-", 1))
}

// checkExports compares the kernel's own table of exports with its symbols.
func checkExports(t *testing.T, im *Image, table *Symtab) {
	exports, err := im.Exports(table)
	if err != nil {
		t.Fatal(err)
	}
	spaces, wrong := 0, 0
	for name, x := range exports {
		if x.Namespace != "" {
			spaces++
		}
		if !slices.ContainsFunc(table.Named(name), func(i int) bool { return table.At(i).Addr == x.Addr }) {
			wrong++
		}
	}
	t.Logf("%d exports, %d in namespaces, %d at another address than in kallsyms", len(exports), spaces, wrong)
	if x := exports["klp_enable_patch"]; !x.HasCRC || x.CRC == 0 || len(exports) < 5000 || spaces == 0 || wrong > len(exports)/100 {
		t.Errorf("%+v among %d exports", x, len(exports))
	}
}

// checkTypes looks for a type that every kernel has.
func checkTypes(t *testing.T, im *Image) {
	start := time.Now()
	spec, err := im.Types()
	if err != nil {
		t.Fatal(err)
	}
	var module *btf.Struct
	if err := spec.TypeByName("module", &module); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(module.Members, func(m btf.Member) bool { return m.Name == "init" }) {
		t.Error("struct module has no member init")
	}
	t.Logf("types in %v", time.Since(start).Round(time.Millisecond))
}

// duplicates counts names that need a sympos.
func duplicates(table *Symtab) string {
	names, functions, most, mostName := 0, 0, 0, ""
	for i := range table.Len() {
		if table.Sympos(i) != 1 {
			continue
		}
		names++
		all := table.Named(table.At(i).Name)
		if slices.ContainsFunc(all, func(i int) bool { return strings.IndexByte("tTwW", table.At(i).Kind) >= 0 }) {
			functions++
		}
		if len(all) > most {
			most, mostName = len(all), table.At(i).Name
		}
	}
	return fmt.Sprintf("%d names more than once, %d of them functions, %s %d times", names, functions, mostName, most)
}

// checkSites proves the addresses: each site is a call (or a nop, where the
// build has replaced it) at the start of a symbol of kind text, or four bytes
// after it, behind endbr64.
func checkSites(t *testing.T, im *Image, table *Symtab, sites []uint64) {
	wrong, call, stray := 0, 0, 0
	for _, site := range sites {
		code, ok := im.Bytes(site, 5)
		if !ok {
			t.Errorf("no bytes at %#x", site)
			return
		}
		switch {
		case code[0] == 0xe8: // call rel32
			target, _ := u32(code, 1)
			if i := table.Named("__fentry__"); len(i) == 1 && table.At(i[0]).Addr == site+5+uint64(int64(int32(target))) {
				call++
				break
			}
			wrong++
		case slices.Equal(code, []byte{0x0f, 0x1f, 0x44, 0x00, 0x00}): // nopl 0(%rax,%rax)
			call++
		default:
			wrong++
		}
		entry := table.AtAddr(site)
		if before, ok := im.Bytes(site-4, 4); len(entry) == 0 && ok && slices.Equal(before, []byte{0xf3, 0x0f, 0x1e, 0xfa}) { // endbr64
			entry = table.AtAddr(site - 4)
		}
		if len(entry) == 0 {
			stray++
		}
	}
	// The code of an overridden weak function stays, without a name; before
	// Linux 6.15 its entry stays in the table too.
	t.Logf("%d sites are in overridden weak functions", stray)
	if stray > len(sites)/50 {
		t.Errorf("%d of %d sites are not at the start of a symbol", stray, len(sites))
	}
	if wrong > 0 || call == 0 {
		t.Errorf("%d of %d sites do not call __fentry__", wrong, len(sites))
	}
}

// checkBoundaries compares symbols that the linker script defines with sections.
func checkBoundaries(t *testing.T, im *Image, table *Symtab) {
	address := func(name string) uint64 {
		addr, err := table.unique(name)
		if err != nil {
			t.Error(err)
		}
		return addr
	}
	for _, boundary := range []struct{ symbol, section string }{
		{"_text", ".text"}, {"__start_rodata", ".rodata"}, {"_sdata", ".data"},
		{"_sinittext", ".init.text"}, {"__bss_start", ".bss"}, {"__start___ex_table", "__ex_table"},
	} {
		s := im.Section(boundary.section)
		if s == nil {
			t.Errorf("no section %s", boundary.section)
			continue
		}
		if got := address(boundary.symbol); got != s.Addr {
			t.Errorf("%s is at %#x, %s at %#x", boundary.symbol, got, boundary.section, s.Addr)
		}
	}
	banner, ok := im.Bytes(address("linux_banner"), 14)
	if !ok || string(banner) != "Linux version " {
		t.Errorf("linux_banner is %q", banner)
	}
	for i := range table.Len() {
		if s := table.At(i); s.Kind == 'T' && !im.executable(s.Addr) && !im.boundary(s.Addr) {
			t.Errorf("%s, of kind T, is not in code: %#x", s.Name, s.Addr)
		}
	}
}

// boundary tells whether an address is where a section of code ends or, as the
// linker script does for symbols between sections, lies outside of all.
func (im *Image) boundary(addr uint64) bool {
	for i := range im.Sections {
		s := &im.Sections[i]
		if addr >= s.Addr && addr < s.Addr+s.Size && s.Flags&elf.SHF_EXECINSTR == 0 && addr != s.Addr {
			return false
		}
	}
	return true
}

// checkSystemMap compares every name's addresses with a System.map, if a real
// one is there.
func checkSystemMap(t *testing.T, table *Symtab, path string) {
	f, err := os.Open(path)
	if err != nil {
		t.Logf("not compared with a System.map: %v", err)
		return
	}
	defer f.Close()
	other, err := ReadSystemMap(f)
	if err != nil {
		t.Logf("not compared with the System.map: %v", err)
		return
	}
	addresses := func(t *Symtab, name string) []uint64 {
		var all []uint64
		for _, i := range t.Named(name) {
			all = append(all, t.At(i).Addr)
		}
		return all
	}
	for i := range other.Len() {
		name := other.At(i).Name
		if strings.HasPrefix(name, "kallsyms_") && len(table.Named(name)) == 0 {
			continue // left out of itself
		}
		if diff := cmp.Diff(addresses(other, name), addresses(table, name)); diff != "" {
			t.Errorf("%s (-System.map +kallsyms):\n%s", name, diff)
		}
	}
	for i := range table.Len() {
		if name := table.At(i).Name; len(other.Named(name)) == 0 {
			t.Errorf("%s is in kallsyms only", name)
		}
	}
}
