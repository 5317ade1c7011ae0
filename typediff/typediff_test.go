package typediff_test

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/internal/testutil/objcache"
	"github.com/klpc/klpc/typediff"
)

// frameText stands around the types of each case: what makes a compiler keep
// them, and types that do not change.
const frameText = `
typedef unsigned char u8; typedef unsigned int u32; typedef unsigned long u64;
typedef struct { int counter; } atomic_t;
struct refs { atomic_t refs; };
struct list_head { struct list_head *next, *prev; };
struct device;
`

// compilers are the ones that are here; for bit-fields, which each version of
// DWARF describes in another way, with the versions that they can write.
func compilers(t *testing.T, bitFields bool) map[string][]string {
	out := map[string][]string{}
	for _, cc := range []string{"gcc", "clang"} {
		if _, err := exec.LookPath(cc); err != nil {
			continue
		}
		out[cc] = []string{cc, "-g"}
		if bitFields {
			out[cc+", DWARF 3"] = []string{cc, "-gdwarf-3"}
			out[cc+", DWARF 4"] = []string{cc, "-gdwarf-4"}
		}
	}
	if len(out) == 0 {
		t.Fatal("neither gcc nor clang is installed")
	}
	return out
}

func read(t *testing.T, cc []string, name, text string) *typediff.Unit {
	t.Helper()
	step := append(cc[:len(cc):len(cc)], "-O2", "-c", "-ffunction-sections", "-fno-short-enums", "-o", name+".o", name)
	o, err := elfobj.Parse(objcache.Make(t, objcache.Job{Files: map[string]string{name: text}, Steps: [][]string{step}, Out: name + ".o"}))
	if err != nil {
		t.Fatal(err)
	}
	u, err := typediff.Read(o)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// describe gives one line a change, in few words.
func describe(changes []typediff.TypeChange) []string {
	out := []string{}
	for _, t := range changes {
		for _, c := range t.Changes {
			s := fmt.Sprintf("%s: %s %s", t.Name, c.Kind, c.Field)
			switch c.Kind {
			case typediff.Added:
				s += fmt.Sprintf(" @%d+%d", c.New.Off, c.New.Bits)
				if c.Fits {
					s += fmt.Sprintf(" fits between %q and %q", c.After, c.Before)
				}
				if c.Shares != "" {
					s += " shares " + c.Shares
				}
			case typediff.Moved:
				s += fmt.Sprintf(" %d>%d", c.Old.Off, c.New.Off)
			case typediff.FieldSize, typediff.Size:
				s += fmt.Sprintf(" %d>%d", c.Old.Bits, c.New.Bits)
			case typediff.Retyped, typediff.SameBits, typediff.Prototype, typediff.Renamed:
				s += fmt.Sprintf(" %s>%s", c.From, c.To)
			case typediff.ValueChange, typediff.CountChange:
				s += fmt.Sprintf(" %d>%d", c.OldValue, c.NewValue)
			}
			out = append(out, s)
		}
	}
	return out
}

func TestCompare(t *testing.T) {
	const get = "long get(struct s *p) { return (long)p->x; }\n"
	for _, c := range []struct {
		name          string
		orig, patched string // %s of both is the rest
		rest          string
		want          []string
	}{
		// What must be reported.
		{"added at the end", "struct s { int x; };", "struct s { int x; int y; };", get, []string{"struct s: field-added y @32+32"}},
		{"added in the middle", "struct s { int x; int z; };", "struct s { int x; int y; int z; };", get,
			[]string{"struct s: field-moved z 32>64", "struct s: field-added y @32+32"}},
		{"added in padding", "struct s { int x; long z; };", "struct s { int x; int y; long z; };", get,
			[]string{`struct s: field-added y @32+32 fits between "x" and "z"`}},
		{"added in padding at the end", "struct s { long z; int x; };", "struct s { long z; int x; u8 y; };", get,
			[]string{`struct s: field-added y @96+8 fits between "x" and ""`}},
		{"padding does not suffice", "struct s { int x; u8 a; int z; };", "struct s { int x; u8 a; u32 y; int z; };", get,
			[]string{"struct s: field-moved z 64>96", "struct s: field-added y @64+32"}},
		{"bit-field added in its unit", "struct s { int x; u32 a:1, b:2; };", "struct s { int x; u32 a:1, b:2, c:1; };", get,
			[]string{`struct s: field-added c @35+1 fits between "b" and ""`}},
		{"bit-field moved and widened", "struct s { int x; u32 a:1, b:2; };", "struct s { int x; u32 a:2, b:2; };", get,
			[]string{"struct s: field-resized a 1>2", "struct s: field-moved b 33>34"}},
		{"removed", "struct s { int x; int y; };", "struct s { int x; };", get, []string{"struct s: field-removed y"}},
		{"moved", "struct s { int a; int x; };", "struct s { int x; int a; };", get,
			[]string{"struct s: field-moved x 32>0", "struct s: field-moved a 0>32"}},
		{"array resized", "struct s { int x; char n[8]; };", "struct s { int x; char n[16]; };", get, []string{"struct s: field-resized n 64>128"}},
		{"array of one becomes flexible", "struct s { int x; int d[1]; };", "struct s { int x; int d[]; };", get, []string{"struct s: field-resized d 32>0"}},
		{"dimensions", "struct s { int x; char n[4][8]; };", "struct s { int x; char n[8][4]; };", get,
			[]string{"struct s: field-retyped n char [4][8]>char [8][4]"}},
		{"signed", "struct s { int x; };", "struct s { u32 x; };", get, []string{"struct s: field-retyped x int>u32"}},
		{"another pointer", "struct s { int x; struct device *d; };", "struct s { int x; struct list_head *d; };", get,
			[]string{"struct s: field-retyped d struct device *>struct list_head *"}},
		{"alignment alone", "struct s { int x; };", "struct s { int x; } __attribute__((aligned(16)));", get, []string{"struct s: resized  32>128"}},
		{"packed", "struct s { u8 a; int x; };", "struct s { u8 a; int x; } __attribute__((packed));", get, []string{"struct s: field-moved x 32>8"}},
		{"callback", "struct s { int x; int (*op)(struct device *); };", "struct s { int x; int (*op)(struct device *, int); };", get,
			[]string{"struct s: callback-prototype-changed op int (*)(struct device *)>int (*)(struct device *, int)"}},
		{"callback's result", "struct s { int x; int (*op)(void); };", "struct s { int x; void (*op)(void); };", get,
			[]string{"struct s: callback-prototype-changed op int (*)(void)>void (*)(void)"}},
		{"embedded: the root is named", "struct in { int a; };\nstruct s { struct in i; long x; };", "struct in { int a; long b; };\nstruct s { struct in i; long x; };", get,
			[]string{"struct in: field-added b @64+64"}},
		{"embedded in an array", "struct in { int a; };\nstruct s { struct in i[3]; long x; };", "struct in { int a, b; };\nstruct s { struct in i[3]; long x; };", get,
			[]string{"struct in: field-added b @32+32"}},
		{"embedded, and one of its own", "struct in { int a; };\nstruct s { struct in i; long x; };", "struct in { int a; long b; };\nstruct s { struct in i; long x; int y; };", get,
			[]string{"struct in: field-added b @64+64", "struct s: field-resized i 32>128", "struct s: field-moved x 64>128", "struct s: field-added y @192+32"}},
		{"anonymous union", "struct s { union { int x; int y; }; int z; };", "struct s { union { int x; long y; }; int z; };", get,
			[]string{"struct s: field-resized y 32>64", "struct s: field-moved z 32>64"}},
		{"into an anonymous union", "struct s { union { long x; int y; }; };", "struct s { union { long x; int y; int w; }; };", get,
			[]string{"struct s: field-added w @0+32 shares x"}},
		{"unnamed struct", "struct s { struct { int a; } in; long x; };", "struct s { struct { int a, b; } in; long x; };", get,
			[]string{"struct s: field-resized in 32>64", `struct s: field-added in.b @32+32 fits between "in.a" and "x"`}},
		{"padding of an unnamed struct", "struct s { struct { int a; long b; } in; long x; };", "struct s { struct { int a, c; long b; } in; long x; };", get,
			[]string{`struct s: field-added in.c @32+32 fits between "in.a" and "in.b"`}},
		{"union", "union s { int x; };", "union s { int x; long y; };", "long get(union s *p) { return p->x; }\n", []string{"union s: field-added y @0+64 shares x"}},
		{"typedef of an unnamed struct", "typedef struct { int x; } s_t;", "typedef struct { int x, y; } s_t;", "int get(s_t *p) { return p->x; }\n",
			[]string{"s_t: field-added y @32+32"}},
		{"local to a function", "", "", "int get(int i) { struct l { int a; %s }; static volatile struct l v; return v.a += i; }\n",
			[]string{"struct l: field-added b @32+32"}},
		{"enum value", "enum e { A, B, C };", "enum e { A, X, B, C };", "int get(enum e *p) { return *p == C ? B : A; }\n",
			[]string{"enum e: enum-value-changed B 1>2", "enum e: enum-value-changed C 2>3", "enum e: enum-value-added X"}},
		{"unnamed enum", "enum { FA = 1, FB = 2 };", "enum { FA = 1, FB = 4 };", "int get(int *p) { return *p & FB ? FA : 0; }\n",
			[]string{"enum {FA, ...}: enum-value-changed FB 2>4"}},

		// What leaves existing objects as they are.
		{"renamed field", "struct s { int x; int y; };", "struct s { int x; int w; };", get, []string{"struct s: field-renamed w y>w"}},
		{"wrapped counter", "struct s { int x; int n; };", "struct s { int x; atomic_t n; };", get, []string{"struct s: field-retyped-same-bits n int>atomic_t"}},
		{"other counter", "struct s { int x; atomic_t n; };", "struct s { int x; struct refs n; };", get, []string{"struct s: field-retyped-same-bits n atomic_t>struct refs"}},
		{"enum value at the end", "enum e { A, B };", "enum e { A, B, C };", "int get(enum e *p) { return *p == B; }\n", []string{"enum e: enum-value-added C"}},
		{"enum that counts", "enum e { A, B, E_MAX };", "enum e { A, B, C, E_MAX };", "int get(enum e *p) { return *p == B; }\n",
			[]string{"enum e: enum-count-changed E_MAX 2>3", "enum e: enum-value-added C"}},
		{"a last value that is none that counts", "enum e { A, B, DONE };", "enum e { A, B, C, DONE };", "int get(enum e *p) { return *p == B; }\n",
			[]string{"enum e: enum-value-changed DONE 2>3", "enum e: enum-value-added C"}},

		// What must not be reported.
		{"comments and space", "struct s { int x; };", "struct  s {\n /* the x */ int x;\n};", get, nil},
		{"typedef renamed", "typedef int t1;\nstruct s { t1 x; };", "typedef int t2;\nstruct s { t2 x; };", get, nil},
		{"typedef of a struct renamed", "typedef struct { int a; } t1;\nstruct s { t1 i; int x; };", "typedef struct { int a; } t2;\nstruct s { t2 i; int x; };", get, nil},
		{"tag renamed", "struct a { int a; };\nstruct s { struct a i; struct a *p; int x; };", "struct b { int a; };\nstruct s { struct b i; struct b *p; int x; };", get, nil},
		{"qualifier", "struct s { char *c; int x; };", "struct s { const char *c; int x; };", get, nil},
		{"declarations reordered", "struct a { int a; };\nstruct b { int b; };\nstruct s { struct a a; struct b b; int x; };",
			"struct b { int b; };\nstruct a { int a; };\nstruct s { struct a a; struct b b; int x; };", get, nil},
		{"new struct", "struct s { int x; };", "struct n { int n; };\nstruct s { int x; };\nint use(struct n *n) { return n->n; }", get, nil},
		{"pointer to a changed struct", "struct in { int a; };\nstruct s { struct in *i; int x; };", "struct in { int a; };\nstruct s { struct in *i; int x; };\n", get, nil},
		{"empty array", "struct s { int x; int d[0]; };", "struct s { int x; int d[]; };", get, nil},
		{"void pointer gets a type", "struct s { int x; void *p; };", "struct s { int x; struct device *p; };", get, nil},
		{"int becomes an enum", "enum e { A };\nstruct s { int x; u32 e; };", "enum e { A };\nstruct s { int x; enum e e; };", get, nil},
		{"declaration only", "struct s;", "struct s;", "void *get(struct s *p) { return p; }\n", nil},
		{"self reference", "struct s { struct s *n; int x; };", "struct s { struct s *n;\n int x; };", get, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, cc := range compilers(t, strings.HasPrefix(c.name, "bit-field")) {
				rest, now := c.rest, c.rest
				if strings.Contains(rest, "%s") {
					rest, now = fmt.Sprintf(c.rest, ""), fmt.Sprintf(c.rest, "int b;")
				}
				a := read(t, cc, "a.c", frameText+c.orig+"\n"+rest)
				b := read(t, cc, "a.c", frameText+c.patched+"\n"+now)
				want := c.want
				if want == nil {
					want = []string{}
				}
				if d := cmp.Diff(want, describe(typediff.Compare(a, b))); d != "" {
					t.Errorf("%s (-want +got):\n%s", name, d)
				}
				if got := typediff.Compare(b, b); len(got) > 0 {
					t.Errorf("%s: a unit differs from itself: %v", name, describe(got))
				}
			}
		})
	}
}

func TestUsers(t *testing.T) {
	const types = `struct in { int a; %s };
struct mid { struct in i; };
struct out { int o; struct mid m[2]; };
struct far { struct in *p; };
`
	const rest = `
struct out global;
static struct far far;
static inline int inlined(struct in *p) { return p->a; }
int direct(struct in *p) { return p->a; }
int through(void *p) { return inlined(p) * 3; }
int outer(struct out *o) { return o->o; }
int byname(void) { return global.o; }
int unrelated(int *p) { return *p; }
int pointer_only(void) { return far.p ? 1 : 2; }
`
	for name, cc := range compilers(t, false) {
		a := read(t, cc, "a.c", fmt.Sprintf(types, "")+rest)
		b := read(t, cc, "a.c", fmt.Sprintf(types, "int b;")+rest)
		got := typediff.Compare(a, b)
		if len(got) != 1 {
			t.Fatalf("%s: %v", name, describe(got))
		}
		g := got[0]
		type result struct {
			Name                         string
			Line                         int
			Within, Functions, Variables []string
			Linked                       bool
			OldSize, NewSize             int64
		}
		want := result{"struct in", 1, []string{"struct mid", "struct out"}, []string{"direct", "outer", "through"}, []string{"global"}, true, 4, 8}
		if d := cmp.Diff(want, result{g.Name, g.Line, g.Within, g.Functions, g.Variables, g.Linked, g.OldSize, g.NewSize}); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
		if !strings.HasSuffix(g.File, "a.c") {
			t.Errorf("%s: the file is %q", name, g.File)
		}
	}
}

func TestStackOnlyIsNotLinked(t *testing.T) {
	const text = "struct ctx { int a; %s };\nvoid walk(void (*)(void *), void *);\nstatic void one(void *p) { struct ctx *c = p; c->a++; }\nint run(void) { struct ctx c = { 0 }; walk(one, &c); return c.a; }\n"
	for name, cc := range compilers(t, false) {
		a := read(t, cc, "a.c", fmt.Sprintf(text, ""))
		b := read(t, cc, "a.c", fmt.Sprintf(text, "int b;"))
		got := typediff.Compare(a, b)
		if len(got) != 1 || got[0].Linked || len(got[0].Variables) > 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestNoDebugInfo(t *testing.T) {
	if _, err := typediff.Read(&elfobj.Object{}); err != typediff.ErrNoDebugInfo {
		t.Errorf("got %v", err)
	}
}
