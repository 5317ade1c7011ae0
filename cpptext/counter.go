package cpptext

import "bytes"

// Names with a number from __COUNTER__, as the kernel makes them:
//
//	__UNIQUE_ID_x_12                            include/linux/compiler.h
//	__compiletime_assert_12                     include/linux/compiler_types.h
//	__initcall__kmod_slub__12_7314_slab_late7   include/linux/init.h: the first number
//	__BTF_ID__struct__file__1267                include/linux/btf_ids.h: with the line's number
var (
	uniqueID = []byte("__UNIQUE_ID_")
	assertID = []byte("__compiletime_assert_")
	btfID    = []byte("__BTF_ID__")
	initcall = []byte("__initcall__")
	initstub = []byte("__initstub__")
)

// uncounted returns what is before and behind the counter in a name; a name
// without counter is all head.
func uncounted(name []byte) (head, tail []byte) {
	if len(name) < len(btfID) || name[0] != '_' || name[1] != '_' {
		return name, nil
	}
	switch {
	case bytes.HasPrefix(name, uniqueID), bytes.HasPrefix(name, assertID), bytes.HasPrefix(name, btfID):
		n := len(name)
		for isDigit(name[n-1]) {
			n--
		}
		return name[:n], nil
	case bytes.HasPrefix(name, initcall), bytes.HasPrefix(name, initstub):
		for i := len(initcall); i+2 < len(name); i++ {
			n := i + 2
			for n < len(name) && isDigit(name[n]) {
				n++
			}
			if name[i] == '_' && name[i+1] == '_' && n > i+2 && n < len(name) && name[n] == '_' {
				return name[:i+2], name[n:]
			}
		}
	}
	return name, nil
}

func isDigit(c byte) bool { return classes[c] == cDigit }

// renaming is a one-to-one map of counted names.
type renaming struct {
	to, from map[string]string
	changed  bool // a name has become another
}

func newRenaming() renaming {
	return renaming{to: map[string]string{}, from: map[string]string{}}
}

// same tells whether b can stand for a.
func (r *renaming) same(a, b []byte) bool {
	equal := bytes.Equal(a, b)
	ha, ta := uncounted(a)
	if len(ha)+len(ta) == len(a) {
		return equal
	}
	if hb, tb := uncounted(b); !bytes.Equal(ha, hb) || !bytes.Equal(ta, tb) || len(hb)+len(tb) == len(b) {
		return false
	}
	return r.pair(string(a), string(b))
}

func (r *renaming) pair(a, b string) bool {
	to, known := r.to[a]
	from, taken := r.from[b]
	if known != taken || known && (to != b || from != a) {
		return false
	}
	if !known {
		r.to[a], r.from[b] = b, a
	}
	r.changed = r.changed || a != b
	return true
}

// sameWords compares two strings, with renamed words.
func (r *renaming) sameWords(a, b []byte) bool {
	for len(a) > 0 && len(b) > 0 {
		switch n, m := wordLength(a), wordLength(b); {
		case n > 0 && m > 0:
			if !r.same(a[:n], b[:m]) {
				return false
			}
			a, b = a[n:], b[m:]
		case a[0] != b[0]:
			return false
		case a[0] == '\\' && len(a) > 1 && len(b) > 1:
			if a[1] != b[1] {
				return false
			}
			a, b = a[2:], b[2:]
		default:
			a, b = a[1:], b[1:]
		}
	}
	return len(a) == len(b)
}

func wordLength(b []byte) int {
	n := 0
	for n < len(b) && classes[b[n]] >= cIdent {
		n++
	}
	return n
}

// asmPair is the state of comparing two asm statements.
//
// Some macros make the labels of an assembler fragment from __COUNTER__:
//
//	asm volatile("12" ": nop\n\t" ".long " "12" "b - .\n\t" : : "i" (12));
//
// Such a number may change if it is a string of its own, if no other string has a
// digit or an operand (%), and if the change is one to one within the statement.
type asmPair struct {
	pending bool // asm, and no parenthesis yet
	depth   int  // of parentheses
	labels  renaming
	other   bool // a string with a digit or '%'
	unknown bool // a number has changed that is no label
}

// word takes an identifier.
func (p *asmPair) word(w word) {
	if w == kwAsm {
		p.pending = true
	}
}

// outside takes a token that is the same on both sides and not in parentheses.
func (p *asmPair) outside(t token) {
	if p.pending && t.is('(') {
		*p = asmPair{depth: 1, labels: newRenaming()}
	}
	p.pending = false
}

// token compares two tokens in the parentheses of asm.
func (p *asmPair) token(t token, a, b []byte, counted *renaming) bool {
	equal := bytes.Equal(a, b)
	switch {
	case t.is('('):
		p.depth++
	case t.is(')'):
		p.depth--
		if p.depth == 0 && (p.labels.changed || p.unknown) {
			return !p.other && !p.unknown
		}
	case t.kind == number && (!equal || p.labels.to[string(a)] != ""):
		p.unknown = p.unknown || p.labels.to[string(a)] != string(b)
		return true
	case t.kind == str && isLabel(a) && isLabel(b):
		return p.labels.pair(string(a[1:len(a)-1]), string(b[1:len(b)-1]))
	case t.kind == str:
		p.other = p.other || bytes.ContainsAny(a, "%0123456789")
		return counted.sameWords(a, b)
	}
	return equal
}

// isLabel tells whether a string literal holds digits only.
func isLabel(s []byte) bool {
	return len(s) > 2 && s[0] == '"' && len(bytes.Trim(s[1:len(s)-1], "0123456789")) == 0
}
