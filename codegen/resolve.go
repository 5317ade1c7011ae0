package codegen

// What a reference of travelling code becomes. Everything that exists in the
// running kernel keeps its identity there: exported symbols are linked the
// ordinary way, all others by a livepatch relocation. Only what is new or
// changed is reached in the module itself; and a pointer to a changed function
// still leads to the original, which the kernel redirects, so that it is valid
// after the module has gone.

import (
	"debug/elf"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/internal/modname"
	"github.com/klpc/klpc/target"
)

// dest is where a reference of the emitted object leads.
type dest struct {
	own     *elfdiff.Piece // the patch's own copy
	literal bool           // own copy of a literal
	name    string         // undefined symbol of that name
	bind    elf.SymBind
	object  string // of livepatch symbols: whose relocation section it goes to
}

// Names of undefined symbols that become livepatch symbols carry everything
// that Finalize needs: .klp.RELAOBJECT.klp.sym.OBJECT.NAME,SYMPOS
const tempPrefix = ".klp."

func klpName(relaObject, object, name string, sympos int) string {
	return fmt.Sprintf("%s%s.klp.sym.%s.%s,%d", tempPrefix, relaObject, object, name, sympos)
}

// include computes what must travel with the roots: vertices are pieces, edges
// are references to what the running kernel does not have.
func (u *unitPlan) include(roots []*elfdiff.Piece) {
	queue := roots
	for len(queue) > 0 {
		p := queue[0]
		queue = queue[1:]
		if u.included[p] {
			continue
		}
		u.included[p] = true
		queue = append(queue, p.Parts...)
		if p.Parent != nil {
			queue = append(queue, p.Parent)
		}
		if p.Init {
			u.problem(InitReference, p, p.Origin()-p.Lo,
				fmt.Sprintf("patched code refers to %s, which lies in %s and is gone once the kernel has booted or the module has loaded", p.Name(), p.Sec.Name),
				"move it out of the init section")
			continue
		}
		if off, yes := p.Undecoded(); yes {
			u.problem(Undecodable, p, off, fmt.Sprintf("%s holds an instruction that cannot be decoded, in a section shared with other functions", p.Name()),
				"report this with the object: klpc must know every construct that it ships")
		}
		u.checkExtent(p)
		for i := range p.Refs {
			if r := &p.Refs[i]; isShortTail(p, r) {
				queue = u.longTail(queue, p, r)
			} else {
				queue = u.edge(queue, p, nil, r)
			}
		}
		for _, e := range p.Entries {
			if e.Table == "__jump_table" && u.unreachableKey(p, e) {
				u.dropped[e] = true
				continue
			}
			if elfdiff.IsRuntimeConst(e.Table) {
				queue = u.runtimeConst(queue, p, e)
				continue
			}
			for i := range e.Refs {
				queue = u.edge(queue, p, e, &e.Refs[i])
			}
			if e.Replacement != nil {
				for i := range e.Replacement.Refs {
					queue = u.edge(queue, p, e, &e.Replacement.Refs[i])
				}
			}
		}
	}
}

// checkExtent refuses relocations that reach beyond what they belong to, as only
// damaged objects have them.
func (u *unitPlan) checkExtent(p *elfdiff.Piece) {
	check := func(refs []elfdiff.Ref, size uint64) {
		for i := range refs {
			if r := &refs[i]; r.Off > size || uint64(r.Size) > size-r.Off {
				u.problem(elfdiff.UnknownConstruct, p, r.Off, fmt.Sprintf("a relocation of %s reaches beyond its end", p.Name()), "the object is damaged")
			}
		}
	}
	check(p.Refs, p.Hi-p.Lo)
	for _, e := range p.Entries {
		check(e.Refs, e.Size)
		if e.Replacement != nil {
			check(e.Replacement.Refs, e.Replacement.Hi-e.Replacement.Lo)
		}
	}
}

// checkUnknownTables makes sure that nothing describes travelling code that is
// not known to: unnamed data with a reference into the middle of it, as special
// sections have, other than data that the code itself uses.
func (u *unitPlan) checkUnknownTables() {
	for _, t := range u.Diff.Patched.Pieces {
		if t.Func || t.Sym != nil || t.Init || u.included[t] {
			continue
		}
		for i := range t.Refs {
			r := &t.Refs[i]
			if r.To.Kind == elfdiff.InPiece && r.To.Piece.Func && u.included[r.To.Piece] && r.Addend != 0 {
				u.problem(elfdiff.UnknownConstruct, r.To.Piece, uint64(r.Addend)+r.To.Piece.Origin()-r.To.Piece.Lo,
					fmt.Sprintf("section %s describes %s in a way that is not known", t.Sec.Name, r.To.Piece.Name()),
					"report this: klpc must know every special section of code that it ships")
			}
		}
	}
}

// edge decides one reference and returns the queue with what it pulls in.
func (u *unitPlan) edge(queue []*elfdiff.Piece, p *elfdiff.Piece, e *elfdiff.Entry, r *elfdiff.Ref) []*elfdiff.Piece {
	d := u.decideRef(p, e, r)
	u.dests[r] = d
	if e != nil && d.object != "" && d.object != VMLinux && tableAppliedAtLoad(e) {
		u.problem(ModuleKey, p, e.At,
			fmt.Sprintf("%s needs %s of module %s in %s, which the kernel reads before that module's symbols are known", p.Name(), d.name[strings.LastIndex(d.name, ".klp.sym.")+len(".klp.sym."):], d.object, e.Table),
			"in the patch, replace the static branch by static_key_enabled(), or the alternative by a plain test")
	}
	if d.own != nil && d.own.Kind != elfdiff.Replacement {
		queue = append(queue, d.own)
	}
	return queue
}

// tableAppliedAtLoad tells whether the kernel uses a table when the livepatch
// is loaded: then it must not wait for symbols of another module.
func tableAppliedAtLoad(e *elfdiff.Entry) bool {
	return e.Table == "__jump_table" || e.Table == ".altinstructions" || e.Table == ".parainstructions"
}

// unreachableKey tells whether a static branch tests a key that the patched
// module owns and that is off unless somebody turns it on: a tracepoint. The
// patched function then behaves as with the tracepoint off.
func (u *unitPlan) unreachableKey(p *elfdiff.Piece, e *elfdiff.Entry) bool {
	if u.module == nil || len(e.Refs) < 3 {
		return false
	}
	t := e.Refs[2].To
	name := ""
	switch {
	case t.Kind == elfdiff.Undef:
		if u.defined[t.Sym.Name] == nil {
			return false
		}
		name = t.Sym.Name
	case t.Kind == elfdiff.InPiece && t.Piece.Twin != nil && t.Piece.Sym != nil:
		name = t.Piece.Sym.Name
	}
	if !strings.HasPrefix(name, "__tracepoint_") {
		return false
	}
	note := fmt.Sprintf("%s: the tracepoint %s of module %s stays silent in the patched %s", u.Source, strings.TrimPrefix(name, "__tracepoint_"), u.Object, p.Name())
	if !u.reported[note] {
		u.reported[note] = true
		u.plan.Notes = append(u.plan.Notes, note)
	}
	return true
}

func (u *unitPlan) decideRef(p *elfdiff.Piece, e *elfdiff.Entry, r *elfdiff.Ref) dest {
	switch r.To.Kind {
	case elfdiff.Nothing:
		return dest{}
	case elfdiff.Literal:
		return dest{literal: true}
	case elfdiff.Undef:
		if len(u.newNames[r.To.Sym.Name]) == 0 {
			u.checkPointer(p, r)
		}
		return u.names.undefined(p, r, r.To.Sym)
	case elfdiff.InPiece:
		return u.piece(p, e, r)
	}
	u.problem(Undecodable, p, r.Off, fmt.Sprintf("%s holds a reference that cannot be resolved (relocation type %d)", p.Name(), r.Type),
		"report this with the object: klpc must know every construct that it ships")
	return dest{}
}

// piece decides a reference to something that the unit defines.
func (u *unitPlan) piece(p *elfdiff.Piece, e *elfdiff.Entry, r *elfdiff.Ref) dest {
	q := r.To.Piece
	if r.Made && r.Size < 4 {
		u.problem(Undecodable, p, r.Off, fmt.Sprintf("%s jumps to %s with a displacement of one byte", p.Name(), q.Name()),
			"report this with the object")
		return dest{}
	}
	switch {
	case q.Sym == nil:
		return dest{own: q}
	case q.Twin == nil:
		u.checkNeighbour(p, r)
		u.checkTravels(p, q)
		return dest{own: q}
	case u.module != nil && q.Sec.Name == "__dyndbg":
		// The descriptor holds the static key of its pr_debug, which the
		// kernel needs before the module's symbols are known.
		return dest{own: q}
	case q.Parent != nil && (u.included[q.Parent] || u.changed[q.Parent]):
		return dest{own: q}
	case q.Func && (u.changed[q] || u.included[q]) && (r.Branch || e != nil || r.Addend+r.Adj != 0):
		// Calls, special sections and jump tables (references into the
		// middle) mean the travelling code; a pointer to its entry may
		// outlive the module and means the original.
		return dest{own: q}
	}
	if q.Init && !p.Init && !refersTo(p.Twin, q.Twin) {
		u.problem(InitReference, p, r.Off, fmt.Sprintf("%s refers to %s, which lies in %s and is gone once the kernel has booted or the module has loaded", p.Name(), q.Name(), q.Sec.Name),
			"let the patch add a copy under another name, outside of the init section")
		return dest{}
	}
	if u.leadsInto(q) {
		// Labels as values (computed goto): the table of the changed
		// function must lead into the changed function.
		if q.Kind != elfdiff.ReadOnly {
			u.problem(elfdiff.UnknownConstruct, q, 0, fmt.Sprintf("%s is writable and holds places inside of %s, which has changed", q.Name(), p.Name()),
				"make the table const")
		}
		return dest{own: q}
	}
	u.checkNeighbour(p, r)
	if q.Func {
		u.checkPointer(p, r)
	}
	d, err := u.names.original(q.Twin)
	switch {
	case err == nil:
		return d
	case elfdiff.MayTravel(q):
		// One of many bookkeeping variables of the same name that the
		// kernel's code does not tell apart: a fresh copy serves as well.
		return dest{own: q}
	}
	u.problem(UnresolvedSymbol, p, p.Origin()-p.Lo, fmt.Sprintf("%s refers to %s: %v", p.Name(), q.Twin.Name(), err),
		"let the patched code avoid it, or give the kernel's own image (vmlinux or vmlinuz)")
	return dest{}
}

// refersTo tells whether the original function did refer to it already, and so
// knows when it may (__ref).
func refersTo(p, q *elfdiff.Piece) bool {
	return p != nil && slices.ContainsFunc(p.Refs, func(r elfdiff.Ref) bool { return r.To.Kind == elfdiff.InPiece && r.To.Piece == q })
}

// leadsInto tells whether a variable holds places inside of a changed function.
func (u *unitPlan) leadsInto(q *elfdiff.Piece) bool {
	if q.Func {
		return false
	}
	for i := range q.Refs {
		r := &q.Refs[i]
		if r.To.Kind == elfdiff.InPiece && r.To.Piece.Func && u.changed[r.To.Piece] && r.Addend+r.Adj != 0 {
			return true
		}
	}
	return false
}

// checkTravels refuses new data that only the kernel's own build can make work.
func (u *unitPlan) checkTravels(p, q *elfdiff.Piece) {
	switch {
	case q.Sec.Name == ".BTF_ids":
		u.problem(elfdiff.UnknownConstruct, q, 0, fmt.Sprintf("%s needs the new list of BTF IDs %s, which the kernel's build fills in", p.Name(), q.Name()),
			"use a list that the kernel has")
	case q.Kind == elfdiff.PerCPU && strings.HasSuffix(q.Sec.Name, "decrypted"):
		u.problem(elfdiff.UnknownConstruct, q, 0, fmt.Sprintf("%s is a per-CPU variable in decrypted memory, which modules cannot have", q.Name()),
			"use an ordinary per-CPU variable")
	}
}

// checkNeighbour refuses a reference by section and offset that may as well mean
// the end of the variable in front as the start of this one, where only one of
// the two travels: a pointer just behind an array must stay with the array.
func (u *unitPlan) checkNeighbour(p *elfdiff.Piece, r *elfdiff.Ref) {
	q := r.To.Piece
	// An access is one to the start; only an address may be that of an end.
	if !r.Section || q.Func || r.Branch || r.Memory || r.Addend+r.Adj != 0 {
		return
	}
	before := u.Diff.Patched.Before(q)
	if before == nil || before.Sym == nil || (before.Twin == nil) == (q.Twin == nil) || elfdiff.MayTravel(before) || before.Size() <= 8 {
		return // no array
	}
	if refersTo(p, before) || refersToEnd(p.Twin, before.Twin) {
		u.problem(AmbiguousSymbol, p, r.Off, fmt.Sprintf("%s refers to an address that is the end of %s as well as the start of %s, of which the running kernel has only one", p.Name(), before.Name(), q.Name()),
			"declare the new variable without its section attribute (__read_mostly, __ro_after_init, per-CPU), or in front of the other")
	}
}

// refersToEnd tells whether the original function has a reference by section
// and offset to the end of a variable, which then may be meant in the patched
// one, too.
func refersToEnd(p, q *elfdiff.Piece) bool {
	return p != nil && q != nil && slices.ContainsFunc(p.Refs, func(r elfdiff.Ref) bool {
		return r.Section && r.To.Kind == elfdiff.InPiece && r.To.Piece.Sec == q.Sec &&
			int64(r.To.Piece.Origin())+r.Addend+r.Adj == int64(q.Hi)
	})
}

// namer says how a reference to the running kernel is named.
type namer interface {
	// original names a function or variable that the unit itself defines.
	original(orig *elfdiff.Piece) (dest, error)
	// undefined names a symbol of another object.
	undefined(p *elfdiff.Piece, r *elfdiff.Ref, s *elfobj.Symbol) dest
}

// sourceNames names everything as the source does, for an object that is not
// meant for a particular kernel.
type sourceNames struct{}

func (sourceNames) original(orig *elfdiff.Piece) (dest, error) {
	return dest{name: orig.Sym.Name, bind: elf.STB_GLOBAL}, nil
}

func (sourceNames) undefined(_ *elfdiff.Piece, _ *elfdiff.Ref, s *elfobj.Symbol) dest {
	return dest{name: s.Name, bind: s.Bind}
}

// original is the reference to a function or variable of the running kernel
// that the unit itself defines.
func (u *unitPlan) original(orig *elfdiff.Piece) (dest, error) {
	if u.module == nil {
		for _, s := range orig.Names {
			if s.Bind != elf.STB_LOCAL {
				if d, ok := u.exported(s.Name); ok {
					return d, nil
				}
			}
		}
	}
	name, pos, err := u.locate(orig)
	if err != nil {
		return dest{}, err
	}
	if u.module == nil && pos == 0 && orig.Sym.Bind != elf.STB_LOCAL && name == orig.Sym.Name {
		return u.plainKlp(name), nil
	}
	return klp(u.Object, u.Object, name, pos)
}

// klp is a livepatch symbol. The kernel reads its name with
// ".klp.sym.%55[^.].%511[^,],%lu" (klp_resolve_symbols, kernel/livepatch/core.c).
func klp(relaObject, object, name string, pos int) (dest, error) {
	if strings.ContainsRune(name, ',') || len(name) >= 512 {
		return dest{}, fmt.Errorf("%q is a name that a livepatch symbol cannot hold", name)
	}
	return dest{name: klpName(relaObject, object, name, pos), bind: elf.STB_WEAK, object: relaObject}, nil
}

// staticCallTrampoline is the prefix of static calls' trampolines.
// Source: include/linux/static_call_types.h.
const staticCallTrampoline = "__SCT__"

// plainKlp is a unique global symbol of vmlinux that is not exported. It keeps
// its name through objtool.
func (u *unitPlan) plainKlp(name string) dest {
	if strings.HasPrefix(name, staticCallTrampoline) {
		return dest{name: klpName(VMLinux, VMLinux, name, 0), bind: elf.STB_WEAK, object: VMLinux}
	}
	u.plan.plain[name] = true
	return dest{name: name, bind: elf.STB_WEAK, object: VMLinux}
}

// exported tells whether any module may link against a vmlinux symbol. The
// trampoline of a static call is left out: under its own name objtool would
// record the call, and the kernel then refuses the module unless it can reach
// the key as well. Under another name it is an ordinary call to the trampoline,
// which the kernel keeps up to date.
func (u *unitPlan) exported(name string) (dest, bool) {
	x, ok := u.target.Exports.Lookup(name)
	if !ok || strings.HasPrefix(name, staticCallTrampoline) || x.Module != VMLinux || strings.HasPrefix(x.Namespace, "module:") {
		return dest{}, false
	}
	if x.Namespace != "" {
		u.plan.Namespaces = append(u.plan.Namespaces, x.Namespace)
	}
	return dest{name: name, bind: elf.STB_GLOBAL}, true
}

// undefined decides a reference to a symbol of another object.
func (u *unitPlan) undefined(p *elfdiff.Piece, r *elfdiff.Ref, s *elfobj.Symbol) dest {
	d, err := u.foreign(s)
	if err != nil {
		u.problem(UnresolvedSymbol, p, r.Off, fmt.Sprintf("%s refers to %s: %v", p.Name(), s.Name, err),
			"let the patch add the function or variable itself, or use one that this kernel has")
	}
	return d
}

func (u *unitPlan) foreign(s *elfobj.Symbol) (dest, error) {
	owners := u.newNames[s.Name]
	if u.module != nil && u.defined[s.Name] != nil && !slices.Contains(owners, u.Object) {
		return u.moduleSymbol(u.defined[s.Name])
	}
	if len(owners) > 0 {
		name, err := u.newNames.in(u.Object, s.Name)
		return dest{name: name, bind: elf.STB_GLOBAL}, err
	}
	x, exported := u.target.Exports.Lookup(s.Name)
	if d, ok := u.exported(s.Name); ok {
		return d, nil
	}
	if u.module != nil && exported && x.Module != VMLinux {
		return u.fromModule(s.Name, x)
	}
	i, err := u.global(s.Name)
	switch {
	case err == nil && u.target.Symtab.Sympos(i) > 0:
		return klp(VMLinux, VMLinux, s.Name, u.target.Symtab.Sympos(i))
	case err == nil:
		return u.plainKlp(s.Name), nil
	case s.Bind == elf.STB_WEAK:
		return dest{name: s.Name, bind: elf.STB_WEAK}, nil // as in the kernel: address 0
	}
	return dest{}, err
}

// fromModule is a symbol that another module exports. While the patched module
// is there, the modules that it depends on are there too. If it does not depend
// on that one, the livepatch does, as the patched module would have.
func (u *unitPlan) fromModule(name string, x target.Export) (dest, error) {
	exporter := modname.OfPath(x.Module)
	if slices.Contains(u.dependencies(), exporter) {
		return klp(u.Object, exporter, name, 0)
	}
	if strings.HasPrefix(x.Namespace, "module:") {
		return dest{}, fmt.Errorf("module %s, on which %s does not depend, exports it for some modules only, and a livepatch is none of them", exporter, u.Object)
	}
	if x.Namespace != "" {
		u.plan.Namespaces = append(u.plan.Namespaces, x.Namespace)
	}
	note := fmt.Sprintf("%s: the livepatch depends on module %s, which exports %s; %s itself does not, so load %s before the livepatch", u.Source, exporter, name, u.Object, exporter)
	if !u.reported[note] {
		u.reported[note] = true
		u.plan.Notes = append(u.plan.Notes, note)
	}
	return dest{name: name, bind: elf.STB_GLOBAL}, nil
}

// dependencies are the modules that the unit's module cannot do without.
func (u *unitPlan) dependencies() []string {
	var out []string
	for _, list := range u.module.Module().Modinfo("depends") {
		for _, name := range strings.Split(list, ",") {
			out = append(out, modname.Canonical(name))
		}
	}
	return out
}

// moduleSymbol is a global symbol that another unit of the same module defines.
func (u *unitPlan) moduleSymbol(s *elfobj.Symbol) (dest, error) {
	pos, ambiguous := u.module.Module().Sympos(s)
	if ambiguous {
		return dest{}, u.ambiguous(s.Name)
	}
	return klp(u.Object, u.Object, s.Name, pos)
}

// global finds the kernel's global symbol of a name. Static functions of other
// files may share the name; nm's letters tell them apart.
func (u *unitPlan) global(name string) (int, error) {
	tab := u.target.Symtab
	all := tab.Named(name)
	switch len(all) {
	case 0:
		return -1, errors.New("the running kernel has no such symbol")
	case 1:
		return all[0], nil
	}
	found := -1
	for _, i := range all {
		if isGlobalKind(tab.At(i).Kind) {
			if found >= 0 {
				return -1, errors.New("the running kernel has several global symbols of that name")
			}
			found = i
		}
	}
	if found < 0 {
		return -1, fmt.Errorf("the running kernel has %d symbols of that name and none is global", len(all))
	}
	return found, nil
}
