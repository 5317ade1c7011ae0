// Package ui shows on standard error what a command does: on a terminal one
// line that updates itself, elsewhere plain lines, and for programs JSON.
//
// It never writes to standard output, uses no colour (so that NO_COLOR holds)
// and decides nothing. The control sequences are those of ECMA-48.
package ui

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// Step is a step that begins, or one that has more to say of itself.
type Step struct {
	Name  string // for programs; may be empty
	Text  string // for people
	Index int    // among the Total steps of the command, from 1; 0: not known
	Total int
}

// Unit is a piece of work within a step that begins or ends.
type Unit struct {
	ID      int    // within the step
	Name    string // need not be unique
	Done    int    // pieces of the step that have ended, this one among them if it has
	Total   int
	Ended   bool
	Elapsed time.Duration // of this piece; 0 if it has not ended
}

// plainEvery is how often a long step says in plain mode how far it is.
const plainEvery = 10 * time.Second

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
	step  Step // Text is empty if none is running
	since time.Time
	units units
	said  time.Time // plain: when a line last told of the step
	drawn int       // columns of the line without its newline on the terminal
	done  bool
	// partial is the beginning of a line of another program (JSON).
	partial string
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

// tick redraws the line, for its times.
func (p *Progress) tick() {
	t := time.NewTicker(500 * time.Millisecond)
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

// Step begins a step that has only a text.
func (p *Progress) Step(text string) { p.Begin(Step{Text: text}) }

// Begin begins a step, which ends the one before it.
func (p *Progress) Begin(s Step) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		return
	}
	p.finish()
	s.Text = printable(s.Text)
	p.step, p.since, p.units = s, p.now(), units{}
	p.said = p.since
	switch p.mode {
	case Plain:
		fmt.Fprintf(p.w, "[%5.1fs] %s\n", p.now().Sub(p.start).Seconds(), s.Text)
	case JSON:
		p.emit(stepMessage{p.head("step"), s.Name, s.Index, s.Total, s.Text})
	}
	p.draw()
}

// Unit tells of work within the step.
func (p *Progress) Unit(u Unit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		return
	}
	u.Name = printable(u.Name)
	now := p.now()
	p.units.take(u, now)
	switch {
	case p.mode == JSON:
		p.emitUnit(u)
	case p.mode == Plain && u.Ended && now.Sub(p.said) >= plainEvery && u.Done < u.Total:
		p.said = now
		fmt.Fprintf(p.w, "[%5.1fs] %s: %d/%d%s\n", now.Sub(p.start).Seconds(), cmp.Or(p.step.Name, p.step.Text), u.Done, u.Total, p.slowest(now))
	}
	p.draw()
}

// slowest names the unit that takes or took longest, and how long.
func (p *Progress) slowest(now time.Time) string {
	name, took := p.units.slowest(now)
	if name == "" {
		return ""
	}
	return fmt.Sprintf(", slowest %s %.1fs", name, took.Seconds())
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

// finish replaces the running step's line by its duration.
func (p *Progress) finish() {
	if p.step.Text == "" {
		return
	}
	now := p.now()
	switch p.mode {
	case TTY:
		line := fmt.Sprintf("%6.1fs %s%s", now.Sub(p.since).Seconds(), p.step.index(), p.step.Text)
		width := p.width()
		if slow := p.slowest(now); p.units.total > 1 && columns(line+slow) < width {
			line += slow
		}
		p.clear()
		fmt.Fprint(p.w, truncate(line, width-1)+"\n")
	case JSON:
		p.emit(endMessage{p.head("step-end"), p.step.Name, seconds(now.Sub(p.since))})
	}
	p.step = Step{}
}

// index is the place of a step, for people: "[4/7] ".
func (s Step) index() string {
	if s.Index == 0 {
		return ""
	}
	return fmt.Sprintf("[%d/%d] ", s.Index, s.Total)
}

// indent sets the further lines of a text off from the next message.
func indent(text string) string {
	return strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n  ")
}
