package diff_test

// Pin against the real preprocessor.
//
// A program is a row of fragments, each whole in itself: a statement, a comment,
// a macro call over several lines, a #if with fragments in its branches. Each
// statement holds a marker, "mark_7 __LINE__;". Edits add, remove and change
// lines; after pinning, the preprocessor must give each marker that stands in an
// unedited fragment the number it had before, however the branches are taken.

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klpc/klpc/diff"
	"github.com/klpc/klpc/internal/testutil/objcache"
)

// programLine is one line of a generated program.
type programLine struct {
	text string
	// insert is a line that can be added before this one, and removed again;
	// empty if the program would fall apart.
	insert string
	// whole: the line can be removed or changed
	whole bool
	// fragment is the innermost fragment that the line belongs to.
	fragment int
}

type program struct {
	r         *rand.Rand
	lines     []programLine
	fragments int
	markers   int
}

func (p *program) add(fragment int, insert, text string) {
	p.lines = append(p.lines, programLine{text: text, insert: insert, fragment: fragment})
}

// marker returns a statement that shows its line.
func (p *program) marker() string {
	p.markers++
	return fmt.Sprintf("mark_%d __LINE__;", p.markers)
}

// fragment adds one fragment; depth limits how deep #if may nest.
func (p *program) fragment(depth int) {
	p.fragments++
	id := p.fragments
	const statement, argument, words = "added();", "added,", "added words (that"
	switch p.r.IntN(12) {
	default:
		p.lines = append(p.lines, programLine{text: p.marker(), insert: statement, whole: true, fragment: id})
	case 5:
		p.add(id, statement, "before(); /* it's a (comment")
		p.add(id, words, ` "with" many \`)
		p.add(id, words, " * lines ( */ "+p.marker())
	case 6:
		p.add(id, statement, "call(1,")
		p.add(id, argument, `  ")(\"", ')', '\'', (2),`)
		p.add(id, argument, "  4) ; // it's (")
	case 7:
		p.add(id, statement, fmt.Sprintf(`#define MACRO%d(a) \`, id))
		p.add(id, `  added( \`, `	do_it(a \`)
		p.add(id, `  added( \`, `	; /* ( */`)
	case 8:
		p.add(id, statement, `string = "begun \`)
		p.add(id, `added (text \`, `and ended ("; // a comment \`)
		p.add(id, `added (text \`, `which goes on (`)
	case 9:
		p.add(id, statement, fmt.Sprintf("#define F%d(x) x", id))
		p.add(id, statement, fmt.Sprintf("F%d", id))
		p.add(id, "", "  (3) ; "+p.marker())
	case 10:
		p.branch(id, depth, []string{"#if 0", "#if 1", "#ifdef X", "#ifndef X", "#if defined(X) && \\\n 1"}[p.r.IntN(5)])
	case 11:
		p.add(id, statement, "if (a &&")
		p.add(id, "", "#ifdef X")
		p.add(id, "added &&", "  b)")
		p.add(id, "", "#else")
		p.add(id, "added &&", "  c)")
		p.add(id, "", "#endif")
		p.add(id, statement, "  d;")
	}
}

// branch adds a #if with fragments in its branches.
func (p *program) branch(id, depth int, directive string) {
	if depth == 0 {
		p.add(id, "added();", "plain();")
		return
	}
	first, second, _ := strings.Cut(directive, "\n")
	p.add(id, "added();", first)
	if second != "" {
		p.add(id, "", second)
	}
	for _, next := range []string{"#elif defined(Y)", "#else", "#endif"} {
		for range p.r.IntN(4) {
			p.fragment(depth - 1)
		}
		if next == "#endif" || p.r.IntN(2) == 0 {
			p.add(id, "added();", next)
		}
	}
}

func (p *program) text() string {
	var b strings.Builder
	for _, l := range p.lines {
		b.WriteString(l.text + "\n")
	}
	return b.String()
}

// edited returns a program with a few edits, and which fragments they touched.
func (p *program) edited() (text string, touched map[int]bool) {
	touched = make(map[int]bool)
	var b strings.Builder
	for _, l := range p.lines {
		switch n := p.r.IntN(30); {
		case n == 0 && l.insert != "":
			for range 1 + p.r.IntN(3) {
				b.WriteString(l.insert + "\n")
			}
			touched[l.fragment] = true
			b.WriteString(l.text + "\n")
		case n == 1 && l.whole:
			touched[l.fragment] = true
		case n == 2 && l.whole:
			b.WriteString("changed();\nchanged();\n")
			touched[l.fragment] = true
		default:
			b.WriteString(l.text + "\n")
		}
	}
	return b.String(), touched
}

var markerLine = regexp.MustCompile(`mark_(\d+) (\d+)\s*;`)

// preprocess returns the line of each marker that is compiled.
func preprocess(t *testing.T, source []byte, define string) map[string]string {
	t.Helper()
	out, err := objcache.Try(t, objcache.Job{
		Files: map[string]string{"unit.c": string(source)},
		Steps: [][]string{{"gcc", "-std=gnu11", "-E", "-P", "-w", define, "-o", "unit.i", "unit.c"}},
		Out:   "unit.i",
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, source)
	}
	lines := make(map[string]string)
	for _, m := range markerLine.FindAllStringSubmatch(string(out), -1) {
		lines[m[1]] = m[2]
	}
	return lines
}

func TestPinAgainstPreprocessor(t *testing.T) {
	needTool(t, "gcc", "diff")
	checked := 0
	for seed := range uint64(25) {
		p := &program{r: rand.New(rand.NewPCG(seed, 2))}
		for range 40 {
			p.fragment(3)
		}
		old := []byte(p.text())
		text, touched := p.edited()
		if text == string(old) {
			continue
		}
		skip := make(map[string]bool)
		for _, l := range p.lines {
			if m := regexp.MustCompile(`mark_(\d+)`).FindStringSubmatch(l.text); m != nil && touched[l.fragment] {
				skip[m[1]] = true
			}
		}
		patch, err := diff.Parse("p", makeDiff(t, t.TempDir(), old, []byte(text), "-U0"))
		if err != nil {
			t.Fatal(err)
		}
		a := minimalEdits(t, patch, old, text)
		pinned := a.Pin()
		if d := cmp.Diff(text, withoutPins(pinned)); d != "" {
			t.Fatalf("seed %d: pinning changed the text:\n%s", seed, d)
		}
		for _, define := range []string{"-DX", "-DY", "-DNONE"} {
			want, got := preprocess(t, old, define), preprocess(t, pinned, define)
			for marker, line := range want {
				if g, found := got[marker]; found && g != line && !skip[marker] {
					t.Errorf("seed %d %s: mark_%s is on line %s, want %s\n%s", seed, define, marker, g, line, pinned)
				}
				checked++
			}
		}
		if t.Failed() {
			return
		}
	}
	if checked < 500 {
		t.Errorf("only %d markers checked", checked)
	}
}

// minimalEdits makes an Applied from a diff without context.
func minimalEdits(t *testing.T, p *diff.Patch, old []byte, text string) *diff.Applied {
	t.Helper()
	a := &diff.Applied{Content: []byte(text)}
	for _, h := range p.Files[0].Hunks {
		e := diff.Edit{OldStart: h.OldStart, OldLines: h.OldLines, NewStart: h.NewStart, NewLines: h.NewLines}
		if e.OldLines == 0 {
			e.OldStart++
		}
		if e.NewLines == 0 {
			e.NewStart++
		}
		a.Edits = append(a.Edits, e)
	}
	return a
}

func withoutPins(source []byte) string {
	var b strings.Builder
	for line := range strings.Lines(string(source)) {
		if !strings.HasPrefix(line, "#line ") {
			b.WriteString(line)
		}
	}
	return b.String()
}
