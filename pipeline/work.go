package pipeline

// The work folder of a build.
//
// A folder that stays holds, beside what the steps work with:
//
//	klpc-work.json     what the folder is for, and the digest of each state
//	state/STEP.json    what a finished step has left (steps.go)
//	obj/               compiled objects, and beside each what it was made of
//	lock               held by the process that works here
//
// A state is written before the manifest names it, and the states of a step
// and of those after it are forgotten before the step runs again; each file is
// replaced in one piece. So whenever a process is killed, the manifest names
// only states that belong together.

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/klpc/klpc/kbuild"
)

// workFormat is the version of a work folder's files.
const workFormat = 1

const workManifest = "klpc-work.json"

// workFolder is where a build works. Only keepObject and keptObject may be
// called in parallel.
type workFolder struct {
	dir  string
	keep bool     // it stays, and can be gone on with
	lock *os.File // nil if it does not stay

	manifest manifest
	digests  sync.Map // of files that objects were made of: path → string
}

// manifest says what a work folder is for. The first fields find the folder
// that belongs to a command line; whether it fits is then decided by content.
type manifest struct {
	Format  int
	Klpc    string            // version of the program
	Kernel  string            // its build directory
	Patches []string          // absolute
	Git     string            `json:",omitempty"`
	States  map[string]string // SHA-256 of each step's state
}

// openWork makes a work folder, or opens one that was kept.
func openWork(k *Kernel, o BuildOptions, from int) (*workFolder, error) {
	want, err := newManifest(k, o)
	if err != nil {
		return nil, err
	}
	w := &workFolder{keep: o.Keep || o.Work != "" || from > 0, manifest: want}
	switch {
	case o.Work == "" && from > 0:
		if w.dir, err = findWork(want); err != nil {
			return nil, err
		}
	case o.Work == "":
		if w.dir, err = os.MkdirTemp("", "klpc-"); err != nil {
			return nil, fmt.Errorf("make a work folder: %w; set TMPDIR", err)
		}
	default:
		if w.dir, err = namedWork(k.Tree, o.Work); err != nil {
			return nil, err
		}
	}
	if err := w.open(from); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func newManifest(k *Kernel, o BuildOptions) (manifest, error) {
	m := manifest{Format: workFormat, Klpc: o.Version, Kernel: k.Tree.Build, Patches: []string{}, Git: o.Git, States: map[string]string{}}
	for _, p := range o.Patches {
		abs, err := filepath.Abs(p)
		if err != nil {
			return m, err
		}
		m.Patches = append(m.Patches, abs)
	}
	return m, nil
}

// namedWork makes or checks a folder that the user has named.
func namedWork(t *kbuild.Tree, dir string) (string, error) {
	abs, err := realPath(dir)
	if err != nil {
		return "", fmt.Errorf("work folder: %w", err)
	}
	for _, tree := range []string{t.Source, t.Build} {
		if abs == tree || strings.HasPrefix(abs, tree+"/") {
			return "", fmt.Errorf("work folder: %s lies in the kernel tree, which is only read; name another", dir)
		}
	}
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return "", fmt.Errorf("work folder: %w", err)
	}
	entries, err := os.ReadDir(abs)
	if err != nil {
		return "", fmt.Errorf("work folder: %w", err)
	}
	if _, err := os.Lstat(filepath.Join(abs, workManifest)); err != nil && len(entries) > 0 {
		return "", fmt.Errorf("work folder: %s holds other files than those of a build; name an empty folder, or one that a build has kept", dir)
	}
	return abs, nil
}

// realPath is a path, absolute and without symbolic links, of which only the
// beginning need exist.
func realPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(abs)
	if !errors.Is(err, fs.ErrNotExist) {
		return real, err
	}
	if _, err := os.Lstat(abs); err == nil {
		return "", fmt.Errorf("%s is a symbolic link that leads nowhere", path)
	}
	above, err := realPath(filepath.Dir(abs))
	return filepath.Join(above, filepath.Base(abs)), err
}

// findWork returns the newest folder that this user's builds of the same
// patches have left among the temporary files.
func findWork(want manifest) (string, error) {
	found, err := filepath.Glob(filepath.Join(os.TempDir(), "klpc-*", workManifest))
	if err != nil {
		return "", err
	}
	best, newest := "", time.Time{}
	for _, file := range found {
		dir := filepath.Dir(file)
		st, err := os.Lstat(dir)
		if err != nil || !st.IsDir() || !mine(st) {
			continue // of somebody else, who may have made it up
		}
		m, err := readManifest(dir)
		if err != nil || m.Kernel != want.Kernel || m.Git != want.Git || !slices.Equal(m.Patches, want.Patches) {
			continue
		}
		if st, err := os.Stat(file); err == nil && st.ModTime().After(newest) {
			best, newest = dir, st.ModTime()
		}
	}
	if best == "" {
		return "", fmt.Errorf("no work folder of a build of these patches for this kernel is in %s: name it with --work, or build once with --keep", os.TempDir())
	}
	return best, nil
}

func mine(st fs.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && int(sys.Uid) == os.Geteuid()
}

func readManifest(dir string) (manifest, error) {
	var m manifest
	data, err := os.ReadFile(filepath.Join(dir, workManifest))
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal(data, &m)
}

// open locks a folder that stays, and clears away what the steps make anew.
func (w *workFolder) open(from int) error {
	if w.keep {
		if err := w.takeLock(); err != nil {
			return err
		}
	}
	if from > 0 {
		if err := w.goOn(from); err != nil {
			return err
		}
	} else if err := w.remove("obj", "state"); err != nil {
		return err
	}
	unpinned, err := filepath.Glob(filepath.Join(w.dir, "unpinned-*"))
	if err != nil {
		return err
	}
	for i := range unpinned {
		unpinned[i] = filepath.Base(unpinned[i])
	}
	if err := w.remove(append(unpinned, "src", "kbuild")...); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(w.dir, "obj"), 0o755); err != nil {
		return err
	}
	if !w.keep {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(w.dir, "state"), 0o755); err != nil {
		return err
	}
	return w.writeManifest()
}

func (w *workFolder) takeLock() error {
	var err error
	if w.lock, err = os.OpenFile(filepath.Join(w.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return fmt.Errorf("work folder: %w", err)
	}
	err = unix.Flock(int(w.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("work folder: another klpc works in %s", w.dir)
	}
	return err
}

// goOn takes over the states of the steps before from.
func (w *workFolder) goOn(from int) error {
	old, err := readManifest(w.dir)
	switch {
	case err != nil:
		return fmt.Errorf("work folder: %s has not been kept by a build: %w", w.dir, err)
	case old.Format != workFormat || old.Klpc != w.manifest.Klpc:
		return fmt.Errorf("work folder: %s was made by klpc %s, and this is %s; start over with --from apply", w.dir, old.Klpc, w.manifest.Klpc)
	}
	for _, s := range buildSteps()[:from] {
		sum, ok := old.States[s.name]
		switch {
		case s.save == nil:
		case !ok:
			return fmt.Errorf("work folder: the build in %s has not come to its end of the step %s: go on with --from %s", w.dir, s.name, s.name)
		default:
			w.manifest.States[s.name] = sum
		}
	}
	return nil
}

func (w *workFolder) remove(names ...string) error {
	var errs []error
	for _, n := range names {
		errs = append(errs, os.RemoveAll(filepath.Join(w.dir, n)))
	}
	return errors.Join(errs...)
}

// close ends the use of a folder; one that does not stay is removed.
func (w *workFolder) close() error {
	if !w.keep {
		return os.RemoveAll(w.dir)
	}
	if w.lock == nil {
		return nil
	}
	return w.lock.Close()
}

func (w *workFolder) writeManifest() error {
	return writeJSON(filepath.Join(w.dir, workManifest), w.manifest)
}

func writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return fmt.Errorf("internal error: %w", err)
	}
	if err := renameio.WriteFile(path, data, 0o644); err != nil {
		return fmt.Errorf("work folder: %w", err)
	}
	return nil
}

func (w *workFolder) statePath(step string) string {
	return filepath.Join(w.dir, "state", step+".json")
}

// save keeps what a step has left.
func (w *workFolder) save(step string, state any) error {
	if !w.keep {
		return nil
	}
	if err := writeJSON(w.statePath(step), state); err != nil {
		return err
	}
	sum, err := fileDigest(w.statePath(step))
	if err != nil {
		return err
	}
	w.manifest.States[step] = sum
	return w.writeManifest()
}

// load returns what a step has left.
func (w *workFolder) load(step string) ([]byte, error) {
	data, err := os.ReadFile(w.statePath(step))
	if err != nil {
		return nil, fmt.Errorf("work folder: %w; start over with --from apply", err)
	}
	if digestOf(data) != w.manifest.States[step] {
		return nil, fmt.Errorf("work folder: %s is damaged; start over with --from apply", w.statePath(step))
	}
	return data, nil
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func fileDigest(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	return digestOf(data), nil
}

// objectRecord says what an object in the work folder was made of.
type objectRecord struct {
	Command string            // SHA-256 of the command and of what runs it
	Object  string            // SHA-256
	Read    map[string]string // SHA-256 of each file, those of the patch apart
}

func recordPath(job kbuild.CompileJob) string { return job.Out + ".json" }

// keepObject records what an object, written to job.Out, was made of. One that
// cannot be trusted later, because a file changed since the compile began, has
// no record and is compiled again.
func (b *builder) keepObject(job kbuild.CompileJob, data []byte, deps []string, started time.Time) error {
	if !b.work.keep {
		return nil
	}
	r := objectRecord{Command: b.commandDigest(job), Object: digestOf(data), Read: map[string]string{}}
	for _, name := range deps {
		path := b.pathOf(job, name)
		if path == "" {
			continue
		}
		st, err := os.Stat(path)
		if err != nil || !st.ModTime().Before(started) {
			return nil
		}
		if r.Read[path], err = b.work.digest(path); err != nil {
			return nil
		}
	}
	return writeJSON(recordPath(job), r)
}

// keptObject returns an object that an earlier run has left, if it is the one
// that the job would give; why says what speaks against it.
func (b *builder) keptObject(job kbuild.CompileJob) (data []byte, why string) {
	text, err := os.ReadFile(recordPath(job))
	if err != nil {
		return nil, "the work folder does not have it"
	}
	var r objectRecord
	if json.Unmarshal(text, &r) != nil {
		return nil, "its record in the work folder is damaged"
	}
	if r.Command != b.commandDigest(job) {
		return nil, "its compile command or its compiler is another one now"
	}
	for _, path := range slices.Sorted(maps.Keys(r.Read)) {
		if now, err := b.work.digest(path); err != nil || now != r.Read[path] {
			return nil, path + " has changed since"
		}
	}
	if data, err = os.ReadFile(job.Out); err != nil || digestOf(data) != r.Object {
		return nil, "the object in the work folder is damaged"
	}
	return data, ""
}

// pathOf is where a file lies that a compile has read; "" if the patch or klpc
// itself has made it what it is.
func (b *builder) pathOf(job kbuild.CompileJob, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	path := filepath.Join(b.kernel.Tree.Source, name)
	if job.Shadow == nil {
		return path
	}
	if slices.ContainsFunc(b.files, func(f touched) bool { return f.path == name }) {
		return ""
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return path
}

// commandDigest covers a job's command and the compiler that it names.
func (b *builder) commandDigest(job kbuild.CompileJob) string {
	words := slices.Concat(job.Unit.Args, job.Extra, b.kernel.Tree.Env)
	if path, err := exec.LookPath(job.Unit.Args[0]); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		if st, err := os.Stat(path); err == nil {
			words = append(words, fmt.Sprint(path, st.Size(), st.ModTime().UnixNano()))
		}
	}
	return digestOf([]byte(strings.Join(words, "\x00")))
}

// digest is the SHA-256 of a file, read once a run.
func (w *workFolder) digest(path string) (string, error) {
	if d, ok := w.digests.Load(path); ok {
		return d.(string), nil
	}
	d, err := fileDigest(path)
	if err == nil {
		w.digests.Store(path, d)
	}
	return d, err
}

// identity is what the states of a work folder were made for.
type identity struct {
	Release string
	Source  string
	Build   string
	Files   map[string]string // SHA-256 of what makes up the kernel, by path
	Touched map[string]string // of the files that the patches touch, before and after
}

// identify takes the identity of a build whose patches have been applied.
func (b *builder) identify() (identity, error) {
	t := b.kernel.Tree
	id := identity{Release: b.kernel.Release, Source: t.Source, Build: t.Build, Files: map[string]string{}, Touched: map[string]string{}}
	var errs []error
	for _, path := range []string{filepath.Join(t.Build, ".config"), b.kernel.Symvers, b.kernel.ImagePath} {
		sum, err := b.work.digest(path)
		errs = append(errs, err)
		id.Files[path] = sum
	}
	for _, f := range b.files {
		before, err := fileDigest(filepath.Join(t.Source, f.path))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		after := ""
		if f.content != nil {
			after = digestOf(*f.content)
		}
		id.Touched[f.path] = before + " " + after
	}
	return id, errors.Join(errs...)
}

// applySame applies the patches and checks that the work folder was made for
// just these and this kernel.
func (b *builder) applySame(ctx context.Context, data []byte) error {
	var was identity
	if err := json.Unmarshal(data, &was); err != nil {
		return err
	}
	if err := b.apply(ctx); err != nil {
		return err
	}
	return was.check(b.identity, b.work.dir)
}

// check collects all in which a build differs from the one that a work folder
// was made for.
func (was identity) check(now identity, dir string) error {
	var why []string
	if was.Release != now.Release || was.Source != now.Source || was.Build != now.Build {
		why = append(why, fmt.Sprintf("the kernel was %s of %s, and is %s of %s", was.Release, was.Build, now.Release, now.Build))
	} else {
		for _, path := range differing(was.Files, now.Files) {
			why = append(why, path+" has changed since")
		}
	}
	for _, path := range differing(was.Touched, now.Touched) {
		_, before := was.Touched[path]
		_, after := now.Touched[path]
		switch {
		case !after:
			why = append(why, "the patches do not touch "+path+" any more")
		case !before:
			why = append(why, "the patches did not touch "+path)
		default:
			why = append(why, "the patches make something else of "+path+", or it has changed since")
		}
	}
	if len(why) == 0 {
		return nil
	}
	return fmt.Errorf("the work folder %s was made for something else:\n%s\nstart over with --from apply; what has been compiled and is still the same comes from the compile cache",
		dir, strings.Join(why, "\n"))
}

// differing are the keys, sorted, whose values differ or that one map lacks.
func differing(a, b map[string]string) []string {
	var out []string
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			out = append(out, k)
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}
