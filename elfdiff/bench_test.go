package elfdiff

import (
	"debug/elf"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klpc/klpc/elfobj"
)

// typical is a function with what kernel code has: calls, strings, data, a
// static branch, a warning; about 1 kB of object file with its tables.
const typical = `
extern struct static_key key;
static const int table[] = { 1, 3, 5, 7, 11 };
static noinline int helper(int x)
{
	static int count;

	count += work(x) + table[x & 3];
	if (static_branch(&key, 0))
		printk("count %d\n", count);
	return count;
}
int state = 7;
int f(int x)
{
	if (x == 12)
		WARN_AT("unit.c", 9, 0x901);
	for (int i = 0; i < x; i++)
		state += other(i) * 3 + work(helper(i));
	return state;
}
`

// copies repeats an object's sections and symbols n times, as a file with n
// times as many functions would have them. Undefined symbols are shared.
func copies(o *elfobj.Object, n int) *elfobj.Object {
	out := &elfobj.Object{Type: o.Type, Machine: o.Machine, OSABI: o.OSABI, Flags: o.Flags}
	shared := map[*elfobj.Symbol]*elfobj.Symbol{}
	for i := range n {
		secs, syms := map[*elfobj.Section]*elfobj.Section{}, map[*elfobj.Symbol]*elfobj.Symbol{}
		for _, s := range o.Sections {
			if s.Size == 0 && (s.Type == elf.SHT_PROGBITS || s.Type == elf.SHT_NOBITS) {
				continue // .text, .data and .bss, which every file has once
			}
			c := *s
			secs[s] = &c
			out.Sections = append(out.Sections, &c)
		}
		for _, s := range o.Symbols {
			if s.Section == nil && shared[s] != nil {
				syms[s] = shared[s]
				continue
			}
			c := *s
			if s.Section != nil && secs[s.Section] == nil {
				continue
			}
			if s.Section != nil {
				c.Section = secs[s.Section]
				c.Name = rename(s.Name, i)
			}
			syms[s], shared[s] = &c, &c
			out.Symbols = append(out.Symbols, &c)
		}
		for _, s := range o.Sections {
			c := secs[s]
			if c == nil {
				continue
			}
			c.Target, c.Link, c.Relocs = secs[s.Target], secs[s.Link], nil
			for _, r := range s.Relocs {
				r.Sym = syms[r.Sym]
				c.Relocs = append(c.Relocs, r)
			}
		}
	}
	return out
}

// rename numbers a name in front of what the compiler put behind it.
func rename(name string, i int) string {
	if name == "" {
		return ""
	}
	base, rest, _ := strings.Cut(name, ".")
	if rest != "" {
		rest = "." + rest
	}
	return fmt.Sprint(base, "_", i, rest)
}

func encode(t testing.TB, o *elfobj.Object) []byte {
	t.Helper()
	data, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// BenchmarkCompare measures klpc diff by object size: reading both files and
// comparing them. The goal is 50 ms for an object of 1 MB, and linear growth.
func BenchmarkCompare(b *testing.B) {
	o := parse(b, buildSource(b, "gcc", typical, ""))
	p := parse(b, buildSource(b, "gcc", strings.ReplaceAll(typical, "* 3", "* 5"), ""))
	for _, n := range []int{125, 250, 500, 1000, 2000} {
		orig, patched := encode(b, copies(o, n)), encode(b, copies(p, n))
		b.Run(fmt.Sprintf("%.1fMB", float64(len(orig))/1e6), func(b *testing.B) {
			b.SetBytes(int64(len(orig)))
			for b.Loop() {
				if r := compare(b, parse(b, orig), parse(b, patched)); len(r.Functions) != n {
					b.Fatalf("%d functions instead of %d", len(r.Functions), n)
				}
			}
		})
	}
}

// TestLinear holds that the processor time grows with the object, also where
// everything has changed and nothing can be patched. Sixteen times the size may
// take 60 times as long, for larger objects leave the caches and other things
// run on the machine; what is quadratic takes 256 times.
func TestLinear(t *testing.T) {
	notrace := strings.ReplaceAll(strings.ReplaceAll(typical, "int f(", "notrace int f("), "int helper", "notrace int helper")
	for _, tt := range []struct{ name, orig, patched string }{
		{"nothing changed", typical, typical},
		{"all functions changed", typical, strings.ReplaceAll(typical, "* 3", "* 5")},
		{"all changed, none with an ftrace entry", notrace, strings.ReplaceAll(strings.ReplaceAll(notrace, "* 3", "* 5"), "& 3", "& 1")},
		{"all constants changed", typical, strings.ReplaceAll(typical, "{ 1, 3", "{ 2, 3")},
		{"all variables changed", typical, strings.ReplaceAll(typical, "state = 7", "state = 8")},
		{"all functions new", typical, strings.ReplaceAll(typical, "int f(", "int g(")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			orig, patched := parse(t, buildSource(t, "gcc", tt.orig, "")), parse(t, buildSource(t, "gcc", tt.patched, ""))
			small, large := []*elfobj.Object{copies(orig, 100), copies(patched, 100)}, []*elfobj.Object{copies(orig, 1600), copies(patched, 1600)}
			bestSmall, bestLarge := time.Hour, time.Hour
			for range 10 {
				bestSmall = min(bestSmall, cpuTime(t, small, 8))
				bestLarge = min(bestLarge, cpuTime(t, large, 1))
				if bestLarge <= 40*bestSmall {
					break
				}
			}
			t.Logf("100 copies take %v, 1600 take %v", bestSmall, bestLarge)
			if bestLarge > 60*bestSmall {
				t.Errorf("100 copies take %v, 1600 take %v: that is not linear", bestSmall, bestLarge)
			}
		})
	}
}

// cpuTime is the processor time of one comparison, on average over n.
func cpuTime(t *testing.T, pair []*elfobj.Object, n int) time.Duration {
	t.Helper()
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	start := used()
	for range n {
		compare(t, pair[0], pair[1])
	}
	return (used() - start) / time.Duration(n)
}

// TestHugeBSS: a section without bytes in the file may claim any size.
func TestHugeBSS(t *testing.T) {
	object := func(size uint64) *elfobj.Object {
		o := parse(t, buildSource(t, "gcc", "int buffer[4];", ""))
		o.Section(".bss.buffer").Size = size
		for _, s := range o.Symbols {
			if s.Name == "buffer" {
				s.Size = size
			}
		}
		return o
	}
	const huge = 1 << 62
	if r := compare(t, object(huge), object(huge)); r.Verdict != Unchanged {
		t.Errorf("same size: %s", r.Verdict)
	}
	if r := compare(t, object(huge), object(16)); r.Verdict != Unpatchable {
		t.Errorf("other size: %s", r.Verdict)
	}
}
