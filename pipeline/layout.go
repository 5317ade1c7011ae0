package pipeline

// The layout gate.
//
// A livepatch changes functions, not the objects that the running kernel holds
// already. So a struct, union or enum that the patch changes is a problem unless
// no such object can exist, or the author has said that it does not matter.
//
// The types of each unit that changes are compared by the debug information of its
// two objects (typediff). That is left out if the texts of the patch's files show
// that it cannot find anything: if all that changes lies in function bodies,
// prototypes and variables. A type that changes only in units whose code stays the
// same is no problem: their code is right for both.

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/klpc/klpc/diff"
	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/kbuild"
	"github.com/klpc/klpc/typediff"
)

// The problems that the layout gate finds.
const (
	// LayoutChanged: existing objects do not fit the patched code.
	LayoutChanged elfdiff.ProblemKind = "layout-changed"
	// LayoutUnknown: the types could not be compared.
	LayoutUnknown elfdiff.ProblemKind = "layout-unknown"
)

// LayoutVerdict is what a changed type means for the livepatch.
type LayoutVerdict string

// The verdicts on a changed type.
const (
	LayoutRefused  LayoutVerdict = "refused"
	LayoutAllowed  LayoutVerdict = "allowed"    // by --allow-layout-change
	LayoutHarmless LayoutVerdict = "harmless"   // existing objects stay valid
	LayoutOnStack  LayoutVerdict = "stack-only" // no object outlives the functions that use it
)

// ReportLayout is a type that the patch changes.
type ReportLayout struct {
	Type    string        `json:"type"` // "struct foo", "enum bar", a typedef's or a macro's name
	File    string        `json:"file"` // tree-relative
	Line    int           `json:"line,omitempty"`
	Verdict LayoutVerdict `json:"verdict"`
	OldSize int64         `json:"old_size"` // bytes; 0 for macros
	NewSize int64         `json:"new_size"`
	Changes []FieldChange `json:"changes"`
	Within  []string      `json:"within,omitempty"` // types that hold it by value
	// Functions have a variable or parameter of the type, or a pointer to it;
	// for enums and macros, which such variables do not show, they are the
	// changed functions of the units that see it.
	Functions []string `json:"functions"`
	Variables []string `json:"variables,omitempty"`

	linked  bool
	sources []string // of the units that see it, sorted
	changed []string // functions of these that change
}

// FieldChange is one change of a type.
type FieldChange struct {
	Kind  typediff.Kind `json:"kind"`
	Field string        `json:"field,omitempty"`
	Line  int           `json:"line,omitempty"`
	Text  string        `json:"text,omitempty"` // the source line
	Old   *FieldPlace   `json:"old,omitempty"`
	New   *FieldPlace   `json:"new,omitempty"`
	From  string        `json:"from,omitempty"`
	To    string        `json:"to,omitempty"`
	// FitsInPadding: an added field lies between fields of before (After,
	// Before; empty: at an end), and the type keeps its size.
	FitsInPadding bool   `json:"fits_in_padding,omitempty"`
	After         string `json:"after,omitempty"`
	Before        string `json:"before,omitempty"`
	SharesWith    string `json:"shares_with,omitempty"`
	OldValue      *int64 `json:"old_value,omitempty"`
	NewValue      *int64 `json:"new_value,omitempty"`
}

// FieldPlace is where a field lies in its type.
type FieldPlace struct {
	Offset int64 `json:"offset"` // bytes
	Size   int64 `json:"size"`   // bytes; 0 for bit-fields
	Bit    int64 `json:"bit,omitempty"`
	Bits   int64 `json:"bits,omitempty"` // bit-fields
}

func newPlace(p typediff.Place) *FieldPlace {
	f := &FieldPlace{Offset: p.Off / 8, Size: p.Bits / 8}
	if p.Off%8 != 0 || p.Bits%8 != 0 {
		f.Size, f.Bit, f.Bits = 0, p.Off%8, p.Bits
	}
	return f
}

// typesMayChange tells whether the files of the patch define other types, or
// other macros, than before.
func (b *builder) typesMayChange() bool {
	return slices.ContainsFunc(b.files, func(f touched) bool {
		if ext := path.Ext(f.path); ext != ".c" && ext != ".h" {
			return true
		}
		if f.isNew || f.content == nil {
			return true
		}
		was, ok := diff.TypeText(f.old)
		now, ok2 := diff.TypeText(*f.content)
		return !ok || !ok2 || was != now
	})
}

// debugFlags are what the command of a unit lacks for whole types in the object.
// They change no code (gcc: -fcompare-debug tests that).
func debugFlags(u kbuild.Unit) []string {
	var out []string
	debug := false
	for _, a := range u.Args {
		switch {
		case strings.HasPrefix(a, "-femit-struct-debug"):
			out = append(out, "-femit-struct-debug-detailed=all") // DEBUG_INFO_REDUCED
		case strings.HasPrefix(a, "-gz"):
			out = append(out, "-gz=none")
		case a == "-gsplit-dwarf":
			out = append(out, "-gno-split-dwarf")
		case a == "-g0" || a == "-g1" || a == "-gmlt" || a == "-gline-tables-only":
			debug = false
		case a == "-g" || a == "-g2" || a == "-g3" || strings.HasPrefix(a, "-gdwarf") || strings.HasPrefix(a, "-ggdb"):
			debug = true
		}
	}
	if !debug {
		out = append(out, "-g")
	}
	return out
}

// compareTypes compares the types of a unit whose code changes.
func (b *builder) compareTypes(p *pair) {
	if !b.gated || b.sel.fresh[p.unit.Object] {
		return
	}
	orig, err := typediff.Read(p.orig)
	var patched *typediff.Unit
	if err == nil {
		patched, err = typediff.Read(p.patched)
	}
	if err != nil {
		p.typeProblems = append(p.typeProblems, elfdiff.Problem{Kind: LayoutUnknown, At: elfobj.Pos{Object: p.unit.Source},
			Detail: fmt.Sprintf("the patch changes types, and those of this unit cannot be compared: %v", err),
			Hint:   "move the change out of headers and types; or if you have checked every type, --allow-layout-change all"})
		return
	}
	p.types = typediff.Compare(orig, patched)
	if len(p.types) > 0 {
		p.samePrototype = map[string]bool{}
		for _, name := range p.diff.Orig.Exports {
			p.samePrototype[name] = typediff.SamePrototype(orig, patched, name)
		}
	}
}

// judgeLayout decides about all changed types and returns the problems. With
// them the versions of exported symbols are decided about.
func (b *builder) judgeLayout() []elfdiff.Problem {
	var problems []elfdiff.Problem
	layouts := b.mergeTypes()
	if b.gated {
		layouts = append(layouts, b.changedBits()...)
	}
	used := map[string]bool{}
	for i := range layouts {
		l := &layouts[i]
		allowed := b.allows(l.Type, used)
		switch {
		case l.Verdict != "":
		case allowed:
			l.Verdict = LayoutAllowed
		default:
			l.Verdict = LayoutRefused
		}
		switch l.Verdict {
		case LayoutRefused:
			problems = append(problems, elfdiff.Problem{Kind: LayoutChanged, At: elfobj.Pos{Object: l.File, Symbol: l.Type},
				Source: l.source(), Detail: l.detail(), Hint: l.hint()})
		case LayoutAllowed:
			b.report.Notes = append(b.report.Notes, fmt.Sprintf("%s: the change of %s is allowed by --allow-layout-change: %s", l.File, l.Type, l.detail()))
		case LayoutHarmless:
			b.report.Notes = append(b.report.Notes, fmt.Sprintf("%s: %s changes, and existing objects stay valid: %s", l.File, l.Type, l.detail()))
		case LayoutOnStack:
			b.report.Notes = append(b.report.Notes, fmt.Sprintf("%s: %s changes; it exists only while functions of %s run: %s", l.File, l.Type, l.File, l.detail()))
		}
	}
	for i := range b.pairs {
		p := &b.pairs[i]
		for _, pr := range p.typeProblems {
			if b.allows("all", used) {
				b.report.Notes = append(b.report.Notes, pr.At.Object+": "+pr.Detail+"; allowed by --allow-layout-change all")
				continue
			}
			problems = append(problems, pr)
		}
	}
	for _, name := range b.o.AllowLayout {
		if !used[name] {
			b.report.Notes = append(b.report.Notes, fmt.Sprintf("--allow-layout-change %s: the patch changes no layout of that name", name))
		}
	}
	b.report.Layout = layouts
	return append(problems, b.versionProblems(layouts)...)
}

// source is the first line of the type that changes; nil if it is not known.
func (l *ReportLayout) source() *elfdiff.Line {
	for _, c := range l.Changes {
		if c.Text != "" {
			return &elfdiff.Line{File: l.File, Line: c.Line, Text: c.Text}
		}
	}
	return nil
}

// allows tells whether the author accepts the change of a type, named with its
// keyword or without.
func (b *builder) allows(name string, used map[string]bool) bool {
	found := false
	for _, a := range b.o.AllowLayout {
		want := strings.Join(strings.Fields(a), " ")
		if _, tag, _ := strings.Cut(name, " "); want == name || want == tag && !strings.HasPrefix(name, "enum {") || want == "all" {
			used[a], found = true, true
		}
	}
	return found
}

// versionProblems are the changed versions of exported symbols. If a unit's
// prototypes are the same, the types that they reach make the difference: those
// have been decided about, and if one is refused, that is the problem to solve.
func (b *builder) versionProblems(layouts []ReportLayout) []elfdiff.Problem {
	var out []elfdiff.Problem
	for i := range b.pairs {
		p := &b.pairs[i]
		known, refused := len(p.types) > 0, false
		for _, t := range p.types {
			i := slices.IndexFunc(layouts, func(l ReportLayout) bool { return l.Type == t.Name && l.File == b.treeName(t.File) })
			known = known && i >= 0
			refused = refused || i >= 0 && layouts[i].Verdict == LayoutRefused
		}
		for _, c := range p.crcs {
			switch {
			case !known || !p.samePrototype[c.At.Symbol]:
				out = append(out, c)
			case !refused:
				b.report.Notes = append(b.report.Notes, fmt.Sprintf("%s: %s keeps its version in the running kernel, though the types behind its prototype change", p.unit.Source, c.At.Symbol))
			}
		}
	}
	return out
}

// treeName is the tree-relative name of a file in the debug information.
func (b *builder) treeName(file string) string {
	file = path.Clean(file)
	for _, root := range []string{b.shadow.Dir(), b.kernel.Tree.Source, b.kernel.Tree.Build} {
		if rest, ok := strings.CutPrefix(file, root+"/"); ok && root != "" {
			return rest
		}
	}
	return file
}

// mergeTypes collects the changed types of all units, sorted by file and name.
func (b *builder) mergeTypes() []ReportLayout {
	var out []ReportLayout
	at := map[string]int{}
	for i := range b.pairs {
		p := &b.pairs[i]
		source := b.sel.after(p.unit).Source
		for _, t := range p.types {
			l := b.newLayout(t)
			l.sources = []string{source}
			for _, f := range p.diff.Functions {
				if f.Kind == elfdiff.IsChanged {
					l.changed = append(l.changed, f.Name())
				}
			}
			key := fmt.Sprintf("%s|%s|%v", l.File, l.Type, t.Changes)
			i, known := at[key]
			if !known {
				at[key] = len(out)
				out = append(out, l)
				continue
			}
			m := &out[i]
			m.Within = union(m.Within, l.Within)
			m.Functions = union(m.Functions, l.Functions)
			m.Variables = union(m.Variables, l.Variables)
			m.sources = union(m.sources, l.sources)
			m.changed = union(m.changed, l.changed)
			m.linked = m.linked || l.linked
		}
	}
	for i := range out {
		b.settle(&out[i])
	}
	slices.SortStableFunc(out, func(x, y ReportLayout) int {
		return cmp.Or(cmp.Compare(x.File, y.File), cmp.Compare(x.Type, y.Type))
	})
	return out
}

func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// settle decides what the types alone can decide.
func (b *builder) settle(l *ReportLayout) {
	if len(l.Functions) == 0 {
		l.Functions = union(nil, l.changed)
	}
	harmless := !slices.ContainsFunc(l.Changes, func(c FieldChange) bool { return !c.Kind.Harmless() })
	switch {
	case harmless:
		l.Verdict = LayoutHarmless
	case !l.linked && len(l.Variables) == 0 && len(l.Within) == 0 && slices.Equal(l.sources, []string{l.File}):
		if f := b.fileOf(l.File); f != nil && stackOnly(f.old, l.Type) {
			l.Verdict = LayoutOnStack
		}
	}
}

func (b *builder) fileOf(name string) *touched {
	i := slices.IndexFunc(b.files, func(f touched) bool { return f.path == name })
	if i < 0 {
		return nil
	}
	return &b.files[i]
}

func (b *builder) newLayout(t typediff.TypeChange) ReportLayout {
	l := ReportLayout{Type: t.Name, File: b.treeName(t.File), Line: t.Line, OldSize: t.OldSize, NewSize: t.NewSize,
		Changes: []FieldChange{}, Within: t.Within, Functions: t.Functions, Variables: t.Variables, linked: t.Linked}
	f := b.fileOf(l.File)
	for _, c := range t.Changes {
		fc := FieldChange{Kind: c.Kind, Field: c.Field, FitsInPadding: c.Fits, After: c.After, Before: c.Before, SharesWith: c.Shares, From: c.From, To: c.To}
		switch c.Kind {
		case typediff.ValueChange, typediff.CountChange:
			fc.OldValue, fc.NewValue = &c.OldValue, &c.NewValue
		case typediff.ValueAdded:
			fc.NewValue = &c.NewValue
		case typediff.ValueRemoved:
			fc.OldValue = &c.OldValue
		case typediff.Renamed:
			if c.New.Bits == 0 {
				fc.OldValue, fc.NewValue = &c.OldValue, &c.NewValue
			}
		}
		if c.Old.Bits > 0 || c.Old.Off > 0 {
			fc.Old = newPlace(c.Old)
		}
		if c.New.Bits > 0 || c.New.Off > 0 {
			fc.New = newPlace(c.New)
		}
		if f != nil {
			fc.Line, fc.Text = fieldLine(f, c)
		}
		l.Changes = append(l.Changes, fc)
	}
	return l
}

// fieldLine finds the source line of a changed field: the debug information counts
// pinned lines, so the text is looked at.
func fieldLine(f *touched, c typediff.Change) (line int, text string) {
	name := c.Field[strings.LastIndexAny(c.Field, ".]")+1:]
	if name == "" {
		return 0, ""
	}
	word := regexp.MustCompile(`\b` + regexp.QuoteMeta(name) + `\b`)
	content := f.old
	if c.Kind != typediff.Removed && c.Kind != typediff.ValueRemoved && f.content != nil {
		content = *f.content
		lines := strings.Split(string(content), "\n")
		for _, e := range f.edits {
			for i := e.NewStart - 1; i < min(e.NewStart-1+e.NewLines, len(lines)); i++ {
				if word.MatchString(lines[i]) {
					return i + 1, strings.TrimSpace(lines[i])
				}
			}
		}
	}
	lines := strings.Split(string(content), "\n")
	if c.Line > 0 && c.Line <= len(lines) && word.MatchString(lines[c.Line-1]) {
		return c.Line, strings.TrimSpace(lines[c.Line-1])
	}
	return 0, ""
}
