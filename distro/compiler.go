package distro

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"

	"github.com/klpc/klpc/internal/run"
)

// CompilerError is a compiler that is not the one that built the kernel.
type CompilerError struct {
	Program string // what the kernel's configuration names
	Package string // Debian package that contains Program
	Want    string // the kernel's CONFIG_CC_VERSION_TEXT
	Have    string // first line of "Program --version"; "" if Program is not installed
}

func (e *CompilerError) Error() string {
	if e.Have == "" {
		return fmt.Sprintf("the kernel was built with %q, but %s is not installed: install the package %s", e.Want, e.Program, e.Package)
	}
	return fmt.Sprintf("the kernel was built with %q, but %s is %q: install the package %s in the version that the kernel names",
		e.Want, e.Program, e.Have, e.Package)
}

// gccName matches gcc, gcc-12 and x86_64-linux-gnu-gcc-12, and no path.
var gccName = regexp.MustCompile(`^([A-Za-z0-9_.]+-)*(gcc(?:-[0-9][0-9.]*)?)$`)

// CheckCompiler finds the program that CONFIG_CC_VERSION_TEXT names (the text
// without the quotes) and compares what it says of itself with that text; how
// the program is called makes no difference. The program is returned together
// with a *CompilerError too.
func CheckCompiler(ctx context.Context, ccVersionText string) (program string, err error) {
	program, wantRest, _ := strings.Cut(ccVersionText, " ")
	m := gccName.FindStringSubmatch(program)
	if m == nil {
		return "", fmt.Errorf("CONFIG_CC_VERSION_TEXT=%q names no gcc: only kernels built with gcc are supported", ccVersionText)
	}
	have, err := compilerText(ctx, program)
	if err != nil {
		return "", err
	}
	if _, haveRest, _ := strings.Cut(have, " "); have == "" || haveRest != wantRest {
		return program, &CompilerError{Program: program, Package: m[2], Want: ccVersionText, Have: have}
	}
	return program, nil
}

// compilerText returns the first line of "program --version", "" if there is
// no such program.
func compilerText(ctx context.Context, program string) (string, error) {
	if _, err := exec.LookPath(program); err != nil {
		return "", nil
	}
	res, err := run.Do(ctx, run.Cmd{Args: []string{program, "--version"}, Env: []string{"LC_ALL=C"}})
	if err != nil {
		return "", fmt.Errorf("ask the compiler for its version: %w", err)
	}
	line, _, _ := strings.Cut(string(res.Stdout), "\n")
	return strings.TrimRight(line, " \r"), nil
}

// compiler is the compiler that prepares a tree.
type compiler struct {
	Program string // what CC= gets
	Want    string // the kernel's CONFIG_CC_VERSION_TEXT
	Have    string // the same as Want, or what Program says instead
}

func (c compiler) exact() bool { return c.Want == c.Have }

// suffix tells trees apart that were prepared by another compiler than the
// kernel's: they are never used in place of an exact one.
func (c compiler) suffix() string {
	if c.exact() {
		return ""
	}
	sum := sha256.Sum256([]byte(c.Program + "\n" + c.Have))
	return fmt.Sprintf("_cc-%x", sum[:4])
}

// warning says what an inexact compiler means, "" for an exact one.
func (c compiler) warning() string {
	if c.exact() {
		return ""
	}
	return fmt.Sprintf("compiler mismatch allowed: the kernel was built with %q, here %s is %q", c.Want, c.Program, c.Have)
}

// chooseCompiler is CheckCompiler, which accepts another version of the
// compiler, or plain gcc in its place, if that is allowed.
func chooseCompiler(ctx context.Context, text string, allowMismatch bool) (compiler, error) {
	program, err := CheckCompiler(ctx, text)
	var wrong *CompilerError
	switch {
	case err == nil:
		return compiler{Program: program, Want: text, Have: text}, nil
	case !errors.As(err, &wrong) || !allowMismatch:
		return compiler{}, err
	case wrong.Have != "":
		return compiler{Program: program, Want: text, Have: wrong.Have}, nil
	}
	have, gerr := compilerText(ctx, "gcc")
	if gerr != nil || have == "" {
		return compiler{}, errors.Join(err, gerr)
	}
	return compiler{Program: "gcc", Want: text, Have: have}, nil
}
