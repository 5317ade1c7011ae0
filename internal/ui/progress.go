// Package ui prints progress for people: on a terminal one line that updates
// itself, elsewhere plain lines.
//
// It never writes to standard output and decides nothing.
package ui

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// Progress shows what a running command does.
type Progress struct {
	w     io.Writer
	tty   bool
	mu    sync.Mutex
	start time.Time
	step  string
	since time.Time
	open  bool // a line without its newline stands on the terminal
	done  bool
}

// NewProgress shows progress on w; it updates lines in place if w is a terminal.
func NewProgress(w io.Writer) *Progress {
	p := &Progress{w: w, start: time.Now()}
	if f, ok := w.(*os.File); ok {
		p.tty = term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
	}
	return p
}

// Step begins a step.
func (p *Progress) Step(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finish()
	p.step, p.since = text, time.Now()
	if p.tty {
		fmt.Fprintf(p.w, "\r\x1b[K%s ...", text)
		p.open = true
		return
	}
	fmt.Fprintf(p.w, "[%5.1fs] %s\n", time.Since(p.start).Seconds(), text)
}

// Unit counts work within the step.
func (p *Progress) Unit(done, total int, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tty && total > 1 {
		fmt.Fprintf(p.w, "\r\x1b[K%s ... %d/%d %s", p.step, done, total, name)
		p.open = true
	}
}

// Note prints a line that stays.
func (p *Progress) Note(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.open = false
	}
	fmt.Fprintf(p.w, "klpc: note: %s\n", text)
}

// finish replaces the step's line by its outcome.
func (p *Progress) finish() {
	if p.tty && p.step != "" {
		fmt.Fprintf(p.w, "\r\x1b[K%s: %.1f s\n", p.step, time.Since(p.since).Seconds())
	}
	p.open, p.step = false, ""
}

// Close ends the display; later calls do nothing.
func (p *Progress) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.done {
		p.finish()
		p.done = true
	}
}
