package elfdiff

import (
	"debug/elf"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/elfobj"
)

// gaps are fixtures whose result is known to be less than what is right. Each
// errs on the safe side, except where it says so. When the result changes, the
// fixture fails: then look whether the gap has closed, and take it off the list.
var gaps = map[string]string{
	"gap-aggregate-neighbour": "f is the same, but unnamed constants of one section are compared from the first byte that is referenced to the section's end, because nothing says where one ends",
	"gap-array-end-with-new-neighbour": "f is the same; table+40 and fresh are one address in the patched object. codegen refuses it in a " +
		"function that refers to table as well; one that only refers to its end would, NOT SAFE, get the module's copy of fresh",
}

func TestGapsAreListed(t *testing.T) {
	var found []string
	for _, f := range loadFixtures(t) {
		if strings.HasPrefix(f.name, "gap-") {
			found = append(found, f.name)
			if gaps[f.name] == "" {
				t.Errorf("%s: not in the list of gaps", f.name)
			}
		}
	}
	for name := range gaps {
		if !slices.Contains(found, name) {
			t.Errorf("%s: listed, but there is no such fixture", name)
		}
	}
}

// everything holds at least one of each construct that is compared.
const everything = `
static struct static_key key;
static const int table[] = { 4, 8, 15, 16, 23, 42, 7, 9, 11 };
static __percpu_data int a = 1, b = 2;
int global = 5;
const char *text = "text";
static noinline int helper(int x) { static int count; count += x; return work(count) + global; }
int f(int x, int *p)
{
	int v;

	WARN_ONCE(x == 4, "once");
	printk_ratelimited(5000, 10, "now and then");
	if (x == 3)
		WARN();
	if (static_branch(&key, 1))
		work(2);
	ALT12("call work", 5, "call other");
	READ_OR_ZERO(v, p, 3);
	return helper(x) + table[x & 7] + this_cpu_read(a) + v;
}
int g(int x)
{
	ALT14(".byte 0x90, 0x90", 5, 1, "ud2");
	pr_debug("g %d", x);
	printk("g %d %s\n", x, text);
	return helper(x + 1) + this_cpu_read(b);
}
`

// warnings have entries in the other form of bug table.
const warnings = `
int f(int x) { if (x == 3) WARN_FORMAT("bad", "unit.c", 10, 0x901); return work(x); }
int g(int x) { if (x == 3) WARN_FORMAT("odd", "unit.c", 20, 0x901); return work(x); }
`

// made are the objects that the properties below are tested on.
func made(t testing.TB) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for name, x := range map[string]struct{ source, flags string }{
		"sections":          {everything, ""},
		"shared sections":   {everything, "-fno-function-sections -fno-data-sections"},
		"wide bug table":    {warnings, ""},
		"debug information": {warnings, "-g"},
	} {
		out[name] = buildSource(t, "gcc", x.source, x.flags)
	}
	return out
}

// forgiven tells whether a byte may differ unseen: what a relocation replaces,
// file and line of a warning, what only keeps things apart, and what is made
// from code.
func forgiven(v *View, s *elfobj.Section, off uint64) bool {
	for _, r := range v.relocs[s] {
		if off >= r.Off && off < r.Off+uint64(v.Arch.Relocs[r.Type].Size) {
			return true
		}
	}
	switch s.Name {
	case "__mcount_loc", ".smp_locks":
		return true
	case "__bug_table":
		if n := s.Size / uint64(len(v.relocs[s])) * 2; n == 12 {
			return off%12 == 8 || off%12 == 9
		}
		return off%16 == 12 || off%16 == 13
	}
	switch v.kinds[s] {
	case Ignored, ModInfo, Exports:
		return true
	case Replacement:
		return false
	case Strings, Constants:
		return !slices.ContainsFunc(v.Pieces, func(p *Piece) bool {
			found := false
			v.EachRef(p, func(r *Ref) {
				found = found || r.To.Kind == Literal && r.To.Sec == s && within(s, r.To.Content, off)
			})
			return found
		}) || within(s, []byte("unit.c\x00"), off)
	}
	for _, p := range v.bySec[s] {
		if off >= p.Lo && off < p.Hi {
			return p.Sym == nil || p.Func && off < p.Lo+p.entryTrim()
		}
	}
	return true // between functions
}

// within tells whether a byte of a section is one of a literal's.
func within(s *elfobj.Section, content []byte, off uint64) bool {
	i := strings.Index(string(s.Data), string(content))
	return i >= 0 && off >= uint64(i) && off < uint64(i+len(content))
}

// TestEveryByteCounts changes each byte of an object, one at a time: none may
// pass as the same.
func TestEveryByteCounts(t *testing.T) {
	for name, data := range made(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			orig, patched := parse(t, data), parse(t, slices.Clone(data))
			v, err := NewView(orig)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for i, s := range orig.Sections {
				for off := range uint64(len(s.Data)) {
					if s.Flags&elf.SHF_ALLOC == 0 || forgiven(v, s, off) {
						continue
					}
					n++
					d := patched.Sections[i].Data
					d[off] ^= 0x10
					if r := compare(t, orig, patched); r.Verdict == Unchanged {
						t.Errorf("%s+%#x may change unseen", s.Name, off)
					}
					d[off] ^= 0x10
				}
			}
			if n < 40 {
				t.Errorf("only %d bytes were changed", n)
			}
		})
	}
}

// isBugFile tells whether a relocation of a bug table is that of the file's
// name: the second of two, or the third of three.
func isBugFile(s *elfobj.Section, i int) bool {
	if s.Relocs[0].Off == 0 && len(s.Relocs) > 2 && s.Relocs[2].Off == 8 {
		return i%3 == 2
	}
	return i%2 == 1
}

// TestEveryRelocationCounts changes each relocation's addend, type and symbol,
// one at a time: none may pass as the same.
func TestEveryRelocationCounts(t *testing.T) {
	forgiven := func(s *elfobj.Section, i int) bool {
		switch s.Target.Name {
		case "__mcount_loc", ".smp_locks":
			return true
		case "__bug_table":
			return isBugFile(s, i)
		}
		return s.Target.Flags&elf.SHF_ALLOC == 0
	}
	mutations := []struct {
		name   string
		mutate func(*elfobj.Reloc)
	}{
		{"addend", func(r *elfobj.Reloc) { r.Addend++ }},
		{"far addend", func(r *elfobj.Reloc) { r.Addend += 64 }},
		{"type", func(r *elfobj.Reloc) { r.Type = uint32(elf.R_X86_64_32) }},
		{"symbol", func(r *elfobj.Reloc) { r.Sym = &elfobj.Symbol{Name: "elsewhere", Bind: elf.STB_GLOBAL} }},
		{"no symbol", func(r *elfobj.Reloc) { r.Sym = nil }},
		{"place", func(r *elfobj.Reloc) { r.Off++ }},
	}
	for name, data := range made(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			orig, patched := parse(t, data), parse(t, slices.Clone(data))
			n := 0
			for _, s := range patched.Sections {
				for i := range s.Relocs {
					if forgiven(s, i) {
						continue
					}
					for _, m := range mutations {
						n++
						old := s.Relocs[i]
						m.mutate(&s.Relocs[i])
						if r := compare(t, orig, patched); r.Verdict == Unchanged {
							t.Errorf("%s of relocation %d at %s+%#x may change unseen", m.name, i, s.Target.Name, old.Off)
						}
						s.Relocs[i] = old
					}
				}
			}
			if n < 40 {
				t.Errorf("only %d relocations were changed", n)
			}
		})
	}
}

// TestMutatedObjects damages objects at random: a comparison may say anything
// of them, but it must come to an end.
func TestMutatedObjects(t *testing.T) {
	for name, data := range made(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			orig := parse(t, data)
			r := rand.New(rand.NewPCG(1, 2))
			read := 0
			for range 1500 {
				damaged := slices.Clone(data)
				for range 1 + r.IntN(4) {
					damaged[r.IntN(len(damaged))] = byte(r.Uint32())
				}
				p, err := elfobj.Parse(damaged)
				if err != nil || p.Type != elf.ET_REL {
					continue
				}
				read++
				compareBothWays(t, orig, p)
			}
			if read < 100 {
				t.Errorf("only %d damaged objects could be read", read)
			}
		})
	}
}

func compareBothWays(t testing.TB, a, b *elfobj.Object) {
	t.Helper()
	for _, pair := range [][2]*elfobj.Object{{a, b}, {b, a}, {b, b}} {
		r, err := Compare(pair[0], pair[1])
		if err == nil {
			render(r)
			r.JSON()
		}
	}
}

// FuzzCompare holds that no pair of readable objects makes Compare panic.
func FuzzCompare(f *testing.F) {
	all := made(f)
	for _, name := range []string{"sections", "shared sections", "wide bug table", "debug information"} {
		f.Add(all[name], all["sections"])
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		x, err := elfobj.Parse(a)
		if err != nil {
			return
		}
		y, err := elfobj.Parse(b)
		if err != nil {
			return
		}
		compareBothWays(t, x, y)
	})
}

// TestMergedColdParts: of two functions of one name in joined objects, the
// change of an unlikely part belongs to the one that it was split from.
func TestMergedColdParts(t *testing.T) {
	f := loadFixture(t, objs+"/merged-cold.txtar")
	orig, patched := f.compile(t, "gcc")
	r := compare(t, parse(t, orig), parse(t, patched))
	if len(r.Functions) != 1 {
		t.Fatalf("%d functions instead of 1", len(r.Functions))
	}
	var called []string
	for _, ref := range r.Functions[0].Patched.Refs {
		if ref.To.Kind == Undef {
			called = append(called, ref.To.Sym.Name)
		}
	}
	if d := cmp.Diff([]string{"__fentry__", "work"}, called); d != "" {
		t.Errorf("what the changed helper calls (-want +got):\n%s", d)
	}
}

func TestForeignMachine(t *testing.T) {
	x86, arm := &elfobj.Object{Machine: elf.EM_X86_64}, &elfobj.Object{Machine: elf.EM_AARCH64}
	for _, tt := range []struct {
		orig, patched *elfobj.Object
		want          string
	}{
		{x86, arm, "the objects are for different machines: EM_X86_64 and EM_AARCH64"},
		{arm, arm, "object is for EM_AARCH64; klpc supports x86-64\nobject is for EM_AARCH64; klpc supports x86-64"},
	} {
		_, err := Compare(tt.orig, tt.patched)
		if d := cmp.Diff(tt.want, fmt.Sprint(err)); d != "" {
			t.Errorf("-want +got:\n%s", d)
		}
	}
}
