package distro

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeProgram puts a shell script into a directory.
func fakeProgram(t *testing.T, dir, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func fakeCompilers(t *testing.T) {
	bin := t.TempDir()
	for name, text := range map[string]string{
		"gcc-12":                  "gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0",
		"x86_64-linux-gnu-gcc-12": "x86_64-linux-gnu-gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0",
		"gcc":                     "gcc (Debian 12.2.0-14+deb12u1) 12.2.0",
		"x86_64-linux-gnu-gcc-14": "x86_64-linux-gnu-gcc-14 (Debian 14.2.0-99) 14.2.0",
	} {
		fakeProgram(t, bin, name, `[ "$*" = --version ] || exit 1; [ "$LC_ALL" = C ] || exit 1; printf '%s\n' '`+text+`' 'Copyright' ''`)
	}
	fakeProgram(t, bin, "gcc-9", "echo broken >&2; exit 3")
	t.Setenv("PATH", bin)
}

func TestCheckCompiler(t *testing.T) {
	fakeCompilers(t)
	tests := []struct {
		name, text, program, err string
	}{
		{"6.1", "gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0", "gcc-12", ""},
		{"6.12", "x86_64-linux-gnu-gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0", "x86_64-linux-gnu-gcc-12", ""},
		{"plain", "gcc (Debian 12.2.0-14+deb12u1) 12.2.0", "gcc", ""},
		{"other revision", "gcc-12 (Debian 12.2.0-14) 12.2.0", "gcc-12",
			`the kernel was built with "gcc-12 (Debian 12.2.0-14) 12.2.0", but gcc-12 is "gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0": install the package gcc-12 in the version that the kernel names`},
		{"other version, cross name", "x86_64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0", "x86_64-linux-gnu-gcc-14",
			`the kernel was built with "x86_64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0", but x86_64-linux-gnu-gcc-14 is "x86_64-linux-gnu-gcc-14 (Debian 14.2.0-99) 14.2.0": install the package gcc-14 in the version that the kernel names`},
		{"not installed", "x86_64-linux-gnu-gcc-13 (Debian 13.1.0-1) 13.1.0", "x86_64-linux-gnu-gcc-13",
			`the kernel was built with "x86_64-linux-gnu-gcc-13 (Debian 13.1.0-1) 13.1.0", but x86_64-linux-gnu-gcc-13 is not installed: install the package gcc-13`},
		{"clang", "Debian clang version 14.0.6", "",
			`CONFIG_CC_VERSION_TEXT="Debian clang version 14.0.6" names no gcc: only kernels built with gcc are supported`},
		{"path", "/tmp/gcc (Debian 1) 1", "", `CONFIG_CC_VERSION_TEXT="/tmp/gcc (Debian 1) 1" names no gcc: only kernels built with gcc are supported`},
		{"empty", "", "", `CONFIG_CC_VERSION_TEXT="" names no gcc: only kernels built with gcc are supported`},
		{"fails", "gcc-9 (x) 9", "", "ask the compiler for its version: gcc-9: exit status 3:\nbroken"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			program, err := CheckCompiler(t.Context(), tt.text)
			msg := ""
			if err != nil {
				msg = err.Error()
			}
			if diff := cmp.Diff([]string{tt.program, tt.err}, []string{program, msg}); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestChooseCompiler(t *testing.T) {
	fakeCompilers(t)
	const other = "gcc-12 (Debian 12.2.0-14) 12.2.0"
	const gone = "gcc-13 (Debian 13.1.0-1) 13.1.0"
	var wrong *CompilerError
	if _, err := chooseCompiler(t.Context(), other, false); !errors.As(err, &wrong) {
		t.Errorf("mismatch not allowed: %v", err)
	}
	tests := []struct {
		text    string
		want    compiler
		warning string
	}{
		{"gcc (Debian 12.2.0-14+deb12u1) 12.2.0", compiler{Program: "gcc", Want: "gcc (Debian 12.2.0-14+deb12u1) 12.2.0",
			Have: "gcc (Debian 12.2.0-14+deb12u1) 12.2.0"}, ""},
		{other, compiler{Program: "gcc-12", Want: other, Have: "gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0"},
			`compiler mismatch allowed: the kernel was built with "gcc-12 (Debian 12.2.0-14) 12.2.0", here gcc-12 is "gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0"`},
		{gone, compiler{Program: "gcc", Want: gone, Have: "gcc (Debian 12.2.0-14+deb12u1) 12.2.0"},
			`compiler mismatch allowed: the kernel was built with "gcc-13 (Debian 13.1.0-1) 13.1.0", here gcc is "gcc (Debian 12.2.0-14+deb12u1) 12.2.0"`},
	}
	for _, tt := range tests {
		got, err := chooseCompiler(t.Context(), tt.text, true)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(tt.warning, got.warning()); diff != "" {
			t.Error(diff)
		}
		if (got.suffix() == "") != (tt.warning == "") {
			t.Errorf("suffix %q of %v", got.suffix(), got)
		}
	}
}
