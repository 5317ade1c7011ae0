package distro

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	testRelease = "6.12.117+deb12-cloud-amd64"
	testVersion = "6.12.117-1~deb12u1"
)

// archive is a stand-in for apt and its archive, the compiler and make: shell
// scripts in PATH that serve recorded output and tiny packages.
type archive struct {
	dir   string // also holds "calls", a line for each call, and switches
	lists string
	cache string
}

// fakeMake does what the switches "make-fails" and "make-config" say.
const fakeMake = `for a; do case $a in O=*) o=${a#O=};; esac; done
echo "make $MAKEFLAGS$CFLAGS$KBUILD_EXTRA $*" >> "$ARCHIVE/calls"
case "$*" in
*olddefconfig*) [ ! -f "$ARCHIVE/make-config" ] || cat "$ARCHIVE/make-config" >> "$o/.config";;
*" prepare "*) [ ! -f "$ARCHIVE/make-fails" ] || { echo "no such luck" >&2; exit 2; };;
*" -n "*) echo "  gcc-12 -c -o fs/proc/cmdline.o cmdline.c"
	echo "make: *** No rule to make target 'output/signing_key.pem', needed by 'certs/signing_key.x509'." >&2; exit 2;;
esac`

const fakeAptCache = `echo "apt-cache $1" >> "$ARCHIVE/calls"
case $1 in
pkgnames) cat "$ARCHIVE/pkgnames";;
madison) shift; for n; do grep -F "$n |" "$ARCHIVE/madison"; done; exit 0;;
show) cat "$ARCHIVE/show";;
esac`

const fakeAptGet = `for a; do case $a in
Acquire*|APT*) ;;
*=*) name=${a%%=*}; echo "fetch $a" >> "$ARCHIVE/calls"; cp "$ARCHIVE/$name.tar" "./${name}.deb" || exit 100;;
esac; done`

func newArchive(t *testing.T) *archive {
	t.Helper()
	for _, tool := range []string{"tar", "xz"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not installed")
		}
	}
	a := &archive{dir: t.TempDir(), lists: t.TempDir(), cache: t.TempDir()}
	t.Setenv("ARCHIVE", a.dir)
	bin := filepath.Join(a.dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	fakeProgram(t, bin, "make", fakeMake)
	fakeProgram(t, bin, "apt-cache", fakeAptCache)
	fakeProgram(t, bin, "apt-get", fakeAptGet)
	fakeProgram(t, bin, "dpkg-deb", `[ "$1" = -x ] && tar -C "$3" -xf "$2"`)
	a.compiler(t, "12.2.0-14+deb12u1")
	for _, name := range []string{"pkgnames", "madison", "show"} {
		a.put(t, name, readTestdata(t, name+".txt"))
	}
	a.pack(t, "linux-image-"+testRelease, map[string]string{
		"boot/vmlinuz-" + testRelease:                         "vmlinuz",
		"lib/modules/" + testRelease + "/kernel/net/dummy.ko": "dummy",
	})
	headers := "usr/src/linux-headers-" + testRelease
	a.pack(t, "linux-headers-"+testRelease, map[string]string{headers + "/.config": stock, headers + "/Module.symvers": "0x1 printk"})
	a.packSource(t)
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(a.lists, old, old); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *archive) put(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(a.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func (a *archive) compiler(t *testing.T, version string) {
	fakeProgram(t, filepath.Join(a.dir, "bin"), "x86_64-linux-gnu-gcc-12",
		"echo 'x86_64-linux-gnu-gcc-12 (Debian "+version+") 12.2.0'")
}

func runTar(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("tar", args...).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
}

func (a *archive) pack(t *testing.T, pkg string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		a.put(t, filepath.Join(pkg, name), text)
	}
	runTar(t, "-C", filepath.Join(a.dir, pkg), "-cf", filepath.Join(a.dir, pkg+".tar"), ".")
}

func (a *archive) packSource(t *testing.T) {
	t.Helper()
	a.put(t, "src/linux-source-6.12/Makefile", "all:")
	a.put(t, "src/linux-source-6.12/Documentation/index.rst", "docs")
	a.put(t, "linux-source-6.12/usr/src/x", "")
	runTar(t, "-C", filepath.Join(a.dir, "src"), "-cJf", filepath.Join(a.dir, "linux-source-6.12/usr/src/linux-source-6.12.tar.xz"), "linux-source-6.12")
	a.pack(t, "linux-source-6.12", nil)
}

// calls returns the recorded calls that begin with a prefix.
func (a *archive) calls(prefix string) (calls []string) {
	b, _ := os.ReadFile(filepath.Join(a.dir, "calls"))
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, prefix) {
			calls = append(calls, strings.TrimSuffix(line, "\n"))
		}
	}
	return calls
}

// entries returns what lies in the cache, without lock files.
func (a *archive) entries(t *testing.T) (names []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(a.cache, "kernels", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		if filepath.Ext(p) != ".lock" {
			names = append(names, filepath.Base(p))
		}
	}
	return names
}

// get asks for a tree as Debian does, on a host that has all needs.
func (a *archive) get(ctx context.Context, release string, o Options) (*Tree, error) {
	o.Cache, o.Jobs = a.cache, 3
	h, err := a.host()
	if err != nil {
		return nil, err
	}
	d, err := newDebian(o, h, a.lists)
	if err != nil {
		return nil, err
	}
	return d.tree(ctx, release)
}

// host has all that trees need.
func (a *archive) host() (host, error) {
	h := defaultHost()
	h.lookPath = func(p string) (string, error) { return p, nil }
	h.includes = []string{filepath.Join(a.dir, "include")}
	for _, n := range buildTools {
		if n.header != "" {
			path := filepath.Join(h.includes[0], n.header)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644)); err != nil {
				return host{}, err
			}
		}
	}
	return h, nil
}

func TestDebian(t *testing.T) {
	a := newArchive(t)
	t.Setenv("MAKEFLAGS", "-j99")
	t.Setenv("KBUILD_EXTRA", "bad")
	t.Setenv("CFLAGS", "-bad")
	got, err := a.get(t.Context(), "", Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(a.cache, "kernels", "debian", testRelease+"_"+testVersion)
	vars := []string{"ARCH=x86", "KERNELRELEASE=" + testRelease, "CC=x86_64-linux-gnu-gcc-12", "HOSTRUSTC=false", "RUSTC=false",
		"PAHOLE=" + dir + "/build/pahole"}
	want := &Tree{Release: testRelease, Version: testVersion, Source: dir + "/source", Build: dir + "/build", Config: dir + "/build/.config",
		Symvers: dir + "/build/Module.symvers", BzImage: dir + "/image/boot/vmlinuz-" + testRelease,
		ModulesDir: dir + "/image/lib/modules/" + testRelease + "/kernel", CC: "x86_64-linux-gnu-gcc-12",
		MakeArgs: vars, Env: got.Env, Commands: dir + "/commands.zst"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	all := "make  -C " + want.Source + " O=" + want.Build + " " + strings.Join(vars, " ")
	calls := []string{all + " olddefconfig", all + " -j3 prepare modules_prepare", all + " -n -k vmlinux modules"}
	if diff := cmp.Diff(calls, a.calls("make")); diff != "" {
		t.Error(diff)
	}
	if _, err := os.Stat(filepath.Join(got.Source, "Documentation", "index.rst")); err != nil {
		t.Error(err)
	}
	r, err := got.OpenCommands()
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("  gcc-12 -c -o fs/proc/cmdline.o cmdline.c\n", string(text)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{filepath.Base(dir)}, a.entries(t)); diff != "" {
		t.Error(diff)
	}
	testReuse(t, a, got)
}

// testReuse asks for a prepared tree again.
func testReuse(t *testing.T, a *archive, want *Tree) {
	calls := len(a.calls(""))
	again, err := a.get(t.Context(), testRelease, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, again); diff != "" {
		t.Error(diff)
	}
	if more := a.calls("")[calls:]; len(more) > 0 {
		t.Errorf("a prepared tree took %q", more)
	}
	// apt has new lists: it is asked, once, for another version of the release.
	later := time.Now().Add(time.Minute)
	ready := filepath.Join(filepath.Dir(want.Source), readyName)
	past := time.Now().Add(-time.Minute)
	now := time.Now().Add(-time.Second)
	if err := errors.Join(os.Chtimes(a.lists, now, now), os.Chtimes(ready, past, past)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := a.get(t.Context(), testRelease, Options{}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"apt-cache madison", "apt-cache show"}, a.calls("")[calls:]); diff != "" {
		t.Error(diff)
	}
	// The archive dropped the release.
	a.put(t, "madison", "")
	if err := os.Chtimes(a.lists, later, later); err != nil {
		t.Fatal(err)
	}
	if _, err := a.get(t.Context(), testRelease, Options{}); err != nil {
		t.Error(err)
	}
	_, err = a.get(t.Context(), "6.1.0-47-cloud-amd64", Options{})
	if err == nil || !strings.Contains(err.Error(), "apt does not offer all of 6.1.0-47-cloud-amd64") {
		t.Errorf("unknown release: %v", err)
	}
}

func TestParallelRuns(t *testing.T) {
	a := newArchive(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	waits := 0
	for range 3 {
		wg.Go(func() {
			_, err := a.get(t.Context(), testRelease, Options{Log: func(s string) {
				if s == "waiting for another klpc that prepares "+testRelease {
					mu.Lock()
					waits++
					mu.Unlock()
				}
			}})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(a.calls("fetch linux-source")); n != 1 {
		t.Errorf("the source was fetched %d times", n)
	}
	if waits == 0 {
		t.Error("nobody waited")
	}
}

func TestFailedPreparation(t *testing.T) {
	a := newArchive(t)
	a.put(t, "make-fails", "")
	_, err := a.get(t.Context(), testRelease, Options{})
	if err == nil || err.Error() != "make -j3 prepare modules_prepare: make: exit status 2:\nno such luck" {
		t.Errorf("%v", err)
	}
	if left := a.entries(t); left != nil {
		t.Errorf("left behind: %q", left)
	}
	// As kill -9 leaves it: everything but the stamp.
	if err := os.Remove(filepath.Join(a.dir, "make-fails")); err != nil {
		t.Fatal(err)
	}
	tree, err := a.get(t.Context(), testRelease, Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(tree.Source)
	junk := filepath.Join(dir, "build", "junk")
	if err := errors.Join(os.Remove(filepath.Join(dir, readyName)), os.WriteFile(junk, nil, 0o644),
		os.MkdirAll(filepath.Join(dir+".tmp", "source.debs", "x.deb"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, err = a.get(t.Context(), testRelease, Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(junk); !os.IsNotExist(err) {
		t.Errorf("what a killed run left is still there (%v)", err)
	}
	if diff := cmp.Diff([]string{filepath.Base(dir)}, a.entries(t)); diff != "" {
		t.Error(diff)
	}
}

func TestCancelled(t *testing.T) {
	a := newArchive(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := a.get(ctx, testRelease, Options{Log: func(s string) {
		if s == "preparing the tree" {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if left := a.entries(t); left != nil {
		t.Errorf("left behind: %q", left)
	}
}

func TestUntrustedStamps(t *testing.T) {
	a := newArchive(t)
	tree, err := a.get(t.Context(), testRelease, Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(tree.Source)
	if _, ok := readStamp(dir); !ok {
		t.Fatal("a whole tree is not trusted")
	}
	moved := dir + "-moved"
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	if _, ok := readStamp(moved); ok {
		t.Error("a moved tree is trusted")
	}
	if err := os.Rename(moved, dir); err != nil {
		t.Fatal(err)
	}
	ready := filepath.Join(dir, readyName)
	good, err := os.ReadFile(ready)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"other format": strings.Replace(string(good), `"Format": 1`, `"Format": 0`, 1),
		"cut off":      string(good[:len(good)/2]),
		"empty":        "",
	} {
		if err := os.WriteFile(ready, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, ok := readStamp(dir); ok {
			t.Errorf("%s: trusted", name)
		}
	}
	if err := errors.Join(os.WriteFile(ready, good, 0o644), os.Remove(tree.BzImage)); err != nil {
		t.Fatal(err)
	}
	if _, ok := readStamp(dir); ok {
		t.Error("a tree without vmlinuz is trusted")
	}
}

func TestConfigurationDiffers(t *testing.T) {
	a := newArchive(t)
	a.put(t, "make-config", "CONFIG_KASAN=y\n")
	_, err := a.get(t.Context(), testRelease, Options{AllowCompilerMismatch: true})
	want := "make changed the kernel's configuration, so objects compiled here would not match it:\n  CONFIG_KASAN is y, the kernel has not set"
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	a.put(t, "make-config", "CONFIG_LD_VERSION=24400\n")
	tree, err := a.get(t.Context(), testRelease, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"CONFIG_LD_VERSION is 24400, the kernel has not set"}, tree.Warnings); diff != "" {
		t.Error(diff)
	}
}

func TestCompilerMismatch(t *testing.T) {
	a := newArchive(t)
	exact, err := a.get(t.Context(), testRelease, Options{})
	if err != nil {
		t.Fatal(err)
	}
	a.compiler(t, "12.2.0-99")
	var wrong *CompilerError
	if _, err := a.get(t.Context(), testRelease, Options{}); !errors.As(err, &wrong) {
		t.Errorf("prepared tree, other compiler: %v", err)
	}
	a.put(t, "make-config", "CONFIG_KASAN=y\n")
	allowed := Options{AllowCompilerMismatch: true}
	tree, err := a.get(t.Context(), testRelease, allowed)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`compiler mismatch allowed: the kernel was built with "x86_64-linux-gnu-gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0", ` +
			`here x86_64-linux-gnu-gcc-12 is "x86_64-linux-gnu-gcc-12 (Debian 12.2.0-99) 12.2.0"`,
		"CONFIG_KASAN is y, the kernel has not set",
	}
	if diff := cmp.Diff(want, tree.Warnings); diff != "" {
		t.Error(diff)
	}
	if tree.Build == exact.Build {
		t.Error("the tree of the kernel's own compiler was overwritten")
	}
	fetches := len(a.calls("fetch"))
	if again, err := a.get(t.Context(), testRelease, allowed); err != nil || again.Build != tree.Build {
		t.Errorf("%v, %v", again, err)
	}
	a.compiler(t, "12.2.0-14+deb12u1")
	if again, err := a.get(t.Context(), testRelease, allowed); err != nil || again.Build != exact.Build {
		t.Errorf("%v, %v", again, err)
	}
	if more := a.calls("fetch")[fetches:]; len(more) > 0 {
		t.Errorf("fetched again: %q", more)
	}
}

func TestRefusedBeforeTheDownload(t *testing.T) {
	tests := []struct {
		name, config, err string
	}{
		{"compiler", strings.ReplaceAll(stock, "12.2.0-14", "12.2.0-13"), "but x86_64-linux-gnu-gcc-12 is \"x86_64-linux-gnu-gcc-12 (Debian 12.2.0-14"},
		{"rust", stock + "CONFIG_RUST=y\n", "CONFIG_RUST=y"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newArchive(t)
			headers := "usr/src/linux-headers-" + testRelease
			a.pack(t, "linux-headers-"+testRelease, map[string]string{headers + "/.config": tt.config})
			_, err := a.get(t.Context(), testRelease, Options{})
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%v", err)
			}
			want := []string{"fetch linux-headers-" + testRelease + "=" + testVersion}
			if diff := cmp.Diff(want, a.calls("fetch")); diff != "" {
				t.Error(diff)
			}
			if left := a.entries(t); left != nil {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

func TestSplitImage(t *testing.T) {
	a := newArchive(t)
	show := strings.ReplaceAll(readTestdata(t, "show-split.txt"), "7.3.4+deb13-cloud-amd64", testRelease)
	a.put(t, "show", show)
	image := filepath.Join(a.dir, "linux-image-"+testRelease)
	if err := errors.Join(os.RemoveAll(image), os.Mkdir(image, 0o755)); err != nil {
		t.Fatal(err)
	}
	a.pack(t, "linux-image-"+testRelease, nil)
	lib := "usr/lib/modules/" + testRelease
	a.pack(t, "linux-base-"+testRelease, map[string]string{lib + "/config": stock})
	a.pack(t, "linux-binary-"+testRelease, map[string]string{lib + "/vmlinuz": "vmlinuz"})
	a.pack(t, "linux-modules-"+testRelease, map[string]string{lib + "/kernel/net/dummy.ko": "dummy"})
	tree, err := a.get(t.Context(), testRelease, Options{})
	if err != nil {
		t.Fatal(err)
	}
	image = filepath.Join(filepath.Dir(tree.Source), "image", lib)
	if diff := cmp.Diff([]string{image + "/vmlinuz", image + "/kernel"}, []string{tree.BzImage, tree.ModulesDir}); diff != "" {
		t.Error(diff)
	}
}

func TestImageWithoutModules(t *testing.T) {
	a := newArchive(t)
	if err := os.RemoveAll(filepath.Join(a.dir, "linux-image-"+testRelease, "lib")); err != nil {
		t.Fatal(err)
	}
	a.pack(t, "linux-image-"+testRelease, nil)
	_, err := a.get(t.Context(), testRelease, Options{})
	if err == nil || !strings.Contains(err.Error(), "holds no vmlinuz or no modules") {
		t.Errorf("%v", err)
	}
	if left := a.entries(t); left != nil {
		t.Errorf("left behind: %q", left)
	}
}

func TestHostCheck(t *testing.T) {
	h := host{lookPath: func(p string) (string, error) {
		if p == "bc" || p == "flex" {
			return "", exec.ErrNotFound
		}
		return p, nil
	}, includes: []string{t.TempDir()}}
	err := h.check(buildTools)
	want := "this machine lacks flex, bc, stdlib.h, gelf.h, openssl/opensslv.h, zlib.h; as root: " +
		"apt-get install --no-install-recommends flex bc libc6-dev libelf-dev libssl-dev zlib1g-dev"
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	if err := h.check(aptTools); err != nil {
		t.Error(err)
	}
	h.lookPath = func(string) (string, error) { return "", exec.ErrNotFound }
	want = "this machine lacks tar, xz; Debian has them in the packages tar xz-utils"
	if err := h.check(unpackTools); err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}

func TestBadCache(t *testing.T) {
	for _, tt := range []struct{ cache, err string }{
		{"", "prepare a kernel: no cache directory given"},
		{filepath.Join(t.TempDir(), "a b"), "the kernel's Makefile cannot work in a path with ' '"},
		{filepath.Join(t.TempDir(), "a:b"), "the kernel's Makefile cannot work in a path with ':'"},
		{"/dev/null/x", "cache of kernels: mkdir /dev/null: not a directory"},
	} {
		_, err := Debian(t.Context(), testRelease, Options{Cache: tt.cache})
		if err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%q: %v", tt.cache, err)
		}
	}
}

func TestDryRunWarnings(t *testing.T) {
	stderr := `make[4]: *** No rule to make target 'output/signing_key.pem', needed by 'certs/signing_key.x509'.
make[3]: *** [scripts/Makefile.build:471: certs] Error 2
make[4]: *** No rule to make target 'debian/canonical-certs.pem', needed by 'certs/x509_certificate_list'.
make[3]: *** No rule to make target 'vmlinux.a', needed by 'vmlinux.o'.
make[4]: *** No rule to make target 'foo.c', needed by 'foo.o'.
make[4]: *** No rule to make target 'x.h', needed by 'drivers/certs/x.o'.
make[4]: *** No rule to make target 'x.h', needed by 'vmlinuxes.o'.
`
	want := []string{
		"make cannot make foo.c, needed by foo.o: compile commands may be incomplete",
		"make cannot make x.h, needed by drivers/certs/x.o: compile commands may be incomplete",
		"make cannot make x.h, needed by vmlinuxes.o: compile commands may be incomplete",
	}
	if diff := cmp.Diff(want, dryRunWarnings(stderr)); diff != "" {
		t.Error(diff)
	}
}

func TestCompileCounter(t *testing.T) {
	text := "a -c -o b -c -o  -c -c -o c\n"
	for size := 1; size <= len(text); size++ {
		var out strings.Builder
		c := &compileCounter{w: &out}
		for rest := text; rest != ""; {
			n := min(size, len(rest))
			if _, err := c.Write([]byte(rest[:n])); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if c.n != 3 || out.String() != text {
			t.Errorf("writes of %d bytes: %d commands, %q", size, c.n, out.String())
		}
	}
}
