package livetest

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/internal/vm"
)

// Environment of the tests that boot a kernel.
const (
	imageVariable     = "KLPC_TEST_BZIMAGE"   // a bzImage
	livepatchVariable = "KLPC_TEST_LIVEPATCH" // a livepatch for it that makes /proc/cmdline say livepatch=1
	accelVariable     = "KLPC_TEST_ACCEL"     // tcg (default), kvm or auto
)

// testGuest is a guest with the kernel that the environment names.
func testGuest(t *testing.T) Guest {
	t.Helper()
	image := os.Getenv(imageVariable)
	if image == "" {
		t.Skipf("%s is not set: no kernel to boot", imageVariable)
	}
	g := Guest{Kernel: Kernel{BzImage: image}, Accel: vm.TCG}
	if a := os.Getenv(accelVariable); a != "" {
		g.Accel = vm.Accel(a)
	}
	return g
}

// outcome is what the tests compare of a step.
type outcome struct {
	Name   string
	Exit   int
	Output string
	OK     bool
}

func outcomes(r *Report) []outcome {
	var out []outcome
	for _, s := range r.Steps {
		out = append(out, outcome{s.Name(), s.Exit, s.Output, s.OK})
	}
	return out
}

func TestBootScript(t *testing.T) {
	g := testGuest(t)
	tool := t.TempDir() + "/tool"
	if err := os.WriteFile(tool, []byte("#!/bin/sh\necho \"tool says $1\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	g.Files = map[string]string{"/opt/tool": tool}
	var events []string
	g.Progress = func(e Event) {
		if e.Result != nil {
			events = append(events, e.Step.Subject)
		}
	}
	report, err := Script(t.Context(), g, []Step{
		CheckPasses(`echo "a 'quoted' \$word"; printf 'no newline'`),
		CheckFails("exit 3"),
		CheckPasses("false"),
		Show("/opt/tool hello; exit 9"),
		Exec("printf '@klpc done\\n\\000\\r\\n'"),
		{Kind: KindCheck, Subject: "echo 'BUG: expected' >/dev/kmsg", Expect: Pass, MayWarn: true},
		CheckPasses("echo 'BUG: not expected' >/dev/kmsg"),
		Exec("false"),
		CheckPasses("true"),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []outcome{
		{`check: echo "a 'quoted' \$word"; printf 'no newline'`, 0, "a 'quoted' $word\nno newline", true},
		{"check: exit 3", 3, "", true},
		{"check: false", 1, "", false},
		{"show: /opt/tool hello; exit 9", 9, "tool says hello\n", true},
		{"exec: printf '@klpc done\\n\\000\\r\\n'", 0, "@klpc done\n\x00\r\n", true},
		{"check: echo 'BUG: expected' >/dev/kmsg", 0, "", true},
		{"check: echo 'BUG: not expected' >/dev/kmsg", 0, "", true},
		{"exec: false", 1, "", false},
		{"check: true", notRun, "", false},
	}
	if d := cmp.Diff(want, outcomes(report)); d != "" {
		t.Error(d)
	}
	if len(report.Log) != 1 || report.Log[0].Step != 6 || !strings.HasSuffix(report.Log[0].Text, "BUG: not expected") {
		t.Errorf("faults in the log: %v", report.Log)
	}
	if len(report.Problems) != 4 || report.OK {
		t.Errorf("OK %v, problems %q", report.OK, report.Problems)
	}
	if len(events) != 8 {
		t.Errorf("events: %q", events)
	}
	t.Logf("%.1f s on %s %q", report.Seconds, report.Accel, report.Notes)
}

func TestBootDeaths(t *testing.T) {
	tests := []struct {
		name, command string
		timeout       time.Duration
		problem, log  string
	}{
		{"panic", "echo c >/proc/sysrq-trigger; sleep 60", 0, "the guest died in step 2 (exec: ", "Kernel panic"},
		// On a busy machine it may not even have booted by then.
		{"hang", "sleep 600", 12 * time.Second, "the guest was stopped after 12 s, ", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := testGuest(t)
			var console bytes.Buffer
			g.Timeout, g.Console = tt.timeout, &console
			report, err := Script(t.Context(), g, []Step{CheckPasses("true"), Exec(tt.command), Exec("true")})
			if err != nil {
				t.Fatal(err)
			}
			if report.OK || report.Steps[1].Exit != notRun || report.Steps[2].Exit != notRun {
				t.Errorf("OK %v, steps %v", report.OK, outcomes(report))
			}
			all := strings.Join(report.Problems, "\n")
			if !strings.Contains(all, tt.problem) || !strings.Contains(all, tt.log) {
				t.Errorf("problems: %s", all)
			}
			if len(report.Console) == 0 || len(report.Console) > lastLines || console.Len() == 0 {
				t.Errorf("console: %d lines, %d bytes live", len(report.Console), console.Len())
			}
		})
	}
}

func TestBootStepLimit(t *testing.T) {
	g := testGuest(t)
	g.StepLimit = 2 * time.Second
	report, err := Script(t.Context(), g, []Step{CheckFails("sleep 100"), CheckPasses("true")})
	if err != nil {
		t.Fatal(err)
	}
	if got := report.Steps[0].Problem; got != "was killed after 2 s" || !report.Steps[1].OK {
		t.Errorf("%q, %v", got, outcomes(report))
	}
}

func TestBootLivepatch(t *testing.T) {
	g := testGuest(t)
	livepatch := os.Getenv(livepatchVariable)
	if livepatch == "" {
		t.Skipf("%s is not set: no livepatch to load", livepatchVariable)
	}
	report, err := Run(t.Context(), Options{
		Guest: g, Livepatch: livepatch,
		Checks: []string{"grep livepatch=1 /proc/cmdline"},
		Shows:  []string{"cat /proc/cmdline"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !report.OK {
		t.Errorf("problems:\n%s", strings.Join(report.Problems, "\n"))
	}
	for _, s := range report.Steps {
		t.Logf("%-24s %-40s %3d %5.2f s %q", s.Phase, s.Name(), s.Exit, s.Seconds, s.Output)
	}
	t.Logf("%.1f s on %s %q", report.Seconds, report.Accel, report.Notes)
}
