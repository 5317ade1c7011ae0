package livepatch

// The state for people. Equal states give equal text.

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// Text is the page of klpc status: every livepatch with all it patches.
func (s *State) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "kernel %s: %s\n", s.Release, s.summary())
	for i := range s.Patches {
		b.WriteByte('\n')
		s.Patches[i].text(&b, s)
	}
	if len(s.Unreadable) > 0 {
		b.WriteString("\ncannot be read\n")
		for _, u := range s.Unreadable {
			fmt.Fprintf(&b, "  %s\n", u)
		}
	}
	return b.String()
}

// summary says how many livepatches there are, in one line.
func (s *State) summary() string {
	if !s.Supported {
		return "no livepatch support (no /" + sysLivepatch + ")"
	}
	count := map[Phase]int{}
	for _, p := range s.Patches {
		count[p.Phase]++
	}
	var parts []string
	for _, ph := range []Phase{Enabled, Enabling, Disabling, Disabled} {
		if n := count[ph]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, ph))
		}
	}
	if len(parts) == 0 {
		return "no livepatch is loaded"
	}
	return "livepatches: " + list(parts)
}

// text describes one livepatch.
func (p *Patch) text(b *strings.Builder, s *State) {
	fmt.Fprintf(b, "%s: %s\n", p.Name, p.progress())
	if p.Phase == Disabled {
		fmt.Fprintf(b, "  only its module is left: klpc unload %s removes it\n", p.Name)
		return
	}
	fmt.Fprintf(b, "  order %s, replaces others: %s\n", s.orderText(p), replaceText(p.Replace))
	for _, o := range p.Objects {
		fmt.Fprintf(b, "  %s: %s\n", o.Name, o.stateText())
		for _, f := range o.Functions {
			fmt.Fprintf(b, "    %s\n", f)
		}
	}
	if len(p.Blocking) > 0 {
		fmt.Fprintf(b, "  waits for %s\n%s", plural(len(p.Blocking), "task"), indented(TasksText(p.Blocking), "    "))
	}
}

// progress is the phase, with how far a transition is.
func (p *Patch) progress() string {
	if p.Tasks == nil {
		return string(p.Phase)
	}
	return fmt.Sprintf("%s, %s", p.Phase, p.Tasks)
}

// String says how many tasks have switched.
func (t Tasks) String() string {
	if t.Unknown > 0 {
		return fmt.Sprintf("%d of %s have switched, %d cannot be read", t.Switched, plural(t.Total, "task"), t.Unknown)
	}
	return fmt.Sprintf("%d of %s have switched", t.Switched, plural(t.Total, "task"))
}

// orderText is a livepatch's place among the active ones.
func (s *State) orderText(p *Patch) string {
	switch {
	case p.StackOrder == nil:
		return "unknown"
	case s.Order == FromModules && s.active > 1:
		return fmt.Sprintf("%d of %d (from the order of /proc/modules)", *p.StackOrder, s.active)
	}
	return fmt.Sprintf("%d of %d", *p.StackOrder, s.active)
}

func replaceText(replace *bool) string {
	if replace == nil {
		return "unknown (Linux says so since 6.11)"
	}
	return map[bool]string{false: "no", true: "yes"}[*replace]
}

func (o *Object) stateText() string {
	switch {
	case o.Patched:
		return "patched"
	case o.Name == vmlinux:
		return "not patched"
	}
	return "waits for the module to be loaded"
}

// maxTasks is how many tasks are shown in full.
const maxTasks = 10

// TasksText describes tasks that a transition waits for.
func TasksText(tasks []Task) string {
	var b strings.Builder
	for i, t := range tasks {
		if i == maxTasks {
			fmt.Fprintf(&b, "and %s more\n", plural(len(tasks)-maxTasks, "task"))
			break
		}
		b.WriteString(t.text())
	}
	return b.String()
}

// text is a task with its stack, and what can be done about it.
func (t *Task) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (process %d", t.Comm, t.PID)
	if t.TID != t.PID {
		fmt.Fprintf(&b, ", thread %d", t.TID)
	}
	b.WriteString(")")
	if t.Kernel {
		b.WriteString(", a kernel thread")
	}
	if t.State != "" {
		fmt.Fprintf(&b, ", %s", t.State)
	}
	if t.In != "" {
		fmt.Fprintf(&b, ", in the patched function %s", t.In)
	}
	b.WriteByte('\n')
	for _, call := range t.Stack {
		fmt.Fprintf(&b, "  %s\n", call)
	}
	if t.Problem != "" {
		fmt.Fprintf(&b, "  %s\n", t.Problem)
	}
	fmt.Fprintf(&b, "  what to do: %s\n", t.hint())
	return b.String()
}

// hint says what makes a task switch.
func (t *Task) hint() string {
	switch {
	case t.In != "" && t.Kernel:
		return fmt.Sprintf("wait until %s returns; a kernel thread cannot be ended", t.In)
	case t.In != "" && strings.HasPrefix(t.State, "T"):
		return fmt.Sprintf("let it go on (kill -CONT %d), or end the process (kill -KILL %[1]d)", t.PID)
	case t.In != "":
		return fmt.Sprintf("wait until %s returns, let it have what it waits for, or end the process (kill %d)", t.In, t.PID)
	case t.Kernel:
		return "wait until it sleeps: no patched function was seen on its stack"
	}
	return "wait: no patched function was seen on its stack, and the kernel asks it to switch every 15 s"
}

// Table is the table of klpc list.
func (s *State) Table() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprint(w, "ORDER\tNAME\tSTATE\tTASKS\tREPLACE\tOBJECTS\tFUNCTIONS\n")
	for i := range s.Patches {
		p := &s.Patches[i]
		order, tasks, replace := "-", "-", "-"
		if p.StackOrder != nil {
			order = fmt.Sprint(*p.StackOrder)
		}
		if p.Tasks != nil {
			tasks = fmt.Sprintf("%d/%d", p.Tasks.Switched, p.Tasks.Total)
		}
		if p.Replace != nil {
			replace = replaceText(p.Replace)
		}
		var objects []string
		for _, o := range p.Objects {
			name := o.Name
			if !o.Patched && name != vmlinux {
				name += " (waits)"
			}
			objects = append(objects, name)
		}
		functions := fmt.Sprint(p.Functions())
		if len(objects) == 0 {
			objects, functions = []string{"-"}, "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", order, p.Name, p.Phase, tasks, replace, list(objects), functions)
	}
	w.Flush()
	return b.String()
}

// FindingsText is a table of checks.
func FindingsText(findings []Finding) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	for _, f := range findings {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", f.Check, f.Verdict, strings.ReplaceAll(f.Detail, "\n", "; "))
	}
	w.Flush()
	return b.String()
}

// StepsText numbers steps.
func StepsText(steps []Step) string {
	var b strings.Builder
	for i, st := range steps {
		fmt.Fprintf(&b, "  %d. %s\n", i+1, st)
	}
	return b.String()
}

// String is the step as people are told of it.
func (st Step) String() string {
	verb := map[Action]string{
		ActionInsert: "load", ActionRemove: "remove", ActionDisable: "disable", ActionReverse: "reverse", ActionForce: "force", ActionWait: "wait for",
	}[st.Action]
	return verb + " " + st.Detail
}

// indented puts a prefix in front of each line.
func indented(text, prefix string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(prefix + line)
	}
	return b.String()
}

// short is a duration as people write it: 1m, not 1m0s.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
