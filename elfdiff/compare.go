package elfdiff

import (
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/klpc/klpc/elfobj"
)

// Source is what the source of a unit says and its objects do not show.
type Source struct {
	// Inline are the functions that are declared inline. The kernel's "inline"
	// implies notrace (include/linux/compiler_types.h), so one that the compiler
	// has not inlined has no ftrace entry.
	Inline []string
}

// MayBeInline names, as the source does, the local functions without an ftrace
// entry of which Source.Inline could tell something that changes a result: none if
// no such function has changed, or if ftrace can take over no function of the unit.
// They are sorted.
func (r *Result) MayBeInline() []string {
	untraced := func(p *Piece) bool {
		return p.Func && p.Sym != nil && p.Sym.Bind == elf.STB_LOCAL && p.Parent == nil && !p.Traceable()
	}
	changed := func(c Change) bool { return c.Kind == IsChanged && untraced(c.Orig) }
	if !slices.ContainsFunc(r.Functions, changed) || !slices.ContainsFunc(r.Orig.Pieces, (*Piece).Traceable) {
		return nil
	}
	var names []string
	for _, p := range r.Orig.Pieces {
		if untraced(p) {
			name, _, _ := strings.Cut(p.Sym.Name, ".")
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

type comparison struct {
	orig, patched *View
	source        Source
	problems      []Problem
	travels       map[*Piece]bool // changed constants whose copy goes along
	assumed       map[compared]bool
	callers       map[*Piece][]*Piece // of the original's functions; made when first needed
	addressTaken  map[*Piece]bool     // patched: reached otherwise than by a read of the place itself
	records       []string            // sections of trace event records that have changed
	wrapped       map[*Piece]bool     // patched: without an ftrace entry, but all callers are patched
}

// Compare compares the object of one translation unit as it was with the
// object as patched. The error is about unreadable input only; what speaks
// against a livepatch is in Result.Problems.
func Compare(orig, patched *elfobj.Object) (*Result, error) {
	return CompareKnowing(orig, patched, Source{})
}

// CompareKnowing is Compare with what the source says.
func CompareKnowing(orig, patched *elfobj.Object, s Source) (*Result, error) {
	if orig.Machine != patched.Machine {
		return nil, fmt.Errorf("the objects are for different machines: %v and %v", orig.Machine, patched.Machine)
	}
	o, err1 := NewView(orig)
	p, err2 := NewView(patched)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return compareViews(o, p, s), nil
}

func compareViews(o, p *View, s Source) *Result {
	c := &comparison{orig: o, patched: p, source: s, travels: map[*Piece]bool{}, assumed: map[compared]bool{}, wrapped: map[*Piece]bool{}}
	c.problems = slices.Clone(p.problems)
	for _, x := range o.problems {
		if !slices.Contains(c.problems, x) {
			c.problems = append(c.problems, x)
		}
	}
	c.correlate()
	r := &Result{Orig: o, Patched: p}
	c.compareFunctions(r)
	c.compareData(r)
	c.compareExports(r)
	c.judge(r)
	r.Problems = c.problems
	finish(r)
	return r
}

func (c *comparison) compareFunctions(r *Result) {
	for _, p := range c.orig.Pieces {
		if !p.Func || p.Sym == nil || p.registers {
			continue
		}
		if p.Twin == nil {
			if p.Parent == nil {
				r.Functions = append(r.Functions, Change{Orig: p, Kind: IsRemoved})
			}
			continue
		}
		if reasons := c.sameCode(p, p.Twin); len(reasons) > 0 {
			r.Functions = append(r.Functions, Change{Orig: p, Patched: p.Twin, Kind: IsChanged, Reasons: reasons})
		}
	}
	for _, q := range c.patched.Pieces {
		if q.Func && q.Sym != nil && q.Twin == nil && q.Parent == nil && !q.registers {
			r.Functions = append(r.Functions, Change{Patched: q, Kind: IsNew})
		}
	}
}

func (c *comparison) compareData(r *Result) {
	for _, p := range c.orig.Pieces {
		if p.Func || p.Sym == nil {
			continue
		}
		q := p.Twin
		if q == nil || c.sameContent(p, q, 0, 0) && !rehomed(p, q) && !c.realigned(p, q) {
			continue
		}
		r.Data = append(r.Data, Change{Orig: p, Patched: q, Kind: IsChanged})
	}
	for _, q := range c.patched.Pieces {
		switch {
		case q.Func || q.Sym == nil || q.Twin != nil || MayTravel(q):
		case c.travels[q]:
			r.Data = append(r.Data, Change{Patched: q, Kind: IsChanged,
				Reasons: []string{"constant that only patched functions read; the new copy goes along"}})
		default:
			r.Data = append(r.Data, Change{Patched: q, Kind: IsNew})
		}
	}
	c.compareCommons()
	c.compareUnnamedData()
}

// compareCommons looks at variables that only the linker gives a place (-fcommon).
// They are no pieces, and references to them are by name.
func (c *comparison) compareCommons() {
	commons := func(v *View) map[string]*elfobj.Symbol {
		m := map[string]*elfobj.Symbol{}
		for _, s := range v.Obj.Symbols {
			if s.Section == nil && s.Shndx == elf.SHN_COMMON {
				m[s.Name] = s
			}
		}
		return m
	}
	a, b := commons(c.orig), commons(c.patched)
	for _, n := range slices.Sorted(maps.Keys(a)) {
		switch x, y := a[n], b[n]; {
		case y != nil && x.Size != y.Size:
			c.resized(elfobj.Pos{Symbol: n}, n, x.Size, y.Size, "")
		case y == nil && c.patched.Named(n) != nil:
			c.problems = append(c.problems, commonChanged(n))
		}
	}
	for _, n := range slices.Sorted(maps.Keys(b)) {
		if a[n] == nil && c.orig.Named(n) != nil {
			c.problems = append(c.problems, commonChanged(n))
		}
	}
}

func commonChanged(name string) Problem {
	return Problem{Kind: DataChanged, At: elfobj.Pos{Symbol: name},
		Detail: fmt.Sprintf("the initial value of %s has changed, or there was none, but the running kernel's copy is live", name),
		Hint:   "leave its initialiser alone and set the new value from a pre-patch or post-patch callback (KLP_PRE_PATCH_CALLBACK), or let the changed functions use a new variable"}
}

// compareUnnamedData makes sure that unnamed bytes that no function refers to
// have not changed unseen. Where a reference exists, its source is compared.
func (c *comparison) compareUnnamedData() {
	referenced := map[*Piece]bool{}
	for _, v := range []*View{c.orig, c.patched} {
		for _, p := range v.Pieces {
			v.EachRef(p, func(r *Ref) {
				if r.To.Kind == InPiece {
					referenced[r.To.Piece] = true
				}
			})
		}
	}
	collect := func(v *View) map[string][]*Piece {
		m := map[string][]*Piece{}
		for _, p := range v.Pieces {
			if p.Sym == nil && !p.Init && !referenced[p] && !padding(p) {
				m[p.Sec.Name] = append(m[p.Sec.Name], p)
			}
		}
		return m
	}
	a, b := collect(c.orig), collect(c.patched)
	names := map[string]bool{}
	for n := range a {
		names[n] = true
	}
	for n := range b {
		names[n] = true
	}
	for n := range names {
		switch {
		case c.sameRuns(a[n], b[n]):
		case eventRecords[n]:
			c.records = append(c.records, n)
		default:
			c.unnamedChanged(n)
		}
	}
}

// sameRuns compares unnamed runs of sections of one name, whose order means
// nothing.
func (c *comparison) sameRuns(a, b []*Piece) bool {
	byLook := func(p, q *Piece) int { return cmp.Compare(fingerprint(p), fingerprint(q)) }
	slices.SortStableFunc(a, byLook)
	slices.SortStableFunc(b, byLook)
	return slices.EqualFunc(a, b, func(p, q *Piece) bool { return c.sameContent(p, q, 0, 0) })
}

func (c *comparison) unnamedChanged(section string) {
	c.problems = append(c.problems, Problem{Kind: UnknownConstruct, At: elfobj.Pos{Section: section},
		Detail: "code or data without a name in section " + section + " has changed",
		Hint:   "leave out the part of the patch that adds or changes this registration; the running kernel has read it already"})
}

// padding tells whether unnamed bytes only keep the variables around them
// apart.
func padding(p *Piece) bool {
	return len(p.Refs) == 0 && len(bytes.Trim(p.Bytes(), "\x00")) == 0
}

func (c *comparison) compareExports(r *Result) {
	for _, n := range c.patched.Exports {
		if _, ok := slices.BinarySearch(c.orig.Exports, n); !ok {
			r.AddedExports = append(r.AddedExports, n)
		}
	}
	for _, n := range c.orig.Exports {
		if _, ok := slices.BinarySearch(c.patched.Exports, n); !ok {
			r.RemovedExports = append(r.RemovedExports, n)
		}
	}
}

func finish(r *Result) {
	byName := func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.Name(), b.Name()), cmp.Compare(a.Kind, b.Kind))
	}
	slices.SortStableFunc(r.Functions, byName)
	slices.SortStableFunc(r.Data, byName)
	slices.Sort(r.Notes)
	SortProblems(r.Problems)
	r.Verdict = Unchanged
	if slices.ContainsFunc(r.Functions, func(f Change) bool { return f.Kind != IsRemoved }) || len(r.Data) > 0 {
		r.Verdict = Changed
	}
	if len(r.Problems) > 0 {
		r.Verdict = Unpatchable
	}
}
