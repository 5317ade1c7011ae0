package diff

// Which function a line belongs to, from the text alone: a name, a parameter
// list and a body at the top level. Macros that define functions
// (SYSCALL_DEFINE3(read, ...)) count by their first argument. That serves
// messages only; what has changed is decided on the compiled code.

import "strings"

// Function is the body of one function definition.
type Function struct {
	Name        string
	First, Last int // 1-based lines, from the name to the closing brace
}

// Functions returns the function definitions of a C source, in file order.
func Functions(src []byte) []Function {
	var out []Function
	s := cScanner{src: string(src), line: 1}
	depth := 0
	var current Function
	var last, candidate token // candidate: the name before the last top-level "(...)"
	for t := s.next(); t.text != ""; t = s.next() {
		switch t.text {
		case "(":
			args := s.parenthesised()
			if depth == 0 {
				candidate = last
				if isMacroName(last.text) && args != "" {
					candidate.text = args
				}
				last = token{text: ")", line: s.line}
				continue
			}
		case "{":
			if depth == 0 && last.text == ")" && candidate.text != "" {
				current = Function{Name: candidate.text, First: candidate.line}
			}
			depth++
		case "}":
			depth = max(depth-1, 0)
			if depth == 0 && current.Name != "" {
				current.Last = t.line
				out = append(out, current)
				current = Function{}
			}
		case ";", "=":
			candidate = token{}
		}
		last = t
	}
	return out
}

func isMacroName(name string) bool {
	return name != "" && name == strings.ToUpper(name) && strings.ContainsAny(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
}

// Token is a name, a number or a single character of C.
type Token struct {
	Text string
	Line int // 1-based
}

// Tokens returns what stands in a C source outside comments, literals and
// directives.
func Tokens(src []byte) []Token {
	var out []Token
	s := cScanner{src: string(src), line: 1}
	for t := s.next(); t.text != ""; t = s.next() {
		out = append(out, Token{t.text, t.line})
	}
	return out
}

// token is a name or a single character of C.
type token struct {
	text string
	line int // 1-based
}

type cScanner struct {
	src  string
	off  int
	line int
	// directives are the byte ranges of those passed so far.
	directives [][2]int
}

// next returns the next name or punctuation outside comments, literals and
// directives; its text is empty at the end.
func (s *cScanner) next() token {
	for s.off < len(s.src) {
		c := s.src[s.off]
		switch {
		case c == '\n':
			s.line++
			s.off++
		case c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v' || c == '\\':
			s.off++
		case strings.HasPrefix(s.src[s.off:], "//"):
			s.skipTo("\n")
		case strings.HasPrefix(s.src[s.off:], "/*"):
			s.skipTo("*/")
			s.off = min(s.off+2, len(s.src))
		case c == '#' && s.startsLine():
			s.directive()
		case c == '"' || c == '\'':
			s.literal(c)
		case isNameByte(c):
			start := s.off
			for s.off < len(s.src) && isNameByte(s.src[s.off]) {
				s.off++
			}
			return token{s.src[start:s.off], s.line}
		default:
			s.off++
			return token{s.src[s.off-1 : s.off], s.line}
		}
	}
	return token{}
}

// parenthesised skips to the ")" of a "(" just read, and returns the first
// name inside if a "," or the ")" follows it.
func (s *cScanner) parenthesised() string {
	first := s.next()
	t := first
	for depth := 1; t.text != ""; t = s.next() {
		switch t.text {
		case "(":
			depth++
		case ")":
			if depth--; depth == 0 {
				if isNameByte(first.text[0]) {
					return first.text
				}
				return ""
			}
		}
	}
	return ""
}

func (s *cScanner) startsLine() bool {
	i := s.off - 1
	for i >= 0 && (s.src[i] == ' ' || s.src[i] == '\t') {
		i--
	}
	return i < 0 || s.src[i] == '\n'
}

// directive skips a preprocessor line with its continuations.
func (s *cScanner) directive() {
	start := s.off
	defer func() { s.directives = append(s.directives, [2]int{start, s.off}) }()
	for s.off < len(s.src) && s.src[s.off] != '\n' {
		if s.src[s.off] == '\\' && s.off+1 < len(s.src) && s.src[s.off+1] == '\n' {
			s.line++
			s.off++
		}
		s.off++
	}
}

func (s *cScanner) skipTo(end string) {
	n := strings.Index(s.src[s.off:], end)
	if n < 0 {
		n = len(s.src) - s.off
	}
	s.line += strings.Count(s.src[s.off:s.off+n], "\n")
	s.off += n
}

func (s *cScanner) literal(quote byte) {
	for s.off++; s.off < len(s.src) && s.src[s.off] != quote && s.src[s.off] != '\n'; s.off++ {
		if s.src[s.off] == '\\' {
			s.off++
		}
	}
	s.off++
	s.off = min(s.off, len(s.src))
}

func isNameByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
