package typediff

// What makes two types the same, and how types are written.
//
// Typedefs and qualifiers are looked through. A struct, union or enum with a tag
// is told by its tag alone, for its content is compared by itself; that keeps the
// walk finite and names the root of a change. Types without a name are compared
// by content.

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// plain looks through typedefs and qualifiers; nil is void.
func plain(n *node) *node {
	for i := 0; n != nil && n.kind == alias && i < 64; i++ {
		n = n.elem
	}
	return n
}

// bits is the size of a type in bits.
func bits(n *node) int64 {
	n = plain(n)
	if n == nil {
		return 0
	}
	if n.kind != array {
		return 8 * n.size
	}
	if n.size > 0 {
		return 8 * n.size
	}
	total := bits(n.elem)
	for _, c := range n.counts {
		total *= c
	}
	if len(n.counts) == 0 {
		return 0
	}
	return total
}

func (m member) width() int64 {
	if m.bits > 0 {
		return m.bits
	}
	return bits(m.typ)
}

// sides compares types of two units.
type sides struct {
	orig, patched *Unit
	busy          map[[2]*node]bool // pairs that are being compared
}

// same tells whether two types mean the same.
func (s *sides) same(a, b *node) bool {
	a, b = plain(a), plain(b)
	if a == nil || b == nil {
		return a == b
	}
	if integral(a) && integral(b) && (a.kind == enumeration || b.kind == enumeration) {
		// An int and an enum of one size hold the same values.
		return a.size == b.size && (a.kind == base || b.kind == base || s.sameTag(a, b))
	}
	if a.kind != b.kind {
		return false
	}
	switch a.kind {
	case base:
		return a.size == b.size && a.class == b.class
	case pointer:
		x, y := plain(a.elem), plain(b.elem)
		return x == nil && y == nil || x == nil && y.kind != function || y == nil && x.kind != function || s.same(x, y)
	case array:
		return slices.Equal(extents(a), extents(b)) && s.same(a.elem, b.elem)
	case function:
		return s.samePrototype(a, b)
	case structure, union:
		return s.sameTag(a, b)
	}
	return a.kind == unknown && a.name == b.name && a.size == b.size
}

func integral(n *node) bool {
	return n.kind == enumeration || n.kind == base && (n.class == signedInt || n.class == unsignedInt)
}

// extents are the dimensions; x[] and x[0] are the same.
func extents(n *node) []int64 {
	if len(n.counts) == 0 {
		return []int64{0}
	}
	return n.counts
}

func (s *sides) samePrototype(a, b *node) bool {
	if !s.same(a.elem, b.elem) || len(a.params) != len(b.params) {
		return false
	}
	for i := range a.params {
		if (a.params[i] == nil) != (b.params[i] == nil) || !s.same(a.params[i], b.params[i]) {
			return false
		}
	}
	return true
}

// sameTag compares records and enums by name, and by content if they have none
// or if the patch renames them.
func (s *sides) sameTag(a, b *node) bool {
	x, y := a.tag(), b.tag()
	if x.name == y.name && x.name != "" {
		return true
	}
	if x.name != "" && (s.patched.tags[x] != nil || b.decl) || y.name != "" && (s.orig.tags[y] != nil || a.decl) {
		return false
	}
	pair := [2]*node{a, b}
	if s.busy[pair] {
		return true
	}
	s.busy[pair] = true
	defer delete(s.busy, pair)
	return s.sameContent(a, b)
}

func (s *sides) sameContent(a, b *node) bool {
	if a.size != b.size || len(a.members) != len(b.members) || !slices.Equal(a.values, b.values) {
		return false
	}
	for i, m := range a.members {
		if n := b.members[i]; m.name != n.name || m.off != n.off || m.bits != n.bits || !s.same(m.typ, n.typ) {
			return false
		}
	}
	return true
}

// scalar is a part of a type that has no parts.
type scalar struct {
	off, bits int64
	class     class
}

// scalars appends the parts of a type at an offset, in bits; at most limit.
func scalars(out []scalar, n *node, off int64, limit int) []scalar {
	n = plain(n)
	if n == nil || len(out) >= limit {
		return out
	}
	switch n.kind {
	case structure, union:
		for _, m := range n.members {
			if m.bits > 0 {
				out = append(out, scalar{off + m.off, m.bits, classIn(m.typ)})
			} else {
				out = scalars(out, m.typ, off+m.off, limit)
			}
		}
		return out
	case array:
		return scalars(append(out, scalar{off, bits(n), otherClass}), n.elem, off, limit)
	}
	return append(out, scalar{off, bits(n), classIn(n)})
}

func classIn(n *node) class {
	n = plain(n)
	switch {
	case n == nil:
		return otherClass
	case n.kind == pointer:
		return address
	case n.kind == enumeration:
		return unsignedInt
	}
	return n.class
}

// sameScalar tells whether two types are each one scalar, wrapped in structs or
// not, with the same bits and meaning: int, atomic_t and refcount_t are. Pointers
// are left out: what they lead to matters.
func sameScalar(a, b *node) bool {
	x, y := scalars(nil, a, 0, 2), scalars(nil, b, 0, 2)
	return len(x) == 1 && len(y) == 1 && x[0] == y[0] && x[0].class != address && x[0].class != otherClass
}

// write writes a type as C does, more or less: "struct foo *", "u8 [16]".
func write(n *node) string {
	if n == nil {
		return "void"
	}
	switch n.kind {
	case pointer:
		if f := plain(n.elem); f != nil && f.kind == function {
			return write(f.elem) + " (*)(" + parameters(f) + ")"
		}
		elem := write(n.elem)
		return elem + strings.Repeat(" ", btoi(!strings.HasSuffix(elem, "*"))) + "*"
	case array:
		var b strings.Builder
		for _, c := range extents(n) {
			fmt.Fprintf(&b, "[%d]", c)
		}
		return write(n.elem) + " " + b.String()
	case function:
		return write(n.elem) + " (" + parameters(n) + ")"
	case structure, union, enumeration:
		if t := n.tag(); t.name != "" {
			return t.name
		}
		return words[n.kind] + " {...}"
	case alias:
		if n.name == "" { // a qualifier
			return write(n.elem)
		}
	}
	return cmp.Or(n.name, "?")
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func parameters(f *node) string {
	if len(f.params) == 0 {
		return "void"
	}
	var out []string
	for _, p := range f.params {
		if p == nil {
			out = append(out, "...")
		} else {
			out = append(out, write(p))
		}
	}
	return strings.Join(out, ", ")
}
