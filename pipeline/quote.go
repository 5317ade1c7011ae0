package pipeline

// The line of the patched source that a problem is about. A problem knows the
// symbol; the patch knows the lines. Of a function, the line is the first edited
// one, before others one that names something else that the problem names; of a
// variable, the first edited line of its definition. What the patch does not
// edit is quoted by the line where it is defined.

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/klpc/klpc/diff"
	"github.com/klpc/klpc/elfdiff"
)

// quote fills in the source lines of problems, where they can be known.
func quote(problems []elfdiff.Problem, files []touched) {
	for i := range problems {
		if p := &problems[i]; p.Source == nil {
			p.Source = sourceOf(p, files)
		}
	}
}

// sourceOf looks in the unit's own file first, then in the patch's headers.
func sourceOf(p *elfdiff.Problem, files []touched) *elfdiff.Line {
	name, _, _ := strings.Cut(p.At.Symbol, ".")
	if name == "" {
		return nil
	}
	own := func(f touched) bool { return f.path == p.At.Object }
	for _, wanted := range []func(touched) bool{own, func(f touched) bool { return !own(f) && path.Ext(f.path) != ".c" }} {
		for _, f := range files {
			if f.content == nil || !wanted(f) {
				continue
			}
			s := sourceText{file: f.path, lines: strings.Split(string(*f.content), "\n"), edits: f.edits, isNew: f.isNew}
			if l := s.find(name, p.Detail, diff.Functions(*f.content)); l != nil {
				return l
			}
		}
	}
	return nil
}

// sourceText is a patched file. Line numbers are 1-based.
type sourceText struct {
	file  string
	lines []string
	edits []diff.Edit
	isNew bool
}

func (s *sourceText) find(name, detail string, funcs []diff.Function) *elfdiff.Line {
	for _, f := range funcs {
		if f.Name == name || strings.HasSuffix(name, "_sys_"+f.Name) {
			return s.within(f.First, f.Last, detail, name)
		}
	}
	if first, last := s.definition(name); first > 0 {
		return s.within(first, last, "", name)
	}
	return nil
}

// within picks the line to quote between two lines, of which the first is quoted
// if nothing is edited there.
func (s *sourceText) within(first, last int, detail, name string) *elfdiff.Line {
	edited := 0
	for n := first; n <= min(last, len(s.lines)); n++ {
		text := s.lines[n-1]
		if !s.edited(n) || strings.Trim(text, " \t\r{};*/") == "" {
			continue
		}
		if sharesWord(text, detail, name) {
			return s.line(n)
		}
		if edited == 0 {
			edited = n
		}
	}
	if edited == 0 {
		edited = first
	}
	return s.line(edited)
}

func (s *sourceText) line(n int) *elfdiff.Line {
	return &elfdiff.Line{File: s.file, Line: n, Text: strings.TrimSpace(s.lines[n-1])}
}

// edited tells whether a line is new, or stands beside others that have been
// removed.
func (s *sourceText) edited(n int) bool {
	return s.isNew || slices.ContainsFunc(s.edits, func(e diff.Edit) bool {
		if e.NewLines == 0 {
			return n == e.NewStart-1 || n == e.NewStart
		}
		return n >= e.NewStart && n < e.NewStart+e.NewLines
	})
}

var word = regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_]{2,}`)

// sharesWord tells whether a line names something of the detail other than the
// symbol itself.
func sharesWord(text, detail, name string) bool {
	return slices.ContainsFunc(word.FindAllString(text, -1), func(w string) bool {
		return w != name && strings.Contains(w, "_") && slices.Contains(word.FindAllString(detail, -1), w)
	})
}

// definition returns the first and last line of a variable's definition: from
// its name, followed by an initialiser or the end of the declaration, to the
// semicolon. Both are 0 if there is none.
func (s *sourceText) definition(name string) (first, last int) {
	re := regexp.MustCompile(`^[^=;(]*\b` + regexp.QuoteMeta(name) + `\b\s*(\[[^\]]*\]\s*)*([A-Za-z_]\w*(\([^()]*\))?\s*)*(=|;|$)`)
	for i, text := range s.lines {
		if !re.MatchString(text) || strings.HasPrefix(strings.TrimSpace(text), "extern ") || strings.HasPrefix(strings.TrimSpace(text), "return ") {
			continue
		}
		depth := 0
		for j := i; j < len(s.lines); j++ {
			depth += strings.Count(s.lines[j], "{") - strings.Count(s.lines[j], "}")
			if depth <= 0 && strings.Contains(s.lines[j], ";") {
				return i + 1, j + 1
			}
		}
	}
	return 0, 0
}
