package vm

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBaseFiles(t *testing.T) {
	var got []string
	for _, f := range baseFiles([]byte("program"), []string{"[", "busybox", "sbin/insmod", "sh"}, "script") {
		text := f.Path
		if f.Mode&modeType == ModeSymlink {
			text += " -> " + string(f.Data)
		}
		got = append(got, text)
	}
	want := []string{"init", "bin/busybox", "dev/console", "dev/kmsg", "dev/null", "dev/ttyS1", "proc", "run", "sys", "tmp",
		"bin/[ -> busybox", "bin/insmod -> busybox", "bin/sh -> busybox"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestFindStaticRefuses(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("#!/bin/sh\nexec /usr/bin/true\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, path, want string }{
		{"missing", filepath.Join(dir, "none"), "no such file or directory"},
		{"no ELF", text, "bad magic number"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := findStatic(tt.path)
			if err == nil || !strings.Contains(err.Error(), tt.want) ||
				!strings.Contains(err.Error(), "install the package busybox-static, or set KLPC_BUSYBOX") {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			t.Setenv(busyboxVariable, tt.path)
			if _, err := FindBusybox(); err == nil || !strings.HasPrefix(err.Error(), "KLPC_BUSYBOX: ") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestCheckStaticDynamic(t *testing.T) {
	path, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Skipf("no /bin/sh to try: %v", err)
	}
	if data, err := os.ReadFile(path); err != nil || !bytes.Contains(data, []byte("ld-linux-x86-64")) {
		t.Skip("/bin/sh is not a dynamically linked x86-64 program")
	}
	if err := checkStatic(path); err == nil || !strings.HasSuffix(err.Error(), ": dynamically linked") {
		t.Errorf("got %v", err)
	}
}

func TestInitramfs(t *testing.T) {
	busybox, err := FindBusybox()
	if err != nil {
		t.Skip(err)
	}
	extra := []File{{Path: "opt/x", Mode: ModeRegular | 0o644, Data: []byte("y")}}
	one, err := Initramfs(t.Context(), busybox, "#!/bin/sh\n", extra)
	if err != nil {
		t.Fatal(err)
	}
	two, err := Initramfs(t.Context(), busybox, "#!/bin/sh\n", extra)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one, two) {
		t.Error("not the same bytes twice")
	}
	for _, name := range []string{"bin/insmod\x00", "bin/dmesg\x00", "bin/timeout\x00", "bin/stty\x00", "opt/x\x00"} {
		if !bytes.Contains(one, []byte(name)) {
			t.Errorf("%q is missing", name)
		}
	}
}
