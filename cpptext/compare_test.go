package cpptext_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/cpptext"
)

// inline is what the kernel makes of "static inline".
const inline = "static inline __attribute__((__gnu_inline__)) __attribute__((__unused__)) __attribute__((no_instrument_function)) "

func TestCompare(t *testing.T) {
	same := cpptext.Verdict{Outcome: cpptext.Same}
	unreachable := cpptext.Verdict{Outcome: cpptext.Unreachable}
	differs := func(names ...string) cpptext.Verdict {
		return cpptext.Verdict{Outcome: cpptext.Differs, Names: names}
	}
	// Both texts begin and end with more code, so that what they share is used.
	const before = "typedef unsigned int u32;\nstruct first { u32 a; };\n"
	const after = "\nint last(struct first *f) { return f->a; }\n"
	for _, test := range []struct {
		name          string
		orig, patched string
		want          cpptext.Verdict
	}{
		{"nothing", "int a;", "int a;", same},
		{"line markers", "# 1 \"a.h\"\nint a;\n# 7 \"b.h\" 2 3\nint b;", "# 12 \"a.h\"\nint a;\n#line 8 \"b.h\"\nint b;", same},
		{"white space", "int  f(void)\n{\treturn a + b;}", "int f ( void ) {\n\n return a+b; }", same},
		{"white space inside an operator", "int f(int a, int b) { return a++ + b; }", "int f(int a, int b) { return a+ ++b; }", differs("f")},
		{"white space in a string", `char s[] = "a b";`, `char s[] = "a  b";`, differs("s")},
		{"prefix of a string", `int *s = L"a";`, `int *s = "a";`, differs("s")},

		{"unused inline", inline + "int g(void) { return 1; }", inline + "int g(void) { return 2; }", unreachable},
		{"unused inline added", "", inline + "int g(void) { return 2; }", unreachable},
		{"unused inline removed", inline + "int g(void) { return 2; }", "", unreachable},
		{"used inline", inline + "int g(void) { return 1; } int f(void) { return g(); }", inline + "int g(void) { return 2; } int f(void) { return g(); }", differs("g")},
		{"inline used through another", "static inline int h(void) { return 1; } static inline int g(void) { return h(); } int (*p)(void) = g;",
			"static inline int h(void) { return 2; } static inline int g(void) { return h(); } int (*p)(void) = g;", differs("h")},
		{"inline used by an unused one", "static inline int h(void) { return 1; } static inline int g(void) { return h(); }",
			"static inline int h(void) { return 2; } static inline int g(void) { return h(); }", unreachable},
		{"always inline and may be unused", "static __attribute__((unused)) __inline__ int g(void) { return 1; }", "static __attribute__((unused)) __inline__ int g(void) { return 2; }", unreachable},
		{"unused static function", "static int g(void) { return 1; }", "static int g(void) { return 2; }", unreachable},
		{"static function with a section of its own", `static int __attribute__((section(".x"))) g(void) { return 1; }`, `static int __attribute__((section(".x"))) g(void) { return 2; }`, differs("g")},
		{"used attribute", "static int __attribute__((__used__)) g(void) { return 1; }", "static int __attribute__((__used__)) g(void) { return 2; }", differs("g")},
		{"used attribute on a prototype", "static int g(void) __attribute__((used)); static int g(void) { return 1; }", "static int g(void) __attribute__((used)); static int g(void) { return 2; }", differs("g")},
		{"constructor", "static void __attribute__((constructor)) g(void) { x(1); }", "static void __attribute__((constructor)) g(void) { x(2); }", differs("g")},
		{"alias added", "int g(void);", `int g(void) __attribute__((alias("f")));`, differs("g")},
		{"alias names its target", `static int f(void) { return 1; } int g(void) __attribute__((alias("f")));`, `static int f(void) { return 2; } int g(void) __attribute__((alias("f")));`, differs("f")},
		{"copied attributes", "extern int f(void); int g(void) __attribute__((copy(f)));int h(void) { return g(); }",
			"extern int f(void) __attribute__((cold)); int g(void) __attribute__((copy(f)));int h(void) { return g(); }", differs("f")},
		{"global function", "int g(void) { return 1; }", "int g(void) { return 2; }", differs("g")},
		{"weak function", "int __attribute__((weak)) g(void) { return 1; }", "int __attribute__((weak)) g(void) { return 2; }", differs("g")},
		{"inline that is emitted", "inline int g(void) { return 1; }", "inline int g(void) { return 2; }", differs("g")},
		{"extern inline of C99", "extern inline int g(void) { return 1; }", "extern inline int g(void) { return 2; }", differs("g")},
		{"extern inline of GNU", "extern inline __attribute__((gnu_inline)) int g(void) { return 1; }", "extern inline __attribute__((gnu_inline)) int g(void) { return 2; }", unreachable},
		{"extern inline of GNU, in use", "extern inline __attribute__((gnu_inline)) int g(void) { return 1; } int f(void) { return g(); }",
			"extern inline __attribute__((gnu_inline)) int g(void) { return 2; } int f(void) { return g(); }", differs("g")},
		{"inline that the compiler calls", "static inline void *memcpy(void *d, const void *s, unsigned long n) { return d; }", "static inline void *memcpy(void *d, const void *s, unsigned long n) { return 0; }", differs("memcpy")},
		{"function named by an address only", "static inline void g(void) { a(); } void *p = (void *)g;", "static inline void g(void) { b(); } void *p = (void *)g;", differs("g")},
		{"function with the name of a member", "static inline int get(void) { return 1; } int f(struct first *x) { return x->get + x . get; }",
			"static inline int get(void) { return 2; } int f(struct first *x) { return x->get + x . get; }", unreachable},
		{"range that ends with a name", "enum { g = 1 }; int a[9] = { [0 ...g] = 1 };", "enum { g = 2 }; int a[9] = { [0 ...g] = 1 };", differs("g")},
		{"function with the name of a parameter", "static inline int count(void) { return 1; } extern int k(int count); int (*p)(int) = k;",
			"static inline int count(void) { return 2; } extern int k(int count); int (*p)(int) = k;", unreachable},

		{"static in an unused function", "static inline void g(void) { static int n; n++; }", "static inline void g(void) { static long n; n++; }", unreachable},
		{"kept static in an unused function", "static inline void g(void) { static int n __attribute__((used)) = 1; n++; }", "static inline void g(void) { static int n __attribute__((used)) = 2; n++; }", differs("g")},
		{"beside a kept static", "static inline void g(void) { ({ static int n __attribute__((used)) = 1; n++; }); }", "static inline void g(void) { ({ static int n __attribute__((used)) = 1; n--; }); }", unreachable},
		{"used by a kept static", "static inline int h(void) { return 1; } static inline void g(void) { static void *n __attribute__((used)) = h; }",
			"static inline int h(void) { return 2; } static inline void g(void) { static void *n __attribute__((used)) = h; }", differs("h")},
		{"kept static with braces in its type", "static inline void g(void) { static struct { int a; } n __attribute__((used)); h(1); }", "static inline void g(void) { static struct { int a; } n __attribute__((used)); h(2); }", differs("g")},
		{"declaration inside an unused function", "static inline void g(void) { extern void k(int); k(1); } void f(void) { k(2); }",
			"static inline void g(void) { extern void k(int) __attribute__((noreturn)); k(1); } void f(void) { k(2); }", differs("g")},

		{"prototype added", "", "extern int k(struct first *f, u32 n); int k2(void);", unreachable},
		{"prototype in use", "int k(int); int f(void) { return k(1); }", "int k(long); int f(void) { return k(1); }", differs("k")},
		{"prototype of a function defined here", "int k(void); int k(void) { return 1; }", "int k(void) __attribute__((cold)); int k(void) { return 1; }", differs("k")},
		{"variable declared", "", "extern u32 v __attribute__((section(\".x\")));", unreachable},
		{"variable declared and in use", "extern u32 v; int f(void) { return v; }", "extern unsigned long v; int f(void) { return v; }", differs("v")},
		{"variable defined", "", "int v;", differs("v")},
		{"function pointer defined", "", "void (*v)(void);", differs("v")},
		{"variable with parentheses", "", "u32 (v);", differs("v")},
		{"two of which one is a variable", "", "int k(void), v;", differs("k")},
		{"extern variable defined", "", "extern int v = 1;", differs("v")},
		{"static variable", "static const int v[] = { 1 };", "static const int v[] = { 2 };", unreachable},
		{"static variable in use", "static const int v[] = { 1 }; int f(void) { return v[0]; }", "static const int v[] = { 2 }; int f(void) { return v[0]; }", differs("v")},
		{"static variable that is kept", "static int v __attribute__((used)) = 1;", "static int v __attribute__((used)) = 2;", differs("v")},
		{"static variable that is kept, by a pointer", "static void *__attribute__((used)) v = (void *)1;", "static void *__attribute__((used)) v = (void *)2;", differs("v")},
		{"volatile static variable", "", "static volatile int v;", differs("v")},
		{"global register", "", `register unsigned long sp asm("rsp");`, differs("sp")},

		{"struct", "struct s { int a; };", "struct s { int a, b; };", unreachable},
		{"struct in use", "struct s { int a; }; int f(struct s *p) { return p->a; }", "struct s { int b, a; }; int f(struct s *p) { return p->a; }", differs("s")},
		{"struct by its typedef", "typedef struct { int a; } s_t; int f(s_t *p) { return p->a; }", "typedef struct { int b, a; } s_t; int f(s_t *p) { return p->a; }", differs("s_t")},
		{"struct by a typedef elsewhere", "struct s { int a; }; typedef struct s s_t; typedef s_t *s_p; int f(s_p p) { return p->a; }",
			"struct s { int b, a; }; typedef struct s s_t; typedef s_t *s_p; int f(s_p p) { return p->a; }", differs("s")},
		{"struct embedded", "struct s { int a; }; struct o { struct s s; int z; }; int f(struct o *p) { return p->z; }",
			"struct s { int b, a; }; struct o { struct s s; int z; }; int f(struct o *p) { return p->z; }", differs("s")},
		{"struct in an array", "struct s { int a; }; struct o { const struct s s[2]; int z; }; int f(struct o *p) { return p->z; }",
			"struct s { int b, a; }; struct o { const struct s s[2]; int z; }; int f(struct o *p) { return p->z; }", differs("s")},
		{"struct behind a pointer that is not used", "struct s { int a; }; struct o { struct s *s; int z; }; int f(struct o *p) { return p->z; }",
			"struct s { int b, a; }; struct o { struct s *s; int z; }; int f(struct o *p) { return p->z; }", unreachable},
		{"struct behind a pointer that is used", "struct s { int a; }; struct o { struct s *s; int z; }; int f(struct o *p) { return sizeof(*p->s); }",
			"struct s { int b, a; }; struct o { struct s *s; int z; }; int f(struct o *p) { return sizeof(*p->s); }", differs("s")},
		{"struct behind the second pointer", "struct s { int a; }; struct o { struct s *q, *s; }; int f(struct o *p) { return sizeof(*p->s); }",
			"struct s { int b, a; }; struct o { struct s *q, *s; }; int f(struct o *p) { return sizeof(*p->s); }", differs("s")},
		{"struct beside a pointer", "struct s { int a; }; struct o { struct s *q, s; }; int f(struct o *p) { return sizeof(*p); }",
			"struct s { int b, a; }; struct o { struct s *q, s; }; int f(struct o *p) { return sizeof(*p); }", differs("s")},
		{"struct that a member returns", "struct s { int a; }; struct o { struct s *(*get)(int); }; int f(struct o *p) { return p->get(0)->a; }",
			"struct s { int b, a; }; struct o { struct s *(*get)(int); }; int f(struct o *p) { return p->get(0)->a; }", differs("s")},
		{"struct that a member takes", "struct s { int a; }; struct o { int (*set)(struct s *, int); }; int f(struct o *p) { return p->set(0, 1); }",
			"struct s { int b, a; }; struct o { int (*set)(struct s *, int); }; int f(struct o *p) { return p->set(0, 1); }", unreachable},
		{"struct that a member takes by value", "struct s { int a; }; struct o { int (*set)(struct s); }; int f(struct o *p) { return sizeof(*p); }",
			"struct s { int b, a; }; struct o { int (*set)(struct s); }; int f(struct o *p) { return sizeof(*p); }", differs("s")},
		{"struct that a function takes", "struct s { int a; }; extern int k(struct s *p); int f(void *p) { return k(p); }",
			"struct s { int b, a; }; extern int k(struct s *p); int f(void *p) { return k(p); }", unreachable},
		{"struct that a function returns", "struct s { int a; }; extern struct s *k(void); int f(void) { return k()->a; }",
			"struct s { int b, a; }; extern struct s *k(void); int f(void) { return k()->a; }", differs("s")},
		{"nested struct by its tag", "struct o { struct i { int a; } i; }; struct i v;", "struct o { struct i { int b, a; } i; }; struct i v;", differs("o")},
		{"pointer to a pointer used elsewhere", "struct s { int a; }; extern struct s **v; int f(void) { return v[0]->a; }",
			"struct s { int b, a; }; extern struct s **v; int f(void) { return v[0]->a; }", differs("s")},
		{"bit field of an enum", "enum e { A }; struct o { enum e x : 3; }; int f(struct o *p) { return sizeof(*p); }",
			"enum e { A, B = -1 }; struct o { enum e x : 3; }; int f(struct o *p) { return sizeof(*p); }", differs("e")},
		{"size of a member", "enum { N = 4 }; struct o { char x[N]; }; int f(struct o *p) { return sizeof(*p); }",
			"enum { N = 5 }; struct o { char x[N]; }; int f(struct o *p) { return sizeof(*p); }", differs("N")},
		{"unnamed member", "struct s { int a; }; struct o { struct s; }; int f(struct o *p) { return p->a; }",
			"struct s { int b, a; }; struct o { struct s; }; int f(struct o *p) { return p->a; }", differs("s")},
		{"forward declaration", "", "struct first; struct nobody; enum e; union u;", unreachable},

		{"enumerator in use behind", "enum e { A, B }; int v = B;", "enum e { A, X, B }; int v = B;", differs("e")},
		{"enumerator in use before", "enum e { A, B, }; int v = A;", "enum e { A, X, B, }; int v = A;", unreachable},
		{"enumerator in use before, with numbers", "enum e { A = 1, B = 7 }; int v = A;", "enum e { A = 1, B = 8, C }; int v = A;", unreachable},
		{"enumerator in use changed", "enum e { A = 1, B }; int v = A;", "enum e { A = 2, B }; int v = A;", differs("e")},
		{"enumerator that makes the type signed", "enum e { A = 1, B }; enum e v = A;", "enum e { A = 1, B = -1 }; enum e v = A;", differs("e")},
		{"enumerator after an expression", "enum e { A = X, B }; int v = A;", "enum e { A = X, B, C }; int v = A;", differs("e")},
		{"enumerator that makes a packed enum longer", "enum e { A, B } __attribute__((packed)); enum e v = A;", "enum e { A, B = 300 } __attribute__((packed)); enum e v = A;", differs("e")},
		{"attribute of an enum", "enum e { A, B }; int v = A;", "enum e { A, B } __attribute__((packed)); int v = A;", differs("e")},

		{"typedef", "typedef int t;", "typedef long t;", unreachable},
		{"typedef in use", "typedef int t; t v;", "typedef long t; t v;", differs("t")},
		{"typedef in use by typeof", "typedef int t; extern t *v; typeof(*v) w;", "typedef long t; extern t *v; typeof(*v) w;", differs("t")},
		{"typedef of a function", "typedef int (fn_t)(struct first *); extern fn_t k; int f(void) { return k(0); }", "typedef long (fn_t)(struct first *); extern fn_t k; int f(void) { return k(0); }", differs("fn_t")},

		{"assembler text", `asm(".globl x");`, `asm(".globl y");`, differs("asm")},
		{"function called by assembler text", `static inline void g(void) { a(); } asm("x:\n\tcall g\n");`, `static inline void g(void) { b(); } asm("x:\n\tcall g\n");`, differs("g")},
		{"function called by asm in a function", `static inline void g(void) { a(); } void f(void) { asm volatile goto ("call %c[g]; jmp g" : : : : out); out: ; }`,
			`static inline void g(void) { b(); } void f(void) { asm volatile goto ("call %c[g]; jmp g" : : : : out); out: ; }`, differs("g")},
		{"function in an ordinary string", `static inline void g(void) { a(); } char *s = "g";`, `static inline void g(void) { b(); } char *s = "g";`, unreachable},

		{"assertion that has changed", "_Static_assert(1, \"\");", "_Static_assert(2, \"\");", differs("_Static_assert")},
		{"assertion about what has changed", "struct s { int a; }; _Static_assert(sizeof(struct s) > 0, \"\");", "struct s { int b, a; }; _Static_assert(sizeof(struct s) > 0, \"\");", unreachable},
		{"pragma", "#pragma pack(1)\n", "#pragma pack(2)\n", differs("#pragma pack(1)", "#pragma pack(2)")},
		{"pragma in a function", "static inline void g(void) {\n#pragma GCC optimize(\"O0\")\n}", "static inline void g(void) {\n#pragma GCC optimize(\"O1\")\n}", differs("g")},
		{"pragma about warnings in a function", "static inline void g(void) {\n#pragma GCC diagnostic push\n}", "static inline void g(void) {\n#pragma GCC diagnostic pop\n}", unreachable},
		{"moved across a pragma", "#pragma pack(1)\nstruct s { int a; }; struct s v;", "struct s { int a; };\n#pragma pack(1)\nstruct s v;", differs()},
		{"emitted items in another order", "int a; int b;", "int b; int a;", differs()},
		{"unused items in another order", "extern int a; extern int b;", "extern int b; extern int a;", unreachable},
		{"parameters of old", "int f(a) int a; { return a; };", "int f(a) int a; { return b; };", differs("{")},
		{"a macro that was left", "", "MODULE_THING(x);", differs("x")},
		{"attribute of a variable defined here", "extern int v; int v = 1;", "extern int v __attribute__((section(\"x\"))); int v = 1;", differs("v")},
		{"brackets that do not match", "int f(void) { return 1; }", "int f(void) { return (1; }", differs()},
		{"unterminated", "int f;", "int f; /* ", differs()},

		{"counters", "int v = ({ int __UNIQUE_ID_x_7 = 1; __UNIQUE_ID_x_7; });", "static inline int g(void) { return __UNIQUE_ID_x_7; } int v = ({ int __UNIQUE_ID_x_8 = 1; __UNIQUE_ID_x_8; });", unreachable},
		{"counters mixed up", "int v = ({ int __UNIQUE_ID_x_7, __UNIQUE_ID_x_8; __UNIQUE_ID_x_7; });", "int v = ({ int __UNIQUE_ID_x_7, __UNIQUE_ID_x_8; __UNIQUE_ID_x_8; });", differs()},
		{"counters mixed up over two items", "static int __UNIQUE_ID_7, __UNIQUE_ID_8; int *v = &__UNIQUE_ID_7;", "static int __UNIQUE_ID_7, __UNIQUE_ID_8; int *v = &__UNIQUE_ID_8;", differs()},
		{"counters of assertions", inline + "void g(void) { } void f(void) { extern void __compiletime_assert_5(void); if (0) __compiletime_assert_5(); }",
			inline + "void g(void) { extern void __compiletime_assert_5(void); } void f(void) { extern void __compiletime_assert_6(void); if (0) __compiletime_assert_6(); }", unreachable},
		{"counter in a call's name", `asm("__initcall__kmod_a__12_34_f6:\n.long f - .\n");`, `asm("__initcall__kmod_a__13_34_f6:\n.long f - .\n");`, unreachable},
		{"line in a call's name", `asm("__initcall__kmod_a__12_34_f6:\n.long f - .\n");`, `asm("__initcall__kmod_a__12_35_f6:\n.long f - .\n");`, differs("asm")},
		{"counter in an ordinary string", `char *s = "__UNIQUE_ID_x_7";`, `char *s = "__UNIQUE_ID_x_8";`, differs("s")},
		{"counter as a label", `void f(void) { asm volatile("12" ":\n\t" ".long " "12" "b - .\n\t" : : "i" (12)); }`, `void f(void) { asm volatile("13" ":\n\t" ".long " "13" "b - .\n\t" : : "i" (13)); }`, unreachable},
		{"counter as a label and a value", `void f(void) { asm volatile("12" ":\n\t" ".long %c0\n\t" : : "i" (12)); }`, `void f(void) { asm volatile("13" ":\n\t" ".long %c0\n\t" : : "i" (13)); }`, differs("f")},
		{"number beside a label", `void f(void) { asm volatile("12" ":\n\t" : : "i" (5)); }`, `void f(void) { asm volatile("12" ":\n\t" : : "i" (6)); }`, differs("f")},
		{"label by two names", `void f(void) { asm volatile("12" ": .long " "13" "b"); }`, `void f(void) { asm volatile("12" ": .long " "12" "b"); }`, differs("f")},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := cpptext.Compare([]byte(test.orig), []byte(test.patched))
			if diff := cmp.Diff(test.want, got, cmpNames); diff != "" {
				t.Error(diff)
			}
			framed := cpptext.Compare([]byte(before+test.orig+after), []byte(before+test.patched+after))
			if diff := cmp.Diff(test.want, framed, cmpNames); diff != "" {
				t.Errorf("between other items: %s", diff)
			}
			back := cpptext.Compare([]byte(test.patched), []byte(test.orig))
			if got.Outcome != back.Outcome {
				t.Errorf("%s one way, %s the other", got.Outcome, back.Outcome)
			}
		})
	}
}

// cmpNames takes no names for an empty list.
var cmpNames = cmp.Transformer("verdict", func(v cpptext.Verdict) string {
	return string(v.Outcome) + " " + strings.Join(v.Names, ", ")
})
