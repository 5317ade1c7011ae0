// Package ui prints progress for people: on a terminal one line that updates
// itself, elsewhere plain lines.
//
// It never writes to standard output, uses no colour (so that NO_COLOR holds)
// and decides nothing. The control sequences are those of ECMA-48.
package ui

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/term"
)

// Mode is how progress is shown. It is a flag's value (pflag.Value).
type Mode string

// The modes.
const (
	Auto  Mode = "auto"  // TTY on a terminal that can do it, Plain elsewhere
	Plain Mode = "plain" // a line for each step, with the time since the start
	TTY   Mode = "tty"   // a line that counts and becomes the step's duration
	Quiet Mode = "quiet" // notes only
)

// Modes are the values of a flag, the default first.
func Modes() []string { return []string{string(Auto), string(Plain), string(TTY), string(Quiet)} }

// String returns the mode's name.
func (m *Mode) String() string { return string(*m) }

// Type names the kind of value for the flag's help.
func (m *Mode) Type() string { return "MODE" }

// Set takes a mode by its name.
func (m *Mode) Set(name string) error {
	for _, known := range Modes() {
		if name == known {
			*m = Mode(name)
			return nil
		}
	}
	return fmt.Errorf("want one of %s", strings.Join(Modes(), ", "))
}

// fallbackWidth is the width, in columns, of a terminal that does not tell.
const fallbackWidth = 80

// clearLine returns to the line's start and erases it.
const clearLine = "\r\x1b[K"

// Progress shows what a running command does. Its methods may be called from
// several goroutines.
type Progress struct {
	w     io.Writer
	mode  Mode // never Auto
	width func() int
	now   func() time.Time
	stop  chan struct{} // ends the clock; nil: there is none

	mu    sync.Mutex
	start time.Time
	step  string // empty: none is running
	since time.Time
	count string // of the step's units: " 3/8"
	unit  string // the one that was done last: " fs/exec.c"
	open  bool   // a line without its newline stands on the terminal
	done  bool
}

// NewProgress shows progress on w. Close ends it.
func NewProgress(w io.Writer, mode Mode) *Progress {
	p := newProgress(w, mode)
	f, isFile := w.(*os.File)
	if isFile {
		p.width = func() int { return terminalWidth(f) }
	}
	if mode == Auto || mode == "" {
		p.mode = Plain
		if isFile && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" && os.Getenv("TERM") != "" {
			p.mode = TTY
		}
	}
	if p.mode == TTY {
		p.stop = make(chan struct{})
		go p.tick()
	}
	return p
}

func newProgress(w io.Writer, mode Mode) *Progress {
	return &Progress{w: w, mode: mode, start: time.Now(), now: time.Now, width: func() int { return fallbackWidth }}
}

func terminalWidth(f *os.File) int {
	if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
		return w
	}
	return fallbackWidth
}

// tick redraws the line every second, for its time.
func (p *Progress) tick() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-t.C:
			p.mu.Lock()
			p.draw()
			p.mu.Unlock()
		}
	}
}

// Step begins a step, which ends the one before it.
func (p *Progress) Step(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		return
	}
	p.finish()
	p.step, p.since, p.count, p.unit = printable(text), p.now(), "", ""
	p.draw()
	if p.mode == Plain {
		fmt.Fprintf(p.w, "[%5.1fs] %s\n", p.now().Sub(p.start).Seconds(), p.step)
	}
}

// Unit counts work within the step.
func (p *Progress) Unit(done, total int, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if total > 1 {
		p.count, p.unit = fmt.Sprintf(" %d/%d", done, total), printable(" "+name)
	}
	p.draw()
}

// Note prints a line that stays.
func (p *Progress) Note(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	fmt.Fprintf(p.w, "klpc: note: %s\n", strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n  "))
	p.draw()
}

// Close ends the display; later calls show no more steps.
func (p *Progress) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		return
	}
	p.finish()
	p.done = true
	if p.stop != nil {
		close(p.stop)
	}
}

// draw shows the running step on a terminal, in one line at most: a longer one
// would wrap, and could not be erased. What changes stands first.
func (p *Progress) draw() {
	if p.mode != TTY || p.step == "" {
		return
	}
	line := fmt.Sprintf("%6.0fs%s %s%s", p.now().Sub(p.since).Seconds(), p.count, p.step, p.unit)
	fmt.Fprint(p.w, clearLine+truncate(line, p.width()-1))
	p.open = true
}

// finish replaces the running step's line by its duration.
func (p *Progress) finish() {
	if p.mode == TTY && p.step != "" {
		line := fmt.Sprintf("%6.1fs %s", p.now().Sub(p.since).Seconds(), p.step)
		fmt.Fprint(p.w, clearLine+truncate(line, p.width()-1)+"\n")
	}
	p.open, p.step = false, ""
}

func (p *Progress) clear() {
	if p.open {
		fmt.Fprint(p.w, clearLine)
		p.open = false
	}
}

// truncate shortens s to a number of columns, taking each rune for one.
func truncate(s string, columns int) string {
	r := []rune(s)
	switch {
	case len(r) <= columns:
		return s
	case columns < 1:
		return ""
	}
	return string(r[:columns-1]) + "…"
}

// printable replaces what would move the cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}
