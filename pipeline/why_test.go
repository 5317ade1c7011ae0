package pipeline

import (
	"strings"
	"testing"

	"github.com/klpc/klpc/diff"
)

// edit makes a touched file of a text in which "@" stands before each edited line.
func edit(path, marked string) touched {
	f := touched{path: path}
	for i, line := range strings.SplitAfter(marked, "\n") {
		if strings.HasPrefix(line, "@") {
			f.edits = append(f.edits, diff.Edit{OldStart: i + 1, OldLines: 1, NewStart: i + 1, NewLines: 1})
		}
	}
	content := []byte(strings.ReplaceAll(marked, "@", ""))
	f.content = &content
	return f
}

func TestWhy(t *testing.T) {
	const inlines = `static inline int one(void)
{
@	return 1;
}
static inline int two(void)
{
@	return 2;
}
`
	header := edit("include/x.h", inlines)
	for _, c := range []struct {
		name, function string
		files          []touched
		unpatched      string // the text of a.c, if it is not among files
		want           string
	}{
		{name: "its own text", function: "one", files: []touched{edit("a.c", inlines)}, want: "edited"},
		{name: "a part of it that the compiler split off", function: "one.part.0", files: []touched{edit("a.c", inlines)}, want: "edited"},
		{name: "a system call", function: "__do_sys_read", files: []touched{edit("a.c", "SYSCALL_DEFINE1(read, int, fd)\n{\n@\treturn 1;\n}\n")}, want: "edited"},
		{name: "no function is edited", function: "f", files: []touched{edit("a.c", "@int n;\nint f(void)\n{\n\treturn n;\n}\n")},
			want: "reached through a macro, type or header"},

		{name: "one of two in the file", function: "f", files: []touched{edit("a.c", inlines+"int f(void)\n{\n\treturn two();\n}\n")},
			want: "inlined callee edited (two)"},
		{name: "both, in the order of the text", function: "f", files: []touched{edit("a.c", inlines+"int f(void)\n{\n\treturn two() + one();\n}\n")},
			want: "inlined callee edited (one, two)"},
		{name: "of a header, by a file that the patch leaves alone", function: "f", files: []touched{header}, unpatched: "int f(void)\n{\n\treturn one();\n}\n",
			want: "inlined callee edited (one)"},
		{name: "through others of the file", function: "f", files: []touched{header},
			unpatched: "static int h(void)\n{\n\treturn two();\n}\nstatic int g(void)\n{\n\treturn h();\n}\nint f(void)\n{\n\treturn g();\n}\nint k(void)\n{\n\treturn one();\n}\n",
			want:      "inlined callee edited (two)"},
		{name: "through one of the header that is not edited", function: "f", unpatched: "int f(void)\n{\n\treturn both();\n}\n",
			files: []touched{edit("include/x.h", inlines+"static inline int three(void)\n{\n@\treturn 3;\n}\nstatic inline int both(void)\n{\n\treturn one() + two();\n}\n")},
			want:  "inlined callee edited (one, two)"},
		{name: "through an edited one", function: "f", unpatched: "int f(void)\n{\n\treturn sum();\n}\n",
			files: []touched{edit("include/x.h", inlines+"static inline int sum(void)\n{\n@\treturn two();\n}\n")},
			want:  "inlined callee edited (two, sum)"},
		{name: "through functions that call each other", function: "f", files: []touched{header},
			unpatched: "static int g(int n)\n{\n\treturn n ? f(n - 1) : one();\n}\nint f(int n)\n{\n\treturn g(n);\n}\n",
			want:      "inlined callee edited (one)"},
		{name: "through either definition of a function that is there twice", function: "f", files: []touched{header},
			unpatched: "#ifdef A\nstatic int g(void)\n{\n\treturn one();\n}\n#else\nstatic int g(void)\n{\n\treturn 0;\n}\n#endif\nint f(void)\n{\n\treturn g();\n}\n",
			want:      "inlined callee edited (one)"},
		{name: "a clone", function: "f.isra.0", files: []touched{header}, unpatched: "static int f(int n)\n{\n\treturn two();\n}\n",
			want: "inlined callee edited (two)"},
		{name: "a system call's callee", function: "__do_sys_read", files: []touched{header}, unpatched: "SYSCALL_DEFINE1(read, int, fd)\n{\n\treturn two();\n}\n",
			want: "inlined callee edited (two)"},
		{name: "a field of the same name is no function", function: "f", files: []touched{header},
			unpatched: "int f(struct s *s)\n{\n\tif (s->one(s) || s->a.one)\n\t\treturn two();\n\treturn 0;\n}\n",
			want:      "inlined callee edited (two)"},
		{name: "a comment and a literal are no mention", function: "f", files: []touched{header},
			unpatched: "int f(struct s *s)\n{\n\t/* one */\n\tputs(\"one\");\n\treturn two();\n}\n",
			want:      "inlined callee edited (two)"},
		{name: "another file's functions are not its own", function: "f", files: []touched{header, edit("b.c", "static int g(void)\n{\n@\treturn one();\n}\n")},
			unpatched: "int f(void)\n{\n\treturn g() + two();\n}\n",
			want:      "inlined callee edited (two)"},

		// What the texts do not show is listed in full.
		{name: "through a header that is not edited", function: "f", files: []touched{header}, unpatched: "int f(void)\n{\n\treturn elsewhere();\n}\n",
			want: "inlined callee edited (one, two)"},
		{name: "made by a macro", function: "f", files: []touched{header}, unpatched: "DEFINE_SHOW_ATTRIBUTE(f);\n",
			want: "inlined callee edited (one, two)"},
		{name: "a generated file", function: "f", files: []touched{header},
			want: "inlined callee edited (one, two)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newReasons(c.files, func(source string) []byte {
				if source != "a.c" {
					t.Errorf("%s is read", source)
				}
				return []byte(c.unpatched)
			})
			if got := w.why("a.c", c.function); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
