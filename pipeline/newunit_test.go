package pipeline

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestInitcalls(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("needs gcc")
	}
	for name, c := range map[string]struct {
		source string
		want   []string
	}{
		"none": {source: "int f(void) { return 1; }\n"},
		"built in, as offsets": {
			source: "#define CALL(n, f) asm(\".section \\\".initcall\" #n \".init\\\", \\\"a\\\"\\n__initcall__\" #f \": .long \" #f \" - .\\n.previous\")\n" +
				"static int __attribute__((used, section(\".init.text\"))) one(void) { return 1; }\nstatic int __attribute__((used, section(\".init.text\"))) two(void) { return 2; }\n" +
				"CALL(6, two);\nCALL(7s, one);\n",
			want: []string{"one", "two"},
		},
		"built in, as addresses": {
			source: "static int __attribute__((section(\".init.text\"))) f(void) { return 1; }\nstatic void *call __attribute__((used, section(\".initcall4.init\"))) = f;\n",
			want:   []string{"f"},
		},
		"a console": {
			source: "static int f(void) { return 1; }\nstatic void *call __attribute__((used, section(\".con_initcall.init\"))) = f;\n",
			want:   []string{"f"},
		},
		"a module": {
			source: "static int f(void) { return 1; }\nint init_module(void) __attribute__((alias(\"f\")));\n",
			want:   []string{"f"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "x.c"), []byte(c.source), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("gcc", "-O2", "-fno-pic", "-c", "x.c")
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			o, err := readObject(filepath.Join(dir, "x.o"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, initcalls(o)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
