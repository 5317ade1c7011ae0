package cache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestGet(t *testing.T) {
	for name, size := range map[string]int{"empty": 0, "small": smallResult, "large": smallResult + 1, "larger": 3 << 20} {
		t.Run(name, func(t *testing.T) {
			y := newToy(t)
			y.wantMiss()
			want := payload(1, size)
			y.put(want)
			y.wantHit(want)
			_, deps, _, err := y.store.Get(y.cmd)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(y.deps, deps); d != "" {
				t.Errorf("deps (-want +got):\n%s", d)
			}
		})
	}
}

// TestChanges changes one thing between a put and a lookup.
func TestChanges(t *testing.T) {
	arg := func(old, new string) func(*toy) {
		return func(y *toy) {
			i := slices.Index(y.cmd.Args, old)
			if i < 0 {
				y.t.Fatalf("no argument %s", old)
			}
			y.cmd.Args[i] = new
		}
	}
	write := func(file, content string) func(*toy) { return func(y *toy) { y.write(file, content) } }
	tests := []struct {
		name   string
		change func(*toy)
		hit    bool
	}{
		{"nothing", func(*toy) {}, true},
		{"output", arg("kernel/fork.o", "/elsewhere/fork.o"), true},
		{"dependency file", arg("-Wp,-MMD,kernel/.fork.o.d", "-Wp,-MMD,/elsewhere/fork.d"), true},
		{"kind", func(y *toy) { y.cmd.Kind = "text" }, false},
		{"argument", arg("-O2", "-O3"), false},
		{"dependency option", arg("-Wp,-MMD,kernel/.fork.o.d", "-Wp,-MD,kernel/.fork.o.d"), false},
		{"fewer arguments", func(y *toy) { y.cmd.Args = slices.DeleteFunc(y.cmd.Args, func(a string) bool { return a == "-O2" }) }, false},
		{"working directory", func(y *toy) { y.cmd.Dir = y.at("src") }, false},
		{"compiler replaced", write("bin/gcc", "compiler"), false},
		{"assembler replaced", write("bin/as", "assembler"), false},
		{"cc1 appears", write("lib/gcc/x86_64-linux-gnu/12/cc1", "cc1"), false},
		{"launcher along PATH", func(y *toy) {
			y.write("ccache/gcc", "ccache")
			y.t.(*testing.T).Setenv("PATH", y.at("ccache")+":"+y.at("bin"))
		}, false},
		{"environment", func(y *toy) { y.t.(*testing.T).Setenv("CPATH", "/usr/local/include") }, false},
		{"environment of the tree", func(y *toy) { y.cmd.Env = []string{"CPATH=/usr/local/include"} }, false},
		{"PATH of the tree", func(y *toy) { y.write("tools/as", "as"); y.cmd.Env = []string{"PATH=" + y.at("tools")} }, false},
		{"launcher", func(y *toy) { y.cmd.Launcher = []string{"distcc"} }, false},
		{"environment that does not matter", func(y *toy) { y.t.(*testing.T).Setenv("EDITOR", "ed") }, true},
		{"source", write("src/kernel/fork.c", "other text"), false},
		{"header", write("src/include/linux/sched.h", "other text"), false},
		{"header of the build directory", write("out/include/generated/autoconf.h", "#define CONFIG_A 2"), false},
		{"header removed", func(y *toy) { y.remove("src/kernel/sched.h") }, false},
		{"header is a folder", func(y *toy) { y.remove("src/kernel/sched.h"); y.write("src/kernel/sched.h/x", "") }, false},
		{"header replaced by its equal", write("src/include/linux/sched.h", "text of include/linux/sched.h"), true},
		{"header not read", write("src/include/linux/other.h", "text"), true},
		{"header in an earlier folder", write("src/arch/include/linux/sched.h", "text"), false},
		{"header in an earlier folder that did not exist", write("out/arch/generated/linux/sched.h", "text"), false},
		{"header beside the source", write("src/kernel/linux/sched.h", "text"), false},
		{"header beside another header", write("src/include/linux/asm/page.h", "text"), false},
		{"header in a later folder", write("out/include/linux/sched.h", "text"), false}, // needless, and rare
		{"object beside the source", write("src/kernel/fork.o", "object"), true},
		{"folder made and removed", func(y *toy) { y.write("src/include/linux/x/y", ""); y.remove("src/include/linux/x/y") }, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			y := newToy(t)
			want := payload(1, 2000)
			y.put(want)
			test.change(y)
			if test.hit {
				y.wantHit(want)
			} else {
				y.wantMiss()
			}
		})
	}
}

// TestLater has the same store see a change.
func TestLater(t *testing.T) {
	y := newToy(t)
	y.put(payload(1, 2000))
	for i := range 3 {
		if _, _, ok, err := y.store.Get(y.cmd); !ok || err != nil {
			t.Fatalf("before change %d: %v %v, want a hit", i, ok, err)
		}
		y.write("src/kernel/sched.h", strings.Repeat("changed ", i+1))
		if _, _, ok, err := y.store.Get(y.cmd); ok || err != nil {
			t.Fatalf("after change %d: %v %v, want a miss", i, ok, err)
		}
		y.put(payload(2+i, 2000))
	}
}

// TestAlternatives goes back and forth between states of the tree.
func TestAlternatives(t *testing.T) {
	y := newToy(t)
	const states = maxAlternatives + 4
	// The clock of the toy trusts times at once, so sizes have to differ.
	state := func(i int) { y.write("src/kernel/sched.h", strings.Repeat("x", i)) }
	for i := range states {
		state(i)
		y.wantMiss()
		y.put(payload(i, 2000))
		y.put(payload(i, 2000)) // the same again takes no place
	}
	for i := states - 1; i >= 0; i-- {
		state(i)
		if i < states-maxAlternatives {
			y.wantMiss()
		} else {
			y.wantHit(payload(i, 2000))
		}
	}
}

// TestTooNew: what changes while the compiler runs may not be what it has read.
func TestTooNew(t *testing.T) {
	tests := map[string]func(*toy){
		"source changed":           func(y *toy) { y.write("src/kernel/fork.c", "edited") },
		"header changed":           func(y *toy) { y.write("out/include/generated/autoconf.h", "made again") },
		"earlier header":           func(y *toy) { y.write("src/arch/include/linux/sched.h", "new") },
		"header gone":              func(y *toy) { y.remove("src/kernel/sched.h") },
		"times set back by a tool": func(y *toy) { y.setBack("src/kernel/fork.c") },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			y := newToy(t)
			time.Sleep(3 * tick)
			started := time.Now()
			change(y)
			if err := y.store.Put(y.cmd, y.deps, started, payload(1, 2000)); err != nil {
				t.Fatal(err)
			}
			if got := y.storeFiles(manifests); len(got) != 0 {
				t.Errorf("stored %v", got)
			}
		})
	}
	y := newToy(t)
	time.Sleep(3 * tick)
	if err := y.store.Put(y.cmd, y.deps, time.Now(), payload(1, 2000)); err != nil {
		t.Fatal(err)
	}
	y.wantHit(payload(1, 2000))
}

// setBack replaces a file and gives it an old modification time.
func (y *toy) setBack(name string) {
	y.t.Helper()
	y.write(name, "replaced")
	old := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := os.Chtimes(y.at(name), old, old); err != nil {
		y.t.Fatal(err)
	}
}

func TestSettled(t *testing.T) {
	at := func(ns int64) syscall.Timespec { return syscall.NsecToTimespec(ns) }
	const s = int64(time.Second)
	tests := []struct {
		name         string
		mtime, ctime int64 // ns
		now          int64
		want         bool
	}{
		{"old", 1*s + 1, 1*s + 1, 10 * s, true},
		{"within the clock's tick", 10*s - int64(tick)/2, 1*s + 1, 10 * s, false},
		{"after the clock's tick", 10*s - int64(tick) - 1, 1*s + 1, 10 * s, true},
		{"changed within the tick", 1*s + 1, 10*s - int64(tick)/2, 10 * s, false},
		{"whole seconds", 9 * s, 9 * s, 10 * s, false},
		{"old whole seconds", 7 * s, 7 * s, 10 * s, true},
		{"from the future", 11 * s, 1 * s, 10 * s, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			st := statWith(at(test.mtime), at(test.ctime))
			if got := settled(&st, time.Unix(0, test.now)); got != test.want {
				t.Errorf("settled = %v, want %v", got, test.want)
			}
		})
	}
}

func TestUnfit(t *testing.T) {
	y := newToy(t)
	if got := y.cmd.unfit(); got != "" {
		t.Errorf("unfit() = %q, want nothing", got)
	}
	for _, a := range []string{"-gsplit-dwarf", "-fprofile-arcs", "-ftest-coverage", "-save-temps=obj"} {
		y := newToy(t)
		y.cmd.Args = append(y.cmd.Args, a)
		y.put(payload(1, 2000))
		y.wantMiss()
		if want, got := a+" makes the result depend on the name of the output", y.cmd.unfit(); got != want {
			t.Errorf("unfit() = %q, want %q", got, want)
		}
	}
}

func TestHazards(t *testing.T) {
	tests := []struct {
		name, text, arg string
		hit             bool
	}{
		{"none", "int x;", "-O1", true},
		{"incbin", `asm(".incbin \"kernel/config_data.gz\"");`, "-O1", false},
		{"has_include", "#if __has_include(<x.h>)", "-Werror=date-time", false},
		{"date", "char *d = __DATE__;", "-O1", false},
		{"time", "char *d = __TIME__;", "-O1", false},
		{"date that would not compile", "// __DATE__", "-Werror=date-time", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			y := newToy(t)
			y.write("src/kernel/fork.c", test.text)
			y.cmd.Args = append(y.cmd.Args, test.arg)
			y.put(payload(1, 2000))
			if test.hit {
				y.wantHit(payload(1, 2000))
			} else {
				y.wantMiss()
			}
		})
	}
}

func TestInputs(t *testing.T) {
	y := newToy(t)
	y.write("out/scripts/gcc-plugins/randomize.so", "plugin")
	y.cmd.Args = append(y.cmd.Args, "-fplugin=./scripts/gcc-plugins/randomize.so")
	y.put(payload(1, 2000))
	y.wantHit(payload(1, 2000))
	_, deps, _, err := y.store.Get(y.cmd)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(y.deps, deps); d != "" {
		t.Errorf("deps (-want +got):\n%s", d)
	}
	y.write("out/scripts/gcc-plugins/randomize.so", "another plugin")
	y.wantMiss()
	y.write("out/scripts/gcc-plugins/randomize.so", "plugin")
	y.wantHit(payload(1, 2000))
	y.cmd.Inputs = []string{y.at("bin/genksyms")}
	y.write("bin/genksyms", "program")
	y.wantMiss()
	y.put(payload(2, 2000))
	y.wantHit(payload(2, 2000))
	y.write("bin/genksyms", "another program")
	y.wantMiss()
}

// TestCheckout: all files get other times and inodes, as after a checkout. The
// first lookup reads them, the second does not.
func TestCheckout(t *testing.T) {
	y := newToy(t)
	for i := range staleStamps {
		name := fmt.Sprintf("include/linux/h%d.h", i)
		y.write("src/"+name, name)
		y.deps = append(y.deps, name)
	}
	y.put(payload(1, 2000))
	for i := range staleStamps {
		name := fmt.Sprintf("include/linux/h%d.h", i)
		y.write("src/"+name, name)
	}
	for i, want := range []int{staleStamps, 0} {
		y.wantHit(payload(1, 2000))
		if got := len(y.store.files.texts); got != want {
			t.Errorf("lookup %d read %d files, want %d", i, got, want)
		}
	}
}

// TestView looks at a patched view whose folder is another one each time.
func TestView(t *testing.T) {
	y := newToy(t)
	view := func(name, content string) {
		for _, d := range y.deps[:len(toyDeps)] {
			path := y.at(name + "/" + d)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if d == "kernel/fork.c" {
				y.write(name+"/"+d, content)
			} else if err := os.Symlink(y.at("src/"+d), path); err != nil {
				t.Fatal(err)
			}
		}
		y.cmd.View.At = y.at(name)
	}
	original := payload(1, 2000)
	y.put(original)
	time.Sleep(3 * tick)
	started := time.Now()
	view("view1", "patch 1")
	y.wantMiss()
	// The view's own files are as new as the compile, and may be.
	if err := y.store.Put(y.cmd, y.deps, started, payload(2, 2000)); err != nil {
		t.Fatal(err)
	}
	view("view2", "patch 1")
	y.wantHit(payload(2, 2000))
	view("view3", "patch 2")
	y.wantMiss()
	view("view4", "patch 1")
	y.write("view4/arch/include/linux/sched.h", "new file of the patch")
	y.wantMiss()
	view("view5", "patch 1")
	y.remove("view5/kernel/sched.h")
	y.wantMiss()
	view("view6", "patch 1")
	y.write("src/include/linux/sched.h", "changed below the view")
	y.wantMiss()
	y.cmd.View.At = y.cmd.View.Source
	y.wantMiss()
}

func TestViewName(t *testing.T) {
	tests := []struct {
		name               string
		source, build, arg string
		want               string
	}{
		{"in the source", "/s", "/b", "/s/kernel/fork.c", "kernel/fork.c"},
		{"the source itself", "/s", "/b", "/s", ""},
		{"in the build", "/s", "/b", "/b/include/x.h", "/b/include/x.h"},
		{"build below source", "/s", "/s/o", "/s/o/include/x.h", "/s/o/include/x.h"},
		{"built in place", "/s", "/s", "/s/include/x.h", "include/x.h"},
		{"longer name", "/s", "/b", "/src/x.h", "/src/x.h"},
		{"outside", "/s", "/b", "/usr/include/x.h", "/usr/include/x.h"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v := View{Source: test.source, Build: test.build, At: test.source}
			if got := v.Name(test.arg); got != test.want {
				t.Errorf("Name(%q) = %q, want %q", test.arg, got, test.want)
			}
		})
	}
}

func TestUnusableFolder(t *testing.T) {
	y := newToy(t)
	y.write("file", "not a folder")
	s, err := Open(y.at("file/store"), toyLimit)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := s.Get(y.cmd); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("Get: %v, want ENOTDIR", err)
	}
	if err := s.Put(y.cmd, y.deps, ahead(), payload(1, 2000)); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("Put: %v, want ENOTDIR", err)
	}
	if _, err := Open("", toyLimit); err == nil || err.Error() != "cache: no folder given" {
		t.Errorf("Open: %v", err)
	}
}

func TestNothingWithoutLimit(t *testing.T) {
	y := newToy(t)
	y.store = y.open(0)
	y.put(payload(1, 2000))
	y.wantMiss()
	if _, err := os.Stat(y.at("store")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder has been made: %v", err)
	}
}
