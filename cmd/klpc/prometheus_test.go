package main

import (
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/livepatch"
	"github.com/klpc/klpc/store"
)

// metricsOf reads metrics as Prometheus does: "name{label=value,...}" to value.
func metricsOf(t *testing.T, text string) map[string]float64 {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("Prometheus cannot read it: %v\n%s", err, text)
	}
	got := map[string]float64{}
	for name, f := range families {
		if f.GetType() != dto.MetricType_GAUGE || f.GetHelp() == "" {
			t.Errorf("%s: type %v, help %q", name, f.GetType(), f.GetHelp())
		}
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			got[name+"{"+strings.Join(labels, ",")+"}"] = m.Gauge.GetValue()
		}
	}
	return got
}

func TestPrometheus(t *testing.T) {
	when := time.Unix(0, 0)
	s := &status{
		State: &livepatch.State{
			Release: "6.12", Supported: true, Unreadable: []string{"x"},
			Patches: []livepatch.Patch{
				{Name: "a", Phase: livepatch.Enabled, Enabled: true, Objects: []livepatch.Object{
					{Name: "vmlinux", Patched: true, Functions: []livepatch.Function{{Name: "f"}, {Name: "g"}}}, {Name: "dummy"}}},
				{Name: "b", Phase: livepatch.Disabling, Transition: true, Tasks: &livepatch.Tasks{Total: 10, Switched: 7, Unknown: 1}},
			},
		},
		Installed: []installed{
			{"6.1", stateNotAccepted, store.Patch{Name: "a"}},
			{"6.12", stateAccepted, store.Patch{Name: "a", Accepted: true, CVEs: []string{"CVE-2026-0001"}}},
			{"6.12", stateAccepted, store.Patch{Name: "c", Accepted: true, CVEs: []string{"CVE-2026-0002"}, Failed: &store.Failure{At: when}}},
			{"6.12", stateHeld, store.Patch{Name: "d", Held: &store.Hold{Kind: store.HeldLoading}}},
		},
	}
	want := map[string]float64{
		"klpc_kernel_info{release=6.12,supported=true,klpc=" + version() + "}": 1,

		"klpc_patches{state=enabled}": 1, "klpc_patches{state=enabling}": 0, "klpc_patches{state=disabling}": 1, "klpc_patches{state=disabled}": 0,
		"klpc_unreadable{}":              1,
		"klpc_patch_enabled{patch=a}":    1,
		"klpc_patch_enabled{patch=b}":    0,
		"klpc_patch_transition{patch=a}": 0, "klpc_patch_transition{patch=b}": 1,
		"klpc_patch_tasks_left{patch=a}": 0, "klpc_patch_tasks_left{patch=b}": 2,
		"klpc_patch_tasks{patch=a}": 0, "klpc_patch_tasks{patch=b}": 10,
		"klpc_patch_functions{patch=a}": 2, "klpc_patch_functions{patch=b}": 0,
		"klpc_patch_objects_waiting{patch=a}": 1, "klpc_patch_objects_waiting{patch=b}": 0,

		"klpc_installed_patches{release=6.1,state=accepted}": 0, "klpc_installed_patches{release=6.1,state=not accepted}": 1,
		"klpc_installed_patches{release=6.1,state=held back}": 0, "klpc_installed_patches{release=6.12,state=accepted}": 2,
		"klpc_installed_patches{release=6.12,state=not accepted}": 0, "klpc_installed_patches{release=6.12,state=held back}": 1,
		"klpc_installed_patch_accepted{release=6.1,patch=a}": 0, "klpc_installed_patch_accepted{release=6.12,patch=a}": 1,
		"klpc_installed_patch_accepted{release=6.12,patch=c}": 1, "klpc_installed_patch_accepted{release=6.12,patch=d}": 0,
		"klpc_installed_patch_held{release=6.1,patch=a,reason=}": 0, "klpc_installed_patch_held{release=6.12,patch=a,reason=}": 0,
		"klpc_installed_patch_held{release=6.12,patch=c,reason=}": 0, "klpc_installed_patch_held{release=6.12,patch=d,reason=loading}": 1,
		"klpc_installed_patch_failed{release=6.1,patch=a}": 0, "klpc_installed_patch_failed{release=6.12,patch=a}": 0,
		"klpc_installed_patch_failed{release=6.12,patch=c}": 1, "klpc_installed_patch_failed{release=6.12,patch=d}": 0,
		"klpc_accepted_patch_not_enabled{patch=a}": 0, "klpc_accepted_patch_not_enabled{patch=c}": 1, "klpc_accepted_patch_not_enabled{patch=d}": 0,
		"klpc_cve_fixed{cve=CVE-2026-0001,patch=a}": 1, "klpc_cve_fixed{cve=CVE-2026-0002,patch=c}": 0,
	}
	if d := cmp.Diff(want, metricsOf(t, s.prometheus())); d != "" {
		t.Error(d)
	}
}

// TestPrometheusLabels: values that would end a label or a line do not.
func TestPrometheusLabels(t *testing.T) {
	m := metric{name: "m", help: "h"}
	m.add(1, label{"a", "quote \" backslash \\ line\nend"}, label{"b", "not UTF-8 \xff"})
	text := "# HELP m h\n# TYPE m gauge\n" + m.samples[0] + "\n"
	want := map[string]float64{"m{a=quote \" backslash \\ line\nend,b=not UTF-8 \uFFFD}": 1}
	if d := cmp.Diff(want, metricsOf(t, text)); d != "" {
		t.Error(d)
	}
}
