package kbuild

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// Command files. Beside each object foo.o of a build, Kbuild keeps .foo.o.cmd,
// a makefile fragment: the command (savedcmd_ since 6.4, cmd_ before), then
// what scripts/basic/fixdep found: the source and every file that was read.

// cmdFile is the content of a .cmd file.
type cmdFile struct {
	command []byte   // text for a shell
	source  []byte   // as the compiler was told
	deps    [][]byte // as the compiler named them, without the source
}

var errNotCmd = errors.New("not a .cmd file of Kbuild")

// parseCmdFile reads a .cmd file. deps are views into data.
func parseCmdFile(data []byte) (cmdFile, error) {
	line, rest, _ := bytes.Cut(data, []byte("\n"))
	name, value, ok := bytes.Cut(line, []byte(" := "))
	if !ok || !bytes.HasPrefix(name, []byte("savedcmd_")) && !bytes.HasPrefix(name, []byte("cmd_")) {
		return cmdFile{}, errNotCmd
	}
	f := cmdFile{command: unescapeMake(value)}
	inDeps := false
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		switch {
		case bytes.HasPrefix(line, []byte("source_")):
			_, f.source, _ = bytes.Cut(line, []byte(" := "))
		case bytes.HasPrefix(line, []byte("deps_")):
			inDeps = true
		case !inDeps:
		case len(line) == 0 || line[0] != ' ':
			return f, nil
		default:
			dep := bytes.TrimSpace(bytes.TrimSuffix(line, []byte("\\")))
			if len(dep) > 0 && dep[0] != '$' { // $(wildcard include/config/…)
				f.deps = append(f.deps, dep)
			}
		}
	}
	return f, nil
}

// unescapeMake undoes what Kbuild's make-cmd escapes for make.
func unescapeMake(b []byte) []byte {
	if bytes.IndexByte(b, '$') < 0 && !bytes.Contains(b, []byte(`\#`)) {
		return b
	}
	b = bytes.ReplaceAll(b, []byte("$(pound)"), []byte("#"))
	b = bytes.ReplaceAll(b, []byte(`\#`), []byte("#"))
	return bytes.ReplaceAll(b, []byte("$$"), []byte("$"))
}

// cmdPath is the .cmd file of an object, relative to the build directory.
func cmdPath(object string) string {
	return path.Join(path.Dir(object), "."+path.Base(object)+".cmd")
}

// ErrNoUnit is a source that this configuration does not compile, or that was
// not compiled by the build.
var ErrNoUnit = errors.New("not compiled in this kernel")

// UnitOfObject returns the unit of an object, by its name relative to the
// build directory.
func (t *Tree) UnitOfObject(object string) (Unit, error) {
	if t.db != nil {
		u, ok := t.db.unitOfObject(object)
		if !ok {
			return Unit{}, fmt.Errorf("%s: %w", object, ErrNoUnit)
		}
		return u, nil
	}
	line, err := firstLine(filepath.Join(t.Build, cmdPath(object)))
	if errors.Is(err, fs.ErrNotExist) {
		return Unit{}, fmt.Errorf("%s: %w", object, ErrNoUnit)
	}
	if err != nil {
		return Unit{}, err
	}
	return t.unitOfCmd(object, line)
}

// firstLine reads the command of a .cmd file and leaves the list of files,
// ten times as long.
func firstLine(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	line, err := bufio.NewReaderSize(f, 16<<10).ReadBytes('\n')
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return line, err
}

func (t *Tree) unitOfCmd(object string, data []byte) (Unit, error) {
	cf, err := parseCmdFile(data)
	if err != nil {
		return Unit{}, fmt.Errorf("%s: %w", cmdPath(object), err)
	}
	f, ok, err := findCompile(cf.command, &command{}, func(b []byte) string { return string(b) })
	if err != nil {
		return Unit{}, fmt.Errorf("%s: %w", cmdPath(object), err)
	}
	if !ok {
		return Unit{}, fmt.Errorf("%s: %w", object, ErrNoUnit)
	}
	return newUnit(t.roots(), f)
}

// UnitsOf returns every unit that compiles source, which is relative to the
// source tree; usually one. In a built tree the object beside the source is
// tried first, and all others are searched only if that one is not it.
func (t *Tree) UnitsOf(source string) ([]Unit, error) {
	if t.db != nil {
		units := t.db.UnitsOf(source)
		if len(units) == 0 {
			return nil, fmt.Errorf("%s: %w", source, ErrNoUnit)
		}
		return units, nil
	}
	object := source[:len(source)-len(path.Ext(source))] + ".o"
	u, err := t.UnitOfObject(object)
	switch {
	case err == nil && u.Source == source && !u.Generated:
		return []Unit{u}, nil
	case err != nil && !errors.Is(err, ErrNoUnit):
		return nil, err
	}
	x, err := t.scanDeps()
	if err != nil {
		return nil, err
	}
	return t.unitsOfObjects(x.objectsOf(source), source)
}

func (t *Tree) unitsOfObjects(objects []string, what string) ([]Unit, error) {
	var units []Unit
	var errs []error
	for _, o := range objects {
		u, err := t.UnitOfObject(o)
		if errors.Is(err, ErrNoUnit) {
			continue // linked or made by another tool
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		units = append(units, u)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(units) == 0 {
		return nil, fmt.Errorf("%s: %w", what, ErrNoUnit)
	}
	return units, nil
}
