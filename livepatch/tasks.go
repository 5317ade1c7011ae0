package livepatch

// Tasks in a transition. /proc/PID/task/TID/patch_state is -1 outside of
// transitions, 0 for a task that runs the old code, 1 for one that runs the new
// (include/linux/livepatch_sched.h). Which of the two is the aim depends on the
// direction.

import (
	"bytes"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Task is a thread that has not switched in a transition.
type Task struct {
	PID  int    `json:"pid"`
	TID  int    `json:"tid"`
	Comm string `json:"comm"`
	// State is its state in the words of /proc: "S (sleeping)".
	State string `json:"state"`
	// Kernel tells whether it is a kernel thread.
	Kernel bool `json:"kernel_thread"`
	// In is the patched function that it is in, or "" if none was found.
	In string `json:"in"`
	// Stack is its kernel stack, the innermost call first, as the kernel prints it.
	Stack []string `json:"stack"`
	// Problem says why there is no stack.
	Problem string `json:"problem,omitempty"`
}

// isGone tells whether a task has ended while it was being read.
func isGone(err error) bool { return errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.ENODEV) }

// patchStates calls visit for each thread with its state; ok is false if it
// could not be read.
func patchStates(root fs.FS, visit func(pid, tid int, state string, ok bool)) {
	for _, pid := range numbers(root, "proc") {
		for _, tid := range numbers(root, path.Join("proc", strconv.Itoa(pid), "task")) {
			text, err := fs.ReadFile(root, taskFile(pid, tid, "patch_state"))
			if errors.Is(err, fs.ErrNotExist) || isGone(err) {
				continue
			}
			visit(pid, tid, strings.TrimSpace(string(text)), err == nil)
		}
	}
}

func taskFile(pid, tid int, name string) string {
	return path.Join("proc", strconv.Itoa(pid), "task", strconv.Itoa(tid), name)
}

// numbers lists the folders that are called by a number, in order.
func numbers(root fs.FS, dir string) []int {
	entries, err := fs.ReadDir(root, dir)
	if err != nil {
		return nil // a task that has ended
	}
	var all []int
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && n > 0 {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all
}

// aim is the patch_state that a transition leads to.
func aim(enabled bool) string {
	if enabled {
		return "1"
	}
	return "0"
}

// tasks counts the tasks in the transition.
func (r *reader) tasks(enabled bool) *Tasks {
	var t Tasks
	patchStates(r.root, func(_, _ int, state string, ok bool) {
		t.Total++
		switch {
		case !ok:
			t.Unknown++
		case state == aim(enabled):
			t.Switched++
		}
	})
	if t.Unknown > 0 {
		r.state.Unreadable = append(r.state.Unreadable, "/proc/*/patch_state: permission denied")
	}
	return &t
}

// Explain adds, to the livepatch that is in transition, the tasks that it waits for.
func Explain(root fs.FS, state *State) {
	if p := state.InTransition(); p != nil {
		p.Blocking = ReadBlocking(root, state, p)
	}
}

// ReadBlocking returns the tasks that have not switched in the transition of p,
// in the order of their numbers, with their stacks.
func ReadBlocking(root fs.FS, state *State, p *Patch) []Task {
	tasks := []Task{}
	patchStates(root, func(pid, tid int, at string, ok bool) {
		if ok && at != aim(p.Enabled) && at != "-1" {
			tasks = append(tasks, readTask(root, state, p, pid, tid))
		}
	})
	return tasks
}

// readTask reads what there is to say about a task.
func readTask(root fs.FS, state *State, p *Patch, pid, tid int) Task {
	t := Task{PID: pid, TID: tid, Stack: []string{}}
	if comm, err := fs.ReadFile(root, taskFile(pid, tid, "comm")); err == nil {
		t.Comm = strings.TrimSpace(string(comm))
	}
	if status, err := fs.ReadFile(root, taskFile(pid, tid, "status")); err == nil {
		t.State, t.Kernel = parseStatus(string(status))
	}
	stack, err := fs.ReadFile(root, taskFile(pid, tid, "stack"))
	if err != nil {
		t.Problem = "its stack cannot be read: " + cause(err).Error()
		return t
	}
	t.Stack = append(t.Stack, calls(stack)...)
	for _, call := range t.Stack {
		if t.In = patchedCall(state, p, call); t.In != "" {
			break
		}
	}
	return t
}

// calls are the lines of a kernel stack: of "[<0>] pipe_read+0x1f3/0x3f0 [module]"
// without the address, which is always 0.
func calls(stack []byte) []string {
	var out []string
	for line := range strings.Lines(string(stack)) {
		if call := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "[<0>]")); call != "" {
			out = append(out, call)
		}
	}
	return out
}

// tasksIn returns the threads whose kernel stack leads through a module. A
// transition waits for the functions that take another's place; a task may still
// be in one that they have left by a jump at their end. Stacks that cannot be read
// count as empty.
func tasksIn(root fs.FS, module string) []Task {
	var in []Task
	patchStates(root, func(pid, tid int, _ string, _ bool) {
		stack, err := fs.ReadFile(root, taskFile(pid, tid, "stack"))
		if err != nil || !bytes.Contains(stack, []byte("["+module)) {
			return
		}
		all := calls(stack)
		for _, call := range all {
			name, object := parseCall(call)
			if object != module {
				continue
			}
			comm, _ := fs.ReadFile(root, taskFile(pid, tid, "comm")) // a task may have ended
			in = append(in, Task{PID: pid, TID: tid, Comm: strings.TrimSpace(string(comm)), In: name, Stack: all})
			return
		}
	})
	return in
}

// parseStatus reads the state of a task, and whether it has no memory of its
// own, as kernel threads have not.
func parseStatus(status string) (state string, kernel bool) {
	kernel = true
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "State":
			state = strings.Join(strings.Fields(value), " ")
		case "VmSize":
			kernel = false
		}
	}
	return state, kernel
}

// patchedCall returns the function of a line of a stack if the transition of p
// has to wait for it to return: the code that p takes the place of, which is the
// original or that of an older livepatch; or p's own, when p is being disabled.
func patchedCall(state *State, p *Patch, line string) string {
	name, object := parseCall(line)
	if name == "" {
		return ""
	}
	livepatch := state.Find(object)
	for _, o := range p.Objects {
		matches := o.Name == object
		if livepatch != nil {
			matches = livepatch.Name == p.Name != p.Enabled
		}
		if matches && slices.ContainsFunc(o.Functions, func(f Function) bool { return f.Name == name }) {
			if object == vmlinux {
				return name
			}
			return name + " [" + object + "]"
		}
	}
	return ""
}

// parseCall takes "pipe_read+0x1f3/0x3f0 [module]" apart. Parts of functions
// that the compiler has split off, such as pipe_read.cold, are not covered: the
// kernel does not wait for them either.
func parseCall(line string) (name, object string) {
	name, rest, ok := strings.Cut(line, "+")
	if !ok {
		return "", ""
	}
	object = vmlinux
	if _, module, ok := strings.Cut(rest, "["); ok {
		module, _, _ = strings.Cut(module, "]")
		// With CONFIG_STACKTRACE_BUILD_ID the build ID follows the name.
		if f := strings.Fields(module); len(f) > 0 {
			object = f[0]
		}
	}
	return name, object
}

// cause is an error without the path that it is about.
func cause(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}
