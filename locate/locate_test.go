package locate_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/internal/testutil/objcache"
	"github.com/klpc/klpc/locate"
	"github.com/klpc/klpc/target"
)

// flags shape objects as a kernel build does.
var flags = strings.Fields("-O2 -std=gnu11 -mcmodel=kernel -fno-pic -fno-pie -pg -mfentry -fno-asynchronous-unwind-tables" +
	" -fno-stack-protector -fcf-protection=none -mno-sse -mno-red-zone -falign-functions=16 -fno-strict-aliasing -fno-toplevel-reorder")

// source is a file of the kernel. Beside code it has a jump table, a table of
// places in strings, a cold part, an out-of-line part as static_cpu_has makes it,
// and two variables.
const source = `
int work(int), other(int);
void say(const char *);
__attribute__((cold)) void fail(int);
extern const int odd[4];
static int counter = 3, second = 4;
extern unsigned char features;
static inline __attribute__((always_inline)) int has(void)
{
	asm goto("jmp 6f\n"
		".pushsection .altinstr_aux,\"ax\"\n"
		"6: testb $1, features(%%rip)\n jnz %l[yes]\n jmp %l[no]\n"
		".popsection" : : : : yes, no);
yes:	return 1;
no:	return 0;
}
static __attribute__((noinline)) int helper(int x) { return work(x) + counter++; }
int f(int x)
{
	switch (x) {
	case 0: return work(11);
	case 1: return other(12);
	case 2: return work(13) + 1;
	case 3: return other(14) + 2;
	case 4: return work(15) + 3;
	case 5: return other(16) + 4;
	}
	if (__builtin_expect(x > 100, 0)) { fail(x); return odd[2]; }
	say("hello");
	if (has())
		return second;
	return helper(x) + second++ + (x > 20 ? 7 : work(2));
}
int g(int x) { return helper(x); }
`

// rest is the rest of that kernel.
const rest = `
int work(int x) { return x; }
int other(int x) { return x + 1; }
void say(const char *s) { (void)*(volatile char *)s; }
__attribute__((cold)) void fail(int x) { (void)x; }
const int odd[4] = { 1, 3, 5, 7 };
unsigned char features = 1;
void __attribute__((no_instrument_function)) __fentry__(void) { }
`

func run(t *testing.T, dir, name string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("needs %s, which is not installed", name)
	}
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func compile(t *testing.T, dir, name, text string, more ...string) []byte {
	t.Helper()
	step := append(append(append([]string{"gcc"}, flags...), more...), "-c", "-o", name+".o", name+".c")
	data := objcache.Make(t, objcache.Job{Files: map[string]string{name + ".c": text}, Steps: [][]string{step}, Out: name + ".o"})
	if err := os.WriteFile(filepath.Join(dir, name+".o"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	return data
}

// kernel links a kernel of the source and the rest.
func kernel(t *testing.T) (*target.Image, *target.Symtab) {
	t.Helper()
	dir := t.TempDir()
	compile(t, dir, "source", source)
	compile(t, dir, "rest", rest)
	compile(t, dir, "start", `asm(".text\n.globl _text\n_text:\n\tnop");`)
	run(t, dir, "ld", "-Ttext=0xffffffff81000000", "-z", "max-page-size=4096", "-e", "f", "-o", "vmlinux", "start.o", "source.o", "rest.o")
	data, err := os.ReadFile(filepath.Join(dir, "vmlinux"))
	if err != nil {
		t.Fatal(err)
	}
	im, err := target.ReadImage(data)
	if err != nil {
		t.Fatal(err)
	}
	table, err := target.ReadSystemMap(strings.NewReader(string(run(t, dir, "nm", "-n", "vmlinux"))))
	if err != nil {
		t.Fatal(err)
	}
	return im, table
}

func view(t *testing.T, text string) *elfdiff.View {
	t.Helper()
	o, err := elfobj.Parse(compile(t, t.TempDir(), "unit", text, "-ffunction-sections", "-fdata-sections"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := elfdiff.NewView(o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// cases are sources that differ from the kernel's in one thing each. The
// function f must be found to be another one, except in the first.
var cases = []struct{ name, old, new, want string }{
	{"the very source, with other sections", "int f", "int f", ""},
	{"an immediate", "work(13) + 1", "work(13) + 9", "another instruction"},
	{"a condition", "x > 20 ?", "x >= 20 ?", "another instruction"},
	{"a call", "case 1: return other(12)", "case 1: return work(12)", "to another place"},
	{"a string", `"hello"`, `"hallo"`, `another constant than "hello"`},
	{"the order in a jump table", "case 0: return work(11);\n\tcase 1: return other(12);", "case 1: return other(12);\n\tcase 0: return work(11);", ""},
	{"a jump table's entries", "case 4: return work(15) + 3;", "case 6: return work(15) + 3; case 4: return odd[0];", "f differs from the rebuilt code"},
	{"a variable", "second++", "counter++", "to another place"},
	{"a place in a variable of another file", "odd[2]", "odd[3]", "to another place"},
	{"the out-of-line part", "testb $1", "testb $2", "differs from the rebuilt code"},
	{"where the out-of-line part leads", "jnz %l[yes]\\n jmp %l[no]", "jnz %l[no]\\n jmp %l[yes]", "differs from the rebuilt code"},
	{"the cold part", "fail(x); return", "fail(x + 1); return", "f.cold differs from the rebuilt code"},
}

func TestVerifyKernel(t *testing.T) {
	im, table := kernel(t)
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			v := view(t, strings.Replace(source, tt.old, tt.new, 1))
			err := locate.NewKernel(v, table, im).Verify(v.Named("f"))
			checkError(t, err, strings.ReplaceAll(tt.want, "hello", "hallo"))
		})
	}
}

// TestVerifyModule does the same with a module: the objects, joined without
// addresses.
func TestVerifyModule(t *testing.T) {
	dir := t.TempDir()
	compile(t, dir, "source", source)
	compile(t, dir, "info", `static const char i[] __attribute__((section(".modinfo"), used, aligned(1))) = "name=m";`)
	run(t, dir, "ld", "-r", "-o", "m.ko", "source.o", "info.o")
	data, err := os.ReadFile(filepath.Join(dir, "m.ko"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := target.ReadModule(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			v := view(t, strings.Replace(source, tt.old, tt.new, 1))
			l, err := locate.NewModule(v, m)
			if err != nil {
				t.Fatal(err)
			}
			want := tt.want
			if strings.Contains(want, "place") {
				want = "where the rebuilt code refers to"
			}
			checkError(t, l.Verify(v.Named("f")), strings.ReplaceAll(want, "hello", "hallo"))
		})
	}
}

// Variables without a size lie where the next variable does; what refers to one
// of them by way of the section may mean either, and nothing else.
func TestVerifyModuleEmptyVariables(t *testing.T) {
	const source = `
struct empty {};
void use(void *, void *);
static struct empty key1; static long table1[4];
static struct empty key2; static long table2[4];
static const struct { long a, b; } pairs[3] = { { 1, 2 }, { 3, 4 }, { 5, 6 } }; static const char after[] = "after";
static char flag; static struct empty key3; static long table3[4];
int f(void) { use(&key1, table1); use(&key2, table2); return 0; }
int g(void) { use(&key3, table3); return flag++; }
int h(void) { use((void *)pairs, (void *)(pairs + 3)); return after[flag]; }
`
	dir := t.TempDir()
	compile(t, dir, "source", source)
	compile(t, dir, "info", `static const char i[] __attribute__((section(".modinfo"), used, aligned(1))) = "name=m";`)
	run(t, dir, "ld", "-r", "-o", "m.ko", "source.o", "info.o")
	data, err := os.ReadFile(filepath.Join(dir, "m.ko"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := target.ReadModule(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, old, new, want string }{
		{"the very source", "int f", "int f", ""},
		{"in front of a gap", "&key3, table3", "&key3, table3", ""},
		{"the other key in front of a gap", "&key3, table3", "&key1, table3", "where the rebuilt code refers to key1"},
		{"in the gap", "&key3, table3", "(char *)&key3 + 1, table3", "where the rebuilt code refers to key3"},
		{"the end of a table", "pairs + 3", "pairs + 3", ""},
		{"not the end of a table", "pairs + 3", "pairs + 2", "where the rebuilt code refers to pairs+32"},
		{"behind the end of a table", "pairs + 3", "(char *)(pairs + 3) + 1", "where the rebuilt code refers to pairs+49"},
		{"the other key", "&key1, table1", "&key2, table1", "where the rebuilt code refers to key2"},
		{"the other table", "&key2, table2", "&key2, table1", "where the rebuilt code refers to table1"},
		{"behind the table", "&key2, table2", "&key2, table2 + 1", "where the rebuilt code refers to table2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := view(t, strings.Replace(source, tt.old, tt.new, 1))
			l, err := locate.NewModule(v, m)
			if err != nil {
				t.Fatal(err)
			}
			function := "f"
			if strings.Contains(tt.old, "key3") {
				function = "g"
			}
			if strings.Contains(tt.old, "pairs") {
				function = "h"
			}
			checkError(t, l.Verify(v.Named(function)), tt.want)
		})
	}
}

func checkError(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("not equal: %v", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("error %v lacks %q", err, want)
	}
}
