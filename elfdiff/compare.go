package elfdiff

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/klpc/klpc/elfobj"
)

type comparison struct {
	orig, patched *View
	problems      []Problem
	travels       map[*Piece]bool // changed constants whose copy goes along
	assumed       map[compared]bool
	callers       map[*Piece][]*Piece // of the original's functions; made when first needed
	addressTaken  map[*Piece]bool     // patched: reached otherwise than by a read of the place itself
}

// Compare compares the object of one translation unit as it was with the
// object as patched. The error is about unreadable input only; what speaks
// against a livepatch is in Result.Problems.
func Compare(orig, patched *elfobj.Object) (*Result, error) {
	if orig.Machine != patched.Machine {
		return nil, fmt.Errorf("the objects are for different machines: %v and %v", orig.Machine, patched.Machine)
	}
	o, err1 := NewView(orig)
	p, err2 := NewView(patched)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return CompareViews(o, p), nil
}

// CompareViews is Compare for views that exist already.
func CompareViews(o, p *View) *Result {
	c := &comparison{orig: o, patched: p, travels: map[*Piece]bool{}, assumed: map[compared]bool{}}
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
		if !p.Func || p.Sym == nil {
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
		if q.Func && q.Sym != nil && q.Twin == nil && q.Parent == nil {
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
	c.compareUnnamedData()
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
	content := func(v *View) map[string][]string {
		m := map[string][]string{}
		for _, p := range v.Pieces {
			if p.Sym == nil && !p.Init && !referenced[p] && !padding(p) {
				m[p.Sec.Name] = append(m[p.Sec.Name], fingerprint(p))
			}
		}
		return m
	}
	a, b := content(c.orig), content(c.patched)
	names := map[string]bool{}
	for n := range a {
		names[n] = true
	}
	for n := range b {
		names[n] = true
	}
	for n := range names {
		if !slices.Equal(a[n], b[n]) {
			c.problems = append(c.problems, Problem{Kind: UnknownConstruct, At: elfobj.Pos{Section: n},
				Detail: "code or data without a name in section " + n + " has changed",
				Hint:   "leave out the part of the patch that adds or changes this registration; the running kernel has read it already"})
		}
	}
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

// judge lifts verdicts and finds what the running kernel cannot take.
func (c *comparison) judge(r *Result) {
	c.liftParts(r)
	var initCode []Change
	var live []Change
	for _, f := range r.Functions {
		if f.Kind == IsChanged && f.Orig.Init || f.Kind == IsNew && f.Patched.Init || f.Kind == IsRemoved && f.Orig.Init {
			initCode = append(initCode, f)
			continue
		}
		live = append(live, f)
		if f.Kind == IsChanged && !f.Orig.Traceable() {
			c.noEntry(f)
		}
	}
	var data []Change
	for _, d := range r.Data {
		if d.Orig != nil && d.Orig.Init || d.Orig == nil && d.Patched.Init {
			if d.Kind == IsChanged {
				initCode = append(initCode, d)
			}
			continue
		}
		data = append(data, d)
		if d.Kind == IsChanged && d.Orig != nil {
			c.dataChanged(d)
		}
	}
	r.Functions, r.Data = live, data
	c.judgeInit(r, initCode)
}

// judgeInit: init code that changes beside other code is left out, since it
// has run already; a patch of nothing but init code cannot do anything.
func (c *comparison) judgeInit(r *Result, initCode []Change) {
	if len(initCode) == 0 {
		return
	}
	effective := slices.ContainsFunc(r.Functions, func(f Change) bool { return f.Kind == IsChanged })
	for _, f := range initCode {
		if f.Kind == IsRemoved {
			continue
		}
		p := cmp.Or(f.Orig, f.Patched)
		if effective {
			r.Notes = append(r.Notes, fmt.Sprintf("%s (%s) is left out: it only runs while the kernel boots or the module loads or unloads", p.Name(), p.Sec.Name))
			continue
		}
		if f.Kind == IsNew {
			continue
		}
		c.problems = append(c.problems, Problem{Kind: InitCode, At: p.Pos(p.entry()),
			Detail: fmt.Sprintf("%s lies in %s: it only runs while the kernel boots or the module loads or unloads, so changing it has no effect on a running kernel", p.Name(), p.Sec.Name),
			Hint:   "put the state right from a pre-patch callback (KLP_PRE_PATCH_CALLBACK), or reboot into a fixed kernel"})
	}
}

// liftParts makes a change in a split-off cold part a change of its parent.
func (c *comparison) liftParts(r *Result) {
	index := map[*Piece]int{}
	for i, f := range r.Functions {
		if f.Patched != nil {
			index[f.Patched] = i
		}
	}
	var kept []Change
	lifted := map[*Piece][]string{}
	for _, f := range r.Functions {
		if f.Kind == IsChanged && f.Patched.Parent != nil {
			lifted[f.Patched.Parent] = append(lifted[f.Patched.Parent], "its unlikely part "+f.Orig.Name()+": "+strings.Join(f.Reasons, ", "))
			continue
		}
		kept = append(kept, f)
	}
	r.Functions = kept
	for i, f := range r.Functions {
		if more, ok := lifted[f.Patched]; ok && f.Patched != nil {
			r.Functions[i].Reasons = append(f.Reasons, more...)
			delete(lifted, f.Patched)
		}
	}
	for parent, reasons := range lifted {
		if parent.Twin != nil {
			r.Functions = append(r.Functions, Change{Orig: parent.Twin, Patched: parent, Kind: IsChanged, Reasons: reasons})
		}
	}
}

func (c *comparison) noEntry(f Change) {
	callers := c.nearestCallers(f.Orig)
	hint := "no caller in this file can be patched instead; change a caller in another file, or reboot into a fixed kernel"
	if len(callers) > 0 {
		hint = "copy the function under a new name and call that from " + strings.Join(callers, ", ") + " instead"
	}
	c.problems = append(c.problems, Problem{Kind: NoFtraceEntry, At: f.Orig.Pos(f.Orig.entry()),
		Detail: fmt.Sprintf("%s has no ftrace entry (notrace, noinstr or built without -pg), so the kernel cannot redirect it", f.Orig.Name()),
		Hint:   hint})
}

// nearestCallers finds the closest functions of the original that reach p by
// calls and that ftrace can patch, breadth first. Names are sorted.
func (c *comparison) nearestCallers(p *Piece) []string {
	if c.callers == nil {
		c.callers = callersOf(c.orig)
	}
	seen := map[*Piece]bool{p: true}
	level := []*Piece{p}
	// A caller further away is of no use to the author.
	for depth := 0; depth < 8 && len(level) > 0; depth++ {
		var found []string
		var next []*Piece
		for _, q := range level {
			for _, k := range c.callers[q] {
				if seen[k] {
					continue
				}
				seen[k] = true
				next = append(next, k)
				if k.Traceable() && !k.Init {
					found = append(found, k.Name())
				}
			}
		}
		if len(found) > 0 {
			slices.Sort(found)
			return slices.Compact(found)
		}
		level = next
	}
	return nil
}

// callersOf maps each function to those that refer to it.
func callersOf(v *View) map[*Piece][]*Piece {
	callers := map[*Piece][]*Piece{}
	for _, q := range v.Pieces {
		if !q.Func {
			continue
		}
		for _, r := range q.Refs {
			if r.To.Kind == InPiece && r.To.Piece.Func && r.To.Piece != q {
				callers[r.To.Piece] = append(callers[r.To.Piece], cmp.Or(q.Parent, q))
			}
		}
	}
	return callers
}

func (c *comparison) dataChanged(d Change) {
	p, q := d.Orig, d.Patched
	readers := q.users
	by := ""
	if len(readers) > 0 {
		by = "; used by " + strings.Join(readers, ", ")
	}
	if p.Size() != q.Size() {
		c.problems = append(c.problems, Problem{Kind: DataResized, At: p.Pos(p.entry()),
			Detail: fmt.Sprintf("%s has %d bytes instead of %d%s", p.Name(), q.Size(), p.Size(), by),
			Hint:   "keep its size; put new fields into a shadow variable (klp_shadow_alloc) or a new variable"})
		return
	}
	if rehomed(p, q) {
		c.problems = append(c.problems, Problem{Kind: DataChanged, At: p.Pos(p.entry()),
			Detail: fmt.Sprintf("%s moves from %s to %s, but the running kernel's copy stays where it is%s", p.Name(), p.Sec.Name, q.Sec.Name, by),
			Hint:   "leave its declaration alone and let the changed functions use a new variable"})
		return
	}
	if c.realigned(p, q) {
		c.problems = append(c.problems, Problem{Kind: DataChanged, At: p.Pos(p.entry()),
			Detail: fmt.Sprintf("%s is aligned to %d bytes instead of %d, but the running kernel's copy stays where it is%s", p.Name(), q.Sec.Align, p.Sec.Align, by),
			Hint:   "leave its declaration alone and let the changed functions use a new variable"})
		return
	}
	c.problems = append(c.problems, Problem{Kind: DataChanged, At: p.Pos(p.entry()),
		Detail: fmt.Sprintf("the initial value of %s has changed, but the running kernel's copy is live%s", p.Name(), by),
		Hint:   "leave its initialiser alone and set the new value from a pre-patch or post-patch callback (KLP_PRE_PATCH_CALLBACK), or let the changed functions use a new variable"})
}

// rehomed tells whether patched code would use a variable in a way that its
// place in the running kernel does not allow: per CPU or not, or written where
// memory is read-only by now.
func rehomed(p, q *Piece) bool {
	return (p.Kind == PerCPU) != (q.Kind == PerCPU) || isProtected(p) && !isProtected(q)
}

// realigned tells whether patched code may rely on an alignment of a variable
// that the running kernel's does not have. Sections that variables share say
// nothing of it.
func (c *comparison) realigned(p, q *Piece) bool {
	return len(c.orig.bySec[p.Sec]) == 1 && len(c.patched.bySec[q.Sec]) == 1 && q.Sec.Align > max(p.Sec.Align, 1)
}

// isProtected tells whether the kernel maps a variable read-only once it has
// booted. Source: include/asm-generic/vmlinux.lds.h, RO_DATA.
func isProtected(p *Piece) bool {
	return p.Kind == ReadOnly || strings.HasPrefix(p.Sec.Name, ".data..ro_after_init")
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
