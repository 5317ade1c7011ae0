package ui

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// Control sequences of xterm (alternate screen) and ECMA-48.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // another screen, without a cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	toTop       = "\x1b[H"
	eraseLine   = "\x1b[K"
	eraseBelow  = "\x1b[J"
)

// Screen is a page on a terminal that is updated in place. What stood on the
// terminal comes back when it is closed; the last page is printed below it.
type Screen struct {
	w    io.Writer
	size func() (columns, lines int)
	last string
}

// NewScreen takes the terminal over. Close gives it back.
func NewScreen(f *os.File) *Screen {
	return newScreen(f, func() (int, int) {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil && w > 0 && h > 0 {
			return w, h
		}
		return fallbackWidth, fallbackHeight
	})
}

// fallbackHeight is the height, in lines, of a terminal that does not tell.
const fallbackHeight = 24

func newScreen(w io.Writer, size func() (int, int)) *Screen {
	fmt.Fprint(w, enterScreen)
	return &Screen{w: w, size: size}
}

// Show replaces the page. What does not fit is left out, and that is said.
func (s *Screen) Show(page string) error {
	s.last = page
	columns, height := s.size()
	lines := strings.Split(page, "\n")
	if len(lines) > height {
		left := len(lines) - height + 1
		lines = append(lines[:height-1:height-1], fmt.Sprintf("(%d more lines)", left))
	}
	var b strings.Builder
	b.WriteString(toTop)
	for i, l := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(truncate(printable(l), columns) + eraseLine)
	}
	b.WriteString(eraseBelow)
	_, err := io.WriteString(s.w, b.String())
	return err
}

// Close gives the terminal back and leaves the last page on it.
func (s *Screen) Close() {
	fmt.Fprint(s.w, leaveScreen+s.last+"\n")
}
