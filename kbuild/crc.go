package kbuild

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/klpc/klpc/internal/run"
)

// ErrGendwarfksyms is a kernel whose symbol versions come from debug
// information (CONFIG_GENDWARFKSYMS, since 6.14) instead of from the sources.
var ErrGendwarfksyms = errors.New("symbol versions of CONFIG_GENDWARFKSYMS are not supported")

// symver is a line of genksyms: a comment for modpost since 6.0, an assignment
// of a linker script before.
var symver = regexp.MustCompile(`^(?:#SYMVER (\S+) (0x[0-9a-f]+)|__crc_(\S+) = (0x[0-9a-f]+);)$`)

// Genksyms is the program that computes symbol versions, in the build directory.
const Genksyms = "scripts/genksyms/genksyms"

// CRCs returns the versions of the symbols that a unit exports, as Kbuild's
// cmd_gensymtypes_c computes them: the preprocessed source, read by genksyms.
// It returns nil if the kernel has no symbol versions. read is as
// CompileResult.Deps.
func (t *Tree) CRCs(ctx context.Context, job CompileJob) (crcs map[string]uint32, read []string, err error) {
	if !t.Config.Bool("CONFIG_MODVERSIONS") {
		return nil, nil, nil
	}
	if t.Config.Bool("CONFIG_GENDWARFKSYMS") {
		return nil, nil, fmt.Errorf("symbol versions of %s: %w", job.Unit.Source, ErrGendwarfksyms)
	}
	job.Extra = append(job.Extra[:len(job.Extra):len(job.Extra)], "-D__GENKSYMS__")
	text, err := t.Preprocess(ctx, job)
	if err != nil {
		return nil, nil, fmt.Errorf("symbol versions: %w", err)
	}
	r, err := run.Do(ctx, run.Cmd{
		Dir: t.Build, Args: []string{Genksyms, "-r", "/dev/null"}, Env: t.env(filepath.Dir(job.Out)),
		Stdin: bytes.NewReader(text.Text),
	})
	if err != nil {
		return nil, nil, fmt.Errorf("symbol versions of %s: %w", job.Unit.Source, err)
	}
	crcs, err = parseSymvers(r.Stdout)
	return crcs, text.Deps, err
}

func parseSymvers(text []byte) (map[string]uint32, error) {
	crcs := map[string]uint32{}
	sc := bufio.NewScanner(bytes.NewReader(text))
	for sc.Scan() {
		m := symver.FindStringSubmatch(sc.Text())
		if m == nil {
			if len(bytes.TrimSpace(sc.Bytes())) == 0 {
				continue
			}
			return nil, fmt.Errorf("symbol versions: genksyms printed %q", sc.Text())
		}
		v, err := strconv.ParseUint(m[2]+m[4], 0, 32)
		if err != nil {
			return nil, fmt.Errorf("symbol versions: genksyms printed %q: %w", sc.Text(), err)
		}
		crcs[m[1]+m[3]] = uint32(v)
	}
	return crcs, sc.Err()
}
