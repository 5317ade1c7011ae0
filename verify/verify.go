package verify

import (
	"cmp"
	"debug/elf"
	"fmt"
	"slices"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/locate"
	"github.com/klpc/klpc/target"
)

// VMLinux is the name of the kernel proper among patched objects.
const VMLinux = "vmlinux"

// Kernel is what is known of the running kernel.
type Kernel struct {
	Release string
	Symtab  *target.Symtab
	Image   *target.Image   // nil if only a list of symbols is known
	Exports *target.Exports // Module.symvers
	Modules map[string]*target.Module
	// Config returns the value of an option of the kernel's configuration,
	// such as "y"; empty if it is not set.
	Config func(name string) string
}

// Unit is one translation unit of the patch, compiled afresh.
type Unit struct {
	Source string
	Object string // VMLinux or a module's name
	Diff   *elfdiff.Result
	// Patched is the patched object after objtool, as Kbuild runs it on
	// modules. It is nil if the unit does not change.
	Patched *elfobj.Object
}

// Inputs is what a module is compared with.
type Inputs struct {
	Kernel Kernel
	// Known tells that the units are those of the module's patch. Without it
	// only the third proof can be made.
	Known bool
	Units []Unit
	// Init is the object of the init file after objtool: the tables that are
	// given to the livepatch core and the function that does so.
	Init *elfobj.Object
	// Mod is an object that modpost's file for a module called ModName compiles
	// to: it shows how struct module lies where the kernel has no BTF.
	Mod     *elfobj.Object
	ModName string
}

// ProofName names a proof, stable.
type ProofName string

// The proofs.
const (
	Original ProofName = "original"
	Patched  ProofName = "patched"
	Accepted ProofName = "accepted"
)

// Verdict is an outcome, of one proof or of all.
type Verdict string

// The verdicts. A proof that could not be made is incomplete.
const (
	Verified   Verdict = "verified"
	Failed     Verdict = "failed"
	Incomplete Verdict = "incomplete"
)

// Count says how much of one kind a proof covers.
type Count struct {
	What string `json:"what"`
	N    int    `json:"n"`
}

// Proof is one of the three.
type Proof struct {
	Name    ProofName `json:"name"`
	Verdict Verdict   `json:"verdict"`
	Counts  []Count   `json:"counts"`
	// Missing says what could not be proven, if Verdict is Incomplete.
	Missing []string `json:"missing,omitempty"`
}

// Finding is something that is wrong.
type Finding struct {
	Proof  ProofName `json:"proof"`
	Where  string    `json:"where"`
	Detail string    `json:"detail"`
	Hint   string    `json:"hint"`
}

// Report is the outcome for one module.
type Report struct {
	Module   string    `json:"module"`
	Kernel   string    `json:"kernel"`
	Verdict  Verdict   `json:"verdict"`
	Proofs   []Proof   `json:"proofs"`
	Findings []Finding `json:"findings"`
}

// Verifier holds what does not depend on the module. It may be used for several
// modules one after the other.
type Verifier struct {
	kernel  Kernel
	known   bool
	units   []*unit
	init    *unit // nil: not known
	exports map[string]target.ImageExport
	layout  moduleLayout
	arch    archTables
	sites   *sites
	// NoIntegrity leaves out the check of the build ID, which any change of the
	// file breaks: for tests of the proofs themselves.
	NoIntegrity bool
}

// unit is a Unit with its views joined.
type unit struct {
	Unit
	view    *elfdiff.View                     // of Patched, after objtool
	plain   map[*elfdiff.Piece]*elfdiff.Piece // view's pieces -> Diff.Patched's
	back    map[*elfdiff.Piece]*elfdiff.Piece // the reverse
	kernel  *locate.Kernel
	module  *locate.Module
	changed map[*elfdiff.Piece]elfdiff.Change // by Diff.Patched's piece
	defined map[string]*elfobj.Symbol         // globals of the module
	derived *derived
	origin  map[*elfdiff.Piece]origin // cache of original
	proven  map[*elfdiff.Piece]*error // cache of the first proof
	shapes  map[*elfdiff.Piece]*shape
}

// origin is where an original piece is in the running kernel.
type origin struct {
	at  kernelPlace
	err error
}

// New prepares the proofs.
func New(in Inputs) (*Verifier, error) {
	v := &Verifier{kernel: in.Kernel, known: in.Known}
	if in.Kernel.Image != nil {
		var err error
		if v.exports, err = in.Kernel.Image.Exports(in.Kernel.Symtab); err != nil {
			return nil, err
		}
		if len(v.exports) == 0 {
			v.exports = nil // not known; Module.symvers is all there is
		}
	}
	v.layout = findModuleLayout(in)
	for _, u := range in.Units {
		if u.Patched == nil {
			continue
		}
		x, err := v.newUnit(u)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", u.Source, err)
		}
		v.units = append(v.units, x)
	}
	if in.Init != nil {
		x, err := newInit(in.Init)
		if err != nil {
			return nil, fmt.Errorf("the init file: %w", err)
		}
		v.init = x
	}
	return v, nil
}

func (v *Verifier) newUnit(u Unit) (*unit, error) {
	x := &unit{Unit: u, changed: map[*elfdiff.Piece]elfdiff.Change{}, origin: map[*elfdiff.Piece]origin{}, proven: map[*elfdiff.Piece]*error{}}
	var err error
	if x.view, err = elfdiff.NewView(u.Patched); err != nil {
		return nil, err
	}
	if err := x.join(); err != nil {
		return nil, err
	}
	for _, f := range slices.Concat(u.Diff.Functions, u.Diff.Data) {
		if f.Kind == elfdiff.IsChanged {
			x.changed[f.Patched] = f
		}
	}
	if u.Object == VMLinux {
		x.kernel = locate.NewKernel(u.Diff.Orig, v.kernel.Symtab, v.kernel.Image)
		return x, x.finish()
	}
	m := v.kernel.Modules[u.Object]
	if m == nil {
		return nil, fmt.Errorf("the file of module %s was not found", u.Object)
	}
	if x.module, err = locate.NewModule(u.Diff.Orig, m); err != nil {
		return nil, err
	}
	x.defined = map[string]*elfobj.Symbol{}
	for _, s := range m.Object.Symbols {
		if s.Section != nil && s.Bind != elf.STB_LOCAL {
			x.defined[s.Name] = s
		}
	}
	return x, x.finish()
}

func newInit(o *elfobj.Object) (*unit, error) {
	x := &unit{Unit: Unit{Source: "the init file", Object: VMLinux, Patched: o}}
	var err error
	if x.view, err = elfdiff.NewView(o); err != nil {
		return nil, err
	}
	return x, x.finish()
}

func (x *unit) finish() error {
	x.shapes = map[*elfdiff.Piece]*shape{}
	var err error
	x.derived, err = x.readDerived()
	return err
}

// join pairs the pieces before and after objtool: it adds sections and symbols,
// and moves nothing.
func (x *unit) join() error {
	before, after := slices.DeleteFunc(slices.Clone(x.Diff.Patched.Obj.Sections), IsDebug), slices.DeleteFunc(slices.Clone(x.Patched.Sections), IsDebug)
	if len(after) < len(before) {
		return fmt.Errorf("objtool left %d of %d sections", len(after), len(before))
	}
	index := map[*elfobj.Section]*elfobj.Section{}
	for i, s := range before {
		silenced := s.Name == jumpTable && after[i].Size < s.Size // see Silence
		if after[i].Name != s.Name || after[i].Size != s.Size && !silenced {
			return fmt.Errorf("section %d is %s before objtool and %s after it", i, s.Name, after[i].Name)
		}
		index[after[i]] = s
	}
	type key struct {
		sec    *elfobj.Section
		origin uint64
		named  bool
		size   uint64
	}
	keyOf := func(p *elfdiff.Piece, sec *elfobj.Section) key {
		k := key{sec: sec, origin: p.Origin(), named: p.Sym != nil}
		if k.named && !p.Func {
			k.size = p.Sym.Size
		}
		return k
	}
	plain := map[key]*elfdiff.Piece{}
	for _, p := range x.Diff.Patched.Pieces {
		plain[keyOf(p, p.Sec)] = p
	}
	x.plain, x.back = map[*elfdiff.Piece]*elfdiff.Piece{}, map[*elfdiff.Piece]*elfdiff.Piece{}
	for _, p := range x.view.Pieces {
		if q := plain[keyOf(p, index[p.Sec])]; q != nil {
			x.plain[p], x.back[q] = q, p
		}
	}
	for _, q := range x.Diff.Patched.Pieces {
		if x.back[q] == nil {
			return fmt.Errorf("%s is not to be found after objtool", q.Name())
		}
	}
	return nil
}

// twin is the original of a piece, nil if it is new or unnamed.
func (x *unit) twin(p *elfdiff.Piece) *elfdiff.Piece {
	if q := x.plain[p]; q != nil {
		return q.Twin
	}
	return nil
}

// Module makes the proofs for one module, given the file's bytes.
func (v *Verifier) Module(data []byte) *Report {
	c := &check{v: v, counts: map[ProofName][]Count{}, missing: map[ProofName][]string{}}
	c.report = &Report{Kernel: v.kernel.Release, Findings: []Finding{}}
	if c.open(data) {
		c.accepted()
		switch {
		case !v.known:
			c.lacks(Original, "the patch is not known: which functions were compiled is not told by the module")
			c.lacks(Patched, "the patch is not known, so that nothing can be compiled to compare the module with")
		case v.init == nil:
			c.lacks(Patched, "the init file's object is not known")
		}
		if v.known {
			c.patched()
			c.originals()
		}
	}
	return c.finish()
}

// finish orders the findings and settles the verdicts.
func (c *check) finish() *Report {
	r := c.report
	failed := map[ProofName]bool{}
	for _, f := range r.Findings {
		failed[f.Proof] = true
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Proof, b.Proof), cmp.Compare(a.Where, b.Where), cmp.Compare(a.Detail, b.Detail))
	})
	r.Findings = slices.Compact(r.Findings)
	r.Verdict = Verified
	for _, name := range []ProofName{Original, Patched, Accepted} {
		p := Proof{Name: name, Verdict: Verified, Counts: c.counts[name], Missing: c.missing[name]}
		switch {
		case failed[name]:
			p.Verdict = Failed
		case len(p.Missing) > 0 || !c.opened:
			p.Verdict = Incomplete
		}
		if p.Counts == nil {
			p.Counts = []Count{}
		}
		switch {
		case p.Verdict == Failed:
			r.Verdict = Failed
		case p.Verdict == Incomplete && r.Verdict == Verified:
			r.Verdict = Incomplete
		}
		r.Proofs = append(r.Proofs, p)
	}
	return r
}
