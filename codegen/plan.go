package codegen

import (
	"cmp"
	"debug/elf"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/locate"
	"github.com/klpc/klpc/target"
)

// VMLinux is the name of the kernel proper among the objects of a plan.
const VMLinux = "vmlinux"

// The problems that a plan finds, beside those of a comparison.
const (
	UnresolvedSymbol elfdiff.ProblemKind = "unresolved-symbol"
	AmbiguousSymbol  elfdiff.ProblemKind = "ambiguous-symbol"
	ModuleKey        elfdiff.ProblemKind = "module-key"
	InitReference    elfdiff.ProblemKind = "init-reference"
	Undecodable      elfdiff.ProblemKind = "undecodable"
	ExtraCallback    elfdiff.ProblemKind = "extra-callback"
	NothingToHook    elfdiff.ProblemKind = "no-patched-function"
)

// Unit is one compared translation unit.
type Unit struct {
	Source string // tree-relative: fs/proc/cmdline.c
	Object string // VMLinux or the module's name
	Diff   *elfdiff.Result
}

// Target is what the plan knows of the running kernel.
type Target struct {
	Symtab  *target.Symtab
	Image   *target.Image // nil if only symbols are known
	IBT     bool          // CONFIG_X86_KERNEL_IBT
	Exports *target.Exports
	Modules map[string]*target.Module // at least those that the units belong to
}

// Func is one function that the module redirects.
type Func struct {
	ID      int // counts all functions of the plan from 0
	Name    string
	Sympos  int // 0: the name is unique; else 1-based
	Source  string
	Reasons []string

	piece *elfdiff.Piece // patched
	unit  int
}

// Callback is a function that the livepatch core calls around a transition.
type Callback struct {
	ID   int    // counts all callbacks of the plan from 0
	Kind string // pre_patch, post_patch, pre_unpatch or post_unpatch
	Name string

	unit  int
	piece *elfdiff.Piece
}

// Object is one patched object: the kernel proper or a module.
type Object struct {
	Name      string
	Funcs     []Func
	New       []NewFunc
	Callbacks []Callback
}

// NewFunc is a function that the patch adds and that the module carries.
type NewFunc struct{ Name, Source string }

// Plan says what the module contains. Objects: vmlinux first, then by name.
type Plan struct {
	Objects    []Object
	Namespaces []string // of the exports used, sorted
	Problems   []elfdiff.Problem
	// Mismatches say where the running kernel is not the one that was
	// rebuilt. They are the kernel tree's fault, not the patch's.
	Mismatches []string
	Notes      []string

	units []*unitPlan
	// plain holds the global names that stay as they are until Finalize
	// turns them into livepatch symbols of vmlinux: objtool knows functions
	// that do not return, and others, by name.
	plain map[string]bool
}

// Empty tells whether the plan patches no function.
func (p *Plan) Empty() bool {
	for _, o := range p.Objects {
		if len(o.Funcs) > 0 {
			return false
		}
	}
	return true
}

// unitPlan is what one unit contributes.
type unitPlan struct {
	Unit
	index    int
	plan     *Plan
	names    namer
	sealed   map[uint64]bool // see target.Image.SealedEndbr; nil: no IBT
	target   Target
	kernel   *locate.Kernel // vmlinux units
	module   *locate.Module // module units
	defined  map[string]*elfobj.Symbol
	changed  map[*elfdiff.Piece]bool // patched side
	included map[*elfdiff.Piece]bool // patched side
	newNames newGlobals              // of any unit
	dropped  map[*elfdiff.Entry]bool // static branches whose key cannot be reached
	dests    map[*elfdiff.Ref]dest
	rewrites map[*elfdiff.Piece][]rewrite
	reported map[string]bool
}

// Decide makes the plan for all units of a patch. It never returns a plan that
// leaves something out in silence: what cannot be done is in Problems.
func Decide(units []Unit, t Target) (*Plan, error) {
	p := &Plan{plain: map[string]bool{}}
	var sealed map[uint64]bool
	if t.IBT {
		sealed = map[uint64]bool{}
		if t.Image != nil {
			sealed = t.Image.SealedEndbr()
		}
	}
	newNames := findNewGlobals(units)
	for i, u := range units {
		up, err := newUnitPlan(p, i, u, t, newNames)
		if err != nil {
			return nil, err
		}
		up.sealed = sealed
		p.units = append(p.units, up)
	}
	objects := map[string]*Object{}
	for _, up := range p.units {
		for _, pr := range up.Diff.Problems {
			pr.At.Object = up.Source
			p.Problems = append(p.Problems, pr)
		}
		for _, n := range up.Diff.Notes {
			p.Notes = append(p.Notes, up.Source+": "+n)
		}
		for _, n := range up.Diff.AddedExports {
			p.Notes = append(p.Notes, fmt.Sprintf("%s: the export of %s is not added to the running kernel", up.Source, n))
		}
		up.decide(objects)
	}
	p.collect(objects)
	return p, nil
}

func newUnitPlan(p *Plan, i int, u Unit, t Target, newNames newGlobals) (*unitPlan, error) {
	up := emptyUnitPlan(p, i, u)
	up.target, up.newNames, up.names = t, newNames, up
	if u.Object == VMLinux {
		up.kernel = locate.NewKernel(u.Diff.Orig, t.Symtab, t.Image)
		return up, nil
	}
	m := t.Modules[u.Object]
	if m == nil {
		return nil, fmt.Errorf("%s belongs to module %s, whose file was not found", u.Source, u.Object)
	}
	var err error
	if up.module, err = locate.NewModule(u.Diff.Orig, m); err != nil {
		return nil, err
	}
	up.defined = map[string]*elfobj.Symbol{}
	for _, s := range m.Object.Symbols {
		if s.Section != nil && s.Bind != elf.STB_LOCAL {
			up.defined[s.Name] = s
		}
	}
	return up, nil
}

func emptyUnitPlan(p *Plan, i int, u Unit) *unitPlan {
	return &unitPlan{Unit: u, index: i, plan: p,
		changed: map[*elfdiff.Piece]bool{}, included: map[*elfdiff.Piece]bool{},
		dropped: map[*elfdiff.Entry]bool{}, dests: map[*elfdiff.Ref]dest{}, rewrites: map[*elfdiff.Piece][]rewrite{}, reported: map[string]bool{}}
}

// Extract builds an object of what changed and what must travel with it, with
// references to the rest by their names in the source.
func Extract(r *elfdiff.Result) ([]byte, error) {
	p := &Plan{plain: map[string]bool{}}
	u := emptyUnitPlan(p, 0, Unit{Diff: r})
	u.names = sourceNames{}
	p.units = []*unitPlan{u}
	u.include(u.roots())
	if len(p.Problems) > 0 {
		return nil, fmt.Errorf("%v: %s", p.Problems[0].At, p.Problems[0].Detail)
	}
	return p.emit(u).Encode()
}

// isNewGlobal tells whether other units may refer to a new piece by name.
func isNewGlobal(q *elfdiff.Piece) bool {
	return q.Sym != nil && q.Twin == nil && !q.Init && q.Sym.Bind != elf.STB_LOCAL
}

// decide fills in one unit: what is patched, what travels, and what its
// references become.
func (u *unitPlan) decide(objects map[string]*Object) {
	o := objects[u.Object]
	if o == nil {
		o = &Object{Name: u.Object}
		objects[u.Object] = o
	}
	roots := u.roots()
	for _, f := range u.Diff.Functions {
		if f.Kind == elfdiff.IsChanged && f.Orig.Traceable() && u.changed[f.Patched] {
			o.Funcs = append(o.Funcs, u.function(f))
		}
	}
	cbs := u.callbacks()
	for _, c := range cbs {
		roots = append(roots, c.piece)
	}
	o.Callbacks = append(o.Callbacks, cbs...)
	u.include(roots)
	u.checkUnknownTables()
	for _, d := range u.Diff.Data {
		if d.Kind == elfdiff.IsNew && !u.included[d.Patched] {
			u.plan.Notes = append(u.plan.Notes, fmt.Sprintf("%s: %s (%s) is left out: nothing that the livepatch carries refers to it", u.Source, d.Name(), d.Patched.Sec.Name))
		}
	}
	for _, q := range u.Diff.Patched.Pieces {
		if isNewGlobal(q) {
			u.checkNew(q)
		}
		if u.included[q] && q.Func && q.Sym != nil && q.Twin == nil && q.Parent == nil {
			o.New = append(o.New, NewFunc{Name: q.Sym.Name, Source: u.Source})
		}
	}
}

// roots are the pieces that travel for their own sake: changed functions, and
// new globals, which other units may need.
func (u *unitPlan) roots() []*elfdiff.Piece {
	var roots []*elfdiff.Piece
	for _, f := range u.Diff.Functions {
		if f.Kind != elfdiff.IsChanged {
			continue
		}
		if u.overridden(f.Orig) {
			u.plan.Notes = append(u.plan.Notes, fmt.Sprintf("%s: the weak function %s is left out: another file of this kernel overrides it", u.Source, f.Orig.Name()))
			continue
		}
		u.changed[f.Patched] = true
		roots = append(roots, f.Patched)
	}
	for _, q := range u.Diff.Patched.Pieces {
		if isNewGlobal(q) {
			roots = append(roots, q)
		}
	}
	return roots
}

// overridden tells whether a function is weak and another definition of it won:
// the kernel lists the winner of a weak one with the letter W.
func (u *unitPlan) overridden(p *elfdiff.Piece) bool {
	if p.Sym.Bind != elf.STB_WEAK || u.target.Symtab == nil {
		return false
	}
	if u.module != nil {
		s := u.defined[p.Sym.Name]
		return s != nil && s.Bind != elf.STB_WEAK
	}
	all := u.target.Symtab.Named(p.Sym.Name)
	return len(all) > 0 && !slices.ContainsFunc(all, func(i int) bool {
		k := u.target.Symtab.At(i).Kind
		return k == 'W' || k == 'w'
	})
}

// function finds the kernel's name and position of a changed function and
// checks that the kernel runs the code that was rebuilt.
func (u *unitPlan) function(f elfdiff.Change) Func {
	fn := Func{Name: f.Orig.Name(), Source: u.Source, Reasons: f.Reasons, piece: f.Patched, unit: u.index}
	name, pos, err := u.locate(f.Orig)
	if err != nil {
		u.problem(AmbiguousSymbol, f.Orig, f.Orig.Origin()-f.Orig.Lo, err.Error(),
			"give the kernel's own image (vmlinux or vmlinuz), built from the same source and configuration")
		return fn
	}
	fn.Name, fn.Sympos = name, pos
	if err := u.verify(f.Orig); err != nil {
		u.plan.Mismatches = append(u.plan.Mismatches, u.Source+": "+err.Error())
	}
	return fn
}

// locate returns the name and sympos of an original piece in its object.
func (u *unitPlan) locate(p *elfdiff.Piece) (name string, sympos int, err error) {
	if u.module != nil {
		s, err := u.module.Symbol(p)
		if err != nil {
			return "", 0, err
		}
		pos, ambiguous := u.module.Module().Sympos(s)
		if ambiguous {
			return "", 0, u.ambiguous(s.Name)
		}
		return s.Name, pos, nil
	}
	i, err := u.kernel.Symbol(p)
	if err != nil {
		return "", 0, err
	}
	return u.target.Symtab.At(i).Name, u.target.Symtab.Sympos(i), nil
}

func (u *unitPlan) ambiguous(name string) error {
	return fmt.Errorf("module %s also has a symbol named %s in its init code, so that its position depends on when the livepatch is loaded", u.Object, name)
}

func (u *unitPlan) verify(p *elfdiff.Piece) error {
	switch {
	case u.module != nil:
		return u.module.Verify(p)
	case u.target.Image == nil:
		return nil
	}
	return u.kernel.Verify(p)
}

// callbacks finds the functions that the patch declares with
// KLP_PRE_PATCH_CALLBACK and its kin (linux/livepatch_helpers.h): pointers
// named __klp_pre_patch_callback_* in .discard.klp_callback_ptrs.
func (u *unitPlan) callbacks() []Callback {
	v := u.Diff.Patched
	var out []Callback
	for _, sec := range v.Obj.Sections {
		if sec.Name != ".discard.klp_callback_ptrs" {
			continue
		}
		for _, s := range v.Obj.Symbols {
			if s.Section != sec || !strings.HasPrefix(s.Name, "__klp_") {
				continue
			}
			kind, _, ok := strings.Cut(strings.TrimPrefix(s.Name, "__klp_"), "_callback")
			if !ok || !slices.Contains([]string{"pre_patch", "post_patch", "pre_unpatch", "post_unpatch"}, kind) {
				continue
			}
			for _, r := range v.Obj.Relocs(sec) {
				if r.Off != s.Value || r.Sym == nil {
					continue
				}
				if q := v.FuncAt(r.Sym, r.Addend); q != nil {
					out = append(out, Callback{Kind: kind, Name: q.Name(), unit: u.index, piece: q})
				}
			}
		}
	}
	return out
}

// collect orders the objects, numbers functions and callbacks, and looks for
// contradictions between units.
func (p *Plan) collect(objects map[string]*Object) {
	names := slices.SortedFunc(maps.Keys(objects), func(a, b string) int {
		return cmp.Or(-cmp.Compare(btoi(a == VMLinux), btoi(b == VMLinux)), cmp.Compare(a, b))
	})
	id, cb := 0, 0
	for _, n := range names {
		o := objects[n]
		slices.SortStableFunc(o.Funcs, func(a, b Func) int {
			return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Sympos, b.Sympos))
		})
		slices.SortStableFunc(o.New, func(a, b NewFunc) int { return cmp.Compare(a.Name, b.Name) })
		slices.SortStableFunc(o.Callbacks, func(a, b Callback) int { return cmp.Compare(a.Kind, b.Kind) })
		for i := range o.Funcs {
			o.Funcs[i].ID = id
			id++
		}
		for i := range o.Callbacks {
			o.Callbacks[i].ID = cb
			cb++
			if i > 0 && o.Callbacks[i].Kind == o.Callbacks[i-1].Kind {
				p.Problems = append(p.Problems, elfdiff.Problem{Kind: ExtraCallback,
					At:     elfobj.Pos{Object: p.units[o.Callbacks[i].unit].Source, Symbol: o.Callbacks[i].Name},
					Detail: fmt.Sprintf("%s has more than one %s callback", n, o.Callbacks[i].Kind),
					Hint:   "the kernel calls one of each kind per object; let one function do the work of both"})
			}
		}
		if len(o.Callbacks) > 0 && len(o.Funcs) == 0 {
			p.Problems = append(p.Problems, elfdiff.Problem{Kind: NothingToHook,
				At:     elfobj.Pos{Object: p.units[o.Callbacks[0].unit].Source, Symbol: o.Callbacks[0].Name},
				Detail: fmt.Sprintf("callback for %s, but no function of %s is patched", n, n),
				Hint:   "the kernel needs at least one patched function per object; change one as well"})
		}
		if len(o.Funcs) > 0 || len(o.New) > 0 || len(o.Callbacks) > 0 {
			p.Objects = append(p.Objects, *o)
		}
	}
	slices.Sort(p.Namespaces)
	p.Namespaces = slices.Compact(p.Namespaces)
	slices.Sort(p.Mismatches)
	slices.Sort(p.Notes)
	elfdiff.SortProblems(p.Problems)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// problem records a problem once.
func (u *unitPlan) problem(kind elfdiff.ProblemKind, p *elfdiff.Piece, off uint64, detail, hint string) {
	key := string(kind) + detail
	if u.reported[key] {
		return
	}
	u.reported[key] = true
	at := p.Pos(off)
	at.Object = u.Source
	u.plan.Problems = append(u.plan.Problems, elfdiff.Problem{Kind: kind, At: at, Detail: detail, Hint: hint})
}
