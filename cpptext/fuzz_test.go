package cpptext_test

import (
	"strings"
	"testing"

	"github.com/klpc/klpc/cpptext"
)

// FuzzCompare holds the package to its contract on any input: no panic, an
// outcome that does not depend on the direction, and agreement between Compare
// and a text that is equal to itself.
func FuzzCompare(f *testing.F) {
	f.Add([]byte("static inline int f(void) { return 1; }\nint g;"), []byte("static inline int f(void) { return 2; }\nint g;"))
	f.Add([]byte("struct s { int (*f)(struct t *, ...); enum { A, B = 2, } e : 3; } __attribute__((packed));"), []byte("struct s;\nextern struct s *p, q[2] asm(\"x\");"))
	f.Add([]byte("#define A(x, ...) x ## _y __PASTE(a, B) \\\n z\n#ifdef X\nstatic const char s[] = L\"a\\\"\" R\"x(\")x\" 'c';\n#endif"), []byte("# 3 \"f.h\" 2\n#pragma GCC diagnostic push\ntypedef int (*t)(int);"))
	f.Add([]byte("void f(void) { static int x __attribute__((used, alias(\"g\"))) = 1; extern int y(void), z; asm volatile(\"12\" : : \"i\" (12)); }"), []byte("asm(\"__initcall__m__1_2_f\"); _Static_assert(1, \"\"); __extension__ typedef long l;"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		v, back := cpptext.Compare(a, b), cpptext.Compare(b, a)
		if v.Outcome != back.Outcome {
			t.Errorf("%s one way, %s the other", v.Outcome, back.Outcome)
		}
		if v := cpptext.Compare(a, append([]byte("\n"), a...)); v.Outcome == cpptext.Differs && !strings.Contains(string(a), "#") {
			t.Errorf("a text with a line in front: %s", v.Outcome)
		}
		c, ok := cpptext.Changes(a, b)
		if !ok {
			return
		}
		q := cpptext.NewQuery(c.Names)
		q.Sees([]cpptext.Hits{q.Look(a), q.Look(c.Rest)})
	})
}
