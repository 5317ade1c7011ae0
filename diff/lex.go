package diff

// What the C lexer is for: to know at which line starts a directive can stand
// without changing anything else.
//
// It follows translation phases 2 and 3 as far as that needs: a backslash at the
// end of a line joins it to the next (gcc allows blanks between), comments,
// string and character literals, raw strings (gcc has them in gnu11), directives
// with all that their logical line spans. Outside directives it counts
// parentheses, for within the arguments of a macro a directive is undefined
// (C11 6.10.3 paragraph 11). Braces need no care.
//
// Branches of #if may each open or close parentheses: every branch begins with
// the depth at #if, and after #endif the largest depth of those that can be
// compiled counts. A "}" in the first column brings the count back to zero,
// should branches have misled it. A line that begins with "(" after a name is
// not free either, since the name may be that of a macro.

import "strings"

// conditional is the kind of conditional directive that begins on a line.
type conditional int

const (
	condNone conditional = iota
	condIf               // #if, #ifdef, #ifndef
	condElse             // #elif, #elifdef, #elifndef, #else
	condEnd              // #endif
)

// lineStart is what the lexer knows of one physical line.
type lineStart struct {
	free bool // a directive can be put before the line
	cond conditional
	// number is what a #line directive on this line says: the number of the
	// line after it. 0: no such directive.
	number int
}

// branchState is one #if that has not ended yet.
type branchState struct {
	entry   int   // depth at #if
	ends    []int // depth at the end of each branch that can be compiled
	dead    bool  // the current branch is never compiled: it follows #if 0
	always  bool  // the first branch is always compiled: it follows #if 1
	hasElse bool
}

// lexer reads C source once, front to back.
type lexer struct {
	src      string
	off      int // bytes
	lines    []lineStart
	depth    int // of parentheses
	branches []branchState
	// callable is the 0-based line of the last token, if that is a name or a
	// closing parenthesis; else -1.
	callable int
}

// lexLines returns what is known of each line start of src. A last line without
// text, after the final newline, is included.
func lexLines(src []byte) []lineStart {
	l := &lexer{src: string(src), lines: []lineStart{{free: true}}, callable: -1}
	fresh := true // only blanks and comments so far on the logical line
	for {
		c := l.peek()
		switch {
		case c == 0 && l.off >= len(l.src):
			return l.lines
		case c == '\n':
			l.off++
			l.newLine()
			fresh = true
			continue
		case c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v':
			l.off++
			continue
		case l.comment():
			continue
		case c == '#' && fresh:
			l.off++
			l.directive()
		default:
			l.token(c)
		}
		fresh = false
	}
}

// spliceEnd returns the offset after a backslash-newline at off, or off.
func (l *lexer) spliceEnd(off int) int {
	if off >= len(l.src) || l.src[off] != '\\' {
		return off
	}
	end := off + 1
	for end < len(l.src) && strings.IndexByte(" \t\f\v\r", l.src[end]) >= 0 {
		end++
	}
	if end < len(l.src) && l.src[end] == '\n' {
		return end + 1
	}
	return off
}

// peek returns the next character, past any backslash-newline; 0 at the end.
func (l *lexer) peek() byte {
	for end := l.spliceEnd(l.off); end > l.off; end = l.spliceEnd(l.off) {
		l.off = end
		l.bound()
	}
	if l.off >= len(l.src) {
		return 0
	}
	return l.src[l.off]
}

// bound begins a line that is bound to the one before.
func (l *lexer) bound() { l.lines = append(l.lines, lineStart{}) }

// newLine begins a line that ends the logical line before.
func (l *lexer) newLine() {
	if l.off+1 < len(l.src) && l.src[l.off] == '}' && strings.IndexByte("),", l.src[l.off+1]) < 0 {
		l.depth = 0
	}
	l.lines = append(l.lines, lineStart{free: l.depth == 0})
}

// comment skips a comment at off and tells whether there was one.
func (l *lexer) comment() bool {
	if l.src[l.off] != '/' {
		return false
	}
	save, lines := l.off, len(l.lines)
	l.off++
	switch l.peek() {
	case '/':
		for c := l.peek(); c != '\n' && l.off < len(l.src); c = l.peek() {
			l.off++
		}
		return true
	case '*':
		l.off++
		l.blockComment()
		return true
	}
	l.off, l.lines = save, l.lines[:lines]
	return false
}

// blockComment skips to behind the closing star and slash.
func (l *lexer) blockComment() {
	star := false
	for c := l.peek(); l.off < len(l.src); c = l.peek() {
		l.off++
		if star && c == '/' {
			return
		}
		star = c == '*'
		if c == '\n' {
			l.bound()
		}
	}
}

// token skips one token outside directives.
func (l *lexer) token(c byte) {
	line := len(l.lines) - 1
	switch {
	case c == '"' || c == '\'':
		l.literal(c)
	case isName(c):
		name := l.name()
		if isDigit(c) {
			break
		}
		if isRawPrefix(name) && l.off < len(l.src) && l.src[l.off] == '"' {
			l.rawString()
			break
		}
		l.callable = len(l.lines) - 1
		return
	case c == '(':
		l.off++
		if l.callable >= 0 {
			for i := l.callable + 1; i <= line; i++ {
				l.lines[i].free = false
			}
		}
		l.depth++
	case c == ')':
		l.off++
		l.depth = max(0, l.depth-1)
		l.callable = line
		return
	default:
		l.off++
	}
	l.callable = -1
}

// literal skips a string or character literal. One that is not closed ends with
// its line, as in gcc; such things stand in branches that are not compiled.
func (l *lexer) literal(quote byte) {
	l.off++
	for c := l.peek(); c != '\n' && l.off < len(l.src); c = l.peek() {
		l.off++
		switch c {
		case quote:
			return
		case '\\':
			if e := l.peek(); e != '\n' && l.off < len(l.src) {
				l.off++
			}
		}
	}
}

// name skips a name or number and returns it without backslash-newlines.
func (l *lexer) name() string {
	var b strings.Builder
	for c := l.peek(); l.off < len(l.src) && isName(c); c = l.peek() {
		b.WriteByte(c)
		l.off++
	}
	return b.String()
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isName(c byte) bool {
	return c == '_' || c == '$' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || isDigit(c) || c >= 0x80
}

func isRawPrefix(name string) bool {
	return name == "R" || name == "LR" || name == "uR" || name == "UR" || name == "u8R"
}

// rawString skips a raw string at its first quote: R"delimiter(text)delimiter".
// Without a delimiter it is no raw string, and an ordinary one.
func (l *lexer) rawString() {
	const maxDelimiter = 16 // C++11 2.14.5, which gcc follows
	delimiter, _, found := strings.Cut(l.src[l.off+1:min(len(l.src), l.off+maxDelimiter+2)], "(")
	if !found || strings.ContainsAny(delimiter, " )\\\t\v\f\r\n\"") {
		l.literal('"')
		return
	}
	text, _, _ := strings.Cut(l.src[l.off:], ")"+delimiter+`"`)
	for range strings.Count(text, "\n") {
		l.bound()
	}
	l.off = min(len(l.src), l.off+len(text)+len(delimiter)+2)
}

// blanks skips blanks and comments within a directive.
func (l *lexer) blanks() {
	for {
		c := l.peek()
		switch {
		case l.off >= len(l.src):
			return
		case c == ' ' || c == '\t' || c == '\f' || c == '\v' || c == '\r':
			l.off++
		case !l.comment():
			return
		}
	}
}

// directive reads a directive from behind its # to its end, before the newline.
func (l *lexer) directive() {
	line := len(l.lines) - 1
	l.callable = -1
	l.blanks()
	name := l.name()
	l.blanks()
	switch name {
	case "if", "ifdef", "ifndef":
		l.lines[line].cond = condIf
		b := branchState{entry: l.depth}
		if name == "if" {
			value := l.name()
			l.blanks()
			whole := l.off >= len(l.src) || l.src[l.off] == '\n'
			b.dead, b.always = whole && value == "0", whole && value == "1"
		}
		l.branches = append(l.branches, b)
	case "elif", "elifdef", "elifndef", "else":
		l.lines[line].cond = condElse
		l.nextBranch(name == "else")
	case "endif":
		l.lines[line].cond = condEnd
		l.endBranches()
	case "line":
		name = l.name()
		fallthrough
	default:
		l.lines[line].number = lineNumber(name)
	}
	l.restOfDirective()
}

// lineNumber reads the number of a #line directive, or of a "# 12" marker; 0 if
// it is none.
func lineNumber(digits string) int {
	n := 0
	for i := range len(digits) {
		if !isDigit(digits[i]) || n > 1<<30 {
			return 0
		}
		n = n*10 + int(digits[i]-'0')
	}
	return n
}

// restOfDirective skips to the newline that ends the directive.
func (l *lexer) restOfDirective() {
	for {
		l.blanks()
		c := l.peek()
		switch {
		case l.off >= len(l.src) || c == '\n':
			return
		case c == '"' || c == '\'':
			l.literal(c)
		default:
			l.off++
		}
	}
}

// endBranch notes the depth at the end of the current branch.
func (b *branchState) endBranch(depth int) {
	if !b.dead {
		b.ends = append(b.ends, depth)
	}
	b.dead = b.always
}

// nextBranch goes from one branch to the next.
func (l *lexer) nextBranch(isElse bool) {
	if len(l.branches) == 0 {
		return
	}
	b := &l.branches[len(l.branches)-1]
	b.endBranch(l.depth)
	b.hasElse = b.hasElse || isElse
	l.depth = b.entry
}

// endBranches closes the innermost #if.
func (l *lexer) endBranches() {
	if len(l.branches) == 0 {
		return
	}
	b := &l.branches[len(l.branches)-1]
	b.endBranch(l.depth)
	if !b.hasElse && !b.always {
		b.ends = append(b.ends, b.entry)
	}
	l.depth = 0
	for _, d := range b.ends {
		l.depth = max(l.depth, d)
	}
	l.branches = l.branches[:len(l.branches)-1]
}
