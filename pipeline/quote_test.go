package pipeline

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/diff"
	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
)

const quotedOld = `#include <linux/fs.h>

static int limit = 4;
static const struct file_operations ops = {
	.open = first,
	.release = last,
};

static int helper(int x)
{
	return x + limit;
}

int f(int x)
{
	int y = helper(x);

	mutex_lock(&a);
	use(&ops);
	mutex_unlock(&a);
	return y;
}

SYSCALL_DEFINE1(beep, int, x)
{
	return x;
}
`

// edited is a file of a patch, from pairs of old and new text.
func edited(t *testing.T, path, old string, edits ...string) touched {
	t.Helper()
	text := old
	for i := 0; i < len(edits); i += 2 {
		if strings.Count(text, edits[i]) != 1 {
			t.Fatalf("%q stands %d times in the text", edits[i], strings.Count(text, edits[i]))
		}
		text = strings.Replace(text, edits[i], edits[i+1], 1)
	}
	content := []byte(text)
	return touched{path: path, old: []byte(old), content: &content, edits: diff.Between([]byte(old), content).Edits}
}

func TestQuote(t *testing.T) {
	for _, tt := range []struct {
		name           string
		edits          []string
		symbol, detail string
		want           string // empty: nothing is quoted
	}{
		{"the edited line of a variable", []string{"limit = 4", "limit = 5"}, "limit", "", "a.c:3: static int limit = 5;"},
		{"the edited line of an initialiser", []string{"last", "other"}, "ops", "", "a.c:6: .release = other,"},
		{"where an initialiser has lost a line", []string{"\t.release = last,\n", ""}, "ops", "", "a.c:5: .open = first,"},
		{"the edited line of a function", []string{"x + limit", "x - limit"}, "helper", "", "a.c:11: return x - limit;"},
		{"of a part of it", []string{"x + limit", "x - limit"}, "helper.cold", "", "a.c:11: return x - limit;"},
		{"the line that names what the problem names", []string{"y = helper(x)", "y = helper(x) + 1", "use(&ops)", "use(&init_ops)"}, "f", "f refers to init_ops", "a.c:19: use(&init_ops);"},
		{"a function that only calls the edited one", []string{"x + limit", "x - limit"}, "f", "", "a.c:14: int f(int x)"},
		{"a system call", []string{"return x;\n", "return x + 1;\n"}, "__do_sys_beep", "", "a.c:26: return x + 1;"},
		{"what the file does not define", []string{"limit = 4", "limit = 5"}, "elsewhere", "", ""},
		{"what has no name", []string{"limit = 4", "limit = 5"}, "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			problems := []elfdiff.Problem{{At: elfobj.Pos{Object: "a.c", Symbol: tt.symbol}, Detail: tt.detail}}
			quote(problems, []touched{edited(t, "a.c", quotedOld, tt.edits...)})
			got := ""
			if l := problems[0].Source; l != nil {
				got = l.String()
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestQuoteHeader(t *testing.T) {
	header := edited(t, "include/a.h", "static inline int h(int x)\n{\n\treturn x;\n}\n", "return x", "return x + 1")
	other := edited(t, "b.c", "int h(int x)\n{\n\treturn x;\n}\n", "return x", "return x + 2")
	problems := []elfdiff.Problem{{At: elfobj.Pos{Object: "a.c", Symbol: "h"}}}
	quote(problems, []touched{other, header})
	want := &elfdiff.Line{File: "include/a.h", Line: 3, Text: "return x + 1;"}
	if d := cmp.Diff(want, problems[0].Source); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}
