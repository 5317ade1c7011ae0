package e2e

import (
	"os"
	"strings"

	"github.com/klpc/klpc/livetest"
)

// scenarios are all tests of working livepatches.
func scenarios() []scenario {
	return append(headers(), []scenario{
		{name: "cmdline", patched: []string{"vmlinux cmdline_proc_show"},
			steps: onOff("cmdline", part{check: "grep -q livepatch=1 /proc/cmdline"})},
		{name: "module", patched: []string{"dummy dummy_get_stats64"}, steps: moduleSteps},
		bridge(), newNeeds(), constants(), threeFiles(), data(), split(), special(), readdir(), replace(), stack(), sleeping(), callbacks(),
		newFiles(), patchSeries(),
	}...)
}

// steps joins steps and lists of steps.
func steps(parts ...any) []livetest.Step {
	var all []livetest.Step
	for _, p := range parts {
		switch p := p.(type) {
		case livetest.Step:
			all = append(all, p)
		case []livetest.Step:
			all = append(all, p...)
		}
	}
	return all
}

func load(livepatch string) []livetest.Step {
	return steps(livetest.Insmod(module(livepatch)), livetest.WaitTransition(module(livepatch)))
}

func unload(livepatch string) []livetest.Step {
	m := module(livepatch)
	return steps(livetest.Disable(m), livetest.WaitGone(m), livetest.Rmmod(m))
}

// part is one thing to show of a livepatch.
type part struct {
	name      string          // of the part; none: the livepatch does just this
	before    []livetest.Step // without the livepatch
	check     string          // fails without the livepatch, passes with it
	meanwhile []livetest.Step // with the livepatch
	after     []livetest.Step // without it again
}

// onOff is the plain test of a livepatch: load it, look at each part, unload it.
func onOff(livepatch string, parts ...part) func(kernel) []livetest.Step {
	return func(kernel) []livetest.Step {
		var all []livetest.Step
		each := func(of func(part) []livetest.Step) {
			for _, p := range parts {
				for _, s := range of(p) {
					all = append(all, s.In(p.name))
				}
			}
		}
		each(func(p part) []livetest.Step { return steps(p.before, livetest.CheckFails(p.check)) })
		all = append(all, load(livepatch)...)
		each(func(p part) []livetest.Step { return steps(livetest.CheckPasses(p.check), p.meanwhile) })
		all = append(all, unload(livepatch)...)
		each(func(p part) []livetest.Step { return steps(livetest.CheckFails(p.check), p.after) })
		return all
	}
}

// lines is a shell script.
func lines(l ...string) string { return strings.Join(l, "\n") }

// mark lets scripts look at what the kernel has logged since.
const mark = `mark="klpc mark $$ $(cat /proc/uptime)"
echo "<6>$mark" >/dev/kmsg
since() { dmesg | sed -n "/$mark/,\$p"; }`

// dummyReads is a check of the packets that the device dummy0 has received.
func dummyReads(n string) string {
	return `[ "$(cat /sys/class/net/dummy0/statistics/rx_packets)" = ` + n + ` ]`
}

// moduleSteps: the module is there before the livepatch, comes after it and,
// where the kernel can, goes and comes again. Linux 6.1 refuses that (it does
// not clear a module's livepatch relocations when the module goes).
func moduleSteps(k kernel) []livetest.Step {
	reads := dummyReads("4242")
	again := steps(livetest.Rmmod("dummy"), livetest.Insmod("dummy"), livetest.CheckPasses(reads))
	if k.series == "6.1" {
		again = nil
	}
	return steps(
		livetest.Insmod("dummy"), onOff("module", part{check: reads, meanwhile: again})(k), livetest.Rmmod("dummy"),
		load("module"), livetest.Insmod("dummy"), livetest.CheckPasses(reads), again,
		unload("module"), livetest.CheckFails(reads), livetest.Rmmod("dummy"))
}

// bridge: the patched module is there before the livepatch, and comes after it
// together with the module that it needs.
func bridge() scenario {
	check := lines(mark,
		"brctl addbr br9 && brctl addif br9 dummy0 && cd /sys/class/net/br9/bridge || exit 1",
		"echo 1 >stp_state; echo 100 >hello_time", // one BPDU per second
		"before=$(cat /sys/class/net/dummy0/statistics/tx_packets)",
		"ip link set dummy0 up && ip link set br9 up; sleep 3; ip link set br9 down; ip link set dummy0 down",
		`sent=$(($(cat /sys/class/net/dummy0/statistics/tx_packets) - before)); since; echo "sent $sent"`,
		"cd /; brctl delbr br9",
		"[ $sent -gt 0 ] && since | grep -q 'livepatch: bpdu on dummy0' && since | grep -q 'livepatch: address .* is local'")
	return scenario{name: "bridge", patched: []string{"bridge br_send_bpdu", "bridge fdb_add_local", "bridge fdb_find_rcu"},
		steps: func(k kernel) []livetest.Step {
			there := steps(livetest.Insmod("dummy"), livetest.Insmod("bridge"))
			gone := steps(livetest.Rmmod("bridge"), livetest.Rmmod("stp"), livetest.Rmmod("llc"), livetest.Rmmod("dummy"))
			return steps(there, onOff("bridge", part{check: check})(k), gone,
				load("bridge"), there, livetest.CheckPasses(check), unload("bridge"), livetest.CheckFails(check), gone)
		}}
}

// newNeeds: the livepatch needs a module that the patched one does not, so that
// it must be there first.
func newNeeds() scenario {
	there, gone := steps(livetest.Insmod("llc"), livetest.Insmod("dummy")), steps(livetest.Rmmod("dummy"), livetest.Rmmod("llc"))
	return scenario{name: "new-needs", patched: []string{"dummy dummy_get_stats64"},
		steps: func(k kernel) []livetest.Step {
			check := dummyReads("5252")
			return steps(there, onOff("new-needs", part{check: check})(k), gone,
				livetest.Insmod("llc"), load("new-needs"), livetest.Insmod("dummy"), livetest.CheckPasses(check),
				unload("new-needs"), livetest.CheckFails(check), gone)
		}}
}

// constants is one livepatch of a constant table that travels and of a function
// that is weak.
func constants() scenario {
	weak := lines(mark,
		"insmod /modules/dummy.ko; rmmod dummy",
		"since | grep -q 'livepatch: weak function'")
	return scenario{name: "constants",
		livepatches: []livepatch{{name: "constants", patches: []string{"const-table", "weak"}}},
		patched:     []string{"vmlinux proc_pid_status", "vmlinux module_init_section"},
		steps: onOff("constants",
			part{name: "const-table", check: `grep -q '^State:.*S (snoozing)' /proc/1/status`},
			part{name: "weak", check: weak, before: steps(livetest.Insmod("dummy"), livetest.Rmmod("dummy"))})}
}

// threeFiles: each reader of the counter must get a higher number.
func threeFiles() scenario {
	check := lines(
		"set -e",
		`calls() { sed -n 's/^calls=\([0-9]*\) .*/\1/p' /proc/loadavg; }`,
		"a=$(calls)",
		`d=$(sed -n 's/^call \([0-9]*\)$/\1/p' /proc/devices)`,
		"r=$(cat /sys/class/net/dummy0/statistics/rx_packets)",
		"b=$(calls)",
		`echo "$a $d $r $b"`,
		`[ "$a" -ge 100 ] && [ "$d" -gt "$a" ] && [ "$r" -gt "$d" ] && [ "$b" -ge "$r" ]`)
	return scenario{name: "three-files",
		patched: []string{"vmlinux loadavg_proc_show", "vmlinux devinfo_show", "vmlinux count_shared_call new", "dummy dummy_get_stats64"},
		steps: onOff("three-files", part{check: check,
			before: steps(livetest.Insmod("dummy")), after: steps(livetest.Rmmod("dummy"))})}
}

// data is one livepatch of four patches, two of them for the same file.
func data() scenario {
	newThings := lines(
		`say() { sed -n 's/^livepatch: //p' /proc/version; }`,
		`said="$(say)/$(say)/$(say)"; echo "$said"`,
		`[ "$said" = "after none tick 1/after tick tock 2/after tock tick 3" ]`)
	percpu := lines(
		"read before unused </tmp/inode-nr",
		"nr=/proc/sys/fs/inode-nr",
		"set -- $(taskset 1 cat $nr) $(taskset 2 cat $nr) $(taskset 1 cat $nr) $(taskset 2 cat $nr)",
		`echo "$before: $*"`,
		// All reads are counted together, wherever they were done.
		`[ $2 -gt 1000000 ] && [ $4 -gt $2 ] && [ $(($6 - $4)) = $(($4 - $2)) ] && [ $(($8 - $6)) = $(($4 - $2)) ] || exit 1`,
		// As many as before, but for those of a few tasks.
		"[ $1 -gt $((before / 2)) ] && [ $1 -lt $((before * 2)) ]")
	header := lines("exec 5</dev/null", `[ "$(sed -n 's/^livepatch:[[:space:]]*//p' /proc/$$/fdinfo/5)" = 10 ]`)
	return scenario{name: "data",
		livepatches: []livepatch{{name: "data", patches: []string{"new-things", "static-local", "percpu", "header"}}},
		patched: []string{"vmlinux version_proc_show", "vmlinux show_clockwork new", "vmlinux step_one new", "vmlinux step_two new",
			"vmlinux get_next_ino", "vmlinux proc_nr_inodes", "vmlinux seq_show,1"},
		sections: []string{".data..percpu"},
		steps: onOff("data",
			part{name: "new-things", check: newThings},
			staticLocal(),
			part{name: "percpu", check: percpu, before: steps(livetest.Exec("cat /proc/sys/fs/inode-nr >/tmp/inode-nr"))},
			part{name: "header", check: header})}
}

// staticLocal watches the inode numbers of new files in ramfs, all made on one
// CPU. 250 of them, eight apart, use up more than one of the batches of 1024
// that a CPU takes from shared_last_ino.
func staticLocal() part {
	on := func(script ...string) string {
		return "taskset 1 sh -s <<'END'\n" + lines(append([]string{"cd /tmp/ramfs"}, script...)...) + "\nEND"
	}
	by8 := on(
		"rm -f *; : >a; : >b; : >c; : >d",
		"for i in $(stat -c %i *); do [ $((i % 8)) = 0 ] || exit 1; done")
	remember := livetest.Exec(on(": >z; stat -c %i z >/tmp/ino"))
	goOn := livetest.CheckPasses(on(
		"rm -f *; last=$(cat /tmp/ino); i=0",
		"while [ $i -lt 250 ]; do : >$i; i=$((i + 1)); done",
		"stat -c %i * | sort -n >/tmp/inos",
		`echo "before $last, then $(head -n 1 /tmp/inos) to $(tail -n 1 /tmp/inos)"`,
		`[ "$(uniq /tmp/inos | wc -l)" = 250 ] && [ "$(head -n 1 /tmp/inos)" -gt $last ] && [ "$(tail -n 1 /tmp/inos)" -lt $((last + 50000)) ]`))
	return part{name: "static-local", check: by8,
		before:    steps(livetest.Exec("mkdir /tmp/ramfs && mount -t ramfs none /tmp/ramfs"), remember),
		meanwhile: steps(goOn, remember),
		after:     steps(goOn, livetest.Exec("umount /tmp/ramfs"))}
}

// split is one livepatch for functions that GCC has split, cloned, or named
// like others.
func split() scenario {
	cold := lines(
		"mkdir -p /tmp/pts",
		"count() { dmesg | grep -c 'livepatch: bogus options'; }",
		"n=$(count)",
		"mount -t devpts -o bogus none /tmp/pts && exit 1",
		`[ "$(count)" -gt "$n" ]`)
	// tokens, which parse_mount_options uses, is the name of several static tables.
	options := livetest.CheckPasses("mount -t devpts -o mode=0700,ptmxmode=0600 none /tmp/pts && grep -q '/tmp/pts devpts .*mode=700,ptmxmode=600' /proc/mounts && umount /tmp/pts")
	gone := lines(
		"mkdir -p /tmp/proc && mount -t proc -o hidepid=1 none /tmp/proc || exit 1",
		"grep -q '/tmp/proc proc .*gid=4711' /proc/mounts; found=$?",
		"umount /tmp/proc; exit $found")
	return scenario{name: "split",
		livepatches: []livepatch{{name: "split", patches: []string{"cold", "part", "isra", "isra-gone", "constprop", "sympos"}}},
		patched: []string{"vmlinux parse_mount_options", "vmlinux smap_gather_stats.part.0", "vmlinux snmp_seq_show_ipstats.constprop.0.isra.0",
			"vmlinux proc_fill_super", "vmlinux proc_reconfigure", "vmlinux netstat_show.constprop.0", "vmlinux m_show,2"},
		hasSymbols: []string{"parse_mount_options.cold", "proc_apply_options.isra.0"},
		steps: onOff("split",
			part{name: "cold", check: cold, meanwhile: steps(options), after: steps(options)},
			part{name: "part", check: "grep -q 'FilePmdMapped: *4096 kB' /proc/self/smaps"},
			part{name: "isra", check: "grep -q '^Tcp:' /proc/net/snmp && grep -q '^livepatch' /proc/net/snmp"},
			part{name: "isra-gone", check: gone},
			part{name: "constprop", check: "cd /sys/class/net/lo/statistics; for f in *; do read n <$f; [ $n -ge 7000000 ] || exit 1; done"},
			part{name: "sympos",
				check:     "grep -q '^same ' /proc/self/mounts && ! grep -v '^same ' /proc/self/mounts && ! grep -E '^(same|other) ' /proc/modules",
				meanwhile: steps(livetest.CheckPasses("[ -d /sys/kernel/livepatch/livepatch_split/vmlinux/m_show,2 ]"))})}
}

// special is one livepatch for functions with entries in special sections.
func special() scenario {
	zero := lines(
		`[ "$(head -c 1 /dev/zero)" = k ] || exit 1`,
		// One letter for each page of each buffer.
		`[ "$(dd if=/dev/zero bs=64k count=16 2>/dev/null | tr -d '\000' | wc -c)" = 256 ]`)
	return scenario{name: "special", tool: "faults",
		livepatches: []livepatch{{name: "special", patches: []string{"jump-label", "tracepoint", "user-access", "pr-debug", "module-pr-debug", "static-cpu-has"}}},
		patched: []string{"vmlinux proc_sched_show_task", "vmlinux __set_task_comm", "vmlinux read_zero", "vmlinux parse_args",
			"binfmt_misc bm_register_write", "vmlinux walk_pgd_range"},
		sections: []string{"__jump_table", "__bug_table", "__dyndbg", ".altinstructions"},
		steps: onOff("special", jumpLabel(), tracepoint(),
			part{name: "user-access", check: zero, meanwhile: steps(livetest.CheckPasses("faults"))},
			prDebug(), modulePrDebug(),
			part{name: "static-cpu-has", check: lines(
				"printf klpc-walk >/proc/$$/comm",
				`n=0; while read -r key value rest; do`,
				`	[ "$key" = Rss: ] && n=$((n + 1)) && [ "$value" != 0 ] && exit 1`,
				`done </proc/$$/smaps; [ $n -gt 0 ]`)})}
}

// jumpLabel: the key is on when the livepatch is loaded, and then switched.
func jumpLabel() part {
	const key = "/proc/sys/kernel/sched_schedstats"
	return part{name: "jump-label", before: steps(livetest.Exec("echo 1 >" + key)), after: steps(livetest.Exec("echo 0 >" + key)),
		check: lines(
			`says() { grep -q "livepatch: statistics $1" /proc/self/sched && [ "$(grep -c ^wait_sum /proc/self/sched)" = $2 ]; }`,
			"says on 1 && echo 0 >"+key+" && says off 0 && echo 1 >"+key+" && says on 1")}
}

// tracepoint: besides the renaming, the event must fire with and without the
// livepatch, and a warning in the patched function must be reported as one,
// once, with a stack trace that leads through the function.
func tracepoint() part {
	rename := lines(
		"printf klpc-before >/proc/$$/comm",
		"read -r name </proc/$$/comm",
		`[ "$name" = klpc-after ]`)
	event := livetest.CheckPasses(lines(
		"cd /sys/kernel/tracing || exit 1",
		"echo >trace; echo 1 >events/task/task_rename/enable",
		"printf klpc-event >/proc/$$/comm",
		"echo 0 >events/task/task_rename/enable",
		"printf klpc-quiet >/proc/$$/comm",
		"cat trace",
		"grep -q newcomm=klpc-event trace && ! grep -q newcomm=klpc-quiet trace"))
	warn := livetest.CheckPasses(lines(mark,
		"printf klpc-warn >/proc/$$/comm; printf klpc-warn >/proc/$$/comm",
		"since",
		`[ "$(since | grep -c 'WARNING: .* at fs/exec.c:[0-9]* __set_task_comm+')" = 1 ] || exit 1`,
		// A '?' would stand before an address that the unwinder is not sure of.
		"since | grep -q '^[^?]* comm_write+'"))
	warn.MayWarn = true
	return part{name: "tracepoint", check: rename, before: steps(event), meanwhile: steps(event, warn), after: steps(event)}
}

// prDebug: both the pr_debug that the kernel's code had and the new one are
// switched by the kernel's dynamic debug.
func prDebug() part {
	const control = "/proc/dynamic_debug/control"
	check := lines(mark,
		"echo 'func parse_args +p' >"+control,
		"insmod /modules/dummy.ko numdummies=1 klpc_any=7",
		"echo 'func parse_args -p' >"+control,
		"rmmod dummy",
		"since",
		"since | grep -q \"doing dummy, parsing ARGS: 'numdummies=1 klpc_any=7\" || exit 1",
		"since | grep -q 'livepatch: argument klpc_any of dummy' || exit 1",
		"since | grep -q \"unknown parameter 'klpc_any'\" && exit 1",
		mark,
		"insmod /modules/dummy.ko numdummies=1; rmmod dummy",
		"since | grep -E 'doing dummy|livepatch: argument' && exit 1",
		`grep -q '\[livepatch_special\]parse_args ' `+control)
	old := livetest.CheckPasses(lines(mark,
		"echo 'func parse_args module params +p' >"+control,
		"insmod /modules/dummy.ko numdummies=1",
		"echo 'func parse_args -p' >"+control,
		"rmmod dummy",
		"since | grep -q 'doing dummy, parsing ARGS' && ! since | grep 'livepatch: argument'"))
	return part{name: "pr-debug", check: check,
		// So that the guest has the module.
		before:    steps(livetest.Insmod("dummy"), livetest.Rmmod("dummy"), old),
		meanwhile: steps(old), after: steps(old)}
}

func modulePrDebug() part {
	check := lines(
		"cd /tmp/binfmt || exit 1",
		"echo ':klpc_before:E::klpc::/bin/true:' >register",
		"ls; [ -e klpc_after ]; found=$?",
		"for f in klpc_*; do echo -1 >$f; done; exit $found")
	return part{name: "module-pr-debug", check: check,
		before: steps(livetest.Insmod("binfmt_misc"), livetest.Exec("mkdir -p /tmp/binfmt && mount -t binfmt_misc none /tmp/binfmt")),
		after:  steps(livetest.Exec("umount /tmp/binfmt"), livetest.Rmmod("binfmt_misc"))}
}

// readdir: besides its own effect, bad addresses must give EFAULT.
func readdir() scenario {
	hidden := lines(
		"mkdir -p /tmp/dir; : >/tmp/dir/klpc-hidden-1; : >/tmp/dir/seen",
		`[ "$(ls /tmp/dir)" = seen ]`)
	faults := livetest.CheckPasses("faults")
	return scenario{name: "readdir", tool: "faults", patched: []string{"vmlinux filldir64"},
		sections: []string{"__ex_table", ".altinstructions"},
		steps:    onOff("readdir", part{check: hidden, before: steps(faults), meanwhile: steps(faults), after: steps(faults)})}
}

// The effects of replace-1 and replace-2.
const (
	versionOne = "grep -q version=1 /proc/cmdline"
	versionTwo = "grep -q version=2 /proc/cmdline"
	onlyInOne  = "grep -q '^one ' /proc/loadavg"
)

// replace: version 2 takes the place of version 1, with all of it.
func replace() scenario {
	one, two := module("replace-1"), module("replace-2")
	exists := func(m string) string { return "[ -e /sys/kernel/livepatch/" + m + " ]" }
	return scenario{name: "replace", livepatches: []livepatch{{name: "replace-1"}, {name: "replace-2"}},
		steps: func(kernel) []livetest.Step {
			return steps(
				livetest.CheckFails(versionOne), livetest.CheckFails(onlyInOne),
				load("replace-1"), livetest.CheckPasses(versionOne), livetest.CheckPasses(onlyInOne), livetest.CheckPasses(exists(one)),
				load("replace-2"), livetest.CheckPasses(versionTwo), livetest.CheckFails(versionOne), livetest.CheckFails(onlyInOne),
				livetest.WaitGone(one), livetest.CheckFails(exists(one)), livetest.CheckPasses(exists(two)),
				livetest.Rmmod(one), livetest.CheckPasses(versionTwo),
				unload("replace-2"), livetest.CheckFails(versionTwo), livetest.CheckFails(versionOne))
		}}
}

// stack: without replacing, the last livepatch wins, and taking it away brings
// the one below back.
func stack() scenario {
	return scenario{name: "stack",
		livepatches: []livepatch{
			{name: "stack-1", patches: []string{"replace-1"}, noReplace: true},
			{name: "stack-2", patches: []string{"replace-2"}, noReplace: true}},
		steps: func(kernel) []livetest.Step {
			return steps(
				load("stack-1"), livetest.CheckPasses(versionOne), livetest.CheckPasses(onlyInOne),
				load("stack-2"), livetest.CheckPasses(versionTwo), livetest.CheckFails(versionOne), livetest.CheckPasses(onlyInOne),
				unload("stack-2"), livetest.CheckPasses(versionOne), livetest.CheckPasses(onlyInOne),
				unload("stack-1"), livetest.CheckFails(versionOne), livetest.CheckFails(onlyInOne))
		}}
}

// sleeping: a task sleeps in a patched function. While it does, another
// livepatch must become active at once, for which the kernel has to know the
// task's stack for sure (otherwise it would stir the task up after 15 seconds),
// and the livepatch of that function must stay.
func sleeping() scenario {
	asleep := livetest.CheckPasses(lines(
		"stack=/proc/$(cat /tmp/reader)/stack; cat $stack",
		`grep -q 'pipe_read+.*\[livepatch_sleeping\]' $stack`))
	begin := livetest.Exec(lines(
		"mkfifo /tmp/fifo",
		"setsid sleep 1000 >/tmp/fifo 2>&1 &",
		"setsid cat /tmp/fifo >/tmp/got 2>&1 &",
		"echo $! >/tmp/reader",
		"sleep 1"))
	atOnce := livetest.CheckPasses(lines(
		"i=0; while [ $i -lt 100 ]; do",
		"	[ \"$(cat /sys/kernel/livepatch/livepatch_awake/transition)\" = 0 ] && exit 0",
		"	i=$((i + 1)); sleep 0.1",
		"done; exit 1"))
	stays := livetest.CheckPasses("sleep 3; [ \"$(cat /sys/kernel/livepatch/livepatch_sleeping/transition)\" = 1 ]")
	sleep, awake := module("sleeping"), module("awake")
	fails := "! echo | dd bs=4711 count=1 of=/dev/null 2>/dev/null"
	return scenario{name: "sleeping", patched: []string{"vmlinux pipe_read"},
		livepatches: []livepatch{{name: "sleeping", noReplace: true}, {name: "awake", patches: []string{"cmdline"}, noReplace: true}},
		steps: func(kernel) []livetest.Step {
			return steps(
				livetest.CheckFails(fails), load("sleeping"), livetest.CheckPasses(fails), begin, asleep,
				livetest.Insmod(awake), atOnce, asleep, unload("awake"), asleep,
				livetest.Disable(sleep), stays, asleep, livetest.Exec("killall sleep"),
				livetest.WaitGone(sleep), livetest.Rmmod(sleep), livetest.CheckFails(fails))
		}}
}

// callbacks: the order is that of kernel/livepatch: all before the transition,
// all after it; for a module that comes or goes, its own alone.
func callbacks() scenario {
	check := "grep -q ^callbacks /proc/loadavg && " + dummyReads("1313")
	// said is what the callbacks have logged since the last forget.
	const said = `said() { dmesg | sed -n 's/.*livepatch: \(\(vmlinux\|dummy\) .*patch\)$/\1/p'; }`
	ran := func(want ...string) livetest.Step {
		return livetest.CheckPasses(lines(said,
			"new=$(said | tail -n +$(($(cat /tmp/said) + 1)))",
			`echo "$new"`,
			"[ \"$new\" = '"+lines(want...)+"' ]"))
	}
	forget := livetest.Exec(lines(said, "said | wc -l >/tmp/said"))
	both := func(when ...string) []string {
		var all []string
		for _, w := range when {
			all = append(all, "vmlinux "+w, "dummy "+w)
		}
		return all
	}
	return scenario{name: "callbacks", patched: []string{"vmlinux loadavg_proc_show", "dummy dummy_get_stats64"},
		steps: func(k kernel) []livetest.Step {
			return steps(
				livetest.Insmod("dummy"), forget,
				onOff("callbacks", part{check: check, meanwhile: steps(ran(both("pre_patch", "post_patch")...), forget)})(k),
				ran(both("pre_unpatch", "post_unpatch")...), forget, livetest.Rmmod("dummy"),
				load("callbacks"), ran("vmlinux pre_patch", "vmlinux post_patch"), forget,
				livetest.Insmod("dummy"), livetest.CheckPasses(check), ran("dummy pre_patch", "dummy post_patch"), forget,
				livetest.Rmmod("dummy"), ran("dummy pre_unpatch", "dummy post_unpatch"), forget,
				unload("callbacks"), ran("vmlinux pre_unpatch", "vmlinux post_unpatch"))
		}}
}

// headers are changes of headers alone: read by two units and used by one; read by
// most of the kernel and used by few; and, where time does not matter, used by more
// than a dozen, in vmlinux and in modules.
func headers() []scenario {
	all := []scenario{
		{name: "header-one-user", patched: []string{"vmlinux proc_fd_link", "vmlinux seq_show,1"},
			steps: onOff("header-one-user", part{check: fd9})},
		// In 6.1 the change reaches a copy of an inline function, which has no ftrace entry.
		{name: "header-wide", series: "6.12", patched: []string{"vmlinux do_task_stat", "vmlinux proc_pid_status"},
			steps: onOff("header-wide", part{check: idleTasks})},
	}
	if os.Getenv("KLPC_TEST_ALL") == "1" {
		all = append(all, scenario{name: "header-dozens", patched: []string{"vmlinux proc_readdir_de", "vmlinux proc_task_readdir"},
			steps: onOff("header-dozens", part{check: dotEntry})})
	}
	return all
}

// The checks of headers.
const (
	// /proc/PID/fd/9 leads to what descriptor 0 is.
	fd9 = `sh -c 'exec 9</proc/version 0</dev/null; readlink /proc/$$/fd/9' | grep -qx /dev/null`
	// The first entry of a folder has another name.
	dotEntry = `[ "$(echo /proc/self/task/.l*)" = /proc/self/task/.livepatch ] || [ "$(echo /proc/.l*)" = /proc/.livepatch ]`
	// No task is idle: they wait for a disk.
	idleTasks = `! grep -q '^State:.*idle' /proc/[0-9]*/status && grep -q '^State:.*disk sleep' /proc/[0-9]*/status`
)
