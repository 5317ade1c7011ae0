package ui

// What stays on the screen, and its JSON form. docs/progress.md tells programs
// what the keys mean; they are stable.

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"
)

// Problem is why something cannot be livepatched.
type Problem struct {
	Kind, Where, Detail, Hint string
}

// Note prints a line that stays.
func (p *Progress) Note(text string) {
	p.message("klpc: note: "+indent(text), func() any { return textMessage{p.head("note"), text} })
}

// NoEffect tells that a file of a patch never reaches the kernel.
func (p *Progress) NoEffect(file string) {
	p.message("klpc: note: "+file+": no effect on this kernel", func() any { return fileMessage{p.head("no-effect"), file} })
}

// Problem prints a problem. The kind in brackets is the one that the
// documentation lists.
func (p *Progress) Problem(v Problem) {
	text := fmt.Sprintf("klpc: problem: %s: %s [%s]\n  what to do: %s", v.Where, v.Detail, v.Kind, v.Hint)
	p.message(text, func() any { return problemMessage{p.head("problem"), v.Kind, v.Where, v.Detail, v.Hint} })
}

// Error prints why the command failed.
func (p *Progress) Error(text string) {
	p.message("klpc: "+indent(text), func() any { return textMessage{p.head("error"), text} })
}

// Kept tells of a work folder that stays, and of the command that goes on with
// it, if there is anything to go on with. edit: after the patch was changed.
func (p *Progress) Kept(dir, from, command string, edit bool) {
	text := "klpc: note: work folder kept: " + dir
	switch {
	case from == "":
	case edit:
		text += "\nklpc: note: once the patch is changed, start over there (what stays the same comes from the compile cache):\n  " + command
	default:
		text += "\nklpc: note: once the cause is removed, go on there:\n  " + command
	}
	p.message(text, func() any { return keptMessage{p.head("kept"), dir, from, edit, command} })
}

// Timing tells what a step cost.
func (p *Progress) Timing(step string, wall, cpu time.Duration) {
	text := fmt.Sprintf("%-60s %6.2f s wall %6.2f s CPU", step, wall.Seconds(), cpu.Seconds())
	p.message(text, func() any { return timingMessage{p.head("timing"), step, seconds(wall), seconds(cpu)} })
}

// Exit tells programs that the command ends. Nothing may follow.
func (p *Progress) Exit(code int) {
	p.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode == JSON {
		p.emit(exitMessage{p.head("exit"), code})
	}
}

// message prints a text that stays, or its JSON form.
func (p *Progress) message(text string, form func() any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode == JSON {
		p.emit(form())
		return
	}
	if p.drawn > 0 {
		p.clear()
	}
	fmt.Fprintln(p.w, text)
	p.draw()
}

// Write passes lines of another program on, each as an event in JSON mode.
func (p *Progress) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode != JSON {
		if p.drawn > 0 {
			p.clear()
		}
		return p.w.Write(data)
	}
	p.partial += string(data)
	for {
		line, rest, found := strings.Cut(p.partial, "\n")
		if !found {
			return len(data), nil
		}
		p.partial = rest
		p.emit(textMessage{p.head("output"), strings.TrimSuffix(line, "\r")})
	}
}

// The JSON forms. Times are in seconds.
type (
	head struct {
		Event   string  `json:"event"`
		Elapsed float64 `json:"elapsed"` // since the command began
	}
	stepMessage struct {
		head
		Step  string `json:"step"`
		Index int    `json:"index"`
		Total int    `json:"total"`
		Text  string `json:"text"`
	}
	endMessage struct {
		head
		Step    string  `json:"step"`
		Seconds float64 `json:"seconds"`
	}
	unitMessage struct {
		head
		Step    string  `json:"step"`
		Unit    string  `json:"unit"`
		Done    int     `json:"done"`
		Total   int     `json:"total"`
		Seconds float64 `json:"seconds"`
	}
	textMessage struct {
		head
		Text string `json:"text"`
	}
	fileMessage struct {
		head
		File string `json:"file"`
	}
	problemMessage struct {
		head
		Kind   string `json:"kind"`
		Where  string `json:"where"`
		Detail string `json:"detail"`
		Hint   string `json:"hint"`
	}
	keptMessage struct {
		head
		Work    string `json:"work"`
		From    string `json:"from"`
		Edit    bool   `json:"edit"`
		Command string `json:"command"`
	}
	timingMessage struct {
		head
		Text    string  `json:"text"`
		Seconds float64 `json:"seconds"`
		CPU     float64 `json:"cpu"`
	}
	exitMessage struct {
		head
		Code int `json:"code"`
	}
)

func (p *Progress) head(event string) head {
	return head{Event: event, Elapsed: seconds(p.now().Sub(p.start))}
}

// seconds are rounded to milliseconds.
func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*1000) / 1000 }

func (p *Progress) emitUnit(u Unit) {
	event := "unit-begin"
	if u.Ended {
		event = "unit"
	}
	p.emit(unitMessage{p.head(event), p.step.Name, u.Name, u.Done, u.Total, seconds(u.Elapsed)})
}

// emit writes one line.
func (p *Progress) emit(v any) {
	e := json.NewEncoder(p.w)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		fmt.Fprintf(p.w, "{\"event\":\"error\",\"text\":%q}\n", err.Error())
	}
}
