package kbuild

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klpc/klpc/internal/run"
)

// ObjtoolCommand returns the command with which LinkModule let objtool work on
// the module of dir, without the object's name; nil if this kernel has none.
// Kbuild records it beside the object.
func ObjtoolCommand(dir, name string) ([]string, error) {
	file := filepath.Join(dir, "."+name+".o.cmd")
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("find objtool's options: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	for _, part := range strings.Split(line, ";") {
		w := strings.Fields(part)
		if len(w) > 1 && isObjtool([]byte(w[0])) && strings.HasSuffix(w[len(w)-1], ".o") {
			return w[:len(w)-1], nil
		}
	}
	return nil, nil
}

// Objtool runs objtool on an object, which it changes.
func (t *Tree) Objtool(ctx context.Context, command []string, object string) error {
	if len(command) == 0 {
		return errors.New("internal error: no objtool command")
	}
	abs, err := filepath.Abs(object)
	if err != nil {
		return err
	}
	_, err = run.Do(ctx, run.Cmd{Dir: t.Build, Args: append(slices.Clone(command), abs), Env: t.env(filepath.Dir(abs))})
	var missing *fs.PathError
	if errors.As(err, &missing) {
		return fmt.Errorf("objtool is not built in %s: %w", t.Build, err)
	}
	if err != nil {
		return fmt.Errorf("objtool on %s: %w", filepath.Base(object), err)
	}
	return nil
}
