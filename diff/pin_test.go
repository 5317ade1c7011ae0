package diff_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klpc/klpc/diff"
)

// marked makes an Applied from lines that begin with ' ' (kept), '+' (added),
// '-' (removed) or '!' (only in the result of Pin), and that result.
func marked(lines string) (a *diff.Applied, want string) {
	a = &diff.Applied{}
	var content, pinned strings.Builder
	oldLine, newLine := 1, 1
	inEdit := false
	for line := range strings.Lines(strings.TrimPrefix(lines, "\n")) {
		kind, text := line[0], line[1:]
		if kind == '!' {
			pinned.WriteString(text)
			continue
		}
		if kind == ' ' {
			inEdit = false
		} else if !inEdit {
			inEdit = true
			a.Edits = append(a.Edits, diff.Edit{OldStart: oldLine, NewStart: newLine})
		}
		if kind != '+' {
			oldLine++
		}
		if kind != '-' {
			newLine++
			content.WriteString(text)
			pinned.WriteString(text)
		}
		if inEdit {
			e := &a.Edits[len(a.Edits)-1]
			e.OldLines, e.NewLines = oldLine-e.OldStart, newLine-e.NewStart
		}
	}
	a.Content = []byte(content.String())
	return a, pinned.String()
}

func TestPin(t *testing.T) {
	for _, test := range []struct{ name, lines string }{
		{"added", "\n a;\n+b;\n!#line 2\n c;\n d;\n"},
		{"removed", "\n a;\n-b;\n!#line 3\n c;\n"},
		{"removed at the beginning", "\n-a;\n-b;\n!#line 3\n c;\n"},
		{"changed needs none", "\n a;\n-b;\n+B;\n c;\n"},
		{"changed and grown", "\n a;\n-b;\n+B;\n+B;\n!#line 3\n c;\n"},
		{"no edits", "\n a;\n b;\n"},
		{"empty", ""},
		{"nothing after", "\n a;\n+b;\n"},
		{"two edits", "\n a;\n+b;\n!#line 2\n c;\n+d;\n!#line 3\n e;\n"},
		{"two edits that make up for each other", "\n a;\n+b;\n!#line 2\n c;\n-d;\n!#line 4\n e;\n"},
		{"blank line", "\n a;\n+b;\n!#line 2\n \n c;\n"},
		{"CR LF", "\n a;\r\n+b;\r\n!#line 2\r\n c;\r\n"},

		{"comment", "\n /* a\n+ * b\n  * c\n  */\n!#line 4\n d;\n"},
		{"comment ends on an edited line", "\n /* a\n+ * b */ c; /* d\n  */ e;\n!#line 3\n f;\n"},
		{"line comment goes on", "\n // a \\\n+b \\\n c\n!#line 3\n d;\n"},
		{"slash is no comment", "\n a = b /\n+ c;\n!#line 2\n d;\n"},
		{"comment opener over two lines", "\n a /\\\n+* b\n * c\n */\n!#line 4\n d;\n"},
		{"string", "\n a = \"b \\\n+c (\\\n d\";\n!#line 3\n e;\n"},
		{"string with quote and comment", "\n a = \"\\\"/*(\"; b = '\\''; c = '\"';\n+d;\n!#line 2\n e;\n"},
		{"string is not closed", "\n #if 0\n don't (\n #endif\n+a;\n!#line 4\n b;\n"},
		{"raw string", "\n a = R\"x(b\n+/* \\\n )\" )x\";\n!#line 3\n c;\n"},
		{"macro named R", "\n a = R \"x(b\" \"c\";\n+d;\n!#line 2\n e;\n"},
		{"raw string that is none", "\n a = R\"b c(\";\n+d;\n!#line 2\n e;\n"},
		{"not R", "\n a = XR\"(\";\n+d;\n!#line 2\n e;\n"},

		{"parentheses", "\n a(b,\n+c,\n d,\n (e));\n!#line 4\n f;\n"},
		{"parentheses end on an edited line", "\n a(b,\n-c);\n+c,\n+d);\n!#line 3\n e;\n"},
		{"braces", "\n a()\n {\n+b;\n!#line 3\n c;\n }\n"},
		{"parenthesis in a character", "\n a = '(';\n+b;\n!#line 2\n c;\n"},
		{"more closed than opened", "\n a)));\n+b;\n!#line 2\n c;\n"},
		{"argument list on the next line", "\n a\n+/* b */\n (c);\n!#line 3\n d;\n"},
		{"argument list after a call", "\n a(1)\n+/* b */\n (c);\n!#line 3\n d;\n"},
		{"parenthesis after a semicolon", "\n a;\n+b;\n!#line 2\n (c)();\n"},
		{"parenthesis after a number", "\n 1\n+/* b */\n!#line 2\n (c);\n"},

		{"two edits before a place", "\n a(b,\n+c,\n d,\n-e,\n-f,\n g);\n!#line 6\n h;\n"},
		{"two edits before a place that make up", "\n a(b,\n+c,\n d,\n-e,\n f);\n g;\n"},
		{"growth, then as many lines", "\n a(b,\n+c,\n d,\n-e,\n+E,\n f);\n!#line 5\n g;\n"},

		{"multi-line macro", "\n #define A \\\n+b \\\n c\n!#line 3\n d;\n"},
		{"macro with an open parenthesis", "\n #define A (\n+b;\n!#line 2\n c;\n"},
		{"blank after the backslash", "\n #define A \\ \n+b \\\t\n c\n!#line 3\n d;\n"},
		{"macro with a comment", "\n #define A /* b\n+c\n d */ (e\n!#line 3\n f;\n"},
		{"before a directive", "\n a;\n+b;\n!#line 2\n #include \"c\"\n d;\n"},
		{"hash within a line", "\n a # if\n+b;\n!#line 2\n c;\n"},
		{"directive after a comment", "\n /* a */ # /* b */ if 0\n (\n /*\n */ #endif\n+c;\n!#line 5\n d;\n"},

		{"within #if", "\n #if A\n+b;\n!#line 2\n c;\n #endif\n!#line 4\n d;\n e;\n"},
		{"last of #if", "\n #if A\n b;\n+c;\n #endif\n!#line 4\n d;\n"},
		{"all branches", "\n #if A\n+b;\n!#line 2\n c;\n #elif B\n!#line 4\n d;\n #else\n!#line 6\n e;\n #endif\n!#line 8\n f;\n"},
		{"nested", "\n #if A\n #if B\n+c;\n!#line 3\n d;\n #endif\n!#line 5\n e;\n #endif\n!#line 7\n f;\n"},
		{"nested after", "\n #if A\n #if B\n c;\n #endif\n+d;\n!#line 5\n e;\n #endif\n!#line 7\n f;\n #if C\n #endif\n g;\n"},
		{"before #if", "\n a;\n+b;\n!#line 2\n #if C\n d;\n #endif\n e;\n"},
		{"no place in the branch", "\n #if A\n b(\n+c,\n #else\n!#line 4\n d(\n #endif\n e);\n!#line 7\n f;\n"},
		{"depth at #else", "\n a(\n #if B\n c);\n #else\n+d,\n e);\n #endif\n!#line 7\n f;\n"},
		{"dead branch with a parenthesis", "\n #if 0\n (\n #else\n a;\n #endif\n+b;\n!#line 6\n c;\n"},
		{"branch after #if 1", "\n #if 1\n a;\n #else\n (\n #endif\n+b;\n!#line 6\n c;\n"},
		{"#if 0 || A is not dead", "\n #if 0 || A\n b(\n #else\n b(\n #endif\n+c,\n d);\n!#line 7\n e;\n"},
		{"branch without else opens", "\n a() {\n #if B\n c(\n #endif\n+d;\n e;\n!#line 6\n };\n f;\n"},
		{"stray #else and #endif", "\n #else\n #endif\n+a;\n!#line 3\n b;\n"},

		{"own directive before", "\n a;\n #line 100 \"x\"\n b;\n+c;\n!#line 101\n d;\n"},
		{"own directive after", "\n a(\n+b,\n #line 100\n c);\n d;\n"},
		{"own marker", "\n # 7 \"x\"\n+a;\n!#line 7\n b;\n"},
		{"own directive in another branch", "\n #if A\n #line 7\n b;\n #endif\n c;\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, want := marked(test.lines)
			before := string(a.Content)
			got := string(a.Pin())
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if d := cmp.Diff(before, string(a.Content)); d != "" {
				t.Errorf("content changed (-before +after):\n%s", d)
			}
		})
	}
}
