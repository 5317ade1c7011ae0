package risk

// How two texts of a function are compared.
//
// Of both the calls are listed, in order, with their arguments as they are
// written. The longest common subsequence of the two lists stays; what is left
// over has been added, removed or, if it is on both sides, moved. That ignores
// indentation, comments, and code around the calls.

import (
	"fmt"
	"slices"
	"strings"

	"github.com/klpc/klpc/diff"
)

// Kind is a stable code for what to think about.
type Kind string

// The kinds of risks that texts show.
const (
	Locking       Kind = "locking-changed"
	Lifetime      Kind = "lifetime-changed"
	SleepInAtomic Kind = "sleep-in-atomic"
)

// Risk is something to think about before the livepatch is loaded.
type Risk struct {
	Kind     Kind   `json:"kind"`
	Function string `json:"function"`
	Detail   string `json:"detail"` // with FILE:LINE
}

// Find compares the functions of a source before and after a patch. Lines are
// those of the patched text, for removed calls those of the original.
func Find(file string, old, now []byte) []Risk {
	var out []Risk
	after := bodies(now)
	for i, was := range originals(bodies(old), after) {
		f := after[i]
		fresh := was == nil
		if fresh {
			was = &body{}
		}
		if was.sameText(f) {
			continue
		}
		d := compareCalls(was.calls, f.calls)
		if !fresh {
			out = append(out, changed(Locking, file, f, d, isLocking, lockOrder(file, was, f, d))...)
			out = append(out, changed(Lifetime, file, f, d, isLifetime, nil)...)
		}
		out = append(out, sleeping(file, f, d.added)...)
	}
	return out
}

// originals gives for each function the one that it was before, or nil for a new
// one. A text may define a name more than once, under #if and #else: functions
// whose text is the same belong together, in place if they can; the rest of a name
// do in order.
func originals(before, after []*body) []*body {
	was := make([]*body, len(after))
	left := map[string][]*body{} // by name
	for _, o := range before {
		left[o.name] = append(left[o.name], o)
	}
	pass := func(belongs func(o, f *body) bool) {
		for i, f := range after {
			if was[i] != nil {
				continue
			}
			if k := slices.IndexFunc(left[f.name], func(o *body) bool { return belongs(o, f) }); k >= 0 {
				was[i] = left[f.name][k]
				left[f.name] = slices.Delete(left[f.name], k, k+1)
			}
		}
	}
	pass(func(o, f *body) bool { return o.nth == f.nth && o.sameText(f) })
	pass((*body).sameText)
	pass(func(*body, *body) bool { return true })
	return was
}

// body is one function's text.
type body struct {
	name  string
	nth   int // among those of its name
	toks  []diff.Token
	calls []call
}

func (b *body) sameText(c *body) bool {
	return slices.EqualFunc(b.toks, c.toks, func(x, y diff.Token) bool { return x.Text == y.Text })
}

// call is one call, or what looks like one.
type call struct {
	name, args string
	line       int // 1-based
	at         int // index of its name among the function's tokens
}

func (c call) text() string { return c.name + "(" + c.args + ")" }

// bodies cuts a text into functions, from the "{" on.
func bodies(text []byte) []*body {
	toks := diff.Tokens(text)
	var out []*body
	seen := map[string]int{}
	i := 0
	for _, f := range diff.Functions(text) {
		for i < len(toks) && toks[i].Line < f.First {
			i++
		}
		start := i
		for i < len(toks) && toks[i].Line <= f.Last {
			i++
		}
		part := toks[start:i]
		for len(part) > 0 && part[0].Text != "{" {
			part = part[1:]
		}
		b := &body{name: f.Name, nth: seen[f.Name], toks: part}
		seen[f.Name]++
		b.findCalls()
		out = append(out, b)
	}
	return out
}

// words that a "(" may follow without a call.
var keywords = []string{"if", "while", "for", "switch", "return", "sizeof", "typeof", "__typeof__", "do", "else", "case", "defined"}

func (b *body) findCalls() {
	for i, t := range b.toks {
		if i+1 < len(b.toks) && b.toks[i+1].Text == "(" && isName(t.Text) && !slices.Contains(keywords, t.Text) {
			b.calls = append(b.calls, call{name: t.Text, args: b.arguments(i + 2), line: t.Line, at: i})
		}
	}
}

// arguments writes the tokens from i up to the closing parenthesis.
func (b *body) arguments(i int) string {
	var s strings.Builder
	last := ""
	for depth := 1; i < len(b.toks); i++ {
		t := b.toks[i].Text
		switch t {
		case "(":
			depth++
		case ")":
			depth--
		}
		if depth == 0 {
			break
		}
		if last == "," || isName(last) && isName(t) {
			s.WriteByte(' ')
		}
		s.WriteString(t)
		last = t
	}
	return s.String()
}

func isName(t string) bool {
	return t != "" && (t[0] == '_' || t[0] >= 'a' && t[0] <= 'z' || t[0] >= 'A' && t[0] <= 'Z')
}

// callDiff is what two lists of calls do not have in common, in order.
type callDiff struct{ added, removed []call }

// maxCells bounds the table of the comparison; beyond it, calls count as
// changed only if the other side has none of the same text.
const maxCells = 4 << 20

func compareCalls(a, b []call) callDiff {
	for len(a) > 0 && len(b) > 0 && a[0].text() == b[0].text() {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1].text() == b[len(b)-1].text() {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	if len(a)*len(b) > maxCells {
		return callDiff{added: without(b, a), removed: without(a, b)}
	}
	n := len(b) + 1
	length := make([]int32, (len(a)+1)*n) // of the common subsequence of a[i:] and b[j:]
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i].text() == b[j].text() {
				length[i*n+j] = length[(i+1)*n+j+1] + 1
			} else {
				length[i*n+j] = max(length[(i+1)*n+j], length[i*n+j+1])
			}
		}
	}
	var d callDiff
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i].text() == b[j].text():
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && length[(i+1)*n+j] >= length[i*n+j+1]:
			d.removed = append(d.removed, a[i])
			i++
		default:
			d.added = append(d.added, b[j])
			j++
		}
	}
	return d
}

func without(a, b []call) []call {
	var out []call
	for _, c := range a {
		if !slices.ContainsFunc(b, func(o call) bool { return o.text() == c.text() }) {
			out = append(out, c)
		}
	}
	return out
}

// shown bounds what one risk lists.
const shown = 6

// lockOrder says which calls cross a lock, and whether locks are taken in another
// order.
func lockOrder(file string, was, now *body, d callDiff) []string {
	var out []string
	for _, c := range d.added {
		i := slices.IndexFunc(d.removed, func(o call) bool { return o.text() == c.text() })
		if i >= 0 && !isLocking(c) && locksBefore(was, d.removed[i].at) != locksBefore(now, c.at) {
			out = append(out, fmt.Sprintf("%s is moved across a lock (%s:%d)", c.text(), file, c.line))
		}
	}
	a, b := now.acquires(), was.acquires()
	a, b = common(a, b), common(b, a)
	for i := range a {
		if a[i].text() != b[i].text() {
			return append(out, fmt.Sprintf("locks are taken in another order: %s now comes before %s (%s:%d)", a[i].text(), b[i].text(), file, a[i].line))
		}
	}
	return out
}

// locksBefore lists the calls for locks before a place.
func locksBefore(b *body, at int) string {
	var s []string
	for _, c := range b.calls {
		if c.at < at && isLocking(c) {
			s = append(s, c.text())
		}
	}
	return strings.Join(s, ";")
}

// acquires are the calls that take locks, the first of each.
func (b *body) acquires() []call {
	var out []call
	for _, c := range b.calls {
		if isLocking(c) && !gives.MatchString(c.name) && !slices.ContainsFunc(out, func(o call) bool { return o.text() == c.text() }) {
			out = append(out, c)
		}
	}
	return out
}

// common are the calls of a that b has too.
func common(a, b []call) []call {
	var out []call
	for _, c := range a {
		if slices.ContainsFunc(b, func(o call) bool { return o.text() == c.text() }) {
			out = append(out, c)
		}
	}
	return out
}

// changed makes a risk of the calls of a kind that are not the same.
func changed(kind Kind, file string, f *body, d callDiff, of func(call) bool, more []string) []Risk {
	var parts []string
	removed := slices.Clone(d.removed)
	for _, c := range d.added {
		if !of(c) {
			continue
		}
		what := "added"
		if i := slices.IndexFunc(removed, func(o call) bool { return o.text() == c.text() }); i >= 0 {
			removed = slices.Delete(removed, i, i+1)
			what = "moved"
		}
		parts = append(parts, fmt.Sprintf("%s is %s (%s:%d)", c.text(), what, file, c.line))
	}
	for _, c := range removed {
		if of(c) {
			parts = append(parts, fmt.Sprintf("%s is removed (%s:%d before the patch)", c.text(), file, c.line))
		}
	}
	parts = append(parts, more...)
	if len(parts) == 0 {
		return nil
	}
	if len(parts) > shown {
		parts = append(parts[:shown], fmt.Sprintf("%d more", len(parts)-shown))
	}
	advice := "while the transition runs, some tasks follow the old rules and some the new"
	if kind == Lifetime {
		advice = "objects that exist already were handled by the old rules"
	}
	return []Risk{{Kind: kind, Function: f.name, Detail: strings.Join(parts, "; ") + ": " + advice}}
}
