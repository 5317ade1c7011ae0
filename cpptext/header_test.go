package cpptext_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/cpptext"
)

func TestChanges(t *testing.T) {
	const none = "not known"
	for _, test := range []struct {
		name     string
		old, now string
		want     string // the names, or none
	}{
		{"nothing", "int f(void);", "int f(void);", ""},
		{"comment between items", "/* a\n */\nint f(void);", "/* b */\nint f(void);", ""},
		{"comment inside an item", "static inline int f(int a) { /* a */ return a; }", "static inline int f(int a) { /* b */ return a; }", "f"},
		{"line directive", "int f(void);", "#line 7\nint f(void);", ""},

		{"inline function", "static inline int f(int a) { return a; }", "static inline int f(int a) { return a + 1; }", "f"},
		{"inline function added", "int a(void);\n#endif", "int a(void);\nstatic __always_inline bool f(struct s *p)\n{ return p->g(1); }\n#endif", "f"},
		{"inline function removed", "static inline struct s *f(void) { return 0; }\nint b(void);", "int b(void);", "f"},
		{"function with annotations", "static inline __must_check notrace int f(int a) __acquires(x) { return 1; }", "static inline __must_check notrace int f(int a) __acquires(x) { return 2; }", "f"},
		{"function with an attribute", "static inline int __attribute__((cold)) f(int a) { return 1; }", "static inline int __attribute__((cold)) f(int a) { return 2; }", "f"},
		{"function with a condition inside", "static inline int f(int a) {\n#ifdef A\n return 1;\n#endif\n}", "static inline int f(int a) {\n#ifdef B\n return 1;\n#endif\n}", "f"},
		{"function with a macro inside", "static inline int f(int a) {\n#define M 1\n return 1;\n}", "static inline int f(int a) {\n#define M 2\n return 1;\n}", "M f"},
		{"function that goes over conditions", "#ifdef A\nstatic inline int f(void)\n#else\nstatic inline int f(long a)\n#endif\n{ return 1; }", "#ifdef A\nstatic inline int f(void)\n#else\nstatic inline int f(long a)\n#endif\n{ return 2; }", none},
		{"function that is emitted", "int f(int a) { return 1; }", "int f(int a) { return 2; }", none},
		{"function that is kept", "static int __used f(int a) { return 1; }", "static int __used f(int a) { return 2; }", none},
		{"function that is kept by an attribute", "static int __attribute__((__used__)) f(int a) { return 1; }", "static int __attribute__((__used__)) f(int a) { return 2; }", none},
		{"function with a kept variable", "static int f(int a) { static int x __used; return 1; }", "static int f(int a) { static int x __used; return 2; }", none},
		{"function by a macro", "static inline DEFINE_F(f) { return 1; }", "static inline DEFINE_F(f) { return 2; }", none},
		{"function with a pasted name", "static inline int PREFIX(f)(int a) { return 1; }", "static inline int PREFIX(f)(int a) { return 2; }", none},
		{"function that returns a function", "static inline int (*f(int a))(void) { return 0; }", "static inline int (*f(int a))(void) { return 1; }", none},
		{"function after a macro", "DEFINE_X(a)\nstatic inline int f(int a) { return 1; }", "DEFINE_X(a)\nstatic inline int f(int a) { return 2; }", "f"},
		{"function that the compiler calls", "static inline int memcpy(int a) { return 1; }", "static inline int memcpy(int a) { return 2; }", none},

		{"used by another function", "static inline int f(int a) { return 1; }\nstatic inline int g(void) { return f(1); }\nint h(void);", "static inline int f(int a) { return 2; }\nstatic inline int g(void) { return f(1); }\nint h(void);", "f g"},
		{"used by a macro", "static inline int f(int a) { return 1; }\n#define M(x) \\\n\tf(x)\n#define N 1", "static inline int f(int a) { return 2; }\n#define M(x) \\\n\tf(x)\n#define N 1", "M f"},
		{"used by a condition", "#define A 1\n#if A > 1\nint f(void);\n#endif", "#define A 2\n#if A > 1\nint f(void);\n#endif", none},
		{"used by what is not understood", "static inline int f(int a) { return 1; }\nDEFINE_X(f)\nint h(void);", "static inline int f(int a) { return 2; }\nDEFINE_X(f)\nint h(void);", none},

		{"macro", "#define A 1\n#define B 2\n", "#define A 1\n#define B 3\n", "B"},
		{"macro with operands", "# define A(x) \\\n (x)\n", "# define A(x) \\\n (x + 1)\n", "A"},
		{"macro added", "", "#define A 1", "A"},
		{"macro in a condition", "#ifdef X\n#define A 1\n#else\n#define A 2\n#endif", "#ifdef X\n#define A 1\n#else\n#define A 3\n#endif", "A"},
		{"macro that is redefined", "#define A 1\n#undef A\n#define A 2\n", "#define A 3\n#undef A\n#define A 2\n", none},
		{"undef", "int f(void);", "#undef X\nint f(void);", none},
		{"include", "int f(void);", "#include <a.h>\nint f(void);", none},
		{"pragma", "int f(void);", "#pragma pack(1)\nint f(void);", none},
		{"condition", "#ifdef A\nint f(void);\n#endif", "#ifdef B\nint f(void);\n#endif", none},
		{"else added", "#ifdef A\nint f(void);\n#endif", "#ifdef A\nint f(void);\n#else\n#define f() 0\n#endif", none},
		{"whole condition added", "int f(void);\n#ifdef A\nint g(void);\n#endif", "int f(void);\n#ifdef B\nint h(void);\n#else\n#define h() 0\n#endif\n#ifdef A\nint g(void);\n#endif", "h"},
		{"whole condition removed", "int f(void);\n#if B\nint h(void);\n#endif\n", "int f(void);\n", "h"},
		{"condition put around", "int f(void);\nint g(void);", "int f(void);\n#if B\nint g(void);\n#endif", none},
		{"moved into a condition", "int f(int);\n#if B\nint g(int);\n#endif", "#if B\nint f(int);\nint g(int);\n#endif", "f"},

		{"prototype", "extern int f(struct s *a, int b);", "extern int f(struct s *a, long b);", "f"},
		{"prototype without extern", "struct s *f(void);", "struct s *f(int);", "f"},
		{"prototype with annotations", "__printf(1, 2) int f(const char *a, ...) __cold;", "__printf(1, 3) int f(const char *a, ...) __cold;", "f"},
		{"prototype with an alias", "int f(void);", "int f(void) __attribute__((alias(\"g\")));", none},
		{"two prototypes in one", "int f(void), g(void);", "int f(int), g(int);", none},
		{"variable declared", "extern struct s a, b[];", "extern struct t a, b[];", "a b"},
		{"variable declared with annotations", "extern u32 __percpu *a __read_mostly;", "extern u64 __percpu *a __read_mostly;", "a"},
		{"variable declared by typeof", "extern typeof(b) a;", "extern typeof(c) a;", "a"},
		{"variable defined", "int a;", "int a = 1;", none},
		{"variable defined by a macro", "DEFINE_PER_CPU(int, a);", "DEFINE_PER_CPU(long, a);", none},
		{"static table", "static const char * const a[] = { \"x\", \"y\" };", "static const char * const a[] = { \"x\" };", "a"},
		{"static structure", "static const struct s a = { .b = 1 };", "static const struct s a = { .b = 2 };", "a"},
		{"two static variables", "static int a = 1, b = 2;", "static int a = 1, b = 3;", none},
		{"static variable by a macro", "static DEFINE_MUTEX(a);", "static DEFINE_MUTEX(b);", none},
		{"static volatile variable", "static volatile int a = 1;", "static volatile int a = 2;", none},
		{"assertion", "static_assert(1);", "static_assert(2);", none},
		{"assertion of C11", "_Static_assert(1, \"\");", "_Static_assert(2, \"\");", none},

		{"struct", "struct s { int a; };", "struct s { int a, b; } __packed;", "s"},
		{"struct with others in it", "struct s { struct i { int a; } i; enum { A, B = 1 } e; };", "struct s { struct i { int a; } i; enum { A, B = 2 } e; };", "A B i s"},
		{"struct with a tagged group", "struct s { struct_group_tagged(g, x, int a;); };", "struct s { struct_group_tagged(g, x, int b;); };", "g s"},
		{"struct in use", "struct s { int a; };\nstruct t { struct s s; };\nextern int f(struct s *);\nextern int g(int);", "struct s { int b; };\nstruct t { struct s s; };\nextern int f(struct s *);\nextern int g(int);", "f s t"},
		{"struct with a condition", "struct s {\n#ifdef A\n int a;\n#endif\n};", "struct s {\n#ifdef B\n int a;\n#endif\n};", "s"},
		{"struct with a variable", "struct s { int a; } v;", "struct s { int b; } v;", none},
		{"struct declared", "int f(int);", "struct s;\nint f(int);", ""},
		{"enum", "enum e { A, B };", "enum e { A, X, B };", "A B X e"},
		{"enum without tag", "enum {\n\tA,\n\tB = (1 << 2),\n};", "enum {\n\tA,\n\tB = (1 << 3),\n};", "A B"},
		{"typedef", "typedef struct s { int a; } s_t, *s_p;", "typedef struct s { int b; } s_t, *s_p;", "s s_p s_t"},
		{"typedef of a function", "typedef int (*fn)(struct s *);", "typedef long (*fn)(struct s *);", "fn"},
		{"typedef of a number", "typedef u32 __bitwise t;", "typedef u64 __bitwise t;", "t"},

		{"brackets that do not match", "int f(void);", "int f(void;", none},
		{"linkage for C++", "#ifdef __cplusplus\nextern \"C\" {\n#endif\nint f(void);\n#ifdef __cplusplus\n}\n#endif", "#ifdef __cplusplus\nextern \"C\" {\n#endif\nint g(void);\n#ifdef __cplusplus\n}\n#endif", none},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := none
			if c, ok := cpptext.Changes([]byte(test.old), []byte(test.now)); ok {
				got = strings.Join(c.Names, " ")
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			back := none
			if c, ok := cpptext.Changes([]byte(test.now), []byte(test.old)); ok {
				back = strings.Join(c.Names, " ")
			}
			if diff := cmp.Diff(test.want, back); diff != "" {
				t.Errorf("the other way round: %s", diff)
			}
		})
	}
}

func TestChangesRest(t *testing.T) {
	c, ok := cpptext.Changes([]byte("#define A 1\nint f(void);\nstatic inline int g(void) { return A; }\n"), []byte("#define A 2\nint f(void);\nstatic inline int g(void) { return A; }\n"))
	if !ok {
		t.Fatal("not known")
	}
	if diff := cmp.Diff("int f(void);\n", string(c.Rest)); diff != "" {
		t.Error(diff)
	}
}

func TestSees(t *testing.T) {
	for _, test := range []struct {
		name  string
		seek  string
		files []string
		want  bool
	}{
		{"named", "foo_bar", []string{"int x = foo_bar(1);"}, true},
		{"named in the last file", "foo_bar", []string{"int x;", "int y = foo_bar(1);"}, true},
		{"not named", "foo_bar", []string{"int x = foo_barr(1) + foo(bar);"}, false},
		{"named in a comment", "foo_bar", []string{"int x; /* foo_bar */ // foo_bar"}, false},
		{"named after a comment", "foo_bar", []string{"int x; /* a */ foo_bar"}, true},
		{"named in a macro", "foo_bar", []string{"#define X foo_bar(1)"}, true},
		{"named in a condition", "foo_bar", []string{"#ifdef foo_bar\n#endif"}, true},
		{"named by assembler text", "foo_bar", []string{`asm("call foo_bar\n");`}, true},
		{"named behind a quote that does not end", "foo_bar", []string{"#if 0\n don't\n#endif\nfoo_bar"}, true},
		{"one of several names", "none foo_bar", []string{"foo_bar"}, true},

		{"pasted", "foo_bar", []string{"#define X(a) foo_##a", "X(bar)"}, true},
		{"pasted in front", "foo_bar", []string{"#define X(a) a ## _bar", "X(foo)"}, true},
		{"pasted from two operands", "foo_bar", []string{"#define X(a, b) a##b", "X(foo_, bar)"}, true},
		{"pasted from three", "foo_bar", []string{"#define X(a, b) a##_##b", "X(foo, bar)"}, true},
		{"pasted over lines", "foo_bar", []string{"#define X(a) \\\n\tfoo_ \\\n\t## a", "X(bar)"}, true},
		{"pasted with nothing", "foo_bar", []string{"#define X(a, b) a##foo_##b", "X(, bar)"}, true},
		{"pasted with a number", "foo_8", []string{"#define X(a) foo_##a", "X(8)"}, true},
		{"pasted without the word", "foo_bar", []string{"#define X(a) foo_##a", "X(baz)"}, false},
		{"pasted with a word that may be pasted itself", "foo_bar", []string{"#define X(a, b) a##_##b\n#define Y(a) a##bar", "X(foo, baz)"}, true},
		{"words without a paste", "foo_bar", []string{"foo_ bar _bar foo _"}, false},
		{"pasted twice", "sys_read", []string{"#define X(a) Y(_##a)\n#define Y(a) sys##a", "X(read)"}, true},
		{"pasted three times", "__SCK__tp_func_rpc_x", []string{"#define X(a) Y(rpc_##a)\n#define Y(a) Z(tp_func_##a)\n#define Z(a) __SCK__##a", "X(x)"}, true},
		{"pasted twice with something behind", "a_get_b_put", []string{"#define X(a) Y(get_##a##_put)\n#define Y(a) a_##a", "X(b)"}, true},
		{"pasted twice from operands", "class_foo_try_x", []string{"#define X(a, b) Y(a##b)\n#define Y(a) class_##a##_x", "X(foo, _try)"}, true},
		{"pasted by a macro that does only that", "GUC_BAR_KEY", []string{"#define X(a) CONCATENATE(CONCATENATE(GUC_, a), _KEY)", "X(BAR)"}, true},
		{"pasted to what a macro stands for", "__SCK__tp_func_x", []string{"#define PREFIX __SCK__\n#define K(a) __PASTE(PREFIX, a)", "#define T(a) K(tp_func_##a)", "T(x)"}, true},
		{"pasted from four operands", "foo_bar", []string{"#define X(a, b) a##b", "X(X(foo, _), X(b, ar))"}, false},
		{"pasted to a comma", "foo_bar", []string{"#define X(a, ...) foo_(a, ## __VA_ARGS__)", "X(1, bar)"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			q := cpptext.NewQuery(strings.Fields(test.seek))
			var hits []cpptext.Hits
			for _, f := range test.files {
				hits = append(hits, q.Look([]byte(f)))
			}
			if diff := cmp.Diff(test.want, q.Sees(hits)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestSeesGiven: macros whose calls are plain to see make only what these give.
func TestSeesGiven(t *testing.T) {
	// The words that would make task_state_index stand in the files, but not in
	// a call.
	const words = "int f(int task, int _, int state_index, int state, int index, int task_state) { }\n"
	for _, test := range []struct {
		name  string
		files []string
		want  bool
	}{
		{"given", []string{"#define X(a) task_##a", "X(state_index)"}, true},
		{"something else is given", []string{"#define X(a) task_##a", "X(spread)"}, false},
		{"given to another parameter", []string{"#define X(a, b) task_##b; a", "X(state_index, spread)"}, false},
		{"given to the second parameter", []string{"#define X(a, b) task_##b; a", "X((1, 2), state_index)"}, true},
		{"given over lines", []string{"#define X(a, b) task_##b; a", "X(f[1, 2],\n\n  state_index\n)"}, true},
		{"given by the last word of several", []string{"#define X(a) a##_index", "X(struct task_state)"}, true},
		{"given by the first word of several", []string{"#define X(a) task_##a", "X(state_index = 1)"}, true},
		{"given by a word in the middle", []string{"#define X(a) task_##a", "X(a state_index b)"}, false},
		{"given by another macro", []string{"#define X(a) task_##a", "#define Y X(state_index)"}, true},
		{"something else is given by another macro", []string{"#define X(a) task_##a", "#define Y(b) X(spread)"}, false},
		{"given by a macro's parameter", []string{"#define X(a) task_##a", "#define Y(b) X(b)"}, true},
		{"given by a macro's pasted parameter", []string{"#define X(a) task_##a", "#define Y(b) X(x##b)"}, true},
		{"given by a macro's other arguments", []string{"#define X(a) task_##a", "#define Y(b, ...) X(__VA_ARGS__)"}, true},
		{"given as more arguments", []string{"#define X(a, ...) a##__VA_ARGS__", "X(task_, state_index)"}, true},
		{"passed on by name", []string{"#define X(a) task_##a", "Y(X, spread)"}, true},
		{"known by another name", []string{"#define X(a) task_##a\n#define Y X", "Y(spread)"}, true},
		{"its name is pasted and called", []string{"#define XX(a) task_##a\n#define Y(a, b) X##a(b)", "Y(X, state_index)"}, true},
		{"its name is pasted and called with something else", []string{"#define XX(a) task_##a\n#define Y(a, b) X##a(spread)", "Y(X, 1)"}, false},
		{"its name is pasted", []string{"#define XX(a) task_##a\n#define Y(a) Z(X##a, state_index)", "Y(X)"}, true},
		{"a call that does not end", []string{"#define X(a) task_##a", "X(spread"}, true},
		{"a call with a condition in it", []string{"#define X(a) task_##a", "X(\n#ifdef Z\nspread\n#endif\n)"}, true},
		{"by way of a macro that pastes what it is given expanded", []string{"#define X(a) __PASTE(task_, a)", "X(SPREAD)"}, true},
		{"asked about only", []string{"#define X(a) task_##a", "#ifdef X\n#undef X\n#endif"}, false},
		{"never called", []string{"#define X(a, b) a##_##b"}, false},
		{"three operands", []string{"#define X(a, b, c) a##_##b##_##c", "X(task, state, index)"}, true},
		{"three operands in another order", []string{"#define X(a, b, c) a##_##b##_##c", "X(state, task, index)"}, false},
		{"given twice", []string{"#define X(a, b) a##_##b", "X(task, x) X(y, state_index)"}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			q := cpptext.NewQuery([]string{"task_state_index"})
			var macros []string
			files := append([]string{words}, test.files...)
			for _, f := range files {
				macros = append(macros, q.Pasting([]byte(f))...)
			}
			q.Follow(macros)
			var hits []cpptext.Hits
			for _, f := range files {
				hits = append(hits, q.Look([]byte(f)))
			}
			if diff := cmp.Diff(test.want, q.Sees(hits)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
