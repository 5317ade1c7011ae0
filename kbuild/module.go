package kbuild

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/klpc/klpc/internal/run"
)

// Linking a module. Kbuild's external module build (make M=DIR) compiles what
// DIR/Kbuild names, links it, runs objtool, modpost and the last link, and so
// gives the module its vermagic, symbol versions and name. A prebuilt object
// enters as patch.o_shipped, which Kbuild copies to patch.o.

// ModuleJob is one module to link.
type ModuleJob struct {
	// Dir holds Kbuild, the sources and the prebuilt objects, and receives
	// all that Kbuild writes.
	Dir string
	// Name is the module's file name without .ko, as Kbuild has it in obj-m.
	Name string
	// Prebuilt are the objects in Dir that are not compiled here, as
	// Kbuild's obj lists them (patch.o); each lies in Dir as patch.o_shipped.
	Prebuilt []string
	Log      io.Writer // receives what make prints; may be nil
}

// ModuleResult is a linked module.
type ModuleResult struct {
	Path   string // the .ko
	Wall   time.Duration
	CPU    time.Duration
	Output []byte // what make printed: warnings of objtool and modpost among it
}

// UndefinedError is a module that needs symbols that the kernel does not export.
type UndefinedError struct {
	Symbols []string // all of them, sorted
	Output  string
}

func (e *UndefinedError) Error() string {
	return fmt.Sprintf("link module: %d symbols are neither exported by the kernel nor defined: %s",
		len(e.Symbols), strings.Join(e.Symbols, ", "))
}

// buildIdentity fixes what Kbuild would take from the machine and the clock.
var buildIdentity = []string{
	"KBUILD_BUILD_TIMESTAMP=1970-01-01 00:00:00 UTC", "KBUILD_BUILD_USER=klpc", "KBUILD_BUILD_HOST=klpc", "KBUILD_BUILD_VERSION=1",
}

// LinkModule lets Kbuild build the module of job.Dir. Nothing is written
// outside that directory.
func (t *Tree) LinkModule(ctx context.Context, job ModuleJob) (ModuleResult, error) {
	dir, err := filepath.Abs(job.Dir)
	if err != nil {
		return ModuleResult{}, fmt.Errorf("link module: %w", err)
	}
	if i := strings.IndexAny(dir, " \t%:#$"); i >= 0 {
		return ModuleResult{}, fmt.Errorf("link module: Kbuild cannot work in %q: the path has a %q", dir, dir[i])
	}
	for _, o := range job.Prebuilt {
		if err := writeCmdOfPrebuilt(dir, o); err != nil {
			return ModuleResult{}, fmt.Errorf("link module: %w", err)
		}
	}
	var out bytes.Buffer
	stdout := io.Writer(&out)
	if job.Log != nil {
		stdout = io.MultiWriter(&out, job.Log)
	}
	r, err := run.Do(ctx, run.Cmd{
		Dir: t.Build, Args: t.moduleArgs(dir), Env: append(t.env(dir), buildIdentity...), Stdout: stdout, Log: job.Log,
	})
	output := append(out.Bytes(), r.Stderr...)
	if err != nil {
		return ModuleResult{}, t.explainLink(job, dir, string(output), err)
	}
	ko := filepath.Join(dir, job.Name+".ko")
	if !isFile(ko) {
		return ModuleResult{}, fmt.Errorf("link module: make succeeded but wrote no %s.ko", job.Name)
	}
	return ModuleResult{Path: ko, Wall: r.Wall, CPU: r.User + r.Sys, Output: output}, nil
}

// moduleArgs is make's command line. Later arguments win, so the tree's own
// come last.
func (t *Tree) moduleArgs(dir string) []string {
	args := []string{
		"make", "-C", t.Build, "M=" + dir, "-j2", "--no-print-directory", "modules",
		// objtool runs once, on the linked module, as it does where the
		// kernel has IBT or LTO; prebuilt objects would miss it otherwise.
		"delay-objtool=y",
		// BTF of a livepatch is of no use; pahole would read all of vmlinux.
		"CONFIG_DEBUG_INFO_BTF_MODULES=",
		// Nor are the types of init.c and NAME.mod.c, most of the module's size.
		"CFLAGS_MODULE=-g0",
	}
	args = append(args, t.toolArgs()...)
	return append(args, t.MakeArgs...)
}

// toolArgs names the tools that built the tree, which Kbuild does not record
// but the compile commands and the configuration show.
func (t *Tree) toolArgs() []string {
	var args []string
	if cc := t.KbuildCC(); cc != "" {
		args = append(args, "CC="+cc)
	}
	if t.Config.Bool("CONFIG_LD_IS_LLD") {
		args = append(args, "LD=ld.lld")
	}
	return args
}

// writeCmdOfPrebuilt writes the .cmd file that modpost reads for symbol
// versions and srcversion, and that Kbuild does not write for a copied file.
func writeCmdOfPrebuilt(dir, object string) error {
	shipped := filepath.Join(dir, object+"_shipped")
	if !isFile(shipped) {
		return fmt.Errorf("no %s_shipped in %s", object, dir)
	}
	at := filepath.Join(dir, object)
	text := fmt.Sprintf("savedcmd_%s := cat %s > %s\n\nsource_%s := %s\n", at, shipped, at, at, shipped)
	return os.WriteFile(filepath.Join(dir, "."+object+".cmd"), []byte(text), 0o644)
}

// explainLink turns make's failure into an error that lists what is missing.
func (t *Tree) explainLink(job ModuleJob, dir, output string, err error) error {
	if !strings.Contains(output, "undefined!") {
		return fmt.Errorf("link module: %w", err)
	}
	missing, lerr := t.undefinedSymbols(filepath.Join(dir, job.Name+".o"))
	if lerr != nil || len(missing) == 0 {
		return errors.Join(fmt.Errorf("link module: %w", err), lerr)
	}
	return &UndefinedError{Symbols: missing, Output: output}
}

// undefinedSymbols lists the undefined, not weak symbols of a linked module
// that Module.symvers does not have. modpost itself stops after ten.
func (t *Tree) undefinedSymbols(object string) ([]string, error) {
	f, err := elf.Open(object)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	syms, err := f.Symbols()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", object, err)
	}
	exported, err := t.exports()
	if err != nil {
		return nil, err
	}
	var missing []string
	for _, s := range syms {
		if s.Section == elf.SHN_UNDEF && elf.ST_BIND(s.Info) == elf.STB_GLOBAL && s.Name != "_GLOBAL_OFFSET_TABLE_" && !exported[s.Name] {
			missing = append(missing, s.Name)
		}
	}
	sort.Strings(missing)
	return missing, nil
}

// exports are the names in Module.symvers: CRC, name, module, kind, namespace,
// separated by tabs.
func (t *Tree) exports() (map[string]bool, error) {
	f, err := os.Open(filepath.Join(t.Build, "Module.symvers"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names := map[string]bool{"__this_module": true}
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if fields := strings.Split(sc.Text(), "\t"); len(fields) > 1 {
			names[fields[1]] = true
		}
	}
	return names, sc.Err()
}
