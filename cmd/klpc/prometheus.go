package main

// The state as text for Prometheus, such as node_exporter's textfile collector
// reads: https://prometheus.io/docs/instrumenting/exposition_formats/.

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/klpc/klpc/livepatch"
)

// metric is one metric with its samples, in the order in which they are added.
type metric struct {
	name, help string
	samples    []string
}

// label is a label of a sample.
type label struct{ name, value string }

func (m *metric) add(value int, labels ...label) {
	text := m.name
	for i, l := range labels {
		separator := ","
		if i == 0 {
			separator = "{"
		}
		text += separator + l.name + `="` + escapeLabel(l.value) + `"`
	}
	if len(labels) > 0 {
		text += "}"
	}
	m.samples = append(m.samples, text+" "+strconv.Itoa(value))
}

// escapeLabel escapes what would end a label's value, or its line. Values must
// be UTF-8.
func escapeLabel(value string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(strings.ToValidUTF8(value, "\uFFFD"))
}

// prometheus is the state as metrics: the same state gives the same text. All
// are gauges.
func (s *status) prometheus() string {
	all := slices.Concat(s.kernelMetrics(), s.patchMetrics(), s.installedMetrics())
	var b strings.Builder
	for _, m := range all {
		if len(m.samples) == 0 {
			continue
		}
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %[1]s gauge\n", m.name, m.help)
		for _, sample := range m.samples {
			b.WriteString(sample + "\n")
		}
	}
	return b.String()
}

func (s *status) kernelMetrics() []metric {
	info := metric{name: "klpc_kernel_info", help: "The running kernel; supported: whether it has livepatching."}
	info.add(1, label{"release", s.Release}, label{"supported", strconv.FormatBool(s.Supported)}, label{"klpc", version()})
	patches := metric{name: "klpc_patches", help: "Livepatches that the kernel knows, by state."}
	for _, phase := range []livepatch.Phase{livepatch.Enabled, livepatch.Enabling, livepatch.Disabling, livepatch.Disabled} {
		n := 0
		for _, p := range s.Patches {
			if p.Phase == phase {
				n++
			}
		}
		patches.add(n, label{"state", string(phase)})
	}
	unreadable := metric{name: "klpc_unreadable", help: "Things of the state that could not be read; klpc status names them."}
	unreadable.add(len(s.Unreadable))
	return []metric{info, patches, unreadable}
}

// patchMetrics are about each loaded livepatch.
func (s *status) patchMetrics() []metric {
	enabled := metric{name: "klpc_patch_enabled", help: "1 if every task runs the livepatch's code, or is on the way to it."}
	transition := metric{name: "klpc_patch_transition", help: "1 while the livepatch is in transition."}
	left := metric{name: "klpc_patch_tasks_left", help: "Tasks that have not switched in the livepatch's transition."}
	total := metric{name: "klpc_patch_tasks", help: "Tasks that take part in the livepatch's transition."}
	functions := metric{name: "klpc_patch_functions", help: "Functions that the livepatch replaces."}
	waiting := metric{name: "klpc_patch_objects_waiting", help: "Modules that the livepatch would patch and that are not loaded."}
	for _, p := range s.Patches {
		l := label{"patch", p.Name}
		enabled.add(number(p.Enabled), l)
		transition.add(number(p.Transition), l)
		var tasks livepatch.Tasks
		if p.Tasks != nil {
			tasks = *p.Tasks
		}
		left.add(tasks.Left(), l)
		total.add(tasks.Total, l)
		n, w := 0, 0
		for _, o := range p.Objects {
			n += len(o.Functions)
			if !o.Patched {
				w++
			}
		}
		functions.add(n, l)
		waiting.add(w, l)
	}
	return []metric{enabled, transition, left, total, functions, waiting}
}

// installedMetrics are about the patch store.
func (s *status) installedMetrics() []metric {
	count := metric{name: "klpc_installed_patches", help: "Livepatches in the store, by kernel release and by what happens at boot."}
	accepted := metric{name: "klpc_installed_patch_accepted", help: "1 if the livepatch is accepted."}
	held := metric{name: "klpc_installed_patch_held", help: "1 if the livepatch is held back at boot, for the reason that the label names."}
	failed := metric{name: "klpc_installed_patch_failed", help: "1 if the livepatch could not be loaded the last time."}
	missing := metric{name: "klpc_accepted_patch_not_enabled", help: "1 if the livepatch is accepted for the running kernel and not enabled."}
	fixed := metric{name: "klpc_cve_fixed", help: "1 if a livepatch that fixes the CVE is enabled, 0 if it is installed for the running kernel only."}
	var releases []string
	for _, i := range s.Installed {
		if !slices.Contains(releases, i.Release) {
			releases = append(releases, i.Release)
		}
		labels := []label{{"release", i.Release}, {"patch", i.Name}}
		accepted.add(number(i.Accepted), labels...)
		failed.add(number(i.Failed != nil), labels...)
		reason := ""
		if i.Held != nil {
			reason = string(i.Held.Kind)
		}
		held.add(number(i.Held != nil), append(labels, label{"reason", reason})...)
		if i.Release != s.Release {
			continue
		}
		p := s.Find(i.Name)
		on := p != nil && p.Phase == livepatch.Enabled
		missing.add(number(i.Accepted && !on), label{"patch", i.Name})
		for _, cve := range i.CVEs {
			fixed.add(number(on), label{"cve", cve}, label{"patch", i.Name})
		}
	}
	for _, r := range releases {
		for _, state := range []string{stateAccepted, stateNotAccepted, stateHeld} {
			n := 0
			for _, i := range s.Installed {
				if i.Release == r && i.State == state {
					n++
				}
			}
			count.add(n, label{"release", r}, label{"state", state})
		}
	}
	return []metric{count, accepted, held, failed, missing, fixed}
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}
