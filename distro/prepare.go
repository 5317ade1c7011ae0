package distro

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/klpc/klpc/internal/run"
)

// How make prepares a tree. Kbuild writes the configuration anew whenever it
// finds other tools than it knows from before, so every call of make gets the
// same variables and the same environment, also later ones for the same tree.
//
// pahole is a stand-in: Kconfig asks for its version and turns BTF off, which
// changes struct module, if there is none or an old one. Nothing that is built
// here ever runs it.

// makeArgs returns the variables for every call of make.
func makeArgs(release, cc, pahole string) []string {
	return []string{
		"ARCH=x86", // as Debian builds it; also keeps ARCH in the environment out
		"KERNELRELEASE=" + release,
		"CC=" + cc,
		"HOSTRUSTC=false",
		"RUSTC=false",
		"PAHOLE=" + pahole,
	}
}

// clearedVariables would change what make does or what it hands to compilers.
var clearedVariables = []string{
	"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "GNUMAKEFLAGS", "MAKEFILES",
	"CROSS_COMPILE", "LLVM", "LLVM_IAS", "LOCALVERSION",
	"KCFLAGS", "KAFLAGS", "KCPPFLAGS", "HOSTCFLAGS", "HOSTLDFLAGS", "HOSTLDLIBS", "USERCFLAGS", "USERLDFLAGS",
	"CFLAGS", "CPPFLAGS", "LDFLAGS", "EXTRA_CFLAGS",
	"CPATH", "C_INCLUDE_PATH", "LIBRARY_PATH",
}

// makeEnv returns what every call of make gets on top of environ: nothing of
// the user's settings reaches Kbuild, and no time, user or machine either.
func makeEnv(environ []string) []string {
	var env []string
	for _, e := range environ {
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "KBUILD_") {
			env = append(env, name+"=")
		}
	}
	slices.Sort(env)
	for _, name := range clearedVariables {
		env = append(env, name+"=")
	}
	return append(env,
		"LC_ALL=C",
		"KCONFIG_CONFIG=.config",
		"KBUILD_BUILD_TIMESTAMP=Thu Jan  1 00:00:00 UTC 1970",
		"KBUILD_BUILD_USER=klpc",
		"KBUILD_BUILD_HOST=klpc",
	)
}

// paholeScript returns the stand-in for a version as CONFIG_PAHOLE_VERSION
// gives it: 124 is v1.24.
func paholeScript(version int) string {
	return fmt.Sprintf("#!/bin/sh\n"+
		"# Answers Kconfig's question for the version as the stock kernel's pahole did.\n"+
		"[ \"$*\" = --version ] && exec echo v%d.%02d\n"+
		"echo 'klpc: this tree cannot generate BTF' >&2\n"+
		"exit 1\n", version/100, version%100)
}

func readConfig(path string) (config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseConfig(string(b)), nil
}

// installConfig makes a tree's O= directory with the kernel's settings, and
// returns the program to use as pahole.
func installConfig(files settings, dir string) (pahole string, err error) {
	build := filepath.Join(dir, "build")
	if err := os.MkdirAll(build, 0o755); err != nil {
		return "", err
	}
	for _, c := range []struct{ from, to string }{
		{files.config, filepath.Join(dir, givenConfig)}, // to compare with what make turns the other into
		{files.config, filepath.Join(build, ".config")},
		{files.symvers, filepath.Join(build, "Module.symvers")},
	} {
		b, err := os.ReadFile(c.from)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(c.to, b, 0o644); err != nil {
			return "", err
		}
	}
	cfg, err := readConfig(filepath.Join(dir, givenConfig))
	if err != nil {
		return "", err
	}
	version, err := strconv.Atoi(cfg["CONFIG_PAHOLE_VERSION"])
	if err != nil || version == 0 {
		return "false", nil // the kernel was configured without pahole
	}
	pahole = filepath.Join(build, "pahole")
	return pahole, os.WriteFile(pahole, []byte(paholeScript(version)), 0o755)
}

// prepare runs make in an unpacked tree and returns the warnings.
func (p *preparer) prepare(ctx context.Context, s stamp) ([]string, error) {
	t := s.tree()
	p.o.Log("configuring the tree")
	if err := p.make(ctx, t, "olddefconfig"); err != nil {
		return nil, err
	}
	warnings, err := checkConfig(t, filepath.Join(filepath.Dir(t.Build), givenConfig), s.Compiler)
	if err != nil {
		return nil, err
	}
	p.o.Log("preparing the tree")
	if err := p.make(ctx, t, "-j"+strconv.Itoa(p.o.Jobs), "prepare", "modules_prepare"); err != nil {
		return nil, err
	}
	p.o.Log("asking make for its compile commands")
	more, err := p.dryRun(ctx, t)
	return append(warnings, more...), err
}

// checkConfig compares what Kconfig made of the kernel's configuration. Another
// compiler than the kernel's own has other features: then a difference is a
// warning, as the caller allowed.
func checkConfig(t *Tree, given string, comp compiler) (warnings []string, err error) {
	want, err := readConfig(given)
	if err != nil {
		return nil, err
	}
	have, err := readConfig(t.Config)
	if err != nil {
		return nil, err
	}
	functional, tools := compareConfig(want, have)
	if len(functional) > 0 && comp.exact() {
		return nil, configError(functional)
	}
	for _, diff := range append(functional, tools...) {
		warnings = append(warnings, diff.String())
	}
	return warnings, nil
}

func (p *preparer) make(ctx context.Context, t *Tree, args ...string) error {
	cmd := run.Cmd{Args: makeCommand(t, args...), Env: t.Env, Log: p.o.Output}
	if _, err := run.Do(ctx, cmd); err != nil {
		return fmt.Errorf("make %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

func makeCommand(t *Tree, args ...string) []string {
	return slices.Concat([]string{"make", "-C", t.Source, "O=" + t.Build}, t.MakeArgs, args)
}

// dryRun keeps what "make -n" says it would do to build the kernel. It runs
// one job: with several, make 4.3 mixes the lines of parallel jobs, also with
// --output-sync.
func (p *preparer) dryRun(ctx context.Context, t *Tree) (warnings []string, err error) {
	f, err := os.Create(t.Commands)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	z, err := zstd.NewWriter(f)
	if err != nil {
		return nil, err
	}
	count := &compileCounter{w: z}
	res, runErr := run.Do(ctx, run.Cmd{Args: makeCommand(t, "-n", "-k", "vmlinux", "modules"), Env: t.Env, Stdout: count})
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("write compile commands: %w", err)
	}
	if _, err := p.o.Output.Write(res.Stderr); err != nil {
		return nil, err
	}
	var failed *run.Error
	if runErr != nil && !errors.As(runErr, &failed) {
		return nil, runErr
	}
	if count.n == 0 {
		return nil, errors.Join(errors.New("make -n vmlinux modules: no compile commands"), runErr)
	}
	return dryRunWarnings(string(res.Stderr)), nil
}

// compileCounter counts compile commands on their way to w.
type compileCounter struct {
	w    io.Writer
	n    int
	tail []byte // of the last write: a command may be cut in two
}

// compileMark is in each command that makes an object from a source file.
var compileMark = []byte(" -c -o ")

func (c *compileCounter) Write(b []byte) (int, error) {
	all := append(c.tail, b...)
	c.n += bytes.Count(all, compileMark) // the tail alone is too short for a mark
	c.tail = slices.Clone(all[max(0, len(all)-len(compileMark)+1):])
	return c.w.Write(b)
}

var noRule = regexp.MustCompile(`No rule to make target '([^']*)', needed by '([^']*)'`)

// compilesNothing matches targets whose prerequisites a dry run is known to
// miss: keys that only the distribution has, for certs, which holds nothing
// else; and the archives that the kernel is linked from, for the last links.
var compilesNothing = regexp.MustCompile(`^(certs/|vmlinux\b)`)

// dryRunWarnings returns what make cannot make.
func dryRunWarnings(stderr string) []string {
	var warnings []string
	for _, m := range noRule.FindAllStringSubmatch(stderr, -1) {
		if !compilesNothing.MatchString(m[2]) {
			warnings = append(warnings, fmt.Sprintf("make cannot make %s, needed by %s: compile commands may be incomplete", m[1], m[2]))
		}
	}
	return warnings
}

// OpenCommands returns the output of "make -n vmlinux modules", which holds
// the compile command of every object, some 50 MB of text.
func (t *Tree) OpenCommands() (io.ReadCloser, error) {
	f, err := os.Open(t.Commands)
	if err != nil {
		return nil, fmt.Errorf("compile commands: %w", err)
	}
	z, err := zstd.NewReader(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("compile commands: %w", err)
	}
	return &commands{Decoder: z, f: f}, nil
}

type commands struct {
	*zstd.Decoder
	f *os.File
}

func (c *commands) Close() error {
	c.Decoder.Close()
	return c.f.Close()
}
