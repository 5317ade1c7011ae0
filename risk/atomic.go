package risk

// Where a function must not sleep.
//
// The function's blocks are walked in order with the list of what is held: spin
// locks, RCU read sides, disabled preemption. A block that ends with return, goto,
// break or continue does not reach what follows it, so what it gave back is still
// held there; of the two branches of an if, what both leave held is held after it.

import (
	"fmt"
	"slices"
	"strings"
)

// hold is one reason why sleeping is not allowed.
type hold struct {
	call
	guard int // depth of the block whose end gives it back; 0: an unlock does
}

// block is one "{" that is open.
type block struct {
	entry []hold // held at its beginning
	alt   []hold // of the else branch: what the if branch left
	isAlt bool
	exits bool // its last statement leaves it
}

// walker goes through one function.
type walker struct {
	f      *body
	file   string
	held   []hold
	blocks []block
	begin  bool // the next token begins a statement
	added  map[int]bool
	out    []Risk
	said   map[string]bool
}

// sleeping finds calls that may sleep while something is held that forbids it, if
// the patch adds the one or the other.
func sleeping(file string, f *body, added []call) []Risk {
	w := &walker{f: f, file: file, begin: true, added: map[int]bool{}, said: map[string]bool{}}
	for _, c := range added {
		w.added[c.at] = true
	}
	next := 0
	for i, t := range f.toks {
		for next < len(f.calls) && f.calls[next].at < i {
			next++
		}
		var c *call
		if next < len(f.calls) && f.calls[next].at == i {
			c = &f.calls[next]
		}
		w.token(i, t.Text, c)
	}
	return w.out
}

func (w *walker) token(i int, t string, c *call) {
	if w.begin && t != "}" && len(w.blocks) > 0 {
		w.blocks[len(w.blocks)-1].exits = t == "return" || t == "goto" || t == "break" || t == "continue"
	}
	w.begin = t == ";" || t == "{" || t == "}" || t == ":"
	switch t {
	case "{":
		w.blocks = append(w.blocks, w.open())
	case "}":
		w.close(i)
	}
	if c != nil {
		w.call(*c)
	}
}

func (w *walker) open() block {
	b := block{entry: slices.Clone(w.held)}
	// scoped_guard(spinlock, &l) {
	for n := len(w.held); n > 0 && w.held[n-1].guard == len(w.blocks)+1; n-- {
		b.entry = b.entry[:n-1]
	}
	return b
}

func (w *walker) close(i int) {
	if len(w.blocks) == 0 {
		return
	}
	depth := len(w.blocks)
	b := w.blocks[depth-1]
	w.blocks = w.blocks[:depth-1]
	w.held = slices.DeleteFunc(slices.Clone(w.held), func(h hold) bool { return h.guard >= depth })
	after, exits := w.held, b.exits
	if exits {
		after = b.entry
	}
	if i+1 < len(w.f.toks) && w.f.toks[i+1].Text == "else" && depth > 1 {
		// The else branch begins with what the if branch began with.
		w.held = slices.Clone(b.entry)
		parent := &w.blocks[depth-2]
		parent.alt, parent.isAlt = after, !exits
		return
	}
	w.held = after
	if depth > 1 {
		parent := &w.blocks[depth-2]
		if parent.isAlt {
			w.held = slices.DeleteFunc(slices.Clone(after), func(h hold) bool {
				return !exits && !slices.ContainsFunc(parent.alt, func(o hold) bool { return o.at == h.at })
			})
			if exits {
				w.held = parent.alt
			}
			parent.isAlt = false
		}
	}
}

func (w *walker) call(c call) {
	switch {
	case c.name == "guard" && atomicGuards.MatchString(c.args):
		w.held = append(slices.Clone(w.held), hold{c, max(len(w.blocks), 1)})
	case c.name == "scoped_guard" && atomicGuards.MatchString(firstArgument(c.args)):
		w.held = append(slices.Clone(w.held), hold{c, len(w.blocks) + 1})
	case atomics.MatchString(c.name):
		w.held = append(slices.Clone(w.held), hold{call: c})
	case ends.MatchString(c.name):
		w.release(c)
	}
	why, may := maySleep(c)
	if !may || len(w.held) == 0 {
		return
	}
	for _, h := range slices.Backward(w.held) {
		if !w.added[c.at] && !w.added[h.at] || w.said[why+h.text()] {
			continue
		}
		w.said[why+h.text()] = true
		w.out = append(w.out, Risk{Kind: SleepInAtomic, Function: w.f.name,
			Detail: fmt.Sprintf("%s (%s:%d) may sleep, and %s (%s:%d) forbids it", why, w.file, c.line, h.text(), w.file, h.line)})
		return
	}
}

func firstArgument(args string) string {
	for i := range args {
		if args[i] == ',' || args[i] == '(' {
			return args[:i]
		}
	}
	return args
}

// release gives back the latest hold of the same kind, of the same lock if there
// is one.
func (w *walker) release(c call) {
	kind := family(c.name)
	best := -1
	for i, h := range w.held {
		if h.guard == 0 && family(h.name) == kind && (best < 0 || lockOf(h.args) == lockOf(c.args) || lockOf(w.held[best].args) != lockOf(c.args)) {
			best = i
		}
	}
	if best >= 0 {
		w.held = slices.Delete(slices.Clone(w.held), best, best+1)
	}
}

// lockOf is the first argument: irqsave variants have a second one.
func lockOf(args string) string {
	depth := 0
	for i := range args {
		switch args[i] {
		case '(', '[':
			depth++
		case ')', ']':
			depth--
		case ',':
			if depth == 0 {
				return args[:i]
			}
		}
	}
	return args
}

// family joins the names that belong together.
func family(name string) string {
	for _, f := range []string{"spin", "read_", "write_seq", "write_", "rcu", "irq", "bh", "preempt", "kmap", "kunmap"} {
		if strings.Contains(name, f) {
			switch f {
			case "read_":
				if strings.Contains(name, "rcu") {
					return "rcu"
				}
			case "kunmap":
				return "kmap"
			}
			return f
		}
	}
	return name
}
