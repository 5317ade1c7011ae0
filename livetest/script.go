package livetest

// The guest's side. Each step becomes a small shell script of its own in /steps,
// so that no command needs quoting; /init runs them and reports on the second
// serial port, where no kernel message comes between:
//
//	@klpc hello                          once
//	@klpc begin STEP UPTIME              STEP counts from 0, UPTIME in seconds
//	@klpc end STEP EXIT UPTIME SIZE CUT  then SIZE bytes of output and a newline;
//	                                     CUT bytes were left out at its end
//	@klpc log SIZE                       then SIZE bytes of kernel log and a newline
//	@klpc done
//
// Marks in the kernel log tell which of its lines belong to which step.

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/klpc/klpc/internal/modname"
	"github.com/klpc/klpc/internal/vm"
)

const (
	frameMark = "@klpc" // begins each line of the protocol
	logMark   = "klpc:" // begins the text of each mark in the kernel log
	// maxOutput is how much of a step's output is reported, in bytes.
	maxOutput = 64 << 10
	// waitLimit is how long a transition may take, in seconds of the guest. The
	// kernel itself prods tasks that do not switch after 15.
	waitLimit = 60
	// busyLimit is how long a module may be in use before it is removed, in
	// seconds of the guest: the kernel frees a disabled livepatch a little later.
	busyLimit = 10
	// dependencyFailed is the exit status of loading a module when a module that
	// it depends on cannot be loaded. insmod itself never gives it.
	dependencyFailed = 125
	// killed is the exit status of a step that took too long: 128 + SIGKILL.
	killed = 137
)

// modulePath is where a module lies in the guest.
func modulePath(name string) string { return "modules/" + modname.Canonical(name) + ".ko" }

func stepPath(i int) string { return "steps/" + strconv.Itoa(i) }

// functions is what the steps may use: up prints the guest's whole seconds; busy
// lists the tasks that have not reached a state of a transition (idle tasks have
// no folder in /proc); await waits while pending holds.
const functions = `up() {
	read -r up_now up_rest </proc/uptime
	echo "${up_now%.*}"
}
busy() {
	for busy_file in /proc/[0-9]*/task/[0-9]*/patch_state; do
		read -r busy_state <"$busy_file" || continue
		[ "$busy_state" = "$1" ] && continue
		busy_task=${busy_file%/patch_state}
		read -r busy_name <"$busy_task/comm"
		echo "task ${busy_task##*/} ($busy_name) is in state $busy_state, not $1; its stack:"
		cat "$busy_task/stack"
	done
} 2>/dev/null
await() {
	start=$(up)
	slow=$((start + 5))
	while pending; do
		now=$(up)
		if [ "$now" -ge "$slow" ]; then
			echo "not complete after $((now - start)) s"
			busy "$2"
			[ "$now" -lt $((start + $1)) ] || exit 1
			slow=$((start + $1))
		fi
		sleep 0.1
	done
}
`

// stepScript is the shell script of one step. order is, for a module to load, the
// modules to load, that one last.
func stepScript(s Step, order []string) string {
	name := modname.Canonical(s.Subject)
	sys := "/sys/kernel/livepatch/" + name
	switch s.Kind {
	case KindInsmod:
		var b strings.Builder
		for _, dep := range order[:len(order)-1] {
			fmt.Fprintf(&b, "[ -e /sys/module/%s/initstate ] || insmod /%s || exit %d\n", dep, modulePath(dep), dependencyFailed)
		}
		fmt.Fprintf(&b, "exec insmod /%s\n", modulePath(name))
		return b.String()
	case KindRmmod:
		return functions + fmt.Sprintf(`[ -e /sys/module/%[1]s ] || { echo "%[1]s is not loaded"; exit 1; }
end=$(($(up) + %[2]d))
until said=$(rmmod %[1]s 2>&1); do
	[ "$(up)" -lt $end ] || { echo "$said"; exit 1; }
	sleep 0.1
done
`, name, busyLimit)
	case KindTransition:
		return functions + fmt.Sprintf(`[ -e %[1]s ] || { echo "%[2]s is not an active livepatch"; exit 1; }
read -r want <%[1]s/enabled
pending() { read -r state 2>/dev/null <%[1]s/transition && [ "$state" != 0 ]; }
await %[3]d "$want"
`, sys, name, waitLimit)
	case KindDisable:
		return fmt.Sprintf("echo 0 >%s/enabled\n", sys)
	case KindGone:
		return functions + fmt.Sprintf("pending() { [ -e %s ]; }\nawait %d 0\n", sys, waitLimit)
	}
	return s.Subject + "\n"
}

// initHead begins /init. Its descriptor 3 is the second serial port. A step that
// has not ended after $limit seconds is killed, which gives 137.
const initHead = `#!/bin/sh
export PATH=/bin HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
[ -d /sys/kernel/debug ] && mount -t debugfs debugfs /sys/kernel/debug
[ -d /sys/kernel/tracing ] && mount -t tracefs tracefs /sys/kernel/tracing
cd /tmp
if ! stty -F /dev/ttyS1 raw -echo; then
	echo "klpc: the kernel has no second serial port (CONFIG_SERIAL_8250_RUNTIME_UARTS)"
	reboot -f
fi
exec 3>/dev/ttyS1
echo "@klpc hello" >&3
finish() {
	dmesg >/run/log
	echo "@klpc log $(wc -c </run/log)" >&3
	cat /run/log >&3
	echo >&3
	echo "@klpc done" >&3
	exec 3>&-
	reboot -f
}
run() {
	echo "<6>klpc: step $1 begins" >/dev/kmsg
	read -r now rest </proc/uptime
	echo "@klpc begin $1 $now" >&3
	timeout -s KILL "$limit" sh "/steps/$1" >/run/out 2>&1 </dev/null 3>&-
	exit=$?
	read -r now rest </proc/uptime
	head -c "$max" /run/out >/run/cut
	all=$(wc -c </run/out)
	size=$(wc -c </run/cut)
	echo "@klpc end $1 $exit $now $size $((all - size))" >&3
	cat /run/cut >&3
	echo >&3
	return $exit
}
`

// initScript is /init for a list of steps. limit is how long one step may take.
func initScript(steps []Step, limit time.Duration) string {
	var b strings.Builder
	b.WriteString(initHead)
	fmt.Fprintf(&b, "limit=%d max=%d\n", max(1, int(limit.Seconds())), maxOutput)
	for i, s := range steps {
		switch {
		case !s.stops() || s.Expect == Any:
			fmt.Fprintf(&b, "run %d\n", i)
		case s.Expect == Fail:
			fmt.Fprintf(&b, "run %d && finish\n", i)
		default:
			fmt.Fprintf(&b, "run %d || finish\n", i)
		}
	}
	b.WriteString("finish\n")
	return b.String()
}

// guestFiles is what the initramfs holds besides busybox and /init.
func guestFiles(steps []Step, mods *modules) ([]vm.File, error) {
	var files []vm.File
	for i, s := range steps {
		var order []string
		if s.Kind == KindInsmod {
			var err error
			if order, err = mods.order(s.Subject); err != nil {
				return nil, err
			}
		}
		files = append(files, vm.File{Path: stepPath(i), Mode: vm.ModeRegular | 0o755,
			Data: []byte(stepScript(s, order))})
	}
	for _, m := range mods.loaded() {
		files = append(files, vm.File{Path: modulePath(m.name), Mode: vm.ModeRegular | 0o644, Data: m.data})
	}
	return files, nil
}
