package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestUnitsProgram: each unit that calls klpc calls the one it is told to, and
// the texts in the folder are those of a package.
func TestUnitsProgram(t *testing.T) {
	texts, err := Units("/opt/x/klpc")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for name, text := range texts {
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "Exec") {
				got[name] = append(got[name], strings.TrimSpace(line))
			}
		}
	}
	want := map[string][]string{
		"klpc.service":          {"ExecStart=/opt/x/klpc restore"},
		"klpc-shutdown.service": {"ExecStop=/opt/x/klpc mark clean"},
		"klpc-settled.service":  {"ExecStart=/opt/x/klpc mark settled"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if len(texts) != 4 {
		t.Errorf("%d units", len(texts))
	}
}

// TestUnitsVerify has systemd itself read the units.
func TestUnitsVerify(t *testing.T) {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed: the units are not verified")
	}
	dir := t.TempDir()
	texts, err := Units("/bin/true") // it wants the program to be there
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"verify", "--man=no"}
	for name, text := range texts {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, file)
	}
	if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
	// It does find mistakes.
	file := filepath.Join(dir, Main)
	if err := os.WriteFile(file, []byte("[Service]\nType=sometimes\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(tool, "verify", "--man=no", file).CombinedOutput(); err == nil && len(out) == 0 {
		t.Error("a wrong unit passes")
	}
}
