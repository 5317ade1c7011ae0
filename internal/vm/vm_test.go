package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fakeQEMU writes a shell script that stands in for QEMU. In it $accel is the
// accelerator and $port the path of the second serial port.
func fakeQEMU(t *testing.T, body string) Config {
	t.Helper()
	dir := t.TempDir()
	head := `#!/bin/sh
while [ $# -gt 0 ]; do
	case $1 in
	-accel) accel=${2%%,*} ;;
	-initrd) initrd=$2 ;;
	file,id=port,path=*) port=${1#file,id=port,path=} ;;
	esac
	shift
done
`
	c := Config{QEMU: filepath.Join(dir, "qemu"), Kernel: filepath.Join(dir, "bzImage"), Initrd: []byte("the initrd\n"), Accel: TCG}
	for path, text := range map[string]string{c.QEMU: head + body, c.Kernel: ""} {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func TestBootOutput(t *testing.T) {
	c := fakeQEMU(t, `echo "console line"; cat "$initrd" >"$port"; printf 'last\r\n'`)
	var console, port bytes.Buffer
	c.Console, c.Port = &console, &port
	got, err := Boot(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	got.Wall = 0
	want := &Result{Accel: TCG, End: Stopped, Spoke: true, Console: []string{"console line", "last"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff("console line\nlast\r\n", console.String()); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff("the initrd\n", port.String()); d != "" {
		t.Error(d)
	}
}

// gone tells whether the process whose number a file holds has ended. A dead one that
// nobody has waited for is gone, too: in a container there may be no init to do so.
func gone(t *testing.T, pidFile string) bool {
	t.Helper()
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if errors.Is(err, os.ErrNotExist) || strings.Contains(string(stat), ") Z ") {
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	return false
}

func TestBootEnds(t *testing.T) {
	tests := []struct {
		name, body string
		timeout    time.Duration
		cancel     bool // once the port speaks
		silence    time.Duration
		accel      Accel
		end        End
		err        string
		noLife     bool
	}{
		{name: "time is over", body: "echo on; sleep 60", timeout: 300 * time.Millisecond, accel: TCG, end: TimedOut},
		{name: "interrupted", body: "echo x >$port; sleep 60", cancel: true, accel: TCG, err: "context canceled"},
		{name: "QEMU fails at once", body: "echo 'cannot set up' >&2; exit 1", accel: TCG,
			err: "tcg: qemu: exit status 1:\ncannot set up", noLife: true},
		{name: "QEMU fails later", body: "echo x >$port; sleep 0.3; echo 'lost it' >&2; exit 1", accel: TCG,
			err: "qemu: exit status 1:\nlost it"},
		{name: "silent", body: "sleep 60", silence: 200 * time.Millisecond, accel: KVM,
			err: "kvm: the guest gave no sign of life for 200ms", noLife: true},
		{name: "silent after some lines", body: "echo booting; sleep 60", silence: 300 * time.Millisecond, accel: KVM,
			err: "kvm: the guest gave no sign of life for 300ms", noLife: true},
		{name: "silent once it spoke", body: "echo x >$port; sleep 1", silence: 300 * time.Millisecond, accel: KVM, end: Stopped},
		{name: "never silent for long", body: "for i in 1 2 3 4 5 6; do echo $i; sleep 0.1; done", silence: 400 * time.Millisecond,
			accel: KVM, end: Stopped},
		{name: "KVM gives up", body: "echo 'KVM internal error. Suberror: 1' >&2; sleep 60", silence: time.Minute, accel: KVM,
			err: "kvm: KVM internal error", noLife: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pid := filepath.Join(t.TempDir(), "pid")
			c := fakeQEMU(t, "echo $$ >"+pid+"\n"+tt.body+"\n:")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tt.cancel {
				c.Port = writerFunc(func(b []byte) (int, error) { cancel(); return len(b), nil })
			}
			c.Timeout = tt.timeout
			start := time.Now()
			res, err := bootOnce(ctx, c, tt.accel, tt.silence)
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
			if !gone(t, pid) {
				t.Error("QEMU is still there")
			}
			if tt.err == "" {
				if err != nil || res.End != tt.end {
					t.Fatalf("got %v, %v, want %s", res, err, tt.end)
				}
				return
			}
			var dead *noLifeError
			if err == nil || !strings.Contains(err.Error(), tt.err) || errors.As(err, &dead) != tt.noLife {
				t.Errorf("got %v, want %s (no life: %v)", err, tt.err, tt.noLife)
			}
		})
	}
}

func TestBootAuto(t *testing.T) {
	if err := kvmUsable(); err != nil {
		t.Skipf("KVM cannot be tried here: %v", err)
	}
	tests := []struct {
		name, kvm, note string
	}{
		{"fails", "echo 'no such CPU' >&2; exit 1", "KVM did not work, took TCG: kvm: qemu: exit status 1:\nno such CPU"},
		{"stops early", "echo booting", "KVM did not work, took TCG: kvm: the guest stopped before it said anything"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := fakeQEMU(t, "if [ $accel = kvm ]; then "+tt.kvm+"; else echo alive >$port; fi")
			c.Accel, c.Port = Auto, &bytes.Buffer{}
			got, err := Boot(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			got.Wall = 0
			want := &Result{Accel: TCG, Notes: []string{tt.note}, End: Stopped, Spoke: true}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestSilenceLimit(t *testing.T) {
	for _, tt := range []struct {
		asked, accel Accel
		want         time.Duration
	}{
		{Auto, KVM, silenceAuto},
		{KVM, KVM, silenceKVM},
		{Auto, TCG, 0}, // KVM could not even be tried
		{TCG, TCG, 0},
	} {
		if got := silenceLimit(tt.asked, tt.accel); got != tt.want {
			t.Errorf("%s asked for, %s: got %v, want %v", tt.asked, tt.accel, got, tt.want)
		}
	}
}

func TestBootRefuses(t *testing.T) {
	c := Config{QEMU: "no-such-qemu", Kernel: "no-such-kernel", Accel: "fast"}
	_, err := Boot(t.Context(), c)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"QEMU not found (install the package qemu-system-x86)",
		"kernel image: open no-such-kernel",
		`unknown accelerator "fast": tcg, kvm or auto`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
}

func TestArguments(t *testing.T) {
	c := Config{Kernel: "bzImage", Append: "loglevel=7"}.withDefaults()
	tests := []struct {
		accel Accel
		want  string
	}{
		{TCG, "qemu-system-x86_64 -accel tcg,thread=single -cpu max,la57=off -m 512 -smp 2 -kernel bzImage -initrd I " +
			"-append console=ttyS0 panic=-1 tsc=unstable no_timer_check loglevel=7 -nodefaults -display none -monitor none " +
			"-no-reboot -serial stdio -chardev file,id=port,path=P -serial chardev:port"},
		{KVM, "qemu-system-x86_64 -accel kvm -cpu host -m 512 -smp 2 -kernel bzImage -initrd I " +
			"-append console=ttyS0 panic=-1 loglevel=7 -nodefaults -display none -monitor none " +
			"-no-reboot -serial stdio -chardev file,id=port,path=P -serial chardev:port"},
	}
	for _, tt := range tests {
		t.Run(string(tt.accel), func(t *testing.T) {
			if d := cmp.Diff(tt.want, strings.Join(arguments(c, tt.accel, "I", "P"), " ")); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestArgumentsDisks(t *testing.T) {
	c := Config{Kernel: "bzImage", Disks: []string{"/tmp/a.img", "/tmp/b,c.img"}}.withDefaults()
	got := arguments(c, TCG, "I", "P")
	want := []string{"-drive", "if=virtio,format=raw,file=/tmp/a.img", "-drive", "if=virtio,format=raw,file=/tmp/b,,c.img"}
	if d := cmp.Diff(want, got[len(got)-len(want):]); d != "" {
		t.Error(d)
	}
}

func TestBootKillsGrandchildren(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	c := fakeQEMU(t, "sleep 60 & echo $! >"+pid+"; wait")
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := Boot(ctx, c); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if !gone(t, pid) {
		t.Error("the grandchild is still there")
	}
}

func TestTail(t *testing.T) {
	var last tail
	line := strings.Repeat("x", 1022) + "\r\n"
	for i := range 3 * tailSize / len(line) {
		fmt.Fprintf(&last, "%04d%s", i, line[4:])
	}
	got := last.lines()
	if len(got) < tailSize/len(line)-1 || len(got[0]) != 1022 || !strings.HasPrefix(got[len(got)-1], "0767") {
		t.Errorf("%d lines, first %d bytes, last %.8q", len(got), len(got[0]), got[len(got)-1])
	}
}
