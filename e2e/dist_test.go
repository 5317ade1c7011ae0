package e2e

// The packages that make dist makes, read and installed by the distributions'
// own programs.

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// output runs a program that must succeed.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// makeDist runs make dist and returns the folder.
func makeDist(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "dist")
	cmd := exec.Command("../scripts/dist")
	cmd.Env = append(os.Environ(), "DIST="+dir, "VERSION=1.2.3", "SOURCE_DATE_EPOCH=1767225600")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("scripts/dist: %v\n%s", err, out)
	}
	return dir
}

// only1 is the one file of a kind in a folder.
func only1(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %q %v", pattern, found, err)
	}
	return found[0]
}

// packaged are files that both packages must hold, among others.
var packaged = []string{
	"/etc/klpc/klpc.conf", "/usr/bin/klpc",
	"/usr/lib/systemd/system/klpc.service", "/usr/lib/systemd/system/klpc-shutdown.service",
	"/usr/lib/systemd/system/klpc-settled.service", "/usr/lib/systemd/system/klpc-settled.timer",
	"/usr/share/bash-completion/completions/klpc", "/usr/share/fish/vendor_completions.d/klpc.fish",
	"/usr/share/man/man1/klpc.1.gz", "/usr/share/man/man1/klpc-build.1.gz", "/usr/share/man/man1/klpc-load.1.gz",
	"/usr/share/man/man1/klpc-restore.1.gz", "/usr/share/zsh/vendor-completions/_klpc", "/var/lib/klpc",
}

func TestDist(t *testing.T) {
	needBoot(t)
	dir := makeDist(t)
	if d := cmp.Diff(sums(t, dir), sums(t, makeDist(t))); d != "" {
		t.Errorf("made twice, it is not the same: %s", d)
	}
	deb, rpm := only1(t, filepath.Join(dir, "*.deb")), only1(t, filepath.Join(dir, "*.rpm"))
	only1(t, filepath.Join(dir, "klpc-*-linux-amd64.tar.gz"))
	t.Run("rpm", func(t *testing.T) { holds(t, strings.Fields(output(t, "rpm", "-qlp", rpm))) })
	t.Run("deb", func(t *testing.T) {
		var files []string
		for line := range strings.Lines(output(t, "dpkg", "-c", deb)) {
			f := strings.Fields(line)
			files = append(files, strings.TrimSuffix(strings.TrimPrefix(f[len(f)-1], "."), "/"))
			if f[1] != "root/root" {
				t.Errorf("not root's: %s", line)
			}
		}
		holds(t, files)
	})
	t.Run("files", func(t *testing.T) { distFiles(t, deb) })
	t.Run("dpkg", func(t *testing.T) { dpkgInstall(t, deb) })
	t.Run("lintian", func(t *testing.T) {
		if _, err := exec.LookPath("lintian"); err != nil {
			t.Skip("lintian is not installed")
		}
		out, _ := exec.Command("lintian", "--fail-on", "error,warning", "--allow-root", deb).CombinedOutput()
		if strings.Contains(string(out), "E: ") || strings.Contains(string(out), "W: ") {
			t.Errorf("%s", out)
		}
	})
}

// sums are the checksums of what make dist has made.
func sums(t *testing.T, dir string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func holds(t *testing.T, files []string) {
	t.Helper()
	for _, want := range packaged {
		if !slices.Contains(files, want) {
			t.Errorf("%s is missing", want)
		}
	}
	for _, f := range files {
		if strings.Contains(f, "go.mod") || strings.HasPrefix(f, "/usr/local") {
			t.Errorf("%s is not to be there", f)
		}
	}
}

// distFiles looks into what is unpacked.
func distFiles(t *testing.T, deb string) {
	root := t.TempDir()
	output(t, "dpkg", "-x", deb, root)
	klpc := filepath.Join(root, "usr/bin/klpc")
	if text := output(t, klpc, "--version"); text != "klpc version 1.2.3\n" {
		t.Errorf("%q", text)
	}
	if kind := output(t, "readelf", "-lW", klpc); strings.Contains(kind, "INTERP") {
		t.Error("the program is not static")
	}
	output(t, "bash", "-n", filepath.Join(root, "usr/share/bash-completion/completions/klpc"))
	page := output(t, "gzip", "-dc", filepath.Join(root, "usr/share/man/man1/klpc-restore.1.gz"))
	if !strings.Contains(page, ".SH NAME") || !strings.Contains(page, "klpc.restore=0") {
		t.Errorf("%s", page)
	}
	for _, dir := range []string{"usr/bin/klpc", "usr/share/man/man1/klpc.1.gz"} {
		info, err := os.Stat(filepath.Join(root, dir))
		if err != nil {
			t.Fatal(err)
		}
		if at := info.ModTime().Unix(); at != 1767225600 {
			t.Errorf("%s bears the time %d", dir, at)
		}
	}
	// The configuration that comes along is one that klpc reads.
	cmd := exec.Command(klpc, "restore", "--dry-run")
	cmd.Env = append(os.Environ(), "KLPC_CONFIG="+filepath.Join(root, "etc/klpc/klpc.conf"), "KLPC_STORE="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// dpkgInstall installs the package into a root of its own, with its scripts, and
// removes it again.
func dpkgInstall(t *testing.T, deb string) {
	if os.Geteuid() != 0 {
		t.Skip("only root can install a package")
	}
	root := t.TempDir()
	for _, d := range []string{"bin", "usr/bin", "var/lib/dpkg/info", "var/lib/dpkg/updates", "tmp", "dev"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	output(t, "cp", "/bin/busybox", filepath.Join(root, "bin/sh"))
	files := map[string]string{
		"var/lib/dpkg/status": "", "var/lib/dpkg/available": "", "dev/null": "",
		// In the place of the one of Debian, which is written in Perl.
		"usr/bin/deb-systemd-helper": "#!/bin/sh\necho \"$*\" >>/said\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dpkg := func(args ...string) string {
		t.Helper()
		return output(t, "dpkg", append([]string{"--root=" + root, "--log=/dev/null"}, args...)...)
	}
	said := func() string {
		data, err := os.ReadFile(filepath.Join(root, "said"))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	dpkg("-i", deb)
	if status := dpkg("-s", "klpc"); !strings.Contains(status, "Status: install ok installed") {
		t.Error(status)
	}
	if d := cmp.Diff("unmask klpc.service\n--quiet was-enabled klpc.service\nenable klpc.service\n", said()); d != "" {
		t.Error(d)
	}
	stored := filepath.Join(root, "var/lib/klpc/6.99.0-toy")
	if err := os.Mkdir(stored, 0o755); err != nil {
		t.Fatal(err)
	}
	dpkg("-i", deb) // again, as an upgrade
	dpkg("-r", "klpc")
	dpkg("-P", "klpc")
	if _, err := os.Stat(filepath.Join(root, "usr/bin/klpc")); err == nil {
		t.Error("the program is still there")
	}
	if _, err := os.Stat(stored); err != nil {
		t.Errorf("what was installed has gone with the package: %v", err)
	}
	if !strings.Contains(said(), "mask klpc.service\npurge klpc.service\n") {
		t.Errorf("%s", said())
	}
}
