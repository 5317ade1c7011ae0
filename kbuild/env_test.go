package kbuild

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/klpc/klpc/internal/run"
)

// A tree's environment reaches the programs that are run for it, and what this
// package sets itself wins.
func TestEnv(t *testing.T) {
	t.Setenv("KCFLAGS", "-bad")
	dir := t.TempDir()
	tree := &Tree{Env: []string{"KCFLAGS=", "KCONFIG_CONFIG=.config", "MAKEFLAGS=-j9"}}
	r, err := run.Do(t.Context(), run.Cmd{Args: []string{"sh", "-c", `echo "$KCFLAGS,$KCONFIG_CONFIG,$MAKEFLAGS,$TMPDIR"`}, Env: tree.env(dir)})
	if err != nil || string(r.Stdout) != ",.config,,"+dir+"\n" {
		t.Errorf("%q, %v", r.Stdout, err)
	}
}

func TestOpenTreeKeepsEnv(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"Kbuild": "", "scripts/Kbuild.include": "", "init/main.c": "",
		".config":                       "CONFIG_X86_64=y\nCONFIG_MODULES=y\nCONFIG_LIVEPATCH=y\n",
		"include/config/kernel.release": "6.1.0\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := OpenTree(dir, Options{Env: []string{"CPATH="}})
	if err != nil || len(tree.Env) != 1 || tree.Env[0] != "CPATH=" {
		t.Errorf("%+v, %v", tree, err)
	}
}
