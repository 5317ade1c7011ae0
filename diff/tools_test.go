package diff_test

// Checks against the real tools: git apply, GNU patch and the preprocessor.

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klpc/klpc/diff"
)

// needTool skips the test if a program is missing.
func needTool(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
}

// toolEnv is an environment in which git knows of no repository or
// configuration but what it finds itself, even if the tests run in a git hook.
func toolEnv(more ...string) []string {
	env := append(more, "LC_ALL=C", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GIT_") && !strings.HasPrefix(v, "LC_ALL=") {
			env = append(env, v)
		}
	}
	return env
}

func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// randomLines makes a text in which many lines occur more than once.
func randomLines(r *rand.Rand, n int) []string {
	lines := make([]string, n)
	for i := range lines {
		switch r.IntN(4) {
		case 0:
			lines[i] = ""
		case 1:
			lines[i] = fmt.Sprintf("\treturn %d;", r.IntN(3))
		default:
			lines[i] = fmt.Sprintf("\tx%d = y%d;", r.IntN(40), r.IntN(40))
		}
	}
	return lines
}

// randomEdit changes, removes and inserts a few lines.
func randomEdit(r *rand.Rand, lines []string, edits int) []string {
	out := append([]string(nil), lines...)
	for range edits {
		at := r.IntN(len(out) + 1)
		cut := min(r.IntN(3), len(out)-at)
		var add []string
		for range r.IntN(3) {
			add = append(add, []string{"\tnew();", "-- sql", "++ c", "", "@@ x", "\treturn 1;"}[r.IntN(6)])
		}
		out = append(out[:at:at], append(add, out[at+cut:]...)...)
	}
	return out
}

// text joins lines; one time in five the last newline is missing.
func text(r *rand.Rand, lines []string) []byte {
	s := strings.Join(lines, "\n")
	if len(lines) > 0 && r.IntN(5) > 0 {
		s += "\n"
	}
	return []byte(s)
}

// TestApplyAgainstTools applies generated patches to the file they were made
// from and to one that has been changed since. On the first, all must agree. On
// the second, whatever is applied here must be what GNU patch makes of it.
func TestApplyAgainstTools(t *testing.T) {
	needTool(t, "git", "patch", "diff")
	moved, refused := 0, 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		lines := randomLines(r, 5+r.IntN(60))
		old, want := text(r, lines), text(r, randomEdit(r, lines, 1+r.IntN(4)))
		if bytes.Equal(old, want) {
			continue
		}
		dir := t.TempDir()
		patch := makeDiff(t, dir, old, want, []string{"-u", "-U1", "-U5", "-up"}[r.IntN(4)])
		p, err := diff.Parse("p", patch)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, patch)
		}
		if d := cmp.Diff(string(want), applied(t, p, old)); d != "" {
			t.Fatalf("seed %d (-want +got):\n%s\n%s", seed, d, patch)
		}
		for tool, got := range map[string]string{"git": gitApply(t, dir, patch, old), "patch": gnuPatch(t, dir, patch, old)} {
			if d := cmp.Diff(string(want), got); d != "" {
				t.Fatalf("seed %d: %s (-want +got):\n%s", seed, tool, d)
			}
		}
		other := text(r, randomEdit(r, lines, 1+r.IntN(3)))
		a, err := p.Files[0].Apply(other, diff.Options{})
		if err != nil {
			refused++
			continue
		}
		moved++
		if d := cmp.Diff(gnuPatch(t, dir, patch, other), string(a.Content)); d != "" {
			t.Errorf("seed %d: changed file (-patch +got):\n%s\nfile:\n%s\npatch:\n%s", seed, d, other, patch)
		}
	}
	if moved < 5 || refused < 5 {
		t.Errorf("%d applied to a changed file and %d refused: the generator tests too little", moved, refused)
	}
}

// makeDiff returns the diff of two contents, as GNU diff writes it.
func makeDiff(t *testing.T, dir string, old, new []byte, style string) []byte {
	t.Helper()
	writeFile(t, filepath.Join(dir, "a/f.c"), old)
	writeFile(t, filepath.Join(dir, "b/f.c"), new)
	cmd := exec.Command("diff", style, "a/f.c", "b/f.c")
	cmd.Dir = dir
	out, _ := cmd.Output() // exits with 1 if there are differences
	return out
}

func applied(t *testing.T, p *diff.Patch, old []byte) string {
	t.Helper()
	a, err := p.Files[0].Apply(old, diff.Options{})
	if err != nil {
		return err.Error()
	}
	return string(a.Content)
}

// gitApply and gnuPatch return the file that the tool makes, or what it says.
func gitApply(t *testing.T, dir string, patch, old []byte) string {
	return runTool(t, dir, patch, old, "git", "apply", "-p1", "-")
}

func gnuPatch(t *testing.T, dir string, patch, old []byte) string {
	return runTool(t, dir, patch, old, "patch", "-p1", "-s", "-N", "-r-", "--fuzz=0", "--no-backup-if-mismatch", "-i", "-")
}

func runTool(t *testing.T, dir string, patch, old []byte, args ...string) string {
	t.Helper()
	work := filepath.Join(dir, args[0])
	writeFile(t, filepath.Join(work, "f.c"), old)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = work
	cmd.Stdin = bytes.NewReader(patch)
	cmd.Env = toolEnv("GIT_CEILING_DIRECTORIES=" + dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Sprintf("%s: %v\n%s", args[0], err, out)
	}
	got, err := os.ReadFile(filepath.Join(work, "f.c"))
	if err != nil {
		return err.Error()
	}
	return string(got)
}

// TestGitDiffs parses and applies what git itself writes for additions,
// deletions, renames, copies, mode changes and odd names.
func TestGitDiffs(t *testing.T) {
	needTool(t, "git")
	dir := t.TempDir()
	git := func(args ...string) []byte {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=T", "-c", "user.email=t@example.org"}, args...)...)
		cmd.Dir = dir
		cmd.Env = toolEnv()
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("git %s: %v", args, err)
		}
		return out
	}
	body := strings.Join(randomLines(rand.New(rand.NewPCG(1, 1)), 40), "\n") + "\n"
	put := func(name, content string) { writeFile(t, filepath.Join(dir, name), []byte(content)) }
	git("init", "-q")
	put("fs/gone.c", "int gone;\n")
	for _, name := range []string{"fs/old.c", "fs/source.c", "fs/mode.c", "fs/both.c"} {
		put(name, name+"\n"+body)
	}
	put("fs/empty-gone.c", "")
	git("add", ".")
	git("commit", "-qm", "first")
	git("mv", "fs/old.c", "fs/new.c")
	put("fs/new.c", "fs/old.c\nint x;\n"+body)
	put("fs/copy.c", "fs/source.c\n"+body+"int y;\n")
	put("fs/source.c", "fs/source.c\n"+body+"int z;")
	put("fs/é b.c", "int e;\n")
	put("fs/a b.c", "int ab;\n")
	put("fs/empty.c", "")
	put("fs/both.c", "int q;\n"+body)
	for _, name := range []string{"fs/mode.c", "fs/both.c"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	git("rm", "-q", "fs/gone.c", "fs/empty-gone.c")
	git("add", "-A")
	git("commit", "-qm", "fs: second\n\nText.")
	git("tag", "second")
	mail := git("format-patch", "-M", "-C", "--find-copies-harder", "--stdout", "-1")

	p, err := diff.Parse("mail", mail)
	if err != nil {
		t.Fatalf("%v\n%s", err, mail)
	}
	var got []string
	for _, f := range p.Files {
		got = append(got, fmt.Sprintf("%s %q %q %d %s %s", f.Op, f.Old, f.New, len(f.Hunks), f.OldMode, f.NewMode))
	}
	want := []string{
		`add "" "fs/a b.c" 1  100644`,
		`modify "fs/both.c" "fs/both.c" 1 100644 100755`,
		`copy "fs/source.c" "fs/copy.c" 1 100644 100644`,
		`rename "fs/empty-gone.c" "fs/empty.c" 0  `,
		`delete "fs/gone.c" "" 1 100644 `,
		`change mode of "fs/mode.c" "fs/mode.c" 0 100644 100755`,
		`rename "fs/old.c" "fs/new.c" 1 100644 100644`,
		`modify "fs/source.c" "fs/source.c" 1 100644 100644`,
		`add "" "fs/é b.c" 1  100644`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("files (-want +got):\n%s\n%s", d, mail)
	}
	if d := cmp.Diff("fs: second", p.Title); d != "" {
		t.Errorf("title (-want +got):\n%s", d)
	}
	git("checkout", "-q", "HEAD~1")
	results, err := p.Apply(os.DirFS(dir), diff.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.File.New == "" {
			continue
		}
		want := git("show", "second:"+r.File.New)
		if d := cmp.Diff(string(want), string(r.Applied.Content)); d != "" {
			t.Errorf("%s (-want +got):\n%s", r.File.New, d)
		}
	}
}

// TestCorpus applies real fixes. The patches need no source to be parsed; to
// apply them, KLPC_TEST_SOURCE must name the tree they are for.
func TestCorpus(t *testing.T) {
	names, err := filepath.Glob("../../shared/corpus/*/*.patch")
	if err != nil {
		t.Fatal(err)
	}
	if len(names) == 0 {
		t.Skip("../shared/corpus, next to the repository, is not there")
	}
	source := os.Getenv("KLPC_TEST_SOURCE")
	hunks, offset := 0, 0
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		p, err := diff.Parse(filepath.Base(name), content)
		if err != nil {
			t.Error(err)
			continue
		}
		if source == "" {
			continue
		}
		results, err := p.Apply(os.DirFS(source), diff.Options{})
		if err != nil {
			t.Error(err)
		}
		for _, r := range results {
			for _, o := range r.Applied.Offsets {
				hunks++
				if o != 0 {
					offset++
				}
			}
			checkPinned(t, r)
		}
		checkWithPatch(t, source, p, content, results)
	}
	t.Logf("%d patches, %d hunks applied, %d of them moved", len(names), hunks, offset)
	if source == "" {
		t.Skip("patches parsed, but not applied: KLPC_TEST_SOURCE is not set to the source of Linux 6.1.170")
	}
}

// checkPinned checks that pinning adds directives and nothing else.
func checkPinned(t *testing.T, r diff.Result) {
	t.Helper()
	var kept [][]byte
	for line := range bytes.Lines(r.Applied.Pin()) {
		if !bytes.HasPrefix(line, []byte("#line ")) {
			kept = append(kept, line)
		}
	}
	if !bytes.Equal(bytes.Join(kept, nil), r.Applied.Content) {
		t.Errorf("%s: pinning changed the text", r.File.New)
	}
}

// checkWithPatch compares results with what GNU patch makes of the same files.
func checkWithPatch(t *testing.T, source string, p *diff.Patch, content []byte, results []diff.Result) {
	t.Helper()
	if _, err := exec.LookPath("patch"); err != nil {
		return
	}
	dir := t.TempDir()
	for _, f := range p.Files {
		old, err := os.ReadFile(filepath.Join(source, f.Old))
		if err == nil && f.Old != "" {
			writeFile(t, filepath.Join(dir, f.Old), old)
		}
	}
	cmd := exec.Command("patch", "-p1", "-s", "-N", "--fuzz=0", "--no-backup-if-mismatch")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(content)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: patch: %v\n%s", p.Name, err, out)
		return
	}
	for _, r := range results {
		got, err := os.ReadFile(filepath.Join(dir, r.File.Path()))
		if err != nil || !bytes.Equal(got, r.Applied.Content) {
			t.Errorf("%s: %s: not what patch makes of it (%v)", p.Name, r.File.Path(), err)
		}
	}
}
