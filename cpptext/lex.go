package cpptext

import "bytes"

// kind is what a token is.
type kind uint8

const (
	eof kind = iota
	ident
	number
	str     // a string literal with its prefix
	char    // a character constant with its prefix
	punct   // an operator or bracket
	pragma  // a directive that is neither a line marker nor an #include, to the end of its line
	invalid // an unterminated literal or comment
)

// token is a preprocessing token. Offsets are bytes from the start of the text.
type token struct {
	start, end uint32
	// id is an identifier's number; for an opening bracket of an item, the
	// index of the closing one among the item's tokens.
	id   uint32
	kind kind
	// op is a punctuator's first byte; '>' with more set is "->" only if the
	// token has that spelling (see isArrow).
	op byte
	// long marks punctuators of several bytes.
	long bool
}

// is tells whether the token is the punctuator of that one byte.
func (t token) is(op byte) bool { return t.kind == punct && t.op == op && !t.long }

// classes of bytes
const (
	cOther uint8 = iota
	cSpace
	cIdent // letters, '_', '$', bytes of UTF-8 sequences
	cDigit
)

var classes = byteClasses()

func byteClasses() (t [256]uint8) {
	for c := range 256 {
		switch {
		case c == ' ' || c >= '\t' && c <= '\r' || c == 0:
			t[c] = cSpace
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '$' || c >= 0x80:
			t[c] = cIdent
		case c >= '0' && c <= '9':
			t[c] = cDigit
		}
	}
	return t
}

// lexer cuts a text into tokens. Line markers, comments, white space and
// escaped ends of lines separate tokens and are dropped.
type lexer struct {
	src   []byte
	off   int
	names *names
	bol   bool // only white space so far on this line
}

func newLexer(src []byte, n *names) lexer { return lexer{src: src, names: n, bol: true} }

// next reads a token.
func (l *lexer) next() token {
	if !l.skipSpace() {
		start := l.off
		l.off = len(l.src)
		return token{kind: invalid, start: uint32(start), end: uint32(l.off)}
	}
	start := l.off
	if start >= len(l.src) {
		return token{kind: eof, start: uint32(start), end: uint32(start)}
	}
	bol := l.bol
	l.bol = false
	c := l.src[start]
	switch classes[c] {
	case cIdent:
		return l.identifier()
	case cDigit:
		return l.number()
	}
	switch {
	case c == '"':
		return l.literal(start, str)
	case c == '\'':
		return l.literal(start, char)
	case c == '.' && start+1 < len(l.src) && classes[l.src[start+1]] == cDigit:
		return l.number()
	case c == '#' && bol:
		l.off = l.lineEnd(start)
		return token{kind: pragma, start: uint32(start), end: uint32(l.off)}
	}
	n := punctLength(l.src[start:])
	l.off += n
	return token{kind: punct, start: uint32(start), end: uint32(l.off), op: c, long: n > 1}
}

// skipSpace skips what only separates tokens. It is false for a comment without
// end.
func (l *lexer) skipSpace() bool {
	src := l.src
	for l.off < len(src) {
		c := src[l.off]
		switch {
		case c == '\n':
			l.bol = true
			l.off++
		case classes[c] == cSpace:
			l.off++
		case c == '#' && l.bol && l.marker():
			l.off = l.lineEnd(l.off)
		case c == '\\' && l.escapedEnd(l.off) > 0:
			l.off = l.escapedEnd(l.off)
		case c == '/' && l.off+1 < len(src) && src[l.off+1] == '*':
			n := bytes.Index(src[l.off+2:], []byte("*/"))
			if n < 0 {
				return false
			}
			l.off += n + 4
		case c == '/' && l.off+1 < len(src) && src[l.off+1] == '/':
			l.off = l.lineEnd(l.off)
		default:
			return true
		}
	}
	return true
}

// marker tells whether the '#' here begins a line marker: # 12 "file" 3.
func (l *lexer) marker() bool {
	i := l.off + 1
	for i < len(l.src) && (l.src[i] == ' ' || l.src[i] == '\t') {
		i++
	}
	return i < len(l.src) && classes[l.src[i]] == cDigit || bytes.HasPrefix(l.src[i:], []byte("line "))
}

// escapedEnd returns the offset after a backslash that ends its line; 0 if the
// backslash at off does not. GCC allows blanks in between.
func (l *lexer) escapedEnd(off int) int {
	for i := off + 1; i < len(l.src); i++ {
		switch l.src[i] {
		case '\n':
			return i + 1
		case ' ', '\t', '\r':
		default:
			return 0
		}
	}
	return 0
}

// lineEnd is the offset of the newline that ends the logical line, or of the
// text's end. Comments of several lines inside belong to the line.
func (l *lexer) lineEnd(off int) int {
	for off < len(l.src) {
		n := bytes.IndexAny(l.src[off:], "\n\\/")
		if n < 0 {
			return len(l.src)
		}
		off += n
		switch {
		case l.src[off] == '\n':
			return off
		case l.src[off] == '\\' && l.escapedEnd(off) > 0:
			off = l.escapedEnd(off)
		case bytes.HasPrefix(l.src[off:], []byte("/*")):
			end := bytes.Index(l.src[off+2:], []byte("*/"))
			if end < 0 {
				return len(l.src)
			}
			off += end + 4
		default:
			off++
		}
	}
	return off
}

func (l *lexer) identifier() token {
	src, start := l.src, l.off
	h := uint32(hashStart)
	i := start
	for ; i < len(src) && classes[src[i]] >= cIdent; i++ {
		h = (h ^ uint32(src[i])) * hashPrime
	}
	l.off = i
	if i < len(src) && (src[i] == '"' || src[i] == '\'') && i-start <= 3 {
		switch prefix := string(src[start:i]); {
		case prefix == "L" || prefix == "u" || prefix == "U" || prefix == "u8":
			k := str
			if src[i] == '\'' {
				k = char
			}
			return l.literal(start, k)
		case src[i] == '"' && (prefix == "R" || prefix == "LR" || prefix == "uR" || prefix == "UR" || prefix == "u8R"):
			return l.rawString(start)
		}
	}
	return token{kind: ident, start: uint32(start), end: uint32(i), id: l.names.intern(src[start:i], h)}
}

func (l *lexer) number() token {
	src, start := l.src, l.off
	i := start + 1
	for ; i < len(src); i++ {
		c := src[i]
		sign := (c == '+' || c == '-') && (src[i-1]|0x20 == 'e' || src[i-1]|0x20 == 'p')
		if classes[c] < cIdent && c != '.' && !sign {
			break
		}
	}
	l.off = i
	return token{kind: number, start: uint32(start), end: uint32(i)}
}

// literal reads from the first quote at or after l.off to the second.
func (l *lexer) literal(start int, k kind) token {
	src := l.src
	quote := src[l.off]
	for i := l.off + 1; i < len(src); i++ {
		switch src[i] {
		case quote:
			l.off = i + 1
			return token{kind: k, start: uint32(start), end: uint32(i + 1)}
		case '\\':
			i++
		case '\n':
			l.off = i
			return token{kind: invalid, start: uint32(start), end: uint32(i)}
		}
	}
	l.off = len(src)
	return token{kind: invalid, start: uint32(start), end: uint32(len(src))}
}

// rawString reads R"delimiter(…)delimiter".
func (l *lexer) rawString(start int) token {
	rest := l.src[l.off+1:]
	open := bytes.IndexByte(rest, '(')
	if open >= 0 && open <= 16 {
		closing := append(append([]byte{')'}, rest[:open]...), '"')
		if n := bytes.Index(rest[open:], closing); n >= 0 {
			l.off += 1 + open + n + len(closing)
			return token{kind: str, start: uint32(start), end: uint32(l.off)}
		}
	}
	l.off = len(l.src)
	return token{kind: invalid, start: uint32(start), end: uint32(len(l.src))}
}

// punctLength is the length of the longest punctuator that b begins with.
func punctLength(b []byte) int {
	if len(b) < 2 {
		return 1
	}
	c, d := b[0], b[1]
	switch c {
	case '(', ')', '{', '}', '[', ']', ';', ',', '?', '~', ':', '\\', '@', '`':
		return 1
	case '.':
		if len(b) > 2 && d == '.' && b[2] == '.' {
			return 3
		}
		return 1
	case '<', '>':
		if d == c {
			if len(b) > 2 && b[2] == '=' {
				return 3
			}
			return 2
		}
	case '-':
		if d == '>' || d == '-' {
			return 2
		}
	case '+', '&', '|', '#':
		if d == c {
			return 2
		}
	}
	if d == '=' && c != '#' {
		return 2
	}
	return 1
}
