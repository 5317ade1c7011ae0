package livetest

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestStepScript(t *testing.T) {
	tests := []struct {
		name  string
		step  Step
		order []string
		want  string // after the functions that steps share
	}{
		{"load", Insmod("veth"), []string{"veth"}, "exec insmod /modules/veth.ko\n"},
		{"load with others", Insmod("xt_mark"), []string{"x_tables", "xt_mark"},
			"[ -e /sys/module/x_tables/initstate ] || insmod /modules/x_tables.ko || exit 125\n" +
				"exec insmod /modules/xt_mark.ko\n"},
		{"remove", Rmmod("dm-mod"), nil, `[ -e /sys/module/dm_mod ] || { echo "dm_mod is not loaded"; exit 1; }
end=$(($(up) + 10))
until said=$(rmmod dm_mod 2>&1); do
	[ "$(up)" -lt $end ] || { echo "$said"; exit 1; }
	sleep 0.1
done
`},
		{"transition", WaitTransition("lp-1"), nil,
			`[ -e /sys/kernel/livepatch/lp_1 ] || { echo "lp_1 is not an active livepatch"; exit 1; }
read -r want </sys/kernel/livepatch/lp_1/enabled
pending() { read -r state 2>/dev/null </sys/kernel/livepatch/lp_1/transition && [ "$state" != 0 ]; }
await 60 "$want"
`},
		{"disable", Disable("lp"), nil, "echo 0 >/sys/kernel/livepatch/lp/enabled\n"},
		{"gone", WaitGone("lp"), nil, "pending() { [ -e /sys/kernel/livepatch/lp ]; }\nawait 60 0\n"},
		{"check", CheckFails(`grep "x" 'y'`), nil, "grep \"x\" 'y'\n"},
		{"exec", Exec("a\nb"), nil, "a\nb\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := stepScript(tt.step, tt.order)
			if d := cmp.Diff(tt.want, strings.TrimPrefix(got, functions)); d != "" {
				t.Error(d)
			}
			checkSyntax(t, got)
		})
	}
}

// checkSyntax has the shell read a script without running it.
func checkSyntax(t *testing.T, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-n")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("sh -n: %v\n%s", err, out)
	}
}

func TestInitScript(t *testing.T) {
	got := initScript([]Step{
		Insmod("a"), InsmodFails("b"), CheckPasses("c"), CheckFails("d"), Show("e"), Exec("f"),
	}, 90*time.Second)
	want := `limit=90 max=65536
run 0 || finish
run 1 && finish
run 2
run 3
run 4
run 5 || finish
finish
`
	if d := cmp.Diff(want, strings.TrimPrefix(got, initHead)); d != "" {
		t.Error(d)
	}
	checkSyntax(t, got)
}

func TestGuestFiles(t *testing.T) {
	mods := &modules{byName: map[string]*module{
		"b": {name: "b", data: []byte("B"), depends: []string{"a"}},
		"a": {name: "a", data: []byte("A")},
	}}
	files, err := guestFiles([]Step{Insmod("b"), CheckPasses("true")}, mods)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range files {
		got[f.Path] = string(f.Data)
	}
	want := map[string]string{
		"steps/0":      "[ -e /sys/module/a/initstate ] || insmod /modules/a.ko || exit 125\nexec insmod /modules/b.ko\n",
		"steps/1":      "true\n",
		"modules/a.ko": "A",
		"modules/b.ko": "B",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestSequence(t *testing.T) {
	o := Options{Targets: []string{"veth"}, Checks: []string{"c"}, Shows: []string{"s"}}
	tests := []struct {
		name  string
		order Order
		want  []string
	}{
		{"targets first", TargetsFirst, []string{
			"before loading: load veth pass", "before loading: show: s any", "before loading: check: c fail",
			"loading: load lp pass", "loading: wait for the transition of lp pass",
			"patched: show: s any", "patched: check: c pass",
			"disabling and removal: disable lp pass", "disabling and removal: wait until lp is disabled pass",
			"disabling and removal: remove lp pass",
			"after removal: show: s any", "after removal: check: c fail",
		}},
		{"targets late", TargetsLate, []string{
			"before loading: show: s any", "before loading: check: c fail",
			"loading: load lp pass", "loading: wait for the transition of lp pass", "loading: load veth pass",
			"patched: show: s any", "patched: check: c pass",
			"disabling and removal: disable lp pass", "disabling and removal: wait until lp is disabled pass",
			"disabling and removal: remove lp pass",
			"after removal: show: s any", "after removal: check: c fail",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o.Order = tt.order
			var got []string
			for _, s := range Sequence("lp", o) {
				got = append(got, s.Phase+": "+s.Name()+" "+string(s.Expect))
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestStepCheck(t *testing.T) {
	tests := []struct {
		step Step
		want string
	}{
		{Insmod("dm-mod"), ""},
		{CheckPasses("true"), ""},
		{Insmod("a b"), `"a b" is not a module name`},
		{Disable("$(reboot)"), `"$(reboot)" is not a module name`},
		{Rmmod(""), `"" is not a module name`},
		{WaitGone(strings.Repeat("x", 56)), `"` + strings.Repeat("x", 56) + `" is not a module name`},
		{CheckFails(""), "check: no command"},
		{Step{}, `unknown kind of step ""`},
	}
	for _, tt := range tests {
		got := ""
		if err := tt.step.check(); err != nil {
			got = err.Error()
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Error(d)
		}
	}
}
