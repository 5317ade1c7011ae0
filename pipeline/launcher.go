package pipeline

import (
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/klpc/klpc/kbuild"
)

// SplitLauncher splits a compiler launcher and its arguments at blanks, with a
// shell's quotes. An empty text is no launcher.
func SplitLauncher(text string) ([]string, error) {
	words, err := kbuild.Words(text)
	if len(words) == 0 {
		return nil, err
	}
	return words, err
}

// findLauncher makes a launcher's program absolute: compiles run elsewhere.
func findLauncher(launcher []string) ([]string, error) {
	if len(launcher) == 0 {
		return nil, nil
	}
	path, err := exec.LookPath(launcher[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return nil, fmt.Errorf("the compiler launcher %s cannot be run: %w; install it, or leave --cc-launcher out", launcher[0], err)
	}
	return append([]string{path}, launcher[1:]...), nil
}
