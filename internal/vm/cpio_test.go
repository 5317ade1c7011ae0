package vm

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func sampleFiles() []File {
	return []File{
		{Path: "init", Mode: ModeRegular | 0o755, Data: []byte("#!/bin/sh\n")},
		{Path: "bin/tool", Mode: ModeRegular | 0o755, Data: []byte("12345")},
		{Path: "bin/sh", Mode: ModeSymlink | 0o777, Data: []byte("tool")},
		{Path: "empty", Mode: ModeRegular | 0o644},
		{Path: "proc", Mode: ModeDir | 0o755},
	}
}

func TestArchiveBytes(t *testing.T) {
	got, err := Archive([]File{{Path: "d/f", Mode: ModeRegular | 0o644, Data: []byte("hello")}})
	if err != nil {
		t.Fatal(err)
	}
	//      magic ino     mode    uid     gid     nlink   mtime   size    devmaj  devmin  rmaj    rmin    name    check
	want := "070701" + "00000001" + "000041ED" + "00000000" + "00000000" + "00000002" + "00000000" + "00000000" +
		"00000000" + "00000000" + "00000000" + "00000000" + "00000002" + "00000000" + "d\x00" +
		"070701" + "00000002" + "000081A4" + "00000000" + "00000000" + "00000001" + "00000000" + "00000005" +
		"00000000" + "00000000" + "00000000" + "00000000" + "00000004" + "00000000" + "d/f\x00" + "\x00\x00" +
		"hello\x00\x00\x00" +
		"070701" + "00000000" + "00000000" + "00000000" + "00000000" + "00000001" + "00000000" + "00000000" +
		"00000000" + "00000000" + "00000000" + "00000000" + "0000000B" + "00000000" + "TRAILER!!!\x00" + "\x00\x00\x00"
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Error(d)
	}
}

func TestArchiveOrder(t *testing.T) {
	one, err := Archive(sampleFiles())
	if err != nil {
		t.Fatal(err)
	}
	files := sampleFiles()
	slices.Reverse(files)
	two, err := Archive(files)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one, two) {
		t.Error("the order of the files changes the archive")
	}
}

func TestArchiveCPIO(t *testing.T) {
	tool, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("cpio is not installed: nothing to compare with")
	}
	data, err := Archive(append(sampleFiles(), File{Path: "dev/null", Mode: ModeChar | 0o666, DevMajor: 1, DevMinor: 3}))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tool, "-t", "-v", "--numeric-uid-gid", "--quiet")
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"drwxr-xr-x 2 0 0 0 Jan 1 1970 bin",
		"lrwxrwxrwx 1 0 0 4 Jan 1 1970 bin/sh -> tool",
		"-rwxr-xr-x 1 0 0 5 Jan 1 1970 bin/tool",
		"drwxr-xr-x 2 0 0 0 Jan 1 1970 dev",
		"crw-rw-rw- 1 0 0 1, 3 Jan 1 1970 dev/null",
		"-rw-r--r-- 1 0 0 0 Jan 1 1970 empty",
		"-rwxr-xr-x 1 0 0 10 Jan 1 1970 init",
		"drwxr-xr-x 2 0 0 0 Jan 1 1970 proc",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestArchiveRefuses(t *testing.T) {
	file := func(p string) File { return File{Path: p, Mode: ModeRegular | 0o644} }
	tests := []struct {
		name  string
		files []File
		want  string
	}{
		{"absolute", []File{file("/init")}, `initramfs: "/init" is not a clean relative path`},
		{"empty", []File{file("")}, `initramfs: "" is not a clean relative path`},
		{"the root", []File{file(".")}, `initramfs: "." is not a clean relative path`},
		{"above", []File{file("../x")}, `initramfs: "../x" is not a clean relative path`},
		{"not clean", []File{file("a//b")}, `initramfs: "a//b" is not a clean relative path`},
		{"with NUL", []File{file("a\x00b")}, `initramfs: "a\x00b" is not a clean relative path`},
		{"twice", []File{file("a"), file("a")}, "initramfs: a: given twice"},
		{"in a file", []File{file("a"), file("a/b")}, "initramfs: a/b: lies in a, which is not a folder"},
		{"two of them", []File{file("/x"), file("/y")},
			"initramfs: \"/x\" is not a clean relative path\ninitramfs: \"/y\" is not a clean relative path"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Archive(tt.files)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}
