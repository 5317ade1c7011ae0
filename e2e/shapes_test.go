package e2e

import "github.com/klpc/klpc/livetest"

// newFiles adds a source file to vmlinux and one to a module.
func newFiles() scenario {
	kernel := lines(
		`line=$(cat /proc/cmdline); echo "$line"`,
		`n=$(echo "$line" | sed -n 's/.*livepatch: new file, [1-9][0-9]* processes, doi missing, call \([0-9]*\)$/\1/p')`,
		// The numbers begin where the new option says.
		`[ "$n" -gt 42 ] || exit 1`,
		// The variable of the new file lives on.
		`grep -q ", call $((n + 1))$" /proc/cmdline`)
	module := lines(
		"cd /tmp/ovl && mkdir -p lower upper work merged || exit 1",
		"mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay merged || exit 1",
		"stat -f -c %l merged | grep -qx 4242; found=$?",
		"umount merged; exit $found")
	return scenario{name: "new-files",
		livepatches: []livepatch{{name: "new-files", patches: []string{"new-file", "new-file-module"}}},
		patched: []string{"vmlinux cmdline_proc_show", "vmlinux klpc_new_show new", "vmlinux show_count new", "vmlinux show_doi new", "vmlinux m_show new",
			"overlay ovl_statfs", "overlay ovl_klpc_namelen new"},
		globals: []string{"calipso_doi_getdef"},
		steps: onOff("new-files",
			part{name: "vmlinux", check: kernel},
			part{name: "module", check: module,
				before: steps(livetest.Insmod("overlay"), livetest.Exec("mkdir -p /tmp/ovl && mount -t tmpfs none /tmp/ovl")),
				after:  steps(livetest.Exec("umount /tmp/ovl"), livetest.Rmmod("overlay"))})}
}

// patchSeries is a folder with three patches. Later ones change what earlier ones
// have added, give options to a new file and to an old one, and remove a file
// whose function moves to those who call it. A task that had been looked up
// before must be found in all of them.
func patchSeries() scenario {
	numbers := livetest.CheckPasses("[ -e /proc/self/fd/0 ] && [ ! -e /proc/self/fd/x0 ] && [ -d /proc/1/task/1 ]")
	return scenario{name: "series",
		patched: []string{"vmlinux loadavg_proc_show", "vmlinux klpc_series new", "vmlinux cmdline_proc_show", "vmlinux proc_pid_lookup", "vmlinux __proc_create"},
		steps: onOff("series",
			part{name: "new file of an earlier patch", check: "grep -q '^series 3 of 3 [0-9]' /proc/loadavg"},
			part{name: "options", check: "grep -q 'livepatch: option 7$' /proc/cmdline"},
			part{name: "removed file", check: "[ -e /proc/self/fd/+0 ] && [ -d /proc/+1 ] && [ ! -e /proc/self/fd/++0 ]",
				before: steps(numbers), meanwhile: steps(numbers), after: steps(numbers)})}
}
