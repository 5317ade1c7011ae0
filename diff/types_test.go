package diff_test

import (
	"strings"
	"testing"

	"github.com/klpc/klpc/diff"
)

func TestTypeText(t *testing.T) {
	const source = `/* a file */
#include <linux/types.h>
#define FLAG 1
struct s { int a; };
typedef unsigned int u32;
extern int proto(struct s *p);
static DEFINE_MUTEX(lock);
static struct s *var = &(struct s){ 1 };
TRACE_EVENT(name, TP_STRUCT__entry(__field(int, a)));
static int f(struct s *p) __must_hold(&lock)
{
	return p->a; /* text */
}
SYSCALL_DEFINE1(name, int, a)
{
	return a;
}
static int g(void) { struct l { int a; } l = { 1 }; return l.a; }
struct __attribute__((packed)) { int un; } unnamed;
enum e { A, B };
`
	for _, c := range []struct {
		name, old, now string
		same           bool
	}{
		{"body", "return p->a;", "return p->a + 1;", true},
		{"body of a system call", "\treturn a;", "\treturn a + 1;", true},
		{"prototype", "extern int proto(struct s *p);", "extern int proto(struct s *p, int b);", true},
		{"new prototype", "extern int", "extern int other(void);\nextern int", true},
		{"variable", "{ 1 };\nTRACE", "{ 2 };\nTRACE", true},
		{"comment", "/* a file */", "/* a good file */", true},
		{"new function", "SYSCALL_DEFINE1(name", "static int n(void) { return 0; }\nSYSCALL_DEFINE1(name", true},
		{"field", "int a; };\ntypedef", "int a, b; };\ntypedef", false},
		{"field of an unnamed struct", "int un;", "int un, deux;", false},
		{"new struct", "typedef unsigned", "struct n { int a; };\ntypedef unsigned", false},
		{"changed typedef", "unsigned int u32", "unsigned long u32", false},
		{"macro", "#define FLAG 1", "#define FLAG 2", false},
		{"include", "linux/types.h", "linux/list.h", false},
		{"macro call", "__field(int, a)", "__field(long, a)", false},
		{"macro call with a variable", "DEFINE_MUTEX(lock)", "DEFINE_SPINLOCK(lock)", false},
		{"enum", "A, B", "A, C, B", false},
		{"struct in a function", "struct l { int a; }", "struct l { int a, b; }", false},
		{"directive in a function", "\treturn a;", "#ifdef X\n\treturn a;\n#endif", false},
		{"struct commented out", "struct s { int a; };\n", "/*\nstruct s { int a; };\n*/\n", false},
		{"type in a parameter", "SYSCALL_DEFINE1(name", "static int n(struct in { int a; } *p) { return 0; }\nSYSCALL_DEFINE1(name", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if strings.Count(source, c.old) != 1 {
				t.Fatalf("%q occurs %d times", c.old, strings.Count(source, c.old))
			}
			now := strings.Replace(source, c.old, c.now, 1)
			a, ok := diff.TypeText([]byte(source))
			if !ok {
				t.Fatal("the source is not understood")
			}
			b, ok := diff.TypeText([]byte(now))
			if !ok {
				t.Fatal("the changed source is not understood")
			}
			if (a == b) != c.same {
				t.Errorf("same: %v, want %v\n%s\n---\n%s", a == b, c.same, a, b)
			}
		})
	}
	for _, bad := range []string{"int f(void) {", "int f(void) { }}", "int f("} {
		if _, ok := diff.TypeText([]byte(bad)); ok {
			t.Errorf("%q is understood", bad)
		}
	}
}
