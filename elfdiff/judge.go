package elfdiff

// What a difference means for the running kernel. Changes of split-off parts are
// those of the function that they were split from. What runs only while the
// kernel boots, and what only says how a trace event looks, is left out beside
// changes that count. What then remains and cannot be patched is a problem.

import (
	"cmp"
	"debug/elf"
	"fmt"
	"slices"
	"strings"

	"github.com/klpc/klpc/elfobj"
)

// judge lifts verdicts and finds what the running kernel cannot take.
func (c *comparison) judge(r *Result) {
	c.liftParts(r)
	c.liftBodies(r)
	isInit := func(x Change) bool { return cmp.Or(x.Orig, x.Patched).Init }
	traces := func(x Change) bool { return x.Orig != nil && c.onlyTraces(x.Orig) }
	// Beside functions that do change, what only concerns the boot or the
	// looks of a trace is left out.
	initCode, live := split(r.Functions, isInit)
	initData, data := split(r.Data, isInit)
	traceFuncs, funcs := split(live, traces)
	traceData, kept := split(data, traces)
	if !changesCode(funcs) {
		traceFuncs, funcs, traceData, kept = nil, live, nil, data
	}
	r.Functions, r.Data = funcs, kept
	for _, f := range funcs {
		if f.Kind == IsChanged && !f.Orig.Traceable() && !c.wrapped[f.Patched] {
			c.noEntry(f)
		}
	}
	for _, d := range kept {
		if d.Kind == IsChanged && d.Orig != nil {
			c.dataChanged(d)
		}
	}
	for _, t := range append(traceFuncs, traceData...) {
		r.Notes = append(r.Notes, fmt.Sprintf("%s is left out: it only says how a trace event is printed", t.Name()))
	}
	c.judgeRecords(r)
	c.judgeInit(r, append(initCode, slices.DeleteFunc(initData, func(d Change) bool { return d.Kind != IsChanged })...))
}

// split returns the changes for which is holds, and the others.
func split(all []Change, is func(Change) bool) (yes, no []Change) {
	for _, x := range all {
		if is(x) {
			yes = append(yes, x)
		} else {
			no = append(no, x)
		}
	}
	return yes, no
}

// onlyTraces tells whether a piece of the original only says how a trace event
// is printed: the function that prints it, which ftrace cannot take over, its
// texts, and the tables that nothing else reads.
func (c *comparison) onlyTraces(p *Piece) bool {
	switch {
	case p.Sym == nil:
		return false
	case p.Func:
		return isTraceOutput(p.Sym.Name) && !p.Traceable()
	case isTraceText(p.Sym.Name):
		return true
	}
	return p.Kind == ReadOnly && len(p.users) > 0 && !slices.ContainsFunc(p.users, func(u string) bool { return !isTraceOutput(u) })
}

// judgeRecords: the kernel reads the arrays of trace events while it boots, or
// when a module comes. Beside other changes they are left out.
func (c *comparison) judgeRecords(r *Result) {
	effective := changesCode(r.Functions)
	for _, section := range c.records {
		if effective {
			r.Notes = append(r.Notes, fmt.Sprintf("the records in section %s are left out: the running kernel has read its own already, and new trace events stay off", section))
			continue
		}
		c.unnamedChanged(section)
	}
}

// changesCode tells whether a function of the running kernel changes.
func changesCode(funcs []Change) bool {
	return slices.ContainsFunc(funcs, func(f Change) bool { return f.Kind == IsChanged })
}

// judgeInit: init code that changes beside other code is left out, since it
// has run already; a patch of nothing but init code cannot do anything.
func (c *comparison) judgeInit(r *Result, initCode []Change) {
	if len(initCode) == 0 {
		return
	}
	effective := changesCode(r.Functions)
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

// liftBodies makes a change of a function that is inline, but was not inlined, a
// change of its callers: in the kernel "inline" implies notrace, so ftrace cannot
// take it over. What is patched are the nearest callers that it can. The body of a
// system call is such a function, with wrappers around it (SYSCALL_DEFINE).
func (c *comparison) liftBodies(r *Result) {
	for again := true; again; {
		again = false
		for _, f := range r.Functions {
			if f.Kind != IsChanged || f.Orig.Traceable() || !c.isInline(f.Orig) || c.wrapped[f.Patched] {
				continue
			}
			callers, ok := c.onlyCallers(f.Patched, nil)
			if !ok {
				continue
			}
			c.wrapped[f.Patched] = true
			for _, q := range callers {
				again = c.markCaller(r, q, f.Name()) || again
			}
		}
	}
}

// isInline tells whether the source declares a function inline. Its callers are
// all in the unit.
func (c *comparison) isInline(p *Piece) bool {
	name, _, _ := strings.Cut(p.Sym.Name, ".")
	return isSyscallBody(name) || p.Sym.Bind == elf.STB_LOCAL && slices.Contains(c.source.Inline, name)
}

// isSyscallBody tells whether a function is what SYSCALL_DEFINE makes of a
// system call's own text. Source: include/linux/syscalls.h and
// arch/x86/include/asm/syscall_wrapper.h.
func isSyscallBody(name string) bool {
	return strings.HasPrefix(name, "__do_sys_") || strings.HasPrefix(name, "__se_sys_")
}

// onlyCallers returns the functions that call a patched function; ok is false
// if it may be reached in another way, or not through functions that can be
// patched. below are functions that it calls in turn, of which the same is asked.
func (c *comparison) onlyCallers(q *Piece, below []*Piece) (callers []*Piece, ok bool) {
	below = append(slices.Clone(below), q)
	for _, p := range c.patched.Pieces {
		if p == q || p.Parent == q {
			continue
		}
		reaches, direct := false, true
		c.patched.EachRef(p, func(r *Ref) {
			if r.To.Kind == InPiece && (r.To.Piece == q || slices.Contains(q.Parts, r.To.Piece)) {
				reaches = true
				direct = direct && r.Branch && r.To.Piece == q && r.Addend+r.Adj == 0
			}
		})
		if !reaches {
			continue
		}
		k := cmp.Or(p.Parent, p)
		if !direct || !k.Func || k.Init || k.Twin == nil {
			return nil, false
		}
		if !k.Twin.Traceable() && !slices.Contains(below, k) {
			if _, ok := c.onlyCallers(k, below); !ok || !c.isInline(k.Twin) {
				return nil, false
			}
		}
		if !slices.Contains(callers, k) {
			callers = append(callers, k)
		}
	}
	return callers, len(callers) > 0
}

// markCaller makes a caller a changed function and tells whether it was none.
func (c *comparison) markCaller(r *Result, q *Piece, callee string) bool {
	if slices.ContainsFunc(r.Functions, func(f Change) bool { return f.Patched == q }) {
		return false
	}
	r.Functions = append(r.Functions, Change{Orig: q.Twin, Patched: q, Kind: IsChanged,
		Reasons: []string{"calls " + callee + ", which has changed and has no ftrace entry of its own"}})
	return true
}

func (c *comparison) noEntry(f Change) {
	callers := c.nearestCallers(f.Orig)
	hint := "no caller in this file can be patched instead; change a caller in another file, or reboot into a fixed kernel"
	if len(callers) > 0 {
		hint = "copy the function under a new name and call that from " + strings.Join(callers, ", ") + " instead"
	}
	why := "notrace, noinstr or built without -pg"
	if f.Orig.callsMcount() {
		why = "its call of mcount stands behind the prologue, without -mfentry"
	}
	c.problems = append(c.problems, Problem{Kind: NoFtraceEntry, At: f.Orig.Pos(f.Orig.entry()),
		Detail: fmt.Sprintf("%s has no ftrace entry (%s), so the kernel cannot redirect it", f.Orig.Name(), why),
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
		c.resized(p.Pos(p.entry()), p.Name(), p.Size(), q.Size(), by)
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

func (c *comparison) resized(at elfobj.Pos, name string, was, is uint64, by string) {
	c.problems = append(c.problems, Problem{Kind: DataResized, At: at,
		Detail: fmt.Sprintf("%s has %d bytes instead of %d%s", name, is, was, by),
		Hint:   "keep its size; put new fields into a shadow variable (klp_shadow_alloc) or a new variable"})
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
