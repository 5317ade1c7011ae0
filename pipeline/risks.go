package pipeline

// Risk notes: what is no reason to refuse a patch, and a reason to think before
// the livepatch is loaded. What the texts show is found by package risk; here is
// what takes the compiled code or the kernel's symbols.

import (
	"cmp"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/klpc/klpc/diff"
	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/risk"
	"github.com/klpc/klpc/target"
)

// The kinds of risks beside those of package risk.
const (
	// AlwaysOnStack: a task may never leave the function, and a transition
	// waits for every task to do so.
	AlwaysOnStack risk.Kind = "always-on-stack"
	// HookPoint: the kernel offers the function to tracers or BPF programs.
	HookPoint risk.Kind = "hook-point"
	// EnteredByJump: a task in the function is not seen by a transition.
	EnteredByJump risk.Kind = "entered-by-jump"
	// ConstantChanged: objects may hold the old value of a constant.
	ConstantChanged risk.Kind = "constant-changed"
)

// findRisks collects the risks of the build, sorted, and notes them.
func (b *builder) findRisks() {
	var out []risk.Risk
	for _, f := range b.files {
		ext := filepath.Ext(f.path)
		if f.content == nil || ext != ".c" && ext != ".h" || slices.Contains(b.report.NoEffect, f.path) {
			continue
		}
		for _, r := range risk.Find(f.path, f.old, *f.content) {
			if b.travels(r.Function) {
				out = append(out, r)
			}
		}
	}
	loops := b.newLoops()
	hooks := newHooks(b.target.Symtab)
	for i := range b.pairs {
		p := &b.pairs[i]
		for _, c := range p.diff.Functions {
			if c.Kind != elfdiff.IsChanged {
				continue
			}
			source := b.sel.after(p.unit).Source
			if why := loops.why(source, c); why != "" {
				out = append(out, risk.Risk{Kind: AlwaysOnStack, Function: c.Name(), Detail: why})
			}
			out = append(out, entered(p.diff, c.Patched)...)
			if why := hooks.why(c.Name()); why != "" && len(p.unit.Modules) == 0 {
				out = append(out, risk.Risk{Kind: HookPoint, Function: c.Name(), Detail: why})
			}
		}
	}
	out = append(out, b.changedConstants()...)
	slices.SortStableFunc(out, func(x, y risk.Risk) int {
		return cmp.Or(cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Function, y.Function), cmp.Compare(x.Detail, y.Detail))
	})
	out = slices.Compact(out)
	b.report.Risks = out
	for _, r := range out {
		b.report.Notes = append(b.report.Notes, fmt.Sprintf("risk: %s: %s [%s]", r.Function, r.Detail, r.Kind))
	}
}

// travels tells whether a function of the source is in the livepatch: it has
// changed, is new, or is no function of its own in any object, being inlined into
// others.
func (b *builder) travels(name string) bool {
	stays := false
	for i := range b.pairs {
		p := &b.pairs[i]
		for _, c := range p.diff.Functions {
			if c.Kind != elfdiff.IsRemoved && ofSource(c.Name(), name) {
				return true
			}
		}
		stays = stays || p.patched != nil && p.diff.Patched != nil &&
			slices.ContainsFunc(p.diff.Patched.Pieces, func(q *elfdiff.Piece) bool { return q.Func && q.Sym != nil && ofSource(q.Sym.Name, name) })
	}
	return !stays
}

// ofSource tells whether a symbol is a function of the source of that name.
func ofSource(symbol, name string) bool {
	base, _, _ := strings.Cut(symbol, ".")
	return base == name || strings.HasSuffix(base, "_sys_"+name)
}

// entered finds the functions of the livepatch that take no other's place and
// that a function ends with a jump to. The frame of the one that a transition
// waits for is gone then.
func entered(r *elfdiff.Result, from *elfdiff.Piece) []risk.Risk {
	var out []risk.Risk
	refs := slices.Clone(from.Refs)
	for _, part := range from.Parts {
		refs = append(refs, part.Refs...)
	}
	for _, ref := range refs {
		to := ref.To.Piece
		if !ref.Jump || ref.To.Kind != elfdiff.InPiece {
			continue
		}
		for _, c := range r.Functions {
			if c.Patched == to && (c.Kind == elfdiff.IsNew || c.Kind == elfdiff.IsChanged && !c.Orig.Traceable()) {
				out = append(out, risk.Risk{Kind: EnteredByJump, Function: c.Name(),
					Detail: fmt.Sprintf("%s ends with a jump to it, so a task that sleeps in it does not show %[1]s on its stack, and no transition waits for it: unload the module with klpc unload, which looks for such tasks", from.Name())})
			}
		}
	}
	return out
}

// loops knows which functions tasks may never leave.
type loops struct {
	b     *builder
	texts map[string]*threadText
}

// threadText is an original source and what it starts as kernel threads.
type threadText struct {
	toks    []diff.Token
	funcs   []diff.Function
	threads map[string]int // function → line
}

func (b *builder) newLoops() *loops { return &loops{b: b, texts: map[string]*threadText{}} }

// scheduler are functions that every task that sleeps, or idles, is in.
var scheduler = []string{"__schedule", "schedule", "schedule_idle", "do_idle", "cpu_startup_entry", "preempt_schedule_common", "__preempt_schedule"}

// stopping are what the main loop of a kernel thread asks.
var stopping = []string{"kthread_should_stop", "kthread_should_park", "kthread_freezable_should_stop", "kthread_parkme"}

// waiting give the processor to another task.
var waiting = []string{"schedule", "schedule_timeout", "schedule_timeout_interruptible", "schedule_timeout_uninterruptible", "schedule_timeout_idle", "io_schedule", "schedule_hrtimeout", "schedule_hrtimeout_range", "freezable_schedule"}

// why tells why a task may be in a function for good; "" if nothing says so. It is
// the original that tasks are in.
func (l *loops) why(source string, c elfdiff.Change) string {
	name, _, _ := strings.Cut(c.Name(), ".")
	const consequence = ": a transition may not end before it returns; wake or stop the thread, or change a function that the loop calls"
	if slices.Contains(scheduler, name) {
		return "every task that sleeps or idles is in it, so that a transition cannot end: change one of its callers"
	}
	text := l.text(source)
	if line, ok := text.threads[name]; ok {
		return fmt.Sprintf("it is the main function of a kernel thread, started at %s:%d", source, line) + consequence
	}
	for _, r := range c.Orig.Refs {
		if to := calledName(r); slices.Contains(stopping, to) {
			return "it is the main loop of a kernel thread: it asks " + to + "()" + consequence
		}
	}
	for _, r := range c.Orig.Refs {
		if to := calledName(r); slices.Contains(waiting, to) {
			if line := text.endless(name, to); line > 0 {
				return fmt.Sprintf("it calls %s() in an endless loop (%s:%d)", to, source, line) + consequence
			}
		}
	}
	return ""
}

func calledName(r elfdiff.Ref) string {
	switch {
	case r.To.Kind == elfdiff.Undef:
		return r.To.Sym.Name
	case r.To.Kind == elfdiff.InPiece && r.To.Piece.Sym != nil:
		return r.To.Piece.Sym.Name
	}
	return ""
}

// text reads an original source.
func (l *loops) text(source string) *threadText {
	if t := l.texts[source]; t != nil {
		return t
	}
	t := &threadText{threads: map[string]int{}}
	l.texts[source] = t
	src := l.b.original(source)
	t.toks, t.funcs = diff.Tokens(src), diff.Functions(src)
	starts := regexp.MustCompile(`^(?:kthread_(?:run|create)[a-z_]*|kernel_thread|user_mode_thread)$`)
	for i, tok := range t.toks {
		if starts.MatchString(tok.Text) && i+2 < len(t.toks) && t.toks[i+1].Text == "(" {
			t.threads[t.toks[i+2].Text] = tok.Line
		}
	}
	return t
}

// endless is the line of a call within an endless loop of a function; 0 if there
// is none. Loops end with their "}"; for (;;), while (1) and while (true) are
// endless.
func (t *threadText) endless(function, call string) int {
	i := slices.IndexFunc(t.funcs, func(f diff.Function) bool { return f.Name == function })
	if i < 0 {
		return 0
	}
	f := t.funcs[i]
	depth, loop := 0, 0 // loop: depth inside of an endless loop, 0: not in one
	for i, tok := range t.toks {
		if tok.Line < f.First || tok.Line > f.Last {
			continue
		}
		switch {
		case tok.Text == "{":
			depth++
			if loop == 0 && t.endlessHead(i-1) {
				loop = depth
			}
		case tok.Text == "}":
			if depth == loop {
				loop = 0
			}
			depth--
		case tok.Text == call && loop > 0 && i+1 < len(t.toks) && t.toks[i+1].Text == "(":
			return tok.Line
		}
	}
	return 0
}

// endlessHead tells whether the tokens up to i are the head of an endless loop.
func (t *threadText) endlessHead(i int) bool {
	var words []string
	for ; i >= 0 && len(words) < 5; i-- {
		words = append(words, t.toks[i].Text)
	}
	s := strings.Join(words, " ")
	for _, head := range []string{") ; ; ( for", ") 1 ( while", ") true ( while"} {
		if s == head || strings.HasPrefix(s, head+" ") {
			return true
		}
	}
	return false
}

// hooks are the functions that the kernel itself offers for hooking, by what its
// symbols say. Who has hooked a function at the moment only the running machine
// knows.
type hooks map[string]string

func newHooks(t *target.Symtab) hooks {
	h := hooks{}
	if t == nil {
		return h
	}
	for i := range t.Len() {
		name := t.At(i).Name
		if f, ok := strings.CutPrefix(name, "_eil_addr_"); ok {
			h[f] = "errors can be injected into it (ALLOW_ERROR_INJECTION)"
		}
		if f, ok := strings.CutPrefix(name, "__BTF_ID__func__"); ok {
			if i := strings.LastIndex(f, "__"); i > 0 {
				f = f[:i]
			}
			if h[f] == "" {
				h[f] = "BPF programs may call it or attach to it by name (it is in a list of BTF ids)"
			}
		}
	}
	return h
}

func (h hooks) why(name string) string {
	why := h[name]
	switch {
	case strings.HasPrefix(name, "__traceiter_"), strings.HasPrefix(name, "__bpf_trace_"):
		why = "it is the glue of a tracepoint, which tracers call"
	case strings.HasPrefix(name, "bpf_lsm_"):
		why = "BPF programs of the LSM attach to it"
	}
	if why == "" {
		return ""
	}
	return why + ": a hook that changes where the function returns to or jumps keeps the livepatch from loading; klpc load looks at the running kernel"
}

// changedConstants are macros with another value that fields are compared with or
// set to: objects that exist already may hold the old one.
func (b *builder) changedConstants() []risk.Risk {
	var out []risk.Risk
	for _, m := range b.changedMacros() {
		if slices.ContainsFunc(b.report.Layout, func(l ReportLayout) bool { return l.Type == m.name }) {
			continue
		}
		word := regexp.QuoteMeta(m.name)
		use := regexp.MustCompile(`(?:->|\.)\s*(\w+)\s*(?:=|==|!=)\s*` + word + `\b`)
		for i := range b.pairs {
			p := &b.pairs[i]
			if p.diff.Verdict == elfdiff.Unchanged {
				continue
			}
			for _, text := range b.textsOf(b.sel.after(p.unit).Source) {
				if found := use.FindSubmatch(text); found != nil {
					out = append(out, risk.Risk{Kind: ConstantChanged, Function: m.name,
						Detail: fmt.Sprintf("its value changes from %d to %d (%s:%d), and the field %s holds it: existing objects hold the old value", m.old, m.now, m.file.path, m.line, found[1])})
				}
			}
		}
	}
	return slices.Compact(out)
}
