package ui

import (
	"fmt"
	"path"
	"strings"
	"time"
	"unicode"
)

// units are the pieces of work of a step.
type units struct {
	done, total int
	running     map[int]runningUnit
	longest     time.Duration // of those that have ended
	name        string        // of that one
}

type runningUnit struct {
	name  string
	since time.Time
}

// take notes that a unit has begun or ended.
func (us *units) take(u Unit, now time.Time) {
	us.done, us.total = u.Done, u.Total
	if !u.Ended {
		if us.running == nil {
			us.running = map[int]runningUnit{}
		}
		us.running[u.ID] = runningUnit{u.Name, now}
		return
	}
	delete(us.running, u.ID)
	if us.name == "" || u.Elapsed > us.longest {
		us.name, us.longest = u.Name, u.Elapsed
	}
}

// slowest is the unit that took longest, or that has been running for longer.
func (us *units) slowest(now time.Time) (name string, took time.Duration) {
	name, took = us.name, us.longest
	for _, r := range us.running {
		if d := now.Sub(r.since); name == "" || d > took || d == took && r.name < name {
			name, took = r.name, d
		}
	}
	return name, took
}

// fallbackWidth is the width, in columns, of a terminal that does not tell.
const fallbackWidth = 80

// What a line has room for.
const (
	leastBar  = 48 // columns of the terminal from which on there is a bar
	barWidth  = 20 // columns between its brackets, at most
	leastText = 24 // columns of the step's text that the slowest unit leaves to it
)

// draw shows the running step on a terminal, in one line at most: a longer one
// would wrap, and could not be erased.
func (p *Progress) draw() {
	if p.mode != TTY || p.step.Text == "" {
		return
	}
	width := p.width()
	line := truncate(p.line(width-1), width-1)
	p.clear()
	fmt.Fprint(p.w, line)
	p.drawn = columns(line)
}

// line is the running step: its time, its place, its text, and how far it is.
//
//	12s [4/7] compile 12 units [=======>    ] 14/24, slowest fs/exec.c 3.1s
func (p *Progress) line(width int) string {
	now := p.now()
	head := fmt.Sprintf("%6.0fs %s", now.Sub(p.since).Seconds(), p.step.index())
	if p.units.total < 2 {
		return head + p.step.Text
	}
	tail := fmt.Sprintf(" %d/%d", p.units.done, p.units.total)
	if width >= leastBar {
		tail = " " + bar(p.units.done, p.units.total, min(barWidth, width/5)) + tail
	}
	room := width - columns(head) - columns(tail)
	slow := ""
	if name, took := p.units.slowest(now); name != "" {
		for _, form := range []string{", slowest " + name, ", slowest " + path.Base(name), ", " + path.Base(name)} {
			form += fmt.Sprintf(" %.1fs", took.Seconds())
			if columns(form)+min(leastText, columns(p.step.Text)) <= room {
				slow = form
				break
			}
		}
	}
	return head + truncate(p.step.Text, room-columns(slow)) + tail + slow
}

// bar is a bar of so many columns between brackets.
func bar(done, total, width int) string {
	n := min(done*width/max(total, 1), width)
	text := strings.Repeat("=", n)
	if n < width {
		text += ">"
	}
	return "[" + text + strings.Repeat(" ", width-len([]rune(text))) + "]"
}

// clear erases the line on the terminal, all rows of it if the terminal has
// become narrower since it was drawn.
func (p *Progress) clear() {
	if p.drawn == 0 {
		fmt.Fprint(p.w, clearLine)
		return
	}
	if above := (p.drawn - 1) / max(p.width(), 1); above > 0 {
		fmt.Fprintf(p.w, "\x1b[%dA\r\x1b[J", above)
	} else {
		fmt.Fprint(p.w, clearLine)
	}
	p.drawn = 0
}

// clearLine returns to the line's start and erases it.
const clearLine = "\r\x1b[K"

// columns counts each rune as one column.
func columns(s string) int { return len([]rune(s)) }

// truncate shortens s to a number of columns.
func truncate(s string, width int) string {
	r := []rune(s)
	switch {
	case len(r) <= width:
		return s
	case width < 1:
		return ""
	}
	return string(r[:width-1]) + "…"
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
