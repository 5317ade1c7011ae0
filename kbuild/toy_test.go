package kbuild

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// layout is a way to build a kernel: where the build directory lies and how
// Kbuild names the source tree in its commands.
type layout struct {
	name   string
	build  string                     // relative to the test's directory; the source is in "linux"
	prefix func(source string) string // of source paths in commands
}

var layouts = []layout{
	{"in place", "linux", func(string) string { return "." }},
	{"outside", "out", func(source string) string { return source }},
	{"inside", "linux/build", func(string) string { return ".." }},
	{"deep inside", "linux/a/build", func(source string) string { return source }},
}

// toyFiles is a tree just large enough to be taken for a kernel.
var toyFiles = map[string]string{
	"Kbuild":                  "",
	"Makefile":                "all:\n",
	"scripts/Kbuild.include":  "",
	"init/main.c":             "int start_kernel(void) { return 0; }\n",
	"include/linux/kconfig.h": "#define KCONFIG 1\n",
	"include/linux/where.h":   "static const char where_h[] = __FILE__;\n",
	"fs/common.h":             "static const char common_h[] = \"common \" __FILE__;\n",
	"fs/proc/internal.h":      "static const char internal_h[] = __FILE__;\n",
	"lib/deep/deep.h":         "#include \"../../fs/common.h\"\nstatic const char deep_h[] = __FILE__;\n",
	"lib/deep/er/deeper.h":    "#include \"../deep.h\"\n",
	"fs/proc/cmdline.c": `#include <linux/where.h>
#include "internal.h"
#include "../../lib/deep/er/deeper.h"
#include <generated/made.h>
const char *const names[] = { where_h, internal_h, common_h, deep_h, made_h, __FILE__ };
int line(void) { return __LINE__; }
`,
}

func write(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

const toyConfig = "CONFIG_X86_64=y\nCONFIG_MODULES=y\nCONFIG_LIVEPATCH=y\n"

// toyTree makes a built toy tree of a layout.
func toyTree(t *testing.T, l layout) *Tree {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	source, build := filepath.Join(root, "linux"), filepath.Join(root, l.build)
	write(t, source, toyFiles)
	made := map[string]string{
		".config":                       toyConfig,
		"include/config/kernel.release": "6.99.0-toy\n",
		"include/generated/made.h":      "static const char made_h[] = __FILE__;\n",
	}
	if l.build != "linux" {
		made["Makefile"] = "# Automatically generated\ninclude " + l.prefix(source) + "/Makefile\n"
	}
	for _, s := range []string{"init/main.c", "fs/proc/cmdline.c"} {
		made[cmdPath(strings.TrimSuffix(s, ".c")+".o")] = toyCmd(l.prefix(source), s, "")
	}
	write(t, build, made)
	tree, err := OpenTree(build, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// toyCmd is the .cmd file of a source, with a command such as Kbuild's.
func toyCmd(prefix, source, flags string) string {
	object := strings.TrimSuffix(source, ".c") + ".o"
	name := prefix + "/" + source
	if prefix == "." {
		name = source // Kbuild's VPATH is not set in place
	}
	return fmt.Sprintf("savedcmd_%[1]s := gcc -Wp,-MMD,%[2]s.d -I%[3]s/include -I./include -include %[3]s/include/linux/kconfig.h"+
		" -D__KERNEL__ -m64 -mcmodel=kernel -fno-pic -fmacro-prefix-map=%[3]s/= -O2 -g %[5]s -DKBUILD_MODNAME='\"x\"' -c -o %[1]s %[4]s\n\n"+
		"source_%[1]s := %[4]s\n\ndeps_%[1]s := \\\n  %[3]s/include/linux/kconfig.h \\\n    $(wildcard include/config/X) \\\n  include/generated/made.h \\\n\n",
		object, cmdPath(object), prefix, name, flags)
}
