package kbuild

import (
	"errors"
	"fmt"
)

// Shell words. Kbuild's commands are text for a POSIX shell (XCU 2.2 Quoting,
// 2.3 Token Recognition). The lexer splits such a text into simple commands
// and those into words, and resolves quotes and backslashes as the shell does.
// It expands nothing: a word with an unquoted or double-quoted $ or ` marks
// its command as dynamic, and the caller must not use it.

var errQuote = errors.New("unterminated quote")

// Words splits a text into the words of one simple command, as a shell would.
// What a shell would expand, redirect or take for several commands is an error.
func Words(text string) ([]string, error) {
	var c command
	l := lexer{src: []byte(text)}
	more, err := l.next(&c)
	switch {
	case err != nil:
		return nil, err
	case more || c.dynamic:
		return nil, fmt.Errorf("%q: give a program and its arguments, without what needs a shell", text)
	}
	return words(&c, c.len(), func(b []byte) string { return string(b) }), nil
}

type lexer struct {
	src []byte
	pos int
}

// command is one simple command. Its words share one buffer, which is reused
// for the next command.
type command struct {
	buf     []byte
	ends    []int // end of each word in buf
	dynamic bool  // some word needs expansion by a shell
}

func (c *command) reset() { c.buf, c.ends, c.dynamic = c.buf[:0], c.ends[:0], false }

func (c *command) len() int { return len(c.ends) }

func (c *command) word(i int) []byte {
	start := 0
	if i > 0 {
		start = c.ends[i-1]
	}
	return c.buf[start:c.ends[i]]
}

func (c *command) drop() {
	n := len(c.ends) - 1
	c.buf, c.ends = c.buf[:len(c.buf)-len(c.word(n))], c.ends[:n]
}

// next reads the next simple command into c, up to the next control operator.
// Redirections are left out. more is false at the end of the text.
func (l *lexer) next(c *command) (more bool, err error) {
	c.reset()
	redirect := false
	for {
		l.skipBlanks()
		if l.pos >= len(l.src) {
			return false, nil
		}
		switch ch := l.src[l.pos]; ch {
		case ';', '&', '|', '(', ')', '\n':
			l.pos++
			return true, nil
		case '<', '>':
			for l.pos < len(l.src) && (l.src[l.pos] == '<' || l.src[l.pos] == '>' || l.src[l.pos] == '&') {
				l.pos++
			}
			redirect = true
			continue
		}
		start := l.pos
		if err := l.scanWord(c); err != nil {
			return false, err
		}
		switch {
		case redirect: // the word that names its file
			c.drop()
			redirect = false
		case l.pos < len(l.src) && (l.src[l.pos] == '<' || l.src[l.pos] == '>') && digits(l.src[start:l.pos]):
			c.drop() // 2>file
		}
	}
}

func digits(b []byte) bool {
	for _, ch := range b {
		if ch < '0' || ch > '9' {
			return false
		}
	}
	return true
}

// skipBlanks skips blanks, line continuations and comments.
func (l *lexer) skipBlanks() {
	for l.pos < len(l.src) {
		switch ch := l.src[l.pos]; {
		case ch == ' ' || ch == '\t' || ch == '\r':
			l.pos++
		case ch == '\\' && l.pos+1 < len(l.src) && l.src[l.pos+1] == '\n':
			l.pos += 2
		case ch == '#':
			for l.pos < len(l.src) && l.src[l.pos] != '\n' {
				l.pos++
			}
		default:
			return
		}
	}
}

// scanWord appends one word to c; the lexer stands on its first character.
func (l *lexer) scanWord(c *command) error {
	for l.pos < len(l.src) {
		switch ch := l.src[l.pos]; ch {
		case ' ', '\t', '\r', '\n', ';', '&', '|', '(', ')', '<', '>':
			c.ends = append(c.ends, len(c.buf))
			return nil
		case '\'':
			if err := l.single(c); err != nil {
				return err
			}
		case '"':
			if err := l.double(c); err != nil {
				return err
			}
		case '\\':
			l.pos++
			if l.pos == len(l.src) {
				c.buf = append(c.buf, '\\')
				break
			}
			if l.src[l.pos] != '\n' {
				c.buf = append(c.buf, l.src[l.pos])
			}
			l.pos++
		case '$':
			c.dynamic = true
			l.substitution(c)
		case '`':
			c.dynamic = true
			fallthrough
		default:
			c.buf = append(c.buf, ch)
			l.pos++
		}
	}
	c.ends = append(c.ends, len(c.buf))
	return nil
}

// substitution keeps $(…) together as a part of the word. Quotes in it are not
// looked at: the word is not used.
func (l *lexer) substitution(c *command) {
	start := l.pos
	l.pos++
	if l.pos < len(l.src) && l.src[l.pos] == '(' {
		depth := 0
		for ; l.pos < len(l.src); l.pos++ {
			if l.src[l.pos] == '(' {
				depth++
			}
			if l.src[l.pos] == ')' {
				depth--
			}
			if depth == 0 {
				l.pos++
				break
			}
		}
	}
	c.buf = append(c.buf, l.src[start:l.pos]...)
}

func (l *lexer) single(c *command) error {
	start := l.pos + 1
	for i := start; i < len(l.src); i++ {
		if l.src[i] == '\'' {
			c.buf = append(c.buf, l.src[start:i]...)
			l.pos = i + 1
			return nil
		}
	}
	return fmt.Errorf("%w ' at byte %d", errQuote, l.pos)
}

func (l *lexer) double(c *command) error {
	for i := l.pos + 1; i < len(l.src); i++ {
		switch ch := l.src[i]; ch {
		case '"':
			l.pos = i + 1
			return nil
		case '\\':
			i++
			if i == len(l.src) {
				break
			}
			switch l.src[i] {
			case '\n':
			case '$', '`', '"', '\\':
				c.buf = append(c.buf, l.src[i])
			default:
				c.buf = append(c.buf, '\\', l.src[i])
			}
		case '$', '`':
			c.dynamic = true
			fallthrough
		default:
			c.buf = append(c.buf, ch)
		}
	}
	return fmt.Errorf("%w \" at byte %d", errQuote, l.pos)
}
