package livepatch

// A kernel with livepatches, as far as klpc sees it: tests say when its
// transitions complete and what it refuses. Time is that of a synctest bubble.

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing/fstest"
	"time"

	"github.com/klpc/klpc/inspect"
)

// fakeKernel is a System.
type fakeKernel struct {
	mu      sync.Mutex
	patches []*fakePatch // the oldest first
	modules []string     // without those of livepatches
	files   map[string]string
	tasks   []fakeTask
	insert  []error       // what the next calls of Insert fail with; nil: they do not
	log     []string      // what the kernel logs as it fails
	takes   time.Duration // how long a transition takes; negative: it never completes
	back    time.Duration // how long a reversed one takes
	refs    int           // how often Remove fails with EAGAIN
	calls   []string      // what was done to it
}

type fakePatch struct {
	name             string
	enabled, changes bool
	gone             bool // disabled: only the module is left
	replace          bool
	objects          []Object
	done             time.Time // when its transition completes
}

type fakeTask struct {
	pid      int
	comm     string
	stack    string
	switched bool
}

func (k *fakeKernel) find(name string) *fakePatch {
	for _, p := range k.patches {
		if p.name == name {
			return p
		}
	}
	return nil
}

// tick completes what is due.
func (k *fakeKernel) tick() {
	for _, p := range k.patches {
		if !p.changes || p.done.IsZero() || time.Now().Before(p.done) {
			continue
		}
		p.changes = false
		switch {
		case !p.enabled:
			p.gone = true
		case p.replace:
			for _, q := range k.patches {
				q.gone = q.gone || q != p
			}
		}
	}
}

func (k *fakeKernel) begin(p *fakePatch, takes time.Duration) {
	p.changes, p.done = true, time.Time{}
	if takes >= 0 {
		p.done = time.Now().Add(takes)
	}
}

// FS is a snapshot of what the kernel shows.
func (k *fakeKernel) FS() fs.FS { return fakeFS{k} }

type fakeFS struct{ k *fakeKernel }

func (f fakeFS) Open(name string) (fs.File, error) {
	f.k.mu.Lock()
	defer f.k.mu.Unlock()
	f.k.tick()
	return f.k.tree().Open(name)
}

func (k *fakeKernel) tree() fstest.MapFS {
	tree := fstest.MapFS{sysLivepatch: {Mode: fs.ModeDir | 0o755}}
	put := func(name, text string) { tree[name] = &fstest.MapFile{Data: []byte(text), Mode: 0o644} }
	put(procRelease, "6.12.0-test\n")
	put(kprobesList, "")
	put(enabledFunctions()[0], "")
	var modules strings.Builder
	for _, m := range k.modules {
		fmt.Fprintf(&modules, "%s 16384 0 - Live 0x0000000000000000\n", m)
	}
	for _, p := range slices.Backward(k.patches) {
		fmt.Fprintf(&modules, "%s 16384 1 - Live 0x0000000000000000 (OEK)\n", p.name)
		tree[path.Join(sysModule, p.name)] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
		if p.gone {
			continue
		}
		dir := path.Join(sysLivepatch, p.name)
		put(path.Join(dir, "enabled"), aim(p.enabled)+"\n")
		put(path.Join(dir, "transition"), aim(p.changes)+"\n")
		for _, o := range p.objects {
			put(path.Join(dir, o.Name, "patched"), aim(o.Patched)+"\n")
			for _, fn := range o.Functions {
				tree[path.Join(dir, o.Name, fmt.Sprintf("%s,%d", fn.Name, fn.Sympos))] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
			}
		}
	}
	put(procModules, modules.String())
	k.processes(put)
	for name, text := range k.files {
		put(name, text)
	}
	return tree
}

func (k *fakeKernel) processes(put func(name, text string)) {
	i := slices.IndexFunc(k.patches, func(p *fakePatch) bool { return p.changes && !p.gone })
	for _, t := range k.tasks {
		state := "-1"
		if i >= 0 {
			state = aim(t.switched == k.patches[i].enabled)
		}
		put(taskFile(t.pid, t.pid, "patch_state"), state+"\n")
		put(taskFile(t.pid, t.pid, "comm"), t.comm+"\n")
		put(taskFile(t.pid, t.pid, "status"), "Name:\t"+t.comm+"\nState:\tS (sleeping)\nVmSize:\t    1234 kB\n")
		put(taskFile(t.pid, t.pid, "stack"), t.stack)
	}
}

func (k *fakeKernel) call(format string, args ...any) {
	k.calls = append(k.calls, fmt.Sprintf(format, args...))
}

// Insert loads a livepatch.
func (k *fakeKernel) Insert(m *Module) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tick()
	k.call("insert %s", m.Name)
	if len(k.insert) > 0 {
		err := k.insert[0]
		k.insert = k.insert[1:]
		if err != nil {
			return err
		}
	}
	p := &fakePatch{name: m.Name, enabled: true, replace: m.Replace != nil && *m.Replace}
	for _, o := range m.Objects {
		obj := Object{Name: o.Name, Patched: true}
		for _, f := range o.Functions {
			obj.Functions = append(obj.Functions, Function{f.Name, max(1, int(f.Sympos))})
		}
		p.objects = append(p.objects, obj)
	}
	k.begin(p, k.takes)
	k.patches = append(k.patches, p)
	return nil
}

// Remove removes a module.
func (k *fakeKernel) Remove(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tick()
	k.call("remove %s", name)
	p := k.find(name)
	switch {
	case p == nil:
		return syscall.ENOENT
	case !p.gone:
		return syscall.EAGAIN
	case k.refs > 0:
		k.refs--
		return syscall.EAGAIN
	}
	k.patches = slices.DeleteFunc(k.patches, func(q *fakePatch) bool { return q == p })
	return nil
}

// Write is enabled_store and force_store of kernel/livepatch/core.c.
func (k *fakeKernel) Write(name, text string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tick()
	dir, file := path.Split(name)
	k.call("write %s to %s", text, path.Join(path.Base(dir), file))
	p := k.find(path.Base(dir))
	if p == nil || p.gone {
		return fs.ErrNotExist
	}
	if file == "force" {
		if !p.changes {
			return syscall.EINVAL
		}
		k.begin(p, 0)
		return nil
	}
	enabled := text == "1"
	other := slices.ContainsFunc(k.patches, func(q *fakePatch) bool { return q != p && q.changes })
	switch {
	case p.enabled == enabled:
		return syscall.EINVAL
	case p.changes:
		p.enabled = enabled
		k.begin(p, k.back)
	case enabled:
		return syscall.EINVAL
	case other:
		return syscall.EBUSY
	default:
		p.enabled = false
		k.begin(p, k.takes)
	}
	return nil
}

// Log returns what the test says.
func (k *fakeKernel) Log() func() []string { return func() []string { return k.log } }

// fakeModule is the file of a livepatch for the fake kernel: functions are
// "name", "name,2" or "module:name".
func fakeModule(name string, replace bool, functions ...string) *Module {
	m := &inspect.Module{Name: name, Tables: inspect.Static, Replace: &replace,
		Modinfo: []inspect.Tag{{Key: "vermagic", Value: "6.12.0-test SMP mod_unload "}}}
	for _, f := range functions {
		object, fn, ok := strings.Cut(f, ":")
		if !ok {
			object, fn = vmlinux, f
		}
		function := inspect.Function{Name: fn}
		if n, pos, ok := strings.Cut(fn, ","); ok {
			function.Name = n
			fmt.Sscan(pos, &function.Sympos)
		}
		i := slices.IndexFunc(m.Objects, func(o inspect.Object) bool { return o.Name == object })
		if i < 0 {
			i = len(m.Objects)
			m.Objects = append(m.Objects, inspect.Object{Name: object})
		}
		m.Objects[i].Functions = append(m.Objects[i].Functions, function)
	}
	return &Module{Module: m, Path: name + ".ko"}
}

// active is a livepatch that the fake kernel has enabled.
func active(name string, functions ...string) *fakePatch {
	m := fakeModule(name, false, functions...)
	p := &fakePatch{name: name, enabled: true}
	for _, o := range m.Objects {
		obj := Object{Name: o.Name, Patched: true}
		for _, f := range o.Functions {
			obj.Functions = append(obj.Functions, Function{f.Name, max(1, int(f.Sympos))})
		}
		p.objects = append(p.objects, obj)
	}
	return p
}
