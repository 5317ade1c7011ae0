package livepatch

import (
	"bytes"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write what is printed into the golden files")

// trees are the recorded trees of a kernel, by name, in the order of the file.
func trees(t *testing.T, file string) (names []string, byName map[string]fstest.MapFS) {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	byName = map[string]fstest.MapFS{}
	for _, f := range archive.Files {
		name, path, _ := strings.Cut(f.Name, "/")
		path = strings.TrimPrefix(path, "/")
		if byName[name] == nil {
			names, byName[name] = append(names, name), fstest.MapFS{}
		}
		entry := &fstest.MapFile{Data: f.Data, Mode: 0o644}
		if dir, ok := strings.CutSuffix(path, "/"); ok {
			path, entry.Mode = dir, fs.ModeDir|0o755
		}
		byName[name][path] = entry
	}
	return names, byName
}

// TestRead reads trees that were recorded in guests (see TestRunning of e2e,
// -record), and one that was written by the document of the ABI.
func TestRead(t *testing.T) {
	files, err := filepath.Glob("testdata/linux-*.txtar")
	if err != nil || len(files) < 3 {
		t.Fatalf("recorded trees: %q %v, want at least 3", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			var got txtar.Archive
			names, byName := trees(t, file)
			for _, name := range names {
				state, err := Read(byName[name])
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				Explain(byName[name], state)
				got.Files = append(got.Files, txtar.File{Name: name, Data: []byte(state.Text() + "\n" + state.Table())})
			}
			golden := strings.TrimSuffix(file, ".txtar") + ".golden"
			if *update {
				if err := os.WriteFile(golden, txtar.Format(&got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), string(txtar.Format(&got))); d != "" {
				t.Error(d)
			}
		})
	}
}

// denied is a tree of which some files may not be read, as without root.
type denied struct {
	fs.FS
	suffix string
	err    error
}

func (d denied) Open(name string) (fs.File, error) {
	if strings.HasSuffix(name, d.suffix) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: d.err}
	}
	return d.FS.Open(name)
}

// transition is the tree of a transition in Linux 7.3.
func transition(t *testing.T) fs.FS {
	t.Helper()
	_, byName := trees(t, "testdata/linux-7.3.txtar")
	return byName["transition"]
}

func TestReadWithoutRoot(t *testing.T) {
	state, err := Read(denied{transition(t), "/patch_state", fs.ErrPermission})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(&Tasks{Total: 6, Unknown: 6}, state.InTransition().Tasks); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"/proc/*/patch_state: permission denied"}, state.Unreadable); d != "" {
		t.Error(d)
	}
	root := denied{transition(t), "/stack", fs.ErrPermission}
	state, err = Read(root)
	if err != nil {
		t.Fatal(err)
	}
	Explain(root, state)
	for _, task := range state.InTransition().Blocking {
		if task.Problem != "its stack cannot be read: permission denied" {
			t.Errorf("%s: %q", task.Comm, task.Problem)
		}
	}
}

// What vanishes while it is read is left out; what is damaged is said.
func TestReadUnsteady(t *testing.T) {
	for _, tt := range []struct {
		name       string
		root       fs.FS
		patches    []string
		unreadable []string
	}{
		{"livepatch goes", denied{transition(t), "livepatch_fix/transition", fs.ErrNotExist}, []string{"livepatch_base", "livepatch_fix", "livepatch_old"}, []string{}},
		{"task goes", denied{transition(t), "301/patch_state", syscall.ESRCH}, []string{"livepatch_base", "livepatch_fix", "livepatch_old"}, []string{}},
		{"no modules", denied{transition(t), procModules, fs.ErrPermission}, []string{"livepatch_base", "livepatch_fix"}, []string{"/proc/modules: permission denied"}},
		{"nonsense", overlay{transition(t), fstest.MapFS{
			sysLivepatch + "/livepatch_fix/enabled":            {Data: []byte("maybe\n")},
			sysLivepatch + "/livepatch_base/stack_order":       {Data: []byte("first\n")},
			sysLivepatch + "/livepatch_base/vmlinux/f/nothing": {},
			procModules: {Data: []byte("short line\n")},
		}}, []string{"livepatch_base"}, []string{
			`/proc/modules: unexpected line "short line"`,
			`/sys/kernel/livepatch/livepatch_base/stack_order: strconv.Atoi: parsing "first": invalid syntax`,
			`/sys/kernel/livepatch/livepatch_fix/enabled: "maybe" is neither 0 nor 1`,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			state, err := Read(tt.root)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, p := range state.Patches {
				names = append(names, p.Name)
			}
			if d := cmp.Diff(tt.patches, names); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(tt.unreadable, state.Unreadable); d != "" {
				t.Error(d)
			}
		})
	}
	if _, err := Read(fstest.MapFS{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no /proc: %v", err)
	}
}

// While a livepatch's module is being loaded, the flags do not say yet that it is
// being enabled.
func TestReadComing(t *testing.T) {
	files := func(initstate string) fs.FS {
		return overlay{transition(t), fstest.MapFS{
			sysLivepatch + "/livepatch_fix/enabled": {Data: []byte("0\n")},
			sysModule + "/livepatch_fix/initstate":  {Data: []byte(initstate + "\n")},
			sysModule + "/livepatch_fix/srcversion": {Data: []byte("5F2C\n")},
		}}
	}
	for initstate, want := range map[string]Phase{"coming": Enabling, "live": Disabling} {
		state, err := Read(files(initstate))
		if err != nil {
			t.Fatal(err)
		}
		if got := state.Find("livepatch_fix").Phase; got != want {
			t.Errorf("%s: %s, want %s", initstate, got, want)
		}
	}
}

// overlay is a tree with some files replaced.
type overlay struct {
	fs.FS
	files fstest.MapFS
}

func (o overlay) Open(name string) (fs.File, error) {
	if f := o.files[name]; f != nil {
		return o.files.Open(name)
	}
	return o.FS.Open(name)
}

func TestParseHook(t *testing.T) {
	for _, tt := range []struct {
		line string
		want *hook
	}{
		{"pipe_read (1) R I     \ttramp: 0xffffffffc0a4e000 (klp_ftrace_handler+0x0/0x1c0) ->klp_ftrace_handler+0x0/0x1c0\n",
			&hook{function: "pipe_read", object: vmlinux, users: 1, ipmodify: true, klp: true, line: "1 user R I"}},
		{"br_send_bpdu [bridge] (2)    I D  \t->arch_ftrace_ops_list_func+0x0/0x230\n",
			&hook{function: "br_send_bpdu", object: "bridge", users: 2, ipmodify: true, direct: true, line: "2 users I D"}},
		{"pipe_read (1) R I   O M \tops: x (y)\n", &hook{function: "pipe_read", object: vmlinux, users: 1, ipmodify: true, line: "1 user R I O M"}},
		{"\tdirect-->bpf_trampoline_6442_1+0x0/0x1000\n", nil},
		{"__probestub_x [bridge]\n", nil},
		{"", nil},
		{" (1)\n", nil},
		{"f (x)\n", nil},
	} {
		h, ok := parseHook(tt.line)
		if !ok {
			h = hook{}
		}
		want := hook{}
		if tt.want != nil {
			want = *tt.want
		}
		if d := cmp.Diff(want, h, cmp.AllowUnexported(hook{})); d != "" || ok != (tt.want != nil) {
			t.Errorf("%q: %v %s", tt.line, ok, d)
		}
	}
}

func TestParseProbe(t *testing.T) {
	for _, tt := range []struct {
		line string
		want *probe
	}{
		{"ffffffff812d1f60  k  pipe_read+0x0    [FTRACE]\n", &probe{function: "pipe_read", object: vmlinux, kind: "kprobe", ftrace: true}},
		{"(null)  r  fb_open+0x20  fb [DISABLED][OPTIMIZED]\n", &probe{function: "fb_open", object: "fb", offset: 0x20, kind: "kretprobe"}},
		{"ffffffffc01d1f80  k  fb_open+0x1f/0x80 [fb] [DISABLED]\n", &probe{function: "fb_open", object: "fb", offset: 0x1f, kind: "kprobe"}},
		{"ffffffff812d1f60  k  0xffffffff812d1f60 \n", nil},
		{"ffffffff812d1f60  x  f+0x0\n", nil},
		{"\n", nil},
	} {
		p, ok := parseProbe(tt.line)
		want := probe{}
		if tt.want != nil {
			want = *tt.want
		} else {
			p = probe{}
		}
		if d := cmp.Diff(want, p, cmp.AllowUnexported(probe{})); d != "" || ok != (tt.want != nil) {
			t.Errorf("%q: %v %s", tt.line, ok, d)
		}
	}
}

func TestFind(t *testing.T) {
	state := &State{Patches: []Patch{{Name: "livepatch_fix_1"}, {Name: "other"}}}
	for name, want := range map[string]string{
		"livepatch_fix_1": "livepatch_fix_1", "livepatch-fix-1": "livepatch_fix_1", "fix-1": "livepatch_fix_1", "livepatch-fix-1.ko": "livepatch_fix_1",
		"other": "other", "fix": "", "livepatch": "",
	} {
		got := ""
		if p := state.Find(name); p != nil {
			got = p.Name
		}
		if got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// The newest goes first; what is disabled goes before.
func TestAll(t *testing.T) {
	state, err := Read(transition(t))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"livepatch_old", "livepatch_fix", "livepatch_base"}, All(state)); d != "" {
		t.Error(d)
	}
}

// Equal trees give equal text, whatever the order of reading.
func TestTextIsStable(t *testing.T) {
	root := transition(t)
	var first []byte
	for range 5 {
		state, err := Read(root)
		if err != nil {
			t.Fatal(err)
		}
		Explain(root, state)
		text := []byte(state.Text())
		if first == nil {
			first = text
		}
		if !bytes.Equal(first, text) {
			t.Fatalf("%s\n%s", first, text)
		}
	}
	if !slices.Contains(strings.Split(string(first), "\n"), "livepatch_fix: enabling, 3 of 6 tasks have switched") {
		t.Errorf("%s", first)
	}
}
