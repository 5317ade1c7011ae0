package codegen_test

import (
	"bytes"
	"debug/elf"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/klpc/klpc/codegen"
	"github.com/klpc/klpc/elfdiff"
)

var update = flag.Bool("update", false, "rewrite what the fixtures of testdata/objs extract")

// TestExtract cuts out of the fixtures of testdata/objs that have a file
// "extract" what must travel, and compares what the object holds.
func TestExtract(t *testing.T) {
	paths, err := filepath.Glob("../testdata/objs/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, path := range paths {
		a, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		file := func(name string) (string, bool) {
			i := slices.IndexFunc(a.Files, func(f txtar.File) bool { return f.Name == name })
			if i < 0 {
				return "", false
			}
			return string(a.Files[i].Data), true
		}
		want, ok := file("extract")
		if !ok {
			continue
		}
		n++
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			t.Parallel()
			orig, _ := file("orig.c")
			patched, _ := file("patched.c")
			flags, _ := file("flags")
			got := contents(parse(t, extract(t, orig, patched, strings.Fields(flags)...)))
			if *update {
				i := slices.IndexFunc(a.Files, func(f txtar.File) bool { return f.Name == "extract" })
				a.Files[i].Data = []byte(got)
				if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s\n(-want +got):\n%s", bytes.TrimSpace(a.Comment), d)
			}
		})
	}
	if n < 10 {
		t.Errorf("only %d fixtures have a file named extract", n)
	}
}

// extract compares, cuts out, and makes sure that the result is an object that
// ld joins with the rest of the unit, and that it is the same every time.
func extract(t testing.TB, orig, patched string, flags ...string) []byte {
	t.Helper()
	before, after := compile(t, orig, flags...), compile(t, patched, flags...)
	cut := func() []byte {
		r, err := elfdiff.Compare(parse(t, before), parse(t, after))
		if err != nil {
			t.Fatal(err)
		}
		data, err := codegen.Extract(r)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	data := cut()
	if !bytes.Equal(data, cut()) {
		t.Error("the second time it is another object")
	}
	relink(t, data, before)
	return data
}

// TestExtractRuns links what was cut out with the original object into a
// program and runs both: patched code must do the patched thing, on the data of
// the original.
func TestExtractRuns(t *testing.T) {
	for _, flags := range []string{
		"-fjump-tables",
		"-fjump-tables -fno-function-sections -fno-data-sections",
		"-fjump-tables -O3",
		"-Os",
	} {
		t.Run(flags, func(t *testing.T) {
			t.Parallel()
			runExtract(t, strings.Fields(flags))
		})
	}
}

const running = `
static int state = 100;
static const int table[] = { 1, 2, 4, 8 };
static int step(int x) { return x + 1; }
static noinline int helper(int x) { state += x; return state; }
struct ops { int (*get)(int); } ops = { step };
int f(int x)
{
	static int calls = 10;

	calls++;
	printk("f %d\n", calls);
	return helper(x) + table[x & 3] + ops.get(x);
}
int sw(unsigned int x)
{
	switch (x) {
	case 0: case 5: return work(1);
	case 1: case 6: return other(2);
	case 2: case 7: return work(3) + 5;
	case 3: case 8: return other(4) * 3;
	case 4: case 9: return work(5) - 8;
	}
	return 0;
}
int go(const unsigned char *p, int x)
{
	static const void *const to[] = { &&stop, &&inc, &&dec };

	goto *to[*p++];
inc:	x += 1; goto *to[*p++];
dec:	x -= 7; goto *to[*p++];
stop:	return work(x);
}
int last(int x)
{
	const char *s = "abcdefgh", *e = s + 8;
	int n = 0;

	barrier_data(s);
	for (; s != e; s++)
		n += *s;
	return n + x;
}
static __section(".sched.text") noinline int tail_end(int x) { return work(x) + 3; }
__section(".sched.text") int tail(int x) { return tail_end(x * 2 + 1); }
int early(int x) { return work(x) - 1; }
`

const runner = `
#include <stdarg.h>
#include <stdio.h>
typedef int fn(int);
fn f, sw, last, tail, new_f, new_sw, new_last, new_tail;
int go(const unsigned char *, int), new_go(const unsigned char *, int);
static const void *used[2];
static int n;
void use(const void *p) { used[n++ & 1] = p; }
int work(int x) { return x * 2; }
int other(int x) { return x * 3; }
int printk(const char *fmt, ...) { va_list l; va_start(l, fmt); vprintf(fmt, l); va_end(l); return 0; }
__asm__(".globl __fentry__\n__fentry__: ret\n");
int main(void)
{
	printf("%d\n", f(1));
	printf("%d\n", new_f(1));
	printf("%d\n", f(1));
	printf("%d %d\n", used[0] == (void *)f, used[1] != (void *)f);
	for (int i = 0; i < 10; i++)
		printf("%d %d\n", sw(i), new_sw(i));
	printf("%d %d\n", go((const unsigned char *)"\1\2\1\0", 50), new_go((const unsigned char *)"\1\2\1\0", 50));
	printf("%d %d\n", last(1), new_last(1));
	printf("%d %d\n", tail(3), new_tail(3));
	printf("%d\n", new_f(2));
	printf("%d\n", new_f(2));
	return 0;
}
`

func runExtract(t *testing.T, flags []string) {
	t.Helper()
	patched := replaced(t, running,
		"{ 1, 2, 4, 8 }", "{ 1000, 2000, 4000, 8000 }",
		"f %d", "patched f %d",
		"int f(int x)\n", `int fresh = 7;
static int seen;
static char flag;
static noinline int added(int x)
{
	if (seen == 0x12345)
		flag = 1;
	if (flag == 5)
		return 0;
	seen += 0x12345;
	return fresh++ * x + seen;
}
int f(int x)
`,
		"return helper(x) +", "use(f); use(added); return helper(x) + added(2) +",
		"return x + 1", "return x + 10000",
		"other(4) * 3", "other(4) * 5",
		"x -= 7", "x -= 9",
		"n + x", "n - x",
		"x * 2 + 1", "x * 2 + 5")
	o := parse(t, extract(t, running, patched, flags...))
	for _, s := range slices.Clone(o.Symbols) {
		if s.Section != nil && s.Type == elf.STT_FUNC && s.Bind == elf.STB_LOCAL && !strings.Contains(s.Name, ".") {
			c := *s
			c.Name, c.Bind = "new_"+s.Name, elf.STB_GLOBAL
			o.Symbols = append(o.Symbols, &c)
		}
	}
	dir := t.TempDir()
	write(t, dir, "patch.o", encode(t, o))
	write(t, dir, "orig.o", compile(t, running, flags...))
	write(t, dir, "main.c", []byte(runner))
	var global []string
	for _, s := range parse(t, read(t, dir, "orig.o")).Symbols {
		if s.Section != nil && s.Bind == elf.STB_LOCAL && s.Type != elf.STT_SECTION && s.Name != "" && !strings.HasPrefix(s.Name, ".L") {
			global = append(global, "--globalize-symbol="+s.Name)
		}
	}
	command(t, dir, "objcopy", append(global, "orig.o")...)
	command(t, dir, "gcc", "-static", "-no-pie", "-z", "noexecstack", "-o", "program", "main.c", "orig.o", "patch.o")
	got := command(t, dir, filepath.Join(dir, "program"))
	// f adds to state (100, 101, ...); the table gives 2 and, patched, 2000
	// for 1; ops.get still is the original step, for a table of operations
	// keeps pointing to it; added gives 14+74565, 16+149130 and so on.
	want := `f 11
105
patched f 12
76683
f 13
107
1 1
2 2
6 6
11 11
36 60
2 2
2 2
6 6
11 11
36 60
2 2
90 86
805 803
17 25
patched f 14
153254
patched f 15
227823
`
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestExtractRefuses(t *testing.T) {
	t.Parallel()
	const orig = "extern int table[];\nint table[2] __initdata = { 1, 2 };\nint f(int x) { return work(x); }"
	_, err := codegen.Extract(difference(t, orig, replaced(t, orig, "return work(x)", "return table[x & 1]")))
	want := "refers to table, which lies in .init.data and is gone once the kernel has booted or the module has loaded"
	if err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got %v, want an error that ends in %q", err, want)
	}
}
