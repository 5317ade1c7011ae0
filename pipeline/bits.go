package pipeline

// Bits that macros name.
//
// Debug information does not hold macros. So their definitions are compared in the
// texts of the patch's files: a macro whose value is one bit before and after, and
// another bit after, changes what that bit means in every field that it is used
// with.

import (
	"bytes"
	"math/bits"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/typediff"
)

// BitChanged: a macro names another bit.
const BitChanged typediff.Kind = "bit-changed"

// macro is an object-like macro.
type macro struct {
	line int
	body string
}

var defineLine = regexp.MustCompile(`^[ \t]*#[ \t]*define[ \t]+([A-Za-z_]\w*)[ \t]+(.+)$`)

// macros reads the object-like macros of a text, by name. Those that are defined
// twice have no entry.
func macros(text []byte) map[string]macro {
	out := map[string]macro{}
	twice := map[string]bool{}
	for i, line := range strings.Split(string(text), "\n") {
		m := defineLine.FindStringSubmatch(line)
		if m == nil || strings.HasSuffix(line, "\\") {
			continue
		}
		if _, ok := out[m[1]]; ok {
			twice[m[1]] = true
		}
		body, _, _ := strings.Cut(m[2], "/*")
		body, _, _ = strings.Cut(body, "//")
		out[m[1]] = macro{i + 1, strings.Join(strings.Fields(body), " ")}
	}
	for name := range twice {
		delete(out, name)
	}
	return out
}

var (
	number = regexp.MustCompile(`^\(*(0[xX][0-9a-fA-F]+|\d+)[uUlL]*\)*$`)
	shift  = regexp.MustCompile(`^\(*(?:0x)?1[uUlL]*\)?\s*<<\s*\(?(\d+)\)*$`)
	bitOf  = regexp.MustCompile(`^\(?(?:BIT|_BITUL|_BITULL|BIT_ULL)\((\d+)\)\)?$`)
)

// value is that of a constant as flags are written.
func value(body string) (uint64, bool) {
	if m := number.FindStringSubmatch(body); m != nil {
		v, err := strconv.ParseUint(m[1], 0, 64)
		return v, err == nil
	}
	for _, re := range []*regexp.Regexp{shift, bitOf} {
		if m := re.FindStringSubmatch(body); m != nil {
			n, err := strconv.ParseUint(m[1], 10, 6)
			return 1 << n, err == nil
		}
	}
	return 0, false
}

// changedMacro is a macro with two values.
type changedMacro struct {
	name     string
	file     *touched
	line     int
	old, now uint64
}

// changedMacros lists the macros of the patch's files that have another value,
// by file and name.
func (b *builder) changedMacros() []changedMacro {
	var out []changedMacro
	for i := range b.files {
		f := &b.files[i]
		if f.content == nil || f.isNew || slices.Contains(b.report.NoEffect, f.path) {
			continue
		}
		before, after := macros(f.old), macros(*f.content)
		for name, m := range after {
			was, ok := before[name]
			if !ok || was.body == m.body {
				continue
			}
			x, ok1 := value(was.body)
			y, ok2 := value(m.body)
			if ok1 && ok2 && x != y {
				out = append(out, changedMacro{name, f, m.line, x, y})
			}
		}
	}
	slices.SortFunc(out, func(x, y changedMacro) int {
		return strings.Compare(x.file.path+" "+x.name, y.file.path+" "+y.name)
	})
	return out
}

// changedBits are the macros of one bit that become another bit and are used
// with a field.
func (b *builder) changedBits() []ReportLayout {
	var out []ReportLayout
	for _, m := range b.changedMacros() {
		oneBit := bits.OnesCount64(m.old) == 1 && bits.OnesCount64(m.now) == 1
		field, functions := b.fieldOfMacro(m.name, oneBit)
		if field == "" {
			continue
		}
		old, now := int64(m.old), int64(m.now)
		text := strings.TrimSpace(string(bytes.Split(*m.file.content, []byte("\n"))[m.line-1]))
		out = append(out, ReportLayout{Type: m.name, File: m.file.path, Line: m.line, Functions: functions,
			Changes: []FieldChange{{Kind: BitChanged, Field: field, Line: m.line, Text: text, From: m.name, OldValue: &old, NewValue: &now}}})
	}
	return out
}

// fieldOfMacro finds a field that a macro is used with in the sources of the
// units that change, as a mask if it is one bit or as the number of a bit, and
// the changed functions of these units.
func (b *builder) fieldOfMacro(name string, oneBit bool) (field string, functions []string) {
	word := regexp.QuoteMeta(name)
	uses := []*regexp.Regexp{regexp.MustCompile(`_bit\w*\(\s*` + word + `\s*,\s*&[^;]*(?:->|\.)\s*(\w+)`)} // set_bit(F, &x->flags)
	if oneBit {
		uses = append(uses,
			regexp.MustCompile(`(?:->|\.)\s*(\w+)\s*(?:[&|^]=?)[^;]*\b`+word+`\b`), // x->flags & F, |= F, &= ~F
			regexp.MustCompile(`\b`+word+`\b\s*[&|][^;]*(?:->|\.)\s*(\w+)`),
			regexp.MustCompile(`(?:->|\.)\s*(\w+)\s*=[^=;]*\b`+word+`\b`))
	}
	for i := range b.pairs {
		p := &b.pairs[i]
		if p.diff.Verdict == elfdiff.Unchanged {
			continue
		}
		found := false
		for _, text := range b.textsOf(b.sel.after(p.unit).Source) {
			for _, re := range uses {
				if m := re.FindSubmatch(text); m != nil {
					field, found = string(m[1]), true
				}
			}
		}
		if !found {
			continue
		}
		for _, f := range p.diff.Functions {
			if f.Kind == elfdiff.IsChanged {
				functions = append(functions, f.Name())
			}
		}
	}
	return field, union(nil, functions)
}

// textsOf are the texts of a source and of the headers of the patch.
func (b *builder) textsOf(source string) [][]byte {
	var out [][]byte
	own := false
	for _, f := range b.files {
		if f.content != nil && (f.path == source || strings.HasSuffix(f.path, ".h")) {
			out = append(out, *f.content)
			own = own || f.path == source
		}
	}
	if !own {
		out = append(out, b.original(source))
	}
	return out
}

// original is the text of a source without the patch; nil if the source tree does
// not have the file: it is new, or generated.
func (b *builder) original(source string) []byte {
	text, err := os.ReadFile(filepath.Join(b.kernel.Tree.Source, source))
	if err != nil {
		return nil
	}
	return text
}
