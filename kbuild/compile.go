package kbuild

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/klpc/klpc/internal/run"
)

// CompileJob is one compile of one unit.
type CompileJob struct {
	Unit   Unit
	Shadow *Shadow // nil: the tree as it is
	// Out is the object to write; the depfile Out.d goes beside it. Both are
	// outside the tree. Preprocess uses only the latter.
	Out string
	// Extra arguments go behind those of Kbuild.
	Extra []string
	// Launcher, such as ccache, goes before the compiler, and finds Env added
	// to its environment.
	Launcher []string
	Env      []string
}

// CompileResult is what a compile left.
type CompileResult struct {
	Object string // the job's Out; empty after Preprocess
	Text   []byte // the preprocessed text; nil after Compile
	// Deps are the files that were read, the unit's source among them, in
	// the compiler's order: relative to the source tree, or absolute if they
	// lie elsewhere. Paths in the view are given as their originals.
	Deps   []string
	Wall   time.Duration
	CPU    time.Duration
	Stderr []byte // warnings
}

// CompileError is a source that does not compile.
type CompileError struct {
	Unit Unit
	// First is the compiler's first error: "fs/x.c:3:10: error: …", with
	// tree-relative paths, lines and columns from 1.
	First  string
	Output string // everything the compiler printed, paths as in First
}

func (e *CompileError) Error() string { return fmt.Sprintf("compile %s: %s", e.Unit.Source, e.First) }

// CrashError is a compiler that broke down, or that the machine left without
// room, as opposed to one that refused its input.
type CrashError struct {
	Unit   Unit
	First  string
	Output string
}

func (e *CrashError) Error() string {
	return fmt.Sprintf("compile %s: the compiler broke down: %s", e.Unit.Source, e.First)
}

// NoCompilerError is a compiler that is not installed.
type NoCompilerError struct{ Compiler string }

func (e *NoCompilerError) Error() string {
	return fmt.Sprintf("the compiler %s is not installed, and the kernel's compile commands need it", e.Compiler)
}

// MissingHeaderError is a header that the build would have generated.
type MissingHeaderError struct {
	Unit   Unit
	Header string
	Make   []string // the command that makes it
	First  string   // the compiler's words
	Output string
}

func (e *MissingHeaderError) Error() string {
	return fmt.Sprintf("compile %s: %s: if the build generates %s, run: %s",
		e.Unit.Source, e.First, e.Header, strings.Join(e.Make, " "))
}

// Compile compiles a unit into job.Out by Kbuild's own command. Only the
// output names differ and, with a shadow, the paths of the source tree.
func (t *Tree) Compile(ctx context.Context, job CompileJob) (CompileResult, error) {
	res, err := t.withHeaders(ctx, job, toObject)
	if err != nil {
		return CompileResult{}, errors.Join(err, removeIfThere(job.Out))
	}
	res.Object, res.Text = job.Out, nil
	return res, nil
}

// Preprocess returns the unit's text after the preprocessor, with line
// markers (unless Extra has -P) that name original files.
func (t *Tree) Preprocess(ctx context.Context, job CompileJob) (CompileResult, error) {
	res, err := t.withHeaders(ctx, job, toText)
	if err != nil {
		return CompileResult{}, err
	}
	if job.Shadow != nil {
		res.Text = []byte(strings.ReplaceAll(string(res.Text), job.Shadow.dir+"/", t.Source+"/"))
	}
	return res, nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// stage is how far the compiler goes.
type stage uint8

const (
	toObject stage = iota
	toText
)

// withHeaders runs the compiler; if a header is missing that the unit's own
// Makefile generates, and the tree is ours, it lets make build that unit once.
func (t *Tree) withHeaders(ctx context.Context, job CompileJob, st stage) (CompileResult, error) {
	res, err := t.inShadow(ctx, job, st)
	var missing *MissingHeaderError
	switch {
	case !errors.As(err, &missing):
		return res, err
	case t.Built() || job.Shadow.touches(missing.Header):
		return CompileResult{}, &CompileError{Unit: job.Unit, First: missing.First, Output: missing.Output}
	case !t.Owned:
		return CompileResult{}, err
	}
	if err := t.MakeUnit(ctx, job.Unit); err != nil {
		// The patch may include a header that exists nowhere; then the
		// compiler's words are the better ones.
		return CompileResult{}, errors.Join(missing, err)
	}
	return t.inShadow(ctx, job, st)
}

// inShadow runs the compiler and deepens the shadow until no file is read
// past it.
func (t *Tree) inShadow(ctx context.Context, job CompileJob, st stage) (CompileResult, error) {
	s := job.Shadow
	if s == nil {
		return t.once(ctx, job, st)
	}
	// A quoted include is looked up beside the source first.
	if !job.Unit.Generated {
		if err := s.deepen([]string{filepath.Join(s.dir, job.Unit.Source)}); err != nil {
			return CompileResult{}, err
		}
	}
	for {
		res, seen, err := t.onceInView(ctx, job, st)
		var missing *MissingHeaderError
		past := seen.leaks
		switch {
		case errors.As(err, &missing):
			past = []string{includer(s, missing.First)}
		case err != nil:
			return CompileResult{}, err
		case len(past) == 0:
			res.Deps = t.normalise(res.Deps, s)
			return res, nil
		}
		if derr := s.deepen(past); derr != nil {
			return CompileResult{}, derr
		}
		if s.depth() != seen.depth {
			continue // by this call or by another compile meanwhile
		}
		if err == nil {
			err = fmt.Errorf("compile %s: it reads the unpatched %s past the shadow tree", job.Unit.Source, past[0])
		}
		return CompileResult{}, err
	}
}

// includer is the file in the view that holds the failed include.
func includer(s *Shadow, first string) string {
	file, _, _ := strings.Cut(first, ":")
	return s.dir + "/" + file
}

// seen is the state of a view during a compile.
type seen struct {
	depth int      // Shadow.depth
	leaks []string // Shadow.leaks of what was read
}

// onceInView runs the compiler and checks what it read before the view can
// change again.
func (t *Tree) onceInView(ctx context.Context, job CompileJob, st stage) (CompileResult, seen, error) {
	s := job.Shadow
	s.mu.RLock()
	defer s.mu.RUnlock()
	res, err := t.once(ctx, job, st)
	return res, seen{depth: s.deepened, leaks: s.leaks(res.Deps)}, err
}

// once runs the compiler once. With a shadow, Deps stay as the compiler named
// them.
func (t *Tree) once(ctx context.Context, job CompileJob, st stage) (CompileResult, error) {
	if job.Unit.Kind() != C {
		return CompileResult{}, fmt.Errorf("compile %s: not a C source", job.Unit.Source)
	}
	out, err := filepath.Abs(job.Out)
	if err != nil {
		return CompileResult{}, err
	}
	depfile := out + ".d"
	cwd := t.Build
	if job.Shadow != nil {
		cwd = job.Shadow.cwd()
	}
	args := append([]string{}, job.Launcher...)
	args = append(args, compileArgs(job, st, out, depfile)...)
	r, err := run.Do(ctx, run.Cmd{Dir: cwd, Args: args, Env: append(t.env(filepath.Dir(job.Out)), job.Env...)})
	if err != nil {
		return CompileResult{}, t.explain(job, args[0], r, err)
	}
	deps, err := os.ReadFile(depfile)
	if err != nil {
		return CompileResult{}, fmt.Errorf("compile %s: %w", job.Unit.Source, err)
	}
	res := CompileResult{Deps: parseDepfile(deps), Wall: r.Wall, CPU: r.User + r.Sys, Stderr: r.Stderr}
	if st == toText {
		res.Text = r.Stdout
	}
	if job.Shadow == nil {
		res.Deps = t.normalise(res.Deps, nil)
	}
	return res, nil
}

// compileArgs turns Kbuild's command into the job's.
func compileArgs(job CompileJob, st stage, out, depfile string) []string {
	in := job.Unit.Args
	args := make([]string, 0, len(in)+len(job.Extra)+2)
	mapped := func(a string) string {
		if job.Shadow == nil {
			return a
		}
		return job.Shadow.mapPaths(a)
	}
	for i := 0; i < len(in); i++ {
		a := in[i]
		switch {
		case a == "-o" && i+1 < len(in):
			i++
			if st == toObject {
				args = append(args, "-o", out)
			}
		case a == "-c" && st == toText:
			args = append(args, "-E")
		case isDepArg(a):
			args = append(args, a[:strings.LastIndexByte(a, ',')+1]+depfile)
		case takesPath(a) && len(a) <= len("-imacros") && optionWithValue([]byte(a)) && i+1 < len(in):
			i++
			args = append(args, a, mapped(in[i]))
		case takesPath(a) || sourceName([]byte(a)) && a[0] != '-':
			args = append(args, mapped(a))
		default:
			args = append(args, a)
		}
	}
	if job.Shadow != nil {
		args = slices.Insert(args, firstOption(args), job.Shadow.prefixMaps()...)
	}
	return append(args, job.Extra...)
}

// firstOption is where the compiler (and its launcher) end and options begin.
func firstOption(args []string) int {
	n := slices.IndexFunc(args, func(a string) bool { return strings.HasPrefix(a, "-") })
	return max(n, 0)
}

// isDepArg recognises -Wp,-MMD,fs/.x.o.d and -Wp,-MD,fs/.x.o.d.
func isDepArg(a string) bool {
	return strings.HasPrefix(a, "-Wp,-MMD,") || strings.HasPrefix(a, "-Wp,-MD,")
}

// takesPath tells whether an option's value is a path, joined or as the next
// argument. Defines are never mapped: their text ends up in the object.
func takesPath(a string) bool {
	for _, p := range []string{"-I", "-include", "-imacros", "-isystem", "-iquote", "-idirafter", "-fmacro-prefix-map=", "-ffile-prefix-map=", "-fdebug-prefix-map="} {
		if strings.HasPrefix(a, p) {
			return true
		}
	}
	return false
}

// env is the tree's own, and keeps messages in English and what a make around
// us set away from Kbuild.
func (t *Tree) env(tmp string) []string {
	return append(slices.Clone(t.Env), "TMPDIR="+tmp, "LC_ALL=C", "MAKEFLAGS=", "MFLAGS=", "MAKELEVEL=", "KBUILD_OUTPUT=")
}

// normalise gives the files that were read their original, tree-relative names.
func (t *Tree) normalise(read []string, s *Shadow) []string {
	out := make([]string, len(read))
	for i, p := range read {
		if s != nil {
			if !filepath.IsAbs(p) {
				p = s.cwd() + "/" + p
			}
			p = s.original(filepath.Clean(p))
		}
		name, at := t.roots().locate(p)
		if at == inBuild {
			name = filepath.Join(t.Build, name)
		}
		out[i] = name
	}
	return out
}

var (
	firstError    = regexp.MustCompile(`(?m)^.*\b(?:fatal )?error: .*$`)
	missingHeader = regexp.MustCompile(`fatal error: '?([^':]+)'?: (?:No such file or directory|file not found)|fatal error: '([^']+)' file not found`)
	crash         = regexp.MustCompile(`(?m)^.*(?:internal compiler error|signal terminated program|clang frontend command failed|PLEASE submit a bug report|out of memory|No space left on device|Disk quota exceeded|Cannot allocate memory|Input/output error|Read-only file system).*$`)
)

// explain turns a failed compile into an error that says whose fault it is.
func (t *Tree) explain(job CompileJob, program string, r run.Result, err error) error {
	var path *fs.PathError
	if errors.Is(err, exec.ErrNotFound) || errors.As(err, &path) && path.Op == "fork/exec" && errors.Is(err, fs.ErrNotExist) {
		return &NoCompilerError{Compiler: program}
	}
	var failed *run.Error
	if !errors.As(err, &failed) {
		return fmt.Errorf("compile %s: %w", job.Unit.Source, err)
	}
	text := t.relativeNames(string(r.Stderr), job.Shadow)
	if m := crash.FindString(text); m != "" {
		return &CrashError{Unit: job.Unit, First: m, Output: text}
	}
	first := firstError.FindString(text)
	if first == "" {
		first = run.Tail(text, 1)
	}
	if first == "" {
		return &CrashError{Unit: job.Unit, First: failed.Err.Error(), Output: text}
	}
	if m := missingHeader.FindStringSubmatch(text); m != nil {
		return &MissingHeaderError{Unit: job.Unit, Header: m[1] + m[2], Make: t.makeUnitArgs(job.Unit), First: first, Output: text}
	}
	return &CompileError{Unit: job.Unit, First: first, Output: text}
}

// relativeNames removes the roots of the tree and of its view from messages.
func (t *Tree) relativeNames(text string, s *Shadow) string {
	pairs := []string{}
	if s != nil {
		pairs = append(pairs, s.dir+"/", "")
	}
	if t.Build != t.Source {
		pairs = append(pairs, t.Build+"/", "")
	}
	text = strings.NewReplacer(append(pairs, t.Source+"/", "")...).Replace(text)
	if _, inside := below(t.Source, t.Build); inside {
		text = dotdotName.ReplaceAllString(text, "$1")
	}
	return text
}

var dotdotName = regexp.MustCompile(`(?m)(^|In file included from |from )(?:\.\./)+`)

func (t *Tree) makeArgs() []string {
	return append([]string{"make", "-C", t.Build}, t.MakeArgs...)
}

func (t *Tree) makeUnitArgs(u Unit) []string { return append(t.makeArgs(), u.Object) }

// ErrNotOwned is a tree that may not be written to.
var ErrNotOwned = errors.New("the kernel tree belongs to the user and is not written to")

// MakeUnit lets make build the object of a unit in the tree itself, once, for
// the headers that its Makefile generates on the way. The tree must be owned.
func (t *Tree) MakeUnit(ctx context.Context, u Unit) error {
	if !t.Owned {
		return fmt.Errorf("make %s: %w; run: %s", u.Object, ErrNotOwned, strings.Join(t.makeUnitArgs(u), " "))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err, ok := t.made[u.Object]; ok {
		return err
	}
	_, err := run.Do(ctx, run.Cmd{Dir: t.Build, Args: t.makeUnitArgs(u), Env: append(t.env(os.TempDir()), buildIdentity...), Stdout: io.Discard})
	if err != nil {
		err = fmt.Errorf("make %s: %w", u.Object, err)
	}
	if ctx.Err() == nil {
		t.made[u.Object] = err
	}
	return err
}

// parseDepfile reads the file names behind the ':' of a dependency file
// (GCC's -MMD; make's syntax: backslash before newline, blank and '#', $$).
func parseDepfile(data []byte) []string {
	text := string(data)
	if _, rest, ok := strings.Cut(text, ": "); ok {
		text = rest
	}
	// -MP would add empty rules; Kbuild does not use it.
	var out []string
	var name []byte
	flush := func() {
		if len(name) > 0 {
			out = append(out, string(name))
			name = name[:0]
		}
	}
	for i := 0; i < len(text); i++ {
		switch ch := text[i]; {
		case ch == '\\' && i+1 < len(text) && text[i+1] == '\n':
			i++
			flush()
		case ch == '\\' && i+1 < len(text) && (text[i+1] == ' ' || text[i+1] == '#'):
			i++
			name = append(name, text[i])
		case ch == '$' && i+1 < len(text) && text[i+1] == '$':
			i++
			name = append(name, '$')
		case ch == ' ' || ch == '\n' || ch == '\t':
			flush()
		default:
			name = append(name, ch)
		}
	}
	flush()
	return out
}
