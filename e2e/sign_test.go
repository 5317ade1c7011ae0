package e2e

// klpc sign, with the sign-file of a stock kernel.

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klpc/klpc/internal/vm"
	"github.com/klpc/klpc/livetest"
)

func TestSign(t *testing.T) {
	needBoot(t)
	t.Parallel()
	k, program := newestKernel(t), buildProgram(t)
	module := buildStored(t, k, "cmdline")["cmdline"]
	dir := t.TempDir()
	runs := func(wantExit int, name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != wantExit {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	for _, who := range []string{"first", "second"} {
		runs(0, "openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=klpc "+who+" key/", "-keyout", who+".key", "-out", who+".crt")
	}
	signs := func(who string, args ...string) string {
		t.Helper()
		return runs(0, program, append([]string{"sign", "--key", who + ".key", "--cert", who + ".crt", "--progress", "quiet"}, args...)...)
	}
	contains := func(text, want string) {
		t.Helper()
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	contains(runs(0, program, "inspect", module), "  signature: none\n")
	signed := filepath.Join(dir, "livepatch-cmdline.ko")
	contains(signs("first", "--kernel", "debian:"+k.Release, "-o", signed, module), "signed by klpc first key, key ")
	contains(runs(0, program, "inspect", module), "  signature: none\n") // -o leaves it alone
	contains(runs(0, program, "inspect", signed), "  signature: sha256 by klpc first key, key ")
	// In place, with the program itself; one signature is left.
	signFile := filepath.Join(k.Tree.Build, "scripts/sign-file")
	contains(signs("second", "--sign-file", signFile, "--hash", "sha512", signed), "note: the signature by klpc first key was replaced")
	contains(runs(0, program, "inspect", signed), "  signature: sha512 by klpc second key, key ")
	if n := strings.Count(runs(0, "cat", signed), "~Module signature appended~\n"); n != 1 {
		t.Errorf("%d signatures", n)
	}
	before := runs(0, "sha256sum", signed)
	contains(runs(1, program, "sign", "--key", "first.key", "--cert", "first.key", "--kernel", k.Tree.Build, signed), "sign-file: exit status 1")
	if runs(0, "sha256sum", signed) != before {
		t.Error("a failure has changed the module")
	}
	// The kernel takes it as a signed module, of a key that it does not know.
	report, err := livetest.Run(t.Context(), livetest.Options{
		Guest:     livetest.Guest{Kernel: livetest.Kernel{BzImage: k.BzImage, FindModule: k.findModule}, Accel: vm.TCG},
		Livepatch: signed, Checks: []string{cmdlinePatched},
	})
	if err != nil {
		t.Fatal(err)
	}
	wellDone(t, report)
}
