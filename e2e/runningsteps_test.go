package e2e

import (
	"slices"
	"strings"
)

// recordTree prints what klpc reads, as few programs as possible: lines
// "path:text", and "path:" for a folder or an empty file; of the tasks, those that
// are called in the tests.
const recordTree = `
files=/proc/modules
for p in /proc/[0-9]*; do
	read -r name <$p/comm && case "$name" in cat|sleep|kthreadd) files="$files $p/task/*/patch_state $p/task/*/comm $p/task/*/stack" status="$status $p/task/*/status" ;; esac
done
grep -sH '' /proc/sys/kernel/osrelease $files
grep -sHE '^(Name|State|Tgid|Pid|Kthread|VmSize):' $status
grep -srH '' /sys/kernel/livepatch /sys/kernel/debug/kprobes/list
grep -sH '' /sys/module/livepatch_*/srcversion /sys/module/livepatch_*/initstate
grep -sHE 'klp|^(get_signal|pipe_read|cmdline_proc_show|loadavg_proc_show)' /sys/kernel/tracing/enabled_functions
find /sys/kernel/livepatch -type d | sed 's,$,/:,'
`

// waitOnPipe makes a task sleep in pipe_read; wake ends it. The kernel stirs it up
// after 15 s.
const (
	waitOnPipe = `
[ -e /tmp/fifo ] || mkfifo /tmp/fifo
setsid sleep 1000 >/tmp/fifo 2>&1 &
echo $! >/tmp/writer
setsid cat /tmp/fifo >/tmp/got 2>&1 &
sleep 1
`
	wake = `
kill $(cat /tmp/writer)
sleep 0.5
`
)

// stop makes a task stop in get_signal, where the kernel leaves it alone; goOn
// ends it.
const (
	stop = `
setsid sleep 1000 >/dev/null 2>&1 &
echo $! >/tmp/stopped; sleep 0.5; kill -STOP $!; sleep 0.5
`
	goOn = `
kill -KILL $(cat /tmp/stopped)
sleep 0.5
`
)

// transitionOf waits until a livepatch is in transition, for a minute at most.
func transitionOf(name string) string {
	return `
i=0; until grep -q 1 /sys/kernel/livepatch/` + name + `/transition 2>/dev/null || [ $i = 600 ]; do i=$((i + 1)); sleep 0.1; done
`
}

func runningCommands(k kernel) []command {
	var all []command
	for _, part := range [][]command{prepareCommands(), badCommands(), onePatch(), stalled(), stacked(k), lateModule(), probed(), traced(), unprivileged(), policies()} {
		all = append(all, part...)
	}
	if !*record {
		all = slices.DeleteFunc(all, func(c command) bool { return strings.HasPrefix(c.name, "record ") })
	}
	return all
}

func prepareCommands() []command {
	return []command{
		{name: "prepare", script: `
mkdir -p /etc /var/lib /sys/kernel/security; echo 'root:x:0:0::/:/bin/sh' >/etc/passwd; echo 'user:x:1000:1000::/:/bin/sh' >>/etc/passwd
mount -t securityfs securityfs /sys/kernel/security
ls -l /sys/kernel/tracing/enabled_functions /sys/kernel/debug/kprobes/list; uname -r`, want: []string{"enabled_functions$", "kprobes/list$"}},
		{name: "status without livepatches", script: "klpc status && klpc list && klpc status --json",
			want: []string{`^kernel \S+: no livepatch is loaded$`, `"patches": \[\]`}},
		{name: "record empty", script: recordTree},
	}
}

// badCommands: files that are refused before the kernel sees them, and some that
// only the kernel refuses.
func badCommands() []command {
	return []command{
		{name: "garbage", script: "klpc load /bad/garbage.ko", exit: 1, want: []string{`^klpc: load /bad/garbage.ko: .*not an ELF file`}},
		{name: "empty file", script: "klpc load /bad/empty.ko", exit: 1, want: []string{`not an ELF file: it is empty`}},
		{name: "truncated file", script: "klpc load /bad/truncated.ko", exit: 1, want: []string{`^klpc: load /bad/truncated.ko: `}},
		{name: "other machine", script: "klpc load /bad/foreign.ko", exit: 1, want: []string{`made for another machine: EM_AARCH64`}},
		{name: "other release", script: "klpc load /bad/release.ko", exit: 1, want: []string{`release: built for 9+, but \S+ runs here`, `what to do: build it for`}},
		{name: "no livepatch", script: "klpc load /modules/dummy.ko", exit: 1, want: []string{`dummy is a module, but not a livepatch module`}},
		{name: "missing file", script: "klpc load /bad/missing.ko", exit: 1, want: []string{`missing.ko: no such file or directory`}},
		{name: "missing name", script: "klpc load nothing", exit: 1, want: []string{`nothing: not installed for kernel`}},
		{name: "folder", script: "klpc load /bad/", exit: 1, want: []string{`not a regular file`}},
		{name: "vermagic", script: "klpc load /bad/vermagic.ko", exit: 1, may: "version magic",
			want: []string{`does not accept the file \(ENOEXEC`, `kernel: .*version magic`}},
		{name: "no such function", script: "klpc load /bad/symbol.ko", exit: 1, may: "livepatch: ",
			want: []string{`the livepatch core refuses it \(EINVAL`, `kernel: livepatch: symbol 'cmdline_proc_shew' not found in symbol table`}},
		{name: "nothing was loaded", script: "klpc status; cat /proc/modules", want: []string{"no livepatch is loaded"}, never: []string{"livepatch_"}},
		{name: "unload what is not loaded", script: "klpc unload livepatch_one", want: []string{`livepatch_one: not loaded, nothing to do`}},
		{name: "disable what is not loaded", script: "klpc disable livepatch_one", exit: 1, want: []string{`no such livepatch is loaded; none is`}},
		{name: "force without a terminal", script: "klpc force livepatch_one", exit: 2, want: []string{`--yes`, `Usage:`}},
	}
}

// onePatch is the life of a livepatch.
func onePatch() []command {
	return []command{
		{name: "dry run", script: "klpc load --dry-run /modules/livepatch_one.ko; cat /proc/modules",
			want:  []string{`^  release +ok +built for `, `^  atomic replace +ok`, `^  1\. load /modules/livepatch_one.ko$`, `^  2\. wait for the transition of livepatch_one, at most 1m, then reverse it and unload it$`},
			never: []string{"livepatch_one [0-9]"}},
		{name: "load", script: "klpc load /modules/livepatch_one.ko && grep -q version=1 /proc/cmdline", want: []string{`^livepatch_one: enabled$`}},
		{name: "load again", script: "klpc load /modules/livepatch_one.ko", want: []string{`^livepatch_one: enabled already, nothing to do$`}},
		{name: "status of one", script: "klpc status one", want: []string{`^livepatch_one: enabled$`, `^  vmlinux: patched$`, `^    cmdline_proc_show$`, `^    loadavg_proc_show$`, `order 1 of 1`}},
		{name: "status as JSON", script: "klpc status --json", want: []string{`"name": "livepatch_one"`, `"state": "enabled"`, `"stack_order": 1`, `"installed": \[\]`}},
		{name: "list", script: "klpc list", want: []string{`^ORDER +NAME +STATE`, `^1 +livepatch_one +enabled +- .*vmlinux +2$`}},
		{name: "wait for enabled", script: "klpc status --wait enabled --timeout 5s livepatch_one", want: []string{`enabled`}},
		{name: "wait for disabled in vain", script: "klpc status --wait disabled --timeout 1 livepatch_one", exit: 1, want: []string{`not so within 1s \(--wait disabled\); livepatch_one is enabled`}},
		{name: "enable again", script: "klpc enable livepatch_one", want: []string{`enabled already`}},
		{name: "reverse without a transition", script: "klpc reverse livepatch_one", exit: 1, want: []string{`not in transition \(enabled\): there is nothing to reverse`}},
		{name: "force without a transition", script: "klpc force --yes livepatch_one", want: []string{`nothing to force`}},
		{name: "disable", script: "klpc disable --json livepatch_one && ! grep -q version=1 /proc/cmdline", want: []string{`"state": "disabled"`, `"result": "done"`}},
		{name: "disable again", script: "klpc disable livepatch_one", want: []string{`disabled already`}},
		{name: "enable a disabled one", script: "klpc enable livepatch_one", exit: 1, want: []string{`does not enable a disabled livepatch again`, `klpc load`}},
		{name: "status of a disabled one", script: "klpc status", want: []string{`^livepatch_one: disabled$`, `klpc unload livepatch_one removes it`}},
		{name: "load a disabled one", script: "klpc load --json /modules/livepatch_one.ko && grep -q version=1 /proc/cmdline",
			want: []string{`"action": "remove"`, `"action": "insert"`, `"state": "enabled"`}},
		{name: "unload", script: "klpc unload livepatch-one && ! grep -q version=1 /proc/cmdline && ! grep livepatch_one /proc/modules", want: []string{`^livepatch_one: not loaded$`}},
		{name: "unload again", script: "klpc unload livepatch-one", want: []string{`not loaded`}},
	}
}

// stalled: a task is in a function that is to be patched, asleep or stopped.
func stalled() []command {
	const gone = "! grep -q livepatch_stop /proc/modules && echo gone"
	return []command{
		{name: "asleep", script: waitOnPipe + "klpc load --wait 4s /modules/livepatch_sleep.ko; code=$?; ! grep -q livepatch_sleep /proc/modules && echo gone" + wake + "exit $code", exit: 1,
			want: []string{`not complete after 4s; it was reversed and unloaded: the system is as before`, `cat \(process \d+\), S \(sleeping\), in the patched function pipe_read$`,
				`^ +pipe_read\+0x`, `what to do: wait until pipe_read returns.*kill \d+`, `^gone$`}},
		{name: "stopped", script: stop + `
klpc load --wait 20m /modules/livepatch_stop.ko >/tmp/out 2>&1 &
` + transitionOf("livepatch_stop") + `sleep 1
klpc status; klpc list; klpc status --json | grep -A3 '"tasks"'
klpc status --wait transition --timeout 1s; echo waited $?`,
			want: []string{`^livepatch_stop: enabling, \d+ of \d+ tasks have switched$`, `waits for 1 task$`, `sleep \(process \d+\), T \(stopped\), in the patched function get_signal$`,
				`^ +get_signal\+0x`, `let it go on \(kill -CONT \d+\)`, `^1 +livepatch_stop +enabling +\d+/\d+`, `"total": \d+`, `^waited 1$`}},
		{name: "record transition", script: recordTree},
		{name: "lock", script: "klpc load --lock-wait 1s /modules/livepatch_one.ko", exit: 1,
			want: []string{`waiting for klpc load /modules/livepatch_stop.ko \(process \d+\), which holds /run/klpc.lock`, `is held by klpc load .*, for longer than 1s`}},
		{name: "reverse", script: "klpc reverse livepatch_stop; code=$?; sleep 1; echo load said; cat /tmp/out; klpc status; klpc unload livepatch_stop; exit $code",
			want: []string{`^livepatch_stop: disabled$`, `the transition was turned round by somebody else`, `only its module is left`, `^livepatch_stop: not loaded$`}},
		{name: "interrupted", script: `
klpc load --wait 20m /modules/livepatch_stop.ko >/tmp/out 2>&1 &
pid=$!` + transitionOf("livepatch_stop") + `sleep 1; kill -TERM $pid; wait $pid; code=$?; cat /tmp/out; ` + gone + `; exit $code`, exit: 1,
			want: []string{`livepatch_stop: interrupted; it was reversed and unloaded: the system is as before`, `get_signal`, `^gone$`}},
		{name: "leave", script: `
klpc load --wait 1s --on-timeout leave /modules/livepatch_stop.ko; echo exit $?
klpc load --wait 1s /modules/livepatch_stop.ko; echo again $?` + goOn + `klpc status --wait enabled --timeout 60s`,
			want: []string{`it goes on \(enabling\): klpc status livepatch_stop shows it`, `^exit 1$`, `^again 1$`, `^livepatch_stop: enabled$`}},
		{name: "disabling stalls", script: stop + "klpc disable --wait 2s livepatch_stop; code=$?; klpc status; exit $code", exit: 1,
			want: []string{`it was reversed: livepatch_stop is enabled, as before`, `in the patched function get_signal \[livepatch_stop\]`, `^livepatch_stop: enabled$`}},
		{name: "enable while disabling", script: `
klpc disable --wait 0 livepatch_stop; klpc status; klpc enable livepatch_stop && klpc status`,
			want: []string{`^livepatch_stop: disabling, `, `^livepatch_stop: enabled$`}},
		{name: "unload when it goes on", script: goOn + "klpc unload livepatch_stop", want: []string{`^livepatch_stop: not loaded$`}},
		{name: "force", script: stop + `
klpc load --wait 1s --on-timeout leave /modules/livepatch_stop.ko
klpc force --yes --wait 3m livepatch_stop && klpc status` + goOn + `klpc unload livepatch_stop`,
			want: []string{`^livepatch_stop: enabled$`, `^livepatch_stop: not loaded$`}},
		{name: "force after", script: stop + "klpc load --force-after 2s /modules/livepatch_stop.ko" + goOn + "klpc unload --all",
			want: []string{`not complete after 2s: it is forced`, `^livepatch_stop: enabled$`, `^livepatch_stop: not loaded$`}},
	}
}

// stacked: two livepatches of one function, and one in place of both.
func stacked(k kernel) []command {
	replace := "unknown"
	if k.series != "6.1" {
		replace = "no"
	}
	return []command{
		{name: "two at once", script: "klpc load /modules/livepatch_one.ko /modules/livepatch_two.ko && grep -q version=2 /proc/cmdline && grep -q ^one /proc/loadavg; code=$?; klpc status; klpc list; exit $code",
			want: []string{`order 1 of 2 \(from the order of /proc/modules\), replaces others: ` + replace, `order 2 of 2`, `(?s)^livepatch_one: enabled.*^livepatch_two: enabled`}},
		{name: "record stack", script: recordTree},
		{name: "replace would drop", script: "klpc load /modules/livepatch_less.ko; code=$?; klpc list; exit $code", exit: 1,
			want: []string{`atomic replace: it replaces all livepatches that are loaded, and does not patch what they fix: loadavg_proc_show \(vmlinux, by livepatch_one\)`,
				`--allow-drop`, `livepatch_less: it is not loaded`, `livepatch_two +enabled`}},
		{name: "replace both", script: "klpc load /modules/livepatch_all.ko && grep -q version=1 /proc/cmdline && grep -q ^one /proc/loadavg; code=$?; klpc status; exit $code",
			want: []string{`^livepatch_all: enabled$`, `^livepatch_one: replaced;`, `^livepatch_two: replaced;`, `^livepatch_one: disabled$`}},
		{name: "allow drop", script: "klpc load --allow-drop /modules/livepatch_less.ko && grep -q version=2 /proc/cmdline && ! grep -q ^one /proc/loadavg",
			want: []string{`atomic replace: the fixes of these functions are lost: loadavg_proc_show`, `^livepatch_all: replaced;`}},
		{name: "unload all", script: "klpc unload --all && ! grep livepatch_ /proc/modules; code=$?; klpc unload --all; exit $code",
			want: []string{`^livepatch_less: not loaded$`, `^livepatch_one: not loaded$`}},
	}
}

// lateModule: the livepatch is there before the module that it patches.
func lateModule() []command {
	reads := dummyReads("4242")
	return []command{
		{name: "late module", script: "klpc load --dry-run /modules/livepatch_late.ko | grep objects; klpc load /modules/livepatch_late.ko && klpc status",
			want: []string{`^  objects +ok +not loaded, patched as soon as they are: dummy`, `^  dummy: waits for the module to be loaded$`, `^    dummy_get_stats64$`}},
		{name: "record late", script: recordTree},
		{name: "module comes", script: "insmod /modules/dummy.ko && " + reads + " && klpc status", want: []string{`^  dummy: patched$`}},
		{name: "module goes", script: "rmmod dummy && klpc status && klpc unload late", want: []string{`^  dummy: waits for`, `^livepatch_late: not loaded$`}},
		{name: "a module that is no livepatch", script: "insmod /modules/dummy.ko; klpc unload dummy; code=$?; rmmod dummy; exit $code", exit: 1, want: []string{`dummy is a module, but no livepatch`}},
	}
}

// probed: kprobes on the functions.
func probed() []command {
	return []command{
		{name: "kprobe on the entry", script: `
cd /sys/kernel/tracing
echo 'p:klpc/entry cmdline_proc_show' >kprobe_events && echo 1 >events/klpc/entry/enable || exit 9
klpc load /modules/livepatch_one.ko; code=$?
cat /proc/cmdline; grep -c 'entry:' trace; grep cmdline_proc_show enabled_functions; cat ../debug/kprobes/list
exit $code`,
			want: []string{`note: kprobes: a kprobe is on the entry of cmdline_proc_show`, `^livepatch_one: enabled$`, `version=1$`, `^1$`}},
		{name: "record kprobe", script: recordTree},
		{name: "kprobe goes", script: "cd /sys/kernel/tracing; echo 0 >events/klpc/entry/enable; echo >kprobe_events; klpc unload one", want: []string{`not loaded$`}},
		{name: "kprobe inside", script: `
cd /sys/kernel/tracing
off=16; while [ $off -lt 64 ]; do
	echo "p:klpc/inside loadavg_proc_show+$off" >kprobe_events 2>/dev/null && echo 1 >events/klpc/inside/enable 2>/dev/null && break
	off=$((off + 1))
done
klpc load --dry-run /modules/livepatch_one.ko
cat ../debug/kprobes/list; echo 0 >events/klpc/inside/enable; echo >kprobe_events`,
			want: []string{`^  kprobes +warning +a kprobe is inside of loadavg_proc_show, at \+0x`, `is not hit any more`}},
		{name: "function tracer", script: `
cd /sys/kernel/tracing
echo cmdline_proc_show >set_ftrace_filter && echo function >current_tracer
klpc load --dry-run /modules/livepatch_one.ko; grep cmdline enabled_functions
echo nop >current_tracer; echo >set_ftrace_filter`, want: []string{`^  ftrace users +warning +cmdline_proc_show is traced`}},
	}
}

// traced: a BPF program on the entry of a function goes on to work with the
// livepatch, in whichever order they come (since Linux 6.0).
func traced() []command {
	return []command{
		{name: "BPF", script: `
cat >/tmp/with-bpf <<'END'
grep cmdline_proc_show /sys/kernel/tracing/enabled_functions
klpc load /modules/livepatch_one.ko && grep -q version=1 /proc/cmdline && klpc unload one
END
fentry cmdline_proc_show sh /tmp/with-bpf`,
			want: []string{`note: ftrace users: a BPF trampoline is attached to cmdline_proc_show \(1 user`, `^livepatch_one: enabled$`, `^livepatch_one: not loaded$`}},
	}
}

// unprivileged: as a user.
func unprivileged() []command {
	return []command{
		{name: "user", script: `
klpc load /modules/livepatch_one.ko
su user -c 'klpc status'; echo status $?
su user -c 'klpc load /modules/livepatch_two.ko'; echo load $?
su user -c 'klpc load --dry-run /modules/livepatch_two.ko'; echo dry $?
su user -c 'klpc unload livepatch_one'; echo unload $?`,
			want: []string{`^livepatch_one: enabled$`, `^    cmdline_proc_show$`, `^status 0$`, `load needs root, and this is user 1000`, `^load 1$`, `^dry 0$`, `^unload 1$`, `^  kprobes +unknown +the list of kprobes cannot be read: /sys/kernel/debug/kprobes/list: permission denied`}},
		{name: "user in a transition", script: stop + `
klpc load --wait 0 /modules/livepatch_stop.ko >/dev/null 2>&1
su user -c 'klpc status'` + goOn + "klpc unload --all",
			want: []string{`^livepatch_stop: enabling, \d+ of \d+ tasks have switched, \d+ cannot be read$`, `^cannot be read$`, `/proc/\*/patch_state: permission denied`, `^livepatch_one: not loaded$`}},
	}
}

// policies: what an administrator can forbid; nothing of it can be taken back.
func policies() []command {
	return []command{
		{name: "sig_enforce", script: "echo 1 >/sys/module/module/parameters/sig_enforce; klpc load /modules/livepatch_one.ko", exit: 1,
			want: []string{`signature: it is not signed, and module.sig_enforce is set`, `klpc sign`}},
		{name: "lockdown", script: "echo integrity >/sys/kernel/security/lockdown && klpc load /modules/livepatch_one.ko", exit: 1,
			want: []string{`the kernel is locked down \(integrity\)`}},
		{name: "modules_disabled", script: "echo 1 >/proc/sys/kernel/modules_disabled; klpc load /modules/livepatch_one.ko", exit: 1,
			want: []string{`loading modules has been switched off \(kernel.modules_disabled\)`}},
	}
}
