package distro

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const stock = `#
# Linux/x86 6.12.117 Kernel Configuration
CONFIG_CC_VERSION_TEXT="x86_64-linux-gnu-gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0"
CONFIG_AS_VERSION=24000
CONFIG_RUSTC_VERSION=0
CONFIG_PAHOLE_VERSION=124
# CONFIG_KASAN is not set
CONFIG_LIVEPATCH=y
CONFIG_DUMMY=m
`

func TestCompareConfig(t *testing.T) {
	tests := []struct {
		name, have        string
		functional, tools []string
	}{
		{"same", stock, nil, nil},
		{"machine", `CONFIG_CC_VERSION_TEXT="gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0"
CONFIG_AS_VERSION=24000
CONFIG_RUSTC_VERSION=109500
CONFIG_RUSTC_HAS_COERCE_POINTEE=y
CONFIG_LIVEPATCH=y
CONFIG_DUMMY=m
`, nil, nil},
		{"assembler", `CONFIG_AS_VERSION=24400
CONFIG_LIVEPATCH=y
CONFIG_DUMMY=m
`, nil, []string{"CONFIG_AS_VERSION is 24400, the kernel has 24000"}},
		{"functional", `CONFIG_AS_VERSION=24000
CONFIG_KASAN=y
CONFIG_DUMMY=y
`, []string{
			"CONFIG_DUMMY is y, the kernel has m",
			"CONFIG_KASAN is y, the kernel has not set",
			"CONFIG_LIVEPATCH is not set, the kernel has y",
		}, nil},
		// One letter more than a machine symbol is no machine symbol.
		{"not forgiven", stock + "CONFIG_PAHOLE_VERSIONS=1\nCONFIG_RUST=y\n", []string{
			"CONFIG_PAHOLE_VERSIONS is 1, the kernel has not set",
			"CONFIG_RUST is y, the kernel has not set",
		}, nil},
	}
	texts := func(diffs []configDiff) (s []string) {
		for _, d := range diffs {
			s = append(s, d.String())
		}
		return s
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			functional, tools := compareConfig(parseConfig(stock), parseConfig(tt.have))
			if diff := cmp.Diff(tt.functional, texts(functional)); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.tools, texts(tools)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestConfigError(t *testing.T) {
	var e configError
	for range 22 {
		e = append(e, configDiff{name: "CONFIG_X", want: "y", have: "m"})
	}
	want := "make changed the kernel's configuration, so objects compiled here would not match it:"
	for range 20 {
		want += "\n  CONFIG_X is m, the kernel has y"
	}
	if diff := cmp.Diff(want+"\n  and 2 more", e.Error()); diff != "" {
		t.Error(diff)
	}
}

func TestPaholeScript(t *testing.T) {
	dir := t.TempDir()
	for version, want := range map[int]string{124: "v1.24\n", 130: "v1.30\n", 209: "v2.09\n"} {
		path := filepath.Join(dir, "pahole")
		fakeProgram(t, dir, "pahole", paholeScript(version))
		out, err := exec.Command(path, "--version").Output()
		if err != nil || string(out) != want {
			t.Errorf("%d: %q, %v", version, out, err)
		}
		if exec.Command(path, "-J", "vmlinux").Run() == nil {
			t.Error("pahole -J succeeds")
		}
	}
}
