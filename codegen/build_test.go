package codegen_test

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/internal/testutil/objcache"
	"github.com/klpc/klpc/target"
)

// kernelFlags are the flags of a kernel build that shape objects, with the
// sections that klpc adds.
const kernelFlags = "-O2 -std=gnu11 -Werror -mcmodel=kernel -fno-pic -fno-pie -pg -mfentry -mrecord-mcount" +
	" -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables -fno-strict-aliasing" +
	" -fno-delete-null-pointer-checks -fno-common -fno-stack-protector -fcf-protection=none" +
	" -fno-jump-tables -mno-sse -mno-mmx -mno-80387 -mno-red-zone -falign-functions=16"

// command runs a program that must succeed and skips the test if it is missing.
func command(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("needs %s, which is not installed", name)
	}
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// compile makes an object of a source that sees testdata/objs/kernel.h.
func compile(t testing.TB, source string, flags ...string) []byte {
	t.Helper()
	header, err := os.ReadFile("../testdata/objs/kernel.h")
	if err != nil {
		t.Fatal(err)
	}
	step := append(append([]string{"gcc"}, strings.Fields(kernelFlags)...), flags...)
	return objcache.Make(t, objcache.Job{
		Files: map[string]string{"unit.c": source, "kernel.h": string(header)},
		Steps: [][]string{append(step, "-include", "kernel.h", "-c", "-o", "unit.o", "unit.c")},
		Out:   "unit.o",
	})
}

func write(t testing.TB, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func parse(t testing.TB, data []byte) *elfobj.Object {
	t.Helper()
	o, err := elfobj.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func encode(t testing.TB, o *elfobj.Object) []byte {
	t.Helper()
	data, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// relink joins objects with ld -r.
func relink(t testing.TB, objects ...[]byte) []byte {
	t.Helper()
	files, step := map[string]string{}, []string{"ld", "-r", "-o", "out.o"}
	for i, data := range objects {
		name := fmt.Sprintf("in%d.o", i)
		files[name] = string(data)
		step = append(step, name)
	}
	return objcache.Make(t, objcache.Job{Files: files, Steps: [][]string{step}, Out: "out.o"})
}

// difference compares a source with its patched form.
func difference(t testing.TB, orig, patched string, flags ...string) *elfdiff.Result {
	t.Helper()
	r, err := elfdiff.Compare(parse(t, compile(t, orig, flags...)), parse(t, compile(t, patched, flags...)))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// replaced is a source with an edit that must apply.
func replaced(t testing.TB, source string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(source, pairs[i]) {
			t.Fatalf("no %q in the source", pairs[i])
		}
		source = strings.ReplaceAll(source, pairs[i], pairs[i+1])
	}
	return source
}

// symtab makes a kernel symbol table of names with their letters, in order.
func symtab(t testing.TB, entries ...string) *target.Symtab {
	t.Helper()
	var b strings.Builder
	for i, e := range slices.Concat([]string{"T _text"}, entries, []string{"B _end"}) {
		fmt.Fprintf(&b, "%016x %s\n", 0xffffffff81000000+uint64(i)*0x100, e)
	}
	tab, err := target.ReadSystemMap(strings.NewReader(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

// exports makes a Module.symvers of "NAME MODULE" or "NAME MODULE NAMESPACE".
func exports(t testing.TB, entries ...string) *target.Exports {
	t.Helper()
	var b strings.Builder
	for i, e := range entries {
		f := append(strings.Fields(e), "")
		fmt.Fprintf(&b, "0x%08x\t%s\t%s\tEXPORT_SYMBOL_GPL\t%s\n", i+1, f[0], f[1], f[2])
	}
	x, err := target.ReadSymvers(strings.NewReader(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

var numbers = regexp.MustCompile(`([A-Za-z_0-9])\.[0-9]+\b`)

// unnumbered takes the compiler's numbers off names.
func unnumbered(s string) string { return numbers.ReplaceAllString(s, "$1.N") }

// contents is the canonical text of an object: for each section its symbols and
// what it refers to, without offsets and without repetition.
func contents(o *elfobj.Object) string {
	var b strings.Builder
	secs := slices.Clone(o.Sections)
	slices.SortStableFunc(secs, func(x, y *elfobj.Section) int { return strings.Compare(x.Name, y.Name) })
	for _, s := range secs {
		if s.Type == elf.SHT_RELA || strings.HasPrefix(s.Name, ".note") || strings.HasPrefix(s.Name, ".comment") {
			continue
		}
		fmt.Fprintf(&b, "section %s\n", unnumbered(s.Name))
		for _, line := range append(defined(o, s), references(o, s)...) {
			fmt.Fprintf(&b, "  %s\n", unnumbered(line))
		}
	}
	return b.String()
}

func defined(o *elfobj.Object, s *elfobj.Section) []string {
	var out []string
	for _, sym := range o.Symbols {
		if sym.Section == s && sym.Type != elf.STT_SECTION {
			out = append(out, fmt.Sprintf("%s %s %s", bind(sym), strings.ToLower(strings.TrimPrefix(sym.Type.String(), "STT_")), sym.Name))
		}
	}
	slices.Sort(out)
	return out
}

func bind(s *elfobj.Symbol) string {
	return strings.ToLower(strings.TrimPrefix(s.Bind.String(), "STB_"))
}

func references(o *elfobj.Object, s *elfobj.Section) []string {
	var out []string
	for _, r := range o.Relocs(s) {
		line := "-> " + reached(s, r)
		if !slices.Contains(out, line) {
			out = append(out, line)
		}
	}
	return out
}

// reached names what a relocation of a section reaches.
func reached(s *elfobj.Section, r elfobj.Reloc) string {
	switch {
	case r.Sym == nil:
		return "nothing"
	case r.Sym.Undefined():
		return fmt.Sprintf("%s %s elsewhere", bind(r.Sym), r.Sym.Name)
	case strings.HasPrefix(r.Sym.Section.Name, ".rodata.klpc_literals"):
		off := r.Addend + int64(r.Sym.Value)
		if r.Type == uint32(elf.R_X86_64_PC32) && s.Flags&elf.SHF_EXECINSTR != 0 {
			off += 4
		}
		if off < 0 || off >= int64(len(r.Sym.Section.Data)) {
			return "a literal with an immediate behind"
		}
		return literal(r.Sym.Section.Data[off:])
	case r.Sym.Type == elf.STT_SECTION:
		return "section " + r.Sym.Section.Name
	}
	return r.Sym.Name
}

// literal renders a string, or the eight bytes of another constant.
func literal(data []byte) string {
	text, _, _ := strings.Cut(string(data), "\x00")
	if text == "" || strings.ContainsFunc(text, func(c rune) bool { return c < '\t' || c > '~' }) {
		return fmt.Sprintf("constant %x", data[:min(8, len(data))])
	}
	return fmt.Sprintf("%q", text)
}
