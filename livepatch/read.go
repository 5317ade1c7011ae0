package livepatch

// Reading the state. The kernel changes it while it is being read: a livepatch's
// folder may vanish between two reads, a task may end. What has vanished is left
// out; what may not be read, or makes no sense, is said in State.Unreadable.

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Where the kernel says it, below the root of the file system.
const (
	sysLivepatch = "sys/kernel/livepatch"
	sysModule    = "sys/module"
	procModules  = "proc/modules"
	procRelease  = "proc/sys/kernel/osrelease"
)

// Read reads the state of the running kernel from the root of its file system,
// such as os.DirFS("/"). It fails only if there is no kernel to read from.
func Read(root fs.FS) (*State, error) {
	r := reader{root: root, state: &State{Patches: []Patch{}, Order: OrderUnknown, Unreadable: []string{}}}
	var err error
	if r.state.Release, err = Release(root); err != nil {
		return nil, err
	}
	r.modules()
	names := r.folders(sysLivepatch)
	if _, err := fs.Stat(root, sysLivepatch); err == nil {
		r.state.Supported = true
	}
	for _, name := range names {
		if p, ok := r.patch(name); ok {
			r.state.Patches = append(r.state.Patches, p)
		}
	}
	r.order()
	r.state.active = len(r.state.Patches)
	r.disabled()
	slices.Sort(r.state.Unreadable)
	r.state.Unreadable = slices.Compact(r.state.Unreadable)
	return r.state, nil
}

// Release is what uname -r says.
func Release(root fs.FS) (string, error) {
	release, err := fs.ReadFile(root, procRelease)
	if err != nil {
		return "", fmt.Errorf("which kernel runs here? %w (is /proc mounted?)", err)
	}
	return strings.TrimSpace(string(release)), nil
}

type reader struct {
	root  fs.FS
	state *State
}

// module is a line of /proc/modules.
type module struct {
	name      string
	refs      int
	livepatch bool // TAINT_LIVEPATCH, which only livepatches have
}

// livepatchTaint is the letter of TAINT_LIVEPATCH, kernel/panic.c.
const livepatchTaint = "K"

// modules reads /proc/modules: "name size refs users state address (taints)",
// the newest first; without taints the last field is left out
// (kernel/module/procfs.c).
func (r *reader) modules() {
	text, ok := r.text(procModules)
	if !ok {
		return
	}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 6 {
			r.unreadable(procModules, fmt.Errorf("unexpected line %q", strings.TrimSpace(line)))
			continue
		}
		m := module{name: f[0]}
		if refs, err := strconv.Atoi(f[2]); err == nil {
			m.refs = refs
		}
		if last := f[len(f)-1]; strings.HasPrefix(last, "(") {
			m.livepatch = strings.Contains(last, livepatchTaint)
		}
		r.state.modules = append(r.state.modules, m)
	}
}

// patch reads the folder of one livepatch; false: it has vanished.
func (r *reader) patch(name string) (Patch, bool) {
	dir := path.Join(sysLivepatch, name)
	p := Patch{Name: name, Objects: []Object{}, Module: r.loaded(name)}
	enabled, ok := r.flag(path.Join(dir, "enabled"))
	if !ok {
		return p, false
	}
	p.Enabled = enabled
	transition, ok := r.flag(path.Join(dir, "transition"))
	if !ok {
		return p, false
	}
	p.Transition = transition
	// While the module's init function runs, the transition begins and the flag
	// still says 0.
	if text, ok := r.text(path.Join(sysModule, name, "initstate")); ok && strings.TrimSpace(text) == "coming" {
		p.Enabled, p.Transition = true, true
	}
	p.Phase = phase(p.Enabled, p.Transition)
	if replace, ok := r.flag(path.Join(dir, "replace")); ok {
		p.Replace = &replace
	}
	if text, ok := r.text(path.Join(dir, "stack_order")); ok {
		if n, err := strconv.Atoi(strings.TrimSpace(text)); err != nil {
			r.unreadable(path.Join(dir, "stack_order"), err)
		} else {
			p.StackOrder = &n
		}
	}
	for _, object := range r.folders(dir) {
		p.Objects = append(p.Objects, r.object(dir, object))
	}
	slices.SortFunc(p.Objects, func(a, b Object) int { return compareObjects(a.Name, b.Name) })
	if p.Transition {
		p.Tasks = r.tasks(p.Enabled)
	}
	return p, true
}

func phase(enabled, transition bool) Phase {
	switch {
	case enabled && transition:
		return Enabling
	case enabled:
		return Enabled
	case transition:
		return Disabling
	}
	return Disabled
}

// object reads the folder of one object of a livepatch.
func (r *reader) object(patch, name string) Object {
	dir := path.Join(patch, name)
	o := Object{Name: name, Functions: []Function{}}
	o.Patched, _ = r.flag(path.Join(dir, "patched"))
	for _, f := range r.folders(dir) {
		fn, err := parseFunction(f)
		if err != nil {
			r.unreadable(path.Join(dir, f), err)
			continue
		}
		o.Functions = append(o.Functions, fn)
	}
	slices.SortFunc(o.Functions, func(a, b Function) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Sympos, b.Sympos))
	})
	return o
}

// parseFunction reads a folder's name, "function,sympos".
func parseFunction(name string) (Function, error) {
	i := strings.LastIndexByte(name, ',')
	if i < 0 {
		return Function{}, errors.New("not a function and its position")
	}
	pos, err := strconv.Atoi(name[i+1:])
	if err != nil || pos < 1 {
		return Function{}, fmt.Errorf("%q is not a position", name[i+1:])
	}
	return Function{Name: name[:i], Sympos: pos}, nil
}

// compareObjects orders the names of objects: vmlinux first.
func compareObjects(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == vmlinux:
		return -1
	case b == vmlinux:
		return 1
	}
	return cmp.Compare(a, b)
}

// loaded reads what tells one build of a module from another.
func (r *reader) loaded(name string) Loaded {
	var l Loaded
	if m := r.state.module(name); m != nil {
		l.Refs = m.refs
	}
	dir := path.Join(sysModule, name)
	if text, ok := r.text(path.Join(dir, "srcversion")); ok {
		l.Srcversion = strings.TrimSpace(text)
	}
	if note, ok := r.text(path.Join(dir, "notes/.note.gnu.build-id")); ok {
		l.BuildID = buildID([]byte(note))
	}
	return l
}

// buildID is the description of an ELF note "GNU" of type NT_GNU_BUILD_ID, as
// hexadecimal, or "".
func buildID(note []byte) string {
	const head = 16 // three words and "GNU\0"
	if len(note) <= head || string(note[12:head]) != "GNU\x00" {
		return ""
	}
	return hex.EncodeToString(note[head:])
}

// order sorts the livepatches, the oldest first.
func (r *reader) order() {
	all := r.state.Patches
	if len(all) == 0 {
		return
	}
	if !slices.ContainsFunc(all, func(p Patch) bool { return p.StackOrder == nil }) {
		slices.SortStableFunc(all, func(a, b Patch) int { return cmp.Compare(*a.StackOrder, *b.StackOrder) })
		r.state.Order = FromStackOrder
		return
	}
	// Age is the index from the end: the newest module stands first.
	age := map[string]int{}
	for i, m := range r.state.modules {
		age[m.name] = len(r.state.modules) - i
	}
	if slices.ContainsFunc(all, func(p Patch) bool { return age[p.Name] == 0 }) {
		return
	}
	slices.SortStableFunc(all, func(a, b Patch) int { return cmp.Compare(age[a.Name], age[b.Name]) })
	for i := range all {
		n := i + 1
		all[i].StackOrder = &n
	}
	r.state.Order = FromModules
}

// disabled adds the livepatches that the kernel has forgotten, but whose modules
// are still there.
func (r *reader) disabled() {
	var gone []Patch
	for _, m := range r.state.modules {
		if m.livepatch && r.state.Find(m.name) == nil {
			gone = append(gone, Patch{Name: m.name, Phase: Disabled, Objects: []Object{}, Module: r.loaded(m.name)})
		}
	}
	slices.SortFunc(gone, func(a, b Patch) int { return cmp.Compare(a.Name, b.Name) })
	r.state.Patches = append(r.state.Patches, gone...)
}

// text reads a file; false: it is not there, or it may not be read.
func (r *reader) text(name string) (string, bool) {
	data, err := fs.ReadFile(r.root, name)
	if err != nil {
		r.unreadable(name, err)
		return "", false
	}
	return string(data), true
}

// flag reads a file that holds 0 or 1.
func (r *reader) flag(name string) (value, ok bool) {
	text, ok := r.text(name)
	if !ok {
		return false, false
	}
	switch strings.TrimSpace(text) {
	case "0":
		return false, true
	case "1":
		return true, true
	}
	r.unreadable(name, fmt.Errorf("%q is neither 0 nor 1", strings.TrimSpace(text)))
	return false, false
}

// folders lists the folders in a folder, sorted.
func (r *reader) folders(name string) []string {
	entries, err := fs.ReadDir(r.root, name)
	if err != nil {
		r.unreadable(name, err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// unreadable notes what could not be read. What is not there is no news: older
// kernels lack files, and livepatches and tasks come and go.
func (r *reader) unreadable(name string, err error) {
	if errors.Is(err, fs.ErrNotExist) || isGone(err) {
		return
	}
	r.state.Unreadable = append(r.state.Unreadable, fmt.Sprintf("/%s: %v", name, cause(err)))
}
