package diff

// What of a C source can matter to the types that several functions share.
//
// A source is cut into items at file scope. Of these, function definitions without
// a struct, union or enum defined inside, and declarations of functions and
// variables that neither define nor name a type, cannot change a type. All other
// items and all directives can, and so can macro calls, which may expand to
// anything. If the text of those is the same before and after a patch, the file
// defines the same types.

import "strings"

// TypeText returns the parts of a C source that can define types or macros, in
// order. ok is false if the text's braces do not match; then nothing is known.
func TypeText(src []byte) (text string, ok bool) {
	s := &cScanner{src: string(src), line: 1}
	var parts []string
	seen := 0
	for {
		it, more := s.item()
		for ; seen < len(s.directives); seen++ {
			d := s.directives[seen]
			parts = append(parts, strings.TrimSpace(s.src[d[0]:d[1]]))
		}
		if it.unbalanced {
			return "", false
		}
		if it.matters() {
			parts = append(parts, s.src[it.start:it.end])
		}
		if !more {
			return strings.Join(parts, "\n"), true
		}
	}
}

// fileItem is a piece of a source at file scope.
type fileItem struct {
	start, end int // bytes
	tokens     int
	defines    bool // a struct, union or enum with its members, or a typedef
	macro      bool // may be, or hold, the call of a macro at file scope
	firstCall  bool // begins with NAME(...)
	calls      int  // "(...)" outside of braces, before the body
	body       bool
	unbalanced bool
}

func (it fileItem) matters() bool {
	switch {
	case it.tokens == 0:
		return false
	case it.defines:
		return true
	case it.body:
		// SYSCALL_DEFINE1(...) { is a function; with more between the two, the
		// macro stands by itself.
		return it.firstCall && it.calls > 1
	}
	return it.macro
}

// item reads the next item; more is false at the end of the text.
func (s *cScanner) item() (it fileItem, more bool) {
	depth := 0
	var last token
	assigned := false
	for t := s.next(); t.text != ""; t = s.next() {
		if it.tokens == 0 {
			it.start = s.off - len(t.text)
		}
		it.tokens++
		it.end = s.off
		switch t.text {
		case "typedef":
			it.defines = true
		case "struct", "union", "enum":
			it.defines = it.defines || s.definesMembers()
		case "(":
			if depth == 0 {
				it.calls++
				it.firstCall = it.firstCall || it.tokens == 2
				it.macro = it.macro || it.tokens == 2 || isMacroName(last.text)
			}
			if !s.skipParentheses(&it) {
				it.unbalanced = true
				return it, false
			}
			it.end = s.off
			t = token{text: ")", line: s.line}
		case "=":
			assigned = assigned || depth == 0
		case "{":
			if depth == 0 && !assigned && last.text == ")" && !it.defines {
				it.body = true
			}
			depth++
		case "}":
			if depth--; depth < 0 {
				it.unbalanced = true
				return it, false
			}
			if depth == 0 && it.body {
				return it, true
			}
		case ";":
			if depth == 0 {
				return it, true
			}
		}
		last = t
	}
	it.unbalanced = depth != 0
	if it.tokens > 0 {
		it.macro = true // a text that does not end with an item
	}
	return it, false
}

// definesMembers tells whether the keyword just read begins a definition: a "{"
// follows, after a tag and attributes or not. It reads nothing.
func (s *cScanner) definesMembers() bool {
	ahead := *s
	for range 8 {
		switch t := ahead.next(); {
		case t.text == "{":
			return true
		case t.text == "(":
			ahead.parenthesised()
		case t.text == "" || !isNameByte(t.text[0]):
			return false
		}
	}
	return false
}

// skipParentheses goes behind the ")" of a "(" just read.
func (s *cScanner) skipParentheses(it *fileItem) bool {
	depth := 1
	for t := s.next(); t.text != ""; t = s.next() {
		switch t.text {
		case "(":
			depth++
		case ")":
			if depth--; depth == 0 {
				return true
			}
		case "struct", "union", "enum":
			it.defines = it.defines || s.definesMembers()
		}
	}
	return false
}
